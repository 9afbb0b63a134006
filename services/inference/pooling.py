"""Rows for pooling models: what the engine is asked for, and what its tensors say."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.inference.engine_config import Answer
from services.inference.render import ScorePrompts, text_tokens
from services.inference.sampling import RowRefusedError
from tidemill.encoding import Request, SamplingValue
from tidemill.errors import RowCode
from tidemill.outputs import ClassScore

__all__ = ["Pooler"]

Run = Callable[[dict[str, Any], Any], Awaitable[Any]]
"""Gives a prompt and its `PoolingParams` to the engine: its final output, or None when the row was aborted."""


@dataclass(frozen=True)
class Pooler:
    """What a loaded pooling model can do.

    Attributes:
        task: vLLM's name of what it does: `embed` or `classify`.
        window: most tokens of a text, or of query and document together.
        labels: names of its classes by number.
        size: length of its vectors.
        shorter: lengths that vectors may be cut to: any up to `size` when empty, none when None.
        lower: texts are put into lower case first.
    """

    task: str
    window: int
    labels: tuple[str, ...]
    size: int
    shorter: tuple[int, ...] | None
    lower: bool
    tokenizer: Any
    pairs: ScorePrompts | None

    @classmethod
    async def of(cls, engine: Any, window: int) -> "Pooler":
        """What the engine says of itself; ValueError when it does neither embed nor classify."""
        config, supported = engine.model_config, await engine.get_supported_tasks()
        task = config.get_pooling_task(supported)
        if task not in ("embed", "classify"):
            raise ValueError(f"the model does not embed, classify or score: vLLM offers {', '.join(supported)}")
        names: dict[int, str] = getattr(config.hf_config, "id2label", None) or {}
        return cls(
            task=task,
            window=window,
            labels=tuple(name for _, name in sorted(names.items())) if task == "classify" else (),
            size=config.embedding_size,
            shorter=tuple(config.matryoshka_dimensions or ()) if config.is_matryoshka else None,
            lower=bool((config.encoder_config or {}).get("do_lower_case", False)),
            tokenizer=engine.get_tokenizer(),
            pairs=ScorePrompts.of(engine) if task == "classify" and len(names) == 1 else None,
        )

    async def canary(self, run: Run) -> None:
        """Returns once the engine has answered something small."""
        await run({"prompt_token_ids": [0]}, _parameters(self.task))

    async def answer(self, request: Request, defaults: Mapping[str, SamplingValue], run: Run) -> Answer | None:
        """The answer to an embedding, classification or score row; None when it was aborted.

        Args:
            defaults: the job's sampling values, which must be none.

        Raises:
            RowRefusedError: the row cannot be asked of this model.
        """
        if sampling := {**defaults, **request.sampling}:
            name = next(iter(sampling))
            raise RowRefusedError(
                RowCode.UNSUPPORTED_PARAMETER,
                f"sampling.{name} applies to prompts and chats, not to {request.task} rows",
            )
        match request.task:
            case "embedding":
                return await self._embedding(request, run)
            case "classification":
                return await self._classes(request, run)
            case _:
                return await (self._similarity(request, run) if self.task == "embed" else self._score(request, run))

    async def _embedding(self, request: Request, run: Run) -> Answer | None:
        tokens = self._tokens(request.text)
        final = await run(tokens, _parameters("embed", self._dimensions(request.dimensions)))
        if final is None:
            return None
        return _answer(final, vector=final.outputs.data.numpy().astype("<f4", copy=False).tobytes())

    async def _classes(self, request: Request, run: Run) -> Answer | None:
        final = await run(self._tokens(request.text), _parameters("classify"))
        if final is None:
            return None
        pairs = zip(self.labels, final.outputs.data.tolist(), strict=True)
        classes = sorted((ClassScore(label, value) for label, value in pairs), key=lambda item: -item.probability)
        return _answer(final, classes=tuple(classes))

    async def _score(self, request: Request, run: Run) -> Answer | None:
        if self.pairs is None:
            raise RowRefusedError(RowCode.TASK_NOT_SUPPORTED, "the model has several classes and scores no pairs")
        tokens, extra = self.pairs.render(request.query, request.document)
        parameters = _parameters("classify")
        if extra:
            parameters.extra_kwargs = extra
        final = await run(self._fitting(tokens), parameters)
        return None if final is None else _answer(final, score=final.outputs.data.item())

    async def _similarity(self, request: Request, run: Run) -> Answer | None:
        """An embedding model scores a pair by the cosine of its vectors."""
        from torch.nn.functional import cosine_similarity

        query = await run(self._tokens(request.query), _parameters("embed"))
        document = await run(self._tokens(request.document), _parameters("embed")) if query is not None else None
        if query is None or document is None:
            return None
        value = cosine_similarity(query.outputs.data.float(), document.outputs.data.float(), dim=0).item()
        answer = _answer(document, score=value)
        return replace(
            answer,
            prompt_tokens=answer.prompt_tokens + len(query.prompt_token_ids),
            cached_tokens=answer.cached_tokens + (query.num_cached_tokens or 0),
        )

    def _tokens(self, text: str) -> dict[str, Any]:
        return self._fitting(text_tokens(self.tokenizer, text.lower() if self.lower else text))

    def _fitting(self, tokens: list[int]) -> dict[str, Any]:
        if len(tokens) > self.window:
            raise RowRefusedError(
                RowCode.PROMPT_TOO_LONG,
                f"the text has {len(tokens)} tokens, special ones included; the model's window holds {self.window}: "
                "shorten the text",
            )
        return {"prompt_token_ids": tokens}

    def _dimensions(self, wanted: int | None) -> int | None:
        if wanted is None:
            return None
        if self.shorter is None:
            allowed = f"left out: the model was not trained for vectors other than its own of {self.size}"
        elif self.shorter and wanted not in self.shorter:
            allowed = f"one of {', '.join(map(str, self.shorter))}"
        elif not 1 <= wanted <= self.size:
            allowed = f"from 1 to {self.size}"
        else:
            return wanted
        raise RowRefusedError(
            RowCode.PARAMETER_OUT_OF_RANGE, f"embedding.dimensions must be {allowed}, here {wanted} were asked for"
        )


def _parameters(task: str, dimensions: int | None = None) -> Any:
    from vllm.pooling_params import PoolingParams

    return PoolingParams(task=task, dimensions=dimensions)  # pyright: ignore[reportArgumentType] - a name that vLLM gave


def _answer(final: Any, **output: Any) -> Answer:
    return Answer(
        text=None,
        finish_reason="",
        prompt_tokens=len(final.prompt_token_ids),
        output_tokens=0,
        cached_tokens=final.num_cached_tokens or 0,
        queue_seconds=None,
        prefill_seconds=None,
        decode_seconds=None,
        **output,
    )
