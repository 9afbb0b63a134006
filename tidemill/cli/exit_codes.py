"""Exit statuses of the `tidemill` command."""

from enum import IntEnum

from tidemill.errors import Reason


class ExitCode(IntEnum):
    """See `MEANINGS`."""

    OK = 0
    NOT_ALL_WELL = 1
    USAGE = 2
    SERVICE = 3
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "all well",
    ExitCode.NOT_ALL_WELL: "finished, but not all well: rows failed, the job did not succeed, doctor found a fault",
    ExitCode.USAGE: "wrong usage or input; nothing was run",
    ExitCode.SERVICE: "the service could not be reached or refused",
    ExitCode.INTERRUPTED: "ended by Ctrl-C; a job that was queued goes on (`up` ends with 0 then)",
    ExitCode.BROKEN_PIPE: "the reader of the output went away, as `head` does",
}

# \b keeps the lines of the table apart.
HELP = "\b\nExit status:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())

_INPUT = frozenset(
    {
        Reason.INVALID_ARGUMENT,
        Reason.DEADLINE_OUT_OF_RANGE,
        Reason.INVALID_FILE,
        Reason.INVALID_NAME,
        Reason.INVALID_ROWS,
        Reason.UNSUPPORTED_PARAMETER,
        Reason.FRAME_TOO_LARGE,
    }
)


def code_of(reason: Reason) -> ExitCode:
    """The exit status for an error."""
    return ExitCode.USAGE if reason in _INPUT else ExitCode.SERVICE
