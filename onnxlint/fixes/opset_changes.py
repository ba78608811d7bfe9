"""Changes between the versions of ONNX's operators, 7 to 28, and the conversion of each.

Every operator that got a new version is either in `SAME` (a node that was valid before means the same now) or has a step
in `STEPS` that rewrites the node. The tests hold both against the schemas that onnx itself has.

Sources: the operators' histories in https://github.com/onnx/onnx/blob/main/docs/Changelog.md, and for what these leave open
(nearest pixels before opset 11) what onnxruntime does, measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from onnxlint.fixes.opset_same import SAME as SAME
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from onnxlint.graph.dims import Shape

OLDEST, NEWEST = 7, 28
"""Operator sets that the tables cover; onnxruntime runs none before 7."""

Replaced = list[tuple["onnx.NodeProto", int]]
"""Nodes that take the place of one, each with the operator set that it is written for."""


class Place(Protocol):
    """The place of a node, with the queries and edits of a conversion step."""

    target: int

    def fail(self, node: onnx.NodeProto, why: str) -> Exception:
        """The error to raise where a node cannot be converted exactly."""

    def value(self, name: str) -> npt.NDArray[np.generic] | None:
        """A small constant's value."""

    def shape(self, name: str) -> Shape | None:
        """An inferred shape."""

    def dtype(self, name: str) -> int:
        """An inferred element type; 0 if it is unknown."""

    def enlarges(self, name: str) -> bool:
        """Whether all numbers of a computed value are provably at least 1."""

    def is_used(self, name: str) -> bool:
        """Whether any node or output reads a value."""

    def constant(self, base: str, values: npt.NDArray[np.generic]) -> str:
        """The name of a new constant."""

    def made(
        self, like: onnx.NodeProto, op: str, inputs: Sequence[str], output: str, **attributes: Any
    ) -> onnx.NodeProto:
        """A new node that does a part of another one's work."""

    def fresh(self, base: str) -> str:
        """A name for a new value."""

    def note(self, text: str) -> None:
        """Something for the user to know."""

    def rounds(self, text: str) -> None:
        """A note: from here on results are equal only within rounding."""

    def released(self, name: str) -> None:
        """A node no longer reads a constant, which goes if nobody else does."""

    def dropped(self, name: str) -> None:
        """A node no longer makes a value."""


Step = Callable[["onnx.NodeProto", Place], "Replaced | None"]
"""Changes a node in place and returns None, or returns what takes its place."""

_FLOATS = (1, 10, 11, 16)
_INTEGERS = frozenset((2, 3, 4, 5, 6, 7, 12, 13))


# Attributes


def _take(node: onnx.NodeProto, name: str, place: Place) -> onnx.AttributeProto | None:
    """An attribute, removed from the node; None if it has none."""
    import onnx

    for i, attribute in enumerate(node.attribute):
        if attribute.name == name:
            if attribute.ref_attr_name:
                raise place.fail(node, f"its {name} is an attribute of the function around it")
            taken = onnx.AttributeProto()
            taken.CopyFrom(attribute)
            del node.attribute[i]
            return taken
    return None


def _has(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name for attribute in node.attribute)


def _integer(node: onnx.NodeProto, name: str, default: int, place: Place) -> int:
    for attribute in node.attribute:
        if attribute.name == name:
            if attribute.ref_attr_name:
                raise place.fail(node, f"its {name} is an attribute of the function around it")
            return attribute.i
    return default


def _integers(node: onnx.NodeProto, name: str) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == name), [])


def _text(node: onnx.NodeProto, name: str, default: str, place: Place) -> str:
    for attribute in node.attribute:
        if attribute.name == name:
            if attribute.ref_attr_name:
                raise place.fail(node, f"its {name} is an attribute of the function around it")
            return attribute.s.decode("utf-8", "replace")
    return default


def _set(node: onnx.NodeProto, name: str, value: int | str) -> None:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            attribute.CopyFrom(helper.make_attribute(name, value))
            return
    node.attribute.append(helper.make_attribute(name, value))


def _set_input(node: onnx.NodeProto, i: int, name: str) -> None:
    while len(node.input) <= i:
        node.input.append("")
    node.input[i] = name
    while node.input and not node.input[-1]:
        del node.input[-1]


def _input(node: onnx.NodeProto, i: int) -> str:
    return node.input[i] if i < len(node.input) else ""


def _int64(values: Sequence[int]) -> npt.NDArray[np.generic]:
    import numpy as np

    return np.array(values, dtype=np.int64)


# Attributes that became inputs


def _slice_10(node: onnx.NodeProto, place: Place) -> None:
    for i, name in ((1, "starts"), (2, "ends"), (3, "axes")):
        attribute = _take(node, name, place)
        if attribute is not None:
            _set_input(node, i, place.constant(name, _int64(attribute.ints)))
        elif name != "axes":
            raise place.fail(node, f"it has no {name}")


def _top_k_10(node: onnx.NodeProto, place: Place) -> None:
    attribute = _take(node, "k", place)
    if attribute is None:
        raise place.fail(node, "it has no k")
    _set_input(node, 1, place.constant("k", _int64([attribute.i])))


def _clip_11(node: onnx.NodeProto, place: Place) -> None:
    import numpy as np
    from onnx import helper

    limit = float(np.finfo(np.float32).max)
    bounds = [(i, name, _take(node, name, place)) for i, name in ((1, "min"), (2, "max"))]
    wide = place.dtype(_input(node, 0)) not in (0, 1)  # for float32 the defaults are what the inputs' are
    for i, name, attribute in bounds:
        default = -limit if name == "min" else limit
        value = default if attribute is None else attribute.f
        if value == default and not wide:
            continue
        kind = place.dtype(_input(node, 0))
        if kind not in _FLOATS:
            raise place.fail(node, f"the element type of its input, which {name} must have, is not known")
        with np.errstate(over="ignore"):
            bound = np.array(value, dtype=np.float32).astype(helper.tensor_dtype_to_np_dtype(kind))
        _set_input(node, i, place.constant(name, bound))


def _pad_11(node: onnx.NodeProto, place: Place) -> None:
    import numpy as np
    from onnx import helper

    pads = _take(node, "pads", place)
    value = _take(node, "value", place)
    if pads is None:
        raise place.fail(node, "it has no pads")
    _set_input(node, 1, place.constant("pads", _int64(pads.ints)))
    if value is None or value.f == 0 or _text(node, "mode", "constant", place) != "constant":
        return
    kind = place.dtype(_input(node, 0))
    if kind not in _FLOATS:
        raise place.fail(node, "the element type of its input, which the value must have, is not known")
    with np.errstate(over="ignore"):
        constant = np.array(value.f, dtype=np.float32).astype(helper.tensor_dtype_to_np_dtype(kind))
    _set_input(node, 2, place.constant("pad_value", constant))


def _dropout_10(node: onnx.NodeProto, place: Place) -> None:
    if len(node.output) > 1:
        if node.output[1] and place.is_used(node.output[1]):
            raise place.fail(node, "its mask is used, and runtimes differ in the mask when nothing is dropped")
        place.dropped(node.output[1])
        del node.output[1:]


def _dropout_12(node: onnx.NodeProto, place: Place) -> None:
    import numpy as np

    _dropout_10(node, place)
    ratio = _take(node, "ratio", place)
    if ratio is not None:
        _set_input(node, 1, place.constant("ratio", np.array(ratio.f, dtype=np.float32)))


def _axes(node: onnx.NodeProto, place: Place) -> None:
    axes = _take(node, "axes", place)
    if axes is not None and (axes.ints or node.op_type == "Unsqueeze"):
        _set_input(node, 1, place.constant("axes", _int64(axes.ints)))
    elif axes is not None and node.op_type == "Squeeze":
        raise place.fail(node, "its list of axes is empty, which runtimes take for all or for none")


def _split_13(node: onnx.NodeProto, place: Place) -> None:
    split = _take(node, "split", place)
    if split is not None and split.ints:
        _set_input(node, 1, place.constant("split", _int64(split.ints)))


def _split_18(node: onnx.NodeProto, place: Place) -> None:
    if not _input(node, 1):
        _set(node, "num_outputs", len(node.output))


def _dft_20(node: onnx.NodeProto, place: Place) -> None:
    import numpy as np

    axis = _take(node, "axis", place)
    _set_input(node, 2, place.constant("axis", np.array(1 if axis is None else axis.i, dtype=np.int64)))


# Resizing


def _upsample_9(node: onnx.NodeProto, place: Place) -> None:
    import numpy as np

    scales = _take(node, "scales", place)
    if scales is None:
        raise place.fail(node, "it has no scales")
    _set_input(node, 1, place.constant("scales", np.array(list(scales.floats), dtype=np.float32)))


def _upsample_10(node: onnx.NodeProto, place: Place) -> Replaced:
    """Upsample's nearest pixel is at or before `x / scale`; so is that of Resize 10, for factors of 1 and more."""
    node.op_type = "Resize"
    if place.target < 11:
        return [(node, 10)]
    _asymmetric(node, place, "floor")
    return [(node, 11)]


def _resize_11(node: onnx.NodeProto, place: Place) -> None:
    mode = "floor"
    if _text(node, "mode", "nearest", place) == "nearest":
        scales = place.value(_input(node, 1))
        if scales is not None:
            mode = _nearest_mode([float(s) for s in scales.reshape(-1)], node, place)
        elif not place.enlarges(_input(node, 1)):
            why = "it takes the nearest pixel by computed factors, and below 1 that was another pixel before opset 11"
            raise place.fail(node, why)
    _asymmetric(node, place, mode)


def _nearest_mode(scales: list[float], node: onnx.NodeProto, place: Place) -> str:
    """How the nearest pixel was found before there were words for it.

    onnxruntime takes the pixel before `x / scale` for factors of at least 1, and the one after it below 1. Where
    `x / scale` is always a whole number, that is the same.
    """
    down = [s for s in scales if s < 1 and (1 / s) % 1 != 0]
    up = [s for s in scales if s > 1]
    if down and up:
        raise place.fail(node, "it takes the nearest pixel, reduces one axis and enlarges another: no mode does that")
    if down:
        place.note(
            f"Resize {printable(node.name)!r} reduces by a factor that is not a whole number: older "
            "opsets do not define the nearest pixel; the model now states onnxruntime's choice (nearest_mode ceil)"
        )
    return "ceil" if down else "floor"


def _asymmetric(node: onnx.NodeProto, place: Place, nearest_mode: str) -> None:
    """From Resize 10 to 11: the only coordinates that there were get a name, and the regions of interest a place."""
    import numpy as np

    mode = _text(node, "mode", "nearest", place)
    if mode not in ("nearest", "linear"):
        raise place.fail(node, "its mode is neither nearest nor linear")
    _set(node, "coordinate_transformation_mode", "asymmetric")
    if mode == "nearest":
        _set(node, "nearest_mode", nearest_mode)
    scales = _input(node, 1)
    # Until 13 regions may not be left out.
    _set_input(node, 1, "" if place.target >= 13 else place.constant("roi", np.zeros(0, np.float32)))
    _set_input(node, 2, scales)


def _resize_13(node: onnx.NodeProto, place: Place) -> None:
    scales, sizes = _input(node, 2), _input(node, 3)
    if scales and sizes:
        # From now on it is an error to give both, even an empty one. Its shape tells: an initializer that is listed as an
        # input has no certain numbers.
        empty = next((i for i, name in ((2, scales), (3, sizes)) if 0 in (place.shape(name) or ())), None)
        if empty is not None:
            place.released(node.input[empty])
            _set_input(node, empty, "")
    if _text(node, "coordinate_transformation_mode", "half_pixel", place) != "tf_half_pixel_for_nn":
        return
    if _text(node, "mode", "nearest", place) == "nearest":
        value = place.value(_input(node, 2))
        mode = _text(node, "nearest_mode", "round_prefer_floor", place)
        if value is not None and mode == "floor" and all(map(_is_same_map, {float(s) for s in value.reshape(-1)})):
            _set(node, "coordinate_transformation_mode", "half_pixel")
            _set(node, "nearest_mode", "round_prefer_ceil")
            return
    raise place.fail(node, "opset 13 has no coordinate_transformation_mode tf_half_pixel_for_nn")


def _is_same_map(scale: float) -> bool:
    """Whether `floor((x + 0.5) / scale)` is `floor((x + 0.5) / scale - 0.5 + 0.5)` in float32, for 16,384 pixels."""
    import numpy as np

    at = (np.arange(1 << 14, dtype=np.float32) + np.float32(0.5)) / np.float32(scale)
    shifted = at - np.float32(0.5)
    rounded = np.where(shifted < 0, np.ceil(shifted - np.float32(0.5)), np.floor(shifted + np.float32(0.5)))
    return bool(np.array_equal(np.maximum(rounded, 0), np.floor(at)))


# Softmax and others


def _softmax_13(node: onnx.NodeProto, place: Place) -> Replaced | None:
    """Until 13 all axes from `axis` on are one; then `axis` is meant alone."""
    axis = _integer(node, "axis", 1, place)
    shape = place.shape(_input(node, 0))
    if shape is not None:
        place_of = axis + len(shape) if axis < 0 else axis
        if all(dim == 1 for dim in shape[place_of + 1 :]):
            _set(node, "axis", axis)
            return None
    data, output = node.input[0], node.output[0]
    flat, done = place.fresh(f"{output}_flat"), place.fresh(f"{output}_done")
    flatten = place.made(node, "Flatten", [data], flat, axis=axis)
    nodes: Replaced = [(flatten, 13)]
    node.input[0], node.output[0] = flat, done
    _set(node, "axis", -1)
    nodes.append((node, 13))
    if shape is not None and sum(not isinstance(dim, int) for dim in shape) <= 1 and 0 not in shape:
        target = place.constant("shape", _int64([dim if isinstance(dim, int) else -1 for dim in shape]))
    else:
        target = place.fresh(f"{output}_shape")
        nodes.append((place.made(node, "Shape", [data], target), 13))
    # The flat value has another rank: a size of 0 is meant as such, and must not copy one of its sizes.
    literal = {"allowzero": 1} if place.target >= 14 else {}
    nodes.append((place.made(node, "Reshape", [done, target], output, **literal), 13))
    return nodes


def _no_integers(node: onnx.NodeProto, place: Place) -> None:
    if place.dtype(_input(node, 0)) in _INTEGERS:
        raise place.fail(node, "it is no longer defined for integers")


# Normalization


def _batch_normalization_9(node: onnx.NodeProto, place: Place) -> None:
    spatial = _take(node, "spatial", place)
    if spatial is not None and spatial.i == 0:
        raise place.fail(node, "it normalizes each pixel by itself (spatial = 0), which opset 9 does not support")


def _batch_normalization_14(node: onnx.NodeProto, place: Place) -> None:
    if any(node.output[1:]):
        raise place.fail(node, "it was exported in training mode; export the model after model.eval()")
    del node.output[1:]


def _group_normalization_21(node: onnx.NodeProto, place: Place) -> Replaced | None:
    """Scale and bias have a number for each group; from 21 on for each channel."""
    groups = _integer(node, "num_groups", 0, place)
    shape = place.shape(_input(node, 0))
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise place.fail(node, "it needs a scale for each channel, and the number of channels is unknown")
    if place.dtype(_input(node, 0)) != 1:
        place.rounds("GroupNormalization of other types than float32 computes in float32 from opset 21 on")
    repeats = channels // groups
    if repeats == 1:
        return None
    nodes: Replaced = []
    for i in (1, 2):
        name = node.input[i]
        column, block, flat = (place.fresh(f"{name}_{what}") for what in ("column", "block", "channels"))
        nodes += [
            (place.made(node, "Reshape", [name, place.constant("shape", _int64([-1, 1]))], column), 18),
            (place.made(node, "Expand", [column, place.constant("shape", _int64([groups, repeats]))], block), 18),
            (place.made(node, "Reshape", [block, place.constant("shape", _int64([-1]))], flat), 18),
        ]
        node.input[i] = flat
    return [*nodes, (node, 21)]


def _mean_variance_normalization_13(node: onnx.NodeProto, place: Place) -> None:
    """The default has not changed, but onnx's own inference fails from 13 on where it is left out."""
    from onnx import helper

    if not _has(node, "axes"):
        node.attribute.append(helper.make_attribute("axes", [0, 2, 3]))


# Pooling and sampling


def _average_pool_19(node: onnx.NodeProto, place: Place) -> None:
    place.rounds("onnxruntime averages in another order from AveragePool 19 on: the last bit may differ")


def _pool_22(node: onnx.NodeProto, place: Place) -> None:
    """With ceil_mode, windows that begin in the padding at the end are left out from 22 on."""
    if not _integer(node, "ceil_mode", 0, place):
        return
    kernel = _integers(node, "kernel_shape")
    strides = _integers(node, "strides") or [1] * len(kernel)
    dilations = _integers(node, "dilations") or [1] * len(kernel)
    pads = _integers(node, "pads") or [0] * 2 * len(kernel)
    is_auto = _text(node, "auto_pad", "NOTSET", place) not in ("NOTSET", "VALID")
    if not len(kernel) == len(strides) == len(dilations) == len(pads) / 2 or is_auto:
        raise place.fail(node, "its windows at the edge, which ceil_mode includes, cannot be determined")
    for k, stride, dilation, end in zip(kernel, strides, dilations, pads[len(kernel) :], strict=True):
        if end + stride > (k - 1) * dilation + 1:
            raise place.fail(node, "with ceil_mode a window of it may begin in the padding, which opset 22 leaves out")


def _grid_sample_20(node: onnx.NodeProto, place: Place) -> None:
    mode = _text(node, "mode", "bilinear", place)
    new = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}.get(mode)
    if new is None:
        raise place.fail(node, "its mode is not one that opset 16 has")
    if _has(node, "mode"):
        _set(node, "mode", new)


def _roi_align_16(node: onnx.NodeProto, place: Place) -> None:
    _set(node, "coordinate_transformation_mode", "output_half_pixel")


# The rest


def _scatter_11(node: onnx.NodeProto, place: Place) -> Replaced:
    node.op_type = "ScatterElements"
    return [(node, 11)]


def _scan_9(node: onnx.NodeProto, place: Place) -> None:
    raise place.fail(node, "Scan of opset 8 has a batch axis, which no later one has")


def _cast_24(node: onnx.NodeProto, place: Place) -> None:
    if _integer(node, "to", 0, place) in (18, 20) and _integer(node, "saturate", 1, place):
        raise place.fail(node, "infinity becomes the largest number of its float8 type, no longer NaN")


def _cast_like_24(node: onnx.NodeProto, place: Place) -> None:
    if place.dtype(_input(node, 1)) in (18, 20) and _integer(node, "saturate", 1, place):
        raise place.fail(node, "infinity becomes the largest number of its float8 type, no longer NaN")


STEPS: dict[tuple[str, int], Step] = {
    ("BatchNormalization", 9): _batch_normalization_9,
    ("Scan", 9): _scan_9,
    ("Upsample", 9): _upsample_9,
    ("Dropout", 10): _dropout_10,
    ("Slice", 10): _slice_10,
    ("TopK", 10): _top_k_10,
    ("Upsample", 10): _upsample_10,
    ("Clip", 11): _clip_11,
    ("Pad", 11): _pad_11,
    ("Resize", 11): _resize_11,
    ("Scatter", 11): _scatter_11,
    ("Dropout", 12): _dropout_12,
    ("Erf", 13): _no_integers,
    ("Hardmax", 13): _softmax_13,
    ("LogSoftmax", 13): _softmax_13,
    ("MeanVarianceNormalization", 13): _mean_variance_normalization_13,
    ("ReduceSum", 13): _axes,
    ("Resize", 13): _resize_13,
    ("Softmax", 13): _softmax_13,
    ("Split", 13): _split_13,
    ("Squeeze", 13): _axes,
    ("Unsqueeze", 13): _axes,
    ("BatchNormalization", 14): _batch_normalization_14,
    ("RoiAlign", 16): _roi_align_16,
    **{
        (f"Reduce{kind}", 18): _axes
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
    ("Split", 18): _split_18,
    ("AveragePool", 19): _average_pool_19,
    ("DFT", 20): _dft_20,
    ("GridSample", 20): _grid_sample_20,
    ("GroupNormalization", 21): _group_normalization_21,
    ("AveragePool", 22): _pool_22,
    ("MaxPool", 22): _pool_22,
    ("Cast", 24): _cast_24,
    ("CastLike", 24): _cast_like_24,
    ("ReduceLogSum", 28): _no_integers,
    ("ReduceLogSumExp", 28): _no_integers,
}
"""(operator, version) → what makes a node of the version before one of this version."""

CHANGES: dict[str, tuple[int, ...]] = {
    op: tuple(sorted(version for name, version in (*SAME, *STEPS) if name == op))
    for op in {op for op, _ in (*SAME, *STEPS)}
}
"""Operator → versions that it got after opset 7."""
