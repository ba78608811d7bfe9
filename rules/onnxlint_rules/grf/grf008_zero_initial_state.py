"""GRF008: an LSTM, GRU or RNN that is given an initial state of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import (
    SAFE,
    Example,
    Finding,
    Graph,
    GraphView,
    Node,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    printable,
)
from onnxlint_rules._graph import fixed_tensor, is_fixed, places_of
from onnxlint_rules._patching import UNHELD, is_held
from onnxlint_rules._tensors import read_inline

if TYPE_CHECKING:
    import onnx

    from onnxlint import Surgeon

STATES: dict[str, tuple[int, ...]] = {"GRU": (5,), "LSTM": (5, 6), "RNN": (5,)}
"""Operator → operands that are initial states: zeros where they are left out."""

_KEEPS_ZEROS = frozenset("Cast Concat Expand Gather Identity Reshape Slice Squeeze Tile Transpose Unsqueeze".split())
"""Operators whose output holds elements of their first input (all inputs for Concat) and nothing else."""

_MAX_STEPS = 200


class ZeroInitialState(Rule):
    """A recurrent layer is given an initial state of zeros, which is what it starts from anyway.

    ## What it does

    Reports each LSTM, GRU and RNN whose `initial_h` or `initial_c` is zero, as a constant or computed for the batch at
    hand (`Shape → … → ConstantOfShape`), as `nn.LSTM` exports it.

    ## Why it hurts

    - Where the state is computed, a shape chain stays in the model that nothing needs: ncnn knows no shape tensors, and
      phone delegates stop at it.
    - Where it is a constant, it fixes the batch: the model fails at every other batch size.

    ## Fix it at the source

    ```python
    # before
    zeros = torch.zeros(layers, x.shape[0], hidden)
    y, _ = self.lstm(x, (zeros, zeros))
    # after, with the initial states left out of the exported graph by the fix
    y, _ = self.lstm(x)
    ```

    ## Fix safety

    Exact: the specification says that the initial state is zero where it is left out.

    ## References

    - [LSTM](https://onnx.ai/onnx/operators/onnx__LSTM.html), [GRU](https://onnx.ai/onnx/operators/onnx__GRU.html) and
      [RNN](https://onnx.ai/onnx/operators/onnx__RNN.html): `initial_h`, `initial_c`
    """

    code = "GRF008"
    name = "zero-initial-state"
    severity = Severity.WARNING
    help = "leave the initial state out"
    since = "0.2.0"
    fix = SAFE
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[T,N,2] x) => (float[T,1,N,1] y)
            <float[1,4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[1,4,1] r = {1, 2, 3, 4}, int64 one = {1}, int64[1] z = {0},
             int64[1] unit = {1}> {
                shape = Shape (x)
                batch = Gather (shape, one)
                lead = Unsqueeze (batch, z)
                state = Concat <axis = 0> (unit, lead, unit)
                zeros = ConstantOfShape (state)
                y = LSTM <hidden_size = 1> (x, w, r, , , zeros, zeros)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[T,N,2] x) => (float[T,1,N,1] y)
            <float[1,4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[1,4,1] r = {1, 2, 3, 4}> {
                y = LSTM <hidden_size = 1> (x, w, r)
            }
            """,
            says="LSTM starts from zeros that are computed",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[T,2,2] x) => (float[1,2,1] y)
            <float[1,3,2] w = {1, 2, 3, 4, 5, 6}, float[1,3,1] r = {1, 2, 3}, float[1,2,1] zeros = {0, 0}> {
                all, y = GRU <hidden_size = 1> (x, w, r, , , zeros)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[T,2,2] x) => (float[1,2,1] y)
            <float[1,3,2] w = {1, 2, 3, 4, 5, 6}, float[1,3,1] r = {1, 2, 3}> {
                all, y = GRU <hidden_size = 1> (x, w, r)
            }
            """,
            says="GRU starts from zeros that are a constant for batch 2",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[T,2,2] x, float[1,2,1] h) => (float[1,2,1] y)
            <float[1,3,2] w = {1, 2, 3, 4, 5, 6}, float[1,3,1] r = {1, 2, 3}> {
                all, y = GRU <hidden_size = 1> (x, w, r, , , h)
            }
            """,
            why="the caller carries the state on",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[T,2,2] x) => (float[1,2,1] y)
            <float[1,1,2] w = {1, 2}, float[1,1,1] r = {1}, float[1,2,1] learnt = {0, 0.5}> {
                all, y = RNN <hidden_size = 1> (x, w, r, , , learnt)
            }
            """,
            why="the state is learnt",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        layers = [(node, zero) for node in view.nodes(*STATES) if (zero := zero_states(node))]
        covers = places_of(view, _only_for(layers))
        for node, zero in layers:
            held = is_held(node.graph)
            yield self.found(
                view.at(node),
                f"{node.op} starts from zeros that {_what(node, zero)}",
                fix=SAFE if held else None,
                group="Recurrent layers start from zeros that are given explicitly",
                covers=covers,
                not_fixed="" if held else UNHELD,
                states=", ".join(printable(node.input(i)) for i in zero),
            )
            covers = ()

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import onnx_graphsurgeon as gs

        node = view.find(finding.location)
        held = surgeon.node(node)
        for i in zero_states(node):
            held.inputs[i] = gs.Variable.empty()
        while len(held.inputs) > 1 and not held.inputs[-1].name:
            del held.inputs[-1]


def zero_states(node: Node) -> list[int]:
    """Operands of a recurrent layer that are initial states of zeros."""
    return [i for i in STATES[node.op] if node.input(i) and _is_zero(node.graph, node.input(i))]


def _only_for(layers: list[tuple[Node, list[int]]]) -> list[Node]:
    """Nodes that compute initial states of zeros and serve nothing else."""
    last = {(id(node), node.input(i)) for node, zero in layers for i in zero}
    found: dict[int, Node] = {}
    pending = [(node.graph, node.input(i)) for node, zero in layers for i in zero]
    for graph, name in pending:
        maker = graph.producer(name)
        if maker is None or id(maker) in found or len(pending) > _MAX_STEPS * len(layers):
            continue
        outputs = [output for output in maker.outputs if output]
        readers = [(reader, output) for output in outputs for reader in maker.graph.consumers(output)]
        if any(maker.graph.is_output(output) for output in outputs):
            continue
        if all(id(reader) in found or (id(reader), output) in last for reader, output in readers):
            found[id(maker)] = maker
            pending += [(maker.graph, operand) for operand in maker.inputs if operand]
    return list(found.values())


def _what(node: Node, zero: list[int]) -> str:
    name = node.input(zero[0])
    if not is_fixed(node.graph, name):
        return "are computed"
    shape = node.graph.shape(name)
    return f"are a constant for batch {shape[1]}" if shape is not None and len(shape) == 3 else "are a constant"


def _is_zero(graph: Graph, name: str) -> bool:
    """Whether every element of a value is 0 (and none -0), whatever the model is fed."""
    pending = [(graph, name)]
    for here, value in pending:
        if len(pending) > _MAX_STEPS:
            return False
        if is_fixed(here, value):
            tensor = fixed_tensor(here, value)
            if tensor is None or not _is_zero_tensor(here.view, tensor):
                return False
            continue
        node = here.producer(value)
        if node is None:
            return False
        if node.op == "ConstantOfShape":
            fill = next((a.t for a in node.proto.attribute if a.name == "value" and a.HasField("t")), None)
            if fill is not None and not _is_zero_tensor(here.view, fill):
                return False
        elif node.op in _KEEPS_ZEROS and node.output() == value:
            pending += [(node.graph, part) for part in (node.inputs if node.op == "Concat" else node.inputs[:1])]
        else:
            return False
    return True


def _is_zero_tensor(view: GraphView, tensor: onnx.TensorProto) -> bool:
    import numpy as np

    array = read_inline(view, tensor, _LARGEST)
    if array is None or array.dtype.kind not in "iuf":
        return False
    return not array.any() and not np.signbit(array).any()


_LARGEST = 2**22
"""Bytes of a state in the model file that are read at most: states are no weights, and tell only when they are read."""
