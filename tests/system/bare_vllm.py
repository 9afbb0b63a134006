"""Answer rows with bare `vllm.LLM`, nothing of ours in between: `bare_vllm.py MODEL IN.json OUT.json`.

IN holds `[{"prompt": …} or {"messages": …}, …]` and the sampling of all; OUT gets the texts in the same order.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main() -> None:
    from vllm import LLM, SamplingParams

    model, source, target = sys.argv[1:4]
    work = json.loads(Path(source).read_text())
    llm = LLM(model=model, dtype="float32", max_num_seqs=128, enforce_eager=True, disable_log_stats=True)
    params = SamplingParams(**work["sampling"])
    texts: list[str] = [""] * len(work["rows"])
    for key, answer in (("prompt", llm.generate), ("messages", llm.chat)):
        chosen: list[int] = [index for index, row in enumerate(work["rows"]) if key in row]
        inputs: list[Any] = [work["rows"][index][key] for index in chosen]
        outputs: list[Any] = answer(inputs, params, use_tqdm=False) if inputs else []
        for index, output in zip(chosen, outputs, strict=True):
            texts[index] = output.outputs[0].text
    Path(target).write_text(json.dumps(texts))


if __name__ == "__main__":
    main()
