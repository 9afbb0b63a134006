"""Manifests: what a dataset consists of, written after everything they name."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from tidemill.digests import SCHEMA_VERSION


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentEntry(_Frozen):
    """An input segment; digests are hex."""

    key: str
    sha256: str
    start: int
    rows: int


class PartEntry(_Frozen):
    """A result segment: rows of the chunk `[chunk_start, chunk_start + chunk_rows)`."""

    key: str
    sha256: str
    chunk_start: int
    chunk_rows: int
    rows: int
    fence: int
    part_number: int


class EngineEntry(_Frozen):
    """What answered some rows of the dataset; `record` (hex) names its full record, `engines/<record>.json`."""

    model_digest: str
    engine_build: str
    rows: int
    record: str = ""


class OutcomeCounts(_Frozen):
    """Rows by outcome."""

    succeeded: int
    failed: int
    cancelled: int
    expired: int


class Usage(_Frozen):
    """Tokens over all rows; `cached_tokens` of the prompts came from the engine's prefix cache."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int


class InputManifest(_Frozen):
    """The rows of a job. `data_version` and `merkle_root` are hex, see `tidemill.digests`."""

    schema_version: Literal["tidemill.dataset.v1"] = SCHEMA_VERSION
    kind: Literal["input"] = "input"
    job: str
    row_count: int
    merkle_root: str
    data_version: str
    segments: tuple[SegmentEntry, ...]


class OutputManifest(_Frozen):
    """The results of a job: every row of the input exactly once.

    `spec` is the JSON whose digest `spec_digest` is; `parent` is the data version of the input. `usage` is missing
    in manifests of older builds.
    """

    schema_version: Literal["tidemill.dataset.v1"] = SCHEMA_VERSION
    kind: Literal["output"] = "output"
    job: str
    dataset: str
    model: str
    state: str
    row_count: int
    counts: OutcomeCounts
    usage: Usage | None = None
    merkle_root: str
    spec: str
    spec_digest: str
    data_version: str
    parent: str
    parent_manifest: str
    engines: tuple[EngineEntry, ...]
    parts: tuple[PartEntry, ...]


def encode(manifest: InputManifest | OutputManifest) -> bytes:
    """JSON bytes of a manifest."""
    return manifest.model_dump_json(indent=1).encode()
