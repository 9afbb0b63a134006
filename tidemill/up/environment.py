"""The environment that the processes of the embedded set inherit."""

import os
from collections.abc import Mapping

# Left over from a cluster, they would send our rows, or Dagster's events, somewhere else.
_DROPPED = frozenset(
    {
        "DAGSTER_HOME",
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_CLIENT_MODE",
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        "RAY_NAMESPACE",
        "TIDEMILL_READY_FILE",
    }
)
_DROPPED_PREFIXES = ("RAY_AUTH_", "RAY_TLS_", "RAY_USE_TLS")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "PYTHONUNBUFFERED": "1",
}


def base_environment(inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment without what points at other clusters, and with usage reporting off."""
    source = os.environ if inherited is None else inherited
    kept = {
        name: value for name, value in source.items() if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    return kept | _QUIET


def dropped(inherited: Mapping[str, str] | None = None) -> list[str]:
    """Names of the variables that `base_environment` leaves out."""
    source = os.environ if inherited is None else inherited
    return sorted(name for name in source if name in _DROPPED or name.startswith(_DROPPED_PREFIXES))
