"""`make redis`: see that a redis-server is here; install Debian's where that takes no password. Never fails a build.

Where it cannot be had, the tests that need it fail and say how to get it.
"""

import os
import shutil
import subprocess
import sys

COMMAND = "sudo apt-get install redis-server"


def installers() -> list[list[str]]:
    """What to run, as root; empty where that would ask for a password or there is no apt."""
    if not shutil.which("apt-get"):
        return []
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if as_root and not shutil.which("sudo"):
        return []
    # No server of the package's own: ours are started by who needs one.
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    install = [*as_root, *quiet, "apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "redis-server"]
    return [install, [*as_root, "apt-get", "update", "--quiet"], install]


def main() -> int:
    for command in installers():
        if shutil.which("redis-server"):
            break
        subprocess.run(command, check=False)  # noqa: S603
    if not shutil.which("redis-server"):
        print(f"redis-server is missing, and the tests of the Redis ledger need it; run: {COMMAND}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
