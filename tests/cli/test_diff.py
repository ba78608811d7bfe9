"""`onnxlint diff` and `onnxlint show` as users and git run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import onnxlint as package
from tests.support.command import BAD, CLEAN, onnxlint, save

DATA = Path(__file__).parents[3] / "shared" / "data" / "retinaface"


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "old.onnx", CLEAN), save(tmp_path / "new.onnx", CLEAN.replace("Relu", "Sigmoid"))


def test_exit_codes(models: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = models
    same = onnxlint("diff", old, old)
    assert (same.code, same.err) == (0, "")
    assert "same inputs, outputs, nodes and weights" in same.out
    changed = onnxlint("diff", old, new)
    assert changed.code == 1
    assert "operator Relu → Sigmoid" in changed.out
    missing = onnxlint("diff", old, tmp_path / "missing.onnx")
    assert (missing.code, missing.out) == (2, "")
    assert "missing.onnx: no such file" in missing.err


def test_findings_are_compared(tmp_path: Path) -> None:
    old, new = save(tmp_path / "old.onnx", CLEAN), save(tmp_path / "new.onnx", BAD)
    outcome = onnxlint("diff", old, new, "--select", "SHP001")
    assert "findings" in outcome.out
    assert "2 new, 0 fixed, 0 remaining" in outcome.out
    assert "SHP001" not in onnxlint("diff", old, new, "--no-check").out


def test_verify(models: tuple[Path, Path]) -> None:
    pytest.importorskip("onnxruntime")
    old, new = models
    assert "different on " in onnxlint("diff", old, new, "--verify").out
    assert "equal on " in onnxlint("diff", old, old, "--verify").out


def test_reports_go_to_a_file(models: tuple[Path, Path], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    outcome = onnxlint("diff", *models, "--format", "json", "-o", report)
    assert (outcome.code, outcome.out) == (1, "")
    assert json.loads(report.read_text(encoding="utf-8"))["same"] is False


def test_a_misspelt_format_is_said_before_the_models_are_read(tmp_path: Path) -> None:
    outcome = onnxlint("diff", tmp_path / "no", tmp_path / "no", "--format", "htlm")
    assert outcome.code == 2
    assert "did you mean 'html'" in outcome.err


def test_stdin(models: tuple[Path, Path]) -> None:
    old, new = models
    assert onnxlint("diff", "-", new, stdin=old.read_bytes()).code == 1
    assert "cannot both come from stdin" in onnxlint("diff", "-", "-").err


def test_from_python(models: tuple[Path, Path]) -> None:
    changes = package.diff(*models)
    assert not changes.same
    assert [(one.change.value, one.op) for one in changes.nodes] == [("changed", "Sigmoid")]
    assert changes.to_dict()["operators"] == {"Relu": -1, "Sigmoid": 1}


def test_show_is_one_line_a_node(models: tuple[Path, Path]) -> None:
    assert onnxlint("show", models[0]).out.splitlines() == [
        "opset ai.onnx 17",
        "ir_version 8",
        "input image float32[N, 3, H, W]",
        "fpn.Relu = Relu(image)",
        "output features float32[N, 3, H, W] = fpn.Relu",
    ]


def test_git_shows_models_as_text(models: tuple[Path, Path], tmp_path: Path) -> None:
    """The two lines of docs/diff.md, in a repository made for it."""
    repository = tmp_path / "repository"
    command = f"{sys.executable} -m onnxlint show"
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PYTHONPATH": os.pathsep.join(sys.path),
        **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "t"),
        **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "t@example.com"),
    }

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=repository, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    repository.mkdir()
    git("init", "-q")
    (repository / ".gitattributes").write_text("*.onnx diff=onnx\n")
    git("config", "diff.onnx.textconv", command)
    (repository / "m.onnx").write_bytes(models[0].read_bytes())
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    (repository / "m.onnx").write_bytes(models[1].read_bytes())
    changed = [line for line in git("diff").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == [
        "-fpn.Relu = Relu(image)",
        "-output features float32[N, 3, H, W] = fpn.Relu",
        "+fpn.Sigmoid = Sigmoid(image)",
        "+output features float32[N, 3, H, W] = fpn.Sigmoid",
    ]
    git("commit", "-q", "-a", "-m", "second")
    assert "+fpn.Sigmoid = Sigmoid(image)" in git("log", "-p", "-1")


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_a_fix_of_a_real_model(tmp_path: Path) -> None:
    original = DATA / "original_op17_dyn.onnx"
    fixed = tmp_path / "fixed.onnx"
    onnxlint("fix", original, "-o", fixed, "--multiple-of", "32", "--exit-zero", "--no-verify")
    outcome = onnxlint("diff", original, fixed, "--isolated", "--verify")
    assert outcome.code == 1
    assert "0 new" in outcome.out
    assert "equal on" in outcome.out
    assert "+ " not in outcome.out.split("/fpn")[1].split("/BboxHead")[0]
