"""Compile `requirements/*.in` to exact locks, or with `--check` say which lock drifted (offline)."""

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
TORCH_LOCK = "cpu-torch.lock"
HEADER = "# Compiled by `make lock` from {sources}; do not edit.\n# inputs-sha256: {digest}\n"
PLATFORM = (
    "implementation_name == 'cpython'",
    "platform_machine == 'x86_64'",
    "platform_python_implementation != 'PyPy'",
    "sys_platform == 'linux'",
)


@dataclass(frozen=True)
class Lock:
    """One environment: the `.in` files it is made of, and the lock whose pins it takes over where it can.

    `everywhere`: it holds on other systems than Linux x86-64 too.
    """

    inputs: tuple[str, ...]
    overrides: str = ""
    everywhere: bool = False
    follows: str = "cpu"
    without: tuple[str, ...] = ()

    def sources(self) -> list[str]:
        return [f"{name}.in" for name in (*self.inputs, self.overrides) if name]


LOCKS = {
    "cpu": Lock(
        ("client", "server", "cpu", "dagster", "dev"), overrides="cpu-overrides", follows="", without=("torch",)
    ),
    "server": Lock(("client", "server")),
    "dagster": Lock(("client", "dagster")),
    "gpu": Lock(("client", "server", "gpu", "dagster", "dev"), follows="server"),
    "client": Lock(("client",), everywhere=True),
    "bootstrap": Lock(("bootstrap",), everywhere=True),
}


def digest_of(lock: Lock, folder: Path) -> str:
    """SHA-256 over the direct requirements; comments and blank lines do not count."""
    lines = [str(requirement) for name in lock.sources() for requirement in read_requirements(folder / name)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_requirements(path: Path) -> list[Requirement]:
    """The requirements of a `.in` or `.lock` file, without hashes and comments."""
    lines = (re.split(r"\s+#|^#|\s+\\$", line)[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("--")]


def drift(folder: Path = FOLDER) -> list[str]:
    """One message for each way in which a lock disagrees with what it was compiled from."""
    return [problem for name, lock in LOCKS.items() for problem in lock_drift(name, lock, folder)]


def lock_drift(name: str, lock: Lock, folder: Path) -> list[str]:
    path = folder / f"{name}.lock"
    if not path.exists():
        return [f"{path.name}: missing; run `make lock`"]
    problems: list[str] = []
    if f"# inputs-sha256: {digest_of(lock, folder)}" not in path.read_text().splitlines():
        problems.append(f"{path.name}: its inputs changed since it was compiled; run `make lock`")
    pins = pinned(path, *([folder / TORCH_LOCK] if lock.without else []))
    for source in lock.inputs:
        problems += [
            f"{path.name}: {requirement} of {source}.in is not met by {pins.get(canonicalize_name(requirement.name))}"
            for requirement in read_requirements(folder / f"{source}.in")
            if not is_met(requirement, pins)
        ]
    return problems + [f"{path.name}: {name} is not pinned" for name, version in pins.items() if not version]


def pinned(*paths: Path) -> dict[str, str]:
    """Version by canonical name; empty where a line is not `name==version`."""
    pins: dict[str, str] = {}
    for requirement in (one for path in paths for one in read_requirements(path)):
        exact = [spec.version for spec in requirement.specifier if spec.operator == "=="]
        pins[canonicalize_name(requirement.name)] = exact[0] if len(exact) == 1 else ""
    return pins


def is_met(requirement: Requirement, pins: dict[str, str]) -> bool:
    version = pins.get(canonicalize_name(requirement.name))
    return bool(version) and requirement.specifier.contains(version or "", prereleases=True)


def compile_lock(name: str, lock: Lock, *, upgrade: bool, find_links: Path) -> None:
    """Resolve with uv; earlier pins stay unless `upgrade`."""
    path = FOLDER / f"{name}.lock"
    command = [*(sys.executable, "-m", "uv", "pip", "compile", "--universal", "--python-version", "3.11.0")]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet", f"--output-file={path}"]
    command += [f"--find-links={find_links}"] if lock.without else []
    command += ["--upgrade"] if upgrade else []
    command += ["--no-config"] if lock.everywhere else []
    command += [f"--no-emit-package={package}" for package in lock.without]
    command += [f"--override={FOLDER / lock.overrides}.in"] if lock.overrides else []
    command += [f"--constraint={FOLDER / lock.follows}.lock"] if lock.follows else []
    subprocess.run([*command, *(str(FOLDER / f"{one}.in") for one in lock.inputs)], check=True)  # noqa: S603
    header = HEADER.format(sources=", ".join(lock.sources()), digest=digest_of(lock, FOLDER))
    path.write_text(header + without_platform(path.read_text()))


def without_platform(text: str) -> str:
    """Drop the platform from the markers: uv repeats it on every line, and no other platform reads the lock."""
    return "\n".join(map(shortened, text.splitlines())) + "\n"


def shortened(line: str) -> str:
    pin, found, rest = line.partition(" ; ")
    if not found:
        return line
    marker = " and ".join(term for term in rest.removesuffix(" \\").split(" and ") if term not in PLATFORM)
    return pin + (f" ; {marker}" if marker else "") + " \\"


def stand_in_torch(folder: Path) -> str:
    """Write a wheel that is only the metadata of the installed CPU torch, and return its version.

    uv must see a wheel for each Python of the lock; where pip finds torch there may be one for this Python only.
    """
    found = metadata.distribution("torch")
    stem = f"torch-{found.version}"
    text = found.read_text("METADATA") or ""
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    wheel = "Wheel-Version: 1.0\nGenerator: tidemill\nRoot-Is-Purelib: false\nTag: py3-none-manylinux_2_28_x86_64\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-manylinux_2_28_x86_64.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", text)
        archive.writestr(f"{stem}.dist-info/WHEEL", wheel)
        archive.writestr(f"{stem}.dist-info/RECORD", f"{stem}.dist-info/METADATA,sha256={digest},{len(text)}\n")
    return found.version


def compile_all(names: list[str], *, upgrade: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        version = stand_in_torch(Path(temporary))
        why = "# Without hash: pip takes it from its find-links or from PyTorch's own index (scripts/install_env.py).\n"
        (FOLDER / TORCH_LOCK).write_text(f"{why}torch=={version}\n")
        for name in names:
            compile_lock(name, LOCKS[name], upgrade=upgrade, find_links=Path(temporary))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*LOCKS, []], help="locks to compile (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a lock drifted")
    parser.add_argument("--upgrade", action="store_true", help="take the newest allowed versions")
    arguments = parser.parse_args()
    if not arguments.check:
        compile_all(arguments.names or list(LOCKS), upgrade=arguments.upgrade)
        return 0
    problems = drift()
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
