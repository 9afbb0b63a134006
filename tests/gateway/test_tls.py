"""TLS at the gateway and mutual TLS behind it, with the real processes."""

import asyncio
from collections.abc import Iterator

import grpc.aio
import pytest

from services.inference.link import SchedulerLink
from tests.system.processes import Stack
from tests.tidemill.certificates import Authority, serial_at
from tidemill.client import AsyncClient, Client
from tidemill.errors import Reason, TidemillError
from tidemill.tls import TlsFiles
from tidemill.v1 import job_service_pb2, job_service_pb2_grpc


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("tls"))
    made.issue("service", "public", "worker")
    return made


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Stack]:
    public = authority.files("public")
    settings = {
        **authority.variables("service"),
        "TIDEMILL_GATEWAY_TLS_CERTIFICATE": str(public.certificate),
        "TIDEMILL_GATEWAY_TLS_KEY": str(public.key),
        "TIDEMILL_GATEWAY_SCHEDULER_PATIENCE_SECONDS": "60",
    }
    stack = Stack(tmp_path_factory.mktemp("secured"), settings=settings)
    stack.start("scheduler")
    stack.start("gateway")
    yield stack
    stack.close()


def test_a_client_that_trusts_the_ca_gets_through_to_the_scheduler(secured: Stack, authority: Authority) -> None:
    with Client(secured.address_of("gateway"), secured.key, ca=authority.ca) as client:
        assert client.models() == []
        assert list(client.jobs()) == []


async def test_so_does_one_with_an_event_loop(secured: Stack, authority: Authority) -> None:
    async with AsyncClient(secured.address_of("gateway"), secured.key, ca=authority.ca) as client:
        assert await client.models() == []


@pytest.mark.parametrize("scheme", ["grpcs://", ""])
def test_one_that_does_not_is_refused_before_its_key_is_sent(secured: Stack, scheme: str) -> None:
    with Client(scheme + secured.address_of("gateway"), secured.key, patience=0.2) as client:
        with pytest.raises(TidemillError) as caught:
            client.models()
        assert caught.value.reason is Reason.UNAVAILABLE


async def test_a_worker_needs_a_certificate(secured: Stack, authority: Authority) -> None:
    address = secured.address_of("scheduler")
    link = SchedulerLink(address, "worker", authority.files("worker"))
    await link.extend([], [])
    assert link.answered
    await link.close()
    for files in (None, TlsFiles(ca=authority.ca)):
        link = SchedulerLink(address, "worker", files)
        with pytest.raises(TidemillError) as caught:
            await link.extend([], [])
        assert caught.value.reason is Reason.UNAVAILABLE
        await link.close()


async def test_new_certificates_are_taken_up_and_an_old_connection_goes_on(
    secured: Stack, authority: Authority
) -> None:
    gateway, scheduler = secured.address_of("gateway"), secured.address_of("scheduler")
    client = authority.files("worker")
    before = [serial_at(gateway, authority.ca), serial_at(scheduler, authority.ca, client)]
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    metadata = (("authorization", f"Bearer {secured.key}"),)
    async with grpc.aio.secure_channel(gateway, credentials) as channel:
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        await stub.ListJobs(job_service_pb2.ListJobsRequest(), metadata=metadata, timeout=20)
        await asyncio.to_thread(authority.issue, "service", "public")
        after = [serial_at(gateway, authority.ca), serial_at(scheduler, authority.ca, client)]
        assert not set(after) & set(before)
        listed = await stub.ListJobs(job_service_pb2.ListJobsRequest(), metadata=metadata, timeout=20)
        assert not listed.jobs
    # The gateway finds its scheduler again with the new certificate.
    await asyncio.to_thread(secured.kill, "scheduler")
    await asyncio.to_thread(secured.start, "scheduler")
    with Client(gateway, secured.key, ca=authority.ca) as again:
        assert await asyncio.to_thread(again.models) == []
