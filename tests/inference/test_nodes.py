"""Which node an engine goes to."""

from hypothesis import given
from hypothesis import strategies as st

from services.inference.nodes import Need, Node, Placed, choose, spare_engines

GIB = 1 << 30
NODES = st.lists(
    st.builds(
        Node, st.sampled_from("abcdef"), st.integers(0, 4).map(float), st.integers(0, 4).map(float), st.integers(0, 64)
    ),
    unique_by=lambda node: node.node_id,
    max_size=5,
)
PLACED = st.lists(
    st.builds(Placed, st.sampled_from("abcdef"), st.sampled_from(["m", "n"]), st.integers(0, 2), st.integers(0, 32)),
    max_size=8,
)
NEEDS = st.builds(Need, st.integers(0, 48), st.integers(0, 2), st.integers(0, 3), st.integers(1, 3))


@given(NODES, PLACED, NEEDS)
def test_it_goes_where_it_fits_and_the_model_has_the_fewest(
    nodes: list[Node], placed: list[Placed], need: Need
) -> None:
    def fits(node: Node) -> bool:
        there = [item for item in placed if item.node_id == node.node_id]
        if len(there) + 1 > need.most:
            return False
        if need.gpus:
            return sum(item.gpus for item in there) + need.gpus <= node.gpus
        memory = sum(item.coming_bytes for item in there) + need.free_bytes
        return node.cpus >= 1 and node.cpus >= need.cpus and memory <= node.free_bytes

    def of_the_model(node: Node) -> int:
        return sum(item.node_id == node.node_id and item.model == "m" for item in placed)

    chosen = choose(nodes, placed, need, "m")
    fitting = [node for node in nodes if fits(node)]
    if not fitting:
        assert chosen is None
        return
    assert chosen in fitting
    assert of_the_model(chosen) == min(of_the_model(node) for node in fitting)


def test_replicas_spread_over_nodes_before_they_share_one() -> None:
    nodes = [Node("a", 4, 0, 64 * GIB), Node("b", 4, 0, 8 * GIB)]
    placed: list[Placed] = []
    for _ in range(4):
        node = choose(nodes, placed, Need(GIB, 0, 0, 4), "m")
        assert node
        placed.append(Placed(node.node_id, "m", 0, 0))
    assert [item.node_id for item in placed] == ["a", "b", "a", "b"]


def test_what_is_still_loading_takes_its_memory_already() -> None:
    nodes = [Node("a", 4, 0, 3 * GIB)]
    need = Need(2 * GIB, 0, 0, 4)
    assert choose(nodes, [Placed("a", "m", 0, 0)], need, "m")
    assert choose(nodes, [Placed("a", "m", 0, 2 * GIB)], need, "m") is None


def test_spare_engines_are_those_that_free_gpus_give_room_to() -> None:
    nodes = [Node("a", 8, 4, 0), Node("b", 8, 2, 0), Node("c", 8, 0, 0)]
    placed = [Placed("a", "one", 1, 0), Placed("b", "two", 2, 0)]
    assert [spare_engines(nodes, placed, gpus) for gpus in (1, 2, 4)] == [3, 1, 0]
    assert spare_engines(nodes, [Placed("gone", "one", 1, 0)], 2) == 3
    assert spare_engines(nodes[2:], [], 1) == 0
