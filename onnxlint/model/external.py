"""External data: where a tensor's bytes lie beside the model, and how they are opened without leaving its folder.

Names are checked when data is located, and again when it is opened: folders are opened one below the other without
following links, and what was opened is compared with what was located. So a link that another process puts in place
between the two is refused, not followed.
"""

from __future__ import annotations

import math
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

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

_DIGITS = 20
"""Digits that an offset or a length can have: more than any file has bytes."""


def tensor_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes that the tensor's elements take, from its dims and type alone; None for strings and unknown types."""
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else (math.prod(tensor.dims) * bits + 7) // 8


class Folder(NamedTuple):
    """A folder that external data may lie in, as it was when the model was opened.

    Attributes:
        path: Without links.
        device, inode: Its identity.
    """

    path: str
    device: int
    inode: int


def folders_of(path: str, base_dir: str, opened: int | None) -> tuple[Folder, ...]:
    """The folders that a model's external data may lie in.

    That is the model's own folder, and the one that the model itself lies in where its name is a link: in the Hugging
    Face cache, model and data are both links into one folder of blobs.

    Args:
        path: The model's file.
        base_dir: The folder of that name.
        opened: A descriptor of the file: a name that leads to another file by now does not count. None if the model
            was not read from a file.
    """
    candidates = [os.path.realpath(base_dir)]
    if opened is not None:
        real = os.path.realpath(path)
        try:
            if os.path.samestat(os.stat(real, follow_symlinks=False), os.fstat(opened)):
                candidates.append(os.path.dirname(real))
        except (OSError, ValueError):
            pass  # renamed meanwhile: the folder itself is left
    found = []
    for folder in dict.fromkeys(candidates):
        try:
            status = os.stat(folder)
        except (OSError, ValueError):
            continue
        found.append(Folder(folder, status.st_dev, status.st_ino))
    return tuple(found)


class External(NamedTuple):
    """Location of a tensor's external data, and its fault, if any.

    Attributes:
        location: As the file says it.
        path: The file, absolute; empty if the location must not be followed.
        offset: First byte.
        length: In bytes.
        kind: Empty if the data can be read, else the fault: `escapes` (see `escape_problem`), `numbers` (offset or
            length is not a number, or negative), `missing`, `irregular` (a folder, a device), `short`, `mismatch`
            (length against dims and type), `remote` (beside a remote model: not looked for).
        problem: One line about it; empty if the data can be read.
        home: The folder that it lies in.
        inner: The file's path below `home`, without links.
        device, inode: Identity of the file.
    """

    location: str
    path: str = ""
    offset: int = 0
    length: int = 0
    kind: str = ""
    problem: str = ""
    home: Folder | None = None
    inner: str = ""
    device: int = 0
    inode: int = 0


def locate(tensor: onnx.TensorProto, base_dir: str, folders: tuple[Folder, ...]) -> External:
    """Find a tensor's external data, without reading it.

    Args:
        tensor: One whose data is external.
        base_dir: Folder that its location is relative to.
        folders: See `folders_of`.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    shown = printable(location)
    if not location:
        return External(location, kind="missing", problem="its external data names no file")
    problem, home, inner = _place(location, base_dir, folders)
    if problem:
        return External(location, kind="escapes", problem=problem)
    path = os.path.join(os.path.abspath(base_dir), os.path.normpath(location))
    numbers = _numbers(entries)
    if numbers is None:
        return External(location, path, kind="numbers", problem="its offset or length is not a number")
    offset, length = numbers
    needed = tensor_bytes(tensor)
    size = (needed or 0) if length is None else length
    if offset < 0 or size < 0:
        return External(location, path, kind="numbers", problem="its offset or length is negative")
    found = External(location, path, offset, size, home=home, inner=inner)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return found._replace(kind="missing", problem=f"external data file {shown!r} is missing")
    found = found._replace(device=status.st_dev, inode=status.st_ino)
    if not stat.S_ISREG(status.st_mode) or location.endswith(("/", os.sep)):
        return found._replace(kind="irregular", problem=f"external data {shown!r} is not a regular file")
    if needed is not None and size != needed:
        return found._replace(
            kind="mismatch", problem=f"its external data is {size} bytes, but its dims and type take {needed}"
        )
    if offset + size > status.st_size:
        return found._replace(
            kind="short",
            problem=f"external data file {shown!r} has {status.st_size} bytes, but {offset + size} are needed",
        )
    return found


def locate_remote(tensor: onnx.TensorProto) -> External:
    """Find what can be said about a remote model's external data by its name alone: the data is not looked for."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    problem = _textual_problem(location)
    if problem:
        return External(location, kind="escapes", problem=problem)
    shown = printable(location)
    return External(location, kind="remote", problem=f"its external data {shown!r} is not read from a store")


def _numbers(entries: Mapping[str, str]) -> tuple[int, int | None] | None:
    """(offset, length or None) of an external-data reference; None if one is not a number."""
    texts = [entries[key] for key in ("offset", "length") if key in entries]
    if any(len(text) > _DIGITS for text in texts):
        return None
    try:
        return int(entries.get("offset", "0")), int(entries["length"]) if "length" in entries else None
    except ValueError:
        return None


def escape_problem(location: str, base_dir: str, folders: tuple[Folder, ...]) -> str:
    """Why a location of external data must not be followed; empty if it may.

    Absolute paths, `..` and symbolic links that leave the model's folder are refused, as onnx (CVE-2022-25882,
    CVE-2024-27318, CVE-2026-27489) and onnxruntime do. Links between the files of one download, as the Hugging Face
    cache makes them, stay in the folder that the model's own link leads to: onnxruntime follows these, and so do we.
    """
    return _place(location, base_dir, folders)[0]


def _place(location: str, base_dir: str, folders: tuple[Folder, ...]) -> tuple[str, Folder | None, str]:
    """(why a location must not be followed or nothing, the folder that it lies in, its path below that)."""
    problem = _textual_problem(location)
    if problem:
        return problem, None, ""
    real = os.path.realpath(os.path.join(base_dir, os.path.normpath(location)))
    for home in folders:
        start = f"{home.path.rstrip(os.sep)}{os.sep}"
        if f"{real}{os.sep}".startswith(start):
            return "", home, real[len(start) :]
    return f"its external data location {printable(location)!r} is a link that leaves the model's folder", None, ""


def _textual_problem(location: str) -> str:
    """Why a location must not be followed, whatever is there; empty if nothing speaks against it."""
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
    return ""


@contextmanager
def open_located(found: External, what: str) -> Iterator[BinaryIO]:
    """Open located data for reading, at its first byte.

    Args:
        found: What `locate` found, without a problem.
        what: The model and tensor, for messages.

    Raises:
        OnnxlintError: The file is no longer the one that was located: another process replaced it.
    """
    if found.home is None:
        raise OnnxlintError(f"{what}: its external data was not located")
    changed = OnnxlintError(f"{what}: external data file {printable(found.location)!r} changed while it was opened")
    try:
        handle = _open_below(found.home, found.inner)
    except (OSError, ValueError):
        raise changed from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        same = (status.st_dev, status.st_ino) == (found.device, found.inode)
        if not same or not stat.S_ISREG(status.st_mode) or status.st_size < found.offset + found.length:
            raise changed
        file.seek(found.offset)
        yield file


def _open_below(home: Folder, inner: str) -> int:
    """A descriptor of a file below a folder; no link is followed on the way.

    Raises:
        OSError: There is a link on the way, or the folder is another one by now.
    """
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
        # Windows: making a link needs a privilege there. What was opened is compared with what was located all the same.
        real = os.path.realpath(os.path.join(home.path, inner))
        if real != os.path.normpath(os.path.join(home.path, inner)):
            raise OSError("a link has appeared on the way")
        return os.open(real, flags)
    handle = os.open(home.path, flags | os.O_DIRECTORY)
    try:
        status = os.fstat(handle)
        if (status.st_dev, status.st_ino) != (home.device, home.inode):
            raise OSError("the folder is another one")
        *folders, name = inner.split(os.sep)
        for folder in folders:
            below = os.open(folder, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)
    finally:
        os.close(handle)
