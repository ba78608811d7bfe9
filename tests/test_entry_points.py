"""Entry points, against importlib.metadata."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from onnxlint.entry_points import EntryPoint, entry_points

TEXT = """
[other]
x = y

[onnxlint.test-group]
# a comment
first = json:dumps
  second=json.decoder:JSONDecoder.decode [extra]
third = json

[onnxlint.test-group-2]
fourth = nothing
"""


def test_all_groups_of_this_environment() -> None:
    groups = metadata.entry_points().groups
    assert {"console_scripts", "onnxlint.rules"} <= set(groups)
    for group in groups:
        theirs = sorted((point.name, point.value) for point in metadata.entry_points(group=group))
        assert sorted(entry_points(group)) == theirs, group


def install(folder: Path, name: str, text: str) -> None:
    info = folder / name
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.partition('-')[0]}\nVersion: 1.0\n")


def test_what_a_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    install(tmp_path / "a", "some_package-1.0.dist-info", TEXT)
    install(tmp_path / "b", "Some.Package-2.0.dist-info", "[onnxlint.test-group]\nhidden = json\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nowhere"), str(tmp_path / "a"), str(tmp_path / "b"), *sys.path])
    found = entry_points("onnxlint.test-group")
    assert [point.name for point in found] == ["first", "second", "third"]
    assert [point.load() for point in found] == [json.dumps, json.decoder.JSONDecoder.decode, json]
    assert entry_points("onnxlint.test") == []


def test_packages_in_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("packed-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: packed\nVersion: 1.0\n")
        file.writestr("packed-1.0.dist-info/entry_points.txt", TEXT)
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    assert EntryPoint("first", "json:dumps") in entry_points("onnxlint.test-group")
