"""Inner values of a model, piece by piece: each node runs once for each input, and few values are held at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxlint.backends import Array
from onnxlint.backends.ort.session import blank, needed, read_by, run

if TYPE_CHECKING:
    from onnxlint.backends.ort.session import OrtSession

PIECE = 200
"""Values that a piece hands out."""

_KINDS = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
}
"""onnxruntime's names of element types that are fed to the next piece as they come out of one."""


@dataclass
class _Piece:
    """Some nodes in a row.

    Attributes:
        nodes: These, and the Constants that they read.
        takes: Values that they read: inputs of the model, and what earlier pieces made.
        gives: Values that are handed out, or that later pieces take.
        drops: Values that no later piece takes.
        session: Loaded when it first runs.
    """

    nodes: list[onnx.NodeProto]
    takes: list[str] = field(default_factory=list)
    gives: list[str] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    session: Any = None


class Walk:
    """Inner values of a model in the order of its nodes, for any number of inputs.

    Args:
        session: The model.
        names: The values, inputs of the model among them.
        size: Values that a piece hands out.
    """

    def __init__(self, session: OrtSession, names: Iterable[str], size: int = PIECE) -> None:
        self._session = session
        self._wanted = set(names)
        self._kinds = session.kinds()
        model = session.proto
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in model.graph.sparse_initializer}
        self._inputs = {value.name: value for value in model.graph.input}
        self._pieces = self._cut(needed(model, self._wanted, ()), size)

    def values(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """(name, value) of all that is wanted, for one set of inputs.

        Raises:
            OnnxlintError: An input is missing, or onnxruntime cannot run the model.
        """
        held = self._session.fed(feeds)
        yield from ((name, held[name]) for name in held if name in self._wanted)
        for piece in self._pieces:
            if piece.session is None:
                piece.session = self._session.start_part(self._model(piece))
            given = {name: held[name] for name in piece.takes if name in held}
            made = dict(zip(piece.gives, run(piece.session, self._session.path, given, piece.gives), strict=True))
            yield from ((name, np.asarray(value)) for name, value in made.items() if name in self._wanted)
            held |= made
            for name in piece.drops:
                held.pop(name, None)

    def _cut(self, nodes: list[onnx.NodeProto], size: int) -> list[_Piece]:
        """The nodes in pieces that only numbers pass between."""
        constants = {node.output[0]: node for node in nodes if node.op_type == "Constant" and len(node.output) == 1}
        reads = [read_by(node) for node in nodes]
        last = {name: i for i, names in enumerate(reads) for name in names}
        pieces: list[_Piece] = []
        current: list[int] = []
        given = foreign = 0
        ends: dict[int, int] = {}
        for i, node in enumerate(nodes):
            foreign -= ends.pop(i, 0)
            if node.output[0] in constants and not self._wanted.intersection(node.output):
                continue
            current.append(i)
            for name in node.output:
                given += name in self._wanted
                if last.get(name, i) > i and name not in constants and not self._passes(name):
                    foreign += 1  # sequences and the like, until the last that reads them has run
                    ends[last[name]] = ends.get(last[name], 0) + 1
            if (given >= size or len(current) >= 4 * size) and not foreign:
                pieces.append(self._piece(nodes, current, reads, last, constants))
                current, given = [], 0
        if current:
            pieces.append(self._piece(nodes, current, reads, last, constants))
        return pieces

    def _passes(self, name: str) -> bool:
        kind = self._kinds.get(name, "")
        return kind.startswith("tensor(") and kind[7:-1] in _KINDS

    def _piece(
        self,
        nodes: list[onnx.NodeProto],
        current: list[int],
        reads: list[set[str]],
        last: Mapping[str, int],
        constants: Mapping[str, onnx.NodeProto],
    ) -> _Piece:
        read = {name for i in current for name in reads[i]}
        made = [name for i in current for name in nodes[i].output if name]
        own, end = set(made), current[-1]
        before = [constants[name] for name in sorted(read & constants.keys() - own)]
        takes = sorted(name for name in read - own - constants.keys() if self._is_fed(name))
        gives = [name for name in made if name in self._wanted or last.get(name, 0) > end]
        drops = [name for name in (*takes, *gives) if last.get(name, 0) <= end]
        return _Piece([*before, *(nodes[i] for i in current)], takes, gives, drops)

    def _is_fed(self, name: str) -> bool:
        """Whether a value that is read comes from outside of a piece: it is no weight that callers cannot replace."""
        return name in self._inputs or (name not in self._initializers and name not in self._sparse)

    def _model(self, piece: _Piece) -> onnx.ModelProto:
        small = blank(self._session.proto)
        graph = small.graph
        graph.node.extend(piece.nodes)
        read = {name for node in piece.nodes for name in read_by(node)}
        graph.initializer.extend(self._initializers[name] for name in sorted(read & self._initializers.keys()))
        graph.sparse_initializer.extend(self._sparse[name] for name in sorted(read & self._sparse.keys()))
        for name in piece.takes:
            if name in self._inputs:
                graph.input.append(self._inputs[name])
            else:
                kind = _KINDS[self._kinds[name][7:-1]]
                graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in piece.gives)
        return small
