"""ONNX to ncnn through `pnnx`, with everything it leaves unsaid found out: operators it did not convert, and nets that
ncnn cannot load or computes wrongly."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Job, NotConvertible, Progress, bytes_of, silent
from onnxlint.backends.ncnn.format import Layer, Network, load, parse_param, save
from onnxlint.backends.ncnn.run import wheel
from onnxlint.backends.ncnn.tools import pnnx_binary, real_tool, require_room, run_tool
from onnxlint.backends.size_inputs import bind_hint
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import Budget
from onnxlint.symbolic.batch import input_batch_axes
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.graph.view import Graph, GraphView, Node
    from onnxlint.model.skeleton import Model

LEAST_SNR = 60.0
"""dB between ncnn and onnxruntime below which ncnn computes something else. Right nets have 90 to 130; a net whose
Resize samples elsewhere, or whose padding went missing, has less than 40."""

WITHIN = 20.0
"""dB by which a net may be below what changing the last bit of its inputs does to the original: Winograd convolutions are
less exact than the original's."""

LEAST_OF_ANY = 20.0
"""dB below which no net is right, however much its outputs depend on the last bit of its inputs."""

LINT_TARGET = "ncnn"

ONNX_NAMES: dict[str, tuple[str, ...]] = {
    "interpolate": ("Resize", "Upsample"),
    "upsample": ("Resize", "Upsample"),
    "cat": ("Concat",),
    "permute": ("Transpose",),
    "view": ("Reshape",),
    "index": ("Gather", "GatherND"),
    "select": ("Gather", "Slice"),
    "pad": ("Pad",),
    "matmul": ("MatMul",),
    "to": ("Cast",),
    "copy": ("ScatterND",),
    "expression": (),
}
"""pnnx's operator, without its prefix → ONNX operators that become it, where the names differ."""

LOOK = re.compile(r"^ignore |not supported|unsupported", re.IGNORECASE)
TROUBLE = re.compile(r"error|fail|not supported", re.IGNORECASE)


@dataclass(frozen=True)
class Converted:
    """What came out: the net, the shapes (batch axis included) that it was made for, the SNR in dB of each output
    against onnxruntime (infinite: equal), notes for the user, and the names of its inputs and outputs."""

    net: Network
    shapes: Mapping[str, tuple[int, ...]]
    snr_db: Mapping[str, float]
    notes: tuple[str, ...] = ()
    made_with: str = "pnnx"
    blobs: Mapping[str, str] = field(default_factory=dict)


def convert(source: str, job: Job, progress: Progress = silent) -> Converted:
    """Convert an ONNX model, and compare ncnn's outputs with onnxruntime's.

    Raises:
        NotConvertible: ncnn has no place for some of its operators, cannot load or run the result, or computes
            something else.
        OnnxlintError: The model cannot be read, the shape is missing, or the tools are.
    """
    from onnxlint.model.skeleton import open_model

    wheel()
    model = open_model(source)
    view = make_view(model)
    try:
        return _convert(model, view, job, progress)
    except NotConvertible as error:
        hint = bind_hint(view)
        if not hint:
            raise
        raise NotConvertible(f"{error}{hint}", error.lint_target) from None


def _convert(model: Model, view: GraphView, job: Job, progress: Progress) -> Converted:
    shapes = input_shapes(view, job)
    with tempfile.TemporaryDirectory(prefix="onnxlint-ncnn-") as folder:
        progress("writing the model for pnnx", 0, None)
        _write(model, shapes, os.path.join(folder, "model.onnx"))
        progress("converting to ncnn", 0, None)
        param, made_with, log = _run_tools(model.path, folder, job, shapes)
        net = _read(model.path, param, view, log)
        net, renamed = _named(clean(net), view)
        progress("comparing with onnxruntime", 0, None)
        ratios, notes = _compare(net, model, view, folder, shapes, job, log, renamed)
    notes += tuple(
        f"{'output' if name in view.main.outputs else 'input'} {printable(name)!r} is called {blob!r}: "
        "ncnn's files cannot hold its name"
        for name, blob in renamed.items()
        if blob != name
    )
    notes += tuple(
        f"input {printable(name)!r} is fed without its batch axis {axis}" for name, axis in batch_axes(view).items()
    )
    return Converted(replace(net, path=model.path), shapes, ratios, notes, made_with, renamed)


# Shapes


def input_shapes(view: GraphView, job: Job) -> dict[str, tuple[int, ...]]:
    """Input → the whole shape to convert for.

    Raises:
        OnnxlintError: A free size is given by nobody, or a given one is wrong.
    """
    main = view.main
    if not main.data_inputs:
        raise NotConvertible(f"{printable(view.model.path)}: has no input; ncnn needs one")
    return {name: _input_shape(view, name, job) for name in main.data_inputs}


def _input_shape(view: GraphView, name: str, job: Job) -> tuple[int, ...]:
    declared = view.main.shape(name)
    shown = f"{printable(view.model.path)}: input {printable(name)!r}"
    given = job.shape.get(name)
    if declared is None and given is None:
        raise OnnxlintError(f"{shown} has no shape: give it with --input-shape {printable(name)}=1,3,640,640")
    if given is None:
        assert declared is not None
        given = _guess(declared, job)
    if given is None:
        assert declared is not None
        sizes = "×".join("?" if dim is None else printable(str(dim)) for dim in declared)
        way = "--shape W,H,C" if len(declared) == 4 else f"--input-shape {printable(name)}=1,…"
        raise OnnxlintError(f"{shown} has free sizes ({sizes}): choose the sizes to convert for with {way}")
    if declared is not None:
        fits = len(given) == len(declared) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(declared, given, strict=False)
        )
        if not fits:
            sizes = "×".join("?" if dim is None else printable(str(dim)) for dim in declared)
            raise OnnxlintError(f"{shown} is {sizes}, not {'×'.join(map(str, given))}: correct the shape")
    return given


def _guess(declared: Sequence[Any], job: Job) -> tuple[int, ...] | None:
    """The declared shape with its free sizes filled in: the batch is 1, an image has the recipe's size."""
    out = [dim if isinstance(dim, int) else None for dim in declared]
    if out and out[0] is None:
        out[0] = 1
    if len(out) == 4:
        image = job.shape.get("")
        if image is None and job.recipe.size is not None:
            image = (job.recipe.channels, job.recipe.size[1], job.recipe.size[0])
        if image is not None:
            out[1:] = [have if have is not None else size for have, size in zip(out[1:], image[-3:], strict=True)]
    known = [dim for dim in out if dim is not None]
    return tuple(known) if len(known) == len(out) else None


def _write(model: Model, shapes: Mapping[str, tuple[int, ...]], path: str) -> None:
    """The model with its inputs fixed, all its weights inside the file where they fit."""
    import onnx

    from onnxlint.model.save import save as save_model

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    # pnnx takes every input for one that is fed, weights listed among them included.
    inputs = [value for value in proto.graph.input if value.name in shapes]
    del proto.graph.input[:]
    for value in inputs:
        dims = value.type.tensor_type.shape
        del dims.dim[:]
        for size in shapes[value.name]:
            dims.dim.add().dim_value = size
        proto.graph.input.append(value)
    proto.ir_version = max(proto.ir_version, 4)  # before, weights had to be listed
    save_model(model, proto, path)


def batch_axes(view: GraphView) -> dict[str, int]:
    """Input → its batch axis, where that is not the first."""
    return {name: axis for name, axis in input_batch_axes(view.main).items() if axis}


# The tools


def _run_tools(name: str, folder: str, job: Job, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, list[str]]:
    """Path of the `.param`, which tools made it, and what they said about what they could not do."""
    onnx2ncnn = real_tool(job.tools, "onnx2ncnn")
    pnnx = pnnx_binary(job.tools) or (None if onnx2ncnn else pnnx_binary())
    if pnnx is not None:
        param, made_with = "model.ncnn.param", "pnnx"
        command = [pnnx, "model.onnx", "fp16=0"]
    elif onnx2ncnn is not None:
        param, made_with = "onnx.param", "onnx2ncnn"
        command = [onnx2ncnn, "model.onnx", param, "onnx.bin"]
    else:
        raise OnnxlintError("ncnn: models are converted by pnnx; install it with `pip install 'onnxlint[ncnn]'`")
    size = sum(entry.stat().st_size for entry in os.scandir(folder))
    code, log = run_tool(command, folder, size, 8 * sum(map(math.prod, shapes.values())))
    said = [line.strip() for line in log.splitlines() if line.strip()]
    if code != 0 or not os.path.exists(os.path.join(folder, param)):
        require_room(folder)
        how = f"crashed (signal {-code})" if code < 0 else f"failed (exit code {code})"
        plain = [line for line in said if not line.startswith("#")]
        last = next((line for line in reversed(plain) if TROUBLE.search(line)), plain[-1] if plain else "")
        why = f"; the last it said: {printable(last)[:300]}" if last else ""
        raise NotConvertible(f"{printable(name)}: {made_with} {how} on it{why}", LINT_TARGET)
    optimize = real_tool(job.tools, "ncnnoptimize")
    if optimize is not None:
        files = [param, param.replace(".param", ".bin"), "optimized.param", "optimized.bin"]
        code, _ = run_tool([optimize, *files, "0"], folder, size)
        if code == 0 and os.path.exists(os.path.join(folder, "optimized.param")):
            param, made_with = "optimized.param", f"{made_with}, ncnnoptimize"
    return os.path.join(folder, param), made_with, list(dict.fromkeys(line for line in said if LOOK.search(line)))


# What came out of them


def _read(name: str, param: str, view: GraphView, log: Sequence[str]) -> Network:
    """The net, if ncnn has all of its layers.

    Raises:
        NotConvertible: It has not.
    """
    try:
        net = parse_param(Path(param).read_bytes(), param)
        missing = [(layer.type, layer.name) for layer in net.layers if wheel().layer_to_index(layer.type) < 0]
        if not missing:
            return load(param)
    except OnnxlintError as error:
        require_room(os.path.dirname(param))
        raise NotConvertible(
            f"{printable(name)}: pnnx did not make a valid net of it ({str(error).removeprefix(param + ':').strip()})",
            LINT_TARGET,
        ) from None
    nodes = trace(view.main, missing, _pnnx_graph(param))
    parts = [
        f"{count} × {printable(kind)}{_origin(kind, nodes.get(kind, ()))}"
        for kind, count in Counter(kind for kind, _ in missing).most_common()
    ]
    count = f"{len(missing)} operators have" if len(missing) > 1 else "one operator has"
    raise NotConvertible(f"{printable(name)}: {count} no place in ncnn: {', '.join(parts)}{_hint(view)}", LINT_TARGET)


def _hint(view: GraphView) -> str:
    """Why pnnx leaves operators that ncnn does have."""
    from onnx import TensorProto

    if any(node.op in ("QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger") for node in view.main.nodes):
        return "; it is quantized for onnxruntime: give the float model"
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in view.main.initializers.values()):
        return "; its weights are fp16, which pnnx does not convert: give the fp32 model"
    return ""


def _pnnx_graph(param: str) -> list[tuple[str, str]]:
    """(operator, name) of pnnx's own graph, in order; empty if another tool was used."""
    path = Path(param.replace(".ncnn.param", ".pnnx.param"))
    if str(path) == param or not path.exists():
        return []
    rows = (line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[2:])
    return [(words[0], words[1]) for words in rows if len(words) > 1]


def trace(
    graph: Graph, missing: Sequence[tuple[str, str]], converted: Sequence[tuple[str, str]]
) -> dict[str, list[Node]]:
    """Operator that is missing in ncnn → the ONNX nodes that it comes from: where `converted`, pnnx's graph, has as
    many operators of that kind as the model has nodes, the ones in the same places; else all of that kind."""
    out: dict[str, list[Node]] = {}
    for kind in dict.fromkeys(kind for kind, _ in missing):
        bare = re.split(r"[.:]+", kind)[-1].replace("_", "").lower()
        types = ONNX_NAMES.get(bare)
        nodes = [node for node in graph.order if (node.op.lower() == bare if types is None else node.op in types)]
        same = [name for other, name in converted if other == kind]
        if len(same) == len(nodes):
            left = {name for _, name in missing}
            nodes = [node for node, name in zip(nodes, same, strict=True) if name in left]
        out[kind] = nodes
    return out


def _origin(kind: str, nodes: Sequence[Node]) -> str:
    """Where an operator comes from, in brackets."""
    if kind == "pnnx.Expression":
        return " (sizes computed at run time)"
    if not nodes:
        return ""
    names = [repr(printable(node.name or node.output())) for node in nodes[:4]]
    more = f" and {len(nodes) - 4} more" if len(nodes) > 4 else ""
    return f" ({nodes[0].op} {', '.join(names)}{more})"


USELESS = ("Noop", "Dropout")


def clean(net: Network) -> Network:
    """The net without layers that only pass their input on, and without parameters that equal their defaults."""
    kept: list[Layer] = []
    alias: dict[str, str] = {}
    outputs = set(net.outputs())
    for layer in net.layers:
        layer = replace(layer, bottoms=tuple(alias.get(name, name) for name in layer.bottoms))
        passes = layer.type in USELESS or (layer.type == "Split" and len(layer.tops) == 1)
        # An output keeps its own blob.
        if passes and len(layer.bottoms) == len(layer.tops) == 1 and not outputs & set(layer.tops):
            alias[layer.tops[0]] = layer.bottoms[0]
        else:
            kept.append(_terse(layer))
    kept = _fused(kept, outputs)
    return Network(tuple(kept), len({top for layer in kept for top in layer.tops}), net.path)


FUSES = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise", "InnerProduct")


def _activation(layer: Layer) -> tuple[str, tuple[str, ...]] | None:
    """The activation type, and its parameters, that a layer is inside a convolution; None if it is none."""
    params = dict(layer.params)
    if layer.type == "ReLU":
        slope = params.get(0, "0")
        return ("1", ()) if float(slope) == 0 else ("2", (slope,))
    if layer.type == "Clip" and {0, 1} <= params.keys():
        return "3", (params[0], params[1])
    if layer.type == "HardSwish":
        return "6", (params.get(0, "0.2"), params.get(1, "0.5"))
    return {"Sigmoid": ("4", ()), "Mish": ("5", ())}.get(layer.type)


def _fused(layers: Sequence[Layer], outputs: Collection[str]) -> list[Layer]:
    """Activations put into the convolution before them, where nothing else reads what comes between."""
    readers = Counter(name for layer in layers for name in layer.bottoms)
    maker: dict[str, int] = {}
    out: list[Layer] = []
    for layer in layers:
        at = maker.get(layer.bottoms[0], -1) if len(layer.bottoms) == len(layer.tops) == 1 else -1
        inside = _activation(layer)
        if at >= 0 and inside is not None and readers[layer.bottoms[0]] == 1 and layer.bottoms[0] not in outputs:
            kind, values = inside
            host = replace(out[at].with_param(9, kind), tops=layer.tops)
            if values:
                host = host.with_param(10, f"{len(values)},{','.join(values)}")
                host = replace(host, arrays=host.arrays | {10})
            out[at] = host
            continue
        if layer.type in FUSES and layer.integer(9) == 0 and len(layer.tops) == 1:
            maker[layer.tops[0]] = len(out)
        out.append(layer)
    return out


def _terse(layer: Layer) -> Layer:
    """A convolution whose parameters are written as ncnn's own tools write them: only those that differ from what ncnn
    takes for granted."""
    if layer.type not in ("Convolution", "ConvolutionDepthWise", "InnerProduct"):
        return layer
    params = dict(layer.params)
    if layer.type == "InnerProduct":
        usual = {1: "0", 8: "0", 9: "0"}
    else:
        width, dilation, stride, pad = (params.get(k, d) for k, d in ((1, "0"), (2, "1"), (3, "1"), (4, "0")))
        usual = {2: "1", 3: "1", 4: "0", 5: "0", 8: "0", 9: "0", 18: "0.0"}
        usual |= {11: width, 12: dilation, 13: stride, 14: pad, 15: pad, 16: params.get(14, pad)}
    rest = ((key, text) for key, text in layer.params if usual.get(key) != text)
    return replace(layer, params=tuple(sorted(rest)))


def blob_name(name: str) -> str:
    """A name that `.param`, whose words are separated by spaces, can hold: spaces become `_`, what is unprintable
    is escaped. ncnn reads at most 255 bytes of a name."""
    out = printable(re.sub(r"\s+", "_", name)) or "_"
    return out if len(out.encode()) < 256 else out.encode()[:240].decode("utf-8", "ignore")


def _named(net: Network, view: GraphView) -> tuple[Network, dict[str, str]]:
    """The net with the model's names for its inputs and outputs, and what they became (ONNX name → blob)."""
    blobs = {top for layer in net.layers for top in layer.tops}
    ours: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for prefix, names in (("in", view.main.data_inputs), ("out", view.main.outputs)):
        found = net.inputs() if prefix == "in" else net.outputs()
        for i, name in enumerate(names):
            old = f"{prefix}{i}" if f"{prefix}{i}" in blobs else found[i] if len(found) == len(names) else None
            if old is None or old in chosen:
                continue
            new = blob_name(name)
            while new in chosen.values():
                new += "_"
            chosen[old] = ours[name] = new
    # pnnx calls inner blobs by numbers, as exporters do with outputs.
    taken = set(chosen.values())
    for blob in blobs - set(chosen):
        new = blob
        while new in taken:
            new = f"b{new}"
        taken.add(new)
        chosen[blob] = new
    layers = tuple(
        replace(
            layer,
            bottoms=tuple(chosen[name] for name in layer.bottoms),
            tops=tuple(chosen[name] for name in layer.tops),
            name=chosen.get(layer.name, layer.name) if layer.type == "Input" else layer.name,
        )
        for layer in net.layers
    )
    return replace(net, layers=layers), ours


# Whether it computes the same


def _compare(
    net: Network,
    model: Model,
    view: GraphView,
    folder: str,
    shapes: Mapping[str, tuple[int, ...]],
    job: Job,
    log: Sequence[str],
    names: Mapping[str, str],
) -> tuple[dict[str, float], tuple[str, ...]]:
    """SNR of each output against onnxruntime, and notes.

    Raises:
        NotConvertible: ncnn cannot run the net, or computes something else.
    """
    shown = printable(model.path)
    param = os.path.join(folder, "net.param")
    save(net, param)
    feeds = _feeds(view, shapes, job)
    lost = [name for name in view.main.outputs if name not in names]
    if lost:
        raise NotConvertible(
            f"{shown}: the output {printable(lost[0])!r} got lost on the way through pnnx", LINT_TARGET
        )
    axes = batch_axes(view)
    given = {names[name]: np.moveaxis(value, axes.get(name, 0), 0) for name, value in feeds.items() if name in names}
    found = run_in_child(param, given, folder)
    if isinstance(found, str):
        raise NotConvertible(f"{shown}: pnnx converts it, but ncnn cannot run the result: {found}", LINT_TARGET)
    truth = _reference(os.path.join(folder, "model.onnx"), feeds, model.path)
    if truth is None:
        return {}, ("not compared with onnxruntime: `pip install 'onnxlint[convert]'` to have it done",)
    ratios: dict[str, float] = {}
    for name, expected in zip(view.main.outputs, truth, strict=True):
        value = found[names[name]]
        if [n for n in value.shape if n != 1] != [n for n in expected.shape if n != 1]:
            raise NotConvertible(
                f"{shown}: ncnn computes something else: output {printable(name)!r} has the shape "
                f"{'×'.join(map(str, value.shape[1:]))}, and {'×'.join(map(str, expected.shape))} in onnxruntime",
                LINT_TARGET,
            )
        ratios[name] = snr(expected, value.reshape(expected.shape))
    doubtful = [name for name in ratios if not ratios[name] >= LEAST_SNR]
    known = _sensitivity(os.path.join(folder, "model.onnx"), feeds, truth, view, model.path) if doubtful else {}
    wrong = [name for name in doubtful if not ratios[name] >= max(known[name] - WITHIN, LEAST_OF_ANY)]
    if wrong:
        worst = min(wrong, key=lambda name: ratios[name])
        why = f"; pnnx said: {', '.join(map(printable, log[:3]))}" if log else ""
        raise NotConvertible(
            f"{shown}: ncnn computes something else: output {printable(worst)!r} has {ratios[worst]:.1f} dB SNR "
            f"against onnxruntime on random input (right nets have 90 or more){why}",
            LINT_TARGET,
        )
    return ratios, tuple(
        f"output {printable(name)!r} has {ratios[name]:.0f} dB SNR on random input, where onnxruntime itself has "
        f"{known[name]:.0f} dB if the last bit of the input changes: compare it on your images"
        for name in doubtful
    )


def _sensitivity(
    path: str, feeds: Mapping[str, Array], truth: Sequence[Array], view: GraphView, name: str
) -> dict[str, float]:
    """SNR of each output in onnxruntime where every floating-point input moves to a float next to it.

    Behind a Sigmoid that is near 0 everywhere, as a text detector's is on noise, outputs are rounding errors of logits, and
    no runtime agrees with another.
    """
    generator = np.random.default_rng(1)
    moved = {
        key: np.nextafter(x, generator.choice(np.array([-np.inf, np.inf], x.dtype), x.shape))
        if x.dtype.kind == "f"
        else x
        for key, x in feeds.items()
    }
    found = _reference(path, moved, name) or truth
    return {output: snr(a, b) for output, a, b in zip(view.main.outputs, truth, found, strict=True)}


def snr(truth: Array, found: Array) -> float:
    """10 log10 of the power of `truth` over that of the difference; infinite if they are equal, NaN if one is not
    finite and the other is."""
    a, b = np.asarray(truth, np.float64).reshape(-1), np.asarray(found, np.float64).reshape(-1)
    there = np.isfinite(a)
    if not np.array_equal(there, np.isfinite(b)):
        return math.nan
    noise, power = float(((a - b)[there] ** 2).sum()), float((a[there] ** 2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(max(power, 1e-300) / noise)


def _feeds(view: GraphView, shapes: Mapping[str, tuple[int, ...]], job: Job) -> dict[str, Array]:
    """Seeded random inputs: pixels through the recipe for an image, what the model's own nodes expect elsewhere."""
    from onnxlint.images.recipe import preprocess
    from onnxlint.verification.contract import own_contract
    from onnxlint.verification.inputs import dtype_of, fill

    generator = np.random.default_rng(0)
    out: dict[str, Array] = {}
    for one in own_contract(view).inputs:
        shape = shapes[one.name]
        image = len(shape) == 4 and shape[1] == job.recipe.channels and dtype_of(one).kind == "f"
        if image and (job.recipe.mean or job.recipe.norm):
            recipe = replace(job.recipe, size=None)
            pixels = generator.integers(0, 256, (shape[0], *shape[2:], 3), np.uint8)
            out[one.name] = np.stack([preprocess(picture, recipe) for picture in pixels]).astype(dtype_of(one))
        else:
            out[one.name] = fill(one, shape, "normal", 0, generator)
    return out


def _reference(path: str, feeds: Mapping[str, Array], name: str) -> list[Array] | None:
    """What onnxruntime computes; None if it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    from onnxlint.backends.ort.session import run, start

    return run(start(path, name=name), name, feeds)


def run_in_child(param: str, feeds: Mapping[str, Array], folder: str) -> dict[str, Array] | str:
    """All outputs of a net, computed in a process of its own: a wrong net makes ncnn crash. The reason where it fails."""
    asked, answer = os.path.join(folder, "asked.npz"), os.path.join(folder, "answer.npz")
    np.savez(asked, *feeds.values(), names=np.array(list(feeds)))
    size, fed = bytes_of(param), sum(value.nbytes for value in feeds.values())
    code, log = run_tool([sys.executable, "-m", "onnxlint.backends.ncnn.run", param, asked, answer], folder, size, fed)
    overrun = Budget.of(size).overrun(code)
    if overrun:
        return overrun
    if code != 0:
        said = [line for line in log.splitlines() if line.strip()]
        if code < 0 or not said:
            return f"it crashes (signal {-code})" if code < 0 else f"exit code {code}"
        return printable(said[-1].removeprefix("error: "))[:300].replace(f"{param}: ", "")
    with np.load(answer) as loaded:
        return {str(name): loaded[f"arr_{i}"] for i, name in enumerate(loaded["names"])}
