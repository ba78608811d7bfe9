"""ncnn's two files: `.param` (text, the graph) and `.bin` (the weights, in layer order, without a header).

Source: the loaders of ncnn (July 2026); `.param` values keep their spelling, so that reading and writing
a file of the real tools gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxlint.errors import OnnxlintError
from onnxlint.model.output import write_together
from onnxlint.model.reading import read_regular
from onnxlint.text import printable

MAGIC = 7767517
TAG_FP16 = 0x01306B47
TAG_INT8 = 0x000D4B38
TAG_FP32 = (0, 0x0002C056)
ARRAY_BASE = -23300
"""An array parameter `id` is written as `-23300 - id = length,v1,v2,…`."""

Array = npt.NDArray[Any]


class _BadError(ValueError):
    """A fault of a line or a layer; the caller adds the file and the layer."""


def _error(message: str) -> OnnxlintError:
    return OnnxlintError(printable(message))


@dataclass(frozen=True)
class Blob:
    """One weight array of a layer.

    `data` is 1-D: float32 (raw and tag 0), float16, int8, or uint8 indices into `codebook`.
    `tag` is None for an untagged (always float32) blob, else the u32 that precedes the data.
    """

    name: str
    data: Array
    tag: int | None = None
    codebook: Array | None = None

    def values(self) -> npt.NDArray[np.float32]:
        """The numbers as float32, shape (size,). int8 weights come out as integers, not dequantized."""
        if self.codebook is not None:
            return np.asarray(self.codebook[self.data], np.float32)
        return np.asarray(self.data, np.float32)


@dataclass(frozen=True)
class Layer:
    """One line of the `.param` file and, once the `.bin` is read, its weights.

    `params` are (id, text) in file order; arrays under their own id, with the text `length,v1,…`.
    """

    type: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: tuple[tuple[int, str], ...] = ()
    arrays: frozenset[int] = frozenset()
    blobs: tuple[Blob, ...] = ()

    def integer(self, key: int, default: int = 0) -> int:
        """The integer parameter `key`."""
        for k, text in self.params:
            if k == key:
                try:
                    return int(text)
                except ValueError:
                    raise _BadError(f"parameter {key}={text[:40]} should be an integer") from None
        return default

    def numbers(self, key: int) -> tuple[float, ...]:
        """The array parameter `key` (empty when absent)."""
        for k, text in self.params:
            if k == key:
                return tuple(float(v) for v in text.split(",")[1 if k in self.arrays else 0 :])
        return ()

    def blob(self, name: str) -> Blob | None:
        """The weight array `name`, or None."""
        return next((b for b in self.blobs if b.name == name), None)

    def with_param(self, key: int, text: str | None) -> Layer:
        """A copy with parameter `key` set (None: removed), kept in the order of ids as ncnn's tools write them."""
        rest = [(k, v) for k, v in self.params if k != key]
        if text is not None:
            at = next((i for i, (k, _) in enumerate(rest) if k > key), len(rest))
            rest.insert(at, (key, text))
        return replace(self, params=tuple(rest), arrays=self.arrays - {key})

    def with_blobs(self, *blobs: Blob) -> Layer:
        """A copy in which the blobs of the same names are replaced and new ones appended."""
        new = {b.name: b for b in blobs}
        kept = [new.pop(b.name, b) for b in self.blobs]
        return replace(self, blobs=(*kept, *new.values()))


@dataclass(frozen=True)
class Network:
    """A net in memory: `layers` in file order; `path` names its source in messages."""

    layers: tuple[Layer, ...]
    blob_count: int
    path: str = "<memory>"

    def layer(self, name: str) -> Layer:
        """The layer called `name`; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def producers(self) -> dict[str, int]:
        """Blob name → index of the layer that makes it."""
        return {top: i for i, layer in enumerate(self.layers) for top in layer.tops}

    def consumers(self) -> dict[str, list[int]]:
        """Blob name → indices of the layers that read it."""
        out: dict[str, list[int]] = {}
        for i, layer in enumerate(self.layers):
            for bottom in layer.bottoms:
                out.setdefault(bottom, []).append(i)
        return out

    def inputs(self) -> list[str]:
        """Names of the input blobs."""
        return [top for layer in self.layers if layer.type == "Input" for top in layer.tops]

    def outputs(self) -> list[str]:
        """Blobs that nothing reads, in file order."""
        read = self.consumers()
        return [top for layer in self.layers for top in layer.tops if top not in read]

    def with_layers(self, new: dict[str, Layer]) -> Network:
        """A copy in which the layers named by the keys are replaced."""
        return replace(self, layers=tuple(new.get(layer.name, layer) for layer in self.layers))


# ---------------------------------------------------------------- .param


def parse_param(data: bytes | str, path: str = "<memory>") -> Network:
    """Read the text of a `.param` file; weights are absent. Raises OnnxlintError naming line and problem."""
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8")
            if "\0" in text:
                raise ValueError
        except ValueError:
            raise _error(
                f"{path}: this is not a text .param file; give the file that pnnx or onnxlint wrote"
                " (not .bin or .param.bin)"
            ) from None
    else:
        text = data
    lines = [(i, line.split()) for i, line in enumerate(text.split("\n"), 1)]
    lines = [(i, words) for i, words in lines if words]
    if not lines or lines[0][1] != [str(MAGIC)]:
        raise _error(
            f"{path}: does not begin with {MAGIC}, so it is not a .param file of ncnn; convert the model again"
        )
    if len(lines) < 2:
        raise _error(f"{path}: ends after its first line; convert the model again")
    number, words = lines[1]
    try:
        layer_count, blob_count = (_int(w) for w in words)
    except ValueError:
        raise _error(f"{path}:{number}: expected 'layers blobs', two integers") from None
    layers: list[Layer] = []
    known: set[str] = set()
    for number, words in lines[2:]:
        try:
            layer = _parse_layer(words)
            for bottom in layer.bottoms:
                if bottom not in known:
                    raise _BadError(f"reads blob '{bottom}', which no earlier layer makes")
            for top in layer.tops:
                if top in known:
                    raise _BadError(f"makes blob '{top}', which another layer already makes")
                known.add(top)
        except _BadError as e:
            name = f"layer '{words[1][:60]}'" if len(words) > 1 else f"'{words[0][:60]}'"
            raise _error(f"{path}:{number}: {name}: {e}; convert the model again") from None
        layers.append(layer)
    if len(layers) != layer_count:
        raise _error(
            f"{path}: says {layer_count} layers and holds {len(layers)}; it was cut or edited: convert the model again"
        )
    if len(known) > blob_count:
        raise _error(f"{path}: says {blob_count} blobs and holds {len(known)}; correct the second number of line 2")
    return Network(tuple(layers), blob_count, path)


def _int(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(text) > 12:
        raise _BadError(f"'{text[:40]}' should be an integer")
    return int(text)


def _parse_layer(words: Sequence[str]) -> Layer:
    if len(words) < 4:
        raise _BadError("expected 'type name bottoms tops …'")
    n_in, n_out = _int(words[2]), _int(words[3])
    if n_in < 0 or n_out < 0 or len(words) < 4 + n_in + n_out:
        raise _BadError(f"says {n_in} inputs and {n_out} outputs, but the line ends before their names")
    bottoms = tuple(words[4 : 4 + n_in])
    tops = tuple(words[4 + n_in : 4 + n_in + n_out])
    params: list[tuple[int, str]] = []
    arrays: set[int] = set()
    for word in words[4 + n_in + n_out :]:
        left, sep, right = word.partition("=")
        if not sep or not right:
            raise _BadError(f"'{word[:40]}' should be id=value")
        key = _int(left)
        if key <= ARRAY_BASE:
            key = ARRAY_BASE - key
            values = right.split(",")
            if _int(values[0]) != len(values) - 1:
                raise _BadError(f"array parameter {key} says {values[0]} values and holds {len(values) - 1}")
            for v in values[1:]:
                _number(v)
            arrays.add(key)
        elif right[0] not in "\"'" and not right[0].isalpha():
            _number(right)
        if any(k == key for k, _ in params):
            raise _BadError(f"parameter {key} is given twice")
        params.append((key, right))
    return Layer(words[0], words[1], bottoms, tops, tuple(params), frozenset(arrays))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _BadError(f"'{text[:40]}' should be a number") from None


def dump_param(net: Network) -> str:
    """The text of the `.param` file, laid out as ncnn's tools do."""
    out = [str(MAGIC), f"{len(net.layers)} {net.blob_count}"]
    for layer in net.layers:
        words = [f"{layer.type:<24} {layer.name:<24} {len(layer.bottoms)} {len(layer.tops)}"]
        words += layer.bottoms
        words += layer.tops
        words += [f"{ARRAY_BASE - k if k in layer.arrays else k}={v}" for k, v in layer.params]
        out.append(" ".join(words))
    return "\n".join(out) + "\n"


# ---------------------------------------------------------------- .bin

Slot = tuple[str, bool, int]
"""(name, tagged, number of elements) of one blob, in the order in which they lie in the file."""


def _convolution(p: Layer) -> Iterator[Slot]:
    if p.integer(19):  # the weights are an input
        return
    yield "weight", True, p.integer(6)
    yield from _bias(p, 5, p.integer(0))
    term = p.integer(8)
    if term:
        yield "weight_scales", False, p.integer(0)
        yield "bottom_scale", False, 1
    if term > 100:
        yield "top_scale", False, 1


def _depthwise(p: Layer) -> Iterator[Slot]:
    if p.integer(19):
        return
    yield "weight", True, p.integer(6)
    yield from _bias(p, 5, p.integer(0))
    term = p.integer(8)
    if term:
        yield "weight_scales", False, p.integer(7, 1) if term in (1, 101) else 1
        yield "bottom_scale", False, 1
    if term > 100:
        yield "top_scale", False, 1


def _inner_product(p: Layer) -> Iterator[Slot]:
    yield "weight", True, p.integer(2)
    yield from _bias(p, 1, p.integer(0))
    if p.integer(8):
        yield "weight_scales", False, p.integer(0)
        yield "bottom_scale", False, 1


def _deconvolution(p: Layer) -> Iterator[Slot]:
    if p.integer(28):
        return
    yield "weight", True, p.integer(6)
    yield from _bias(p, 5, p.integer(0))


def _bias(p: Layer, key: int, size: int) -> Iterator[Slot]:
    if p.integer(key):
        yield "bias", False, size


def _batch_norm(p: Layer) -> Iterator[Slot]:
    for name in ("slope", "mean", "variance", "bias"):
        yield name, False, p.integer(0)


def _scale(p: Layer) -> Iterator[Slot]:
    size = p.integer(0)
    if size != -233:
        yield "scale", False, size
        yield from _bias(p, 1, size)


def _affine(size: int, flag: int, *names: str) -> Callable[[Layer], Iterator[Slot]]:
    def slots(p: Layer) -> Iterator[Slot]:
        if p.integer(flag, 1):
            for name in names:
                yield name, False, p.integer(size)

    return slots


def _raw(*names_and_keys: tuple[str, int]) -> Callable[[Layer], Iterator[Slot]]:
    def slots(p: Layer) -> Iterator[Slot]:
        for name, key in names_and_keys:
            if p.integer(key):
                yield name, False, p.integer(key)

    return slots


def _embed(p: Layer) -> Iterator[Slot]:
    yield "weight", True, p.integer(3)
    yield from _bias(p, 2, p.integer(0))
    if p.integer(18):
        yield "weight_scales", False, 1


def _recurrent(gates: int, biases: int) -> Callable[[Layer], Iterator[Slot]]:
    def slots(p: Layer) -> Iterator[Slot]:
        out = p.integer(0)
        hidden = p.integer(3, out) if gates == 4 else out
        directions = 2 if p.integer(2) == 2 else 1
        yield "weight_xc", True, p.integer(1)
        yield "bias_c", True, hidden * biases * directions
        yield "weight_hc", True, out * hidden * gates * directions
        if hidden != out:
            yield "weight_hr", True, hidden * out * directions
        if p.integer(8):
            yield "weight_hc_scales", False, hidden * gates * directions
            yield "weight_xc_scales", False, hidden * gates * directions

    return slots


def _attention(p: Layer) -> Iterator[Slot]:
    embed, size = p.integer(0), p.integer(2)
    q = size // embed if embed > 0 else 0
    for name, width in (("q", q), ("k", p.integer(3, embed)), ("v", p.integer(4, embed))):
        yield f"{name}_weight", True, embed * width
        yield f"{name}_bias", False, embed
    yield "out_weight", True, embed * q
    yield "out_bias", False, q
    if p.integer(18):
        for name in ("q", "k", "v"):
            yield f"{name}_scales", False, embed
        yield "out_scale", False, 1


def _gemm(p: Layer) -> Iterator[Slot]:
    m, n, k = p.integer(7), p.integer(8), p.integer(9)
    if p.integer(4):
        yield "a", True, m * k
    if p.integer(5):
        yield "b", True, n * k
    if p.integer(6) and p.integer(10) != -1:
        yield "c", True, {0: 1, 1: m, 2: m, 3: m * n, 4: n}.get(p.integer(10), 0)
    if p.integer(18):
        if p.integer(4):
            yield "a_scales", False, m
        if p.integer(5):
            yield "b_scale", False, 1


def _memory_data(p: Layer) -> Iterator[Slot]:
    size = 1
    for key in (0, 1, 11, 2):
        size *= p.integer(key) or 1
    yield "data", p.integer(21, 1) == 0, size


SLOTS: dict[str, Callable[[Layer], Iterator[Slot]]] = {
    "BatchNorm": _batch_norm,
    "Bias": _raw(("bias", 0)),
    "Convolution": _convolution,
    "Convolution1D": _convolution,
    "Convolution3D": _convolution,
    "ConvolutionDepthWise": _depthwise,
    "ConvolutionDepthWise1D": _convolution,
    "ConvolutionDepthWise3D": _convolution,
    "Deconvolution": _deconvolution,
    "Deconvolution1D": _deconvolution,
    "Deconvolution3D": _deconvolution,
    "DeconvolutionDepthWise": _deconvolution,
    "DeconvolutionDepthWise1D": _deconvolution,
    "DeconvolutionDepthWise3D": _deconvolution,
    "DeformableConv2D": _deconvolution,
    "Dequantize": _raw(("scale", 0), ("bias", 1)),
    "Embed": _embed,
    "GRU": _recurrent(3, 4),
    "Gemm": _gemm,
    "GroupNorm": _affine(1, 3, "gamma", "beta"),
    "InnerProduct": _inner_product,
    "InstanceNorm": _affine(0, 2, "gamma", "beta"),
    "LSTM": _recurrent(4, 4),
    "LayerNorm": _affine(0, 2, "gamma", "beta"),
    "MemoryData": _memory_data,
    "MultiHeadAttention": _attention,
    "Normalize": _raw(("scale", 3)),
    "PReLU": _raw(("slope", 0)),
    "Quantize": _raw(("scale", 0)),
    "RMSNorm": _affine(0, 2, "gamma"),
    "RNN": _recurrent(1, 1),
    "Requantize": _raw(("scale_in", 0), ("scale_out", 1), ("bias", 2)),
    "Scale": _scale,
}
"""Every layer type that owns weights, and how they lie in the `.bin`. All others own none."""


def parse_bin(net: Network, data: bytes | memoryview, path: str = "<memory>") -> Network:
    """Give `net` the weights in `data`. The arrays are views of `data`. Raises OnnxlintError."""
    view = memoryview(data)
    at = 0
    layers = []
    for layer in net.layers:
        blobs: list[Blob] = []
        try:
            for name, tagged, size in SLOTS[layer.type](layer) if layer.type in SLOTS else ():
                blob, at = _read_blob(view, at, name, tagged, size)
                blobs.append(blob)
        except _BadError as e:
            raise _error(
                f"{path}: layer '{layer.name}' ({layer.type}): {e}; the .bin is cut or belongs to another .param"
                " than " + net.path
            ) from None
        layers.append(replace(layer, blobs=tuple(blobs)))
    if at != len(view):
        raise _error(
            f"{path}: {len(view) - at} bytes are left after the last layer of {net.path};"
            " the .bin belongs to another .param, or a layer type has weights that onnxlint does not know"
        )
    return replace(net, layers=tuple(layers))


def _take(view: memoryview, at: int, size: int) -> memoryview:
    if size > len(view) - at:
        raise _BadError(f"needs {size} bytes at offset {at}, but the file has {len(view)}")
    return view[at : at + size]


def _read_blob(view: memoryview, at: int, name: str, tagged: bool, size: int) -> tuple[Blob, int]:
    if size < 0:
        raise _BadError(f"{name} would have {size} elements")
    if not tagged:
        return Blob(name, np.frombuffer(_take(view, at, 4 * size), "<f4")), at + 4 * size
    tag = int(np.frombuffer(_take(view, at, 4), "<u4")[0])
    at += 4
    if tag in TAG_FP32:
        return Blob(name, np.frombuffer(_take(view, at, 4 * size), "<f4"), tag), at + 4 * size
    if tag == TAG_FP16:
        data = np.frombuffer(_take(view, at, 2 * size), "<f2")
        return Blob(name, data, tag), at + _padded(2 * size)
    if tag == TAG_INT8:
        return Blob(name, np.frombuffer(_take(view, at, size), "i1"), tag), at + _padded(size)
    book = np.frombuffer(_take(view, at, 1024), "<f4")
    at += 1024
    return Blob(name, np.frombuffer(_take(view, at, size), "u1"), tag, book), at + _padded(size)


def _padded(size: int) -> int:
    return (size + 3) // 4 * 4


def dump_bin(net: Network) -> bytes:
    """The bytes of the `.bin` file."""
    out = bytearray()
    for layer in net.layers:
        for blob in layer.blobs:
            out += blob_bytes(blob)
    return bytes(out)


def blob_bytes(blob: Blob) -> bytes:
    """One blob as it lies in the file: tag, codebook, data, padding to four bytes."""
    data = np.ascontiguousarray(blob.data)
    body = data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
    if blob.tag is None:
        return body
    book = b"" if blob.codebook is None else np.asarray(blob.codebook, "<f4").tobytes()
    padding = b"\0" * (_padded(len(body)) - len(body))
    return blob.tag.to_bytes(4, "little") + book + body + padding


# ---------------------------------------------------------------- files


LARGEST = 1 << 36
"""Bytes that the weights of a net may have."""

LARGEST_PARAM = 1 << 26
"""Bytes that a `.param` file may have: a line of it takes about 100."""


def load(param: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Network:
    """Read `NAME.param` and `NAME.bin` (or `weights`). Raises OnnxlintError."""
    net = parse_param(_read(param, LARGEST_PARAM), str(param))
    weights = Path(param).with_suffix(".bin") if weights is None else weights
    return parse_bin(net, _read(weights, LARGEST), str(weights))


def _read(path: str | os.PathLike[str], limit: int) -> bytes:
    try:
        return read_regular(os.fspath(path), limit)
    except OSError as e:
        raise _error(f"{path}: cannot be read ({e.strerror}); check the path") from None


def save(
    net: Network, param: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> tuple[Path, Path]:
    """Write `NAME.param` and `NAME.bin`; returns their paths.

    Weights of one net never lie beside the graph of another, even if the process is killed.

    Raises:
        OnnxlintError: They cannot be written.
    """
    param = Path(param)
    weights = param.with_suffix(".bin") if weights is None else Path(weights)
    write_together((str(weights), dump_bin(net)), (str(param), dump_param(net)))
    return param, weights


# ---------------------------------------------------------------- fp16


def half_blob(blob: Blob) -> Blob:
    """A tagged float32 blob as float16, rounded to nearest, subnormals kept; others, and those that would
    overflow (beyond 65504), unchanged."""
    if blob.tag not in TAG_FP32:
        return blob
    with np.errstate(over="ignore"):
        half = blob.data.astype("<f2")
    if not np.isfinite(half).all():
        return blob
    return Blob(blob.name, half, TAG_FP16)


def to_fp16(net: Network) -> Network:
    """The net with its weights in fp16, as `ncnnoptimize in.param in.bin out.param out.bin 65536` stores them.

    Biases and everything untagged stay fp32, as do weights that fp16 cannot hold.
    """
    layers = tuple(replace(layer, blobs=tuple(half_blob(b) for b in layer.blobs)) for layer in net.layers)
    return replace(net, layers=layers)
