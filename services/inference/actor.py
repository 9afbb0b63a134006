"""The Ray actor around one vLLM engine. Runs in a Ray worker process; nothing else imports vLLM."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from services.inference import orphans
from services.inference.admission import Admission
from services.inference.completion import completion_answer
from services.inference.engine_config import (
    STRUCTURED_OUTPUTS,
    Answer,
    Call,
    EngineConfig,
    EngineRow,
    Outcome,
    Probe,
    Refusal,
    engine_arguments,
)
from services.inference.gathering import Gathering
from services.inference.identity import Identity, identity_of
from services.inference.pooling import Pooler
from services.inference.prefixes import Place, token_bytes
from services.inference.render import prompts_tokens
from services.inference.sampling import RowRefusedError, engine_sampling
from services.inference.schemas import SchemaChecker
from services.inference.tasks import task_refusal
from services.inference.words import EngineLoadError, log_ends, root_cause
from tidemill.errors import RowCode

__all__ = ["EngineActor", "EngineLostError", "Prompt"]

# Finished rows are handed on about once a second, so that a crash costs a second of work.
_FLUSH_SECONDS = 0.5
_REMEMBERED_ABORTS = 1024
_LOOK_SECONDS = 0.1


Prompt = list[int] | RowRefusedError
"""Token ids, or why there are none."""

_Asked = Callable[[str], AsyncIterator[Any]]
"""Gives a request of that id to the engine, which answers with its outputs."""


class EngineLostError(RuntimeError):
    """The engine died under its rows: they have no outcome and must run again."""


class EngineActor:
    """Answers rows of many chunks and jobs at once, in one continuous batch."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._engine: Any = None
        self._tokenizer: Any = None
        self._pooler: Pooler | None = None
        self._schemas: SchemaChecker | None = None
        self._steps = 0
        self._serial = 0
        self._admission = Admission(0, 0, 0)
        self._groups: dict[str, set[str]] = {}
        self._aborted: dict[str, None] = {}

    async def load(self) -> float:
        """Start the engine and answer one canary; returns seconds. EngineLoadError says in vLLM's words why not."""
        start, ends = time.monotonic(), log_ends()
        orphans.guard_strays()
        try:
            await self._start()
        except Exception as exc:
            raise EngineLoadError(root_cause(exc, ends)) from exc
        return time.monotonic() - start

    async def _start(self) -> None:
        from vllm.config.structured_outputs import StructuredOutputsConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            **engine_arguments(self._config),
            disable_log_stats=False,
            structured_outputs_config=StructuredOutputsConfig(**STRUCTURED_OUTPUTS),
        )
        self._engine = AsyncLLM.from_engine_args(arguments, stat_loggers=[self._step_counter()])
        self._tokenizer = self._engine.get_tokenizer()
        self._admission = self._new_admission()
        if self._config.pooling:
            self._pooler = await Pooler.of(self._engine, self._config.window)
        else:
            self._schemas = SchemaChecker(self._config.path, self._engine.model_config.get_vocab_size())
        await self._canary()

    async def generate(self, call: Call, rows: list[EngineRow]) -> AsyncIterator[list[Outcome]]:
        """Outcomes as they come, about once a second; aborted rows have none.

        A row that cannot run is a Refusal and disturbs no other. Raises EngineLostError when the engine is dead, behind
        the outcomes of rows that had finished.
        """
        prompts = self._prompts(rows)
        work = (self._outcome(call, row, prompt) for row, prompt in zip(rows, prompts, strict=True))
        async with aclosing(Gathering[Outcome](work).batches(_FLUSH_SECONDS)) as batches:
            async for finished in batches:
                yield finished

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
        if self._schemas is not None:
            self._schemas.close()
        if self._engine is not None:
            self._engine.shutdown()

    def _prompts(self, rows: list[EngineRow]) -> list[Prompt]:
        """The rows' token ids, or why the model does not answer them; the pooler makes its prompts itself."""
        config = self._config
        refusals = [task_refusal(config.model, config.tasks, row.request.task) for row in rows]
        known = [row.request for row, refusal in zip(rows, refusals, strict=True) if refusal is None]
        found = iter([[]] * len(known) if self._pooler else prompts_tokens(self._tokenizer, known))
        return [refusal or next(found) for refusal in refusals]

    async def _outcome(self, call: Call, row: EngineRow, prompt: Prompt) -> Outcome | None:
        try:
            if isinstance(prompt, RowRefusedError):
                raise prompt
            answer = await self._answer(call, row, prompt)
        except RowRefusedError as refused:
            return Outcome(row.row_index, Refusal(refused.code, refused.message))
        return Outcome(row.row_index, answer) if answer else None

    async def _answer(self, call: Call, row: EngineRow, tokens: list[int]) -> Answer | None:
        request = row.request
        if self._pooler:
            return await self._pooler.answer(
                request, call.defaults, lambda prompt, parameters: self._pooled(call.group, prompt, parameters)
            )
        values = {**call.defaults, **request.sampling}
        arguments = engine_sampling(values, len(tokens), self._config.window)
        if self._schemas and "json_schema" in arguments:
            await self._schemas.require(arguments["json_schema"])
        place = Place(call.group, token_bytes(tokens), len(tokens) + arguments.get("n", 1) * arguments["max_tokens"])
        final = await self._run(place, lambda request_id: self._generation(tokens, arguments, request_id))
        return completion_answer(final, arguments.get("logprobs")) if final else None

    async def _pooled(self, group: str, prompt: dict[str, Any], parameters: Any) -> Any:
        tokens = prompt["prompt_token_ids"]
        place = Place(group, token_bytes(tokens), len(tokens))
        final = await self._run(place, lambda request_id: self._engine.encode(prompt, parameters, request_id))
        # An aborted row ends with an empty tensor.
        return final if final and final.outputs.data.numel() else None

    async def _run(self, place: Place, asked: _Asked) -> Any:
        """The engine's final output, None when the group was aborted."""
        if place.group in self._aborted or not await self._admission.enter(place):
            return None
        try:
            return await self._run_admitted(place.group, asked)
        finally:
            self._admission.leave(place)

    async def _run_admitted(self, group: str, asked: _Asked) -> Any:
        if group in self._aborted:
            return None
        self._serial += 1
        request_id = f"{group}:{self._serial}"
        requests = self._groups.setdefault(group, set())
        requests.add(request_id)
        try:
            return await self._final_output(request_id, asked)
        finally:
            requests.discard(request_id)
            if not requests:
                self._groups.pop(group, None)

    def _generation(self, tokens: list[int], arguments: dict[str, Any], request_id: str) -> AsyncIterator[Any]:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        if "json_schema" in arguments:
            arguments = {**arguments, "structured_outputs": StructuredOutputsParams(json=arguments["json_schema"])}
            del arguments["json_schema"]
        parameters = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **arguments)
        return self._engine.generate({"prompt_token_ids": tokens}, parameters, request_id)

    async def _final_output(self, request_id: str, asked: _Asked) -> Any:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        final: Any = None
        try:
            async for output in asked(request_id):
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
        name = f"canary:{time.monotonic_ns()}"
        if self._pooler:
            await self._pooler.canary(
                lambda prompt, params: self._final_output(
                    name, lambda request_id: self._engine.encode(prompt, params, request_id)
                )
            )
            return
        least = {"temperature": 0.0, "max_tokens": 1}
        await self._final_output(name, lambda request_id: self._generation([0], least, request_id))

    def _new_admission(self) -> Admission:
        config = self._config
        sorts = config.row_order == "prefix" and not config.pooling
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
