"""The folder of the embedded mode: its lock, its secrets, and the note that tells clients where the service is."""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidemill.client.settings import UP_FILE
from tidemill.errors import Reason, TidemillError

TENANT = "dev"


@dataclass(frozen=True)
class Home:
    """Paths below `TIDEMILL_HOME`."""

    root: Path

    @property
    def logs(self) -> Path:
        """Standard output and error of each process, `<name>.log`."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Ready files of the processes."""
        return self.root / "run"

    @property
    def tiny_model(self) -> Path:
        """The generated model."""
        return self.root / "models" / "tiny"

    @property
    def dagster(self) -> Path:
        """`DAGSTER_HOME`."""
        return self.root / "dagster"

    @property
    def keys_file(self) -> Path:
        """Hashed API keys."""
        return self.root / "keys.json"

    @property
    def up_file(self) -> Path:
        """Where clients look for the running service."""
        return self.root / UP_FILE

    def prepare(self) -> None:
        """Make the folders; the home itself is for its owner only."""
        for folder in (self.root, self.logs, self.run, self.dagster):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def rotate_logs(self) -> None:
        """Set the logs of the run before aside, so that they never grow over more than two runs."""
        for log in self.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Hold the home for one supervisor; a second one is refused."""
        descriptor = os.open(self.root / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TidemillError(Reason.UNAVAILABLE, self._busy()) from None
        else:
            yield
        finally:
            os.close(descriptor)

    def _busy(self) -> str:
        try:
            pid = json.loads(self.up_file.read_bytes()).get("pid")
            holder = f"process {pid}"
        except (OSError, ValueError):
            holder = "another process"
        return f"{holder} runs `tidemill up` on {self.root} already; use that one, stop it, or choose another --home"

    def pepper(self) -> str:
        """The secret under which API keys are hashed, made at the first call."""
        return self._secret("pepper", lambda: secrets.token_hex(32))

    def development_key(self) -> str:
        """The admin key of the tenant `dev`, made at the first call and whenever the stored one is valid no more."""
        from tidemill.keys import create_key, hash_key, list_keys

        pepper = self.pepper()

        def current() -> str:
            return self._secret("dev-key", lambda: create_key(self.keys_file, pepper, TENANT, admin=True))

        key, now = current(), datetime.now(UTC)
        valid = {known for record in list_keys(self.keys_file) if record.admin for known in record.hashes(now)}
        if hash_key(pepper, key) not in valid:
            (self.root / "dev-key").unlink()
        return current()

    def _secret(self, name: str, make: Callable[[], str]) -> str:
        path = self.root / name
        with contextlib.suppress(FileNotFoundError):
            return path.read_text().strip()
        secret = make()
        write_private(path, secret + "\n")
        return secret

    def announce(self, fields: Mapping[str, Any]) -> None:
        """Write `up.json` for the clients of this user."""
        write_private(self.up_file, json.dumps(fields, indent=1) + "\n")

    def withdraw(self) -> None:
        """Remove `up.json`."""
        self.up_file.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write `path` atomically with mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
