"""What operators set on models, and what they and the workers are told."""

import asyncio

import pytest

from services.scheduler.core import models
from tests.scheduler import builders, recount
from tests.scheduler.desk import Desk
from tests.scheduler.refusals import refusal
from tests.scheduler.service_desk import CONTEXT, running
from tidemill.errors import Reason, TidemillError
from tidemill.internal.v1 import scheduler_service_pb2 as pb


def change(model: str = "tiny", **flags: bool) -> pb.ChangeModelRequest:
    return pb.ChangeModelRequest(model=model, **flags)


def test_flags_are_set_one_by_one_and_forgotten_when_clear():
    desk = Desk()
    desk.change_model(change(drained=True))
    desk.change_model(change(pinned=True))
    status = models.model_status(desk.state, "tiny")
    assert (status.drained, status.pinned) == (True, True)
    assert desk.change_model(change(drained=True)) == []
    desk.change_model(change(drained=False, pinned=False))
    assert desk.state.models == {}
    assert recount.summary(desk.replayed()) == recount.summary(desk.state)


def test_a_model_that_nobody_knows_is_not_found():
    desk = Desk()
    error = refusal(desk.change_model, change("typo", drained=True), False)
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert error.metadata["model"] == "typo"
    assert refusal(desk.change_model, change("", drained=True)).reason is Reason.INVALID_ARGUMENT
    desk.queue()
    assert desk.change_model(change("tiny", drained=True), False)


def test_the_status_tells_the_pace_and_the_leases():
    desk = Desk()
    desk.queue(rows=[100])
    for _ in range(3):
        request = builders.part(desk.lease()[0], set(range(10)))
        request.busy_seconds = 5
        desk.commit(request)
    desk.lease(2)
    status = models.model_status(desk.state, "tiny")
    assert (status.tokens_per_second, status.chunks_leased) == (10.0, 2)


async def test_operators_and_workers_are_told():
    async with running() as desk:
        with pytest.raises(TidemillError, match="is unknown"):
            await desk.rpc.ChangeModel(change("tiny", drained=True), CONTEXT)
        await desk.queue()
        (lease,) = await desk.lease()
        status = await desk.rpc.ChangeModel(change(drained=True), CONTEXT)
        assert (status.drained, status.chunks_leased) == (True, 1)
        await desk.rpc.ChangeModel(change(pinned=True), CONTEXT)
        leased = await desk.rpc.LeaseChunks(
            pb.LeaseChunksRequest(worker_id="w1", models=[builders.report()], max_chunks=3), CONTEXT
        )
        assert (list(leased.leases), leased.drained_models, leased.pinned_models) == ([], ["tiny"], ["tiny"])
        extended = await desk.rpc.ExtendLeases(
            pb.ExtendLeasesRequest(worker_id="w1", models=[builders.report()]), CONTEXT
        )
        assert (extended.drained_models, extended.pinned_models) == (["tiny"], ["tiny"])
        listed = await desk.rpc.ListModels(pb.ListModelsRequest(), CONTEXT)
        assert [(each.model, each.drained, each.pinned) for each in listed.statuses] == [("tiny", True, True)]
        assert lease.fence


async def test_undraining_wakes_a_waiting_worker():
    async with running() as desk:
        await desk.queue()
        await desk.lease(models=[builders.report("other")])
        await desk.rpc.ChangeModel(change(drained=True), CONTEXT)
        waiting = asyncio.create_task(desk.lease(wait=20))
        await desk.extend([])
        assert not waiting.done()
        await desk.rpc.ChangeModel(change(drained=False), CONTEXT)
        assert len(await asyncio.wait_for(waiting, 10)) == 1
