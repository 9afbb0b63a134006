"""Certificates: read again as they change, refused where they do not fit, asked of both ends."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.tidemill.certificates import Authority, serial_at, serial_of
from tidemill.channel import open_channel
from tidemill.config import CommonSettings
from tidemill.errors import TidemillError
from tidemill.leaders import open_leader_channel
from tidemill.tls import Certificates, TlsFiles

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "tls")
    made.issue("server", "client")
    return made


@asynccontextmanager
async def serving(files: TlsFiles) -> AsyncGenerator[str]:
    """A health service behind certificates; its address."""
    server = grpc.aio.server()
    checker: Any = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue] - the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(checker, server)
    port = server.add_secure_port("127.0.0.1:0", Certificates(files).server_credentials())
    await server.start()
    await checker.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def check(channel: Any) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)).status


async def test_a_new_connection_gets_the_new_certificate_while_an_old_stream_lives(authority: Authority) -> None:
    files = authority.files("server", mutual=False)
    assert files.certificate is not None
    async with serving(files) as address:
        credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        async with grpc.aio.secure_channel(address, credentials) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            await watching.read()
            old = await asyncio.to_thread(serial_at, address, authority.ca)
            assert int(old, 16) == int(serial_of(files.certificate), 16)
            await asyncio.to_thread(authority.issue, "server")
            new = await asyncio.to_thread(serial_at, address, authority.ca)
            assert int(new, 16) == int(serial_of(files.certificate), 16) != int(old, 16)
            # The stream is of the old connection, and that goes on.
            assert await check(channel) == health_pb2.HealthCheckResponse.SERVING
            assert not watching.done()
            watching.cancel()


async def test_a_server_with_a_ca_wants_a_certificate_of_it(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    stranger.issue("client")
    async with serving(authority.files("server")) as address:
        async with open_channel(address, authority.files("client")) as channel:
            assert await check(channel) == health_pb2.HealthCheckResponse.SERVING
        foreign = stranger.files("client")
        for files in (TlsFiles(ca=authority.ca), TlsFiles(foreign.certificate, foreign.key, authority.ca)):
            async with open_channel(address, files) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await check(channel)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with open_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await check(channel)


async def test_a_channel_follows_its_certificates_and_open_calls_go_on(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.renewing.LOOK_SECONDS", 0.0)
    other = Authority(tmp_path / "other")
    other.issue("server", "client")
    async with (
        serving(authority.files("server")) as first,
        serving(other.files("server")) as second,
        open_leader_channel(f"{first},{second}", "", tls=authority.files("client")) as channel,
    ):
        one: Any = channel
        await until_found(one)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        reading = asyncio.ensure_future(anext(aiter(watching)))
        assert (await reading).status == health_pb2.HealthCheckResponse.SERVING
        # From now on this end is the other authority's: only the second server believes it, and is believed.
        for name in ("ca.pem", "client.pem", "client-key.pem"):
            (other.folder / name).replace(authority.folder / name)
        leader = one.leader()[0]
        assert leader == first
        for _ in range(200):
            if one.leader()[0] == second:
                break
            await asyncio.sleep(0.05)
        assert one.leader()[0] == second
        assert await check(channel) == health_pb2.HealthCheckResponse.SERVING


async def until_found(channel: Any) -> None:
    while channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(grpc.ChannelConnectivity.TRANSIENT_FAILURE)


def test_half_a_replacement_is_passed_over(authority: Authority, tmp_path: Path) -> None:
    files = authority.files("server")
    certificates = Certificates(files)
    assert not certificates.changed()
    renewed = Authority(tmp_path / "renewed")
    renewed.issue("server")
    assert files.certificate is not None
    assert files.key is not None
    (renewed.folder / "server-key.pem").replace(files.key)
    assert not certificates.changed()
    (renewed.folder / "server.pem").replace(files.certificate)
    assert certificates.changed()
    assert not certificates.changed()
    files.key.unlink()
    assert not certificates.changed()


@pytest.mark.parametrize("fault", ["missing", "garbage", "foreign key", "encrypted"])
def test_files_that_cannot_be_used_are_named(authority: Authority, fault: str) -> None:
    files = authority.files("server")
    assert files.key is not None
    if fault == "missing":
        files.key.unlink()
    elif fault == "garbage":
        files.key.write_text("no key")
    elif fault == "encrypted":
        command = ["openssl", "ec", "-in", files.key, "-aes128", "-passout", "pass:x", "-out", files.key]
        subprocess.run(command, check=True, capture_output=True)
    else:
        (authority.folder / "client-key.pem").replace(files.key)
    with pytest.raises(TidemillError) as caught:
        Certificates(files)
    assert str(files.key) in caught.value.message


def test_half_of_the_settings_is_refused(tmp_path: Path) -> None:
    assert CommonSettings(home=tmp_path).mtls is None
    halves = (
        CommonSettings(home=tmp_path, mtls_key=tmp_path),
        CommonSettings(home=tmp_path, mtls_key=tmp_path, mtls_certificate=tmp_path),
        CommonSettings(home=tmp_path, mtls_ca=tmp_path),
    )
    for half in halves:
        with pytest.raises(TidemillError, match="TIDEMILL_MTLS_CERTIFICATE, TIDEMILL_MTLS_KEY, TIDEMILL_MTLS_CA"):
            _ = half.mtls


@pytest.mark.parametrize("service", ["gateway", "scheduler"])
def test_a_server_that_others_reach_does_not_start_in_plaintext_unasked(tmp_path: Path, service: str) -> None:
    environment = {
        **os.environ,
        "TIDEMILL_HOME": str(tmp_path),
        "TIDEMILL_GATEWAY_KEY_PEPPER": "a pepper of some length",
        f"TIDEMILL_{service.upper()}_ADDRESS": "0.0.0.0:0",
        f"TIDEMILL_{service.upper()}_HTTP_ADDRESS": "127.0.0.1:0",
    }
    command = [sys.executable, "-m", f"services.{service}"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "TIDEMILL_PLAINTEXT=true" in ended.stderr
    assert "_CERTIFICATE" in ended.stderr
    assert "Traceback" not in ended.stderr
