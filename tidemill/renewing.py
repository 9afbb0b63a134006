"""A channel that is opened anew when its certificates change; calls under way end on the old one."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

LOOK_SECONDS = 1.0
"""Calls look at the files no more often than this."""
_OLD_CALLS_SECONDS = 600.0


class RenewingChannel:
    """As much of `grpc.aio.Channel` as our callers use."""

    def __init__(self, connect: Callable[[], grpc.aio.Channel], changed: Callable[[], bool]) -> None:
        """`changed` says whether `connect` would give another channel than the last time."""
        self._connect = connect
        self._changed = changed
        self._channel: Any = connect()
        self._looked = time.monotonic()
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "RenewingChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close every connection."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """That of the newest connection."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return once `get_state` answers something else."""
        while self.get_state(try_to_connect=True) is last_observed_state:
            channel = self._channel
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await channel.wait_for_state_change(last_observed_state)
            except TimeoutError:
                continue
            except grpc.aio.UsageError:
                # It was retired meanwhile.
                if channel is self._channel:
                    raise

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> "_Method":
        """A method of one answer."""
        return _Method(self, "unary_unary", method, *serializers, **options)

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> "_Method":
        """A method that streams its answers."""
        return _Method(self, "unary_stream", method, *serializers, **options)

    def stream_unary(self, method: str, *serializers: Any, **options: Any) -> "_Method":
        """A method that takes a stream."""
        return _Method(self, "stream_unary", method, *serializers, **options)

    def stream_stream(self, method: str, *serializers: Any, **options: Any) -> "_Method":
        """A method of two streams."""
        return _Method(self, "stream_stream", method, *serializers, **options)

    def current(self) -> Any:
        """The channel for a call that begins now."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if self._changed():
                self._retire(self._channel)
                self._channel = self._connect()
        return self._channel

    def _retire(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.create_task(channel.close(_OLD_CALLS_SECONDS), name="retire-channel")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Method:
    def __init__(self, owner: RenewingChannel, kind: str, method: str, *serializers: Any, **options: Any) -> None:
        self._owner = owner
        self._make = (kind, method, serializers, options)
        self._channel: Any = None
        self._call: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            kind, method, serializers, made_with = self._make
            self._channel, self._call = channel, getattr(channel, kind)(method, *serializers, **made_with)
        return self._call(*arguments, **options)
