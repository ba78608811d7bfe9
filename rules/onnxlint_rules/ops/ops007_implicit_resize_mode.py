"""OPS007: a Resize without explicit sampling attributes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, Node, Options, Request, Rule, Severity, Silent
from onnxlint_rules._graph import constant_integers, constant_reals

if TYPE_CHECKING:
    from onnxlint import Surgeon

_PROBE = 64
"""Input pixels to compare the two readings on, where the size is not known."""


class ImplicitResizeMode(Rule):
    """A Resize relies on a default of `coordinate_transformation_mode` or `nearest_mode` that changed between opsets.

    ## What it does

    Reports Resize of opset 11 and later where

    - mode is linear or cubic, sizes change, and `coordinate_transformation_mode` is left out (then it is `half_pixel`);
    - mode is nearest, `coordinate_transformation_mode` or `nearest_mode` is left out (then `half_pixel` and
      `round_prefer_floor`), and constant scales show that the older reading (`asymmetric`, `floor`) takes other pixels.

    Doubling and tripling with nearest take the same pixels under both readings and stay silent, as do scales that are
    not known.

    ## Why it hurts

    The exporters of PyTorch and TensorFlow always write both attributes. Where they are absent, the node came out of
    something else, and the default is often not what was meant:

    - opset 10 meant `asymmetric` and `floor`. `onnx.version_converter` and scripts that raise the opset leave the
      attributes away, and so shift every map by a part of a pixel.
    - ncnn's nearest is always `asymmetric` with `floor`, and onnx2ncnn reads neither attribute but for `align_corners`:
      with the defaults of ONNX the same file gives other pixels.
    - A shift of half a pixel in a feature pyramid costs accuracy without any error message.

    ## Fix it at the source

    ```python
    # before
    helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    # after
    helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear",
                     coordinate_transformation_mode="half_pixel")
    ```

    ## Fix safety

    Writing the defaults into the node changes nothing and is exact. Whether they are right only the original model
    tells: compare with it before anything else.

    ## References

    - [Resize](https://onnx.ai/onnx/operators/onnx__Resize.html): defaults, and
      [Resize 10](https://onnx.ai/onnx/operators/onnx__Resize.html#resize-10) before them
    - [onnx.version_converter changes numbers](https://github.com/onnx/onnx/issues/8480)
    - [tf2onnx](https://github.com/onnx/tensorflow-onnx/pull/719) and
      [onnxconverter-common](https://github.com/microsoft/onnxconverter-common/pull/32) had to write the attributes
    - [ncnn, interp.cpp](https://github.com/Tencent/ncnn/blob/master/src/layer/interp.cpp) and
      [onnx2ncnn.cpp](https://github.com/Tencent/ncnn/blob/master/tools/onnx/onnx2ncnn.cpp)
    """

    code = "OPS007"
    name = "implicit-resize-mode"
    severity = Severity.INFO
    help = "set coordinate_transformation_mode and nearest_mode explicitly, as in the original model"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,2,8,8] x) => (float[1,2,16,16] y) <float[4] scales = {1, 1, 2, 2}> {
                y = Resize <mode = "linear"> (x, , scales)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,2,8,8] x) => (float[1,2,16,16] y) <float[4] scales = {1, 1, 2, 2}> {
                y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , scales)
            }
            """,
            says="linear Resize does not set coordinate_transformation_mode",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,2,8,8] x) => (float[1,2,2,2] y) <float[4] scales = {1, 1, 0.25, 0.25}> {
                y = Resize <mode = "nearest"> (x, , scales)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,2,8,8] x) => (float[1,2,2,2] y) <float[4] scales = {1, 1, 0.25, 0.25}> {
                y = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel",
                            nearest_mode = "round_prefer_floor"> (x, , scales)
            }
            """,
            says="nearest Resize by 0.25 does not set coordinate_transformation_mode and nearest_mode",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,H,W] x) => (float[N,2,A,B] y) <float[4] scales = {1, 1, 2, 2}> {
                y = Resize <mode = "nearest"> (x, , scales)
            }
            """,
            why="nearest doubling takes the same pixels either way",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,8,8] x) => (float[N,2,20,20] y) <float[4] scales = {1, 1, 2.5, 2.5}> {
                a = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
                            nearest_mode = "floor"> (x, , scales)
                y = Relu (a)
            }
            """,
            why="both attributes are written",
        ),
        Silent(
            """
            <ir_version: 5, opset_import: ["": 10]>
            g (float[1,2,8,8] x) => (float[1,2,16,16] y) <float[4] scales = {1, 1, 2, 2}> {
                y = Resize <mode = "linear"> (x, scales)
            }
            """,
            why="Resize 10 has no such attributes",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        if view.opset < 11:
            return
        for node in view.nodes("Resize"):
            text = _implicit(node)
            if text:
                yield self.found(view.at(node), text, fix=SAFE, group="Resizes leave how pixels map to the default")

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        node = view.find(finding.location)
        held = surgeon.node(node)
        held.attrs.setdefault("coordinate_transformation_mode", "half_pixel")
        if node.attribute("mode", "nearest") == "nearest":
            held.attrs.setdefault("nearest_mode", "round_prefer_floor")


def _implicit(node: Node) -> str:
    mode = node.attribute("mode", "nearest")
    coordinates = node.attribute("coordinate_transformation_mode")
    rounding = node.attribute("nearest_mode")
    if coordinates is not None and (mode != "nearest" or rounding is not None):
        return ""
    scales = _scales(node)
    if mode != "nearest":
        if scales is not None and all(scale == 1 for scale, _ in scales):
            return ""
        default = "half_pixel by default, asymmetric before opset 11"
        return f"{mode} Resize does not set coordinate_transformation_mode: {default}"
    missing = [
        name
        for name, value in (("coordinate_transformation_mode", coordinates), ("nearest_mode", rounding))
        if value is None
    ]
    different = [
        scale
        for scale, size in scales or ()
        if _pixels(scale, size, coordinates or "half_pixel", rounding or "round_prefer_floor")
        != _pixels(scale, size, coordinates or "asymmetric", rounding or "floor")
    ]
    if not different:
        return ""
    return (
        f"nearest Resize by {different[0]:g} does not set {' and '.join(missing)}: the default takes other pixels than "
        "asymmetric and floor do"
    )


def _scales(node: Node) -> list[tuple[float, int]] | None:
    """(scale, input size) of each axis that changes; None if scales are not constant.

    An input size that is not known comes as one that is large enough to tell two readings apart.
    """
    shape = node.shape(0)
    scales = constant_reals(node, 2)
    if not scales:
        target = constant_integers(node, 3)
        if target is None or shape is None or len(shape) != len(target):
            return None
        pairs = list(zip(target, shape, strict=True))
        if not all(isinstance(dim, int) and dim > 0 for _, dim in pairs):
            return None
        scales = [size / dim for size, dim in pairs if isinstance(dim, int)]
    axes = node.attribute("axes")
    sizes: list[int] = [_PROBE] * len(scales)
    if shape is not None and axes is None and len(shape) == len(scales):
        sizes = [dim if isinstance(dim, int) else _PROBE for dim in shape]
    return [(scale, size) for scale, size in zip(scales, sizes, strict=True) if scale > 0 and math.isfinite(scale)]


def _pixels(scale: float, size: int, coordinates: str, rounding: str) -> list[int]:
    """Which input pixel each output pixel takes, for the first ones."""
    out = []
    length = min(math.floor(size * scale), 4 * _PROBE)
    for i in range(length):
        if coordinates == "asymmetric":
            x = i / scale
        elif coordinates in ("half_pixel", "half_pixel_symmetric") or (
            coordinates == "pytorch_half_pixel" and length > 1
        ):
            x = (i + 0.5) / scale - 0.5
        elif coordinates == "align_corners" and length > 1:
            x = i * (size - 1) / (size * scale - 1)
        elif coordinates == "tf_half_pixel_for_nn":
            x = (i + 0.5) / scale
        else:
            x = 0.0
        if rounding == "floor":
            taken = math.floor(x)
        elif rounding == "ceil":
            taken = math.ceil(x)
        else:
            taken = math.ceil(x - 0.5) if rounding == "round_prefer_floor" else math.floor(x + 0.5)
        out.append(min(max(taken, 0), size - 1))
    return out
