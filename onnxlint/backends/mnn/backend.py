"""The backend `mnn`: the targets `mnn` and `mnn-fp16`, and running `.mnn` files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from onnxlint.backends import Artifact, Job, Progress, Target, not_installed, silent

if TYPE_CHECKING:
    from onnxlint.backends.mnn.session import MnnSession

FP32 = Target("mnn", "MNN, 32-bit floats", (".mnn",))
FP16 = Target("mnn-fp16", "MNN, weights in 16-bit floats", ("_fp16.mnn",))

COMPARED = 4
"""Inputs on which the result is compared with the ONNX model."""


class MnnBackend:
    """MNN, by its wheel."""

    name = "mnn"
    targets = (FP32, FP16)

    def available(self, target: Target, job: Job) -> str:
        """What is missing: see `Backend.available`."""
        missing = not_installed(("MNN", "_tools", "onnxruntime"), "mnn").replace("_tools", "MNN's converter")
        return missing and f"{target.name}: {missing}"

    def missing_to_run(self) -> str:
        """What is missing: see `Backend.missing_to_run`."""
        return not_installed(("MNN",), "mnn")

    def preflight(self, target: Target, source: str, job: Job) -> None:
        """What stands in the way: see `Backend.preflight`."""
        from onnxlint.backends.ort.backend import refuse_quantized
        from onnxlint.model.skeleton import open_model
        from onnxlint.symbolic.view import make_view

        refuse_quantized(source, (node.op for node in make_view(open_model(source)).main.nodes))

    def make(
        self, target: Target, source: str, files: tuple[str, ...], job: Job, progress: Progress = silent
    ) -> Artifact:
        """Make a target's file. It has been loaded and run before this returns.

        Raises:
            NotConvertible: MNN cannot convert the model.
            OnnxlintError: It cannot be made for another reason.
        """
        from onnxlint.backends.closeness import closeness, require_close, worst
        from onnxlint.backends.mnn.runtime import convert
        from onnxlint.backends.ort.artifact import some_inputs
        from onnxlint.backends.ort.session import OrtSession

        session = OrtSession(source, job.threads)
        progress("converting", 0, None)
        convert(source, files[0], half=target.name == FP16.name)
        progress("comparing with the ONNX model", 0, None)
        inputs, notes = some_inputs(session, job, COMPARED)
        ratios = closeness(session, self.open(files[0], job.threads), inputs[:COMPARED], files[0])
        require_close(ratios, files[0], "MNN")
        return Artifact(
            target.name,
            files,
            (),
            (f"compared with onnxruntime: {worst(ratios)}", *notes),
            {
                "bytes": os.path.getsize(files[0]),
                "snr_db": {name: round(value, 2) for name, value in ratios.items()},
            },
        )

    def opens(self, path: str) -> bool:
        """`.mnn` files."""
        return path.lower().endswith(".mnn")

    def open(self, path: str, threads: int = 2) -> MnnSession:
        """Load it.

        Raises:
            OnnxlintError: It cannot be loaded.
        """
        from onnxlint.backends.mnn.session import MnnSession

        return MnnSession(path, threads)

    def files(self, path: str) -> tuple[str, ...]:
        """The file."""
        return (path,)

    def parameters(self, path: str) -> int | None:
        """Unknown: the format does not say it without being decoded."""
        return None


BACKEND = MnnBackend()
