"""Text lists of images: one path a line, in the encodings and with the separators that people's tools write."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from onnxlint.errors import OnnxlintError
from onnxlint.text import counted, printable

LARGEST = 1 << 26
"""Bytes of a list."""

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_LINE_ENDS = re.compile(r"\r\n|\n|\r")


def read_list(path: Path) -> list[str]:
    """The paths in a list: UTF-8, UTF-16 (as Windows PowerShell writes it) or, where it is neither, the bytes of file
    names; lines end as on any system. Relative paths are those from the list's folder where the working directory does
    not have them; backslashes separate folders where no file has them in its name.

    Raises:
        OnnxlintError: It is no text, or names no file that exists.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise OnnxlintError(f"{printable(str(path))}: cannot be read: {error.strerror or error}") from None
    if len(data) > LARGEST:
        raise OnnxlintError(
            f"{printable(str(path))}: is larger than {LARGEST >> 20} MiB; give a folder of images instead"
        )
    names = [name for line in _LINE_ENDS.split(_decoded(path, data)) if (name := line.strip())]
    found = [_located(path.parent, name) for name in names]
    if names and not any(map(os.path.exists, found)):
        raise OnnxlintError(
            f"{printable(str(path))}: none of the {counted(len(names), 'path')} in it exists (the first is "
            f"{printable(names[0])[:200]!r}); paths are relative to the list or to the working directory"
        )
    return found


def _decoded(path: Path, data: bytes) -> str:
    for bom, encoding in _BOMS.items():
        if data.startswith(bom):
            try:
                return data[len(bom) :].decode(encoding)
            except UnicodeDecodeError:
                raise OnnxlintError(
                    f"{printable(str(path))}: begins as {encoding.upper()} text but is none; save the list as UTF-8"
                ) from None
    if b"\0" in data:
        raise OnnxlintError(f"{printable(str(path))}: is neither an image nor a text list of images")
    return os.fsdecode(data)


def _located(folder: Path, name: str) -> str:
    for one in (name, name.replace("\\", "/")):
        for place in (one, os.path.join(folder, one)):
            if os.path.exists(place):
                return place
    return name
