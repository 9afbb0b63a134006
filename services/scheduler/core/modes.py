"""How the rows of a job reach an engine: through the warm ones, or through engines of the job's own.

In dedicated mode every chunk loads an engine, so it is worth its loads only where one chunk keeps it busy for many
times as long; and it is of use only where there is room for that engine beside those that are kept warm.
"""

from dataclasses import dataclass

from services.scheduler.core.capacity import Capacity
from services.scheduler.core.chunks import DEDICATED_CHUNKS
from services.scheduler.core.estimates import expected_row_tokens, model_rate
from services.scheduler.core.limits import Limits
from services.scheduler.core.records import ExecutionMode, Job
from services.scheduler.core.state import State
from tidemill.encoding import sampling_values
from tidemill.sampling_limits import shared_only
from tidemill.v1 import job_pb2


@dataclass(frozen=True, slots=True)
class ModeFacts:
    """What the choice rests on.

    Attributes:
        asked: what the client wants; UNSPECIFIED leaves it to the service.
        rows: rows of the job.
        row_seconds: engine-seconds of one of them; None while the pace of its model is not known.
        load_seconds: what loading the model took; 0 where no worker measured it.
        spare_engines: further engines of the model that workers have room for.
        shared_only_rows: rows that dedicated mode cannot answer.
    """

    asked: ExecutionMode
    rows: int
    row_seconds: float | None
    load_seconds: float
    spare_engines: int
    shared_only_rows: int


def chosen_mode(facts: ModeFacts, limits: Limits) -> ExecutionMode:
    """SHARED or DEDICATED: the mode that was asked for, else by what is known; SHARED where it is not."""
    if facts.asked != job_pb2.EXECUTION_MODE_UNSPECIFIED:
        return facts.asked
    possible = facts.spare_engines > 0 and not facts.shared_only_rows
    if not possible or not limits.dedicated_loads or not facts.row_seconds or not facts.load_seconds:
        return job_pb2.EXECUTION_MODE_SHARED
    busy_seconds = min(facts.rows, DEDICATED_CHUNKS * limits.chunk_rows) * facts.row_seconds
    if busy_seconds < limits.dedicated_loads * facts.load_seconds:
        return job_pb2.EXECUTION_MODE_SHARED
    return job_pb2.EXECUTION_MODE_DEDICATED


def mode_facts(state: State, capacity: Capacity, job: Job) -> ModeFacts:
    """The facts about a job that is about to be sealed."""
    rate = model_rate(state, job.model)
    tokens, _ = expected_row_tokens(state.pace(job.model), job)
    return ModeFacts(
        asked=job.spec.execution_mode,
        rows=job.end,
        row_seconds=tokens / rate if rate else None,
        load_seconds=capacity.load_seconds.get(job.model, 0.0),
        spare_engines=capacity.spare.get(job.model, 0),
        shared_only_rows=job.end if shared_only(sampling_values(job.spec.sampling)) else job.shared_only_rows,
    )


def mode_of(job: Job) -> ExecutionMode:
    """The mode of a job; UNSPECIFIED while it is still to be chosen."""
    return job.mode or job.spec.execution_mode
