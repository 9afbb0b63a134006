"""SeaweedFS as the S3 server of tests: a real process on loopback, with a bucket, an owner and a reader."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pyarrow import fs

from tests.system.processes import wait_for

PROGRAM = Path(sys.executable).parent / "weed"
BUCKET = "tidemill"
OWNER = ("tidemill-owner", "a-secret-of-tests")
READER = ("tidemill-reader", "another-secret-of-tests")
START_SECONDS = 120.0

_IDENTITIES = [
    {"name": "owner", "credentials": [OWNER], "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
    {"name": "reader", "credentials": [READER], "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"]},
]


@dataclass
class S3Server:
    """A running server.

    Attributes:
        endpoint: `http://127.0.0.1:port`, kept over restarts.
        folder: where it keeps everything.
    """

    endpoint: str
    folder: Path
    command: list[str]
    process: "subprocess.Popen[bytes] | None" = None

    def uri(self, prefix: str = "") -> str:
        """The place below `prefix` in the bucket, with the endpoint."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be its owner."""
        return credentials(OWNER)

    def start(self) -> None:
        """Start it and wait until its bucket is there."""
        self.spawn()
        wait_for(self._keeps_files, START_SECONDS, f"S3 server; see {self.folder}/weed.log")

    def spawn(self) -> None:
        """Start it."""
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                # Sockets that no option names go there.
                cwd=self.folder,
                env={**os.environ, "TMPDIR": str(self.folder)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keeps_files(self) -> bool:
        """Its parts find each other one by one: a bucket is there before its files can be read."""
        assert self.process
        assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-4000:]
        files = self.files()
        try:
            files.create_dir(BUCKET)
            with files.open_output_stream(f"{BUCKET}/ready") as stream:
                stream.write(b"x" * 4096)
            with files.open_input_stream(f"{BUCKET}/ready") as stream:
                return len(stream.read()) == 4096
        except OSError:
            return False

    def files(self, who: tuple[str, str] = OWNER) -> Any:
        """A client beside ours."""
        return cast("Any", fs).S3FileSystem(
            access_key=who[0],
            secret_key=who[1],
            endpoint_override=self.endpoint.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
            retry_strategy=cast("Any", fs).AwsStandardS3RetryStrategy(max_attempts=1),
        )

    def freeze(self) -> None:
        """It accepts connections, and says nothing."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None


def credentials(who: tuple[str, str]) -> dict[str, str]:
    """The environment of that user."""
    return {"AWS_ACCESS_KEY_ID": who[0], "AWS_SECRET_ACCESS_KEY": who[1]}


@contextlib.contextmanager
def running_s3(arguments: list[str] | None = None) -> Generator[S3Server]:
    """A server on free ports, gone with everything that it kept when the context ends.

    With `arguments` of its program it is one of somebody else's, and the context begins before it is ready.
    """
    assert PROGRAM.exists(), f"{PROGRAM} is not installed; run: make venv"
    # Not pytest's folder: a socket's path ends at 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="tm-s3-"))
    server = _server(folder, arguments)
    try:
        server.spawn() if arguments else server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _server(folder: Path, arguments: list[str] | None) -> S3Server:
    ports = _free_ports(8)
    config = folder / "s3.json"
    identities = [
        {**item, "credentials": [{"accessKey": key, "secretKey": secret} for key, secret in item["credentials"]]}
        for item in _IDENTITIES
    ]
    config.write_text(json.dumps({"identities": identities}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
    options = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    endpoint = f"http://127.0.0.1:{ports[6]}"
    if arguments:
        return S3Server(endpoint, folder, [str(PROGRAM), *arguments, *options])
    command = [str(PROGRAM), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", *options]
    # Its makers are told of every start unless this is off; and nothing here is to be reached or reported.
    command += ["-master.telemetry=false", "-s3.iam=false", "-s3.autoCreateBucket=false", f"-s3.config={config}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-filer.localSocket={folder}/filer.sock", "-volume.max=0", "-master.volumeSizeLimitMB=64"]
    return S3Server(endpoint, folder, command)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
