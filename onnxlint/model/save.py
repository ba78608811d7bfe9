"""Write a model back, its weights streamed from where opening left them.

The skeleton is serialized; at each reference that opening put in, the bytes of the original file are spliced in again.
The new file is written beside its destination and moved over it at the end: whatever happens, the old model or the new
one is there, with its own weights.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from onnxlint.errors import OnnxlintError
from onnxlint.model.external import open_located
from onnxlint.model.output import is_stream, replace, write_atomically
from onnxlint.model.protect import holds_weights, identity, note_of, refuse_external_data, refuse_model_output
from onnxlint.model.scratch import clear_left, prefix, undisturbed
from onnxlint.model.skeleton import STDIN, Model, inline_span, is_external, named, require_external, walk_tensors
from onnxlint.model.wire import (
    CHILDREN,
    DATA_LOCATION,
    DATA_NUMBERS,
    EXTERNAL_DATA,
    FILE_LIMIT,
    LARGE,
    MARK,
    Buffer,
    key_bytes,
    read_varint,
)
from onnxlint.store.ranges import RemoteBytes
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

_PIECE = 1 << 22


@dataclass(frozen=True)
class _Span:
    """Bytes of the original file."""

    offset: int
    length: int


_Chunk = bytes | _Span


def save(
    model: Model, proto: onnx.ModelProto, path: str, *, external_data: str | None = None, inline: bool = False
) -> int:
    """Write a skeleton of `model` with its weights.

    Args:
        model: The opened model that the weights are read from.
        proto: Its skeleton, changed or not.
        path: Destination; replaced atomically where it exists. A link stays one; to a pipe or a device is written directly.
        external_data: Name of a file beside `path` that takes the data of all large tensors.
        inline: Whether external data is to be brought into the file.

    Returns:
        Bytes of the file at `path`.

    Raises:
        OnnxlintError: It cannot be written, or the weights cannot be read; the destination is as it was.
    """
    import onnx

    shown = printable(path)
    moved = [tensor for tensor in walk_tensors(proto) if is_external(tensor)]
    elsewhere = os.path.realpath(os.path.dirname(path) or ".") != os.path.realpath(model.base_dir)
    if moved and elsewhere and external_data is None and not inline:
        external_data = os.path.basename(path) + ".data"
    if external_data is not None and is_stream(path):
        raise OnnxlintError(f"{shown}: no weights file can be written beside it; use --inline, or write to a file")
    if external_data is not None or (inline and moved):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        proto = copy
    if external_data is not None and os.path.basename(external_data) != external_data:
        raise OnnxlintError(
            f"{printable(external_data)}: external data lies beside the model; give a name without a folder"
        )
    if external_data is not None:
        refuse_external_data(os.path.join(os.path.dirname(path), external_data), path, model)
    clear_left(os.path.dirname(os.path.realpath(path)), holds_weights)
    refuse_model_output(path, None if _is_source(model, path) else model)
    with _Scratch(path, external_data) as scratch:
        if external_data is not None:
            _move_out(model, proto, scratch, external_data)
        elif inline:
            _check_size(shown, proto.ByteSize() + sum(require_external(model, tensor).length for tensor in moved))
            for tensor in walk_tensors(proto):
                if is_external(tensor):
                    _bring_in(model, tensor)
        chunks = list(splice(proto.SerializeToString(), model.buffer))
        total = _total(chunks)
        _check_size(shown, total)
        scratch.write(path, chunks, model.buffer)
        if external_data is not None and scratch.replaces_all:
            # The old model must not read the new weights while their files are moved: the new model takes its place
            # first, and reads them under another name.
            for tensor in walk_tensors(proto):
                if is_external(tensor):
                    _set_location(tensor, scratch.second_name())
            scratch.write(path, list(splice(proto.SerializeToString(), model.buffer)), model.buffer, first=True)
        scratch.commit()
    return total


def _is_source(model: Model, path: str) -> bool:
    return model.path != STDIN and os.path.realpath(path) == os.path.realpath(model.path)


def copy(source: str, path: str) -> None:
    """Copy a model file unchanged, as safely as `save`.

    Raises:
        OnnxlintError: It cannot be read or written; the destination is as it was.
    """
    refuse_model_output(path)
    with _Scratch(path) as scratch:
        with scratch.open(path) as out, open(source, "rb") as file:
            shutil.copyfileobj(file, out, _PIECE)
        scratch.commit()


def to_bytes(model: Model, proto: onnx.ModelProto) -> bytes:
    """A skeleton of `model` with its inline weights put back, in memory; external references stay."""
    data = model.buffer or b""
    return b"".join(
        chunk if isinstance(chunk, bytes) else data[chunk.offset : chunk.offset + chunk.length]
        for chunk in splice(proto.SerializeToString(), model.buffer)
    )


def splice(skeleton: bytes, data: Buffer | None) -> Iterator[_Chunk]:
    """The chunks of the whole model: bytes of the skeleton, and spans of the original file in place of references."""
    marks = [match.start() for match in re.finditer(re.escape(MARK.encode()), skeleton)]
    if not marks:
        yield skeleton
        return
    if data is None:
        raise OnnxlintError("the model's file is closed: its weights cannot be written")
    yield from _splice(skeleton, 0, len(skeleton), "model", marks)


def _splice(data: bytes, start: int, end: int, kind: str, marks: list[int]) -> list[_Chunk]:
    """Chunks that replace [start, end), which holds all of `marks`."""
    if kind == "tensor":
        return _restore(data, start, end)
    children = CHILDREN[kind]
    out: list[_Chunk] = []
    copied = position = start
    waiting = 0
    while position < end and waiting < len(marks):
        field_start = position
        tag, position = read_varint(data, position, end)
        wire = tag & 7
        if wire == 2:
            length, position = read_varint(data, position, end)
            content_end = position + length
            first = waiting
            while waiting < len(marks) and marks[waiting] < content_end:
                waiting += 1
            child = children.get(tag >> 3)
            if waiting > first and child is not None:
                inner = _splice(data, position, content_end, child, marks[first:waiting])
                out.append(data[copied:field_start] + key_bytes(tag >> 3, _total(inner)))
                out += inner
                copied = content_end
            position = content_end
        elif wire == 0:
            _, position = read_varint(data, position, end)
        else:
            position += 8 if wire == 1 else 4
    out.append(data[copied:end])
    return out


def _restore(data: bytes, start: int, end: int) -> list[_Chunk]:
    """A tensor with its data in place of our reference to it."""
    import onnx

    tensor = onnx.TensorProto.FromString(data[start:end])
    span = inline_span(tensor)
    if span is None:
        return [data[start:end]]
    out: list[_Chunk] = []
    copied = position = start
    while position < end:
        field_start = position
        tag, position = read_varint(data, position, end)
        if tag & 7 == 2:
            length, position = read_varint(data, position, end)
            position += length
        elif tag & 7 == 0:
            _, position = read_varint(data, position, end)
        else:
            position += 8 if tag & 7 == 1 else 4
        if tag >> 3 in (EXTERNAL_DATA, DATA_LOCATION):
            out.append(data[copied:field_start])
            copied = position
    out.append(data[copied:end])
    if span.located:
        out.append(bytes((DATA_LOCATION << 3, 0)))
    return [*out, key_bytes(DATA_NUMBERS[span.field], span.length), _Span(span.offset, span.length)]


def _total(chunks: list[_Chunk]) -> int:
    return sum(chunk.length if isinstance(chunk, _Span) else len(chunk) for chunk in chunks)


def _check_size(shown: str, total: int) -> None:
    if total > FILE_LIMIT:
        raise OnnxlintError(
            f"{shown}: the model would take {total:,} bytes, more than protobuf's 2 GiB; "
            "write its weights to another file with --external-data NAME"
        )


def _bring_in(model: Model, tensor: onnx.TensorProto) -> None:
    found = require_external(model, tensor)
    with open_located(found, named(model, tensor)) as file:
        data = file.read(found.length)
    if len(data) < found.length:
        raise OnnxlintError(f"{named(model, tensor)}: external data file {printable(found.location)!r} was cut short")
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _move_out(model: Model, proto: onnx.ModelProto, scratch: _Scratch, name: str) -> None:
    """Stream the data of large tensors into a file of their own, 4096-byte aligned as onnx does for memory mapping."""
    import onnx

    target = os.path.join(os.path.dirname(scratch.path) or ".", name)
    with scratch.open(target) as out:
        position = 0
        for tensor in walk_tensors(proto):
            span = inline_span(tensor)
            if span is not None and span.field == "raw_data" and model.buffer is not None:
                position = _align(out, position)
                _stream(out, model.buffer, span.offset, span.length)
                length = span.length
            elif is_external(tensor):
                found = require_external(model, tensor)
                position = _align(out, position)
                with open_located(found, named(model, tensor)) as source:
                    left = found.length
                    while left:
                        piece = source.read(min(left, _PIECE))
                        if not piece:
                            raise OnnxlintError(f"{printable(found.path)}: ends before the data of its tensors does")
                        out.write(piece)
                        left -= len(piece)
                length = found.length
            elif len(tensor.raw_data) >= LARGE:
                position = _align(out, position)
                length = out.write(tensor.raw_data)
                tensor.ClearField("raw_data")
            else:
                continue
            tensor.data_location = onnx.TensorProto.EXTERNAL
            del tensor.external_data[:]
            for key, value in (("location", name), ("offset", str(position)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
            position += length


def _set_location(tensor: onnx.TensorProto, name: str) -> None:
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = name


def _align(out: BinaryIO, position: int) -> int:
    padding = -position % 4096
    out.write(b"\0" * padding)
    return position + padding


def _stream(out: BinaryIO, data: Buffer, offset: int, length: int) -> None:
    view = data if isinstance(data, RemoteBytes) else memoryview(data)
    for start in range(offset, offset + length, _PIECE):
        end = min(start + _PIECE, offset + length)
        out.write(view[start:end])
        if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            # What was written is not read again: without this, the whole file would count as this process's memory.
            page = start - start % mmap.PAGESIZE
            data.madvise(mmap.MADV_DONTNEED, page, end - page)


class _Scratch:
    """Files written beside their destinations, and moved over them all at the end.

    Attributes:
        path: The model's destination.

    Args:
        path: See above.
        data: Name of the file beside it that takes weights.
    """

    def __init__(self, path: str, data: str | None = None) -> None:
        self.path = path
        self._files: list[tuple[str, str]] = []
        self._second = ""
        self._data = "" if data is None else os.path.realpath(os.path.join(os.path.dirname(path), data))

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            for temporary in (*(held for held, _ in self._files), *([self._second] if self._second else ())):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    @contextlib.contextmanager
    def open(self, destination: str) -> Iterator[BinaryIO]:
        """A new file that will become `destination`; on disk when the block ends. A pipe or a device itself."""
        try:
            if is_stream(destination):
                with open(destination, "wb") as stream:
                    yield stream
                return
            # A link stays a link: what it leads to is replaced.
            destination = os.path.realpath(destination)
            with undisturbed():
                handle, temporary = tempfile.mkstemp(prefix=prefix(), dir=os.path.dirname(destination))
                self._files.append((temporary, destination))
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(destination, error) from None

    def write(self, destination: str, chunks: list[_Chunk], data: Buffer | None, first: bool = False) -> None:
        """A new file of these chunks; `first` of all to be moved in place, else last."""
        with self.open(destination) as file:
            for chunk in chunks:
                if isinstance(chunk, bytes):
                    file.write(chunk)
                elif data is not None:
                    _stream(file, data, chunk.offset, chunk.length)
        if first:
            self._files.insert(0, self._files.pop())

    @property
    def replaces_all(self) -> bool:
        """Whether there is a file at every destination."""
        return all(os.path.exists(destination) for _, destination in self._files)

    def second_name(self) -> str:
        """Name of a copy, in the same folder, of the first file that was written; it is gone after `commit`."""
        if not self._second:
            temporary, destination = self._files[0]
            self._second = f"{temporary}.data"
            try:
                shutil.copyfile(temporary, self._second)  # a hard link is refused by onnx and onnxruntime
            except OSError as error:
                raise _unwritable(destination, error) from None
        return os.path.basename(self._second)

    def commit(self) -> None:
        """Move everything in place, in the order of writing."""
        with undisturbed():
            self._move()

    def _move(self) -> None:
        for temporary, destination in self._files:
            if destination == self._data:
                # Before anything moves: from the first move on, no model may refer to the data that is there.
                write_atomically(note_of(destination), f"{identity(destination)} {identity(temporary)}")
        for temporary, destination in self._files:
            try:
                replace(temporary, destination)
            except OSError as error:
                self._second = ""  # the model in place may need it
                raise _unwritable(destination, error) from None
        self._unlink_note()

    def _unlink_note(self) -> None:
        if self._data:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(note_of(self._data))


def _unwritable(path: str, error: OSError) -> OnnxlintError:
    return OnnxlintError(
        f"{printable(path)}: cannot be written: {error.strerror or error}; choose another place with -o"
    )
