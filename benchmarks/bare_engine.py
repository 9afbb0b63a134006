"""Bare vLLM, the limit of `benchmarks.throughput`: answers rows with `LLM.generate` or with `AsyncLLM`.

    python -m benchmarks.bare_engine llm|async MODEL ENGINE_JSON

Loads once, prints `ready`, then reads a JSON object `{"prompts": [...], "sampling": {...}}` a line and prints for each
the seconds from the first prompt handed over to the last answer in hand, texts included.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="ERROR")

Run = Callable[[list[str], dict[str, Any]], int]


def blocking(arguments: dict[str, Any]) -> Run:
    """`LLM.generate`; a run returns the number of answers."""
    from vllm import LLM, SamplingParams

    engine = LLM(**arguments)

    def run(prompts: list[str], sampling: dict[str, Any]) -> int:
        outputs = engine.generate(prompts, SamplingParams(**sampling), use_tqdm=False)
        return sum(output.outputs[0].finish_reason is not None for output in outputs)

    return run


def concurrent(arguments: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Run:
    """`AsyncLLM.generate`, a task a row."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    async def start() -> Any:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))

    engine, serial = loop.run_until_complete(start()), 0

    async def answer(prompt: str, parameters: Any, name: str) -> bool:
        outputs = [output async for output in engine.generate(prompt, parameters, name)]
        return outputs[-1].outputs[0].finish_reason is not None

    async def answer_all(prompts: list[str], sampling: dict[str, Any]) -> int:
        nonlocal serial
        parameters = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **sampling)
        names = [str(serial + number) for number in range(len(prompts))]
        serial += len(prompts)
        pairs = zip(prompts, names, strict=True)
        return sum(await asyncio.gather(*(answer(prompt, parameters, name) for prompt, name in pairs)))

    return lambda prompts, sampling: loop.run_until_complete(answer_all(prompts, sampling))


def main() -> None:
    kind, engine = sys.argv[1], json.loads(sys.argv[2])
    # vLLM prints to the same stream; figures go where it was, everything else to the errors.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    run = blocking(engine) if kind == "llm" else concurrent(engine, loop)
    print("ready", file=answers)
    for line in sys.stdin:
        work = json.loads(line)
        started = time.monotonic()
        finished = run(work["prompts"], work["sampling"])
        seconds = time.monotonic() - started
        if finished != len(work["prompts"]):
            raise SystemExit(f"{finished} answers for {len(work['prompts'])} rows")
        print(seconds, file=answers)


if __name__ == "__main__":
    main()
