"""An `EngineActor` and bare `vllm.LLM` in one process: `engine_host.py IN OUT`, both pickles.

IN is a `Work`, OUT what came of it: `{"ours": [outcomes by row, …], "aborted": …, "bare": […]}`. A process of its own,
since vLLM's imports warn, and once for many questions, since engines are slow to start.
"""

import asyncio
import os
import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR")
os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).parents[2]))

from services.inference.actor import EngineActor
from services.inference.engine_config import (
    STRUCTURED_OUTPUTS,
    Call,
    EngineConfig,
    EngineRow,
    Outcome,
    engine_arguments,
)
from tidemill.encoding import Request, SamplingValue

_SHORT: dict[str, SamplingValue] = {"max_tokens": 1}


@dataclass(frozen=True)
class Bare:
    """A call of `vllm.LLM`: `generate`, `embed`, `classify` or `score`, with its inputs and parameters."""

    method: str
    inputs: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Work:
    """What to ask; `abort` is asked and then aborted."""

    config: EngineConfig
    calls: list[tuple[Call, list[EngineRow]]]
    bare: list[Bare]
    abort: tuple[Call, list[EngineRow]] | None = None


def main() -> None:
    """Answer both ways."""
    work: Work = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - the test's own file
    answers = asyncio.run(ours(work))
    answers["bare"] = bare(work)
    Path(sys.argv[2]).write_bytes(pickle.dumps(answers))


async def ours(work: Work) -> dict[str, Any]:
    """Through the actor, as Ray would call it."""
    actor = EngineActor(work.config)
    await actor.load()
    try:
        answered = [await outcomes(actor, call, rows) for call, rows in work.calls]
        aborted = await abort(actor, *work.abort) if work.abort else None
        return {"ours": answered, "aborted": aborted, "probe": await actor.probe()}
    finally:
        await actor.shutdown()


async def outcomes(actor: EngineActor, call: Call, rows: list[EngineRow]) -> dict[int, Any]:
    """The results by row index."""
    found: dict[int, Outcome] = {}
    async for some in actor.generate(call, rows):
        found |= {outcome.row_index: outcome for outcome in some}
    return {index: outcome.result for index, outcome in found.items()}


async def abort(actor: EngineActor, call: Call, rows: list[EngineRow]) -> dict[int, Any]:
    """What rows say that are aborted once the engine works on them."""
    asked = asyncio.create_task(outcomes(actor, call, rows))
    async with asyncio.timeout(240):
        # The second answers while the rows run: steps are made under them.
        for _ in range(2):
            await outcomes(actor, Call("witness"), [EngineRow(0, Request("prompt", prompt="a", sampling=_SHORT))])
        await actor.abort(call.group)
        return await asked


def bare(work: Work) -> list[Any]:
    """By `vllm.LLM`, one input at a time: the least like our batches."""
    from vllm import LLM, PoolingParams, SamplingParams
    from vllm.config.structured_outputs import StructuredOutputsConfig
    from vllm.sampling_params import StructuredOutputsParams

    if not work.bare:
        return []
    config = StructuredOutputsConfig(**STRUCTURED_OUTPUTS)
    llm: Any = LLM(**engine_arguments(work.config), structured_outputs_config=config, disable_log_stats=True)
    found: list[Any] = []
    for one in work.bare:
        if one.method == "generate":
            values = dict(one.parameters)
            if schema := values.pop("json_schema", None):
                values["structured_outputs"] = StructuredOutputsParams(json=schema)
            output = llm.generate([one.inputs[0]], SamplingParams(**values), use_tqdm=False)[0]
            found.append([(item.text, plain(item)) for item in output.outputs])
        elif one.method == "score":
            found.append(llm.score(*one.inputs, use_tqdm=False)[0].outputs.score)
        else:
            params = PoolingParams(**one.parameters)
            output = getattr(llm, one.method)([one.inputs[0]], pooling_params=params, use_tqdm=False)[0].outputs
            found.append(output.embedding if one.method == "embed" else output.probs)
    return found


def plain(output: Any) -> list[tuple[int, float, dict[int, float]]] | None:
    """Each token with its log probability, and those of the others that vLLM names."""
    if output.logprobs is None:
        return None
    pairs = zip(output.token_ids, output.logprobs, strict=True)
    return [
        (token, places[token].logprob, {key: item.logprob for key, item in places.items()}) for token, places in pairs
    ]


if __name__ == "__main__":
    main()
