"""Two ways to an int8 IR: the QDQ model of onnx-int8-static, and NNCF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxlint.backends import Array, Job, Progress
from onnxlint.backends.openvino.convert import converted, names_of
from onnxlint.backends.openvino.repair import repair
from onnxlint.backends.openvino.runtime import first_line, nncf
from onnxlint.backends.ort.targets import METHODS as QDQ_METHODS
from onnxlint.backends.ort.targets import STATIC, require_weight_bits, static_method
from onnxlint.errors import OnnxlintError
from onnxlint.text import did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.backends.ort.session import OrtSession

NNCF = "nncf"
METHODS = (*QDQ_METHODS, NNCF)

IMAGES = 300
"""Images that NNCF calibrates on, evenly from all."""

HELD = 1 << 29
"""Bytes of inputs that are held for it."""


def require_method(job: Job) -> None:
    """Raise if the job asks for a method that there is not, or that cannot do what else it asks for.

    Raises:
        OnnxlintError: There is no such method, or what it needs is not installed, or NNCF is to do mixed precision.
    """
    if static_method(job, "openvino-int8", METHODS) != NNCF:
        require_weight_bits(job)
    elif job.mixed:
        raise OnnxlintError("--mixed: NNCF has no mixed precision within a budget; use another --method, or --keep")


def by_qdq(
    session: OrtSession, job: Job, progress: Progress
) -> tuple[Any, frozenset[str], tuple[str, ...], dict[str, Any]]:
    """The QDQ model that onnx-int8-static makes, converted: the model, its names, notes and facts.

    Raises:
        OnnxlintError: It cannot be made.
    """
    from onnxlint.backends.ort.saturation import notes_for
    from onnxlint.backends.ort.static import make_static

    with tempfile.TemporaryDirectory() as folder:
        stem = os.path.splitext(os.path.basename(session.path))[0]
        file = os.path.join(folder, stem + STATIC.files[0])
        made = make_static(session, file, job, progress)
        progress("converting", 0, None)
        details = {key: value for key, value in made.details.items() if key not in ("bytes", "snr_db")}
        model = converted(file)
        repair(model)
        return model, names_of(file), (*made.notes, *notes_for(file)), details


def by_nncf(
    session: OrtSession, inputs: Sequence[Mapping[str, Array]], job: Job, progress: Progress
) -> tuple[Any, frozenset[str]]:
    """The model quantized by NNCF, and its names: symmetric weights, asymmetric activations where they are signed, ranges
    from histograms, biases corrected layer after layer.

    Args:
        session: The ONNX model.
        inputs: To calibrate on.
        job: How.
        progress: Called with the current action.

    Raises:
        OnnxlintError: It cannot be quantized.
    """
    module = nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    source = session.path
    model = converted(source)
    settings = AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
        overflow_fix=OverflowFix.ENABLE if job.weight_bits == 7 else OverflowFix.DISABLE,
    )
    kept = _kept(model, job.keep, source)
    progress("quantizing with NNCF", 0, None)
    samples = [[feeds[port.name] for port in session.inputs] for feeds in inputs]
    try:
        made = module.quantize(
            model,
            module.Dataset(samples),
            subset_size=len(samples),
            preset=module.QuantizationPreset.MIXED,
            fast_bias_correction=False,
            ignored_scope=module.IgnoredScope(names=kept) if kept else None,
            advanced_parameters=settings,
        )
    except Exception as error:  # NNCF's own classes share none with those of OpenVINO
        raise OnnxlintError(f"{printable(source)}: NNCF cannot quantize it: {first_line(error)}") from error
    repair(made)
    return made, names_of(source)


def _kept(model: Any, keep: Sequence[str], source: str) -> list[str]:
    """Operators of the IR for nodes of the ONNX model that stay in float."""
    names = [str(op.get_friendly_name()) for op in model.get_ordered_ops()]
    found = []
    for one in keep:
        own = [name for name in names if name == one or name.startswith(f"{one}/")]
        if not own:
            raise OnnxlintError(
                f"{printable(source)}: has no node {printable(one)!r} to keep in float{did_you_mean(one, names)}"
            )
        found += own
    return found
