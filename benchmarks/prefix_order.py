"""Rows of many families with long shared prefixes in random order, and KV memory for a few: sorted, or as they come.

    python -m benchmarks.prefix_order [--families 64] [--rows-per-family 16] [--prefix 1024] [--kv-families 8]
        [--chunk-rows 256] [--slots 4] [--repeats 3] [--model FOLDER] [--json]

One engine, the same one for both sides, behind the actor's own `generate`, with rows in chunks as a worker has them: so
many in flight, contiguous in arrival order, each in calls of `--call-rows`. Both sides run in turn on the same rows,
each from an empty cache; the ratio is our rows per second over those in arrival order. Ray and the services are left
out: they cost both sides the same. `cached` is the share of the prompt tokens that the engine's prefix cache supplied.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, figure
from services.inference.actor import EngineActor
from services.inference.engine_config import Answer, Call, EngineConfig, EngineRow, RowOrder
from tidemill.encoding import Request
from tidemill.tiny_model import make_tiny

SIDES: tuple[RowOrder, RowOrder] = ("arrival", "prefix")
_SEED = 7
_BLOCK = 128
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Load:
    """What both sides run. Lengths in tokens."""

    families: int
    rows_per_family: int
    prefix: int
    tail: int
    answer: int
    kv_families: int
    chunk_rows: int
    call_rows: int
    slots: int

    @property
    def rows(self) -> int:
        """Rows of a run."""
        return self.families * self.rows_per_family

    @property
    def kv_tokens(self) -> int:
        """Tokens for which there is KV memory, in whole blocks a row."""
        blocks = -(-(self.prefix + self.tail + self.answer) // _BLOCK)
        return self.kv_families * blocks * _BLOCK


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    seconds: float
    cached: float


class BenchedEngine(EngineActor):
    """The actor in this process, whose order can be changed between runs."""

    async def take(self, order: RowOrder) -> None:
        """Run in this order from now on, with nothing cached."""
        self._config = replace(self._config, row_order=order)
        self._admission = self._new_admission()
        await self._engine.reset_prefix_cache()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer(text).input_ids)


def kv_bytes(model: Path, tokens: int) -> int:
    """Memory for the keys and values of so many tokens."""
    shape: dict[str, Any] = json.loads((model / "config.json").read_text())
    heads = shape["num_attention_heads"]
    head_size = shape.get("head_dim") or shape["hidden_size"] // heads
    width = 2 if shape.get("torch_dtype") in ("bfloat16", "float16") else 4
    return 2 * shape["num_hidden_layers"] * shape.get("num_key_value_heads", heads) * head_size * width * tokens


def prompts(load: Load, engine: BenchedEngine) -> list[str]:
    """The rows' prompts in random order; every tail is its own."""
    draw = random.Random(_SEED)  # noqa: S311 - the same rows in every run, no secret
    prefixes = [_text(draw, load.prefix, engine) for _ in range(load.families)]
    rows = [prefix + _text(draw, load.tail, engine) for prefix in prefixes for _ in range(load.rows_per_family)]
    draw.shuffle(rows)
    return rows


def _text(draw: random.Random, tokens: int, engine: BenchedEngine) -> str:
    words: list[str] = []
    while engine.count(" ".join(words)) < tokens:
        words += ["".join(draw.choices(_LETTERS, k=5)) for _ in range(max(1, tokens // 16))]
    while engine.count(" ".join(words)) > tokens:
        words.pop()
    return " ".join(words)


async def run(engine: BenchedEngine, load: Load, texts: Sequence[str]) -> Run:
    """Answer all rows, so many chunks at a time."""
    answers: list[Answer] = []
    chunks = _pieces([EngineRow(index, _request(text, load)) for index, text in enumerate(texts)], load.chunk_rows)
    started = time.monotonic()
    await asyncio.gather(*(_work(engine, load, chunks, answers) for _ in range(load.slots)))
    seconds = time.monotonic() - started
    if len(answers) != len(texts):
        raise SystemExit(f"{len(texts) - len(answers)} rows have no answer")
    return Run(seconds, sum(item.cached_tokens for item in answers) / sum(item.prompt_tokens for item in answers))


def _request(text: str, load: Load) -> Request:
    return Request(task="prompt", prompt=text, messages=(), sampling={"temperature": 0.0, "max_tokens": load.answer})


def _pieces(rows: Sequence[EngineRow], size: int) -> Iterator[list[EngineRow]]:
    return (list(rows[at : at + size]) for at in range(0, len(rows), size))


async def _work(engine: BenchedEngine, load: Load, chunks: Iterator[list[EngineRow]], answers: list[Answer]) -> None:
    for chunk in chunks:
        calls = [_call(engine, str(chunk[0].row_index), rows) for rows in _pieces(chunk, load.call_rows)]
        for found in await asyncio.gather(*calls):
            answers += found


async def _call(engine: BenchedEngine, group: str, rows: list[EngineRow]) -> list[Answer]:
    outcomes = [item async for batch in engine.generate(Call(group), rows) for item in batch]
    return [item.result for item in outcomes if isinstance(item.result, Answer)]


async def measure(model: Path, load: Load, repeats: int) -> dict[RowOrder, list[Run]]:
    """Runs of both sides in turn, after one of each that is not counted."""
    window = load.prefix + load.tail + load.answer + 64
    engine = BenchedEngine(
        EngineConfig("benchmark", str(model), "cpu", window, "auto", kv_bytes(model, load.kv_tokens), 256, 4096)
    )
    await engine.load()
    texts = prompts(load, engine)
    runs: dict[RowOrder, list[Run]] = {side: [] for side in SIDES}
    try:
        for number in range(repeats + 1):
            for side in SIDES:
                await engine.take(side)
                found = await run(engine, load, texts)
                if number:
                    runs[side].append(found)
    finally:
        await engine.shutdown()
    return runs


def printed(load: Load, runs: dict[RowOrder, list[Run]], *, as_json: bool) -> str:
    """The result: one JSON object, or a small table."""
    rates: dict[str, Figure] = {side: figure([load.rows / item.seconds for item in runs[side]]) for side in SIDES}
    cached: dict[str, float] = {side: round(figure([item.cached for item in runs[side]]).median, 4) for side in SIDES}
    ratio = round(rates["prefix"].median / rates["arrival"].median, 4)
    if as_json:
        sides = {side: {**asdict(rates[side]), "cached": cached[side]} for side in SIDES}
        return json.dumps(
            {"benchmark": "prefix order", "unit": "rows/s", "load": asdict(load), "sides": sides, "ratio": ratio}
        )
    lines = [f"prefix order (rows/s), {load.rows} rows of {load.families} families"]
    for side, rate in rates.items():
        lines.append(
            f"  {side:<10} {rate.median:>9.2f}  [{rate.min:.2f} .. {rate.max:.2f}]  n={rate.runs}  "
            f"cached {cached[side]:.1%}"
        )
    return "\n".join([*lines, f"  ratio {ratio:.2f}"])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", type=int, default=64)
    parser.add_argument("--rows-per-family", type=int, default=16)
    parser.add_argument("--prefix", type=int, default=1024, help="tokens that a family shares")
    parser.add_argument("--tail", type=int, default=32, help="tokens of a row's own")
    parser.add_argument("--answer", type=int, default=8, help="tokens of an answer")
    parser.add_argument("--kv-families", type=int, default=8, help="rows for which there is KV memory")
    parser.add_argument("--chunk-rows", type=int, default=256)
    parser.add_argument("--call-rows", type=int, default=512)
    parser.add_argument("--slots", type=int, default=4, help="chunks in flight")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a model folder; default: the tiny model")
    parser.add_argument("--json", action="store_true")
    # Standard output is for the result.
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    given = vars(parser.parse_args())
    model, repeats, as_json = given.pop("model"), given.pop("repeats"), given.pop("json")
    load = Load(**given)
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            model = Path(folder) / "tiny"
            make_tiny(model)
        runs = asyncio.run(measure(model, load, repeats))
    print(printed(load, runs, as_json=as_json))


if __name__ == "__main__":
    main()
