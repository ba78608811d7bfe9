"""Open a model without its weights.

The cost of opening depends on the graph, not on its weights: the protobuf wire format is walked over a memory map, and
everything is copied but the data of large tensors. In their place stays an external-data reference (offset,
length) into the same file, marked so that it differs from the references in the file.
"""

from __future__ import annotations

import math
import mmap
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.model.external import External, Folder, folders_of, locate, locate_remote, open_located
from onnxlint.model.messages import messages
from onnxlint.model.reading import foreign, open_file, read_model_file, read_stdin
from onnxlint.model.wire import (
    DATA_NUMBERS,
    FILE_LIMIT,
    LARGE,
    MARK,
    Buffer,
    LocalBytes,
    Span,
    WireError,
    key_bytes,
    slim,
)
from onnxlint.store.ranges import RemoteBytes
from onnxlint.store.urls import is_remote, must_be_local, without_secrets
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx


STDIN = "-"
"""The path that stands for standard input."""


@dataclass
class Model:
    """An ONNX file opened without its weights.

    Attributes:
        path: The file as the user named it; `-` for standard input.
        proto: The skeleton: the whole model but the data of large tensors.
        size: Bytes of the file.
        base_dir: Folder that external-data locations are relative to; an address for a remote model.
        buffer: The file's bytes (memory-mapped where it is a file), for reading weights on demand.
        folders: The folders that external data may lie in, as they were when the file was opened.
        note: What opening it cost beyond what it should; empty if nothing.
    """

    path: str
    proto: onnx.ModelProto
    size: int
    base_dir: str = "."
    buffer: Buffer | None = field(default=None, repr=False)
    folders: tuple[Folder, ...] = ()
    note: str = ""

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
                raise OnnxlintError(
                    f"{printable(self.path)}: the file behind tensor {printable(tensor.name)!r} is closed"
                )
            buffer: LocalBytes
            if isinstance(self.buffer, RemoteBytes):
                buffer = self.buffer[span.offset : span.offset + span.length]
                span = span._replace(offset=0)
            else:
                buffer = self.buffer
            mapped = _mapped(tensor, span, buffer)
            if mapped is not None:
                return mapped
            plain = _with_data(tensor, span.field, buffer[span.offset : span.offset + span.length])
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
            raise OnnxlintError(f"{named(self, tensor)} does not hold what its dims and type say: {reason}") from error
        values.flags.writeable = False
        return values

    def raw(self, tensor: onnx.TensorProto) -> memoryview | None:
        """The bytes of a tensor whose raw data stayed in a file of this machine; None for all others."""
        span = inline_span(tensor)
        if span is None or span.field != "raw_data" or self.buffer is None or isinstance(self.buffer, RemoteBytes):
            return None
        return memoryview(self.buffer)[span.offset : span.offset + span.length]

    def _external_data(self, tensor: onnx.TensorProto) -> memoryview:
        found = require_external(self, tensor)
        with open_located(found, named(self, tensor)) as file:
            if found.length < LARGE:
                return memoryview(file.read(found.length))
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return data[found.offset : found.offset + found.length]


def open_model(path: str | os.PathLike[str], remote: bool = False) -> Model:
    """Open an ONNX model without its weights.

    Args:
        path: A binary ONNX file, a textual one (`.onnxtxt`, `.onnxtext`, `.textproto`, `.json`, …), `-` for
            standard input, or the address of a remote file (`s3://…`, `https://…`).
        remote: Whether remote files are opened, too.

    Raises:
        OnnxlintError: The file cannot be read or is not an ONNX model.
    """
    name = os.fspath(path)
    if is_remote(name) and not os.path.lexists(name):
        if not remote:
            raise must_be_local(name)
        return _open_remote(name)
    shown = printable(name)
    base_dir = "." if name == STDIN else os.path.dirname(name) or "."
    if name == STDIN:
        data: Buffer = read_stdin()
        folders = folders_of(name, base_dir, None)
    else:
        handle = open_file(name)
        try:
            data = read_model_file(handle, shown, os.path.splitext(name)[1].lower() in _TEXT_SUFFIXES)
            folders = folders_of(name, base_dir, handle)
        finally:
            os.close(handle)
    proto = _parse(shown, name, data)
    return Model(path=name, proto=proto, size=len(data), base_dir=base_dir, buffer=data, folders=folders)


def _open_remote(url: str) -> Model:
    from onnxlint.store.opening import RemoteFile

    name = without_secrets(url)
    file = RemoteFile(url, FILE_LIMIT)
    if len(file.data) == 0:
        raise OnnxlintError(f"{printable(name)}: empty file; export or download the model again")
    proto = _parse(printable(name), name.partition("?")[0], file.data)
    return Model(name, proto, len(file.data), posixpath.dirname(name), file.data, note=file.note)


def _parse(shown: str, name: str, data: Buffer) -> onnx.ModelProto:
    proto = _parse_text(shown, name, data) if _is_text(name, data) else _parse_binary(shown, data)
    if not proto.HasField("graph") and not proto.functions:
        raise OnnxlintError(
            f"{shown}: not an ONNX model: it holds neither a graph nor functions; export or download it again"
        )
    return proto


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data lies in another file (a reference that the model itself has)."""
    return tensor.data_location == 1 and inline_span(tensor) is None


def inline_span(tensor: onnx.TensorProto) -> Span | None:
    """Where in the model file the tensor's data lies, if opening left it there."""
    if tensor.data_location != 1:
        return None
    held = tensor.external_data
    if len(held) < 4 or held[-1].key != MARK:  # opening appends it, after offset and length
        return None
    name, _, located = held[-1].value.partition(" ")
    return Span(name, int(held[-3].value), int(held[-2].value), bool(located))


def locate_external(model: Model, tensor: onnx.TensorProto) -> External:
    """Find a tensor's external data, without reading it."""
    if is_remote(model.base_dir):
        return locate_remote(tensor)
    folders = model.folders or folders_of(model.path, model.base_dir, None)
    return locate(tensor, model.base_dir, folders)


def named(model: Model, tensor: onnx.TensorProto) -> str:
    """A tensor in messages, with the model that it belongs to."""
    return f"{printable(model.path)}: tensor {printable(tensor.name)!r}"


def require_external(model: Model, tensor: onnx.TensorProto) -> External:
    """Find a tensor's external data, without reading it.

    Raises:
        OnnxlintError: It cannot be read, or must not be.
    """
    found = locate_external(model, tensor)
    if found.problem:
        way_out = "save it with its weights in its folder" if found.kind == "escapes" else "put the complete file there"
        raise OnnxlintError(f"{named(model, tensor)}: {found.problem}; {way_out}")
    return found


def external_files(model: Model) -> list[str]:
    """The files that hold a model's external data, sorted; without the model's own.

    Raises:
        OnnxlintError: Data of a tensor cannot be read, or must not be.
    """
    found = {require_external(model, tensor).path for tensor in walk_tensors(model.proto) if is_external(tensor)}
    own = os.path.realpath(model.path)
    return sorted(path for path in found if os.path.realpath(path) != own)


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

    from onnxlint.model.native import Crashed, Limits, in_child

    serializer = onnx.serialization.registry.get(
        _TEXT_SUFFIXES.get(os.path.splitext(name)[1].lower(), "onnxtxt"),
    )

    def parse() -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # onnx calls the text format experimental, each time
            return serializer.deserialize_proto(bytes(data[:]), onnx.ModelProto()).SerializePartialToString()

    try:
        return onnx.ModelProto.FromString(in_child(parse, Limits.of(len(data))))
    except Crashed as error:
        raise OnnxlintError(f"{shown}: onnx cannot parse it: {error}") from None
    except RuntimeError as error:  # three parsers, each with exception classes of its own
        reason = " ".join(_clean_parse_error(str(error)).split())
        raise OnnxlintError(f"{shown}: not a textual ONNX model: {printable(reason)[:300]}") from None


def _clean_parse_error(text: str) -> str:
    if text.startswith(("b'", 'b"')):
        text = text[2:-1].replace("\\n", "\n")
    return text


def _parse_binary(shown: str, data: Buffer) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    other_format = foreign(data)
    if other_format:
        raise OnnxlintError(f"{shown}: this is {other_format}")
    try:
        skeleton = slim(data)
    except WireError as error:
        raise OnnxlintError(f"{shown}: not a complete ONNX model: {error}; export or download it again") from None
    try:
        proto: onnx.ModelProto = messages().ModelProto.FromString(skeleton)
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

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(messages().DESCRIPTOR.serialized_pb + b"\x62\x06proto3")  # field 12: syntax
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnx.ModelProto"))


def _is_utf8(skeleton: bytes) -> bool:
    from google.protobuf.message import DecodeError

    try:
        _strict_model().FromString(skeleton)
    except DecodeError:
        return False
    return True


def _escape_texts(proto: Any) -> None:
    """Escape text that is not UTF-8: protobuf hands it out as bytes, which are not names."""
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


_PLAIN = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}
"""Element types whose raw data is what NumPy holds in memory on a little-endian machine."""


def _mapped(tensor: onnx.TensorProto, span: Span, buffer: LocalBytes | memoryview) -> npt.NDArray[np.generic] | None:
    """A read-only view into the file's bytes, without a copy; None if the data has to be decoded or does not fit."""
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
