"""The backend `openvino`: the targets `openvino`, `openvino-fp16` and `openvino-int8`, and running `.xml` files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxlint.backends import Array, Artifact, Decision, Job, Progress, Target, not_installed, silent
from onnxlint.backends.ort.targets import STATIC
from onnxlint.errors import OnnxlintError
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.backends.openvino.session import OpenVinoSession
    from onnxlint.backends.ort.session import OrtSession

FP32 = Target("openvino", "OpenVINO IR, weights in float32", ("_openvino.xml", "_openvino.bin"), ("openvino-fp32",))
FP16 = Target("openvino-fp16", "OpenVINO IR, weights in float16", ("_openvino_fp16.xml", "_openvino_fp16.bin"))
INT8 = Target(
    "openvino-int8",
    "OpenVINO IR, int8; calibrated as onnx-int8-static, or by --method nncf",
    ("_openvino_int8.xml", "_openvino_int8.bin"),
    calibrates=True,
)

COMPARED = 4
"""Inputs on which the result is compared with the ONNX model."""


class OpenVinoBackend:
    """OpenVINO: `.xml` files with their `.bin`."""

    name = "openvino"
    targets = (FP32, FP16, INT8)

    def available(self, target: Target, job: Job) -> str:
        """What is missing: see `Backend.available`."""
        missing = not_installed(("openvino", "onnxruntime"), "openvino")
        if not missing and target.name == INT8.name and job.method == "nncf":
            missing = not_installed(("nncf",), "nncf")
        return missing and f"{target.name}: {missing}"

    def missing_to_run(self) -> str:
        """What is missing: see `Backend.missing_to_run`."""
        return not_installed(("openvino",), "openvino")

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """What stands in the way: see `Backend.preflight`."""
        from onnxlint.backends.openvino.int8 import require_method
        from onnxlint.backends.ort.backend import refuse_quantized
        from onnxlint.backends.ort.feeds import declared_ports, image_port
        from onnxlint.backends.size_inputs import bind_hint
        from onnxlint.model.skeleton import open_model

        view = make_view(open_model(source))
        refuse_quantized(source, (node.op for node in view.main.nodes))
        if target.name == INT8.name:
            require_method(job)
            try:
                image_port(source, declared_ports(view))
            except OnnxlintError as error:
                raise OnnxlintError(f"{error}{bind_hint(view)}") from None

    def make(
        self, target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress = silent
    ) -> Artifact:
        """Make a target's files. They have been loaded and run before this returns.

        Raises:
            NotConvertible: OpenVINO cannot convert the model.
            OnnxlintError: They cannot be made for another reason.
        """
        from onnxlint.backends.openvino.convert import converted, names_of, save
        from onnxlint.backends.ort.artifact import some_inputs
        from onnxlint.backends.ort.session import OrtSession

        session = OrtSession(source, job.threads)
        details: dict[str, Any] = {}
        if target.name == INT8.name:
            model, names, notes, details = _int8(session, job, progress)
        else:
            progress("converting", 0, None)
            model, names, notes = converted(source), names_of(source), ()
        save(model, files, names, half=target.name == FP16.name, source=source)
        progress("comparing with the ONNX model", 0, None)
        inputs, made_up = some_inputs(session, job, COMPARED)
        return _checked(target, files, session, inputs, (*notes, *made_up), details, job)

    def opens(self, path: str) -> bool:
        """`.xml` files."""
        return path.lower().endswith(".xml")

    def open(self, path: str, threads: int = 2) -> OpenVinoSession:
        """Load `NAME.xml` and `NAME.bin`.

        Raises:
            OnnxlintError: They cannot be loaded.
        """
        from onnxlint.backends.openvino.saturation import notes_for
        from onnxlint.backends.openvino.session import OpenVinoSession

        session = OpenVinoSession(path, threads)
        session.notes += notes_for(session.model)
        return session

    def files(self, path: str) -> tuple[str, ...]:
        """The `.xml` and its `.bin`."""
        return (path, str(Path(path).with_suffix(".bin")))

    def parameters(self, path: str) -> int | None:
        """How many numbers the weights and biases are; ranges and scales of int8 are none of them.

        Raises:
            OnnxlintError: It cannot be read.
        """
        from onnxlint.backends.openvino.graph import parameters
        from onnxlint.backends.openvino.runtime import read_ir

        return parameters(read_ir(path))


BACKEND = OpenVinoBackend()


Made = tuple[Any, frozenset[str], tuple[str, ...], dict[str, Any]]
"""An int8 model, the names of the ONNX model, notes and facts."""


def _int8(session: OrtSession, job: Job, progress: Progress) -> Made:
    from onnxlint.backends.openvino.int8 import NNCF, by_qdq, require_method
    from onnxlint.backends.ort.feeds import image_port

    require_method(job)
    if job.images is None:
        raise OnnxlintError(f"{printable(session.path)}: {INT8.name} is calibrated on images; give some with --images")
    image_port(session.path, session.inputs)
    if job.method == NNCF:
        return _by_nncf(session, job, progress)
    made = by_qdq(session, job, progress)
    return _better(made, session, job, progress) if job.method == "auto" and not job.mixed else made


def _by_nncf(session: OrtSession, job: Job, progress: Progress) -> Made:
    from onnxlint.backends.openvino.int8 import HELD, IMAGES, NNCF, by_nncf
    from onnxlint.backends.ort.feeds import from_images, spread

    assert job.images is not None
    first = next(from_images(session.path, session.inputs, job, spread(job.images, 1)))
    count = max(1, min(IMAGES, HELD // sum(value.nbytes for value in first.values())))
    inputs = list(from_images(session.path, session.inputs, job, spread(job.images, count)))
    model, names = by_nncf(session, inputs, job, progress)
    return model, names, (), {"method": NNCF, "images": len(inputs), "weight_bits": job.weight_bits}


def _better(made: Made, session: OrtSession, job: Job, progress: Progress) -> Made:
    """The model, or NNCF's where it is installed: the one that loses least of the task, or of the outputs if there is none.
    With plain methods, it was compared when it was made."""
    from importlib.util import find_spec

    from onnxlint.backends.openvino.better import Comparison, is_second_better, shown
    from onnxlint.backends.openvino.int8 import NNCF

    facts = {**made[3], "method": "auto", "made_by": STATIC.name}
    if find_spec("nncf") is None:
        return *made[:3], facts
    try:
        other = _by_nncf(session, job, progress)
        progress("comparing with NNCF", 0, None)
        comparison = Comparison.of(session, job)
        first, second = (comparison.judged(one[0], one[1]) for one in (made, other))
    except OnnxlintError as error:
        return *made[:2], (*made[2], f"not compared with NNCF: {error}"), facts
    names = (STATIC.name, "NNCF")
    if is_second_better(first, second):
        made, other, first, second, names = other, made, second, first, names[::-1]
        facts = {**made[3], "method": "auto", "made_by": NNCF}
    note = (
        f"calibrated as {names[0]} does it: {shown(first.loss)} on {comparison.images}; "
        f"as {names[1]} does it: {shown(second.loss)}"
    )
    return *made[:2], (*made[2], note), facts


def _checked(
    target: Target,
    files: tuple[str, ...],
    session: OrtSession,
    inputs: Sequence[Mapping[str, Array]],
    notes: Sequence[str],
    details: Mapping[str, Any],
    job: Job,
) -> Artifact:
    """The artifact, after it has been loaded and run.

    Raises:
        OnnxlintError: It does not load or run, or gives something else.
    """
    from onnxlint.backends.closeness import closeness, require_close, worst
    from onnxlint.backends.openvino.graph import nodes
    from onnxlint.backends.openvino.runtime import HINT
    from onnxlint.backends.openvino.saturation import notes_for
    from onnxlint.backends.openvino.session import OpenVinoSession

    made = OpenVinoSession(files[0], job.threads)
    names = [port.name for port in session.outputs]
    if [port.name for port in made.outputs] != names:
        shown = ", ".join(printable(port.name) for port in made.outputs)
        raise OnnxlintError(f"{printable(session.path)}: OpenVINO gives its outputs other names: {shown}; report this")
    ratios = closeness(session, made, inputs[:COMPARED], files[0])
    if not target.calibrates:
        require_close(ratios, files[0], "OpenVINO")
    why = {"int8": "weights and what it reads", "fp16": "weights in float16", "fp32": "as converted"}
    decisions = tuple(
        Decision(node.name, node.type, node.state, why[node.state]) for node in nodes(made.model) if node.state
    )
    less = f"; this CPU's default is {made.default}, which is less exact" if made.default != "f32" else ""
    said = f"compared with onnxruntime, {HINT} f32: {worst(ratios)}{less}"
    return Artifact(
        target.name,
        files,
        decisions,
        tuple(dict.fromkeys((said, *notes_for(made.model), *notes))),  # the QDQ model's note may be the same
        {
            **details,
            "bytes": sum(os.path.getsize(file) for file in files),
            "snr_db": {name: round(value, 2) for name, value in ratios.items()},
        },
    )
