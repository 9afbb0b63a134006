"""`RequeueChunk` and `ForceFailJob`: the operator's tools, over the jobs of every tenant."""

from services.gateway.convert import public_job
from services.gateway.job_fields import raise_violations
from services.gateway.limits import MAX_FAIL_MESSAGE_BYTES
from services.gateway.scheduler import Scheduler
from tidemill.errors import FieldViolation
from tidemill.names import parse_job
from tidemill.store import ObjectStore
from tidemill.v1 import admin_service_pb2, job_pb2

pb = admin_service_pb2


class Admin:
    """Each call needs the scope admin, which the guard checks."""

    def __init__(self, scheduler: Scheduler, store: ObjectStore) -> None:
        self._scheduler = scheduler
        self._store = store

    async def requeue_chunk(self, request: pb.RequeueChunkRequest) -> job_pb2.Job:
        """Take the chunk of a row from its worker."""
        job = str(parse_job(request.name))
        if request.row_index < 0:
            raise_violations([FieldViolation("row_index", f"is {request.row_index}; it must be 0 or more")])
        return public_job(await self._scheduler.requeue_chunk(job, request.row_index), self._store)

    async def force_fail(self, request: pb.ForceFailJobRequest) -> job_pb2.Job:
        """End a job as FAILED."""
        job, size = str(parse_job(request.name)), len(request.message.encode())
        if not 1 <= size <= MAX_FAIL_MESSAGE_BYTES:
            description = f"has {size} bytes; tell the owner why in 1 to {MAX_FAIL_MESSAGE_BYTES}"
            raise_violations([FieldViolation("message", description)])
        return public_job(await self._scheduler.force_fail_job(job, request.message), self._store)
