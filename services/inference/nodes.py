"""The nodes of the Ray cluster, and which of them an engine goes to."""

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

__all__ = ["Need", "Node", "Placed", "choose", "gpu_nodes", "is_alive", "is_known", "live_nodes", "spare_engines"]

_ANSWER_SECONDS = 60.0
_CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Node:
    """A live node: Ray's id of it (hex), logical CPUs and GPUs, and memory free now."""

    node_id: str
    cpus: float
    gpus: float
    free_bytes: int


@dataclass(frozen=True)
class Need:
    """What a node must offer an engine.

    Attributes:
        free_bytes: memory of the machine; 0 where it is not looked at.
        gpus: whole GPUs; 0 for an engine on CPU, which goes to nodes with logical CPUs only.
        cpus: logical CPUs that a placement group reserves.
        most: most engines on the node, this one included.
    """

    free_bytes: int
    gpus: int
    cpus: int
    most: int


@dataclass(frozen=True)
class Placed:
    """An engine that is on a node, or on its way there: its model, GPUs, and memory it has yet to take."""

    node_id: str
    model: str
    gpus: int
    coming_bytes: int


def choose(nodes: Sequence[Node], placed: Sequence[Placed], need: Need, model: str) -> Node | None:
    """The node with room that has the fewest engines of the model, then the fewest engines, then the most memory."""

    def there(node: Node) -> list[Placed]:
        return [item for item in placed if item.node_id == node.node_id]

    def load(node: Node) -> tuple[int, int, int]:
        return sum(item.model == model for item in there(node)), len(there(node)), -node.free_bytes

    return min((node for node in nodes if _fits(node, there(node), need)), key=load, default=None)


def _fits(node: Node, there: Sequence[Placed], need: Need) -> bool:
    if len(there) >= need.most:
        return False
    if need.gpus:
        return node.gpus - sum(item.gpus for item in there) >= need.gpus
    coming = sum(item.coming_bytes for item in there)
    return node.cpus >= max(need.cpus, 1) and node.free_bytes - coming >= need.free_bytes


def spare_engines(nodes: Sequence[Node], placed: Sequence[Placed], gpus: int) -> int:
    """How many more engines of so many GPUs each (at least 1) find free ones on the nodes."""
    taken = Counter[str]()
    for item in placed:
        taken[item.node_id] += item.gpus
    return sum(max(0, int(node.gpus) - taken[node.node_id]) // gpus for node in nodes)


def gpu_nodes() -> list[Node]:
    """The live nodes with GPUs, as the cluster lists them; nobody is asked for free memory, which reads as 0."""
    import ray

    return [_node(row, 0) for row in ray.nodes() if row["Alive"] and row["Resources"].get("GPU")]


def live_nodes() -> list[Node]:
    """The nodes that answer now; from a thread, it may take a while.

    A node other than this process's own is asked how much memory it has free; one that does not answer is left out.
    """
    import ray

    own = ray.get_runtime_context().get_node_id()
    rows = [row for row in ray.nodes() if row["Alive"]]
    asked = {row["NodeID"]: _ask(row["NodeID"]) for row in rows if row["NodeID"] != own}
    if asked:
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_SECONDS)
    found = [(row, _free_bytes() if row["NodeID"] == own else _answer(asked[row["NodeID"]])) for row in rows]
    return [_node(row, free) for row, free in found if free is not None]


def is_alive(node_id: str) -> bool:
    """Whether the node lives; from a thread.

    Ray counts a node among the living until it has missed several health checks. Its raylet's port tells at once.
    """
    row = _living(node_id)
    return row is not None and _listens(row["NodeManagerAddress"], row["NodeManagerPort"])


def is_known(node_id: str) -> bool:
    """Whether Ray's head counts the node among the living; from a thread."""
    return _living(node_id) is not None


def _living(node_id: str) -> Any:
    import ray

    return next((row for row in ray.nodes() if row["NodeID"] == node_id and row["Alive"]), None)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _node(row: Any, free_bytes: int) -> Node:
    resources = row["Resources"]
    return Node(row["NodeID"], resources.get("CPU", 0.0), resources.get("GPU", 0.0), free_bytes)


def _free_bytes() -> int:
    return psutil.virtual_memory().available


def _ask(node_id: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(_free_bytes)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return task.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote()


def _answer(reference: Any) -> int | None:
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference, timeout=0)
    except RayError:  # a timeout is one
        return None
