"""Which models a command line means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxlint.errors import OnnxlintError
from onnxlint.lint.files import find_models
from onnxlint.lint.finding import FileError
from onnxlint.lint.globs import matches_any
from onnxlint.model.output import check_writable, write_atomically


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = """models/b.onnx models/a.ONNX models/notes.txt models/deep/er/c.onnxtxt models/deep/d.onnxtext
    models/.cache/hidden.onnx models/folder.onnx/weights.bin models/folder.onnx/inner.onnx
    models/node_modules/x.onnx env/lib/y.onnx env/pyvenv.cfg empty/readme.md plain[1].onnx"""
    for name in names.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths: str, **options: Any) -> list[str]:
    return [f"error: {item.message}" if isinstance(item, FileError) else item for item in find_models(paths, **options)]


def test_a_folder_is_searched_recursively_and_sorted(tree: Path) -> None:
    assert found("models") == [
        "models/a.ONNX",
        "models/b.onnx",
        "models/deep/d.onnxtext",
        "models/deep/er/c.onnxtxt",
        "models/folder.onnx/inner.onnx",
    ]


def test_hidden_folders_and_environments_are_searched_only_when_named(tree: Path) -> None:
    assert not any("env" in path or ".cache" in path for path in found("."))
    assert found("models/.cache", "env/lib") == ["models/.cache/hidden.onnx", "env/lib/y.onnx"]


def test_a_folder_called_like_a_model_is_a_folder(tree: Path) -> None:
    assert found("models/folder.onnx") == ["models/folder.onnx/inner.onnx"]


def test_a_folder_without_models_is_an_error(tree: Path) -> None:
    assert found("empty") == [
        "error: empty: no models in this folder; models end in .onnx, .onnxtxt, .onnxtext",
    ]


def test_a_folder_whose_models_are_all_excluded_says_so(tree: Path) -> None:
    assert found("models/deep", excluded=lambda path: True) == [
        "error: models/deep: no models in this folder: the configuration excludes all 2 of them"
    ]


def test_mixed_paths_keep_their_order_and_come_once(tree: Path) -> None:
    paths = found("-", "models/deep", "models/b.onnx", "./models/b.onnx", str(tree / "models/b.onnx"), "models", "-")
    assert paths == [
        "-",
        "models/deep/d.onnxtext",
        "models/deep/er/c.onnxtxt",
        "models/b.onnx",
        "models/a.ONNX",
        "models/folder.onnx/inner.onnx",
    ]


def test_globs_that_the_shell_did_not_expand(tree: Path) -> None:
    assert found("models/*.onnx") == ["models/b.onnx"]
    assert found("models/**/*.onnxt*") == ["models/deep/d.onnxtext", "models/deep/er/c.onnxtxt"]
    assert "models/notes.txt" not in found("models/*")
    assert found("models/d*p") == ["models/deep/d.onnxtext", "models/deep/er/c.onnxtxt"]
    assert found("*.pt") == ["error: *.pt: no file matches; check the pattern"]


def test_a_file_whose_name_looks_like_a_glob(tree: Path) -> None:
    assert found("plain[1].onnx") == ["plain[1].onnx"]


def test_a_missing_file_is_left_for_opening_to_report(tree: Path) -> None:
    assert found("nope.onnx", "models/b.onnx") == ["nope.onnx", "models/b.onnx"]


def test_exclusion_is_for_folders_and_globs_unless_forced(tree: Path) -> None:
    def excluded(path: str) -> bool:
        return path.endswith("b.onnx")

    assert "models/b.onnx" not in found("models", excluded=excluded)
    assert found("models/b.onnx", excluded=excluded) == ["models/b.onnx"]
    assert found("models/b.onnx", excluded=excluded, force_exclude=True) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_an_error(tree: Path) -> None:
    (tree / "models/deep").chmod(0)
    paths = found("models")
    (tree / "models/deep").chmod(0o755)
    assert any(path.startswith("error: models/deep: cannot be read") for path in paths)
    assert "models/b.onnx" in paths


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.onnx", "a.onnx", True),
        ("*.onnx", "deep/a.onnx", True),
        ("a*", "deep/abc/x.onnx", True),
        ("old", "models/old/x.onnx", True),
        ("old", "models/older/x.onnx", False),
        ("models/*.onnx", "models/a.onnx", True),
        ("models/*.onnx", "models/deep/a.onnx", False),
        ("models/*.onnx", "other/models/a.onnx", False),
        ("models/**", "models/deep/a.onnx", True),
        ("models/**/a.onnx", "models/a.onnx", True),
        ("**/a.onnx", "a.onnx", True),
        ("models/", "models/a.onnx", True),
        ("./models/a.onnx", "models/a.onnx", True),
        ("/models/a.onnx", "models/a.onnx", True),
        ("v[0-9].onnx", "v3.onnx", True),
        ("v[!0-9].onnx", "v3.onnx", False),
        ("v?.onnx", "v10.onnx", False),
        ("[z-a].onnx", "b.onnx", False),
        ("../*.onnx", "../a.onnx", True),
        ("-", "-", True),
        ("*", "-", False),
    ],
)
def test_patterns_of_the_configuration(
    pattern: str, path: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert matches_any([pattern], path, ".") is expected
    assert matches_any([pattern], path, str(tmp_path)) is expected


@given(st.text(alphabet="ab*?[]!-/.\\^$+", max_size=12), st.text(alphabet="ab/-.", min_size=1, max_size=12))
def test_any_pattern_can_be_matched(pattern: str, path: str) -> None:
    matches_any([pattern], path, ".")


def test_writing_keeps_the_mode_and_leaves_no_traces(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    write_atomically(str(path), "one")
    path.chmod(0o640)
    write_atomically(str(path), "two ×")
    assert path.read_text(encoding="utf-8") == "two ×"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["report.txt"]


def test_writing_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_atomically(str(tmp_path / "link.txt"), "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OnnxlintError, match=r"report\.txt: cannot be written: No space left on device"):
        write_atomically(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.txt"]


def test_a_device_is_written_to_directly() -> None:
    check_writable(os.devnull)
    write_atomically(os.devnull, "text")


def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match="no such folder"):
        check_writable(str(tmp_path / "nope" / "report.txt"))
    with pytest.raises(OnnxlintError, match="is a folder"):
        check_writable(str(tmp_path))
