"""How the target onnx-int8-static is made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.backends import Artifact, Job, Progress
from onnxlint.backends.ort import auto, calibrate
from onnxlint.backends.ort.artifact import check_kept, finish, states
from onnxlint.backends.ort.calibration import Calibration
from onnxlint.backends.ort.feeds import image_port
from onnxlint.backends.ort.judge import Judge
from onnxlint.backends.ort.plan import Int8, Plan
from onnxlint.backends.ort.prepare import NOTHING, prepare
from onnxlint.backends.ort.qdq import LEVELS, activations, quantize
from onnxlint.backends.ort.targets import LEARNED, PLAIN, STATIC, require_weight_bits, static_method
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Unreadable
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.backends.ort.session import OrtSession

WORSE = 1.0
"""dB by which a calibrator has to be worse than plain min-max ranges for a note about it."""

WHY = {
    8: "8-bit weights: exact on ARM, GPUs, NPUs and x86 with VNNI; use --weight-bits 7 for x86 with AVX2 alone",
    7: "weights from -64 to 64: sums of two products fit the 16 bits of x86 with AVX2 alone",
}


def make_static(session: OrtSession, path: str, job: Job, progress: Progress) -> Artifact:
    """Make a static int8 file, load it and run it.

    Args:
        session: The float model.
        path: Where to write.
        job: How.
        progress: Called with the current action.

    Raises:
        OnnxlintError: It cannot be made.
    """
    name = session.path
    method = static_method(job)
    image_port(name, session.inputs)
    if job.images is None:
        raise OnnxlintError(f"{printable(name)}: {STATIC.name} is calibrated on images; give some with --images")
    require_weight_bits(job)
    unreadable: list[Unreadable] = []
    calibration = Calibration.of(session, job, unreadable, judges=method not in PLAIN)
    progress("pre-processing", 0, None)
    model = prepare(name)
    check_kept(model, job.keep, name)
    if not activations(model, job.keep):
        raise OnnxlintError(NOTHING.format(printable(name)))

    plan = Plan(
        name,
        frozenset(job.keep),
        job.mixed,
        job.budget,
        LEVELS[job.weight_bits],
        job.threads,
        job.task,
        learned=method == LEARNED,
    )
    made = (
        _by_method(model, calibration, plan, method, progress)
        if method in PLAIN
        else auto.auto(model, calibration, plan, progress)
    )
    details = finish(session, made.model, path, calibration.held, job)
    images = len(job.images) - len(unreadable)
    lost = tuple(f"{printable(one.path)} cannot be read: {printable(one.why)}" for one in unreadable)
    how = {"method": method, "images": images, "weight_bits": job.weight_bits, "weight_bits_why": WHY[job.weight_bits]}
    return Artifact(
        STATIC.name,
        (path,),
        states(model, made.model, made.keep),
        (*made.notes, *lost),
        {**details, **made.details, **how},
    )


def _by_method(
    model: onnx.ModelProto,
    calibration: Calibration,
    plan: Plan,
    method: str,
    progress: Progress,
) -> Int8:
    """By one calibrator, weights rounded to the nearest."""
    found = calibration.histograms(model, activations(model, plan.keep), progress=progress)
    ranges, widest = (
        {key: calibrate.clipped(one, histogram) for key, histogram in found.items()} for one in (method, "minmax")
    )
    progress("quantizing", 0, None)
    plain = quantize(model, ranges, plan.keep, levels=plan.levels)
    judge = Judge.of(plan.name, model, calibration.held, plan.threads)
    made = Int8(plain)
    if method != "minmax":
        score, other = judge.score(plain), judge.score(quantize(model, widest, plan.keep, levels=plan.levels))
        if other > score + WORSE:
            note = f"{method} suits this model badly: minmax is {other - score:.1f} dB closer on the calibration images"
            made = replace(made, notes=(note,))
    if plan.mixed:
        steps = auto.choose_float(model, ranges, judge, plan, progress)
        mixed = quantize(model, ranges, plan.keep | {step.layer for step in steps}, levels=plan.levels)
        made = replace(made, model=mixed, keep=steps, details={"pure_int8_bytes": auto.size_of(plain)})
    return made
