"""The protobuf wire format of an ONNX file: copied without the data of large tensors, and read piece by piece."""

from __future__ import annotations

import mmap
import os
from functools import cache
from typing import NamedTuple

from onnxlint.store.ranges import RemoteBytes

LocalBytes = mmap.mmap | bytes
Buffer = LocalBytes | RemoteBytes
"""The bytes of a model: mapped, read, or fetched from a store as they are asked for."""

FILE_LIMIT = 2**31 - 1
"""Bytes that a protobuf message, and so an ONNX file, can have."""

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


class Span(NamedTuple):
    """Bytes of a tensor inside the model file.

    Attributes:
        field: The TensorProto field that they are the content of (`raw_data`, `float_data`, …).
        offset: First byte, counted from the start of the file.
        length: In bytes.
        located: Whether the tensor says explicitly that its data is inline (`data_location = DEFAULT`).
    """

    field: str
    offset: int
    length: int
    located: bool = False


class WireError(ValueError):
    """The bytes break the wire format; the message has the offset."""


def slim(data: Buffer) -> bytes:
    """The model without the data of its large tensors: references into `data`, marked with `MARK`, take its place.

    Raises:
        WireError: The bytes are not a complete message, or the message is too large even without weights.
    """
    chunks = _Slimmer(data).slim(0, len(data), "model", 0)
    size = len(data) if chunks is None else sum(map(len, chunks))
    if size > FILE_LIMIT:
        raise WireError(f"it takes {size:,} bytes without its weights, more than protobuf's 2 GiB")
    return bytes(data[:]) if chunks is None else b"".join(chunks)


class _Slimmer:
    """Copies a serialized message, leaving the data of large tensors out.

    Only length-delimited fields that can lead to a tensor, and that are large enough to hold a large one, are entered:
    the cost is one step a field of the graph.
    """

    def __init__(self, data: Buffer) -> None:
        self.data = data

    def slim(self, start: int, end: int, kind: str, depth: int) -> list[bytes] | None:
        """Chunks that replace [start, end), or None if nothing in it has to be replaced."""
        if kind == "tensor":
            return self._slim_tensor(start, end)
        if depth > MAX_DEPTH:
            raise WireError(f"messages are nested more than {MAX_DEPTH} deep at byte {start}")
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
            if tag < 8:
                raise WireError(f"byte {field_start} is not a protobuf field")
            wire = tag & 7
            if wire == 2:
                if position >= end:
                    raise WireError(f"it ends inside a field at byte {field_start}")
                length = data[position]
                position += 1
                if length >= 0x80:
                    if position < end and data[position] < 0x80:
                        length = length & 0x7F | data[position] << 7
                        position += 1
                    else:
                        length, position = read_varint(self.data, position - 1, end)
                content_end = position + length
                if content_end > end:
                    raise WireError(
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
            tag = data[position]
            position += 1
            if tag >= 0x80:
                tag, position = read_varint(self.data, field_start, end)
            number, wire = tag >> 3, tag & 7
            if wire == 2:
                if position < end and data[position] < 0x80:
                    length = data[position]
                    position += 1
                else:
                    length, position = read_varint(self.data, position, end)
                if position + length > end:
                    raise WireError(
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
        place = _entry("offset", str(content)) + _entry("length", str(content_end - content))
        reference = _LOCATION + place + _mark(DATA_FIELDS[number] + located)
        return [data[start:field_start], data[content_end:end], reference]

    def _skip(self, wire: int, position: int, end: int, field_start: int) -> int:
        if wire == 0:
            _, position = read_varint(self.data, position, end)
        elif wire == 1:
            position += 8
        elif wire == 5:
            position += 4
        else:
            raise WireError(f"byte {field_start} is not a protobuf field")
        if position > end:
            raise WireError(f"it ends inside a field at byte {field_start}")
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
            raise WireError(f"a number at byte {start} has more than 10 bytes")
    raise WireError(f"it ends inside a number at byte {start}")


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
    """An entry of `external_data`; both texts have fewer than 50 characters, so that lengths take one byte."""
    body = b"\x0a%c%b\x12%c%b" % (len(key), key.encode(), len(value), value.encode())
    return b"%c%c%b" % (EXTERNAL_DATA << 3 | 2, len(body), body)


_LOCATION = _entry("location", "-")


@cache
def _mark(field: str) -> bytes:
    """The entry that tells a reference of ours, which comes last, and the field that makes it one."""
    return _entry(MARK, field) + b"%c\x01" % (DATA_LOCATION << 3)
