"""Which node reads which tensor, changed."""

from __future__ import annotations

import time

import onnx_graphsurgeon as gs
import pytest

from onnxlint.surgery.wiring import detach


def readers(count: int) -> tuple[gs.Variable, list[gs.Node]]:
    """A tensor, and nodes that are equal in all but their identity; every third reads it twice."""
    x = gs.Variable("x")
    return x, [gs.Node("Relu", inputs=[x] * (1 + (i % 3 == 0)), outputs=[]) for i in range(count)]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 2, 5, 1, 4]])
def test_a_detached_node_and_no_other_reads_nothing(order: list[int]) -> None:
    x, nodes = readers(7)
    left = list(nodes)
    for at in order:
        detach(nodes[at])
        left.remove(next(one for one in left if one is nodes[at]))
        assert list(nodes[at].inputs) == []
        assert {id(one) for one in x.outputs} == {id(one) for one in left}
        assert len(x.outputs) == sum(len(one.inputs) for one in left)


@pytest.mark.parametrize("step", [1, -1])
def test_thousands_of_readers_of_one_tensor_take_no_longer_each(step: int) -> None:
    def took(count: int) -> float:
        _, nodes = readers(count)
        started = time.process_time()
        for node in nodes[::step]:
            detach(node)
        return time.process_time() - started

    few, many = min(took(2000) for _ in range(3)), took(40_000)
    assert many < 100 * few
