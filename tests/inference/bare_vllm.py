"""Answers of bare `vllm.LLM`: `bare_vllm.py MODEL`, rows on stdin, texts on the last line of stdout (JSON).

A row is {"prompt" or "chat": text, …}; what else it has are sampling parameters. Without a temperature it is greedy.
"""

import json
import os
import sys
from typing import Any

os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR")
# Threads that spin at barriers would take the cores from everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    from vllm import LLM, SamplingParams

    rows = json.load(sys.stdin)
    llm = LLM(
        model=sys.argv[1],
        dtype="float32",
        max_model_len=2048,
        max_num_seqs=16,
        kv_cache_memory_bytes=64 << 20,
        enforce_eager=True,
    )
    texts: list[str] = [""] * len(rows)
    for kind, answer in (("prompt", llm.generate), ("chat", llm.chat)):
        chosen = [index for index, row in enumerate(rows) if kind in row]
        inputs: list[Any] = [as_input(rows[index][kind], kind) for index in chosen]
        outputs: Any = answer(inputs, [SamplingParams(**sampling(rows[index])) for index in chosen], use_tqdm=False)
        for index, output in zip(chosen, outputs, strict=True):
            texts[index] = output.outputs[0].text
    print(json.dumps(texts))


def as_input(text: str, kind: str) -> Any:
    return [{"role": "user", "content": text}] if kind == "chat" else text


def sampling(row: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in row.items() if name not in ("prompt", "chat")}
    return {"temperature": 0.0, **own}


if __name__ == "__main__":
    main()
