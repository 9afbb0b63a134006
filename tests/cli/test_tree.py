"""The children of a process, looked up in two ways."""

import os
import subprocess
import sys
import threading

from tidemill.up import tree

# A subreaper: what a killed child leaves behind is its own.
_ADOPTING = """
import os, subprocess, sys
from tidemill.up import tree
from tidemill.up.prctl import become_subreaper

become_subreaper()
between = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; exec sleep 60"], stdout=subprocess.PIPE, text=True)
orphan = int(between.stdout.readline())
assert tree.known_children(os.getpid()) == [between.pid]
between.kill()
between.wait()
assert tree.known_children(os.getpid()) == tree.children(os.getpid()) == [orphan]
tree.kill_descendants(os.getpid())
assert tree.known_children(os.getpid()) == []
"""


def test_children_of_all_threads_are_known() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(subprocess.Popen(["sleep", "60"]))

    try:
        start()
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        known = tree.known_children(os.getpid())
        assert {process.pid for process in started} <= set(known)
        assert sorted(known) == sorted(tree.children(os.getpid()))
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_orphans_are_children_of_whoever_adopts_them() -> None:
    subprocess.run([sys.executable, "-c", _ADOPTING], timeout=60, check=True)
