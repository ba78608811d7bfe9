"""Models that the engine's tests run on, and runs of them that show every value on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser

from onnxlint.graph.view import GraphView
from onnxlint.model.dim_names import axis_symbol
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.engine import Symbolic
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.sizes import AnySize, Size, substitute, symbols
from onnxlint.symbolic.values import Number, Quotient
from onnxlint.symbolic.view import make_view

Array = npt.NDArray[Any]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RETINAFACE = SHARED / "retinaface"


def parse(text: str) -> onnx.ModelProto:
    """A model from ONNX's text syntax; a body alone gets IR version 8 and opset 17."""
    if not text.lstrip().startswith("<"):
        text = f'<ir_version: 8, opset_import: ["": 17]>\n{text}'
    return onnx.parser.parse_model(text)


def view(model: onnx.ModelProto | str, **options: Any) -> GraphView:
    """A view of a model that lies in memory."""
    proto = parse(model) if isinstance(model, str) else model
    return make_view(Model("model.onnx", proto, proto.ByteSize()), **options)


def session(model: onnx.ModelProto | bytes | str) -> Any:
    """An onnxruntime session without optimizations, on one thread; of a model, its bytes or its path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    data = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def exposed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose main graph gives every value on the way as an output, without a claim about it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {value.name for value in copy.graph.output}
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for node in copy.graph.node:
        for name in node.output:
            if name and name not in known:
                known.add(name)
                copy.graph.output.add(name=name)
    return copy


def run_all(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value on the way, by name, as onnxruntime computes it; values that are not tensors are left out."""
    runner = session(exposed(proto))
    names = [output.name for output in runner.get_outputs()]
    values = zip(names, runner.run(names, dict(feeds)), strict=True)
    return {name: value for name, value in values if isinstance(value, np.ndarray)}


def symbol(value: onnx.ValueInfoProto, axis: int) -> str:
    """What symbolic inference calls an unknown size of an input."""
    return axis_symbol(value.type.tensor_type.shape.dim[axis].dim_param, value.name, axis)


def bindings(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, int]:
    """What the symbols of the inputs stand for in a run."""
    bound: dict[str, int] = {}
    for value in proto.graph.input:
        if value.name in feeds:
            for i, (dim, size) in enumerate(
                zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True)
            ):
                if not dim.HasField("dim_value"):
                    bound[symbol(value, i)] = size
    return bound


@dataclass
class Comparison:
    """What symbolic inference says, against a run.

    Attributes:
        symbolic: The inference.
        bound: Symbols of the inputs, and their sizes in the run.
        problems: One line a disagreement.
        exact: Sizes and numbers that follow from the inputs' symbols alone, and agreed.
        unknown: Sizes and numbers that the inference leaves open.
    """

    symbolic: Symbolic
    bound: dict[str, int]
    problems: list[str] = field(default_factory=list)
    exact: int = 0
    unknown: int = 0

    def compare(self, values: Mapping[str, Array]) -> Comparison:
        """Compare every value of the main graph. A symbol that was made up may be anything, but the same everywhere."""
        graph = self.symbolic.view.main
        facts = list(self._facts(graph, values))
        inputs = frozenset(self.bound)
        for name, (size, limit) in self.symbolic._clipped.items():
            if symbols(size) <= inputs:
                self.bound[name] = min(_int(substitute(size, self.bound)), limit)
        # Symbols stand alone where they come up first: they are bound by then.
        for alone in (True, False):
            for what, number, real in facts:
                if _is_symbol(number) == alone:
                    self._check(what, number, real, inputs)
        return self

    def _facts(self, graph: Any, values: Mapping[str, Array]) -> Iterator[tuple[str, Number, float]]:
        for node in graph.nodes:
            for name in node.outputs:
                if name not in values:
                    continue
                real = values[name]
                sizes = self.symbolic.shape(graph, name)
                if sizes is None:
                    self.unknown += 1
                elif len(sizes) != real.ndim:
                    self.problems.append(f"{node.op} {name}: rank {len(sizes)} {sizes}, really {real.shape}")
                else:
                    for i, size in enumerate(sizes):
                        yield f"{node.op} {name} axis {i} of {sizes}, really {real.shape}", size, real.shape[i]
                value = self.symbolic.value(graph, name)
                if value is None:
                    continue
                if value.dims != real.shape or value.floating != (real.dtype.kind == "f"):
                    self.problems.append(f"{node.op} {name}: value {value}, really {real.dtype}{real.shape}")
                    continue
                for i, number in enumerate(value.numbers):
                    if number is None:
                        self.unknown += 1
                    else:
                        yield f"{node.op} {name}[{i}]", number, real.reshape(-1)[i].item()

    def _check(self, what: str, number: Number, real: float, inputs: frozenset[str]) -> None:
        num, den = (number.num, number.den) if isinstance(number, Quotient) else (number, 1)
        open_symbols = (symbols(num) | symbols(den)) - self.bound.keys()
        if len(open_symbols) == 1 and _is_symbol(number) and float(real).is_integer():
            self.bound[next(iter(open_symbols))] = int(real)
        elif open_symbols:
            self.unknown += 1
        else:
            below = _int(substitute(den, self.bound))
            told = Fraction(_int(substitute(num, self.bound)), below) if below else None
            same = told is not None and (
                told == real if told.denominator == 1 else abs(float(told) - real) <= 1e-6 * abs(told)
            )
            if not same:
                self.problems.append(f"{what}: {number} = {told}, really {real}")
            elif symbols(num) | symbols(den) <= inputs:
                self.exact += 1


def compare(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], values: Mapping[str, Array] | None = None
) -> Comparison:
    """Run a model and compare every size and every shape value on the way with symbolic inference."""
    real = run_all(proto, feeds) if values is None else values
    return Comparison(exact_sizes(view(proto)), bindings(proto, feeds)).compare(real)


def feeds_for(proto: onnx.ModelProto, dims: Mapping[str, int], seed: int = 0, high: int = 3) -> dict[str, Array]:
    """Seeded inputs: normal floats, whole numbers below `high`. Symbols without a size get 2."""
    generator = np.random.default_rng(seed)
    given = {tensor.name for tensor in proto.graph.initializer}
    feeds: dict[str, Array] = {}
    for value in proto.graph.input:
        if value.name in given:
            continue
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.HasField("dim_value") else dims.get(symbol(value, i), 2)
            for i, dim in enumerate(tensor.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:
            feeds[value.name] = generator.integers(0, 2 if dtype.kind == "b" else high, shape).astype(dtype)
    return feeds


def _is_symbol(number: Number) -> bool:
    return isinstance(number, Size) and number == Size.symbol(str(number))


def _int(size: AnySize) -> int:
    assert isinstance(size, int)
    return size
