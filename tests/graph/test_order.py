"""Order of nodes, against what the words mean."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from onnxlint.graph.order import nearest_outputs, topological_order
from tests.support.guards import reached, reaching

NAMES = st.sampled_from("abcdefgh")
GRAPHS = st.lists(st.tuples(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=2)), max_size=8)


def edges(nodes: list[tuple[list[str], list[str]]]) -> dict[int, set[int]]:
    """Node → nodes that it reads from; of several makers of a name the first counts."""
    maker: dict[str, int] = {}
    for i, (_, made) in enumerate(nodes):
        for name in made:
            maker.setdefault(name, i)
    return {i: {maker[name] for name in read if name in maker} for i, (read, _) in enumerate(nodes)}


@reaching(20)
@given(GRAPHS)
def test_nodes_stand_after_what_they_read(nodes: list[tuple[list[str], list[str]]]) -> None:
    reads, makes = [read for read, _ in nodes], [made for _, made in nodes]
    order, stuck = topological_order(reads, makes)
    assert sorted(order + stuck) == list(range(len(nodes)))
    before = edges(nodes)
    place = {i: k for k, i in enumerate(order)}
    for i in order:
        assert all(place[j] < place[i] for j in before[i])
    for i in stuck:  # each waits for another that is stuck
        assert before[i] & set(stuck)
    if len(order) > 2 and not stuck:
        reached()


@reaching(20)
@given(GRAPHS, st.lists(NAMES, min_size=1, max_size=3, unique=True))
def test_the_nearest_output_is_the_fewest_nodes_away(
    nodes: list[tuple[list[str], list[str]]], outputs: list[str]
) -> None:
    found = nearest_outputs(outputs, [read for read, _ in nodes], [made for _, made in nodes])
    before = edges(nodes)
    distances: dict[str, dict[int, int]] = {}
    for output in outputs:
        start = next((i for i, (_, made) in enumerate(nodes) if output in made), None)
        away = {} if start is None else {start: 0}
        queue = deque(away)
        while queue:
            i = queue.popleft()
            for j in before[i] - away.keys():
                away[j] = away[i] + 1
                queue.append(j)
        distances[output] = away
    for i in range(len(nodes)):
        reachable = {output: away[i] for output, away in distances.items() if i in away}
        assert (i in found) == bool(reachable)
        if reachable:
            reached()
            assert reachable[found[i]] == min(reachable.values())


def test_a_chain_that_is_long() -> None:
    count = 100_000
    reads = [[f"v{i}"] for i in range(count)][::-1]
    makes = [[f"v{i + 1}"] for i in range(count)][::-1]
    order, stuck = topological_order(reads, makes)
    assert not stuck
    assert order == list(range(count))[::-1]
