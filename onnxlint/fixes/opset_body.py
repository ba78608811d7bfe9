"""The nodes that take the place of one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from onnxlint.graph.dims import Shape
    from onnxlint.graph.view import Node


MISUSED = "its operands or attributes are not those of the specification"
"""Why a node is not lowered that no runtime takes."""


class CannotExpandError(Exception):
    """Something that has to be known about a node is not; the message says what."""


class Body:
    """Nodes and constants that compute what one node does.

    Attributes:
        node: The node.
        opset: The set that the nodes are written for.
        nodes: What takes its place, in order.
        constants: New initializers.
    """

    def __init__(self, node: Node, message: Any, names: set[str], opset: int) -> None:
        """Begin an empty body.

        Args:
            node: The node.
            message: The graph that it stands in.
            names: Of all values of the model; new ones are added.
            opset: Of the model.
        """
        self.node = node
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names = names
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._base = node.name or node.output() or node.op
        self._like = message.node[node.index]
        self._dtypes: dict[str, int] = {}

    # What is known

    def shape(self, name: str) -> Shape:
        """An inferred shape.

        Raises:
            CannotExpandError: The rank is unknown.
        """
        shape = self.node.graph.shape(name)
        if shape is None:
            raise CannotExpandError("the rank of an input is not known")
        return shape

    def rank(self, name: str) -> int:
        """An inferred rank.

        Raises:
            CannotExpandError: It is unknown.
        """
        return len(self.shape(name))

    def dtype(self, name: str) -> int:
        """The element type of an input, or of a value that this body casts.

        Raises:
            CannotExpandError: It is unknown.
        """
        kind = self._dtypes.get(name) or self.node.graph.dtype(name)
        if not kind:
            raise CannotExpandError("the element type of an input is not known")
        return kind

    def numpy_dtype(self, name: str) -> np.dtype[Any]:
        """NumPy's type for `dtype`."""
        from onnx import helper

        return helper.tensor_dtype_to_np_dtype(self.dtype(name))

    # What is made

    def fresh(self, base: str) -> str:
        """A name that no value has."""
        name, i = base, 0
        while name in self._names:
            i += 1
            name = f"{base}_{i}"
        self._names.add(name)
        return name

    def emit(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add a node."""
        from onnx import helper

        node = helper.make_node(op, list(inputs), list(outputs), f"{self._base}/{op}_{len(self.nodes)}", **attributes)
        node.doc_string = self._like.doc_string
        node.metadata_props.extend(self._like.metadata_props)
        self.nodes.append(node)

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node of one output, and return that."""
        name = output or self.fresh(f"{self._base}/{op}_{len(self.nodes)}_output")
        self.emit(op, inputs, [name], **attributes)
        if op == "Cast":
            self._dtypes[name] = int(attributes["to"])
        return name

    def end(self, op: str, *inputs: str, **attributes: Any) -> None:
        """Add the node that makes the first output."""
        self.emit(op, inputs, [self.node.output()], **attributes)

    def constant(self, values: npt.NDArray[Any]) -> str:
        """A new constant."""
        from onnx import numpy_helper

        key = (str(values.dtype), values.shape, values.tobytes())
        name = self._known.get(key)
        if name is None:
            name = self._known[key] = self.fresh(f"{self._base}/constant_{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, values: Sequence[int]) -> str:
        """A constant of 64-bit integers."""
        import numpy as np

        return self.constant(np.asarray(values, np.int64).reshape(-1))

    def scalar(self, value: int) -> str:
        """A constant of one 64-bit integer without axes."""
        import numpy as np

        return self.constant(np.asarray(value, np.int64))

    def floats(self, like: str, values: float | Sequence[float]) -> str:
        """A constant of the element type of a value."""
        import numpy as np

        return self.constant(np.asarray(values, self.numpy_dtype(like)))

    def mean(self, name: str, axes: Sequence[int], output: str = "") -> str:
        """The mean along axes, which are kept as 1."""
        return self._reduced("ReduceMean", name, axes, output)

    def largest(self, name: str, axes: Sequence[int]) -> str:
        """The largest along axes, which are kept as 1."""
        return self._reduced("ReduceMax", name, axes)

    def _reduced(self, op: str, name: str, axes: Sequence[int], output: str = "") -> str:
        if self.opset >= 18:
            return self.add(op, name, self.integers(axes), output=output, keepdims=1)
        return self.add(op, name, output=output, axes=list(axes), keepdims=1)

    def size(self, name: str, axis: int) -> str:
        """The size of an axis as a scalar: a constant where it is a number."""
        shape = self.node.graph.shape(name)
        dim = shape[axis] if shape is not None else None
        if isinstance(dim, int):
            return self.scalar(dim)
        return self.add("Gather", self.add("Shape", name), self.scalar(axis), axis=0)
