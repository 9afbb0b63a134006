"""Engine records: what an engine was when it answered, enough to start its like and ask the same rows again.

A record is canonical JSON below the store's root, named by its SHA-256. Engines that are alike share one, so there are
as many as there were configurations, and they outlive the jobs that name them.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tidemill.digests import sha256
from tidemill.store import ObjectStore

RECORD_VERSION = "tidemill.engine.v1"
_FOLDER = "engines"


class EngineRecord(BaseModel):
    """An engine; digests are hex.

    Attributes:
        engine: engine name, version and device, such as `vllm 0.32.0 (cpu)`.
        mode: `shared` rows met those of other chunks in the engine, `dedicated` ones did not.
        model: model id that jobs name.
        model_digest: SHA-256 over the names and digests of the weight files.
        tokenizer_digest: SHA-256 of `tokenizer.json`, which is in the store as well; empty where the model has none.
        config_digest: SHA-256 over the names and digests of the other small files that decide on answers.
        template_digest: SHA-256 of the chat template.
        adapter_digest: SHA-256 over the weight files of the adapter; empty without one.
        arguments: the engine's arguments, but for the folder of the model, which its digest stands for.
        environment: variables that change how the engine computes, as far as they were set.
        device: `cpu` or `gpu`.
        device_name: the processor's name.
        dtype: number format of the weights and of the arithmetic; `auto` where the engine chose and nobody could ask.
        seed: the engine's own; rows with a seed do not depend on it.
        tensor_parallel_size: devices that share each layer.
        batch_invariant: the engine computes each row alike whatever else is in its batch.
        equal_answers: whether greedy and seeded rows get the same answers again.
        versions: of Python and of the packages that compute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal["tidemill.engine.v1"] = RECORD_VERSION
    engine: str
    mode: Literal["shared", "dedicated"]
    model: str
    model_digest: str
    tokenizer_digest: str
    config_digest: str
    template_digest: str
    adapter_digest: str = ""
    arguments: Mapping[str, Any]
    environment: Mapping[str, str]
    device: Literal["cpu", "gpu"]
    device_name: str
    dtype: str
    seed: int = Field(ge=0)
    tensor_parallel_size: int = Field(ge=1)
    batch_invariant: bool
    equal_answers: Literal["promised", "not promised"]
    versions: Mapping[str, str]


def encode(record: EngineRecord) -> bytes:
    """Bytes of a record: equal records have equal bytes."""
    text = json.dumps(record.model_dump(mode="json"), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def store_key(digest: str) -> str:
    """Where the record of this digest (hex) lies."""
    return f"{_FOLDER}/{digest}.json"


def put(store: ObjectStore, record: EngineRecord) -> bytes:
    """Store a record unless it is there; its SHA-256. STORE_FAILED when it cannot be written."""
    data = encode(record)
    digest = sha256(data)
    key = store_key(digest.hex())
    if not store.exists(key):
        store.put(key, data)
    return digest


def get(store: ObjectStore, digest: bytes) -> EngineRecord:
    """The record of this digest; DATA_CORRUPT when it is missing or changed."""
    return EngineRecord.model_validate_json(store.get(store_key(digest.hex()), digest))
