"""Labels of any origin: encodings and line ends of other systems are read, whatever is broken is one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxlint.accuracy.tasks.labels import read_boxes, read_classes, read_pairs
from onnxlint.errors import OnnxlintError

WIDER = "event\\one.jpg\n1\n10 20 30 40 0 0 0 0 0 0\n"
COCO = {
    "images": [{"id": 1, "file_name": "one.jpg"}],
    "categories": [{"id": 1, "name": "face"}],
    "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
}
CLASSES = "a\\one.jpg,3\nb/two.jpg,1\n"
PAIRS = "1 1\nAda\t1\t2\nAda\t1\tBob\t3\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_of_any_system(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "labels.txt"

    def write(text: str) -> str:
        path.write_bytes(text.replace("\n", end).encode(encoding))
        return str(path)

    (boxes,) = read_boxes(write(WIDER)).images.values()
    assert boxes.corners.tolist() == [[10, 20, 40, 60]]
    assert read_boxes(write(json.dumps(COCO, indent=1))).categories == {1: "face"}
    assert list(read_classes(write(CLASSES)).images.values()) == [3, 1]
    assert read_classes(write("köter\nkatze\n")).names == ("köter", "katze")
    assert [pair.same for pair in read_pairs(write(PAIRS))] == [True, False]


def broken(change: Callable[[dict[str, Any]], None]) -> str:
    document = json.loads(json.dumps(COCO))
    change(document)
    return json.dumps(document)


def annotation(**values: Any) -> str:
    return broken(lambda document: document["annotations"][0].update(values))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\1\2",
        "[" * 100_000,
        "{" * 10,
        "[1, 2]",
        "{}",
        json.dumps("text"),
        broken(lambda document: document.pop("images")),
        broken(lambda document: document["images"].append(3)),
        broken(lambda document: document["images"][0].update(id=[1])),
        broken(lambda document: document["categories"][0].update(id=1e400)),
        broken(lambda document: document["categories"][0].update(id=10**30)),
        annotation(bbox=[1, 2, 3]),
        annotation(bbox=[1, 2, 3, float("nan")]),
        annotation(bbox=[1, 2, 3, 1e400]),
        annotation(bbox="1234"),
        annotation(bbox=None),
        annotation(category_id=9),
        annotation(category_id=float("inf")),
        annotation(image_id=5),
        annotation(image_id={}),
        '{"images": [{"id": ' + "9" * 5000 + ', "file_name": "x"}], "categories": [], "annotations": []}',
        "one.jpg\n" + "9" * 5000 + "\n",
        "one.jpg\n2\n1 2 3 4\n",
        "one.jpg\n1\n1 2 3 1e999\n",
        "one.jpg\n1\n1 2 3\n",
        "one.jpg\n1\n1 2 three 4\n",
        "one.jpg",
    ],
)
def test_broken_boxes_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(OnnxlintError) as error:
        read_boxes(str(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_classes, ""),
        (read_classes, "one.jpg," + "9" * 5000),
        (read_classes, "one.jpg,cat\n"),
        (read_classes, "cat\ncat\n"),
        (read_pairs, ""),
        (read_pairs, "10 " + "9" * 5000 + "\nAda\t1\t2\n"),
        (read_pairs, "1\nAda\t1\t" + "9" * 5000 + "\n"),
        (read_pairs, "1\nAda Bob\n"),
        (read_pairs, "hello\n"),
    ],
)
def test_broken_classes_and_pairs_are_one_line(tmp_path: Path, read: Callable[[str], object], text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(OnnxlintError) as error:
        read(str(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [read_boxes, read_classes, read_pairs])
def test_files_that_are_no_text(tmp_path: Path, read: Callable[[str], object]) -> None:
    path = tmp_path / "labels"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(OnnxlintError, match=r"is not UTF-8 or UTF-16 text; save it as UTF-8"):
        read(str(path))
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(OnnxlintError, match=r"begins as UTF-16-LE text and is not"):
        read(str(path))
    with pytest.raises(OnnxlintError, match=r"no such labels"):
        read(str(tmp_path / "none"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason=f"{sys.platform} has no FIFOs")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    os.mkfifo(path)
    with pytest.raises(OnnxlintError, match="is not a regular file, so not a labels file"):
        read_boxes(str(path))


LINES = st.lists(
    st.sampled_from(["a.jpg", "1", "0", "1 2 3 4", "cat", "a.jpg,1", "a.jpg 2", "1 1", "x\t1\t2", "{", "\0", "é"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(LINES, st.sampled_from([read_boxes, read_classes, read_pairs]))
def test_any_lines_are_labels_or_one_line(tmp_path: Path, lines: list[str], read: Callable[[str], object]) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(lines))
    said = ""
    try:
        read(str(path))
    except OnnxlintError as error:
        said = str(error)
    assert "\n" not in said
