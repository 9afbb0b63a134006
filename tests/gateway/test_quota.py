"""What a tenant sees of its limits, and who may look."""

import json
from typing import Any

import pytest

from tests.gateway.client import GatewayClient, prompts, refused
from tests.gateway.conftest import SETTINGS
from tests.gateway.fake_worker import FakeWorker
from tests.system.processes import Stack
from tidemill.client import AsyncClient, Client
from tidemill.v1 import job_pb2, quota_service_pb2

LIMITS = json.loads(SETTINGS["TIDEMILL_SCHEDULER_QUOTAS"])["thrifty"]


def uses(quota: quota_service_pb2.Quota) -> dict[str, tuple[int, int]]:
    return {use.quota: (use.limit, use.used) for use in quota.uses}


async def get(client: GatewayClient, name: str = "") -> quota_service_pb2.Quota:
    method: Any = client.channel.unary_unary(
        "/tidemill.v1.QuotaService/GetQuota",
        request_serializer=quota_service_pb2.GetQuotaRequest.SerializeToString,
        response_deserializer=quota_service_pb2.Quota.FromString,
    )
    return await client.unary(method, quota_service_pb2.GetQuotaRequest(name=name))


async def test_limits_and_use_follow_the_work(thrifty: GatewayClient, worker: FakeWorker) -> None:
    before = await get(thrifty)
    assert before.name == "tenants/thrifty/quota"
    assert before.day_end_time.seconds % 86_400 == 0
    assert uses(before)["jobs"] == (LIMITS["jobs"], 0)
    job = await thrifty.create(worker.model)
    await thrifty.fill(job.name, prompts(0, 20))
    stream = await thrifty.append(job.name)
    held = uses(await get(thrifty))
    assert (held["jobs"], held["rows"]) == ((LIMITS["jobs"], 1), (LIMITS["rows"], 20))
    assert held["streams"][1] == 1
    assert held["tokens"][0] == 0
    await stream.finish()
    await thrifty.seal(job.name, 20)
    await worker.run()
    after = uses(await get(thrifty))
    assert (after["jobs"][1], after["rows"][1], after["chunks"][1]) == (0, 0, 0)
    assert after["tokens_per_day"][1] > 0


async def test_another_tenant_s_is_seen_with_an_admin_key_alone(
    client: GatewayClient, operator: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.submit(job_pb2.Job(model=worker.model), [prompts(0, 3)])
    assert uses(await get(operator, "tenants/dev/quota"))["jobs"][1] >= 1
    assert (await get(client, "tenants/dev/quota")).name == "tenants/dev/quota"
    for name in ("tenants/operator/quota", "tenants/nobody/quota"):
        with refused("JOB_NOT_FOUND"):
            await get(client, name)
    await client.cancel(job.name)


@pytest.mark.parametrize("name", ["tenants/dev", "quota", "tenants/Dev/quota", "tenants//quota", "jobs/dev/quota"])
async def test_names_that_are_none(operator: GatewayClient, name: str) -> None:
    with refused("INVALID_NAME"):
        await get(operator, name)


async def test_both_clients_ask_for_it(stack: Stack) -> None:
    address = stack.address_of("gateway")
    async with AsyncClient(address, stack.key) as client:
        seen = await client.quota()
    assert seen.name == "tenants/dev/quota"
    with Client(address, stack.key) as blocking:
        assert blocking.quota().name == seen.name
