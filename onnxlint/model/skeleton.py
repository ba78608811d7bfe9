"""Open a model without its weights.

Opening costs what the graph costs, not what its weights cost: the protobuf wire format is walked over a memory map, and
everything is copied but the data of large tensors. In their place stays an external-data reference (offset,
length) into the same file, marked so that it can be told from the references that were there before.
"""

from __future__ import annotations

import math
import mmap
import os
import posixpath
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

Buffer = mmap.mmap | bytes

LARGE = 4096
"""Tensors whose data takes fewer bytes than this stay in the skeleton."""

MARK = f"onnxlint.{os.urandom(8).hex()}"
"""Key of the external-data entry that names the TensorProto field which a reference of ours stands for.

Random, so that no file can claim to hold one.
"""

MAX_DEPTH = 64
"""Messages nested deeper than this are refused; protobuf's own limit is 100, counted from the model."""

# Which field numbers of which message (onnx.proto) can lead to a tensor.
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Packed or raw data: bytes that can stay in the file and be put back as they are.
DATA_FIELDS = {
    4: "float_data",
    5: "int32_data",
    7: "int64_data",
    9: "raw_data",
    10: "double_data",
    11: "uint64_data",
}
DATA_NUMBERS = {name: number for number, name in DATA_FIELDS.items()}
DATA_LOCATION, EXTERNAL_DATA = 14, 13


@dataclass(frozen=True)
class Span:
    """Bytes of a tensor inside the model file.

    Attributes:
        field: The TensorProto field that they are the content of (`raw_data`, `float_data`, …).
        offset: First byte, counted from the start of the file.
        length: In bytes.
        located: Whether the tensor says in so many words that its data is inline (`data_location = DEFAULT`).
    """

    field: str
    offset: int
    length: int
    located: bool = False


@dataclass
class Model:
    """An ONNX file opened without its weights.

    Attributes:
        path: The file as the user named it; `-` for standard input.
        proto: The skeleton: the whole model but the data of large tensors.
        size: Bytes of the file.
        base_dir: Folder that external-data locations are relative to.
        buffer: The file's bytes (memory-mapped where it is a file), for reading weights on demand.
    """

    path: str
    proto: onnx.ModelProto
    size: int
    base_dir: str = "."
    buffer: Buffer | None = field(default=None, repr=False)

    def array(self, tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
        """Values of a tensor of this model, read through the memory map where they lie in the file.

        Returns:
            A read-only array of the tensor's dims; types that NumPy lacks come as their ml_dtypes type.

        Raises:
            OnnxlintError: The data is missing, short, or lies outside the model's folder.
        """
        from onnx import numpy_helper

        span = inline_span(tensor)
        plain = tensor
        if span is not None:
            if self.buffer is None:
                raise OnnxlintError(f"{self.path}: the file behind tensor {tensor.name!r} is closed")
            mapped = _mapped(tensor, span, self.buffer)
            if mapped is not None:
                return mapped
            plain = _with_data(tensor, span.field, self.buffer[span.offset : span.offset + span.length])
        elif is_external(tensor):
            external = self._external_data(tensor)
            mapped = _mapped(tensor, Span("raw_data", 0, len(external)), external)
            if mapped is not None:
                return mapped
            plain = _with_data(tensor, "raw_data", bytes(external))
        try:
            values = numpy_helper.to_array(plain)
        except (ValueError, TypeError, KeyError) as error:
            reason = printable((str(error) or type(error).__name__).splitlines()[0])
            raise OnnxlintError(
                f"{self.path}: tensor {printable(tensor.name)!r} does not hold what its dims and type say: {reason}"
            ) from error
        values.flags.writeable = False
        return values

    def _external_data(self, tensor: onnx.TensorProto) -> memoryview:
        found = locate_external(self, tensor)
        if found.problem:
            raise OnnxlintError(f"{self.path}: tensor {printable(tensor.name)!r}: {found.problem}")
        with open(found.path, "rb") as file:
            if found.length < LARGE:
                file.seek(found.offset)
                return memoryview(file.read(found.length))
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return data[found.offset : found.offset + found.length]


def open_model(path: str | os.PathLike[str]) -> Model:
    """Open an ONNX model without its weights.

    Args:
        path: A binary ONNX file, a textual one (`.onnxtxt`, `.onnxtext`, `.textproto`, `.json`, …), or `-` for
            standard input.

    Raises:
        OnnxlintError: The file cannot be read or is not an ONNX model.
    """
    name = os.fspath(path)
    if name == "-":
        data: Buffer = sys.stdin.buffer.read()
        base_dir = "."
    else:
        data = _map(name)
        base_dir = os.path.dirname(name) or "."
    shown = printable(name)
    proto = _parse_text(shown, name, data) if _is_text(name, data) else _parse_binary(shown, data)
    if not proto.HasField("graph") and not proto.functions:
        raise OnnxlintError(
            f"{shown}: not an ONNX model: it holds neither a graph nor functions; export or download it again"
        )
    return Model(path=name, proto=proto, size=len(data), base_dir=base_dir, buffer=data)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data lies in another file (a reference that the model itself has)."""
    return tensor.data_location == 1 and inline_span(tensor) is None


def inline_span(tensor: onnx.TensorProto) -> Span | None:
    """Where in the model file the tensor's data lies, if opening left it there."""
    if tensor.data_location != 1:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if MARK not in entries:
        return None
    name, _, located = entries[MARK].partition(" ")
    return Span(name, int(entries["offset"]), int(entries["length"]), bool(located))


_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),  # (u)int8, bool, float8 types
    **dict.fromkeys((4, 5, 10, 16), 16),  # (u)int16, float16, bfloat16
    **dict.fromkeys((1, 6, 12), 32),  # float, int32, uint32
    **dict.fromkeys((7, 11, 13, 14), 64),  # int64, double, uint64, complex64
    15: 128,  # complex128
    **dict.fromkeys((21, 22, 23), 4),  # uint4, int4, float4e2m1
    **dict.fromkeys((25, 26), 2),  # uint2, int2
    **dict.fromkeys((27, 28), 6),  # float6e2m3, float6e3m2
}
"""Bits of one element in raw_data, by TensorProto.DataType; types under a byte are packed."""


def tensor_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes that the tensor's elements take, from its dims and type alone; None for strings and unknown types."""
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else (math.prod(tensor.dims) * bits + 7) // 8


@dataclass(frozen=True)
class External:
    """Where a tensor's external data lies, and what is wrong with that.

    Attributes:
        location: As the file says it.
        path: The file, absolute; empty where the location must not be followed.
        offset: First byte.
        length: In bytes.
        kind: Empty where the data can be read, else what is wrong: `escapes` (see `escape_problem`), `numbers` (offset or
            length is not a number, or negative), `missing`, `irregular` (a folder, a device), `short`, `mismatch`
            (length against dims and type).
        problem: One line about it; empty where the data can be read.
    """

    location: str
    path: str = ""
    offset: int = 0
    length: int = 0
    kind: str = ""
    problem: str = ""


def locate_external(model: Model, tensor: onnx.TensorProto) -> External:
    """Find a tensor's external data, without reading it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    shown = printable(location)
    if not location:
        return External(location, kind="missing", problem="its external data names no file")
    problem = escape_problem(model, location)
    if problem:
        return External(location, kind="escapes", problem=problem)
    path = os.path.join(os.path.abspath(model.base_dir), os.path.normpath(location))
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError:
        return External(location, path, kind="numbers", problem="its offset or length is not a number")
    needed = tensor_bytes(tensor)
    size = (needed or 0) if length is None else length
    if offset < 0 or size < 0:
        return External(location, path, kind="numbers", problem="its offset or length is negative")
    found = External(location, path, offset, size)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return replace(found, kind="missing", problem=f"external data file {shown!r} is missing")
    if not stat.S_ISREG(status.st_mode):
        return replace(found, kind="irregular", problem=f"external data {shown!r} is not a regular file")
    if needed is not None and size != needed:
        return replace(
            found, kind="mismatch", problem=f"its external data is {size} bytes, but its dims and type take {needed}"
        )
    if offset + size > status.st_size:
        return replace(
            found,
            kind="short",
            problem=f"external data file {shown!r} has {status.st_size} bytes, but {offset + size} are wanted",
        )
    return found


def escape_problem(model: Model, location: str) -> str:
    """Why a location of external data must not be followed; empty where it may.

    Absolute paths, `..` and symbolic links that leave the model's folder are refused, as onnx (CVE-2022-25882,
    CVE-2024-27318, CVE-2026-27489) and onnxruntime do. Links between the files of one download, as the Hugging Face
    cache makes them, stay in the folder that the model's own link leads to: onnxruntime follows these, and so do we.
    """
    shown = printable(location)
    if not location:
        return "its external data has no location"
    if "\0" in location:
        return f"its external data location {shown!r} holds a null byte"
    normal = location.replace("\\", "/")
    if os.path.isabs(location) or normal.startswith("/") or (len(normal) > 1 and normal[1] == ":"):
        return f"its external data location {shown!r} is an absolute path"
    if posixpath.normpath(normal).split("/")[0] == "..":
        return f"its external data location {shown!r} leaves the model's folder"
    homes = {os.path.realpath(model.base_dir)}
    if model.path != "-":
        homes.add(os.path.dirname(os.path.realpath(model.path)))
    real = os.path.realpath(os.path.join(model.base_dir, os.path.normpath(location)))
    if not any(f"{real}{os.sep}".startswith(f"{home.rstrip(os.sep)}{os.sep}") for home in homes):
        return f"its external data location {shown!r} is a link that leaves the model's folder"
    return ""


def walk_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every TensorProto of a model: initializers and attributes, in subgraphs, functions and training info."""
    graphs: list[Any] = [proto.graph, *proto.functions]
    for info in proto.training_info:
        graphs += [info.initialization, info.algorithm]
    while graphs:
        graph = graphs.pop()
        if hasattr(graph, "initializer"):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield sparse.values
                yield sparse.indices
        for node in graph.node:
            for attribute in node.attribute:
                kind = attribute.type
                if kind == 4 or attribute.HasField("t"):
                    yield attribute.t
                elif kind == 9:
                    yield from attribute.tensors
                elif kind == 5:
                    graphs.append(attribute.g)
                elif kind == 10:
                    graphs.extend(attribute.graphs)
                elif kind == 11:
                    yield attribute.sparse_tensor.values
                    yield attribute.sparse_tensor.indices


# Reading bytes


def _map(path: str) -> Buffer:
    shown = printable(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                # A pipe or a device has size 0 too, and cannot be mapped.
                data = b"" if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else file.read()
                if not data:
                    raise OnnxlintError(f"{shown}: empty file; export or download the model again")
                return data
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise OnnxlintError(f"{shown}: no such file; check the path") from None
    except IsADirectoryError:
        raise OnnxlintError(
            f"{shown}: is a folder, not a model; name a file in it, or pass the folder that holds it"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OnnxlintError(f"{shown}: cannot be read: {reason}; check the path and its permissions") from None


_TEXT_SUFFIXES = {
    ".onnxtxt": "onnxtxt",
    ".onnxtext": "onnxtxt",
    ".textproto": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
    ".json": "json",
    ".onnxjson": "json",
}


def _is_text(name: str, data: Buffer) -> bool:
    if os.path.splitext(name)[1].lower() in _TEXT_SUFFIXES:
        return True
    head = bytes(data[:256]).lstrip()
    return head.startswith(b"<") and (b"ir_version" in head or b"opset_import" in head)


def _parse_text(shown: str, name: str, data: Buffer) -> onnx.ModelProto:
    import warnings

    import onnx

    kind = _TEXT_SUFFIXES.get(os.path.splitext(name)[1].lower(), "onnxtxt")
    try:
        serializer = onnx.serialization.registry.get(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx calls the text format experimental, each time
            proto = serializer.deserialize_proto(bytes(data), onnx.ModelProto())
    except RecursionError:
        raise OnnxlintError(f"{shown}: nested too deeply to be a model") from None
    except Exception as error:  # noqa: BLE001 - three parsers, each with exception classes of its own
        reason = " ".join(_clean_parse_error(str(error)).split())
        raise OnnxlintError(f"{shown}: not a textual ONNX model: {printable(reason)[:300]}") from None
    return proto


def _clean_parse_error(text: str) -> str:
    if text.startswith(("b'", 'b"')):
        text = text[2:-1].replace("\\n", "\n")
    return text


_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model; run 'git lfs pull'"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?), not ONNX; export it with torch.onnx.export"),
    (b"\x80\x02", "a Python pickle (a PyTorch checkpoint?), not ONNX; export it with torch.onnx.export"),
    (b"\x1f\x8b", "gzip-compressed; decompress it first"),
    (b"<!DOCTYPE", "a web page, not a model; download the file itself"),
    (b"<html", "a web page, not a model; download the file itself"),
    (b"7767517", "an ncnn .param file, not ONNX"),
    (b"ORTM", "an onnxruntime ORT-format model, not ONNX; use the .onnx file that it was made from"),
)


def _foreign(data: Buffer) -> str:
    head = bytes(data[:64])
    for magic, what in _FOREIGN:
        if head.startswith(magic) or (magic == b"ORTM" and head[4:8] == magic):
            return what
    return "TensorFlow Lite, not ONNX; convert it with tf2onnx" if head[4:8] == b"TFL3" else ""


def _parse_binary(shown: str, data: Buffer) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    foreign = _foreign(data)
    if foreign:
        raise OnnxlintError(f"{shown}: this is {foreign}")
    try:
        chunks = _Slimmer(data).slim(0, len(data), "model", 0)
        skeleton = data[:] if chunks is None else b"".join(chunks)
    except _WireError as error:
        raise OnnxlintError(f"{shown}: not a complete ONNX model: {error}; export or download it again") from None
    try:
        proto = onnx.ModelProto.FromString(skeleton)
        if not _is_utf8(skeleton):
            _escape_texts(proto)
        return proto
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        reason = printable(str(error).splitlines()[0]) if str(error) else "the protobuf parser refused it"
        raise OnnxlintError(f"{shown}: not an ONNX model ({reason}); export or download it again") from None


@cache
def _strict_model() -> Any:
    """ModelProto as proto3: the same messages, but text that is not UTF-8 is refused."""
    from google.protobuf import descriptor_pool, message_factory
    from onnx import onnx_ml_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(onnx_ml_pb2.DESCRIPTOR.serialized_pb + b"\x62\x06proto3")  # field 12: syntax
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx.ModelProto"))


def _is_utf8(skeleton: bytes) -> bool:
    from google.protobuf.message import DecodeError

    try:
        _strict_model().FromString(skeleton)
    except DecodeError:
        return False
    return True


def _escape_texts(proto: Any) -> None:
    """Escape text that is not UTF-8: protobuf hands it out as bytes, which are no names."""
    for entry, value in proto.ListFields():
        if entry.message_type is not None:
            for message in value if hasattr(value, "__len__") else (value,):
                _escape_texts(message)
        elif entry.type != entry.TYPE_STRING:
            continue
        elif isinstance(value, bytes):
            setattr(proto, entry.name, value.decode("utf-8", "backslashreplace"))
        elif not isinstance(value, str):
            for i, text in enumerate(value):
                if isinstance(text, bytes):
                    value[i] = text.decode("utf-8", "backslashreplace")


class _WireError(ValueError):
    pass


class _Slimmer:
    """Copies a serialized message, leaving the data of large tensors out.

    Only length-delimited fields that can lead to a tensor, and that are large enough to hold a large one, are entered:
    the cost is one step a field of the graph.
    """

    def __init__(self, data: Buffer) -> None:
        self.data = data

    def slim(self, start: int, end: int, kind: str, depth: int) -> list[bytes] | None:
        """Chunks that replace [start, end), or None where nothing in it has to be replaced."""
        if kind == "tensor":
            return self._slim_tensor(start, end)
        if depth > MAX_DEPTH:
            raise _WireError(f"messages are nested more than {MAX_DEPTH} deep at byte {start}")
        children = CHILDREN[kind]
        out: list[bytes] = []
        copied = start  # everything before this is in `out`
        data = self.data
        position = start
        while position < end:
            field_start = position
            # Most tags and many lengths take one byte: decode them in line.
            tag = data[position]
            position += 1
            if tag >= 0x80:
                tag, position = read_varint(self.data, field_start, end)
            wire = tag & 7
            if wire == 2:
                if position >= end:
                    raise _WireError(f"it ends inside a field at byte {field_start}")
                length = data[position]
                position += 1
                if length >= 0x80:
                    length, position = read_varint(self.data, position - 1, end)
                content_end = position + length
                if content_end > end:
                    raise _WireError(
                        f"a field at byte {field_start} claims {length} bytes and {end - position} are left"
                    )
                child = children.get(tag >> 3) if length >= LARGE else None
                if child is not None:
                    inner = self.slim(position, content_end, child, depth + 1)
                    if inner is not None:
                        out.append(data[copied:field_start])
                        out.append(key_bytes(tag >> 3, sum(map(len, inner))))
                        out += inner
                        copied = content_end
                position = content_end
            else:
                position = self._skip(wire, position, end, field_start)
        if not out:
            return None
        out.append(data[copied:end])
        return out

    def _slim_tensor(self, start: int, end: int) -> list[bytes] | None:
        data = self.data
        spans: list[tuple[int, int, int, int]] = []  # field number, start of the field, of its content, its end
        located = ""
        position = start
        while position < end:
            field_start = position
            tag, position = read_varint(self.data, position, end)
            number, wire = tag >> 3, tag & 7
            if wire == 2:
                length, position = read_varint(self.data, position, end)
                if position + length > end:
                    raise _WireError(
                        f"a tensor at byte {start} claims {length} bytes of data and {end - position} are left"
                    )
                if number in DATA_FIELDS:
                    spans.append((number, field_start, position, position + length))
                position += length
            else:
                if number in DATA_FIELDS or number == DATA_LOCATION:
                    value = read_varint(self.data, position, end)[0] if wire == 0 else 1
                    if number != DATA_LOCATION or value != 0:
                        return None  # unpacked data, or external already: leave it as it is
                    located = " located"
                position = self._skip(wire, position, end, field_start)
        if len(spans) != 1 or spans[0][3] - spans[0][2] < LARGE:
            return None
        number, field_start, content, content_end = spans[0]
        mark = b"".join(
            _entry(key, value)
            for key, value in (
                ("location", "-"),
                ("offset", str(content)),
                ("length", str(content_end - content)),
                (MARK, DATA_FIELDS[number] + located),
            )
        )
        reference = mark + _varint_bytes(DATA_LOCATION << 3) + b"\x01"
        return [data[start:field_start], data[content_end:end], reference]

    def _skip(self, wire: int, position: int, end: int, field_start: int) -> int:
        if wire == 0:
            _, position = read_varint(self.data, position, end)
        elif wire == 1:
            position += 8
        elif wire == 5:
            position += 4
        else:
            raise _WireError(f"byte {field_start} is not a protobuf field")
        if position > end:
            raise _WireError(f"it ends inside a field at byte {field_start}")
        return position


def read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """(value, position after it) of a base-128 number of the protobuf wire format.

    Raises:
        ValueError: It does not end before `end`, or has more than ten bytes.
    """
    value = shift = 0
    start = position
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise _WireError(f"a number at byte {start} has more than 10 bytes")
    raise _WireError(f"it ends inside a number at byte {start}")


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def key_bytes(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _varint_bytes(number << 3 | 2) + _varint_bytes(length)


def _entry(key: str, value: str) -> bytes:
    body = key_bytes(1, len(key)) + key.encode() + key_bytes(2, len(value)) + value.encode()
    return key_bytes(EXTERNAL_DATA, len(body)) + body


_PLAIN = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}
"""Element types whose raw data is what NumPy holds in memory on a little-endian machine."""


def _mapped(tensor: onnx.TensorProto, span: Span, buffer: Buffer | memoryview) -> npt.NDArray[np.generic] | None:
    """A read-only view into the file's bytes, without a copy; None where the data has to be decoded or does not fit."""
    import numpy as np

    if span.field != "raw_data" or tensor.data_type not in _PLAIN:
        return None
    dtype = np.dtype("<" + _PLAIN[tensor.data_type])
    count = math.prod(tensor.dims)
    if count * dtype.itemsize != span.length or any(size < 0 for size in tensor.dims):
        return None
    return np.frombuffer(buffer, dtype, count, span.offset).reshape(tuple(tensor.dims))


def _with_data(tensor: onnx.TensorProto, field_name: str, data: bytes) -> onnx.TensorProto:
    """A copy of the tensor's header that carries `data` as the content of the given field."""
    import onnx

    header = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    if field_name == "raw_data":
        header.raw_data = data
        return header
    return onnx.TensorProto.FromString(
        header.SerializeToString() + key_bytes(DATA_NUMBERS[field_name], len(data)) + data
    )
