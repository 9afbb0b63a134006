"""Appending over faults: whatever breaks, every row is stored once and in order, or the error says what is not."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.fakes import (
    JOB,
    FakeGateway,
    Fault,
    break_after,
    break_before,
    hold,
    refuse,
    refuse_row,
)
from tidemill.client import Client, RowsRefusedError, transport
from tidemill.client.frames import Frame
from tidemill.client.transport import Backoff
from tidemill.client.upload import Upload
from tidemill.errors import Reason, TidemillError
from tidemill.v1 import row_pb2


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    started = FakeGateway()
    yield started
    started.stop()


def client_of(gateway: FakeGateway, patience: float = 10) -> Client:
    return Client(gateway.address, "key", patience=patience)


def prompts(count: int, size: int = 3) -> Iterator[row_pb2.Row]:
    for index in range(count):
        yield row_pb2.Row(custom_id=f"r{index}", prompt=f"{index} " + "x" * size)


def check_stored(gateway: FakeGateway, count: int) -> None:
    assert [row.custom_id for row in gateway.rows] == [f"r{index}" for index in range(count)]
    assert gateway.sealed == count


def test_rows_are_framed_and_sealed(gateway: FakeGateway) -> None:
    with client_of(gateway) as client:
        handle = client.submit(prompts(5000), model="m")
    assert handle.name == JOB
    check_stored(gateway, 5000)
    assert gateway.frames == 5
    assert gateway.largest_frame == 1024
    assert gateway.streams == 1


def test_large_rows_make_small_frames(gateway: FakeGateway) -> None:
    with client_of(gateway) as client:
        client.submit(prompts(12, size=300_000), model="m")
    check_stored(gateway, 12)
    assert gateway.largest_frame == 3


def test_one_trace_and_the_key_go_with_every_call(gateway: FakeGateway) -> None:
    with client_of(gateway) as client:
        client.submit(prompts(3), model="m")
    assert {item["authorization"] for item in gateway.metadata} == {"Bearer key"}
    parents = {item["traceparent"] for item in gateway.metadata}
    assert len(gateway.metadata) == 3
    assert len(parents) == 1
    version, trace_id, span_id, flags = parents.pop().split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "01")


def test_an_active_span_is_the_parent(gateway: FakeGateway) -> None:
    from opentelemetry import trace

    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)), client_of(gateway) as client:
        client.submit(prompts(1), model="m")
    assert {item["traceparent"] for item in gateway.metadata} == {f"00-{0xABC:032x}-{0xDEF:016x}-01"}


FAULTS = {
    "broken before": break_before,
    "broken after": break_after,
    "broken within": lambda: break_after(0.5),
    "gap": lambda: refuse(Reason.OFFSET_GAP),
    "damaged": lambda: refuse(Reason.CHECKSUM_MISMATCH),
    "slow": lambda: hold(0.05),
}


@pytest.mark.parametrize("name", list(FAULTS))
@pytest.mark.parametrize("frame", [0, 2, 4])
def test_a_fault_is_survived(gateway: FakeGateway, name: str, frame: int) -> None:
    gateway.faults[frame] = FAULTS[name]()
    with client_of(gateway) as client:
        client.submit(prompts(5000), model="m")
    check_stored(gateway, 5000)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(0, 12), st.sampled_from(sorted(FAULTS)), max_size=4))
def test_any_few_faults_are_survived(plan: dict[int, str]) -> None:
    gateway = FakeGateway(faults={frame: FAULTS[name]() for frame, name in plan.items()})
    try:
        with client_of(gateway) as client:
            client.submit(prompts(4200), model="m")
        check_stored(gateway, 4200)
    finally:
        gateway.stop()


def test_creating_is_repeated(gateway: FakeGateway) -> None:
    gateway.create_failures = 2
    with client_of(gateway) as client:
        client.submit(prompts(1), model="m")
    check_stored(gateway, 1)


def test_a_bad_row_is_named_and_what_was_acknowledged_stays(gateway: FakeGateway) -> None:
    gateway.faults[2] = refuse_row(7)
    with client_of(gateway) as client, pytest.raises(RowsRefusedError) as caught:
        client.submit(prompts(5000), model="m")
    assert caught.value.reason is Reason.INVALID_ROWS
    assert caught.value.row_errors[0].index == 2048 + 7
    assert caught.value.violations[0].field == "rows[2055].sampling.temperature"
    assert "r2055" in caught.value.message
    assert "temperature is 3" in caught.value.message
    assert JOB in caught.value.__notes__[0]
    assert len(gateway.rows) == 2048
    assert gateway.sealed is None


def test_other_content_at_a_stored_offset_is_refused(gateway: FakeGateway) -> None:
    gateway.rows.extend(prompts(10))
    with client_of(gateway) as client, pytest.raises(TidemillError) as caught:
        client.submit(prompts(20, size=4), model="m")
    assert caught.value.reason is Reason.ROW_CONTENT_MISMATCH
    assert len(gateway.rows) == 10


def test_rows_that_are_stored_are_compared_and_the_rest_appended(gateway: FakeGateway) -> None:
    gateway.rows.extend(prompts(1500))
    with client_of(gateway) as client:
        client.submit(prompts(4000), model="m", request_id="again")
    check_stored(gateway, 4000)


def test_fewer_rows_than_are_stored_cannot_be_sealed(gateway: FakeGateway) -> None:
    gateway.rows.extend(prompts(1500))
    with client_of(gateway) as client, pytest.raises(TidemillError) as caught:
        client.submit(prompts(1000), model="m")
    assert caught.value.reason in (Reason.ROW_COUNT_MISMATCH, Reason.OFFSET_GAP)


def test_a_fault_that_never_ends_is_reported(gateway: FakeGateway) -> None:
    gateway.faults = {frame: break_before() for frame in range(1000)}
    with client_of(gateway, patience=1) as client, pytest.raises(TidemillError) as caught:
        client.submit(prompts(10), model="m")
    assert caught.value.reason is Reason.UNAVAILABLE
    assert gateway.address in caught.value.message


def test_a_refusal_that_never_ends_is_reported(gateway: FakeGateway) -> None:
    gateway.faults = {frame: refuse(Reason.CHECKSUM_MISMATCH) for frame in range(1000)}
    with client_of(gateway) as client, pytest.raises(TidemillError) as caught:
        client.submit(prompts(10), model="m")
    assert caught.value.reason is Reason.CHECKSUM_MISMATCH


def test_a_failing_generator_leaves_the_job_open(gateway: FakeGateway) -> None:
    def rows() -> Iterator[row_pb2.Row]:
        yield from prompts(3000)
        raise RuntimeError("the source failed")

    with client_of(gateway) as client, pytest.raises(RuntimeError, match="the source failed") as caught:
        client.submit(rows(), model="m")
    assert JOB in caught.value.__notes__[0]
    assert gateway.sealed is None


def test_a_gateway_that_stops_acknowledging_stops_the_source(gateway: FakeGateway) -> None:
    """Rows are pulled from the generator only as fast as earlier ones become durable."""
    release, pulled = threading.Event(), 0

    def wait_for_release(gateway: FakeGateway, frame: object, context: object) -> Iterator[object]:
        release.wait(30)
        yield from gateway.take(frame)  # pyright: ignore[reportArgumentType]

    def rows() -> Iterator[row_pb2.Row]:
        nonlocal pulled
        for row in prompts(60_000):
            pulled += 1
            yield row

    gateway.faults[0] = Fault(wait_for_release)  # pyright: ignore[reportArgumentType]
    with client_of(gateway) as client:
        thread = threading.Thread(target=lambda: client.submit(rows(), model="m"))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        assert pulled <= 34 * 1024
        release.set()
        thread.join(60)
        assert not thread.is_alive()
    check_stored(gateway, 60_000)


def test_watching_and_reading_survive_restarts(gateway: FakeGateway) -> None:
    gateway.watch_failures = gateway.result_failures = 3
    with client_of(gateway) as client:
        handle = client.submit(prompts(20), model="m")
        snapshots = list(handle.watch())
        results = list(handle.results())
    assert [job.revision for job in snapshots] == [1, 2, 3, 4]
    assert [result.row_index for result in results] == list(range(20))


def test_waiting_ends_at_its_timeout(gateway: FakeGateway) -> None:
    with client_of(gateway) as client:
        handle, _ = client.create(client.new_job(model="m"))
        with pytest.raises(TidemillError) as caught:
            handle.wait(timeout=0.3)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


def test_a_row_too_large_for_any_frame_is_refused_here(gateway: FakeGateway) -> None:
    with client_of(gateway) as client, pytest.raises(TidemillError) as caught:
        client.submit(prompts(3, size=5 << 20), model="m")
    assert caught.value.reason is Reason.FRAME_TOO_LARGE
    assert caught.value.metadata["row_index"] == "0"


def test_a_service_that_is_not_there_is_reported_within_seconds() -> None:
    with Client("127.0.0.1:1", "key") as client, pytest.raises(TidemillError) as caught:
        client.models()
    assert caught.value.reason is Reason.UNAVAILABLE
    assert "127.0.0.1:1" in caught.value.message
    assert "tidemill up" in caught.value.message


def test_a_caller_that_takes_its_time_does_not_use_up_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Upload(JOB, Backoff(patience=10))
    later = time.monotonic() + 1000
    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: later))
    upload.push(Frame(0, [row_pb2.Row(custom_id="a", prompt="x")], 10))
    assert upload.delay(TidemillError(Reason.UNAVAILABLE, "idle for too long")) < 1
