"""Dedicated mode: a job's chunk through Ray Data LLM's own processor, with an engine of its own.

The adapter around it keeps to what the processor can do: every row has the same sampling keys and no None, rows are
rendered and tokenized by us, our columns carry names that its stages do not overwrite, and there is no finish reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from services.inference import slices
from services.inference.answers import Origin, checked_request, result_row
from services.inference.engine_config import Answer, EngineConfig, Outcome, Refusal, engine_arguments
from services.inference.render import prompt_tokens
from services.inference.sampling import RowRefusedError, engine_sampling, refuse_shared_only, uniform_sampling
from services.inference.tasks import task_refusal
from tidemill import segments
from tidemill.encoding import Request, SamplingValue
from tidemill.errors import RowCode

__all__ = ["DedicatedProcessor"]

_BATCH_ROWS = 64
# A row that no engine will see still passes through the stage, as one token that is thrown away.
_PLACEHOLDER = [0]


@dataclass(frozen=True)
class DedicatedProcessor:
    """Rows get an engine that is loaded for them and ends with them."""

    config: EngineConfig
    defaults: Mapping[str, SamplingValue]
    origin: Origin

    def __call__(self, dataset: Any) -> Any:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        processor = build_processor(vLLMEngineProcessorConfig(**_processor_options(self.config)))
        prepared = dataset.map_batches(
            partial(_prepare, self), batch_size=None, batch_format="pyarrow", zero_copy_batch=True, num_cpus=0.1
        )
        answered = processor(prepared)
        return answered.map_batches(
            partial(_finish, self), batch_size=None, batch_format="pyarrow", zero_copy_batch=True, num_cpus=0.1
        )


def _processor_options(config: EngineConfig) -> dict[str, Any]:
    arguments = engine_arguments(config)
    options: dict[str, Any] = {
        "model_source": arguments.pop("model"),
        "engine_kwargs": arguments,
        "batch_size": _BATCH_ROWS,
        "concurrency": 1,
        "should_continue_on_error": True,
        "chat_template_stage": False,
        "tokenize_stage": False,
        "detokenize_stage": False,
        "log_engine_metrics": False,
    }
    if config.device == "cpu":
        options["placement_group_config"] = {"bundles": [{"CPU": 1}]}
    return options


def _prepare(processor: DedicatedProcessor, block: Any) -> Iterator[Any]:
    """Input slices as rows for the engine stage."""
    import pyarrow as pa

    tokenizer = _tokenizer(processor.config.path)
    for table in slices.unpack(block):
        rows = [_prepared(processor, tokenizer, row) for row in segments.input_rows(table)]
        yield pa.Table.from_pylist(rows)


@lru_cache(maxsize=2)
def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def _prepared(processor: DedicatedProcessor, tokenizer: Any, row: segments.InputRow) -> dict[str, Any]:
    refusal = Refusal(RowCode.ENGINE_REFUSED, "")
    tokens, arguments = _PLACEHOLDER, engine_sampling({"max_tokens": 1}, 1, processor.config.window)
    request = checked_request(row)
    if isinstance(request, Refusal):
        refusal = request
    else:
        try:
            arguments, tokens = _asked(processor, tokenizer, request)
        except RowRefusedError as refused:
            refusal = Refusal(refused.code, refused.message)
    return {
        "tokenized_prompt": tokens,
        "sampling_params": uniform_sampling(arguments),
        "tm_row_index": row.row_index,
        "tm_custom_id": row.custom_id,
        "tm_digest": row.digest,
        "tm_refused": refusal.code.value if refusal.message else "",
        "tm_message": refusal.message,
    }


def _asked(processor: DedicatedProcessor, tokenizer: Any, request: Request) -> tuple[dict[str, Any], list[int]]:
    """Sampling arguments and prompt of a row; RowRefusedError."""
    if refusal := task_refusal(processor.config.model, processor.config.tasks, request.task):
        raise refusal
    tokens = prompt_tokens(tokenizer, request)
    values = {**processor.defaults, **request.sampling}
    arguments = engine_sampling(values, len(tokens), processor.config.window)
    refuse_shared_only(arguments)
    return arguments, tokens


def _finish(processor: DedicatedProcessor, block: Any) -> Iterator[Any]:
    """Rows of the engine stage as a result slice."""
    rows = block.to_pylist()
    if rows:
        yield slices.pack(segments.result_table([_result(processor, row) for row in rows]))


def _result(processor: DedicatedProcessor, row: Mapping[str, Any]) -> segments.ResultRow:
    own = segments.InputRow(row["tm_row_index"], row["tm_custom_id"], "", b"", row["tm_digest"])
    return result_row(own, Outcome(own.row_index, _outcome(row)), processor.origin)


def _outcome(row: Mapping[str, Any]) -> Answer | Refusal:
    if row["tm_refused"]:
        return Refusal(RowCode(row["tm_refused"]), row["tm_message"])
    if error := row.get("__inference_error__"):
        return Refusal(RowCode.ENGINE_REFUSED, f"the engine refuses the row: {error}")
    times = row.get("metrics") or {}
    return Answer(
        text=row["generated_text"],
        finish_reason="",
        prompt_tokens=int(row["num_input_tokens"]),
        output_tokens=int(row["num_generated_tokens"]),
        cached_tokens=0,
        queue_seconds=_between(times, "queued_ts", "scheduled_ts"),
        prefill_seconds=_between(times, "scheduled_ts", "first_token_ts"),
        decode_seconds=_between(times, "first_token_ts", "last_token_ts"),
    )


def _between(times: Mapping[str, Any], start: str, end: str) -> float | None:
    first, last = times.get(start), times.get(end)
    return float(last) - float(first) if first and last else None
