"""What belongs to another tenant reads like what does not exist, by every RPC that names something of a tenant's."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.gateway.client import GatewayClient, prompts
from tests.gateway.every_rpc import RPCS, Rpc, call
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import PEPPER, Stack
from tidemill.errors import Reason, TidemillError
from tidemill.keys import create_key
from tidemill.v1 import job_pb2, row_pb2

ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
# Models belong to nobody, and operators see every tenant's jobs.
OF_NOBODY = ("tidemill.v1.ModelService/", "tidemill.v1.AdminService/")
TENANTS = [rpc for rpc in RPCS if not rpc.name.startswith(OF_NOBODY)]
# What a method wants besides a name before it looks for what is named.
MORE: dict[str, dict[str, Any]] = {
    "SealJob": {"row_count": 1},
    "AppendRows": {"rows": [row_pb2.Row(custom_id="a", prompt="b")]},
    "AppendRowsOnce": {"rows": [row_pb2.Row(custom_id="a", prompt="b")]},
    "UpdateJob": {"update_mask": {"paths": ["service_class"]}},
}

# Of one's own job, these look first at the URI, which is missing here.
PLACE_FIRST = {"ImportRows", "ExportResults"}


def names_of(rpc: Rpc, tenant: str, job_id: str) -> list[Any]:
    """Requests that name something of a tenant's, one for each place where this method takes a name."""
    fields, job = rpc.request.DESCRIPTOR.fields_by_name, f"tenants/{tenant}/jobs/{job_id}"
    more = MORE.get(rpc.method.name, {})
    found: list[Any] = []
    if "name" in fields:
        found.append(rpc.request(name=f"tenants/{tenant}/quota" if "Quota" in rpc.name else job, **more))
    if "job" in fields and fields["job"].message_type is None:
        found.append(rpc.request(job=job, **more))
    if "job" in fields and rpc.method.name in ("UpdateJob", "EstimateJob"):
        found.append(rpc.request(job=job_pb2.Job(name=job), **more))
    if "parent" in fields:
        found.append(rpc.request(parent=f"tenants/{tenant}", **more))
    if "create" in fields:
        found.append(rpc.request(create={"parent": f"tenants/{tenant}"}))
    return found


@pytest.fixture(scope="module")
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.address_of("gateway")) as opened:
        yield opened


def refusal(channel: grpc.Channel, rpc: Rpc, request: Any, key: str, replaced: str) -> tuple[str, str, dict[str, str]]:
    """Reason, message and metadata, without the name that was asked for."""
    with pytest.raises(TidemillError) as caught:
        call(channel, rpc, request, [("authorization", f"Bearer {key}")])
    error = caught.value
    metadata = {name: value.replace(replaced, "*") for name, value in error.metadata.items()}
    return error.reason, error.message.replace(replaced, "*"), metadata


def test_every_rpc_of_a_tenant_s_takes_a_name() -> None:
    assert [rpc.name for rpc in TENANTS if not names_of(rpc, "dev", ID)] == []


@pytest.mark.parametrize("rpc", TENANTS, ids=lambda rpc: rpc.method.name)
async def test_another_tenant_s_reads_like_nobody_s(
    stack: Stack, channel: grpc.Channel, client: GatewayClient, worker: FakeWorker, rpc: Rpc
) -> None:
    theirs = await client.create(worker.model)
    await client.fill(theirs.name, prompts(0, 3))
    stranger = create_key(stack.home / "keys.json", PEPPER, "stranger")
    job_id = theirs.name.rpartition("/")[2]
    for foreign, absent in zip(names_of(rpc, "dev", job_id), names_of(rpc, "nobody", ID), strict=True):
        seen = refusal(channel, rpc, foreign, stranger, theirs.name if job_id in str(foreign) else "tenants/dev")
        gone = refusal(
            channel, rpc, absent, stranger, f"tenants/nobody/jobs/{ID}" if ID in str(absent) else "tenants/nobody"
        )
        assert seen[0] == Reason.JOB_NOT_FOUND
        assert seen == gone
    # A job of one's own that is not there reads so too.
    for own in names_of(rpc, "stranger", ID):
        if ID in str(own) and rpc.method.name not in PLACE_FIRST:
            name = f"tenants/stranger/jobs/{ID}"
            assert refusal(channel, rpc, own, stranger, name)[:2] == (Reason.JOB_NOT_FOUND, "job * does not exist")
    after = await client.get(theirs.name)
    assert (after.next_offset, after.state) == (3, theirs.state)
    await client.cancel(theirs.name)
