"""What imports and exports share: where files may lie, how large they may be, and how many run at a time."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from services.gateway.places import Roots
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.v1 import transfer_pb2

JSONL, PARQUET = transfer_pb2.TRANSFER_FORMAT_JSONL, transfer_pb2.TRANSFER_FORMAT_PARQUET
_SUFFIXES = {".jsonl": JSONL, ".parquet": PARQUET}
_RETRY_SECONDS = 5.0

Format = transfer_pb2.TransferFormat.ValueType


@dataclass
class Transfers:
    """
    Attributes:
        imports: roots of files that may be read.
        exports: roots of files that may be written.
        spool: folder for files on their way; they have no names.
        most_bytes: largest file that is read.
        most: so many imports and exports at a time.
    """

    imports: Roots
    exports: Roots
    spool: Path
    most_bytes: int
    most: int
    _running: int = field(default=0, init=False)

    @contextlib.contextmanager
    def slot(self) -> Generator[None]:
        """Be one of the transfers that run; OVERLOADED when there are enough."""
        if self._running >= self.most:
            raise TidemillError(
                Reason.OVERLOADED,
                f"{self.most} imports and exports run already (TIDEMILL_GATEWAY_TRANSFERS); try again",
                retry_after=_RETRY_SECONDS,
            )
        self._running += 1
        try:
            self.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            yield
        finally:
            self._running -= 1


def format_of(chosen: Format, uri: str) -> Format:
    """The form that was asked for, or that the URI's suffix tells; INVALID_ARGUMENT."""
    if chosen in (JSONL, PARQUET):
        return chosen
    found = _SUFFIXES.get(uri[uri.rfind(".") :].lower()) if "." in uri else None
    if chosen != transfer_pb2.TRANSFER_FORMAT_UNSPECIFIED or found is None:
        description = (
            f"is {chosen} and the suffix of the uri tells none: set JSONL or PARQUET, or use .jsonl or .parquet"
        )
        violation = FieldViolation("format", description)
        raise TidemillError(Reason.INVALID_ARGUMENT, f"format {description}", violations=[violation])
    return found


def format_name(kind: Format) -> str:
    """`JSONL` or `PARQUET`."""
    return transfer_pb2.TransferFormat.Name(kind).removeprefix("TRANSFER_FORMAT_")
