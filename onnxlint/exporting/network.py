"""A network as a function of tensors: how its inputs reach `forward`, and how its outputs are listed and named.

Needs torch. Where `forward` takes a dictionary or returns one, it is replaced on the module itself: a module around it would
change the names of all modules, which findings show.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.factory import said
from onnxlint.exporting.options import ExportOptions, Wanted
from onnxlint.text import counted, did_you_mean, listed, printable

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

SEED = 0

MOST_OUTPUTS = 1000


@dataclass(frozen=True)
class Input:
    """One input of the graph.

    Attributes:
        name: In the graph.
        parameter: Of `forward`; empty for those of `*args`.
        key: Of the dictionary that the parameter is; empty for a tensor.
        example: Its example.
        free: Axis → symbol of a size that stays free.
    """

    name: str
    parameter: str
    key: str
    example: torch.Tensor
    free: dict[int, str]


@dataclass(frozen=True)
class Network:
    """A network with everything that an exporter needs.

    Attributes:
        module: The module, in evaluation mode; for a program, its module to run.
        program: The exported program; None for modules.
        scripted: Whether the module is a TorchScript program.
        inputs: Its inputs.
        outputs: Names of its outputs.
    """

    module: Any
    program: Any
    scripted: bool
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]

    @property
    def args(self) -> tuple[torch.Tensor, ...]:
        """The example inputs."""
        return tuple(one.example for one in self.inputs)

    def run(self, args: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs for some inputs, in the order of `outputs`."""
        import torch

        with torch.no_grad():
            return [value for _, value in flatten(self.module(*args))]


@contextmanager
def prepared(made: Any, options: ExportOptions) -> Iterator[Network]:
    """A network ready to be exported; a module is as it was before when the block ends.

    Raises:
        OnnxlintError: Its inputs do not fit, or it fails on them.
    """
    import torch

    if isinstance(made, torch.export.ExportedProgram):
        yield _of_program(made, options)
        return
    modes = [(module, module.training) for module in made.modules()]
    made.eval()
    scripted = isinstance(made, torch.jit.ScriptModule)
    own = made.__dict__.get("forward")
    try:
        inputs = _bind(made, options, scripted)
        if not scripted and _needs_flat(made, inputs):
            paths = _replace_forward(made, inputs)
            _run_once(made, inputs)
        else:
            paths, value = _run_once(made, inputs)
            if not scripted and _is_nested(value):
                _replace_forward(made, inputs)
        yield Network(made, None, scripted, inputs, _named(paths, options.output_names))
    finally:
        if not scripted:
            _restore(made, own)
        for module, mode in modes:
            module.training = mode


# Outputs


def flatten(value: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    """The tensors of a result, each with its path: keys and positions with dots between.

    Raises:
        OnnxlintError: It holds something else.
    """
    import torch

    found: list[tuple[str, torch.Tensor]] = []
    parts: Iterator[tuple[Any, Any]]
    if value is None:
        return []
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    if isinstance(value, Mapping):
        parts = iter(value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        parts = iter(enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
    else:
        where = f"output {printable(path)!r}" if path else "forward"
        raise OnnxlintError(f"{where} gives {printable(type(value).__name__)}; a graph gives tensors alone")
    for key, part in parts:
        found += flatten(part, f"{path}.{key}" if path else str(key))
    if len(found) > MOST_OUTPUTS:
        raise OnnxlintError(f"forward gives more than {MOST_OUTPUTS:,} tensors")
    return found


def _is_nested(value: Any) -> bool:
    """Whether a result is more than a tensor, or a plain tuple or list of them."""
    import torch

    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return not all(isinstance(one, torch.Tensor) for one in value)
    return not isinstance(value, torch.Tensor)


def _named(paths: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """Names of outputs: those given, else the keys that `forward` uses, else `output` or `output0`, `output1`, …"""
    if given:
        if len(given) != len(paths):
            raise OnnxlintError(
                f"--output-names: {counted(len(given), 'name')} for {counted(len(paths), 'output')} of the network"
            )
        return tuple(given)
    if len(paths) == 1:
        return (paths[0] if paths[0] and not paths[0][0].isdigit() else "output",)
    return tuple(f"output{path}" if path[0].isdigit() else path for path in paths)


def _run_once(module: Any, inputs: Sequence[Input]) -> tuple[list[str], Any]:
    """Paths of the outputs, and what `forward` gives."""
    import torch

    try:
        with torch.no_grad():
            value = module(*(one.example for one in inputs))
    except OnnxlintError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code
        shapes = listed(f"{printable(one.name)} {list(one.example.shape)}" for one in inputs)
        raise OnnxlintError(
            f"the network fails on its example ({shapes}): {said(error)}; give a size that it takes with --shape"
            f"{_as_image(inputs)}"
        ) from None
    paths = [path for path, _ in flatten(value)]
    if not paths:
        raise OnnxlintError("forward gives no tensor")
    return paths, value


def _as_image(inputs: Sequence[Input]) -> str:
    """The shape of an image, where one was given as width and height, or with its channels last."""
    sizes = list(inputs[0].example.shape) if len(inputs) == 1 else []
    if len(sizes) == 2:
        return f", such as 1,3,{sizes[1]},{sizes[0]}"
    if len(sizes) == 3 and sizes[2] in (1, 3, 4) and min(sizes[:2]) > 4:
        return f", such as 1,{sizes[2]},{sizes[1]},{sizes[0]}"
    return ""


# Inputs


def _parameters(module: Any, scripted: bool) -> tuple[list[str], list[str], bool]:
    """Parameters of `forward`, those of them that have no default, and whether there is `*args`."""
    if scripted:
        arguments = module.forward.schema.arguments[1:]
        return [one.name for one in arguments], [one.name for one in arguments if not one.has_default_value()], False
    parameters = inspect.signature(module.forward).parameters.values()
    names = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    required = [one.name for one in parameters if one.name in names and one.default is one.empty]
    return names, required, any(one.kind is one.VAR_POSITIONAL for one in parameters)


def _bind(module: Any, options: ExportOptions, scripted: bool) -> tuple[Input, ...]:
    """The inputs of the graph and the parameters of `forward` that they become."""
    names, required, has_rest = _parameters(module, scripted)
    wanted = options.inputs
    if not wanted:
        shown = printable(required[0] if required else "input")
        raise OnnxlintError(
            f"the network needs an example of its {counted(max(len(required), 1), 'input')} "
            f"({listed(map(printable, required or names), 8)}): give --shape {shown}=1,3,640,640"
        )
    heads = [one.name.partition(".")[0] if one.name not in names else one.name for one in wanted]
    if all(head in names for head in heads):
        places = [(head, one.name[len(head) + 1 :]) for head, one in zip(heads, wanted, strict=True)]
        order = sorted(range(len(wanted)), key=lambda i: names.index(heads[i]))
    elif any(one.name and head in names for head, one in zip(heads, wanted, strict=True)) and len(wanted) > 1:
        wrong = next(one.name for head, one in zip(heads, wanted, strict=True) if head not in names)
        hint = did_you_mean(wrong, names, f"it takes {listed(map(printable, names), 8)}")
        raise OnnxlintError(f"--shape: forward has no parameter {printable(wrong)!r}{hint}")
    else:
        if len(wanted) > len(names) and not has_rest:
            raise OnnxlintError(
                f"--shape: {counted(len(wanted), 'input')} for the {counted(len(names), 'parameter')} of forward: "
                f"{listed(map(printable, names), 8)}"
            )
        places = [(names[i] if i < len(names) else "", "") for i in range(len(wanted))]
        order = list(range(len(wanted)))
    lacking = [name for name in required if name not in {parameter for parameter, _ in places}]
    if lacking:
        example = " ".join(f"--shape {printable(name)}=…" for name in lacking)
        raise OnnxlintError(f"forward also needs {listed(map(printable, lacking))}; give {example}")
    graph = _graph_names(wanted, places, options.input_names)
    arrays = _values(options.values, wanted, graph)
    generator = _generator()
    device = next((held.device for held in (*module.parameters(), *module.buffers())), "cpu")
    examples = [_example(one, arrays.get(name), generator).to(device) for one, name in zip(wanted, graph, strict=True)]
    made = [Input(graph[i], *places[i], examples[i], wanted[i].free) for i in order]
    return tuple(made)


def _graph_names(wanted: Sequence[Wanted], places: Sequence[tuple[str, str]], given: Sequence[str]) -> list[str]:
    if given and len(given) != len(wanted):
        raise OnnxlintError(f"--input-names: {counted(len(given), 'name')} for {counted(len(wanted), 'input')}")
    return [given[i] if given else one.name or places[i][0] or f"input{i}" for i, one in enumerate(wanted)]


def _values(path: str | None, wanted: Sequence[Wanted], graph: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the file, by the names of the graph."""
    if path is None:
        return {}
    from onnxlint.model.arrays import read_arrays

    arrays = read_arrays(path)
    found = {}
    for one, name in zip(wanted, graph, strict=True):
        array = arrays.get(name, arrays.get(one.name))
        if array is None:
            there = listed(map(printable, arrays), 8)
            raise OnnxlintError(f"{printable(path)}: has no array {printable(name)!r}; it has {there}")
        found[name] = array
    return found


def _generator() -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(SEED)


def _example(one: Wanted, array: npt.NDArray[Any] | None, generator: torch.Generator) -> torch.Tensor:
    import numpy as np
    import torch

    if array is None:
        return random(one.sizes, one.dtype, generator)
    try:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
    except TypeError:
        raise OnnxlintError(f"--inputs: array {printable(one.name)!r} is {array.dtype}, which torch lacks") from None
    for axis in one.free:
        if axis < tensor.ndim and tensor.shape[axis] == 1:
            tensor = tensor.repeat_interleave(2, axis)  # an example of 1 is taken for a constant
    return tensor


def random(sizes: Sequence[int], dtype: str, generator: torch.Generator) -> torch.Tensor:
    """Normal numbers; integers from 0 to 255 for images, else from 0 to 3; booleans."""
    import torch

    kind = getattr(torch, dtype)
    if kind is torch.bool:
        return torch.randint(0, 2, tuple(sizes), generator=generator).bool()
    if not kind.is_floating_point:
        return torch.randint(0, 128 if len(sizes) > 2 else 4, tuple(sizes), generator=generator).to(kind)
    return torch.randn(tuple(sizes), generator=generator).to(kind)


# Forward


def _needs_flat(module: Any, inputs: Sequence[Input]) -> bool:
    """Whether the inputs are anything but the first parameters of `forward`, in their order."""
    names, _, has_rest = _parameters(module, False)
    if any(one.key for one in inputs):
        return True
    signature = inspect.signature(module.forward).parameters
    if any(
        signature[name].kind is inspect.Parameter.KEYWORD_ONLY for name in (one.parameter for one in inputs) if name
    ):
        return True
    # A default that nobody gives would become an input of the TorchScript exporter's graph.
    return not has_rest and [one.parameter for one in inputs] != names


def _replace_forward(module: Any, inputs: Sequence[Input]) -> list[str]:
    """Let `forward` take and give tensors alone; returns a list that gets the paths of its outputs when it runs."""
    inner: Callable[..., Any] = module.forward
    paths: list[str] = []

    def forward(*tensors: torch.Tensor) -> Any:
        keywords: dict[str, Any] = {}
        rest: list[Any] = []
        for one, tensor in zip(inputs, tensors, strict=True):
            if not one.parameter:
                rest.append(tensor)
            elif one.key:
                keywords.setdefault(one.parameter, {})[one.key] = tensor
            else:
                keywords[one.parameter] = tensor
        value = inner(*keywords.values(), *rest) if rest else inner(**keywords)
        found = flatten(value)
        paths[:] = [path for path, _ in found]
        return tuple(tensor for _, tensor in found)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [f"{one.parameter or 'input'}_{i}" for i, one in enumerate(inputs)]
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    module.forward = forward
    return paths


def _restore(module: Any, own: Any) -> None:
    if own is None:
        module.__dict__.pop("forward", None)
    else:
        module.forward = own


# Exported programs


def _of_program(program: Any, options: ExportOptions) -> Network:
    """A program of torch.export: its inputs and sizes are those that it was exported with."""
    if options.inputs or options.values:
        raise OnnxlintError(
            "an exported program (.pt2) has its own inputs and sizes; leave out --shape, --dynamic and --inputs"
        )
    args, kwargs = program.example_inputs or ((), {})
    flat = [value for _, value in flatten([list(args), list(kwargs.values())])]
    names = [str(name) for name in program.graph_signature.user_inputs]
    if len(flat) != len(names) or kwargs or any(not hasattr(one, "shape") for one in args):
        raise OnnxlintError("an exported program (.pt2) is read where its inputs are tensors, one for each parameter")
    given = options.input_names
    if given and len(given) != len(names):
        raise OnnxlintError(f"--input-names: {counted(len(given), 'name')} for {counted(len(names), 'input')}")
    shapes = _symbols(program)
    inputs = tuple(
        Input(given[i] if given else name, name, "", value, shapes.get(name, {}))
        for i, (name, value) in enumerate(zip(names, flat, strict=True))
    )
    module = program.module()
    paths, _ = _run_once(module, inputs)
    return Network(module, program, False, inputs, _named(paths, options.output_names))


def _symbols(program: Any) -> dict[str, dict[int, str]]:
    """Input → axis → symbol of its free sizes."""
    found: dict[str, dict[int, str]] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if value is not None and hasattr(value, "shape"):
            found[node.name] = {i: str(size) for i, size in enumerate(value.shape) if not isinstance(size, int)}
    return found
