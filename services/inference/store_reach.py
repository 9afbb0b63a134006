"""Whether every machine of the Ray cluster reaches the object store: tasks there read segments by themselves."""

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from tidemill.errors import Reason, TidemillError
from tidemill.store import is_local

__all__ = ["check_reach", "foreign_hosts"]


def check_reach(store_uri: str) -> None:
    """INVALID_ARGUMENT when the store is a folder and the cluster has other machines than this one."""
    import ray

    if not is_local(store_uri):
        return
    if others := foreign_hosts(ray.nodes(), socket.gethostname()):
        raise TidemillError(
            Reason.INVALID_ARGUMENT,
            f"the object store is a folder of this machine, {store_uri}, and Ray runs on {', '.join(others)} too: set "
            "TIDEMILL_INFERENCE_STORE and TIDEMILL_GATEWAY_STORE to an s3:// URI, or use nodes of this machine only",
            metadata={"store": store_uri, "hosts": ",".join(others)},
        )


def foreign_hosts(nodes: Iterable[Mapping[str, Any]], own: str) -> list[str]:
    """Hosts of live nodes, as `ray.nodes()` has them, other than `own`; sorted."""
    return sorted({str(node["NodeManagerHostname"]) for node in nodes if node["Alive"]} - {own})
