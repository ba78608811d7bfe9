"""What the entry point leads to: targets, and how each is made."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Artifact, Decision, Job, Progress, Target, silent
from onnxlint.errors import OnnxlintError
from onnxlint.symbolic.view import make_view
from onnxlint.text import did_you_mean, listed, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.backends.ort.calibrate import Histogram
    from onnxlint.backends.ort.half import Plan
    from onnxlint.backends.ort.session import OrtSession

FP16 = Target("onnx-fp16", "float16 inside, float32 inputs and outputs", ("_fp16.onnx",), ("onnx_fp16",))
DYNAMIC = Target(
    "onnx-int8-dynamic", "int8 weights, activations quantized as they come", ("_quan_dynamic.onnx",), ("onnx_quan_dy",)
)
STATIC = Target(
    "onnx-int8-static", "int8 (QDQ), calibrated", ("_quan_static.onnx",), ("onnx_quan_st",), calibrates=True
)

METHODS = ("auto", "minmax", "percentile", "entropy", "mse")
"""Of calibration, for static int8."""

QUANTIZED = frozenset(
    """ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear""".split()
)
"""Operators that float models do not have."""

MEASURED = 32
"""Images, evenly from all, that say what float16 has to hold."""

REPAIRS = 20
"""Nodes that may go back to float32 because the float16 model made NaN or infinity there."""


class OrtBackend:
    """onnxruntime: .onnx files."""

    name = "onnxruntime"
    targets = (FP16, DYNAMIC, STATIC)

    def available(self, target: Target, job: Job) -> str:
        """What is missing: see `Backend.available`."""
        from importlib.util import find_spec

        missing = "onnxruntime is not installed; install it with `pip install 'onnxlint[convert]'`"
        return "" if find_spec("onnxruntime") is not None else f"{target.name}: {missing}"

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """What stands in the way: see `Backend.preflight`."""
        from onnxlint.backends.ort.feeds import declared_ports, image_port
        from onnxlint.backends.size_inputs import bind_hint
        from onnxlint.model.skeleton import open_model

        view = make_view(open_model(source))
        _refuse_quantized(source, (node.op for node in view.main.nodes))
        if target.name == STATIC.name:
            _static_method(job)
            try:
                image_port(source, declared_ports(view))
            except OnnxlintError as error:
                raise OnnxlintError(f"{error}{bind_hint(view)}") from None

    def make(
        self, target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress = silent
    ) -> Artifact:
        """Make a target's file. It has been loaded and run before this returns.

        Raises:
            OnnxlintError: It cannot be made.
        """
        from onnxlint.backends.ort.static import prepare

        session = self.open(source, job.threads)
        _refuse_quantized(source, (node.op_type for node in session.proto.graph.node))
        if target.name == FP16.name:
            return _half(session, files[0], job, progress)
        if target.name == STATIC.name:
            return _static(session, files[0], job, progress)
        from onnxlint.backends.ort import dynamic

        progress("pre-processing", 0, None)
        model = prepare(source)
        _check_kept(model, job.keep, source)
        progress("quantizing", 0, None)
        inputs, notes = _some_inputs(session, job)
        made, note = dynamic.quantize(model, job.keep, source, inputs[0])
        details = _finish(session, made, files[0], inputs, job)
        decisions = _states(model, made, ())
        return Artifact(target.name, files, decisions, (*notes, *([note] if note else [])), details)

    def opens(self, path: str) -> bool:
        """Whether it is an .onnx file."""
        return path.lower().endswith(".onnx")

    def open(self, path: str, threads: int = 2) -> OrtSession:
        """Load it.

        Raises:
            OnnxlintError: It cannot be loaded.
        """
        from onnxlint.backends.ort.session import OrtSession

        return OrtSession(path, threads)

    def files(self, path: str) -> tuple[str, ...]:
        """The file, and those that its external data is in.

        Raises:
            OnnxlintError: It cannot be read.
        """
        from onnxlint.model.skeleton import inline_span, is_external, open_model, walk_tensors

        model = open_model(path)
        others: dict[str, None] = {}
        for tensor in walk_tensors(model.proto):
            if is_external(tensor) and inline_span(tensor) is None:
                location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
                others[os.path.normpath(os.path.join(model.base_dir, location))] = None
        return (path, *(other for other in others if os.path.exists(other)))

    def parameters(self, path: str) -> int:
        """Elements of all floating-point and integer initializers and constants but those of shapes: weights and biases.

        Raises:
            OnnxlintError: It cannot be read.
        """
        from onnxlint.model.skeleton import open_model

        return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in open_model(path).proto.graph.initializer)


def _refuse_quantized(source: str, operators: Iterable[str]) -> None:
    for operator in operators:
        if operator in QUANTIZED:
            raise OnnxlintError(
                f"{printable(source)}: is quantized already ({operator}); give the float model that it was made from"
            )


def _static_method(job: Job) -> str:
    method = {"kl": "entropy"}.get(job.method, job.method)
    if method not in METHODS:
        raise OnnxlintError(
            f"--method {printable(job.method)}: {STATIC.name} knows {listed(METHODS)}{did_you_mean(job.method, METHODS)}"
        )
    return method


def _some_inputs(
    session: OrtSession, job: Job, count: int = MEASURED
) -> tuple[Sequence[Mapping[str, Array]], list[str]]:
    """Inputs to run a model on, and a note on what they are: some of the images, or made-up ones."""
    from onnxlint.backends.ort.feeds import from_images, image_port, made_up, spread

    why = "no images were given"
    if job.images is not None:
        try:
            image_port(session.path, session.inputs)
        except OnnxlintError:
            why = "it takes no images"
        else:
            return list(from_images(session.path, session.inputs, job, spread(job.images, count))), []
    return made_up(session.path, job.shape, session.run), [f"run on made-up inputs: {why}"]


def _check_kept(model: onnx.ModelProto, keep: Collection[str], name: str) -> None:
    known = [node.name for node in model.graph.node]
    for one in keep:
        if one not in known:
            raise OnnxlintError(
                f"{printable(name)}: has no node {printable(one)!r} to keep in float{did_you_mean(one, known)}"
            )


def _states(model: onnx.ModelProto, made: onnx.ModelProto, chosen: Sequence[Decision]) -> tuple[Decision, ...]:
    """What became of each node with weights."""
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    int8 = {
        tensor.name.removesuffix("_quantized")
        for tensor in made.graph.initializer
        if tensor.name.endswith("_quantized")
    }
    by_name = {one.layer: one for one in chosen}
    found = []
    for node in model.graph.node:
        own = [name for name in node.input if name in constants]
        if node.name in by_name:
            found.append(by_name[node.name])
        elif own and not int8.isdisjoint(own):
            found.append(Decision(node.name, node.op_type, "int8", "weights and what it reads"))
        elif own:
            found.append(Decision(node.name, node.op_type, "fp32", "not quantized"))
    return tuple(found)


def _finish(
    session: OrtSession, made: onnx.ModelProto, path: str, inputs: Sequence[Mapping[str, Array]], job: Job
) -> dict[str, Any]:
    """Write the model with the original's metadata, load it, run it, and say how close it comes.

    Raises:
        OnnxlintError: It cannot be written, does not load or run, or its outputs are not finite where the original's are.
    """
    import onnx

    source = session.proto
    del made.metadata_props[:]
    made.metadata_props.extend(source.metadata_props)
    made.graph.name = source.graph.name
    used = {node.domain for node in _all_nodes(made)} | {f.domain for f in made.functions}
    kept = [entry for entry in made.opset_import if entry.domain in used or entry.domain in ("", "ai.onnx")]
    copies = [onnx.OperatorSetIdProto.FromString(entry.SerializeToString()) for entry in kept]
    del made.opset_import[:]
    made.opset_import.extend(sorted(copies, key=lambda entry: entry.domain))
    del made.graph.value_info[:]
    _sort(made)
    write_model(made, path)
    some = list(islice(inputs, 4))
    try:
        result = OrtBackend().open(path, job.threads)
        outputs = [result.run(feeds) for feeds in some]
    except OnnxlintError as error:
        why = str(error).removeprefix(f"{printable(path)}: ")
        raise OnnxlintError(f"{printable(session.path)}: what was made of it does not run: {why}") from error
    signal = noise = 0.0
    for feeds, made_of_them in zip(some, outputs, strict=True):
        for port, a, b in zip(session.outputs, session.run(feeds), made_of_them, strict=True):
            if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
                continue
            if a.shape != b.shape:
                continue  # what it finds, such as boxes, differs in number
            if np.isfinite(a).all() and not np.isfinite(b).all():
                raise OnnxlintError(
                    f"{printable(session.path)}: as {printable(os.path.basename(path))} its output {printable(port.name)!r} "
                    "is not finite any more; keep the nodes that cause it in float with --keep"
                )
            finite = np.isfinite(a) & np.isfinite(b)
            x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
            signal, noise = signal + float(x @ x), noise + float((x - y) @ (x - y))
    snr = round(10 * float(np.log10(signal / max(noise, signal * 1e-30))), 2) if signal else None
    return {"bytes": os.path.getsize(path), "snr_db": snr}


def _sort(model: onnx.ModelProto) -> None:
    """Bring nodes behind those that they read, as ONNX demands and onnxruntime's tools do not heed."""
    from onnxlint.backends.ort.session import read_by

    nodes = list(model.graph.node)
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    ready: dict[int, None] = {}
    for first in range(len(nodes)):
        stack = [first]
        while stack:
            if stack[-1] in ready:
                stack.pop()
                continue
            before = sorted(maker[name] for name in read_by(nodes[stack[-1]]) if name in maker)
            waiting = [i for i in before if i not in ready]
            if not waiting:
                ready[stack.pop()] = None
            stack += waiting
    copies = [type(nodes[i]).FromString(nodes[i].SerializeToString()) for i in ready]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)


# float16


def _half(session: OrtSession, path: str, job: Job, progress: Progress) -> Artifact:
    from onnxlint.backends.ort import half
    from onnxlint.backends.ort.session import load
    from onnxlint.backends.ort.static import MOST, weight_bytes

    size = weight_bytes(session.proto)
    if size > MOST:
        raise OnnxlintError(
            f"{printable(session.path)}: has {size:,} bytes of weights; more than 2 GiB cannot be converted in one piece, "
            "split the model first"
        )
    model = load(session.path)
    half.with_initializers(model)
    kinds = session.kinds()
    inputs, notes = _some_inputs(session, job)
    floats = [name for name, kind in kinds.items() if kind == "tensor(float)"]
    made_by = {name for node in model.graph.node for name in node.output}
    taken = {port.name for port in session.inputs}
    measured = half.measure(session, [name for name in floats if name in made_by or name in taken], inputs, progress)
    plan = half.plan(model, kinds, measured, job.keep, session.path)
    for _ in range(REPAIRS):
        made = _surviving_half(model, kinds, plan, path, inputs[0], job, session)
        culprit = _first_not_finite(model, made, session, inputs[0], job, path)
        if culprit is None:
            break
        plan.spare(culprit, "makes NaN or infinity in float16")
        for i, node in enumerate(model.graph.node):
            if not set(node.output).isdisjoint(model.graph.node[culprit].input):
                plan.spare(i, "what it makes is turned into NaN or infinity in float16")
    details = _finish(session, made, path, inputs, job)
    decisions = tuple(
        Decision(node.name, node.op_type, "fp32" if i in plan.spared else "fp16", plan.spared.get(i, "fits"))
        for i, node in enumerate(model.graph.node)
        if any(name in measured for name in (*node.input, *node.output))
    )
    return Artifact(FP16.name, (path,), decisions, tuple(notes), {**details, "inputs_measured": len(inputs)})


def _surviving_half(
    model: onnx.ModelProto,
    kinds: Mapping[str, str],
    plan: Plan,
    path: str,
    feeds: Mapping[str, Array],
    job: Job,
    session: OrtSession,
) -> onnx.ModelProto:
    """The float16 model, with nodes added to the plan that onnxruntime crashes on in float16.

    Raises:
        OnnxlintError: It crashes on more than a few.
    """
    from onnxlint.backends.ort import half_graph
    from onnxlint.backends.ort.trial import crashes, culprits

    def survives(spared: Iterable[int]) -> bool:
        write_model(half_graph.converted(model, kinds, {*plan.spared, *spared}), path)
        return not crashes(path, feeds, job.threads)

    made = half_graph.converted(model, kinds, plan.spared)
    write_model(made, path)
    how = crashes(path, feeds, job.threads)
    if not how:
        return made
    found = culprits([i for i in range(len(model.graph.node)) if i not in plan.spared], survives)
    if found is None:
        raise OnnxlintError(f"{printable(session.path)}: onnxruntime crashes on the float16 model ({how})")
    for i in found:
        plan.spare(i, f"onnxruntime crashes on it in float16 ({how})")
    return half_graph.converted(model, kinds, plan.spared)


def write_model(model: onnx.ModelProto, path: str) -> None:
    """Write a model file.

    Raises:
        OnnxlintError: It cannot be written.
    """
    if model.ByteSize() >= 2**31 - 1:
        raise OnnxlintError(f"{printable(path)}: would be larger than protobuf's 2 GiB; split the model first")
    try:
        with open(path, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise OnnxlintError(f"{printable(path)}: cannot be written: {error.strerror or error}") from None


def _first_not_finite(
    model: onnx.ModelProto, made: onnx.ModelProto, session: OrtSession, feeds: Mapping[str, Array], job: Job, path: str
) -> int | None:
    """The first node that makes NaN or infinity in float16 and not in float32; None where all outputs are well."""
    from onnxlint.backends.ort.session import part, run, start

    outputs = run(start(made, name=session.path, threads=job.threads), session.path, feeds)
    truth = session.run(feeds)
    if all(_finite(b) or not _finite(a) for a, b in zip(truth, outputs, strict=True)):
        return None
    there = {name for node in made.graph.node for name in node.output}
    floats = {name for name, _ in session.tensors()}
    names = [name for node in model.graph.node for name in node.output if name in there and name in floats]
    inner = run(start(part(made, names), name=session.path, optimize=False), session.path, feeds)
    for name, a, b in zip(names, session.run(feeds, names), inner, strict=True):
        if _finite(a) and not _finite(b):
            return next(i for i, node in enumerate(model.graph.node) if name in node.output)
    return None


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


# Static int8


def _static(session: OrtSession, path: str, job: Job, progress: Progress) -> Artifact:
    from onnxlint.backends.ort import auto, calibrate, static
    from onnxlint.backends.ort.feeds import from_images, image_port, spread
    from onnxlint.backends.ort.static import NOTHING
    from onnxlint.images.recipe import Unreadable

    name = session.path
    method = _static_method(job)
    image_port(name, session.inputs)
    if job.images is None:
        raise OnnxlintError(f"{printable(name)}: {STATIC.name} is calibrated on images; give some with --images")
    unreadable: list[Unreadable] = []
    some = list(from_images(name, session.inputs, job, spread(job.images, auto.IMAGES), unreadable))
    progress("pre-processing", 0, None)
    model = static.prepare(name)
    _check_kept(model, job.keep, name)
    if not static.activations(model):
        raise OnnxlintError(NOTHING.format(printable(name)))

    def stream() -> Iterator[Mapping[str, Array]]:
        assert job.images is not None
        whole = len(job.images) <= auto.IMAGES
        return iter(some) if whole else from_images(name, session.inputs, job)

    def histograms(one: onnx.ModelProto, names: Sequence[str], told: Progress) -> dict[str, Histogram]:
        compute = static.computer(one, names, name, job.threads)
        ranges = calibrate.extremes(stream(), compute, names, told)
        return calibrate.histograms(stream(), compute, names, ranges, told)

    if method == "auto":
        made = auto.auto(
            model,
            some,
            histograms,
            name=name,
            keep=job.keep,
            mixed=job.mixed,
            budget=job.budget,
            threads=job.threads,
            progress=progress,
        )
    else:
        names = static.activations(model)
        ranges = {key: calibrate.clipped(method, one) for key, one in histograms(model, names, progress).items()}
        progress("quantizing", 0, None)
        always = {*job.keep, *static.left_alone(model)}
        plain = static.quantize(model, ranges, always)
        if not static.quantized_weights(plain):
            raise OnnxlintError(NOTHING.format(printable(name)))
        made = auto.Int8(plain)
        if job.mixed:
            judge = static.Judge.of(name, model, some, job.threads)
            steps = auto.choose_float(model, plain, judge, budget=job.budget, progress=progress)
            spared = {*always, *(one for step in steps for one in auto.unit(model, step.layer))}
            facts = {"pure_int8_bytes": static.size_of(static.without_types(plain))}
            made = auto.Int8(static.quantize(model, ranges, spared), steps, details=facts)
    details = _finish(session, made.model, path, some, job)
    images = len(job.images) - len(unreadable)
    return Artifact(
        STATIC.name,
        (path,),
        _states(model, made.model, made.keep),
        tuple(f"{printable(one.path)} cannot be read: {printable(one.why)}" for one in unreadable),
        {**details, **made.details, "method": method, "images": images},
    )
