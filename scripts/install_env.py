"""Make a virtual environment hold exactly one lock; instant when it already does. Standard library only, no root."""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# pip's settings that uv reads under another name; without them a mirror, proxy or own CA would be ignored.
UV_NAMES = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE", "proxy": "HTTPS_PROXY"}


def locks_of(name: str) -> list[Path]:
    return [path for path in (REQUIREMENTS / f"{name}.lock", REQUIREMENTS / f"{name}-torch.lock") if path.exists()]


def digest(paths: list[Path]) -> str:
    """What an environment was made of: this Python and these files, comments aside."""
    lines = [line for path in paths for line in path.read_text().splitlines() if not line.startswith("#")]
    return hashlib.sha256("\n".join([sys.version, *lines]).encode()).hexdigest()


def run(*command: str | Path, env: dict[str, str] | None = None) -> bool:
    return subprocess.run([str(word) for word in command], env=env, check=False).returncode == 0  # noqa: S603


def pip_settings(python: Path) -> dict[str, str]:
    """pip's own configuration (files and PIP_* variables), by option name without its section."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)  # noqa: S603
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    return {key.rpartition(".")[2]: value.strip("'\"") for key, _, value in pairs}


def uv_environment(python: Path) -> dict[str, str]:
    settings = pip_settings(python)
    mapped = {variable: settings[name] for name, variable in UV_NAMES.items() if name in settings}
    return {**mapped, **os.environ, "VIRTUAL_ENV": str(python.parent.parent)}


def install_lock(python: Path, lock: Path) -> bool:
    """uv takes seconds; pip, which takes minutes, is for where uv cannot reach what pip can."""
    pip = (python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r")
    if run(*pip, REQUIREMENTS / "bootstrap.lock"):
        uv = (python, "-m", "uv", "pip", "install", "--no-deps", "--require-hashes", "-r", lock)
        if run(*uv, env=uv_environment(python)):
            return True
        print("uv could not install the lock; trying pip", file=sys.stderr)
    return run(*pip, lock)


def install_torch(python: Path, lock: Path) -> bool:
    """From where pip finds it by default (PIP_FIND_LINKS, a mirror), else from PyTorch's own CPU index."""
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "-r", lock)
    return run(*pip) or run(*pip, "--index-url", TORCH_INDEX)


def install_self(python: Path) -> bool:
    """Editable, in seconds; setuptools warns of folders named like packages, which is how an editable install works.

    The compatible mode puts the project's folder on the path, so that `python benchmarks/throughput.py` works as well.
    """
    command = (
        python,
        "-W",
        "ignore",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--config-settings",
        "editable_mode=compat",
        "-e",
        ROOT,
    )
    return run(*command, env={**os.environ, "PYTHONWARNINGS": "ignore"})


def build(target: Path, locks: list[Path]) -> bool:
    """Build `target` from nothing, so that nothing of an earlier lock stays."""
    shutil.rmtree(target, ignore_errors=True)
    venv.create(target, with_pip=True, symlinks=True)
    python = target / "bin" / "python"
    main, *torch = locks
    # torch first: it is what may not be found, and the largest file
    return all(install_torch(python, lock) for lock in torch) and install_lock(python, main)


def once(stamp: Path, wanted: str, what: str, step: Callable[[], bool]) -> None:
    """Take the step unless the stamp says that it was taken for the same inputs."""
    if stamp.exists() and stamp.read_text() == wanted:
        return
    started = time.monotonic()
    print(f"Installing {what} into {stamp.parent}", flush=True)
    if not step():
        raise SystemExit(f"{what}: not installed. Check the network and pip's index, then run this again.")
    stamp.write_text(wanted)
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", help="name in requirements/, such as cpu or gpu")
    parser.add_argument("target", type=Path, help="folder of the virtual environment")
    arguments = parser.parse_args()
    target: Path = arguments.target.absolute()
    locks, project = locks_of(arguments.lock), [ROOT / "pyproject.toml", Path(__file__)]
    once(target / ".locked", digest(locks), f"requirements/{arguments.lock}.lock", lambda: build(target, locks))
    once(target / ".installed", digest(project), "tidemill", lambda: install_self(target / "bin" / "python"))


if __name__ == "__main__":
    main()
