"""The backend `tensorrt`: the targets `tensorrt-fp16` and `tensorrt-int8`.

Both are ONNX files: TensorRT 11 has neither calibrators nor precision flags, types and Q/DQ in the model decide. Numbers
are checked in onnxruntime; TensorRT itself is not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxlint.backends import Artifact, Job, Progress, Session, Target, not_installed, silent
from onnxlint.backends.ort.targets import PLAIN, require_weight_bits, static_method
from onnxlint.errors import OnnxlintError
from onnxlint.symbolic.view import make_view
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.backends.ort.calibration import Calibration
    from onnxlint.backends.ort.plan import Int8, Plan
    from onnxlint.backends.ort.session import OrtSession

LINT_TARGET = "tensorrt-11"
"""What `check --target` calls it."""

NOT_RUN = "not run in TensorRT: its numbers were checked in onnxruntime"

FP16 = Target("tensorrt-fp16", "ONNX for TensorRT 11, strongly typed float16", ("_tensorrt_fp16.onnx",))
INT8 = Target(
    "tensorrt-int8",
    "ONNX for TensorRT 11, int8 by explicit Q/DQ, the rest float16",
    ("_tensorrt_int8.onnx",),
    calibrates=True,
)
METHODS = ("auto", *PLAIN)
"""Without `learned`: scales that a fusion shares would be learned apart."""


class TensorRtBackend:
    """ONNX files for TensorRT; onnxruntime opens them, so that this backend opens none."""

    name = "tensorrt"
    targets = (FP16, INT8)
    lint_target = LINT_TARGET

    def available(self, target: Target, job: Job) -> str:
        """What is missing: see `Backend.available`."""
        missing = not_installed(("onnxruntime",), "convert")
        return missing and f"{target.name}: {missing}"

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """What stands in the way: see `Backend.preflight`."""
        from onnxlint.backends.ort.backend import refuse_quantized
        from onnxlint.backends.ort.feeds import declared_ports, image_port
        from onnxlint.backends.size_inputs import bind_hint
        from onnxlint.model.skeleton import open_model

        view = make_view(open_model(source))
        refuse_quantized(source, (node.op for node in view.main.nodes))
        if target.calibrates:
            static_method(job, INT8.name, METHODS)
            require_weight_bits(job)
            try:
                image_port(source, declared_ports(view))
            except OnnxlintError as error:
                raise OnnxlintError(f"{error}{bind_hint(view)}") from None

    def make(
        self, target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress = silent
    ) -> Artifact:
        """Make a target's file. It has been loaded and run in onnxruntime before this returns.

        Raises:
            OnnxlintError: It cannot be made.
        """
        from onnxlint.backends.ort.fp16 import make_half
        from onnxlint.backends.ort.session import OrtSession

        session = OrtSession(source, job.threads)
        if target.name == FP16.name:
            made = make_half(session, files[0], job, progress)
        else:
            made = _make_int8(session, files[0], job, progress)
        notes = (*made.notes, NOT_RUN, *_refused(files[0]))
        return replace(made, target=target.name, notes=notes, details={**made.details, "run_in": "onnxruntime"})

    def opens(self, path: str) -> bool:
        """None: ONNX files are onnxruntime's."""
        return False

    def open(self, path: str, threads: int = 2) -> Session:
        """As onnxruntime's backend."""
        from onnxlint.backends.ort.session import OrtSession

        return OrtSession(path, threads)

    def files(self, path: str) -> tuple[str, ...]:
        """The file."""
        return (path,)

    def parameters(self, path: str) -> int | None:
        """As onnxruntime's backend counts."""
        from onnxlint.backends.ort import BACKEND as ORT

        return ORT.parameters(path)


BACKEND = TensorRtBackend()


def _refused(path: str) -> Iterator[str]:
    """What TensorRT's parser does not take of the file that was made, or needs with it, a line each."""
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.session import Check

    run = Check([path], Configs(Settings(targets=(LINT_TARGET,), select=("TGT",)))).run()
    found = [finding for result in run.results for finding in result.findings]
    for finding in found[:3]:
        yield f"check --target {LINT_TARGET}: {finding.code} {printable(finding.location.place)}: {finding.message}"
    if len(found) > 3:
        yield f"check --target {LINT_TARGET} reports {counted(len(found) - 3, 'more finding')}"


def _make_int8(session: OrtSession, path: str, job: Job, progress: Progress) -> Artifact:
    from onnxlint.backends.ort import auto, calibrate
    from onnxlint.backends.ort.artifact import check_kept, finish, states
    from onnxlint.backends.ort.calibration import Calibration
    from onnxlint.backends.ort.feeds import image_port
    from onnxlint.backends.ort.plan import Plan
    from onnxlint.backends.ort.prepare import NOTHING, prepare
    from onnxlint.backends.ort.qdq import LEVELS, activations
    from onnxlint.backends.tensorrt import symmetric
    from onnxlint.backends.tensorrt.strong import strongly_typed

    name = session.path
    method = static_method(job, INT8.name, METHODS)
    image_port(name, session.inputs)
    if job.images is None:
        raise OnnxlintError(f"{printable(name)}: {INT8.name} is calibrated on images; give some with --images")
    calibration = Calibration.of(session, job, judges=(is_auto := method == "auto"))
    progress("pre-processing", 0, None)
    model = prepare(name)
    check_kept(model, job.keep, name)
    if not activations(model, job.keep):
        raise OnnxlintError(NOTHING.format(printable(name)))

    def around_zero(one: onnx.ModelProto, found: Mapping[str, calibrate.Histogram]) -> dict[str, calibrate.Histogram]:
        return symmetric.mirrored(found, symmetric.groups(one, list(found)))

    plan = Plan(name, frozenset(job.keep), job.mixed, job.budget, LEVELS[8], job.threads, job.task, adapted=around_zero)
    made = auto.auto(model, calibration, plan, progress) if is_auto else _plain(model, calibration, plan, method)
    wanted = symmetric.shortcuts(made.model)
    read = {made.model.graph.node[i].input[operand] for i, operand in wanted.items()}
    already = {node.input[0] for node in made.model.graph.node if node.op_type == "QuantizeLinear"}
    missing = sorted(read - already)
    more = around_zero(made.model, calibration.histograms(made.model, missing, progress=progress)) if missing else {}
    peaks = {key: calibrate.clipped("percentile", one)[1] for key, one in more.items()}
    first = symmetric.groups(model, activations(model, job.keep))
    quantized = symmetric.symmetric(made.model, first, peaks)
    typed, spared = strongly_typed(quantized, calibration.held, job, progress)
    facts: dict[str, Any] = {"method": method, "images": len(job.images), "weight_bits": 8, "float32": spared}
    details = finish(session, typed, path, calibration.held, job)
    return Artifact(
        INT8.name, (path,), states(model, typed, made.keep), made.notes, {**details, **made.details, **facts}
    )


def _plain(model: onnx.ModelProto, calibration: Calibration, plan: Plan, method: str) -> Int8:
    """By one calibrator, weights rounded to the nearest."""
    from onnxlint.backends.ort import auto, calibrate
    from onnxlint.backends.ort.judge import Judge
    from onnxlint.backends.ort.plan import Int8
    from onnxlint.backends.ort.qdq import activations, quantize

    found = plan.on_target(model, calibration.histograms(model, activations(model, plan.keep)))
    ranges = {key: calibrate.clipped(method, one) for key, one in found.items()}
    steps: tuple[Any, ...] = ()
    if plan.mixed:
        steps = auto.choose_float(model, ranges, Judge.of(plan.name, model, calibration.held, plan.threads), plan)
    keep = plan.keep | {step.layer for step in steps}
    return Int8(quantize(model, ranges, keep, levels=plan.levels), steps)
