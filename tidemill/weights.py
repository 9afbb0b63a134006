"""Digests over weight files, taken once and remembered by path, size and time of change."""

import contextlib
import hashlib
import json
import stat
from pathlib import Path

__all__ = ["Fingerprint", "WeightDigests", "file_stamps", "fingerprint", "no_weights", "weight_bytes"]

Fingerprint = tuple[tuple[str, int, int], ...]
_FORMATS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_BLOCK = 1 << 22


def fingerprint(folder: Path) -> Fingerprint:
    """Name, size in bytes and time of change (ns) of each weight file, by name. Only the best format counts."""
    found = (file_stamps(folder, pattern) for pattern in _FORMATS)
    return next(filter(None, found), ())


def file_stamps(folder: Path, pattern: str) -> Fingerprint:
    """Name, size in bytes and time of change (ns) of the files that match, by name; none for a missing folder."""
    found: list[tuple[str, int, int]] = []
    for path in sorted(folder.glob(pattern)):
        # A file may go while the folder is read: another process is copying into it.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((path.name, status.st_size, status.st_mtime_ns))
    return tuple(found)


def weight_bytes(files: Fingerprint) -> int:
    """Bytes of the files together."""
    return sum(size for _, size, _ in files)


def no_weights(folder: Path) -> str:
    """What is said of a folder without weight files."""
    return f"{folder} holds no weight files ({', '.join(_FORMATS)}): put them there, or name another"


class WeightDigests:
    """SHA-256 (hex) over the names and digests of a model's weight files, in name order.

    Args:
        cache: JSON file that remembers digests of single files over restarts.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def digest(self, folder: Path, files: Fingerprint) -> str:
        """Digest of the files; those unchanged since they were last read are not read again."""
        known = self._load()
        total = hashlib.sha256()
        for name, size, changed in files:
            key = f"{(folder / name).resolve()}|{size}|{changed}"
            if key not in known:
                known[key] = _file_digest(folder / name)
                self._save(known)
            total.update(f"{name}\0{known[key]}\n".encode())
        return total.hexdigest()

    def _load(self) -> dict[str, str]:
        try:
            return dict(json.loads(self._cache.read_text()))
        except (OSError, ValueError):
            return {}

    def _save(self, known: dict[str, str]) -> None:
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._cache.with_name(f".{self._cache.name}.new")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.replace(self._cache)


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
