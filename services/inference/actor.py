"""The Ray actor around one vLLM engine. Runs in a Ray worker process; nothing else imports vLLM."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from services.inference.admission import Admission
from services.inference.engine_config import (
    Answer,
    Call,
    EngineConfig,
    EngineRow,
    Outcome,
    Probe,
    Refusal,
    engine_arguments,
)
from services.inference.identity import Identity, identity_of
from services.inference.prefixes import Place, token_bytes
from services.inference.render import prompt_tokens
from services.inference.sampling import RowRefusedError, engine_sampling
from tidemill.errors import RowCode

__all__ = ["EngineActor", "EngineLostError"]

# Finished rows are handed on about once a second, so that a crash costs a second of work.
_FLUSH_SECONDS = 0.5
_REMEMBERED_ABORTS = 1024
_LOOK_SECONDS = 0.1


_Outcomes = set[asyncio.Task[Outcome | None]]


class EngineLostError(RuntimeError):
    """The engine died under its rows: they have no outcome and must run again."""


class EngineActor:
    """Answers rows of many chunks and jobs at once, in one continuous batch."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._engine: Any = None
        self._tokenizer: Any = None
        self._steps = 0
        self._serial = 0
        self._admission = Admission(0, 0, 0)
        self._groups: dict[str, set[str]] = {}
        self._aborted: dict[str, None] = {}

    async def load(self) -> float:
        """Start the engine and answer one canary; returns seconds. Raises what vLLM raises."""
        start = time.monotonic()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**engine_arguments(self._config), disable_log_stats=False)
        self._engine = AsyncLLM.from_engine_args(arguments, stat_loggers=[self._step_counter()])
        self._tokenizer = self._engine.get_tokenizer()
        self._admission = self._new_admission()
        await self._canary()
        return time.monotonic() - start

    async def generate(self, call: Call, rows: list[EngineRow]) -> AsyncIterator[list[Outcome]]:
        """Outcomes as they come, about once a second; aborted rows have none.

        A row that cannot run is a Refusal and disturbs no other. Raises EngineLostError when the engine is dead, behind
        the outcomes of rows that had finished.
        """
        tasks = {asyncio.create_task(self._outcome(call, row)) for row in rows}
        try:
            while tasks:
                done, tasks = await _first(tasks, _FLUSH_SECONDS)
                faults = [fault for task in done if (fault := task.exception())]
                if finished := [outcome for task in done if not task.exception() and (outcome := task.result())]:
                    yield finished
                if faults:
                    raise faults[0]
        finally:
            for task in tasks:
                task.cancel()

    async def abort(self, group: str) -> None:
        """Stop the group's rows now, and those of its calls that are still to come."""
        self._aborted[group] = None
        while len(self._aborted) > _REMEMBERED_ABORTS:
            del self._aborted[next(iter(self._aborted))]
        self._admission.withdraw(group)
        if requests := list(self._groups.get(group, ())):
            await self._engine.abort(requests)

    async def probe(self) -> Probe:
        """Returns once the engine shows life: it answers a canary, or makes steps while the canary waits its turn."""
        before, canary = self._steps, asyncio.ensure_future(self._canary())
        try:
            while not canary.done() and self._steps == before:
                await asyncio.wait([canary], timeout=_LOOK_SECONDS)
            if canary.done():
                canary.result()
        finally:
            canary.cancel()
        return Probe(self._steps, self._engine.output_processor.get_num_unfinished_requests())

    async def identity(self) -> Identity:
        """What the engine runs as, once it is loaded."""
        return identity_of(self._config, str(self._engine.vllm_config.model_config.dtype).removeprefix("torch."))

    async def shutdown(self) -> None:
        """End the engine's own processes."""
        if self._engine is not None:
            self._engine.shutdown()

    async def _outcome(self, call: Call, row: EngineRow) -> Outcome | None:
        try:
            answer = await self._answer(call, row)
        except RowRefusedError as refused:
            return Outcome(row.row_index, Refusal(refused.code, refused.message))
        return Outcome(row.row_index, answer) if answer else None

    async def _answer(self, call: Call, row: EngineRow) -> Answer | None:
        tokens = prompt_tokens(self._tokenizer, row.request)
        values = {**call.defaults, **row.request.sampling}
        arguments = engine_sampling(values, len(tokens), self._config.window)
        final = await self._run(call.group, tokens, arguments)
        if final is None or final.outputs[0].finish_reason == "abort":
            return None
        if final.outputs[0].finish_reason not in ("stop", "length"):
            raise RowRefusedError(RowCode.ENGINE_REFUSED, f"the engine ended the row: {final.outputs[0].finish_reason}")
        return _answer_of(final)

    async def _run(self, group: str, tokens: list[int], arguments: dict[str, Any]) -> Any:
        """The engine's final output, None when the group was aborted."""
        place = Place(group, token_bytes(tokens), len(tokens) + arguments["max_tokens"])
        if group in self._aborted or not await self._admission.enter(place):
            return None
        try:
            return await self._run_admitted(group, tokens, arguments)
        finally:
            self._admission.leave(place)

    async def _run_admitted(self, group: str, tokens: list[int], arguments: dict[str, Any]) -> Any:
        if group in self._aborted:
            return None
        self._serial += 1
        request_id = f"{group}:{self._serial}"
        requests = self._groups.setdefault(group, set())
        requests.add(request_id)
        try:
            return await self._final_output(request_id, tokens, arguments)
        finally:
            requests.discard(request_id)
            if not requests:
                self._groups.pop(group, None)

    async def _final_output(self, request_id: str, tokens: list[int], arguments: dict[str, Any]) -> Any:
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        final: Any = None
        try:
            parameters = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **arguments)
            async for output in self._engine.generate({"prompt_token_ids": tokens}, parameters, request_id):
                final = output
        except EngineDeadError as exc:
            raise EngineLostError(f"the engine of {self._config.model} died: {exc}") from exc
        except (VLLMClientError, ValueError, TypeError) as exc:
            raise RowRefusedError(RowCode.ENGINE_REFUSED, f"the engine refuses the row: {exc}") from exc
        except EngineGenerateError as exc:
            if self._engine.errored:
                raise EngineLostError(f"the engine of {self._config.model} died: {exc.__cause__}") from exc
            raise RowRefusedError(RowCode.ENGINE_REFUSED, f"the engine failed at the row: {exc.__cause__}") from exc
        return final

    async def _canary(self) -> None:
        # A living check_health proves nothing: only an answer shows that requests still reach the engine.
        await self._final_output(f"canary:{time.monotonic_ns()}", [0], {"temperature": 0.0, "max_tokens": 1})

    def _new_admission(self) -> Admission:
        config = self._config
        sorts = config.row_order == "prefix"
        block_tokens = int(self._engine.vllm_config.cache_config.block_size) if sorts else 0
        return Admission(block_tokens, config.max_num_seqs, config.max_num_batched_tokens)

    def _step_counter(self) -> Any:
        from vllm.v1.metrics.loggers import StatLoggerBase

        actor = self

        class StepCounter(StatLoggerBase):
            """Counts engine steps: progress that final-only outputs do not show."""

            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                """Nothing to keep."""

            def record(self, scheduler_stats: Any, *_args: Any, **_options: Any) -> None:
                actor._steps += 1
                if scheduler_stats is not None:
                    actor._admission.stepped(scheduler_stats.num_running_reqs)

            def log_engine_initialized(self) -> None:
                """Nothing to say."""

        return StepCounter


async def _first(tasks: _Outcomes, seconds: float) -> tuple[_Outcomes, _Outcomes]:
    """Those that end within so many seconds, or until one fails, and the others."""
    flush_at, done, pending = time.monotonic() + seconds, _Outcomes(), tasks
    while pending and (left := flush_at - time.monotonic()) > 0:
        ended, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        done |= ended
        if any(task.exception() for task in ended):
            break
    return done, pending


def _answer_of(final: Any) -> Answer:
    output, times = final.outputs[0], final.metrics
    return Answer(
        text=output.text,
        finish_reason=output.finish_reason,
        prompt_tokens=len(final.prompt_token_ids),
        output_tokens=len(output.token_ids),
        cached_tokens=final.num_cached_tokens or 0,
        queue_seconds=_seconds(times, "queued_ts", "scheduled_ts"),
        prefill_seconds=_seconds(times, "scheduled_ts", "first_token_ts"),
        decode_seconds=_seconds(times, "first_token_ts", "last_token_ts"),
    )


def _seconds(times: Any, start: str, end: str) -> float | None:
    first, last = getattr(times, start, 0.0), getattr(times, end, 0.0)
    return last - first if first and last else None
