"""The int8 writer: a float net and a table in, the net that ncnn2int8 would write out, and why for each layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import TAG_INT8, Blob, Layer, Network, half_blob
from onnxlint.backends.ncnn.table import QUANTIZABLE, SUFFIX, Table, diagnose, require_names, weight_groups
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

State = Literal["int8", "fp16", "fp32"]


@dataclass(frozen=True)
class Decision:
    """What became of one layer that owns weights. `requantized`: its output blob is int8, too."""

    layer: str
    type: str
    state: State
    requantized: bool
    why: str


@dataclass(frozen=True)
class Quantized:
    """The int8 net and one decision for each layer with weights, in layer order."""

    net: Network
    decisions: tuple[Decision, ...]

    @property
    def int8_layers(self) -> int:
        """How many layers became int8."""
        return sum(d.state == "int8" for d in self.decisions)


def round_half_away(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """C's roundf, for |x| < 2^22."""
    return np.asarray(np.copysign(np.floor(np.abs(x).astype(np.float64) + 0.5), x), np.float32)


def quantize_weights(layer: Layer, scales: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """The int8 weights of a layer, shape (size,): round half away from zero(w · scale), clamped to ±127.

    `scales` has one number for each output channel (group, if depthwise).
    """
    weight = layer.blob("weight")
    assert weight is not None
    rows = weight.values().reshape(len(scales), -1)
    scaled = rows * np.asarray(scales, np.float32)[:, None]
    return np.clip(round_half_away(scaled), -127, 127).astype(np.int8).reshape(-1)


def quantize(
    net: Network,
    table: Table,
    *,
    keep: Collection[str] = (),
    weights: Mapping[str, npt.NDArray[np.int8]] | None = None,
    rest: Literal["fp16", "fp32"] = "fp16",
) -> Quantized:
    """Make the int8 net, byte for byte as ncnn2int8 does from the same table.

    `keep` names layers that stay in fp16 (mixed precision). `weights` gives int8 weights for some layers that were
    rounded in another way than to the nearest; they must belong to the table's scales. `rest` is how the layers that
    are not quantized are stored: ncnn2int8 writes fp16. Raises OnnxlintError when the
    table cannot belong to the net, or names no layer of it.
    """
    require_names(net)
    fatal = [i for i in diagnose(table, net) if i.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
        raise OnnxlintError(printable(f"{table.path}: {fatal[0]}{more}"))
    unknown = sorted(set(keep) - {layer.name for layer in net.layers})
    if unknown:
        raise OnnxlintError(printable(f"{net.path}: has no layer '{unknown[0]}' to keep in fp16; check its name"))
    layers: dict[str, Layer] = {}
    reasons: dict[str, str] = {}
    for layer in net.layers:
        reason = _why_not(layer, table, keep)
        if reason is None:
            given = None if weights is None else weights.get(layer.name)
            layers[layer.name] = _int8_layer(layer, table, given)
        elif layer.blobs:
            reasons[layer.name] = reason
            if rest == "fp16":
                layers[layer.name] = replace(layer, blobs=tuple(half_blob(b) for b in layer.blobs))
    out = net.with_layers(layers)
    requantized = _requantized(out)
    out = out.with_layers({name: _with_top_scale(out.layer(name), scale) for name, scale in requantized.items()})
    decisions = tuple(
        Decision(
            layer.name,
            layer.type,
            _state(layer),
            layer.name in requantized,
            reasons.get(layer.name, "has a row in the table"),
        )
        for layer in out.layers
        if layer.blobs
    )
    return Quantized(out, decisions)


def _why_not(layer: Layer, table: Table, keep: Collection[str]) -> str | None:
    """Why a layer is not quantized; None if it is."""
    if layer.type not in QUANTIZABLE:
        return f"ncnn has no int8 {layer.type} that a table describes"
    if layer.integer(8):
        return "is int8 already"
    if layer.blob("weight") is None:
        return "its weights are an input"
    if layer.name in keep:
        return "kept in fp16 on request"
    missing = [
        key
        for key, rows in ((layer.name + SUFFIX, table.weights), (layer.name, table.inputs))
        if layer.name not in rows
    ]
    if missing:
        return f"the table has no row {' and none '.join(missing)}"
    if layer.type != "InnerProduct" and pad_value(layer, float(table.inputs[layer.name][0])) < 0:
        return "ncnn pads int8 wrongly with a number below 0"
    return None


def pad_value(layer: Layer, scale: float) -> int:
    """The integer that stands for what a convolution is padded with; ncnn pads after it has quantized."""
    value = np.asarray(layer.numbers(18)[:1] or (0.0,), np.float32) * np.float32(scale)
    return int(np.clip(round_half_away(value), -127, 127)[0])


def _int8_layer(layer: Layer, table: Table, given: npt.NDArray[np.int8] | None) -> Layer:
    scales = np.asarray(table.weights[layer.name], np.float32)
    q = quantize_weights(layer, scales) if given is None else np.asarray(given, np.int8).reshape(-1)
    weight = layer.blob("weight")
    assert weight is not None
    if q.size != weight.data.size or len(scales) != weight_groups(layer):
        raise OnnxlintError(
            printable(f"{table.path}: layer '{layer.name}' got {q.size} int8 weights for {weight.data.size}")
        )
    term = "1" if layer.type == "ConvolutionDepthWise" else "2"
    if layer.type != "InnerProduct" and any(layer.numbers(18)):
        layer = layer.with_param(18, f"{pad_value(layer, float(table.inputs[layer.name][0])):.1f}")
    return layer.with_param(8, term).with_blobs(
        Blob("weight", q, TAG_INT8),
        Blob("weight_scales", scales),
        Blob("bottom_scale", np.asarray(table.inputs[layer.name], np.float32)),
    )


def _with_top_scale(layer: Layer, scale: npt.NDArray[np.float32]) -> Layer:
    return layer.with_param(8, str(layer.integer(8) + 100)).with_blobs(Blob("top_scale", scale))


def _is_int8_convolution(layer: Layer) -> bool:
    return layer.type in ("Convolution", "ConvolutionDepthWise") and bool(layer.integer(8))


def _requantized(net: Network) -> dict[str, npt.NDArray[np.float32]]:
    """Layers whose output may stay int8 → the scale it gets: that of the (first) layer that reads it."""
    consumers = net.consumers()
    out = {}
    for layer in net.layers:
        if not _is_int8_convolution(layer) or layer.integer(8) > 100 or len(layer.tops) != 1:
            continue
        readers = [net.layers[i] for i in consumers.get(layer.tops[0], [])]
        if len(readers) != 1:
            continue
        if readers[0].type == "Split":
            tops = readers[0].tops
            if not all(top in consumers for top in tops):  # one of them is an output of the net
                continue
            readers = [net.layers[i] for top in tops for i in consumers[top]]
        if readers and all(_is_int8_convolution(r) for r in readers):
            scale = readers[0].blob("bottom_scale")
            assert scale is not None
            out[layer.name] = np.asarray(scale.data, np.float32)
    return out


def _state(layer: Layer) -> State:
    dtypes = {b.data.dtype for b in layer.blobs if b.tag is not None}
    if np.dtype(np.int8) in dtypes:
        return "int8"
    return "fp16" if np.dtype(np.float16) in dtypes else "fp32"
