"""QNT002: channels that int8 with one scale per tensor loses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from onnxlint import Example, Finding, GraphView, OnnxlintError, Options, Rule, Silent, counted
from onnxlint_rules._graph import label, names_shown

if TYPE_CHECKING:
    from onnxlint_rules.qnt._weights import Weight

LOST_DB = 10.0
"""A channel with less signal to noise than this is lost: the error is a third of its weights (root mean square)."""

SHARE = 0.1
"""Of a layer's living channels, so many have to be lost."""

DEAD = 1e-3
"""A channel whose largest weight is this part of the layer's largest, or less, is taken for dead."""


class ChannelOutliers(Rule):
    """The ranges of a layer's output channels differ too much for int8 with one scale.

    ## What it does

    Reads the weights (`--weights`) of each Conv, ConvTranspose, Gemm and MatMul, rounds them to int8 twice, with one scale for the
    tensor (largest magnitude / 127) and with one for each output channel, and compares each channel's signal to noise,
    10·log₁₀(Σw² / Σerror²). A channel is lost where one scale leaves less than 10 dB (an error of a third of its
    weights) and a scale of its own 10 dB more than that. Reports, once, the layers that lose a tenth of their channels or more;
    channels under 1/1000 of the largest range are taken for dead, and not counted.

    ## Why it hurts

    Depthwise convolutions and folded batch normalization give channels of very different range. onnxruntime's
    `quantize_static` and `quantize_dynamic` use one scale per tensor unless told otherwise, and so do many NPUs: the large
    channel sets the step, and the weights of small ones become 0, 1 or 2 steps. ncnn and TensorRT have a scale for each
    output channel.

    ## Fix it at the source

    ```python
    # before
    quantize_static("model.onnx", "int8.onnx", reader)
    # after (QDQ with an axis needs opset 13 or newer)
    quantize_static("model.onnx", "int8.onnx", reader, per_channel=True)
    ```

    Where the hardware has one scale only: equalize the ranges of neighbouring layers before (cross-layer equalization),
    train with quantization, or leave these layers in float16.

    ## Fix safety

    Equalization divides an output channel by a factor and multiplies the same input channel of the next layer by it: exact but
    for rounding through ReLU, LeakyReLU and PReLU, with a single reader, and wrong through anything else (Sigmoid, SiLU,
    HardSwish, a residual sum).

    ## References

    - [Data-Free Quantization Through Weight Equalization and Bias Correction](https://arxiv.org/abs/1906.04721) (Nagel et al., 2019), section 3.1
    - [Quantizing deep convolutional networks for efficient inference](https://arxiv.org/abs/1806.08342) (Krishnamoorthi, 2018), section 3.1
    - [Quantize ONNX models](https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html): `per_channel`
    - [TensorRT: quantized types](https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html): per-tensor and per-channel
    - [ncnn2table.cpp](https://github.com/Tencent/ncnn/blob/master/tools/quantize/ncnn2table.cpp): a scale for each output channel
    """  # noqa: E501 - one link a line

    code = "QNT002"
    name = "channel-outliers"
    needs_weights = True
    help = "quantize per channel, or equalize the layers first"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,3] y) <float[2,3] w = {100, 0.3, 0.5, -70, 0.2, -0.7}> {
                a = MatMul (x, w)
                y = Relu (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,3] y)
            <float[2,3] w = {1, 0.3, 0.5, -0.7, 0.2, -0.7}, float[3] scale = {100, 1, 1}> {
                a = MatMul (x, w)
                b = Relu (a)
                y = Mul (b, scale)
            }
            """,
            says="keeps less than 10 dB in 2 of 3 channels (median",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,3] y) <float[2,3] w = {1, 0.3, 0.5, -0.7, 0.2, -0.7}> {
                y = MatMul (x, w)
            }
            """,
            why="ranges that differ by a factor of 3 are common",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,3] y) <float[2,3] w = {1, 0.3, 0.00000001, -0.7, 0.2, 0}> {
                y = MatMul (x, w)
            }
            """,
            why="the third channel is dead",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        from onnxlint_rules.qnt._weights import weights

        layers = [layer for weight in weights(view) if (layer := _compare(view, weight)) is not None]
        if not layers:
            return
        worst = max(layers, key=lambda layer: (layer.lost / layer.living, -layer.per_tensor))
        rest = len(layers) - 1
        others = f"; {counted(rest, 'other layer')} {'loses' if rest == 1 else 'lose'} channels too" if rest else ""
        yield self.found(
            view.at(worst.weight.node, value=worst.weight.tensor.name),
            f"int8 with one scale keeps less than {LOST_DB:.0f} dB in {worst.lost:,} of {worst.living:,} channels "
            f"(median of all: {worst.per_tensor:.0f} dB, with a scale each {worst.per_channel:.0f} dB){others}",
            layers=names_shown((f"{label(layer.weight.node)} {layer.lost}/{layer.living}" for layer in layers), 10),
            dead_channels=worst.dead,
        )


class _Layer(NamedTuple):
    """A layer that loses channels; medians in dB over the living ones."""

    weight: Weight
    living: int
    dead: int
    lost: int
    per_tensor: float
    per_channel: float


def _compare(view: GraphView, weight: Weight) -> _Layer | None:
    """Loss of int8 per channel of a layer; None if few channels lose much."""
    import numpy as np

    from onnxlint_rules.qnt._weights import channel_blocks

    try:
        blocks = list(channel_blocks(view, weight))
    except OnnxlintError:
        return None  # SEC002 and SPC001 report data that cannot be read
    channels = max((block.first + block.values.shape[1] for block in blocks), default=0)
    if channels < 2:
        return None
    with np.errstate(all="ignore"):
        largest = np.zeros(channels)
        for block in blocks:
            part = largest[block.channels]
            for values in block.pieces():
                np.maximum(part, np.abs(values).max(axis=(0, 2)), out=part)
        top = float(largest.max())
        living = largest > DEAD * top
        if not np.isfinite(top) or living.sum() < 2 or top <= 4 * float(largest[living].min()):
            return None  # ranges this close lose nothing: no need to read the weights again
        energy, shared, own = np.zeros((3, channels))
        step = np.float32(top / 127)
        for block in blocks:
            steps = np.maximum(largest[block.channels], 1e-30).astype(np.float32)[None, :, None] / np.float32(127)
            for values in block.pieces():
                energy[block.channels] += np.square(values).sum(axis=(0, 2), dtype=np.float64)
                for total, size in ((shared, step), (own, steps)):
                    error = np.rint(values / size) * size - values
                    total[block.channels] += np.square(error).sum(axis=(0, 2), dtype=np.float64)
        shared_db = 10 * np.log10(energy / np.maximum(shared, 1e-300))[living]
        own_db = 10 * np.log10(energy / np.maximum(own, 1e-300))[living]
    lost = int(((shared_db < LOST_DB) & (own_db >= shared_db + LOST_DB)).sum())
    count = int(living.sum())
    if not lost or lost < SHARE * count:
        return None
    return _Layer(
        weight, count, channels - count, lost, float(np.median(shared_db)), min(float(np.median(own_db)), 99.0)
    )
