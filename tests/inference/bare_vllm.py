"""Greedy answers of bare `vllm.LLM`: `bare_vllm.py MODEL`, rows on stdin, texts on the last line of stdout (JSON)."""

import json
import os
import sys

os.environ.update(VLLM_NO_USAGE_STATS="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR")


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
    params = [SamplingParams(temperature=0.0, max_tokens=row["max_tokens"]) for row in rows]
    texts: list[str] = []
    for row, own in zip(rows, params, strict=True):
        # One row at a time: the least like our batches.
        if "prompt" in row:
            output = llm.generate([row["prompt"]], own, use_tqdm=False)
        else:
            output = llm.chat([[{"role": "user", "content": row["chat"]}]], own, use_tqdm=False)
        texts.append(output[0].outputs[0].text)
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
