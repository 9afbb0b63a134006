"""`ListCompletions`: the ordered feed of accepted and finished jobs."""

from services.gateway.auth import Principal
from services.gateway.convert import public_job
from services.gateway.page_size import checked_page_size
from services.gateway.result_readers import Results, first_results
from services.gateway.scheduler import Scheduler
from tidemill import telemetry
from tidemill.errors import FieldViolation, Reason, TidemillError
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2
from tidemill.store import ObjectStore
from tidemill.v1 import job_service_pb2, row_pb2

log = telemetry.logger(__name__)

_DEFAULT_LIMIT = 100
_LARGEST_LIMIT = 500
_SAMPLE_ROWS = 5
# What a sample may hold, so that a page of jobs fits a message whatever their answers are.
_SAMPLE_CHARACTERS = 1000
_SAMPLE_NUMBERS = 16


class Completions:
    """The feed of one tenant."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore) -> None:
        self._scheduler = scheduler
        self._store = store

    async def list(
        self, principal: Principal, request: job_service_pb2.ListCompletionsRequest
    ) -> job_service_pb2.ListCompletionsResponse:
        """Entries above a sequence."""
        principal.check_parent(request.parent)
        if request.after_sequence < 0:
            description = f"after_sequence is {request.after_sequence}; it must be 0 or more"
            violations = [FieldViolation("after_sequence", description)]
            raise TidemillError(Reason.INVALID_ARGUMENT, description, violations=violations)
        limit = checked_page_size(request.limit, "limit", _DEFAULT_LIMIT, _LARGEST_LIMIT)
        found = await self._scheduler.list_completions(principal.tenant, request.after_sequence, limit)
        return job_service_pb2.ListCompletionsResponse(
            completions=[await self._public(item) for item in found.completions],
            next_sequence=found.next_sequence,
            ledger_uid=found.ledger_uid,
        )

    async def _public(self, item: scheduler_service_pb2.CompletionRecord) -> job_service_pb2.Completion:
        finished = item.kind == job_service_pb2.COMPLETION_KIND_FINISHED
        return job_service_pb2.Completion(
            sequence=item.sequence,
            kind=item.kind,
            time=item.job.end_time if finished else item.job.seal_time,
            job=public_job(item.job, self._store),
            dataset=item.job.dataset,
            sample_results=await self._sample(item.job) if finished else (),
        )

    async def _sample(self, job: records_pb2.JobRecord) -> Results:
        try:
            rows = await first_results(self._scheduler, self._store, job.spec.name, _SAMPLE_ROWS)
        except TidemillError as exc:
            if exc.reason is not Reason.DATA_CORRUPT:
                raise
            # One damaged file must not hold up the feed of all jobs; reading the job's results reports it.
            log.error("sample unreadable", job=job.spec.name, error=exc.message)
            return ()
        return [_shortened(row) for row in rows]


def _shortened(row: row_pb2.RowResult) -> row_pb2.RowResult:
    row.text = row.text[:_SAMPLE_CHARACTERS]
    del row.embedding[_SAMPLE_NUMBERS:]
    del row.classes[_SAMPLE_NUMBERS:]
    row.ClearField("alternatives")
    row.ClearField("logprobs")
    return row
