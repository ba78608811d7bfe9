"""The backend `ncnn`: the targets `ncnn`, `ncnn-fp16` and `ncnn-int8`, and running `.param` files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Artifact, Decision, Job, Progress, Session, Target, not_installed, silent
from onnxlint.errors import OnnxlintError
from onnxlint.lint.engines import make_cluster
from onnxlint.model.output import write_atomically
from onnxlint.symbolic.view import make_view
from onnxlint.text import counted, did_you_mean, listed, printable

if TYPE_CHECKING:
    from onnxlint.backends.ncnn import quantize
    from onnxlint.backends.ncnn.auto import Step
    from onnxlint.backends.ncnn.format import Network
    from onnxlint.images.recipe import ImageSet, Recipe, Unreadable

Floats = npt.NDArray[np.float32]

HELD = 1 << 28
"""Bytes of inputs that are kept between passes; more are decoded anew."""

METHODS = ("auto", "kl", "aciq", "eq")

JUDGED = 4
"""Calibration images on which the result is compared with the float net."""


class Inputs:
    """The calibration inputs (C, H, W), any number of times; `unreadable` fills up on the first pass.

    Iterating raises OnnxlintError for images that make no input of the net.
    """

    def __init__(self, net: Network, images: ImageSet, recipe: Recipe, threads: int) -> None:
        names = net.inputs()
        if len(names) != 1:
            shown = ", ".join(names[:4])
            raise OnnxlintError(
                printable(f"{net.path}: has {len(names)} inputs ({shown}); onnxlint calibrates nets with one")
            )
        self.net, self.images, self.recipe, self.threads = net, images, recipe, threads
        self.unreadable: list[Unreadable] = []
        self._held: list[Floats] | None = []
        self._whole = False
        self._shapes: set[tuple[int, ...]] = set()

    def __iter__(self) -> Iterator[Floats]:
        from onnxlint.backends.ncnn.calibrate import check_inputs
        from onnxlint.backends.ncnn.run import Runner
        from onnxlint.images.recipe import tensors

        if self._whole and self._held is not None:
            yield from self._held
            return
        self._held, size = [], 0
        bad: list[Unreadable] = []
        for _, x in tensors(self.images, self.recipe, threads=self.threads, unreadable=bad):
            if x.shape not in self._shapes:
                check_inputs([x], varied=False)
                Runner(self.net).check(x)
                self._shapes.add(x.shape)
            size += x.nbytes
            if self._held is not None:
                self._held = [*self._held, x] if size <= HELD else None
            yield x
        self._whole, self.unreadable = True, bad

    def notes(self) -> tuple[str, ...]:
        """Which images could not be read."""
        if not self.unreadable:
            return ()
        first = ", ".join(printable(one.path) for one in self.unreadable[:3])
        more = f" and {len(self.unreadable) - 3} more" if len(self.unreadable) > 3 else ""
        return (f"{len(self.unreadable)} of {len(self.images)} images cannot be read and were left out: {first}{more}",)


class NcnnBackend:
    """ncnn, by its wheel and that of pnnx."""

    name = "ncnn"
    targets = (
        Target("ncnn", "ncnn, 32-bit floats", (".param", ".bin")),
        Target("ncnn-fp16", "ncnn, weights in 16-bit floats", ("_fp16.param", "_fp16.bin"), ("ncnn_fp16",), "ncnn"),
        Target(
            "ncnn-int8",
            "ncnn, 8-bit integers; calibrated by --method auto, kl, aciq or eq",
            ("_int8.param", "_int8.bin", ".table"),
            ("ncnn_quan",),
            "ncnn",
            calibrates=True,
        ),
    )

    def available(self, target: Target, job: Job) -> str:
        """What is missing: see `Backend.available`."""
        from onnxlint.backends.ncnn.tools import pnnx_binary, real_tool

        if missing := self.missing_to_run():
            return f"{target.name}: {missing}"
        if pnnx_binary(job.tools) is None and real_tool(job.tools, "onnx2ncnn") is None and pnnx_binary() is None:
            way = "install it with `pip install 'onnxlint[ncnn]'`"
            return f"{target.name}: pnnx, which converts models, is not installed; {way}"
        return ""

    def missing_to_run(self) -> str:
        """What is missing: see `Backend.missing_to_run`."""
        return not_installed(("ncnn",), "ncnn")

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """What stands in the way: see `Backend.preflight`."""
        from onnxlint.backends.ncnn.convert import input_shapes
        from onnxlint.backends.size_inputs import bind_hint
        from onnxlint.model.skeleton import open_model

        view = make_view(open_model(source))
        shapes = input_shapes(view, job)
        if target.calibrates:
            checked_method(job.method)
            if len(shapes) != 1:
                raise OnnxlintError(
                    f"{printable(source)}: has {len(shapes)} inputs ({listed(map(printable, shapes), 4)}); {target.name} "
                    f"is calibrated with images, which can be fed to one{bind_hint(view)}"
                )

    def make(
        self, target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress = silent
    ) -> Artifact:
        """Make a target's files. See `Backend.make`."""
        if target.name == "ncnn":
            return _make_float(target, source, files, job, progress)
        if target.name == "ncnn-fp16":
            return _make_half(target, source, files, job, progress)
        return _make_int8(target, source, files, job, progress)

    def opens(self, path: str) -> bool:
        """`.param` files, as pnnx and ncnn's tools write them."""
        return path.lower().endswith(".param")

    def open(self, path: str, threads: int = 2) -> Session:
        """Load `NAME.param` and `NAME.bin`. Raises OnnxlintError."""
        from onnxlint.backends.ncnn.format import load
        from onnxlint.backends.ncnn.run import NcnnSession

        return NcnnSession(load(path), threads)

    def files(self, path: str) -> tuple[str, ...]:
        """The `.param` and its `.bin`."""
        return (path, str(Path(path).with_suffix(".bin")))

    def parameters(self, path: str) -> int | None:
        """How many numbers the weights and biases are; scales of int8 layers are none of them."""
        from onnxlint.backends.ncnn.format import load

        return sum(
            blob.data.size
            for layer in load(path).layers
            for blob in layer.blobs
            if not blob.name.endswith("scale") and not blob.name.endswith("scales")
        )


BACKEND = NcnnBackend()


def _weighted(net: Network, state: str, why: str) -> tuple[Decision, ...]:
    return tuple(Decision(layer.name, layer.type, state, why) for layer in net.layers if layer.blobs)


def _make_float(target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress) -> Artifact:
    from onnxlint.backends.ncnn.convert import convert
    from onnxlint.backends.ncnn.format import save

    made = convert(source, job, progress)
    save(made.net, *files)
    finite = [value for value in made.snr_db.values() if math.isfinite(value)]
    notes = made.notes
    if made.snr_db:
        worst = f"{min(finite):.0f} dB SNR" if finite else "bit-equal"
        notes = (f"compared with onnxruntime on random input: {worst}", *notes)
    return Artifact(
        target.name,
        files,
        _weighted(made.net, "fp32", "as converted"),
        notes,
        {
            "made_with": made.made_with,
            "shapes": {name: list(shape) for name, shape in made.shapes.items()},
            "blobs": dict(made.blobs),
            "snr_db": {name: round(value, 1) for name, value in made.snr_db.items() if math.isfinite(value)},
        },
    )


def _make_half(target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress) -> Artifact:
    from onnxlint.backends.ncnn.format import TAG_FP16, load, save, to_fp16
    from onnxlint.backends.ncnn.tools import real_tool, use_tool

    progress("weights to fp16", 0, None)
    net = load(source)
    optimize = real_tool(job.tools, "ncnnoptimize")
    details: dict[str, Any] = {"made_with": "onnxlint"}
    if optimize is not None:
        use_tool([optimize, source, str(Path(source).with_suffix(".bin")), *files, "65536"], files)
        half = load(files[0])
        details["made_with"] = "ncnnoptimize"
    else:
        half = to_fp16(net)
        save(half, *files)
    decisions = []
    for layer in half.layers:
        if not layer.blobs:
            continue
        tagged = [blob for blob in layer.blobs if blob.tag is not None]
        if any(blob.tag == TAG_FP16 for blob in tagged):
            decisions.append(Decision(layer.name, layer.type, "fp16", "weights in fp16, the rest in fp32"))
        else:
            why = "a weight exceeds the range of fp16 (65504)" if tagged else f"ncnn reads {layer.type} in fp32 only"
            decisions.append(Decision(layer.name, layer.type, "fp32", why))
    return Artifact(target.name, files, tuple(decisions), (), details)


# int8


def _make_int8(target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress) -> Artifact:
    from onnxlint.backends.ncnn.evaluate import Evaluator, Held
    from onnxlint.backends.ncnn.format import load

    method = checked_method(job.method)
    if job.images is None:
        raise OnnxlintError(f"{target.name} is calibrated with images: give --images a folder, a list or an .npz")
    net = load(source)
    keep = kept_layers(net, job.keep)
    inputs = Inputs(net, job.images, job.recipe, job.threads)
    if job.tools is not None and method != "auto" and not job.mixed:
        made = _by_real_tools(source, files, job)
        if made:
            return Artifact(target.name, files, (), inputs.notes(), {"made_with": made, "method": method})
    held = Held(inputs, lambda _: JUDGED)
    quantized, steps, details = int8(net, held, method, job, keep, files, progress)
    progress("comparing with the float net", 0, None)
    judge = Evaluator(net, held.some, job.threads)
    ratio = judge.score(quantized.net)
    if not math.isfinite(ratio):
        raise OnnxlintError(f"{printable(net.path)}: the int8 net gives NaN on the calibration images; report this")
    details |= {"made_with": "onnxlint", "method": method, "snr_db": round(ratio, 2), "images": len(job.images)}
    notes: tuple[str, ...] = (
        f"mean SNR of the outputs on {counted(min(JUDGED, len(job.images)), 'calibration image')}: {ratio:.1f} dB",
    )
    chosen = details.get("chosen")
    if chosen == "auto":
        notes += (f"{os.path.basename(files[2])} is of the rescaled net inside it: no table for ncnn2int8",)
    elif chosen:
        ratios = details["trials_db"]
        figures = f"{ratios[chosen]:.1f} dB on {details['judged_on']}, where auto has {ratios['auto']:.1f}"
        notes += (f"{chosen} was taken: {figures}",)
    return Artifact(target.name, files, _decisions(quantized, steps), (*notes, *inputs.notes()), details)


def int8(
    net: Network,
    inputs: Iterable[Floats],
    method: str,
    job: Job,
    keep: frozenset[str],
    files: Sequence[str],
    progress: Progress,
) -> tuple[quantize.Quantized, tuple[Step, ...], dict[str, Any]]:
    """Quantize, and write `.param`, `.bin` and table. Returns the net, the layers that mixed precision keeps, and facts.

    The table of `auto` holds the scales that are in the `.bin`. They belong to its rescaled weights, so that its first
    line keeps it from being used with the float net: see `table.AUTO`.
    """
    from onnxlint.backends.ncnn.auto import TRIAL_IMAGES, auto, choose_float_layers
    from onnxlint.backends.ncnn.calibrate import Method, make_table
    from onnxlint.backends.ncnn.evaluate import spread
    from onnxlint.backends.ncnn.format import save
    from onnxlint.backends.ncnn.quantize import quantize
    from onnxlint.backends.ncnn.table import AUTO, dump_table
    from onnxlint.backends.task import facts_of

    steps: tuple[Step, ...] = ()
    details: dict[str, Any] = {}
    head = ""
    if method == "auto":
        made = auto(
            net,
            inputs,
            mixed=job.mixed,
            budget=job.budget,
            keep=keep,
            threads=job.threads,
            task=job.task,
            progress=progress,
        )
        quantized, steps, table = made.quantized, made.steps, made.table
        details["trials_db"] = {name: round(value, 2) for name, value in made.methods.items()}
        details["judged_on"] = made.judged
        details["chosen"] = made.method
        details["centred"] = list(made.centred)
        if made.method == "auto":
            head = f"{AUTO}\n"
            details["table"] = "of the rescaled net, not of the float one"
        if candidates := facts_of(made.tried):
            details["candidates"] = candidates
    else:
        cluster = make_cluster(job.engine)
        table = make_table(net, inputs, cast("Method", method), threads=job.threads, progress=progress, spread=cluster)
        if job.mixed:
            scales = {name: float(scale[0]) for name, scale in table.inputs.items() if name not in keep}
            some = spread(inputs, TRIAL_IMAGES)
            steps = choose_float_layers(
                net, scales, some, table=table, budget=job.budget, threads=job.threads, progress=progress
            )
        quantized = quantize(net, table, keep=keep | {step.layer for step in steps})
    save(quantized.net, files[0], files[1])
    write_atomically(files[2], head + dump_table(table))
    return quantized, steps, details


def checked_method(method: str, known: Sequence[str] = METHODS) -> str:
    """The method. Raises OnnxlintError for one that is not known."""
    if method not in known:
        raise OnnxlintError(
            f"--method {printable(method)}: ncnn's int8 knows {listed(known)}{did_you_mean(method, known)}"
        )
    return method


def kept_layers(net: Network, names: Sequence[str]) -> frozenset[str]:
    """Raises OnnxlintError for a name that is not a layer."""
    known = [layer.name for layer in net.layers]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, f"the names are in {printable(net.path)}")
            raise OnnxlintError(f"--keep {printable(name)}: no layer of the ncnn net has that name{hint}")
    return frozenset(names)


def _decisions(quantized: quantize.Quantized, steps: Sequence[Step]) -> tuple[Decision, ...]:
    chosen: Mapping[str, Step] = {step.layer: step for step in steps}
    out = []
    for one in quantized.decisions:
        step = chosen.get(one.layer)
        if step is not None:
            # What the outputs gain if this layer's noise alone goes.
            gain = -10 * math.log10(max(1e-9, 1 - step.share))
            why = f"makes {100 * step.share:.1f} % of the noise in the outputs"
            out.append(Decision(one.layer, one.type, one.state, why, round(gain, 2), step.bytes))
        else:
            why = f"{one.why}; its output stays int8" if one.requantized else one.why
            out.append(Decision(one.layer, one.type, one.state, why))
    return tuple(out)


def _by_real_tools(source: str, files: Sequence[str], job: Job) -> str:
    """Make table and int8 net with ncnn2table and ncnn2int8 of `--ncnn-tools`; returns which were used, empty: none.

    Programs missing there are replaced by ours: the formats are the same.
    """
    from onnxlint.backends.ncnn.tools import real_tool, use_tool

    to_table, to_int8 = real_tool(job.tools, "ncnn2table"), real_tool(job.tools, "ncnn2int8")
    if to_table is None or to_int8 is None:
        return ""
    recipe, images = job.recipe, job.images
    assert images is not None
    if recipe.resize != "stretch" or not images.paths or recipe.size is None or job.keep:
        raise OnnxlintError(
            "--ncnn-tools: ncnn2table reads image files, stretches them to --shape, and cannot keep layers in fp16: "
            "give such images, or leave --ncnn-tools out"
        )
    weights = str(Path(source).with_suffix(".bin"))
    imagelist = os.path.join(os.path.dirname(files[2]), "imagelist.txt")
    Path(imagelist).write_text("".join(f"{os.path.abspath(path)}\n" for path in images.paths), encoding="utf-8")

    def numbers(values: Sequence[float], default: float) -> str:
        return f"[{','.join(f'{v:.9g}' for v in values or (default,) * recipe.channels)}]"

    words = [f"mean={numbers(recipe.mean, 0)}", f"norm={numbers(recipe.norm, 1)}"]
    words += [f"shape=[{recipe.size[0]},{recipe.size[1]},{recipe.channels}]", f"pixel={recipe.pixel}"]
    words += [f"thread={job.threads}", f"method={job.method}"]
    use_tool([to_table, source, weights, imagelist, files[2], *words], files[2:])
    os.unlink(imagelist)
    use_tool([to_int8, source, weights, files[0], files[1], files[2]], files[:2])
    return "ncnn2table, ncnn2int8"


__all__ = ["BACKEND", "Inputs", "NcnnBackend", "checked_method"]
