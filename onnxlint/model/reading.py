"""Read untrusted files: regular files as they are, pipes up to a limit and a deadline, devices never."""

from __future__ import annotations

import mmap
import os
import select
import stat
import sys
import time
from collections.abc import Iterator

from onnxlint.errors import OnnxlintError
from onnxlint.model.wire import FILE_LIMIT, Buffer
from onnxlint.text import nearest, printable, size

WRITER_SECONDS = 5.0
"""How long a pipe may be without a writer before it is given up."""

_PIECE = 1 << 20
_NAMES = 10_000
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Opening a pipe that nobody writes to does not block."""


def open_file(path: str) -> int:
    """A descriptor for reading, opened without waiting for anybody; the caller closes it.

    Raises:
        OnnxlintError: There is no such file, or it cannot be read.
    """
    shown = printable(path)
    try:
        handle = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise OnnxlintError(f"{shown}: {no_such_file(path)}") from None
    except IsADirectoryError:
        raise _is_a_folder(shown) from None
    except (OSError, ValueError) as error:
        if os.path.isdir(path):  # Windows refuses to open a folder
            raise _is_a_folder(shown) from None
        raise OnnxlintError(f"{shown}: cannot be read: {_reason(error)}; check the path and its permissions") from None
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        os.close(handle)
        raise _is_a_folder(shown)
    return handle


def read_model_file(handle: int, shown: str, is_text: bool) -> Buffer:
    """The bytes of an opened model: mapped where it is a regular file, read where it is a pipe.

    Args:
        handle: Its descriptor.
        shown: Its name in messages.
        is_text: Whether its name says that it is textual, so that its first byte can be anything.

    Raises:
        OnnxlintError: It is empty, a device, too large, or its first bytes are not a model's.
    """
    status = os.fstat(handle)
    try:
        if stat.S_ISREG(status.st_mode) and status.st_size > 0:
            return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        data = b"".join(_bounded(handle, shown, FILE_LIMIT, not is_text))
    except (OSError, ValueError) as error:
        raise OnnxlintError(f"{shown}: cannot be read: {_reason(error)}; check the path and its permissions") from None
    if not data:
        raise OnnxlintError(f"{shown}: empty file; export or download the model again")
    return data


def read_stdin() -> bytes:
    """A model from standard input.

    Raises:
        OnnxlintError: It is closed, empty, too large, or its first bytes are not a model's.
    """
    if sys.stdin is None:
        raise OnnxlintError("-: standard input is closed; name a file, or pipe a model in")
    pieces: list[bytes] = []
    total = 0
    try:
        while piece := sys.stdin.buffer.read(_PIECE):
            if not pieces:
                check_start("-", piece)
            pieces.append(piece)
            total += len(piece)
            if total > FILE_LIMIT:
                raise _too_large("-", FILE_LIMIT)
    except (OSError, ValueError) as error:
        raise OnnxlintError(f"-: standard input cannot be read: {_reason(error)}") from None
    if not pieces:
        raise OnnxlintError("-: empty file; export or download the model again")
    return b"".join(pieces)


def read_small(path: str, limit: int) -> bytes:
    """All of a small file, such as a configuration or a baseline.

    Args:
        path: The file; a pipe is read to its end.
        limit: Bytes that it may have.

    Raises:
        OSError: It cannot be opened or read.
        OnnxlintError: It is a folder or a device, or has more than `limit` bytes.
    """
    shown = printable(path)
    handle = os.open(path, _FLAGS)
    try:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OnnxlintError(f"{shown}: is a folder; name a file in it")
        return b"".join(_bounded(handle, shown, limit))
    finally:
        os.close(handle)


def read_regular(path: str, limit: int) -> bytes:
    """All of a regular file; what else there may be is neither waited for nor read.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        OSError: It cannot be opened or read.
        OnnxlintError: It is a folder, a pipe or a device, or has more than `limit` bytes.
    """
    shown = printable(path)
    with os.fdopen(os.open(path, _FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OnnxlintError(f"{shown}: is not a regular file; name a file")
        if status.st_size > limit:
            raise _too_large(shown, limit)
        return file.read(status.st_size)


def _bounded(handle: int, shown: str, limit: int, check: bool = False) -> Iterator[bytes]:
    """Pieces of a regular file or a pipe."""
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        raise OnnxlintError(f"{shown}: is a device, not a file; name a file")
    waits = not stat.S_ISREG(mode) and hasattr(select, "poll")
    total = 0
    while piece := _next_piece(handle, shown, total) if waits else os.read(handle, _PIECE):
        if total == 0 and check:
            check_start(shown, piece)
        total += len(piece)
        if total > limit:
            raise _too_large(shown, limit)
        yield piece


def _next_piece(handle: int, shown: str, total: int) -> bytes:
    """The next bytes of a pipe; waits for its writer, and for a first writer only `WRITER_SECONDS`."""
    events = select.poll()
    events.register(handle, select.POLLIN)
    end = time.monotonic() + WRITER_SECONDS
    while True:
        ready = events.poll(1000)
        if ready and ready[0][1] & (select.POLLIN | select.POLLHUP | select.POLLERR):
            try:
                return os.read(handle, _PIECE)
            except BlockingIOError:
                continue
        if total == 0 and time.monotonic() > end:
            try:
                piece = os.read(handle, _PIECE)
            except BlockingIOError:  # somebody has it open, and has written nothing yet
                continue
            if not piece:
                raise OnnxlintError(f"{shown}: is a pipe that nobody writes to; name a file")
            return piece


def check_start(shown: str, data: bytes) -> None:
    """Refuse a file that cannot be a model by its first bytes, before reading the rest.

    Raises:
        OnnxlintError: They are those of another format, or of none.
    """
    what = foreign(data)
    if what:
        raise OnnxlintError(f"{shown}: this is {what}")
    start = data.lstrip()[:1]
    if start not in (b"<", b"{") and (data[0] < 8 or data[0] & 7 not in (0, 1, 2, 5)):
        raise OnnxlintError(f"{shown}: not an ONNX model: byte 0 is not a protobuf field; export or download it again")


_EXPORT = "'onnxlint export package.module:factory --weights FILE' makes one"

_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model; run 'git lfs pull'"),
    (b"PK\x03\x04", f"a zip archive (a PyTorch checkpoint?), not ONNX; {_EXPORT}"),
    (b"\x80\x02", f"a Python pickle (a PyTorch checkpoint?), not ONNX; {_EXPORT}"),
    (b"\xff\xd8\xff", "a JPEG picture, not ONNX"),
    (b"\x89PNG", "a PNG picture, not ONNX"),
    (b"\x93NUMPY", "a NumPy array, not ONNX"),
    (b"\x89HDF", "an HDF5 file (a Keras model?), not ONNX; convert it with tf2onnx"),
    (b"\x1f\x8b", "gzip-compressed; decompress it first"),
    (b"<!DOCTYPE", "a web page, not a model; download the file itself"),
    (b"<html", "a web page, not a model; download the file itself"),
    (b"7767517", "an ncnn .param file, not ONNX"),
    (b"ORTM", "an onnxruntime ORT-format model, not ONNX; use the .onnx file that it was made from"),
)


def foreign(data: Buffer) -> str:
    """Which other format the bytes are, with the way out; empty if they may be ONNX."""
    head = bytes(data[:64])
    for magic, what in _FOREIGN:
        if head.startswith(magic) or (magic == b"ORTM" and head[4:8] == magic):
            return what
    return "TensorFlow Lite, not ONNX; convert it with tf2onnx" if head[4:8] == b"TFL3" else ""


def _is_a_folder(shown: str) -> OnnxlintError:
    return OnnxlintError(f"{shown}: is a folder, not a model; name a file in it, or pass the folder that holds it")


def _too_large(shown: str, limit: int) -> OnnxlintError:
    return OnnxlintError(f"{shown}: has more than {size(limit)}; this is not a file that onnxlint reads")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def no_such_file(path: str) -> str:
    """The end of a message about a file that is not there: `no such file; did you mean 'x.onnx'?`."""
    return f"no such file; {similar_file(path) or 'check the path'}"


def similar_file(path: str) -> str:
    """`did you mean 'x.onnx'?` where a file of a similar name is in the same folder, or `\\` separates folders."""
    turned = path.replace("\\", "/")
    if turned != path and os.path.exists(turned):
        return f"did you mean {printable(turned)!r}?"
    from difflib import SequenceMatcher  # only where something is wrong

    try:
        names = os.listdir(os.path.dirname(path) or ".")
    except (OSError, ValueError):
        return ""
    wanted, ending = os.path.splitext(os.path.basename(path))
    # Equal endings would make any two names alike: stems are compared, and of equal stems the most similar ending wins.
    stems: dict[str, list[str]] = {}
    for name in sorted(names[:_NAMES]):
        stems.setdefault(os.path.splitext(name)[0], []).append(name)
    near = nearest(wanted, stems)
    if near is None:
        return ""
    alike = {name: SequenceMatcher(None, ending, os.path.splitext(name)[1]).ratio() for name in stems[near]}
    return f"did you mean {printable(os.path.join(os.path.dirname(path), max(alike, key=alike.__getitem__)))!r}?"
