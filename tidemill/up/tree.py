"""Process trees, read from /proc."""

import contextlib
import os
import signal
import time
from collections import defaultdict
from pathlib import Path


def descendants(root: int) -> list[int]:
    """Ids of all processes below `root`, parents first."""
    children = _children_by_parent()
    found: list[int] = []
    todo = [root]
    while todo:
        below = children[todo.pop()]
        found += below
        todo += below
    return found


def children(parent: int) -> list[int]:
    """Ids of the direct children of `parent`, dead ones that nobody has waited for included."""
    return _children_by_parent()[parent]


def known_children(parent: int) -> list[int]:
    """As `children`, from the kernel's own lists, at a cost that does not grow with the machine's processes.

    A child may be missing while another one ends: for looks that are repeated. Where the kernel keeps no lists, the
    same as `children`.
    """
    lists = sorted(Path(f"/proc/{parent}/task").glob("*/children"))
    if not lists:
        return children(parent)
    found: list[int] = []
    for item in lists:
        # A thread that ended meanwhile has left its children to another one.
        with contextlib.suppress(OSError):
            found += map(int, item.read_text().split())
    return found


def kill_all(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Send `number` to every process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def reap() -> dict[int, int]:
    """Wait for the children that have ended: exit status by process id, negative for a signal."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def kill_descendants(root: int) -> None:
    """Kill everything below this process, a subreaper, until nothing is left; forks during the killing included."""
    while below := descendants(root):
        kill_all(below)
        reap()
        time.sleep(0.005)


def _children_by_parent() -> defaultdict[int, list[int]]:
    table: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            table[parent].append(int(entry.name))
    return table


def _parent(entry: Path) -> int | None:
    try:
        text = (entry / "stat").read_bytes()
    except OSError:
        return None
    # The command name, in parentheses, may hold anything, parentheses and spaces included.
    return int(text[text.rindex(b")") + 2 :].split()[1])
