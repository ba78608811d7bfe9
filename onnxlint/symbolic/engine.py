"""The walk through a graph that infers sizes; it knows only operators with subgraphs by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from onnxlint.graph.dims import Shape, is_invented
from onnxlint.graph.disputed import SAME, windows_of
from onnxlint.graph.onnx_inference import GRAPH_OPS
from onnxlint.graph.view import Graph, GraphView, Node
from onnxlint.model.assumptions import combined_multiples
from onnxlint.model.dim_names import is_placeholder
from onnxlint.symbolic.expressions import parse_size
from onnxlint.symbolic.sizes import (
    AnySize,
    Size,
    TooComplexError,
    counts_windows,
    divide,
    in_floors,
    is_made_up,
    least_symbols,
    lower_bound,
    substitute,
    symbols,
    with_ceilings,
)
from onnxlint.symbolic.values import MAX_VALUES, Number, Quotient, Value, holds, number_of

Sizes = tuple[AnySize, ...]

Handler = Callable[["Symbolic", Node], "Sequence[Sizes | None] | None"]
"""Gives the sizes of each output of a node; None if it cannot."""

Evaluator = Callable[["Symbolic", Node], "Value | None"]
"""Gives the numbers of the first output of a node; None if it cannot."""

EMPTYING = frozenset(
    "CenterCropPad ConstantOfShape Expand OneHot Pad Range Resize Slice Split Tile Upsample".split(),
)
"""Operators that make maps without elements where their operands say so: `x[1:]` of a batch of 1."""

WINDOWED = frozenset("AveragePool Conv ConvInteger ConvTranspose LpPool MaxPool QLinearConv".split())
"""Operators whose maps have elements wherever the model runs: runtimes refuse a window that does not fit.

onnxruntime does not refuse one of pooling: see `_pools_nothing`.
"""


class Operators(NamedTuple):
    """Tables of handlers of operators.

    Attributes:
        shapes: Operator → how the sizes of its outputs follow from its inputs.
        values: Operator → how a small tensor that it computes follows from its inputs.
        fold: Gives the numbers where those of all operands are known.
        folded: The operators that `fold` is for.
    """

    shapes: Mapping[str, Handler]
    values: Mapping[str, Evaluator]
    fold: Evaluator
    folded: Collection[str]


def _is_plain(size: Size) -> bool:
    """Whether a size of one term is a product of symbols and a positive number."""
    ((factors, number),) = size.terms
    return number > 0 and all(isinstance(factor, str) for factor in factors)


def _constant(graph: Graph, name: str) -> Value | None:
    """The numbers of a small tensor that is constant."""
    constant = graph.numbers(name) if name else None
    if constant is None or len(constant.values) > MAX_VALUES:
        return None
    floating = constant.kind == "f"
    if floating and constant.bits < 32:
        return None  # half precision rounds sizes above 2048
    return Value(tuple(map(number_of, constant.values)), constant.dims, floating)


def _pools_nothing(node: Node) -> bool:
    """Whether the window of a pooling is so much larger than a map of 1 that onnxruntime makes a map of 0 of it.

    It divides what is left beside the window by the stride, rounds that towards 0, and adds 1.
    """
    if "Pool" not in node.op or node.attribute("auto_pad", "NOTSET") in SAME:
        return False
    return any(reach >= stride for reach, stride in windows_of(node))


_SIZE_TYPES = frozenset((int, Size))
_NO_SIZES: dict[str, Sizes | None] = {}
_NO_VALUES: dict[str, Value] = {}

MISUSE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What evaluating an operator raises if its operands or attributes are not those of the specification."""


class Symbolic:
    """Shapes and shape values of a model.

    A subclass that infers under other rules (as `fix --dynamic` does, which sets baked sizes free) overrides three hooks:
    `visit`, called for each node in order; `merge`, which completes our sizes of a value by those of onnx's inference;
    `declared_input`, which gives the sizes of a graph's input. It sets sizes with `record`, and all three are called
    while the constructor runs: set its own attributes before.

    Attributes:
        rests_on_elements: Whether a number that a tensor holds, or where a Slice ends, was told only because sizes of inputs
            are at least 1.

    Args:
        view: The model.
        operators: The tables of operators (`onnxlint.symbolic.inference.OPERATORS`).
        multiples: Assumptions: input symbol → a number that it is a multiple of. The symbol then stands for that
            many-th part of the size, so that `H` with 32 appears as `32*H`.
    """

    def __init__(self, view: GraphView, operators: Operators, multiples: Mapping[str, int] | None = None) -> None:
        self.view = view
        self._operators = operators
        self.multiples = combined_multiples((multiples or {}).items())
        self._valued = frozenset((*operators.values, *operators.folded))
        self._shapes: dict[int, dict[str, Sizes | None]] = {id(graph): {} for graph in view.graphs}
        self._values: dict[int, dict[str, Value]] = {id(graph): {} for graph in view.graphs}
        self._constants: dict[tuple[int, str], Value | None] = {}
        self._fresh = 0
        self._clipped: dict[str, tuple[AnySize, int]] = {}
        self._named: dict[str, AnySize] = {}
        self._cut: set[Size] = set()
        self._windowed: set[Size] = set()
        self.rests_on_elements = False
        self._inner: frozenset[str] = frozenset()
        self._given: frozenset[Size] = frozenset()
        self.may_be_empty: set[str] = self._find_empty()
        for graph in view.graphs:
            if graph.parent is None and not graph.is_function:
                self._run(graph)

    def shape(self, graph: Graph, name: str) -> Sizes | None:
        """Sizes of a value, looked up outwards through the graphs; None if its rank is unknown."""
        here: Graph | None = graph
        while here is not None:
            shapes = self._shapes.get(id(here), _NO_SIZES)
            if name in shapes:
                return shapes[name]
            tensor = here.initializers.get(name)
            if tensor is not None:
                return tuple(tensor.dims)
            here = here.parent
        return None

    def value(self, graph: Graph, name: str) -> Value | None:
        """Numbers of a small tensor that is constant or computed from shapes; None for anything else."""
        here: Graph | None = graph
        while here is not None:
            values = self._values.get(id(here), _NO_VALUES)
            if name in values:
                return values[name]
            if here.owns(name):
                break
            here = here.parent
        key = (id(graph), name)
        if key not in self._constants:
            self._constants[key] = _constant(graph, name)
        return self._constants[key]

    def input_size(self, name: str) -> AnySize:
        """The size that a dimension's name in the file means, a symbol or an expression, under the assumptions."""
        known = self._named.get(name)
        if known is None:
            parsed = parse_size(name)
            if parsed is None or any(map(is_placeholder, symbols(parsed))):
                parsed = Size.symbol(name)
            factors = {symbol: Size.symbol(symbol) * self.multiples.get(symbol, 1) for symbol in symbols(parsed)}
            known = self._named[name] = substitute(parsed, factors)
        return known

    def _find_empty(self) -> set[str]:
        """Symbols of inputs that may be 0.

        A size is at least 1 where it is a symbol, or a multiple of one. In `h + 1`, h may be 0 all the same.
        """
        names = {name for dims in self._declared().values() for name in dims}
        filled: set[str] = set()
        inner: set[str] = set()
        for size in map(self.input_size, names):
            is_product = isinstance(size, Size) and size.constant == 0 and len(size.terms) == 1
            (filled if is_product and isinstance(size, Size) and _is_plain(size) else inner).update(symbols(size))
        self._inner = frozenset(inner - filled)
        self._given = frozenset(size for size in map(self.input_size, names) if isinstance(size, Size))
        return filled | inner if self.view.allow_empty else inner - filled

    def _declared(self) -> dict[str, tuple[str, ...]]:
        """Input → the names of its sizes that are not numbers."""
        main = self.view.main
        return {
            name: tuple(dim or f"{name}[{i}]" for i, dim in enumerate(shape) if not isinstance(dim, int))
            for name in main.data_inputs
            if (shape := self.view.onnx_inferred(main, name)[1]) is not None
        }

    def fresh(self) -> Size:
        """A new symbol that equals nothing but itself."""
        self._fresh += 1
        return Size.symbol(f"?{self._fresh}")

    def whole(self, number: Number | None) -> AnySize:
        """A number as a size; a new symbol where it is unknown."""
        return self.fresh() if number is None or isinstance(number, Quotient) else number

    def least(self, size: AnySize) -> int | None:
        """A lower bound of the size; None if there is none."""
        return lower_bound(size, self.may_be_empty)

    def is_positive(self, size: AnySize) -> bool:
        """Whether a size is at least 1 for all inputs, by arithmetic alone."""
        return self.is_at_least(size, 1)

    def is_at_least(self, size: AnySize, number: int) -> bool:
        """Whether a size is at least a number for all inputs, by arithmetic alone.

        Where that is so only because sizes of inputs are at least 1, `rests_on_elements` is set.
        """
        bound = self.least(size)
        if bound is None or bound < number:
            return False
        if not self.rests_on_elements and not isinstance(size, int):
            without = lower_bound(size, symbols(size))
            self.rests_on_elements = without is None or without < number
        return True

    def is_never_empty(self, size: AnySize) -> bool:
        """Whether a proof may take it that a size is at least 1.

        By arithmetic it is, or it depends on sizes of inputs alone: what "proved" means is that these are at least 1, and
        then so are the maps of convolutions and pooling, which runtimes refuse to run otherwise. Sizes that data decide
        (NonZero, NonMaxSuppression, Compress, Unique) or that an operator cuts (`x[1:]`) may be 0, and so may those of
        inputs where the view allows empty ones.
        """
        if (self.least(size) or 0) > 0:
            return True
        if isinstance(size, int) or any(name in self.may_be_empty or is_made_up(name) for name in symbols(size)):
            return False
        return not self._may_be_cut(size)

    def is_filled(self, number: AnySize) -> bool:
        """Whether a number of a tensor is at least 1 if sizes are: `h - 3` may be 0 where nothing has that size."""
        if isinstance(number, int):
            return number > 0
        made_up = [name for name in symbols(number) if is_made_up(name)]
        plain = substitute(number, {name: Size.symbol(f"_{name}") for name in made_up})
        if (lower_bound(plain, self._inner) or 0) > 0:
            return True
        # Maps that windows make have elements, or the model does not run.
        least = {name: Size.symbol(name) + (k - 1) for name, k in least_symbols(self._windowed).items()}
        if (lower_bound(substitute(with_ceilings(plain), least), self._inner) or 0) > 0:
            return True
        rest: AnySize = number
        for size in sorted(self._windowed | self._given, key=str):
            quotient = divide([rest], [size])
            rest = rest if quotient is None else quotient
        return rest != number and (lower_bound(rest, self._inner) or 0) > 0

    def _may_be_cut(self, size: AnySize) -> bool:
        """Whether a size is one that operators may have cut to 0, or a product with one."""
        if size in self._windowed:
            return False
        try:
            return any(size == cut or divide([size], [cut]) is not None for cut in self._cut - self._windowed)
        except TooComplexError:
            return True

    def clipped(self, size: AnySize, limit: int) -> AnySize:
        """`min(size, limit)`, as a symbol that remembers its definition."""
        name = f"min({size},{limit})"
        self._clipped[name] = (size, limit)
        return Size.symbol(name)

    def unclipped(self, sizes: set[AnySize]) -> AnySize:
        """The size of an axis along which values of all these sizes meet.

        A table of 512 positions that is sliced to the length of the text has min(length, 512) rows: where that meets
        `length`, they are equal, or the model does not run (both are more than 1 where they differ). Where onnxruntime pools
        to 1 what other operators make nothing of, there is nothing.
        """
        plain = {size for size in sizes if not counts_windows(size)}
        if len(plain) == 1 and all(size in plain or in_floors(size) in plain for size in sizes):
            return plain.pop()
        for size in sizes:
            rest = sizes - {size}
            if all(
                isinstance(other, Size)
                and (known := self._clipped.get(str(other))) is not None
                and known[0] == size
                and known[1] > 1
                for other in rest
            ):
                return size
        return self.fresh()

    # Filling in

    def _run(self, graph: Graph) -> None:
        known = self._shapes[id(graph)]
        known.update((name, tuple(tensor.dims)) for name, tensor in graph.initializers.items())
        for name in graph.data_inputs:
            self.record(graph, name, self.declared_input(graph, name, self.view.onnx_inferred(graph, name)[1]))
        for node in graph.order:
            self.visit(node)

    def declared_input(self, graph: Graph, name: str, shape: Shape | None) -> Sizes | None:
        """Sizes of an input from its declared shape; inputs of nested graphs have new symbols."""
        if shape is None:
            return None
        main = graph is self.view.main
        return tuple(
            dim if isinstance(dim, int) else self.input_size(dim or f"{name}[{i}]") if main else self.fresh()
            for i, dim in enumerate(shape)
        )

    def record(self, graph: Graph, name: str, sizes: Sizes | None) -> None:
        """Set the sizes of a value of a graph."""
        self._shapes[id(graph)][name] = sizes

    def visit(self, node: Node) -> None:
        """Infer the outputs of one node, and the bodies in it first."""
        graph, op = node.graph, node.op
        if graph.children and op in GRAPH_OPS:
            for child in graph.children:
                if child.parent_node is node:
                    self._run(child)
        handler = self._operators.shapes.get(op)
        shapes: Sequence[Sizes | None] | None = None
        if handler is not None:
            try:
                shapes = handler(self, node)
            except (TooComplexError, *MISUSE):
                shapes = None  # an operator used against its specification, or sizes beyond bounds: fall back
        known = self._shapes[id(graph)]
        for i, name in enumerate(node.outputs):
            if name:
                own = shapes[i] if shapes is not None and i < len(shapes) else None
                if own is not None and not _SIZE_TYPES.issuperset(map(type, own)):
                    own = None  # computed from attributes of other types
                known[name] = self.merge(own, self.view.onnx_inferred(graph, name)[1])
        if op in WINDOWED and not _pools_nothing(node):
            self._note_sizes(node, self._windowed)
        elif op in EMPTYING or op in WINDOWED:
            self._note_sizes(node, self._cut)
        if op in self._valued:
            try:
                self._evaluate(node)
            except (TooComplexError, *MISUSE):
                return

    def _note_sizes(self, node: Node, noted: set[Size]) -> None:
        """Remember which sizes may be 0 although the model runs, or which may not."""
        graph, inputs = node.graph, node.inputs
        for name in filter(None, node.outputs):
            for size in self.shape(graph, name) or ():
                if isinstance(size, int) or size in noted:
                    continue
                if any(size in (self.shape(graph, one) or ()) for one in inputs if one):
                    continue
                if noted is self._windowed or (self.least(size) or 0) <= 0:
                    noted.add(size)

    def merge(self, own: Sizes | None, inferred: Shape | None) -> Sizes | None:
        """Our sizes, completed by numbers from onnx's inference."""
        if inferred is None:
            return own
        if own is None or len(own) != len(inferred):
            return tuple(self._known(dim) for dim in inferred)
        for size, dim in zip(own, inferred, strict=True):
            if type(dim) is int and type(size) is not int:
                return tuple(d if isinstance(d, int) else size for size, d in zip(own, inferred, strict=True))
        return own

    def _known(self, dim: int | str | None) -> AnySize:
        if isinstance(dim, int):
            return dim
        if dim is None or is_invented(dim):
            return self.fresh()
        return self.input_size(dim)

    def _evaluate(self, node: Node) -> None:
        evaluator = self._operators.values.get(node.op)
        value = evaluator(self, node) if evaluator is not None else None
        if value is not None:
            value = self._held(node, value)
        if value is None or None in value.numbers:
            folded = self._operators.fold(self, node)
            value = self._held(node, folded) if folded is not None else value
        if value is not None and len(value.numbers) <= MAX_VALUES and node.output():
            graph, name = id(node.graph), node.output()
            self._values[graph][name] = value
            self._shapes[graph][name] = value.dims

    def _held(self, node: Node, value: Value) -> Value:
        """The numbers of a result that its element type holds; others wrap around or are rounded, and are not followed."""
        element_type = node.graph.dtype(node.output())
        if all(holds(element_type, number) for number in value.numbers):
            return value
        return value._replace(numbers=tuple(n if holds(element_type, n) else None for n in value.numbers))

    # For the handlers

    def of(self, node: Node, i: int) -> Sizes | None:
        """Sizes of input `i`."""
        name = node.inputs[i] if i < len(node.inputs) else ""
        if not name:
            return None
        known = self._shapes.get(id(node.graph), _NO_SIZES)
        return known[name] if name in known else self.shape(node.graph, name)

    def val(self, node: Node, i: int) -> Value | None:
        """Numbers of input `i`."""
        name = node.input(i)
        return self.value(node.graph, name) if name else None

    def ints(self, node: Node, i: int, attribute: str = "") -> list[int] | None:
        """Constant whole numbers of input `i`, or of the attribute that came before it in older opsets."""
        if attribute:
            given = node.attribute(attribute)
            if given is not None:
                numbers = list(given) if isinstance(given, list) else [given]
                return numbers if all(isinstance(number, int) for number in numbers) else None
        value = self.val(node, i)
        if value is None or not all(isinstance(number, int) for number in value.numbers):
            return None
        return [number for number in value.numbers if isinstance(number, int)]
