"""Numerical equivalence of two models: both run on the same inputs, at several shapes.

onnxruntime runs them with its graph optimizations off, so that what is compared is what the files say; where it cannot run
the original, `onnx.reference` does. Declared shapes are never believed: outputs are compared as they come.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from onnxlint.errors import OnnxlintError, printable
from onnxlint.model import Model, is_external, walk_tensors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    Array = npt.NDArray[np.generic]

RTOL, ATOL = 1e-4, 1e-5
"""Tolerance where patches change arithmetic (folded batch norms and constants), for float32 and wider; the absolute one is
multiplied by the largest value of the output where that is above 1."""

HALF_RTOL, HALF_ATOL = 1e-2, 1e-3
"""The same for float16 and bfloat16, whose rounding step is 1e-3."""

IN_MEMORY = 1 << 30
"""Models whose weights take more bytes than this are run from temporary files."""


@dataclass(frozen=True)
class Trial:
    """Both models on one set of inputs.

    Attributes:
        sizes: What the free sizes were: `N=3, H=96, W=160`; empty for static models.
        values: `normal`, `zeros`, `large` or `user`.
        outcome: `equal` (bit for bit), `close` (within the tolerance), `different`, `original fails` (the original does
            not accept this shape: it says nothing) or `result fails`.
        worst: Largest absolute difference.
        detail: Which output, or which error.
    """

    sizes: str
    values: str
    outcome: str
    worst: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """What a comparison showed.

    Attributes:
        trials: All that were made.
        engine: `onnxruntime`, `onnx.reference`, or empty where nothing ran.
        exact: Whether outputs had to be bit-equal.
        skipped: Why nothing could be compared; empty where something was.
    """

    trials: tuple[Trial, ...] = ()
    engine: str = ""
    exact: bool = True
    skipped: str = ""

    @property
    def equal(self) -> bool:
        """Whether nothing speaks against the result. Where nothing ran, nothing does: `skipped` says so."""
        return not any(trial.outcome in ("different", "result fails") for trial in self.trials)

    def summary(self) -> str:
        """One line for people."""
        if self.skipped:
            return f"not: {self.skipped}"
        ran = [trial for trial in self.trials if trial.outcome != "original fails"]
        bad = next((trial for trial in ran if trial.outcome in ("different", "result fails")), None)
        if bad is not None:
            where = f" at {bad.sizes}" if bad.sizes else ""
            return f"different{where} ({bad.values} inputs): {bad.detail}"
        shapes = len({trial.sizes for trial in ran})
        runs = f"{len(ran)} runs in {self.engine} at {shapes} shape{'' if shapes == 1 else 's'}"
        worst = max(trial.worst for trial in ran)
        if all(trial.outcome == "equal" for trial in ran):
            return f"bit-equal in {runs}"
        return f"equal within rtol {RTOL:g}, atol {ATOL:g} of the largest value (worst {worst:.2g}) in {runs}"


class _Engine(Protocol):
    """Something that runs a model: feeds → outputs, in the order of the graph."""

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any]: ...


def verify_models(
    model: Model,
    reference: onnx.ModelProto,
    result: onnx.ModelProto,
    *,
    exact: bool,
    multiples: Mapping[str, int],
    inputs: str | None = None,
) -> Verification:
    """Run two skeletons of one model on the same inputs.

    Args:
        model: The opened model that both take their weights from.
        reference: What is right.
        result: What is to compute the same.
        exact: Whether outputs have to be bit-equal; else within `RTOL` and `ATOL`.
        multiples: What free sizes may be assumed to be multiples of; without any, odd and prime sizes are tried, too.
        inputs: An .npz file with inputs of the user's own, tried beside the seeded ones.

    Raises:
        OnnxlintError: onnxruntime is not installed, or the user's inputs do not fit.
    """
    import numpy as np

    strange = [value.name for value in _inputs(reference) if not value.type.HasField("tensor_type")]
    if strange:
        return Verification(exact=exact, skipped=f"input {printable(strange[0])!r} is no tensor")
    own = _user_inputs(reference, inputs) if inputs is not None else None
    with ExitStack() as stack:
        runners = _engines(model, reference, result, stack)
        if isinstance(runners, str):
            return Verification(exact=exact, skipped=runners)
        engine, before, after = runners
        if isinstance(after, str):
            failed = Trial("", "normal", "result fails", detail=after)
            return Verification((failed,), engine, exact)
        names = [output.name for output in reference.graph.output]
        trials: list[Trial] = []
        ranges = _index_ranges(model, reference)
        for sizes in _size_sets(reference, multiples):
            for kind in ("normal", "zeros", "large"):
                if kind != "normal" and len({trial.sizes for trial in trials}) > 1:
                    continue  # the values matter less than the shapes: two shapes see all of them
                feeds = _feeds(reference, sizes, kind, ranges)
                shown = ", ".join(f"{printable(name)}={size}" for name, size in sizes.items())
                trials.append(_trial(before, after, feeds, names, shown, kind, exact))
        if own is not None:
            shown = ", ".join(f"{printable(name)} {'×'.join(map(str, np.shape(value)))}" for name, value in own.items())
            trials.append(_trial(before, after, own, names, shown, "user", exact))
    if all(trial.outcome == "original fails" for trial in trials):
        return Verification((), engine, exact, f"the original does not run on made-up inputs ({trials[0].detail})")
    return Verification(tuple(trials), engine, exact)


def _trial(
    before: _Engine, after: _Engine, feeds: Mapping[str, Array], names: list[str], sizes: str, values: str, exact: bool
) -> Trial:
    try:
        wanted = before(feeds)
    except Exception as error:  # noqa: BLE001 - engines raise whatever they like at shapes that they do not accept
        return Trial(sizes, values, "original fails", detail=_reason(error))
    try:
        got = after(feeds)
    except Exception as error:  # noqa: BLE001 - as above, but here it counts
        return Trial(sizes, values, "result fails", detail=_reason(error))
    outcome, worst = "equal", 0.0
    for name, a, b in zip(names, wanted, got, strict=False):
        verdict, difference, detail = _compare(a, b, exact)
        worst = max(worst, difference)
        if verdict == "different":
            return Trial(sizes, values, "different", difference, f"output {printable(name)!r} {detail}")
        if verdict == "close":
            outcome = "close"
    return Trial(sizes, values, outcome, worst)


def _compare(wanted: Any, got: Any, exact: bool) -> tuple[str, float, str]:
    """(`equal`, `close` or `different`; largest difference; what is wrong)."""
    import numpy as np

    if not isinstance(wanted, np.ndarray) or not isinstance(got, np.ndarray):
        same = type(wanted) is type(got) and repr(wanted) == repr(got)
        return ("equal", 0.0, "") if same else ("different", 0.0, "is another sequence or map")
    if wanted.shape != got.shape:
        return "different", 0.0, f"has shape {list(got.shape)} in place of {list(wanted.shape)}"
    if wanted.dtype != got.dtype:
        return "different", 0.0, f"has type {got.dtype} in place of {wanted.dtype}"
    floating = wanted.dtype.kind in "fV" and wanted.dtype.kind != "V"
    if np.array_equal(wanted, got, equal_nan=floating):
        return "equal", 0.0, ""
    if not floating:
        return "different", 0.0, f"differs in {int(np.sum(wanted != got))} of {wanted.size} values"
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        worst = float(np.nanmax(np.abs(a - b), initial=0.0))
    half = wanted.dtype.itemsize == 2
    rtol, atol = (HALF_RTOL, HALF_ATOL) if half else (RTOL, ATOL)
    # Rounding grows with the size of the numbers that were added up, not with that of the sum.
    finite = np.abs(a[np.isfinite(a)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    if not exact and np.allclose(a, b, rtol=rtol, atol=atol * scale, equal_nan=True):
        return "close", worst, ""
    return "different", worst, f"differs by up to {worst:.3g}"


# Engines


def _engines(
    model: Model, reference: onnx.ModelProto, result: onnx.ModelProto, stack: ExitStack
) -> tuple[str, _Engine, _Engine | str] | str:
    """(name, the reference's runner, the result's runner or why there is none); or why nothing can be run."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise OnnxlintError(
            "verifying runs both models in onnxruntime, which is not installed: pip install 'onnxlint[fix]', "
            "or leave it out with --no-verify"
        ) from None
    before = _session(model, reference, stack)
    if not isinstance(before, str):
        return "onnxruntime", before, _session(model, result, stack)
    other = _evaluator(model, reference)
    if isinstance(other, str):
        return f"onnxruntime cannot run the original ({before}), nor can onnx.reference ({other})"
    return "onnx.reference", other, _evaluator(model, result)


def _session(model: Model, proto: onnx.ModelProto, stack: ExitStack) -> _Engine | str:
    import onnxruntime as ort

    from onnxlint.check import usable_cores
    from onnxlint.save import save, to_bytes

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # FATAL: what it has to say comes as exceptions
    options.intra_op_num_threads = usable_cores()
    try:
        if model.size > IN_MEMORY or any(is_external(tensor) for tensor in walk_tensors(proto)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxlint-"))
            path = os.path.join(folder, "model.onnx")
            save(model, proto, path, external_data="weights.data")
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        else:
            session = ort.InferenceSession(to_bytes(model, proto), options, providers=["CPUExecutionProvider"])
    except OnnxlintError:
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base but this
        return _reason(error)
    known = {value.name for value in session.get_inputs()}
    names = [output.name for output in proto.graph.output]
    return lambda feeds: list(session.run(names, {name: v for name, v in feeds.items() if name in known}))


def _evaluator(model: Model, proto: onnx.ModelProto) -> _Engine | str:
    import onnx
    from onnx.reference import ReferenceEvaluator

    from onnxlint.save import to_bytes

    try:
        evaluator = ReferenceEvaluator(onnx.ModelProto.FromString(to_bytes(model, proto)))
    except Exception as error:  # noqa: BLE001 - it raises whatever its operators raise
        return _reason(error)
    known = {value.name for value in _inputs(proto)}
    return lambda feeds: list(evaluator.run(None, {name: v for name, v in feeds.items() if name in known}))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return printable(text.split(" : ")[-1])[:160] or type(error).__name__


# Inputs


def _inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a user feeds."""
    initializers = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initializers]


def _free_sizes(proto: onnx.ModelProto) -> dict[str, str]:
    """Symbol (or `input[axis]`) → `batch`, `space` (height and width of images) or `length`."""
    free: dict[str, str] = {}
    for value in _inputs(proto):
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                kind = "batch" if axis == 0 else "space" if len(dims) >= 4 and axis >= 2 else "length"
                free.setdefault(dim.dim_param or f"{value.name}[{axis}]", kind)
    return free


_SETS: tuple[tuple[int, tuple[int, int], int], ...] = (
    (1, (64, 96), 12),
    (3, (96, 160), 17),
    (1, (192, 128), 32),
    (2, (320, 256), 8),
)
"""(batch, height and width, length) of the trials; heights and widths are multiples of 32."""

_ODD: tuple[tuple[int, tuple[int, int], int], ...] = ((2, (97, 131), 13), (3, (75, 109), 5))
"""The same with odd and prime sizes, where nothing is assumed."""


def _size_sets(proto: onnx.ModelProto, multiples: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Values for the free sizes of a model, one set for each shape to try; one empty set where there are none."""
    free = _free_sizes(proto)
    if not free:
        yield {}
        return
    for batch, spaces, length in (*_SETS, *(() if multiples else _ODD)):
        sizes: dict[str, int] = {}
        alternate = 0
        for name, kind in free.items():
            if kind == "space":
                size = spaces[alternate % 2]
                alternate += 1
            else:
                size = batch if kind == "batch" else length
            step = multiples.get(name, 1)
            sizes[name] = max(1, round(size / step)) * step
        yield sizes


def _feeds(proto: onnx.ModelProto, sizes: Mapping[str, int], kind: str, ranges: Mapping[str, int]) -> dict[str, Array]:
    """Seeded values: floats normal, zero or large (×100); integers within the range that their readers index."""
    import numpy as np
    from onnx import helper

    generator = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for value in _inputs(proto):
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value
            if dim.HasField("dim_value") and dim.dim_value >= 0
            else sizes[dim.dim_param or f"{value.name}[{i}]"]
            for i, dim in enumerate(tensor.shape.dim)
        ]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f" or dtype.kind == "V":
            normal = generator.standard_normal(shape)
            feeds[value.name] = np.asarray(normal * {"normal": 1.0, "zeros": 0.0, "large": 100.0}[kind]).astype(dtype)
        elif dtype.kind in "OSU":
            feeds[value.name] = np.full(shape, "text", dtype=object)
        else:
            top = (
                2
                if dtype.kind == "b" or "mask" in value.name
                else ranges.get(value.name, 256 if dtype.itemsize == 1 else 8)
            )
            whole = generator.integers(0, max(1, min(top, 127 if dtype == np.int8 else top)), shape)
            feeds[value.name] = np.asarray(whole if kind != "zeros" else np.zeros_like(whole)).astype(dtype)
    return feeds


def _index_ranges(model: Model, proto: onnx.ModelProto) -> dict[str, int]:
    """For integer inputs that index a table (Gather of constant rows): one more than the largest index that fits."""
    from dataclasses import replace

    from onnxlint.view import GraphView

    view = GraphView(replace(model, proto=proto))
    ranges: dict[str, int] = {}
    for name in view.main.data_inputs:
        pending, seen = [name], {name}
        for current in pending:
            for node in view.main.consumers(current):
                if node.op == "Gather" and node.input(1) == current:
                    shape = node.shape(0)
                    rows = shape[node.attribute("axis", 0)] if shape else None
                    if isinstance(rows, int):
                        ranges[name] = min(rows, ranges.get(name, rows))
                elif node.op in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"):
                    for out in node.outputs:
                        if out not in seen:
                            seen.add(out)
                            pending.append(out)
    return ranges


def _user_inputs(proto: onnx.ModelProto, path: str) -> dict[str, Array]:
    """The arrays of an .npz file, by input name.

    Raises:
        OnnxlintError: It cannot be read, or lacks an input.
    """
    import zipfile

    import numpy as np

    shown = printable(path)
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise OnnxlintError(f"--inputs {shown}: not an .npz file of inputs: {printable(str(error))[:120]}") from None
    missing = [value.name for value in _inputs(proto) if value.name not in arrays]
    if missing:
        raise OnnxlintError(
            f"--inputs {shown}: lacks input {printable(missing[0])!r}; it has {', '.join(map(printable, arrays)) or 'none'}"
        )
    return arrays
