"""Text lists of images: one path a line, in the encodings and with the separators that people's tools write."""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path

from onnxlint.errors import OnnxlintError
from onnxlint.text import counted, printable

LARGEST = 1 << 26
"""Bytes of a list."""

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
LINE_ENDS = re.compile(r"\r\n|\n|\r")


def read_list(path: Path) -> list[str]:
    """The paths in a list: UTF-8, UTF-16 (as Windows PowerShell writes it) or, where it is neither, the bytes of file
    names; lines end as on any system. Relative paths are those from the list's folder where the working directory does
    not have them; backslashes separate folders where no file has them in its name.

    Raises:
        OnnxlintError: It is not text, or names no file that exists.
    """
    text = read_text(str(path), "a list of images", LARGEST)
    names = [name for line in LINE_ENDS.split(text) if (name := line.strip())]
    found = [_located(path.parent, name) for name in names]
    if names and not any(map(os.path.exists, found)):
        raise OnnxlintError(
            f"{printable(str(path))}: none of the {counted(len(names), 'path')} in it exists (the first is "
            f"{printable(names[0])[:200]!r}); paths are relative to the list or to the working directory"
        )
    return found


def read_text(path: str, kind: str, largest: int, *, strict: bool = False) -> str:
    """The text of a file that people's tools wrote: UTF-8 or UTF-16, the latter known by its first bytes.

    Args:
        path: The file.
        kind: What it should be, for messages: `a list of images`.
        largest: Bytes that are read at most.
        strict: Whether anything but UTF-8 and UTF-16 is refused; else such bytes are those of file names.

    Raises:
        OnnxlintError: It cannot be read, or it is not a regular file, larger than that, or not text.
    """
    shown = printable(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OnnxlintError(f"{shown}: is not a regular file, so not {kind}")
            data = file.read(largest + 1)
    except OSError as error:
        raise OnnxlintError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if len(data) > largest:
        raise OnnxlintError(f"{shown}: is larger than {largest >> 20} MiB, too large for {kind}")
    for bom, encoding in _BOMS.items():
        if data.startswith(bom):
            try:
                return data[len(bom) :].decode(encoding)
            except UnicodeDecodeError:
                raise OnnxlintError(
                    f"{shown}: begins as {encoding.upper()} text and is not; save it as UTF-8"
                ) from None
    if b"\0" in data:
        raise OnnxlintError(f"{shown}: is not {kind}: it holds binary data; save it as UTF-8 text")
    if not strict:
        return os.fsdecode(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise OnnxlintError(f"{shown}: is not UTF-8 or UTF-16 text; save it as UTF-8") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for somebody to write into a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _located(folder: Path, name: str) -> str:
    for one in (name, name.replace("\\", "/")):
        for place in (one, os.path.join(folder, one)):
            if os.path.exists(place):
                return place
    return name
