"""The backend of onnxruntime: its targets, and how each is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxlint.backends import Artifact, Job, Progress, Target, not_installed, silent
from onnxlint.backends.ort.targets import DYNAMIC, FP16, STATIC, require_weight_bits, static_method
from onnxlint.errors import OnnxlintError
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.backends.ort.session import OrtSession


QUANTIZED = frozenset(
    """ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear""".split()
)
"""Operators that float models do not have."""


class OrtBackend:
    """onnxruntime: .onnx files."""

    name = "onnxruntime"
    targets = (FP16, DYNAMIC, STATIC)

    def available(self, target: Target, job: Job) -> str:
        """What is missing: see `Backend.available`."""
        missing = self.missing_to_run()
        return missing and f"{target.name}: {missing}"

    def missing_to_run(self) -> str:
        """What is missing: see `Backend.missing_to_run`."""
        return not_installed(("onnxruntime",), "convert")

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """What stands in the way: see `Backend.preflight`."""
        from onnxlint.backends.ort.feeds import declared_ports, image_port
        from onnxlint.backends.size_inputs import bind_hint
        from onnxlint.model.skeleton import open_model

        view = make_view(open_model(source))
        refuse_quantized(source, (node.op for node in view.main.nodes))
        if target.name == STATIC.name:
            static_method(job)
            require_weight_bits(job)
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
        from onnxlint.backends.ort.prepare import prepare

        session = self.open(source, job.threads)
        refuse_quantized(source, (node.op_type for node in session.proto.graph.node))
        if target.name == FP16.name:
            from onnxlint.backends.ort.fp16 import make_half

            return make_half(session, files[0], job, progress)
        if target.name == STATIC.name:
            from onnxlint.backends.ort.kernels import float_note, integer_layers
            from onnxlint.backends.ort.saturation import notes_for
            from onnxlint.backends.ort.static import make_static

            artifact = make_static(session, files[0], job, progress)
            integers = integer_layers(files[0], job.threads)
            said = (*float_note(files[0], artifact.decisions, integers), *notes_for(files[0]))
            details = {**artifact.details, "integer_layers": integers}
            return replace(artifact, notes=(*artifact.notes, *said), details=details)
        from onnxlint.backends.ort import dynamic
        from onnxlint.backends.ort.artifact import check_kept, finish, some_inputs, states

        progress("pre-processing", 0, None)
        model = prepare(source)
        check_kept(model, job.keep, source)
        progress("quantizing", 0, None)
        inputs, notes = some_inputs(session, job)
        made, note = dynamic.quantize(model, job.keep, source, inputs[0])
        details = finish(session, made, files[0], inputs, job)
        decisions = states(model, made, ())
        return Artifact(target.name, files, decisions, (*notes, *([note] if note else [])), details)

    def opens(self, path: str) -> bool:
        """Whether it is an .onnx file."""
        return path.lower().endswith(".onnx")

    def open(self, path: str, threads: int = 2) -> OrtSession:
        """Load it.

        Raises:
            OnnxlintError: It cannot be loaded.
        """
        from onnxlint.backends.ort.saturation import notes_for
        from onnxlint.backends.ort.session import OrtSession

        session = OrtSession(path, threads)
        session.notes = notes_for(path)
        return session

    def files(self, path: str) -> tuple[str, ...]:
        """The file, and those that its external data is in.

        Raises:
            OnnxlintError: It cannot be read.
        """
        from onnxlint.model.skeleton import external_files, open_model

        return (path, *external_files(open_model(path)))

    def parameters(self, path: str) -> int:
        """Elements of all floating-point and integer initializers and constants but those of shapes: weights and biases.

        Raises:
            OnnxlintError: It cannot be read.
        """
        from onnxlint.model.skeleton import open_model

        return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in open_model(path).proto.graph.initializer)


def refuse_quantized(source: str, operators: Iterable[str]) -> None:
    """Raise OnnxlintError if one of a model's operators shows that it is quantized already."""
    for operator in operators:
        if operator in QUANTIZED:
            raise OnnxlintError(
                f"{printable(source)}: is quantized already ({operator}); give the float model that it was made from"
            )
