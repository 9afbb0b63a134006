"""The answers of a whole job, in one call."""

from collections.abc import Sequence
from typing import Literal

from tidemill.errors import Reason, RowsFailedError, TidemillError
from tidemill.v1 import row_pb2

OnFailure = Literal["raise", "return"]
_NAMED = 5


def check_option(on_failure: str) -> None:
    """INVALID_ARGUMENT unless `on_failure` is one of `OnFailure`."""
    if on_failure not in ("raise", "return"):
        raise TidemillError(Reason.INVALID_ARGUMENT, f"on_failure is 'raise' or 'return', not {on_failure!r}")


def judge(job: str, results: Sequence[row_pb2.RowResult], on_failure: OnFailure) -> list[row_pb2.RowResult]:
    """`results`; with `on_failure="raise"`, RowsFailedError when some of them are no answers."""
    failed = [result for result in results if result.error_code]
    if not failed or on_failure == "return":
        return list(results)
    named = "; ".join(_words(result) for result in failed[:_NAMED])
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    raise RowsFailedError(
        Reason.ROWS_FAILED,
        f"{len(failed)} of {len(results)} rows of {job} have no answer: {named}{more}",
        metadata={"job": job, "failed": len(failed), "rows": len(results)},
        results=results,
    )


def _words(result: row_pb2.RowResult) -> str:
    return f"row {result.row_index} ({result.custom_id!r}): {result.error_code}: {result.error_message[:200]}"
