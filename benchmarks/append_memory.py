"""By how much the resident memory of a process grows at its peak (Linux)."""

import contextlib
from pathlib import Path

_KB_PER_MIB = 1024


class Memory:
    """Growth of one process from now on."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        # From here on the kernel's peak counts anew; where that is not allowed, an earlier peak counts as growth.
        with contextlib.suppress(OSError):
            (self._folder / "clear_refs").write_text("5")
        self._before = self._kilobytes("VmRSS")

    def growth_mb(self) -> float:
        """MiB between the peak since then and the size then."""
        return round((self._kilobytes("VmHWM") - self._before) / _KB_PER_MIB, 1)

    def _kilobytes(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
