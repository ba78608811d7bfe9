"""Dynamic int8: weights are int8, activations are quantized at run time, by onnxruntime's own quantizer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping

import onnx

from onnxlint.backends import Array
from onnxlint.backends.ort.prepare import NOTHING, quiet
from onnxlint.backends.ort.session import first_line, run, start
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

CONTRIBUTED = frozenset({"Attention", "EmbedLayerNormalization"})
"""Operators of the domain `com.microsoft` that the quantizer knows; it looks at their names alone."""


def foreign_nodes(model: onnx.ModelProto) -> list[str]:
    """Nodes that onnxruntime's quantizer would take for its own by their names, though they are of another domain: ONNX has
    an Attention of its own since operator set 23, and anybody may have a Conv."""
    return [
        node.name
        for node in model.graph.node
        if (node.op_type in CONTRIBUTED) != (node.domain == "com.microsoft") or node.domain not in KNOWN_DOMAINS
    ]


KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")


def quantize(
    model: onnx.ModelProto, keep: Collection[str], name: str, feeds: Mapping[str, Array]
) -> tuple[onnx.ModelProto, str]:
    """The model with int8 weights, and notes for the user.

    Weights have a scale for each channel and no offset. onnxruntime's kernels for ConvInteger and some products take
    neither: a model that does not run so gets one scale for each weight, and unsigned ones.

    Args:
        model: As `prepare` makes it.
        keep: Nodes that stay in float.
        name: Of the model, for errors.
        feeds: What to try it on.

    Raises:
        OnnxlintError: Nothing can be quantized, or nothing that is made runs.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # onnxruntime infers them again, and trips over its own after transposing weights
    why = ""
    for per_channel, kind in ((True, QuantType.QInt8), (False, QuantType.QUInt8)):
        with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
            source, target = os.path.join(folder, "source.onnx"), os.path.join(folder, "target.onnx")
            onnx.save(bare, source)
            try:
                with quiet():
                    quantize_dynamic(
                        source,
                        target,
                        sorted(IntegerOpsRegistry),
                        per_channel=per_channel,
                        reduce_range=True,  # see qdq.LEVELS
                        weight_type=kind,
                        nodes_to_exclude=sorted({*keep, *foreign_nodes(model)}),
                    )
                made = onnx.load(target)
            except Exception as error:  # whatever it raises
                raise OnnxlintError(f"{printable(name)}: onnxruntime's quantizer fails: {first_line(error)}") from error
        if not any(tensor.name.endswith("_quantized") for tensor in made.graph.initializer):
            raise OnnxlintError(NOTHING.format(printable(name)))
        try:
            run(start(made, name=name), name, feeds)
        except OnnxlintError as error:
            why = str(error)
            continue
        note = "" if per_channel else "one scale for each weight: onnxruntime's kernels take no more for this model"
        return made, note
    raise OnnxlintError(why)
