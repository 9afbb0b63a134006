"""Prometheus metrics of the inference service; labels are model ids and outcomes, both bounded by configuration."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "CHUNK_SECONDS",
    "ENGINES",
    "ENGINE_DEATHS",
    "LEASES",
    "LOAD_SECONDS",
    "ROWS",
    "STORE_AWAY",
    "TOKENS",
    "UNLOAD_SECONDS",
]

ROWS = Counter("tidemill_inference_rows_total", "Rows committed.", ["model", "status"])
TOKENS = Counter("tidemill_inference_tokens_total", "Tokens of committed rows.", ["model", "kind"])
CHUNK_SECONDS = Histogram(
    "tidemill_inference_chunk_seconds",
    "Seconds from lease to last commit of a chunk.",
    ["model", "mode"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
LOAD_SECONDS = Histogram(
    "tidemill_inference_engine_load_seconds",
    "Seconds to load an engine.",
    ["model"],
    buckets=(5, 10, 20, 30, 60, 120, 300, 600, 1200),
)
UNLOAD_SECONDS = Histogram(
    "tidemill_inference_engine_unload_seconds",
    "Seconds to unload an engine, all its processes included.",
    ["model"],
    buckets=(0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
ENGINES = Gauge("tidemill_inference_engines", "Engines in memory.")
ENGINE_DEATHS = Counter("tidemill_inference_engine_deaths_total", "Engines that died under their rows.", ["model"])
LEASES = Gauge("tidemill_inference_leases", "Leases worked on.", ["kind"])
STORE_AWAY = Gauge("tidemill_inference_store_away", "1 while the object store cannot be reached.")
