"""The baseline of `warm_start`: a fresh Ray Data LLM pipeline answers the rows of IN.json and prints its seconds.

    python -m benchmarks.fresh_pipeline MODEL IN.json

The clock runs from the call of `build_processor` to the last answer; starting Ray itself is not counted.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(RAY_USAGE_STATS_ENABLED="0", VLLM_NO_USAGE_STATS="1", RAY_AUTH_MODE="disabled")
for _name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
    os.environ.pop(_name, None)

CPUS = 8
STAGE = {"num_cpus": 0.1}


def preprocess(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the processor wants it; equal keys in every row, integers as integers."""
    return {"prompt": row["prompt"], "sampling_params": {"temperature": 0.0, "max_tokens": int(row["max_tokens"])}}


def main() -> None:
    import ray
    import ray.data
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    model, source = sys.argv[1:3]
    rows = json.loads(Path(source).read_text())
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    started = time.monotonic()
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={
            "dtype": "float32",
            "max_model_len": 2048,
            "kv_cache_memory_bytes": 256 << 20,
            "enforce_eager": True,
        },
        batch_size=64,
        concurrency=1,
        placement_group_config={"bundles": [{"CPU": 1}]},
        chat_template_stage=False,
        tokenize_stage=STAGE,
        detokenize_stage=STAGE,
        log_engine_metrics=False,
    )
    processor: Any = build_processor(
        config, preprocess=preprocess, postprocess=lambda row: {"text": row["generated_text"]}
    )
    answers = processor(ray.data.from_items(rows, override_num_blocks=1)).take_all()
    seconds = time.monotonic() - started
    if len(answers) != len(rows):
        raise SystemExit(f"{len(answers)} answers for {len(rows)} rows")
    print(json.dumps({"seconds": seconds, "rows": len(answers)}))


if __name__ == "__main__":
    main()
