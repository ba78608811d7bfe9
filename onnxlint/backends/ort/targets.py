"""The targets of onnxruntime, by name."""

from __future__ import annotations

from collections.abc import Sequence

from onnxlint.backends import Job, Target, not_installed
from onnxlint.errors import OnnxlintError
from onnxlint.text import did_you_mean, listed, printable

FP16 = Target("onnx-fp16", "float16 inside, float32 inputs and outputs", ("_fp16.onnx",), ("onnx_fp16",))

DYNAMIC = Target(
    "onnx-int8-dynamic", "int8 weights, activations quantized at run time", ("_quan_dynamic.onnx",), ("onnx_quan_dy",)
)

STATIC = Target(
    "onnx-int8-static", "int8 (QDQ), calibrated", ("_quan_static.onnx",), ("onnx_quan_st",), calibrates=True
)

LEARNED = "learned"

PLAIN = ("minmax", "percentile", "entropy", "mse")
"""Methods that calibrate activations and round weights to the nearest."""

METHODS = ("auto", LEARNED, *PLAIN)
"""Of calibration, for static int8."""

WEIGHT_BITS = (7, 8)
"""Of int8 weights; 7 is −64 to 64."""


def static_method(job: Job, target: str = STATIC.name, known: Sequence[str] = METHODS) -> str:
    """The method that a job asks for; ncnn's name for entropy is understood.

    Args:
        job: It.
        target: Name of the target that the job is for.
        known: The methods that it has.

    Raises:
        OnnxlintError: There is no such method, or what it needs is not installed.
    """
    method = {"kl": "entropy"}.get(job.method, job.method)
    if method not in known:
        raise OnnxlintError(
            f"--method {printable(job.method)}: {target} knows {listed(known)}{did_you_mean(job.method, known)}"
        )
    if method == LEARNED and (missing := not_installed(("torch",), "torch")):
        raise OnnxlintError(f"--method {LEARNED}: {missing}")
    return method


def require_weight_bits(job: Job) -> None:
    """Raise OnnxlintError if weights are to have another number of bits than int8 weights can have here."""
    if job.weight_bits not in WEIGHT_BITS:
        raise OnnxlintError(
            f"--weight-bits {job.weight_bits}: {STATIC.name} has {listed(map(str, WEIGHT_BITS), last='or')}"
        )
