"""Random frames, repeats, gaps, changes and reconnects, compared with a list of rows."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.client import AppendStream, GatewayClient
from tests.gateway.fake_worker import FakeWorker
from tidemill.digests import INPUT_SPEC, data_version, row_digest
from tidemill.encoding import encode_request
from tidemill.merkle import Frontier
from tidemill.segments import input_rows, read_segment
from tidemill.store import ObjectStore
from tidemill.v1 import row_pb2


@dataclass(frozen=True)
class SendFrame:
    """A frame of `count` rows at `shift` rows from the end, of one variant of content; `flaw` spoils its last row."""

    shift: int
    count: int
    variant: int
    flaw: str


@dataclass(frozen=True)
class Reconnect:
    """A new stream, after a half-close or without a word."""

    orderly: bool


shifts = st.one_of(st.just(0), st.integers(-40, 5))
variants, flaws = st.sampled_from([0, 0, 0, 1]), st.sampled_from(["", "", "id", "empty"])
frames = st.builds(SendFrame, shifts, st.integers(1, 30), variants, flaws)
steps = st.lists(st.one_of(frames, frames, frames, st.builds(Reconnect, st.booleans())), max_size=15)


@dataclass
class Model:
    """What a gateway must answer: the rows received, and how many of them it promised to keep."""

    stream: AppendStream
    rows: list[row_pb2.Row] = field(default_factory=list[row_pb2.Row])
    promised: int = 0

    async def read(self) -> Any:
        response = await self.stream.read()
        if response.HasField("ack"):
            self.acked(response.ack.next_offset)
        return response

    def acked(self, offset: int) -> None:
        assert self.promised <= offset <= len(self.rows)
        self.promised = offset

    async def send(self, frame: SendFrame) -> None:
        offset = max(0, len(self.rows) + frame.shift)
        rows = _rows(offset, frame)
        await self.stream.send(offset, rows)
        expected = self._expected(offset, rows, frame)
        if expected == "accepted":
            self.rows.extend(rows)
            return
        while not (response := await self.read()).HasField("error") and not response.ack.duplicate:
            pass
        found = "duplicate" if response.HasField("ack") else response.error.reason
        assert found == expected
        if found != "duplicate":
            assert response.error.expected_offset == len(self.rows)

    def _expected(self, offset: int, rows: list[row_pb2.Row], frame: SendFrame) -> str:
        end = offset + len(rows)
        if offset > len(self.rows) or offset < len(self.rows) < end:
            return "OFFSET_GAP"
        if frame.flaw == "empty" or len({row.custom_id for row in rows}) < len(rows):
            return "INVALID_ROWS"
        if end <= len(self.rows):
            return "duplicate" if rows == self.rows[offset:end] else "ROW_CONTENT_MISMATCH"
        return "INVALID_ROWS" if frame.flaw == "id" and end > 1 else "accepted"


def _rows(offset: int, frame: SendFrame) -> list[row_pb2.Row]:
    rows = [
        row_pb2.Row(custom_id=f"r{index}", prompt=f"variant {frame.variant} of {index}")
        for index in range(offset, offset + frame.count)
    ]
    if frame.flaw == "empty":
        rows[-1].prompt = ""
    elif frame.flaw == "id":
        # For a frame that repeats rows this is a change of content, for a new one a key used before.
        rows[-1].custom_id = "r0"
    return rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
async def test_append_is_a_list_that_only_grows(
    client: GatewayClient, worker: FakeWorker, store: ObjectStore, steps: list[SendFrame | Reconnect]
) -> None:
    job = await client.create(worker.model)
    model = Model(await client.append(job.name))
    for step in steps:
        if isinstance(step, SendFrame):
            await model.send(step)
        else:
            await _reconnect(client, job.name, model, step)
    if (end := await model.stream.finish()) >= 0:
        model.acked(end)
    assert (await client.get(job.name)).next_offset == len(model.rows)
    if model.rows:
        await _check_sealed(client, store, job.name, model.rows)


async def _reconnect(client: GatewayClient, job: str, model: Model, step: Reconnect) -> None:
    if step.orderly:
        end = await model.stream.finish()
        assert end in {-1, len(model.rows)}
        model.promised = len(model.rows)
    else:
        model.stream.call.cancel()
    model.stream = AppendStream(client.jobs.AppendRows(metadata=client.metadata, timeout=20))
    await model.stream.send(0, [], job=job)
    end = (await model.stream.read()).ack.next_offset
    model.acked(end)
    del model.rows[end:]


async def _check_sealed(client: GatewayClient, store: ObjectStore, name: str, rows: list[row_pb2.Row]) -> None:
    sealed = await client.seal(name, len(rows))
    leaves = [row_digest(row.custom_id, encode_request(row)) for row in rows]
    version = data_version(INPUT_SPEC, len(rows), Frontier().extend(leaves).root()).hex()
    _, tenant, _, job_id = name.split("/")
    manifest = json.loads(store.get(f"jobs/{tenant}/{job_id}/input/manifest-{version[:16]}.json"))
    assert sealed.input_data_version == manifest["data_version"] == version
    stored = [
        row
        for item in manifest["segments"]
        for row in input_rows(read_segment(store, item["key"], sha256=bytes.fromhex(item["sha256"])))
    ]
    assert [row.digest for row in stored] == leaves
    assert [row.row_index for row in stored] == list(range(len(rows)))
