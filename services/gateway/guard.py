"""What every call passes before its handler: who calls, whether it may, how much of that; and the audit log's line.

A call that stays open is looked at again each second: once its key is revoked, expired or replaced it ends as a new
call with that key would.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, cast

from google.protobuf.message import Message

from services.gateway import metrics
from services.gateway.audit import AuditLog, Entry
from services.gateway.auth import Authenticator, Principal, caller
from services.gateway.rates import Rates
from services.gateway.rules import Rule, rule_of
from tidemill.errors import TidemillError
from tidemill.interception import HandlerWrapper, Stream, Unary

CHECK_SECONDS = 1.0
"""Pause between looks at the keys of open calls."""
USES_SECONDS = 60.0
"""Pause between writes of when keys were used."""

# Size of the message that the running task read or wrote last. Tasks do not share it, and nothing runs between the
# reading of a message and its handler.
_message_bytes: ContextVar[int] = ContextVar("message_bytes", default=0)


class _Call:
    """A call on its way."""

    def __init__(self, method: str, rule: Rule, context: Any) -> None:
        self.method = method
        self.rule = rule
        self.entry = Entry(method, peer=context.peer())
        self.refusal: TidemillError | None = None
        self._waiting: asyncio.Timeout | None = None

    @property
    def action(self) -> str:
        """The method's own name."""
        return self.method.rpartition("/")[2]

    def end(self, refusal: TidemillError) -> None:
        """Let the call fail with `refusal` as soon as its handler waits for something."""
        self.refusal = refusal
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def endable(self) -> AsyncGenerator[None]:
        """Within, `end` interrupts what is awaited."""
        self._check()
        try:
            async with asyncio.timeout(None) as self._waiting:
                yield
        except TimeoutError:
            self._check()
            raise
        finally:
            self._waiting = None

    def _check(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class Guard(HandlerWrapper):
    """The gateway's interceptor. `watch` must run beside it."""

    def __init__(self, authenticator: Authenticator, rates: Rates, audit: AuditLog) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._rates = rates
        self._audit = audit
        self._open: dict[_Call, Principal] = {}

    async def watch(self) -> None:
        """End open calls whose key works no more, and write down when keys were used; until cancelled."""
        written = time.monotonic()
        try:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                self._authenticator.refresh()
                self._check_open()
                if time.monotonic() - written >= USES_SECONDS:
                    written = time.monotonic()
                    await asyncio.to_thread(self._authenticator.write_uses)
        finally:
            self._authenticator.write_uses()
            self._audit.close()

    def deserializer(self, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """One that measures."""

        def measured(data: bytes) -> Any:
            _message_bytes.set(len(data))
            return read(data)

        return measured

    def serializer(self, write: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        """One that measures."""

        def measured(message: Any) -> bytes:
            data = write(message)
            _message_bytes.set(len(data))
            return data

        return measured

    def wrap_unary(self, method: str, behavior: Unary, *, streamed: bool) -> Unary:
        """See `HandlerWrapper`."""
        rule = rule_of(method)

        async def handle(request: Any, context: Any) -> Any:
            call = _Call(method, rule, context)
            with self._audited(call):
                if not streamed:
                    call.entry.note(request)
                principal = self._admit(call, context)
                if not streamed:
                    self._rates.admit_upload(principal.tenant, _message_bytes.get())
                    response = await behavior(request, context)
                else:
                    with self._held(call, principal):
                        async with call.endable():
                            response = await behavior(self._requests(call, principal, request), context)
                call.entry.note(response)
                return response

        return handle

    def wrap_stream(self, method: str, behavior: Stream, *, streamed: bool) -> Stream:
        """See `HandlerWrapper`."""
        rule = rule_of(method)

        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            call = _Call(method, rule, context)
            with self._audited(call):
                principal = self._admit(call, context)
                requests = self._requests(call, principal, request) if streamed else request
                with self._held(call, principal):
                    async with aclosing(cast("Any", behavior(requests, context))) as responses:
                        _message_bytes.set(0)
                        while (response := await self._next(call, principal, responses)) is not None:
                            yield response

        return handle

    def _admit(self, call: _Call, context: Any) -> Principal:
        try:
            principal = self._authenticator.authenticate(context.invocation_metadata() or ())
        except TidemillError as exc:
            metrics.AUTH_FAILURES.labels(exc.reason).inc()
            raise
        call.entry.tenant, call.entry.key = principal.tenant, principal.key_id
        principal.require(call.rule.scope, call.action)
        self._rates.admit_call(principal.tenant)
        caller.set(principal)
        return principal

    async def _requests(self, call: _Call, principal: Principal, requests: Any) -> AsyncIterator[Any]:
        first = True
        async for request in requests:
            if first:
                call.entry.note(request)
                first = False
            await self._rates.slow_upload(principal.tenant, _message_bytes.get())
            yield request

    async def _next(self, call: _Call, principal: Principal, responses: AsyncIterator[Any]) -> Message | None:
        async with call.endable():
            # Of the response before: it was written since.
            await self._rates.slow_download(principal.tenant, _message_bytes.get())
            return await anext(responses, None)

    @contextlib.contextmanager
    def _held(self, call: _Call, principal: Principal) -> Generator[None]:
        with self._rates.stream(principal.tenant):
            self._open[call] = principal
            try:
                yield
            finally:
                del self._open[call]

    @contextlib.contextmanager
    def _audited(self, call: _Call) -> Generator[None]:
        outcome = "OK"
        try:
            yield
        except TidemillError as exc:
            outcome = exc.reason
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "CANCELLED"
            raise
        except BaseException:
            outcome = "INTERNAL"
            raise
        finally:
            if call.rule.mutates:
                self._audit.write(call.entry, outcome)

    def _check_open(self) -> None:
        for call, principal in self._open.items():
            if call.refusal is not None:
                continue
            try:
                self._authenticator.check_still(principal, call.rule.scope, call.action)
            except TidemillError as refusal:
                metrics.AUTH_FAILURES.labels(refusal.reason).inc()
                call.end(refusal)
