"""Exit statuses of the `tidemill` command."""

from enum import IntEnum

from tidemill.errors import Reason

HELP = (
    "Exit status: 0 all well; 1 finished, but not all well (rows failed, the job did not succeed, doctor found a "
    "fault); 2 wrong usage or input, nothing was run; 3 the service could not be reached or refused; 128+N ended by "
    "signal N (the usual end of `up`, which is 0 then)."
)


class ExitCode(IntEnum):
    """See `HELP`."""

    OK = 0
    NOT_ALL_WELL = 1
    USAGE = 2
    SERVICE = 3


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
