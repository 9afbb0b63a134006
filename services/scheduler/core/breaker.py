"""A job all of whose first rows failed pauses itself: more of the same would only cost time."""

from services.scheduler.core.limits import Limits
from services.scheduler.core.records import Job, Tally
from services.scheduler.core.steering import job_paused
from tidemill.internal.v1 import ledger_pb2

Events = list[ledger_pb2.LedgerEvent]

ALL_ROWS_FAILED = "ALL_ROWS_FAILED"


def trip(job: Job, more: Tally, limits: Limits) -> Events:
    """The pause after `more` rows got a result; no event where some row succeeded, or its owner has resumed the job."""
    tally = job.tally + more
    if tally.succeeded or tally.failed < limits.breaker_rows or job.pause is not None or job.breaker_off:
        return []
    words = (
        f"the first {tally.failed} rows all failed. Look at their errors with ReadResults: if the rows are at "
        "fault, cancel the job and submit corrected ones; if the cause is gone, ResumeJob runs the rest, and the job "
        "is not paused for this again"
    )
    return [job_paused(job.name, ALL_ROWS_FAILED, words)]
