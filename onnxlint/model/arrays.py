"""Untrusted NumPy files: read without pickle, in memory bounded by the file's real size.

`np.load` allocates what a header claims, evaluates headers with Python's parser, and raises a dozen kinds of errors over
broken files. Here a file is checked before anything is allocated, and any fault is one line.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from onnxlint.errors import OnnxlintError
from onnxlint.text import counted, listed, printable, size

if TYPE_CHECKING:
    import zipfile

    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

LARGEST = 8 << 30
"""Bytes that the arrays of one file hold at most, unpacked."""

MOST_MEMBERS = 10_000
"""Arrays of one file at most."""

_ADDRESS = re.compile(r":? <[^<>]* object at 0x[0-9a-f]+>|: [A-Z]\w*\(.*", re.DOTALL)
"""An object of Python in a message; from Python 3.14 on, a node of a syntax tree is written out."""

_PACKED = 1100
"""How many times smaller than its content deflate can make a file; what claims more is damaged."""


class _Readable(Protocol):
    """A file, or a member of an archive."""

    def read(self, count: int = ..., /) -> bytes: ...
    def readinto(self, buffer: Any, /) -> int | None: ...
    def tell(self) -> int: ...


_MAGIC = b"\x93NUMPY"
_KINDS = "biufcSU"
"""Kinds of types whose bytes are read as they are; objects would need pickle."""


def read_arrays(path: str, wanted: Collection[str] | None = None) -> dict[str, Array]:
    """The arrays of an .npz file by their names, or the one of an .npy file under the name "".

    Args:
        path: The file.
        wanted: Only these, of an .npz file; None: all.

    Raises:
        OnnxlintError: The file cannot be read, is damaged, holds Python objects, or claims more than it has.
    """
    import zipfile  # only where there are such files: each comparison of two models would pay for it
    import zlib

    shown = printable(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OnnxlintError(f"{shown}: is not a regular file, so not an .npy or .npz file")
            if file.read(len(_MAGIC)) == _MAGIC:
                file.seek(0)
                return {"": _array(shown, file, os.fstat(file.fileno()).st_size)}
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                return _members(shown, archive, wanted)
    except OSError as error:
        raise OnnxlintError(f"{shown}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise OnnxlintError(f"{shown}: is not a complete .npy or .npz file; write it with numpy.savez") from None
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or packed in a way that Python lacks
        raise OnnxlintError(
            f"{shown}: cannot be unpacked: {printable(str(error))[:100]}; write it with numpy.savez"
        ) from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody to write into a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_inputs(path: str, names: Sequence[str]) -> dict[str, Array]:
    """The same for a model's inputs: the array of an .npy file is that of the only one.

    Raises:
        OnnxlintError: As for `read_arrays`, or an input has no array.
    """
    arrays = read_arrays(path)
    if list(arrays) == [""] and len(names) == 1:
        return {names[0]: arrays[""]}
    missing = [name for name in names if name not in arrays]
    if missing:
        there = listed([printable(name) or "one without a name" for name in sorted(arrays)], limit=6)
        raise OnnxlintError(
            f"{printable(path)}: has no array for input {printable(missing[0])!r} (it has {there or 'none'}); save one "
            "for each input with numpy.savez"
        )
    return {name: arrays[name] for name in names}


def _members(shown: str, archive: zipfile.ZipFile, wanted: Collection[str] | None) -> dict[str, Array]:
    entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > MOST_MEMBERS or claimed > LARGEST or claimed > (packed + 1) * _PACKED:
        raise OnnxlintError(
            f"{shown}: claims {counted(len(entries), 'array')} of {size(claimed)} together; "
            f"{counted(MOST_MEMBERS, 'array')} of {size(LARGEST)} are the limit"
        )
    names = {entry.filename.removesuffix(".npy"): entry for entry in entries if entry.filename.endswith(".npy")}
    if not names:
        there = listed([printable(entry.filename)[:40] for entry in entries], limit=4)
        raise OnnxlintError(f"{shown}: holds no array ({there or 'it is empty'}); write it with numpy.savez")
    found = {}
    for name, entry in names.items():
        if wanted is None or name in wanted:
            with archive.open(entry) as member:
                file: Any = member
                found[name] = _array(f"{shown}: array {printable(name)!r}", file, entry.file_size)
    return found


def _array(shown: str, file: _Readable, length: int) -> Array:
    """An array in numpy's format, of which `length` bytes are there, its header included."""
    import numpy as np

    shape, fortran, dtype = _header(shown, file)
    if dtype.hasobject or dtype.kind not in _KINDS:
        kind = f"{printable(str(dtype))[:40]}, neither numbers nor text"
        what = "Python objects, which are not read" if dtype.hasobject else kind
        raise OnnxlintError(f"{shown}: holds {what}; save numbers")
    count = 1
    for one in shape:
        count *= one
    there = length - file.tell()
    if count * dtype.itemsize > there:
        raise OnnxlintError(
            f"{shown}: claims {size(count * dtype.itemsize)} and has {size(max(0, there))}; save it again"
        )
    array = np.empty(count, dtype)
    rest: Any = memoryview(array.view(np.uint8)) if count and dtype.itemsize else b""  # type: ignore[arg-type]
    while rest:
        got = file.readinto(rest)
        if not got:
            raise OnnxlintError(f"{shown}: ends in the middle; save it again")
        rest = rest[got:]
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _header(shown: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = npy.read_array_header_2_0(file)
    except Exception as error:  # noqa: BLE001 - headers are Python literals: their parser raises anything
        why = printable(_ADDRESS.sub("", str(error)))[:80]
        raise OnnxlintError(f"{shown}: has no header that NumPy reads ({why}); save it with numpy.save") from None
    possible = all(type(one) is int and one >= 0 for one in shape) and len(shape) <= 32  # True is an int, too
    if not possible or math.prod(max(1, one) for one in shape) * max(1, dtype.itemsize) >= 1 << 63:
        raise OnnxlintError(f"{shown}: has a header with an impossible shape; save it again")
    return shape, fortran, dtype
