"""Run a model in onnxruntime, with everything inside it within reach."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Port
from onnxlint.errors import OnnxlintError, OutOfMemory
from onnxlint.model.limits import budget, lacks_memory, loading, memory_overrun, running
from onnxlint.telemetry import load_onnxruntime
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

KEPT = 4
"""Sessions with inner tensors that are kept for the next run."""

DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "string": "str",
    "bool": "bool",
}
"""onnxruntime's names of element types where they are not NumPy's."""


def runtime() -> Any:
    """The `onnxruntime` module, its own messages silenced.

    Raises:
        OnnxlintError: It is not installed.
    """
    try:
        module = load_onnxruntime()
    except ImportError as error:
        raise OnnxlintError(
            f"onnxruntime: cannot be imported ({printable(str(error))}); install it with `pip install 'onnxlint[convert]'`"
        ) from None
    return module


def first_line(error: BaseException) -> str:
    """The error of onnxruntime (or onnx) as one printable line without its error codes."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.removeprefix("[ONNXRuntimeError] : ")
    parts = text.split(" : ", 2)
    if len(parts) == 3 and parts[0].isdigit():
        text = parts[2]
    return printable(text)[:400]


def load(path: str, data: bool = True) -> onnx.ModelProto:
    """The whole model, with its external data unless `data` is False.

    Raises:
        OnnxlintError: It cannot be read.
    """
    import onnx

    from onnxlint.model.skeleton import open_model

    open_model(path)  # what is wrong with it, in words that help
    try:
        return onnx.load(path, load_external_data=data)
    except Exception as error:  # onnx has no exception class of its own
        raise OnnxlintError(f"{printable(path)}: cannot be read: {first_line(error)}") from error


def start(
    model: str | onnx.ModelProto,
    *,
    name: str = "",
    folder: str = "",
    threads: int = 2,
    optimize: bool = True,
    integers: bool = True,
    optimized: str = "",
) -> Any:
    """An InferenceSession of a file, or of a model in memory whose external data is in `folder`.

    Args:
        model: A path, or the model.
        name: Name of the model in errors; empty: its path.
        folder: Where external data of a model in memory is.
        threads: For one operator; operators run one after the other.
        optimize: Whether onnxruntime may change the graph.
        integers: Whether it may compute in integers what is between DequantizeLinear and QuantizeLinear, and round weights
            for that which the model has in float.
        optimized: Where to write the graph as onnxruntime runs it; empty: nowhere.

    Raises:
        OnnxlintError: It cannot be loaded.
    """
    module = runtime()
    options = module.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not optimize:
        options.graph_optimization_level = module.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = optimized
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        source = model if isinstance(model, str) else model.SerializeToString()
        with loading():
            return module.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a dozen classes that share none
        shown = printable(name or (model if isinstance(model, str) else "the model"))
        raise OnnxlintError(f"{shown}: onnxruntime cannot load it: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """Why a model cannot be loaded: the limit on memory, or the reason that onnxruntime gives."""
    most = budget()
    return most.memory_overrun() if most is not None and lacks_memory(error) else first_line(error)


def run(session: Any, name: str, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
    """Outputs of a session.

    Raises:
        OnnxlintError: It does not run on these inputs.
    """
    size = sum(np.asarray(value).nbytes for value in feeds.values())
    try:
        with running(size):
            return list(session.run(None if outputs is None else list(outputs), dict(feeds)))
    except Exception as error:  # as in `start`
        if lacks_memory(error):
            raise OutOfMemory(f"{printable(name)}: {memory_overrun(size)}") from error
        shapes = ", ".join(f"{printable(key)} {list(value.shape)}" for key, value in feeds.items())
        raise OnnxlintError(
            f"{printable(name)}: onnxruntime cannot run it on {shapes}: {first_line(error)}; check --shape"
        ) from error


def read_by(node: onnx.NodeProto) -> set[str]:
    """Values that a node reads, those that its subgraphs take from around it included."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            for inner in graph.node:
                found |= read_by(inner) - inside
                inside |= set(inner.output)
    return found


def size_nodes(model: onnx.ModelProto) -> set[int]:
    """Which nodes of the main graph, by index, compute sizes: from Shape and constants alone, without a table of weights."""
    sizes: set[str] = set()
    data = {value.name for value in model.graph.input}
    data |= {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    found = set()
    for i, node in enumerate(model.graph.node):
        reads = read_by(node)
        if node.op_type in ("Shape", "Size"):
            sizes |= set(node.output)
        elif reads & data:
            data |= set(node.output)
        elif reads & sizes:
            sizes |= set(node.output)
            found.add(i)
    return found


def needed(model: onnx.ModelProto, wanted: Iterable[str], given: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes of the main graph that compute the wanted values from the given ones, in order."""
    stop = set(given)
    left = set(wanted) - stop
    found: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if not left.isdisjoint(node.output):
            found.append(node)
            left |= read_by(node) - stop
    return found[::-1]


def blank(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model without nodes that has the operator sets and functions of another."""
    import onnx

    small = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    small.graph.name = model.graph.name
    return small


def part(model: onnx.ModelProto, wanted: Sequence[str], given: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """A model of the nodes that compute some values, given others; external data stays where it is.

    Args:
        model: The whole.
        wanted: Its outputs, inner values or outputs of `model`.
        given: Inner values that become inputs, with an array of their type.
    """
    import onnx

    given = given or {}
    nodes = needed(model, wanted, given)
    read = {name for node in nodes for name in read_by(node)} | set(wanted)
    small = blank(model)
    graph = small.graph
    taken = {name: f"{name}#computed" for name in given}
    for node in nodes:
        new = graph.node.add()
        new.CopyFrom(node)
        for i, name in enumerate(new.output):
            if name in taken:
                new.output[i] = taken[name]
    own = read - given.keys()
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in own)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    graph.input.extend(value for value in model.graph.input if value.name in own)
    for name in sorted(given.keys() & read):
        graph.input.append(
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(given[name].dtype), None)
        )
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    return small


class OrtSession:
    """An .onnx file in onnxruntime.

    The outputs are computed as onnxruntime likes to, with all its optimizations; as soon as inner values are asked for or
    given, nothing is optimized, so that they are what the file says.

    Attributes:
        notes: What users should know of results on this machine.
    """

    def __init__(self, path: str, threads: int = 2) -> None:
        self.path = path
        self._threads = threads
        self._folder = os.path.dirname(os.path.abspath(path))
        self._model: onnx.ModelProto | None = None
        self._parts: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._kinds: dict[str, str] | None = None
        # onnxruntime takes UTF-8 paths alone: what is elsewhere is read here, external data included.
        self._by_path = _is_utf8(self._folder) and _is_utf8(path)
        source = path if self._by_path else self.proto
        load(path, data=False)  # for its errors
        self._session = start(source, name=path, threads=threads)
        self.inputs = tuple(_port(port) for port in self._session.get_inputs())
        self.outputs = tuple(_port(port) for port in self._session.get_outputs())
        self.notes: tuple[str, ...] = ()

    @property
    def proto(self) -> onnx.ModelProto:
        """The model; external data is not read unless it has to be."""
        if self._model is None:
            self._model = load(self.path, data=not self._by_path)
        return self._model

    def tensors(self) -> tuple[tuple[str, str], ...]:
        """(value, operator that makes it) of the floating-point values of the main graph, in order of computation.

        Raises:
            OnnxlintError: The model cannot be loaded with all of them as outputs.
        """
        floats = {"tensor(float)", "tensor(float16)", "tensor(double)"}
        makers = {name: node.op_type for node in self.proto.graph.node for name in node.output}
        return tuple((name, makers[name]) for name, kind in self.kinds().items() if name in makers and kind in floats)

    def kinds(self) -> dict[str, str]:
        """onnxruntime's type of every value of the main graph, such as `tensor(float)`, in order of computation.

        Raises:
            OnnxlintError: The model cannot be loaded with all of them as outputs.
        """
        if self._kinds is None:
            inner = [name for node in self.proto.graph.node for name in node.output if name]
            everything = self.start_part(part(self.proto, inner))
            self._kinds = {port.name: port.type for port in (*self._session.get_inputs(), *everything.get_outputs())}
        return self._kinds

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """The outputs, or the named values, for one set of inputs. Given inner values replace what would be computed.

        Raises:
            OnnxlintError: A name is unknown, an input is missing, or onnxruntime cannot run it.
        """
        ports = {port.name: port for port in self.inputs}
        wanted = [port.name for port in self.outputs] if names is None else list(names)
        given = {name: np.asarray(value) for name, value in feeds.items() if name not in ports}
        fed = self.fed(feeds)
        if not given and set(wanted) <= {port.name for port in self.outputs}:
            self._missing(ports, fed)
            return run(self._session, self.path, fed, wanted)
        known = {name for node in self.proto.graph.node for name in node.output if name} | ports.keys()
        for name in (*wanted, *given):
            if name not in known:
                raise OnnxlintError(f"{printable(self.path)}: has no value {printable(name)!r}; see tensors()")
        asked = [name for name in dict.fromkeys(wanted) if name not in feeds]
        values = dict(feeds)
        if asked:
            key = (tuple(asked), tuple(sorted((name, value.dtype.str) for name, value in given.items())))
            session = self._parts.pop(key, None) or self.start_part(part(self.proto, asked, given))
            self._parts[key] = session
            if len(self._parts) > KEPT:
                self._parts.popitem(last=False)
            takes = {port.name for port in session.get_inputs()}
            self._missing(takes & ports.keys(), fed)
            inputs = {name: value for name, value in {**fed, **given}.items() if name in takes}
            values |= dict(zip(asked, run(session, self.path, inputs), strict=True))
        return [np.asarray(values[name]) for name in wanted]

    def fed(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What is given for inputs, in the precision that each has."""
        ports = {port.name: port for port in self.inputs}
        return {name: _cast(value, ports[name].dtype) for name, value in feeds.items() if name in ports}

    def start_part(self, model: onnx.ModelProto) -> Any:
        """A session of a part of the model, which is not optimized."""
        folder = self._folder if self._by_path else ""
        return start(model, name=self.path, folder=folder, threads=self._threads, optimize=False)

    def _missing(self, ports: Iterable[str], fed: Mapping[str, Array]) -> None:
        missing = [name for name in ports if name not in fed]
        if missing:
            raise OnnxlintError(
                f"{printable(self.path)}: input {printable(missing[0])!r} is not given (it takes "
                f"{', '.join(printable(port.name) for port in self.inputs)})"
            )


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _port(port: Any) -> Port:
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in port.shape or ())
    return Port(port.name, shape, DTYPES.get(kind, kind))


def _cast(value: Array, dtype: str) -> Array:
    """A floating-point array in the precision that an input has."""
    value = np.asarray(value)
    if value.dtype.kind == "f" and dtype in ("float16", "float32", "float64"):
        return value.astype(dtype, copy=False)
    return value
