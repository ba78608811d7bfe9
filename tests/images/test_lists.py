"""Text lists of images, in the encodings that people's tools write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures import pictures
from onnxlint.errors import OnnxlintError
from onnxlint.images.lists import read_list
from onnxlint.images.recipe import find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures.build(tmp_path / "pictures", 3, 32, 24)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(f"pictures/{path.name}" for path in (folder / "pictures").iterdir())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["/", "\\"])
def test_encodings_line_ends_and_separators(folder: Path, encoding: str, end: str, separator: str) -> None:
    text = end.join(name.replace("/", separator) for name in names(folder)) + end
    (folder / "list.txt").write_bytes(text.encode(encoding))
    found = find_images(folder / "list.txt")
    assert [os.path.relpath(path, folder) for path in found.paths] == names(folder)


def test_a_name_that_is_not_utf8(folder: Path) -> None:
    name = os.fsdecode(b"pictures/caf\xe9.png")
    os.rename(folder / names(folder)[0], folder / name)
    (folder / "list.txt").write_bytes(b"pictures/caf\xe9.png\n")
    assert read_list(folder / "list.txt") == [str(folder / name)]


def test_a_name_with_a_line_separator_of_unicode(folder: Path) -> None:
    os.rename(folder / names(folder)[0], folder / "pictures/a\u2028b.png")
    (folder / "list.txt").write_text("pictures/a\u2028b.png\n", encoding="utf-8")
    assert len(read_list(folder / "list.txt")) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a.png\nb.png\n", r"none of the 2 paths in it exists \(the first is 'a.png'\)"),
        (b"a" * 5000 + b"\n", "none of the 1 path in it exists"),
        (b"\x89PNG\x00\x01\x02", "is not a list of images: it holds binary data"),
        (b"\xff\xfe" + b"a", "begins as UTF-16-LE text and is not"),
        (b"\n \n", "the list names no image"),
    ],
)
def test_lists_that_cannot_be_used(folder: Path, data: bytes, message: str) -> None:
    (folder / "list.txt").write_bytes(data)
    with pytest.raises(OnnxlintError, match=message) as caught:
        find_images(folder / "list.txt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
