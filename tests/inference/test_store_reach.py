"""A folder is no store for a Ray cluster of several machines."""

import socket
from typing import Any

import pytest

from services.inference.store_reach import check_reach
from tidemill.errors import TidemillError

OWN = socket.gethostname()


def node(host: str, *, alive: bool = True) -> dict[str, Any]:
    return {"NodeManagerHostname": host, "Alive": alive}


@pytest.mark.parametrize(
    ("store", "nodes", "refused"),
    [
        ("file:///data", [node(OWN), node("gpu-2"), node("gpu-1")], "gpu-1, gpu-2"),
        ("file:///data", [node("gpu-1")], "gpu-1"),
        ("file:///data", [node(OWN), node(OWN), node("gone", alive=False)], ""),
        ("s3://bucket/x", [node(OWN), node("gpu-1")], ""),
    ],
)
def test_a_folder_is_refused_where_other_machines_would_read_it(
    store: str, nodes: list[dict[str, Any]], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By name: Ray must not be imported before `isolated_ray` has set what it reads once.
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    if not refused:
        check_reach(store)
        return
    with pytest.raises(TidemillError, match=f"Ray runs on {refused} too: set TIDEMILL_INFERENCE_STORE"):
        check_reach(store)
