"""Calls that a fuzzer makes and what it makes of their ends."""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from benchmarks.fuzz_examples import Examples, FreshJobs, corpus_of, examples_of
from benchmarks.fuzz_messages import Corpus, damaged, messages, spoiled

__all__ = ["Call", "FindingError", "Line", "calls"]

UNARY_SECONDS = 30.0
STREAM_SECONDS = 0.4
_MOST_ANSWERS = 20
_SENT_MOST = 64 << 20

# Nobody may see these of a service that is well, whatever was sent.
_NEVER = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAVAILABLE,
    }
)
# gRPC itself ends calls with these, before any of ours sees them, or because the fuzzer had enough.
_BY_GRPC = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED})


class FindingError(AssertionError):
    """A call that ended as none may."""


@dataclass(frozen=True)
class Call:
    """One RPC: the method's path, its shape, the bytes of its requests and further metadata."""

    method: str
    streams_in: bool
    streams_out: bool
    requests: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()

    def dump(self) -> str:
        """JSON that `load` reads."""
        requests = [base64.b64encode(data).decode() for data in self.requests]
        return json.dumps({**self.__dict__, "requests": requests}, indent=1)

    @classmethod
    def load(cls, path: Path) -> Self:
        """A call that was dumped."""
        values = json.loads(path.read_text())
        values["requests"] = tuple(base64.b64decode(text) for text in values["requests"])
        values["metadata"] = tuple((key, value) for key, value in values["metadata"])
        return cls(**values)


@dataclass
class Line:
    """A connection to one service, and what was seen on it."""

    address: str
    authorization: str
    codes: dict[str, int] = field(default_factory=dict[str, int])
    slowest_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._channel = grpc.insecure_channel(self.address, [("grpc.max_send_message_length", _SENT_MOST)])

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def make(self, call: Call) -> grpc.StatusCode:
        """Make a call and return its status; FindingError when it is one that nobody may see."""
        started = time.monotonic()
        code, words, typed = self._ended(call)
        seconds = time.monotonic() - started
        if not call.streams_out:
            self.slowest_seconds = max(self.slowest_seconds, seconds)
        self.codes[code.name] = self.codes.get(code.name, 0) + 1
        if code in _NEVER:
            raise FindingError(f"{call.method} ended as {code.name}: {words}")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and not call.streams_out:
            raise FindingError(f"{call.method} had no answer after {seconds:.0f} s")
        if code not in _BY_GRPC and code is not grpc.StatusCode.OK and not typed:
            raise FindingError(f"{call.method} ended as {code.name} without an ErrorInfo: {words}")
        return code

    def _ended(self, call: Call) -> tuple[grpc.StatusCode, str, bool]:
        metadata = call.metadata
        if self.authorization and not any(key == "authorization" for key, _ in metadata):
            metadata = (*metadata, ("authorization", self.authorization))
        try:
            self._answers(call, metadata)
        except grpc.RpcError as exc:
            ended = cast("Any", exc)
            typed = any(key == "grpc-status-details-bin" for key, _ in ended.trailing_metadata() or ())
            return ended.code(), ended.details() or "", typed
        return grpc.StatusCode.OK, "", True

    def _answers(self, call: Call, metadata: Sequence[tuple[str, str]]) -> None:
        seconds = STREAM_SECONDS if call.streams_out else UNARY_SECONDS
        options: dict[str, Any] = {"metadata": metadata, "timeout": seconds}
        channel = cast("Any", self._channel)
        match call.streams_in, call.streams_out:
            case False, False:
                channel.unary_unary(call.method)(call.requests[0], **options)
            case True, False:
                channel.stream_unary(call.method)(iter(call.requests), **options)
            case False, True:
                _drained(channel.unary_stream(call.method)(call.requests[0], **options))
            case _:
                _drained(channel.stream_stream(call.method)(iter(call.requests), **options))


def _drained(call: Any) -> None:
    for number, _ in enumerate(call):
        if number == _MOST_ANSWERS:
            call.cancel()
            return


_METADATA = st.one_of(
    *[st.just(())] * 9,
    st.tuples(
        st.tuples(
            st.sampled_from(["traceparent", "tracestate", "baggage", "authorization", "x-odd", "grpc-accept-encoding"]),
            st.one_of(
                st.sampled_from(
                    [
                        "",
                        "Bearer",
                        "Bearer x",
                        "Basic x",
                        "Bearer tm_live_x_y",
                        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
                    ]
                ),
                st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
            ),
        )
    ),
)


def calls(service: ServiceDescriptor, jobs: FreshJobs, without: Sequence[str] = ()) -> st.SearchStrategy[Call]:
    """Calls of any method of a service but some: good ones that were spoiled, of random messages, of damaged bytes."""
    corpus, examples = corpus_of(jobs), examples_of(jobs)
    return st.one_of(
        [_calls(method, corpus, _fitting(method, examples)) for method in service.methods if method.name not in without]
    )


def _fitting(method: MethodDescriptor, examples: Examples) -> Sequence[Message]:
    """The examples of a method; the scheduler has methods of the same names with other requests."""
    return [item for item in examples.get(method.name, ()) if item.DESCRIPTOR is method.input_type]


def _calls(method: MethodDescriptor, corpus: Corpus, examples: Sequence[Message]) -> st.SearchStrategy[Call]:
    kind = GetMessageClass(method.input_type)
    drawn = _serialized(messages(kind, corpus))
    anything = st.one_of(drawn, drawn.flatmap(damaged), st.binary(max_size=200))
    requests: st.SearchStrategy[Any]
    requests = st.lists(anything, max_size=4) if method.client_streaming else st.tuples(anything)
    if examples:
        near = st.tuples(*(_near(item, corpus) for item in examples))
        requests = st.one_of(near, near, near, requests)
    return st.builds(
        Call,
        st.just(f"/{method.containing_service.full_name}/{method.name}"),
        st.just(method.client_streaming),
        st.just(method.server_streaming),
        requests.map(tuple),
        _METADATA,
    )


def _near(example: Message, corpus: Corpus) -> st.SearchStrategy[bytes]:
    good, bad = _serialized(st.just(example)), _serialized(spoiled(example, corpus))
    return st.one_of(good, bad, bad, bad, bad, good.flatmap(damaged))


def _serialized(values: st.SearchStrategy[Message]) -> st.SearchStrategy[bytes]:
    return values.map(lambda message: message.SerializeToString())
