"""A worker without an engine: it leases chunks of the real scheduler and commits result segments that it makes up."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import grpc.aio

from tests.gateway.fake_outputs import fake_output
from tidemill import digests, rowset
from tidemill.internal.v1 import records_pb2, scheduler_service_pb2, scheduler_service_pb2_grpc
from tidemill.names import parse_job
from tidemill.outputs import Output
from tidemill.segments import ResultRow, input_rows, read_segment, result_table, write_segment
from tidemill.store import ObjectStore
from tidemill.v1 import job_pb2, model_service_pb2, row_pb2

pb = scheduler_service_pb2
WINDOW = 512
RECORD = b"\xcd" * 32
# Far beyond what a call takes, for machines that are busy with other tests.
CALL_SECONDS = 60
TERMINAL = frozenset(
    {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_EXPIRED}
)


class FakeWorker:
    """Offers one model with a window of 512 tokens and a chat template. Answers are `answer to <custom id>`; rows whose
    custom id begins with `fail-` fail.

    Attributes:
        busy_seconds: engine time that each part claims to have taken.
        tasks: what the model can be asked for; none, as workers of earlier builds report it, is generation.
    """

    def __init__(self, scheduler: str, store: ObjectStore, model: str, tokenizer: bytes) -> None:
        self.model = model
        self.store = store
        self.busy_seconds = 0.0
        self.tasks: list[model_service_pb2.Task.ValueType] = []
        self._id = f"worker-of-{model}"
        self._channel: Any = grpc.aio.insecure_channel(scheduler)
        self._stub: Any = scheduler_service_pb2_grpc.SchedulerServiceStub(self._channel)
        self._tokenizer = store.put(f"models/{hashlib.sha256(tokenizer).hexdigest()}/tokenizer.json", tokenizer)

    def report(self, model: str = "", **fields: Any) -> records_pb2.ModelReport:
        values: dict[str, Any] = {
            "state": model_service_pb2.MODEL_STATE_LOADED,
            "max_model_len": WINDOW,
            "digest": "ab" * 32,
            "engine_build": "fake 1.0",
            "tokenizer_key": self._tokenizer.key,
            "tokenizer_sha256": self._tokenizer.sha256.hex(),
            "has_chat_template": True,
            "tasks": self.tasks,
            **fields,
        }
        return records_pb2.ModelReport(model=model or self.model, **values)

    async def __aenter__(self) -> Self:
        await self.offer(self.report())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.offer()
        await self.close()

    async def close(self) -> None:
        """Go without a word: what was offered lasts until the scheduler misses the worker."""
        await self._channel.close()

    async def offer(self, *reports: records_pb2.ModelReport) -> None:
        """Tell the scheduler what this worker can serve."""
        await self._stub.ExtendLeases(pb.ExtendLeasesRequest(worker_id=self._id, models=reports), timeout=CALL_SECONDS)

    async def lease(self, max_chunks: int = 100) -> list[pb.Lease]:
        """Work for this worker's model; waits a second for it at most."""
        request = pb.LeaseChunksRequest(worker_id=self._id, models=[self.report()], max_chunks=max_chunks)
        request.wait.FromMilliseconds(1000)
        return list((await self._stub.LeaseChunks(request, timeout=CALL_SECONDS)).leases)

    async def commit(
        self, lease: pb.Lease, rows: Iterable[int], part: int = 0, *, failed: bool = False, text: str = ""
    ) -> None:
        """Make answers to these rows (indices in the job) visible, as one part."""
        inputs = self._inputs(lease)
        results = [_result(lease, inputs[index], failed, text) for index in rows]
        await self._commit(lease, (lease.chunk_start, lease.chunk_rows), part, results)

    async def die(self, lease: pb.Lease) -> None:
        """Give a chunk back whose engine died under it."""
        key = pb.LeaseKey(job=lease.spec.name, fence=lease.fence)
        request = pb.ReleaseLeaseRequest(lease=key, failed=True, engine_died=True, message="the engine died")
        await self._stub.ReleaseLease(request, timeout=CALL_SECONDS)

    async def _commit(self, lease: pb.Lease, chunk: tuple[int, int], part: int, results: Sequence[ResultRow]) -> None:
        start, rows = chunk
        key = f"{parse_job(lease.spec.name).prefix}/output/{start:012d}-{lease.fence}-{part:05d}.parquet"
        stored = write_segment(self.store, key, result_table(results))
        bitmap = rowset.of_indices(result.row_index - start for result in results)
        ref = records_pb2.PartRef(
            key=key,
            chunk_start=start,
            chunk_rows=rows,
            fence=lease.fence,
            part_number=part,
            row_bitmap=rowset.to_bytes(bitmap, rows),
            sha256=stored.sha256,
            tally=_tally(results),
            row_count=len(results),
            engine_record=RECORD,
            equal_answers=job_pb2.EQUAL_ANSWERS_NOT_PROMISED,
        )
        request = pb.CommitPartRequest(
            job=lease.spec.name,
            part=ref,
            model_digest="ab" * 32,
            engine_build="fake 1.0",
            busy_seconds=self.busy_seconds,
        )
        await self._stub.CommitPart(request, timeout=CALL_SECONDS)

    async def finish(self, lease: pb.Lease) -> None:
        """Do a closing task: give up what remains and report the end, or clean up."""
        if lease.kind == pb.LEASE_KIND_CLEANUP:
            key = pb.LeaseKey(job=lease.spec.name, fence=lease.fence)
            await self._stub.FinishCleanup(pb.FinishCleanupRequest(lease=key), timeout=CALL_SECONDS)
            return
        for number, rest in enumerate(lease.remainders):
            done = rowset.from_bytes(rest.done_bitmap)
            missing = list(rowset.indices(rowset.full(rest.chunk_rows) & ~done))
            results = [_given_up(lease, rest.chunk_start, rest.chunk_start + index) for index in missing]
            await self._commit(lease, (rest.chunk_start, rest.chunk_rows), number, results)
        record = await self.record(lease.spec.name)
        counts, usage = record.row_counts, record.usage
        tally = records_pb2.RowTally(
            succeeded=counts.succeeded,
            failed=counts.failed,
            cancelled=counts.cancelled,
            expired=counts.expired,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
        )
        request = pb.FinishJobRequest(
            lease=pb.LeaseKey(job=lease.spec.name, fence=lease.fence),
            output_data_version=hashlib.sha256(lease.spec.name.encode()).digest(),
            output_manifest_key=f"{parse_job(lease.spec.name).prefix}/output/manifest.json",
            tally=tally,
        )
        await self._stub.FinishJob(request, timeout=CALL_SECONDS)

    async def chunks(self, job: str) -> list[pb.Lease]:
        """The chunks of one job that can be leased now, by start; closing tasks that come instead are done."""
        while True:
            leases = await self.lease()
            for lease in leases:
                if lease.kind != pb.LEASE_KIND_CHUNK:
                    await self.finish(lease)
            found = [lease for lease in leases if lease.kind == pb.LEASE_KIND_CHUNK]
            assert all(lease.spec.name == job for lease in found), "the model has chunks of another job"
            if found or not leases:
                return sorted(found, key=lambda lease: lease.chunk_start)

    async def run(self) -> None:
        """Answer everything that waits, one part a chunk, until no work comes for a second."""
        while leases := await self.lease():
            await self._answer(leases)

    async def end(self, job: str) -> None:
        """Answer everything that comes until this job is terminal."""
        while (await self.record(job)).state not in TERMINAL:
            await self._answer(await self.lease())

    async def _answer(self, leases: Iterable[pb.Lease]) -> None:
        for lease in leases:
            if lease.kind == pb.LEASE_KIND_CHUNK:
                await self._answer_chunk(lease)
            else:
                await self.finish(lease)

    async def _answer_chunk(self, lease: pb.Lease) -> None:
        missing = rowset.full(lease.chunk_rows) & ~rowset.from_bytes(lease.done_bitmap)
        rows = [lease.chunk_start + offset for offset in rowset.indices(missing)]
        inputs = self._inputs(lease)
        failing = {index for index in rows if inputs[index].custom_id.startswith("fail-")}
        for part, indices in enumerate([sorted(set(rows) - failing), sorted(failing)]):
            if indices:
                await self.commit(lease, indices, part, failed=part == 1)

    async def record(self, job: str) -> records_pb2.JobRecord:
        """A job as the scheduler sees it."""
        return await self._stub.GetJob(pb.GetJobRequest(job=job), timeout=CALL_SECONDS)

    def _inputs(self, lease: pb.Lease) -> dict[int, Any]:
        tables = (read_segment(self.store, item.key, sha256=item.sha256) for item in lease.segments)
        return {row.row_index: row for table in tables for row in input_rows(table)}


def _result(lease: pb.Lease, row: Any, failed: bool, text: str) -> ResultRow:
    output = Output() if failed else fake_output(row, text or f"answer to {row.custom_id}")
    return ResultRow(
        row_index=row.row_index,
        custom_id=row.custom_id,
        status=row_pb2.ROW_STATUS_FAILED if failed else row_pb2.ROW_STATUS_SUCCEEDED,
        text=output.text,
        finish_reason="" if failed else "stop",
        prompt_tokens=3,
        output_tokens=0 if failed else 4,
        cached_tokens=0,
        queue_seconds=0.5,
        prefill_seconds=None,
        decode_seconds=None,
        attempt=lease.attempt,
        error_code="ENGINE_REFUSED" if failed else "",
        error_message="no" if failed else "",
        request_digest=row.digest,
        output_digest=digests.error_digest("ENGINE_REFUSED") if failed else output.digest,
        chunk_start=lease.chunk_start,
        model_digest="ab" * 32,
        engine_build="fake 1.0",
        engine_record=RECORD.hex(),
        vector=output.vector,
        classes=output.classes,
        score=output.score,
        alternatives=output.alternatives,
        logprobs=output.logprobs,
    )


_GIVEN_UP = {
    job_pb2.JOB_STATE_CANCELLED: (row_pb2.ROW_STATUS_CANCELLED, "JOB_CANCELLED"),
    job_pb2.JOB_STATE_EXPIRED: (row_pb2.ROW_STATUS_EXPIRED, "JOB_EXPIRED"),
    job_pb2.JOB_STATE_FAILED: (row_pb2.ROW_STATUS_FAILED, "JOB_FAILED"),
}


def _given_up(lease: pb.Lease, chunk_start: int, index: int) -> ResultRow:
    status, code = _GIVEN_UP[lease.outcome]
    return ResultRow(
        row_index=index,
        custom_id=f"r{index}",
        status=status,
        text=None,
        finish_reason="",
        prompt_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        queue_seconds=None,
        prefill_seconds=None,
        decode_seconds=None,
        attempt=0,
        error_code=code,
        error_message="the job ended without this row",
        request_digest=bytes(32),
        output_digest=digests.error_digest(code),
        chunk_start=chunk_start,
        model_digest="",
        engine_build="",
    )


def _tally(results: Sequence[ResultRow]) -> records_pb2.RowTally:
    by_status = {status: sum(row.status == status for row in results) for status in row_pb2.RowStatus.values()}
    return records_pb2.RowTally(
        succeeded=by_status[row_pb2.ROW_STATUS_SUCCEEDED],
        failed=by_status[row_pb2.ROW_STATUS_FAILED],
        cancelled=by_status[row_pb2.ROW_STATUS_CANCELLED],
        expired=by_status[row_pb2.ROW_STATUS_EXPIRED],
        prompt_tokens=sum(row.prompt_tokens for row in results),
        output_tokens=sum(row.output_tokens for row in results),
        cached_tokens=sum(row.cached_tokens for row in results),
    )
