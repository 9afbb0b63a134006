"""A channel to whichever of several schedulers leads: it finds the leader, and follows when another one takes over.

It never repeats a call by itself. A call that a standby refused, or that hangs at a leader that stands still, fails as
UNAVAILABLE as soon as that is known; its caller, who knows that the call is idempotent, makes it again.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tidemill import telemetry
from tidemill.channel import open_channel
from tidemill.errors import Reason, TidemillError
from tidemill.status import from_rpc_error
from tidemill.tls import TlsFiles
from tidemill.waiting import wait_for_event

log = telemetry.logger(__name__)

SCHEDULER = "tidemill.internal.v1.SchedulerService"
PROBE_SECONDS = 0.5
"""Pause between probes of the leader, and the longest wait for the answer of one."""
SEARCH_SECONDS = 0.1
"""Pause between probes of all while none leads."""

_EOF = cast("Any", grpc.aio).EOF
_SERVING = health_pb2.HealthCheckResponse.SERVING


def open_leader_channel(addresses: str, service: str = SCHEDULER, *, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`, or to that of `host:port,host:port,…` where `service` is healthy; with TLS as
    `tidemill.channel.open_channel` has it.

    Raises:
        ValueError: there is no address in it.
    """
    each = [address.strip() for address in addresses.split(",") if address.strip()]
    if not each:
        raise ValueError("needs one address or more: host:port,host:port")
    if len(each) == 1:
        return open_channel(each[0], tls)
    return cast("grpc.aio.Channel", LeaderChannel(each, service, tls))


class LeaderChannel:
    """As much of `grpc.aio.Channel` as generated stubs use, over several addresses of which one answers."""

    def __init__(self, addresses: Sequence[str], service: str, tls: TlsFiles | None = None) -> None:
        """Probes begin with the first call or the first wait for a state."""
        self._channels = {address: open_channel(address, tls) for address in addresses}
        self._service = service
        self._leader = addresses[0]
        self._found = False
        self._state_changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._hurry = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "LeaderChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close all connections."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await asyncio.gather(*(channel.close(grace) for channel in self._channels.values()))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """READY while a leader is known."""
        if try_to_connect:
            self._follow()
        return grpc.ChannelConnectivity.READY if self._found else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return once `get_state` answers something else."""
        while self.get_state(try_to_connect=True) is last_observed_state:
            await self._state_changed.wait()

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> "_Unary":
        """A method of one answer."""
        return _Unary(self, self._methods("unary_unary", method, *serializers, **options))

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> "_Stream":
        """A method that streams its answers."""
        return _Stream(self, self._methods("unary_stream", method, *serializers, **options))

    def _methods(self, kind: str, method: str, *serializers: Any, **options: Any) -> dict[str, Any]:
        return {
            address: getattr(channel, kind)(method, *serializers, **options)
            for address, channel in self._channels.items()
        }

    # What calls use.

    def leader(self) -> tuple[str, asyncio.Event]:
        """Where to call now, and what is set when that changes."""
        self._follow()
        return self._leader, self._moved

    def note(self, address: str, error: TidemillError) -> None:
        """A call at `address` failed: look soon who leads, or believe a standby that knows."""
        if error.reason in (Reason.NOT_LEADER, Reason.UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.LEDGER_FENCED):
            hint = error.metadata.get("leader", "")
            if address == self._leader and hint in self._channels and hint != address:
                self._point_at(hint, found=self._found)
            self._hurry.set()

    # Following.

    def _follow(self) -> None:
        if self._following is None:
            self._following = asyncio.create_task(self._run(), name="follow-leader")

    async def _run(self) -> None:
        while True:
            self._hurry.clear()
            if not await self._serves(self._leader):
                await self._search()
            elif not self._found:
                self._point_at(self._leader, found=True)
            pause = (PROBE_SECONDS if self._found else SEARCH_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            if self._found:
                await wait_for_event(self._hurry, pause)
            # A refusal may come many times a second; the leader is asked no more often than this.
            await asyncio.sleep(min(pause, SEARCH_SECONDS / 2))

    async def _search(self) -> None:
        others = [address for address in self._channels if address != self._leader]
        answers = await asyncio.gather(*(self._serves(address) for address in others))
        leaders = [address for address, serves in zip(others, answers, strict=True) if serves]
        if leaders:
            log.info("scheduler leads", address=leaders[0])
            self._point_at(leaders[0], found=True)
        elif self._found:
            log.warning("no scheduler leads", addresses=list(self._channels))
            self._point_at(self._leader, found=False)

    def _point_at(self, address: str, *, found: bool) -> None:
        if address != self._leader:
            # A leader that only is slow keeps its calls.
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()
        self._leader, self._found = address, found
        changed, self._state_changed = self._state_changed, asyncio.Event()
        changed.set()

    async def _serves(self, address: str) -> bool:
        stub: Any = health_pb2_grpc.HealthStub(self._channels[address])
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=self._service), timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return answer.status == _SERVING


class _Unary:
    def __init__(self, channel: LeaderChannel, methods: dict[str, Any]) -> None:
        self._channel = channel
        self._methods = methods

    async def __call__(self, request: Any, **options: Any) -> Any:
        address, moved = self._channel.leader()
        call = self._methods[address](request, **options)
        moving = asyncio.create_task(moved.wait())
        answered = asyncio.ensure_future(_answer(call))
        try:
            await asyncio.wait([answered, moving], return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            raise _moved(address)
        except grpc.aio.AioRpcError as exc:
            self._channel.note(address, from_rpc_error(exc))
            raise
        finally:
            moving.cancel()
            call.cancel()
            answered.cancel()


async def _answer(call: Any) -> Any:
    return await call


class _Stream:
    def __init__(self, channel: LeaderChannel, methods: dict[str, Any]) -> None:
        self._channel = channel
        self._methods = methods

    def __call__(self, request: Any, **options: Any) -> "_StreamCall":
        address, moved = self._channel.leader()
        return _StreamCall(self._channel, address, moved, self._methods[address](request, **options))


class _StreamCall:
    """An open stream; it fails once another scheduler leads."""

    def __init__(self, channel: LeaderChannel, address: str, moved: asyncio.Event, call: Any) -> None:
        self._channel = channel
        self._address = address
        self._moved = moved
        self._call = call

    def cancel(self) -> bool:
        """End it."""
        return self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        moving = asyncio.create_task(self._moved.wait())
        try:
            while True:
                read = asyncio.ensure_future(_read(self._call))
                await asyncio.wait([read, moving], return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    read.cancel()
                    raise _moved(self._address)
                response = read.result()
                if response is _EOF:
                    return
                yield response
        except grpc.aio.AioRpcError as exc:
            self._channel.note(self._address, from_rpc_error(exc))
            raise
        finally:
            moving.cancel()
            self._call.cancel()


async def _read(call: Any) -> Any:
    return await call.read()


def _moved(address: str) -> grpc.aio.AioRpcError:
    """What a call gets whose scheduler is not the leader any more; it may have been carried out."""
    nothing = grpc.aio.Metadata()
    words = f"the scheduler at {address} does not lead any more"
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, words, "")
