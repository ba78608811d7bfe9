"""`onnxlint export --fix-source`: the source changed, exported again, and put back unless all is well."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest

from tests.support.command import onnxlint

pytest.importorskip("torch")
pytest.importorskip("libcst")
pytest.importorskip("onnxruntime")

NET = '''import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    """A map and one of half its size."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 4, 3, 1, 1)
        self.c2 = nn.Conv2d(4, 4, 3, 2, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        a = F.relu(self.c1(x))
        b = self.c2(a)
        up = F.interpolate(
            b,
            size=a.shape[2:],  # as large as a
            mode="nearest",
        )
        pooled = (a + up).mean((2, 3), keepdim=True)
        return self.fc(pooled.view(pooled.size(0), -1))  # logits
'''

WORDS = ("export", "net.py:Net", "--shape", "1,3,16,16", "--exporter", "torchscript", "-o", "net.onnx")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")


FIXED = NET.replace("size=a.shape[2:],", "scale_factor=2,").replace(
    "pooled.view(pooled.size(0), -1)", "pooled.flatten(1)"
)


@pytest.mark.slow
def test_better_lines_are_shown() -> None:
    outcome = onnxlint(*WORDS, "--dynamic", "N,3,H,W")
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("--fix-source --multiple-of 2 writes 2 changes, exports again and compares\n")
    assert Path("net.py").read_text(encoding="utf-8") == NET


def test_better_lines_are_applied() -> None:
    outcome = onnxlint(*WORDS, "--dynamic", "N,3,H,W", "--fix-source", "--multiple-of", "2")
    assert outcome.code == 0, outcome.err
    assert Path("net.py").read_text(encoding="utf-8") == FIXED
    assert (
        "\nSHP001 at net.py:18, exact if H % 2 == 0 and W % 2 == 0: applied\n--- a/net.py\n+++ b/net.py\n@@ "
        in outcome.out
    )
    assert (
        "\n-            size=a.shape[2:],  # as large as a\n+            scale_factor=2,  # as large as a\n"
        in outcome.out
    )
    assert "\nSHP006 at net.py:24: applied\n" in outcome.out
    assert "2 changes applied: the findings are gone; the network's outputs are bit-equal on " in outcome.out
    assert "All checks passed" in outcome.out
    assert [node.op_type for node in onnx.load("net.onnx").graph.node].count("Shape") == 0
    assert {*os.listdir()} - {"__pycache__"} == {"net.onnx", "net.py"}


@pytest.mark.slow
def test_only_exact_changes_without_more_words() -> None:
    outcome = onnxlint(*WORDS, "--dynamic", "N,3,H,W", "--fix-source")
    assert outcome.code == 0, outcome.err
    assert Path("net.py").read_text(encoding="utf-8") == NET.replace(
        "pooled.view(pooled.size(0), -1)", "pooled.flatten(1)"
    )
    assert "SHP006 at net.py:24: applied" in outcome.out
    assert "--fix-source --multiple-of 2 writes 1 change" in outcome.out


@pytest.mark.slow
def test_a_change_that_is_wrong_is_put_back() -> None:
    """The network looks at its own source: nothing but running it again can tell."""
    text = NET.replace("        return self.fc(", '        if "flatten(1)" in open(__file__).read().split("if ")[2]:\n'
                       "            pooled = pooled + 1\n        return self.fc(")  # fmt: skip
    Path("net.py").write_text(text, encoding="utf-8")
    outcome = onnxlint(*WORDS, "--dynamic", "N,3,H,W", "--fix-source")
    assert outcome.code == 0, outcome.err
    assert Path("net.py").read_text(encoding="utf-8") == text
    assert "put back: the changed network's outputs are different" in outcome.out
    assert os.path.exists("net.onnx")


@pytest.mark.slow
def test_a_change_that_breaks_the_network_is_put_back() -> None:
    text = NET.replace("import torch\n", 'import torch\nassert "size" + "=a" in open(__file__).read(), "touched"\n', 1)
    Path("net.py").write_text(text, encoding="utf-8")
    outcome = onnxlint(*WORDS, "--fix-source")
    assert outcome.code == 0, outcome.err
    assert Path("net.py").read_text(encoding="utf-8") == text
    assert "put back: net.py:Net: importing it failed: AssertionError: touched" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--multiple-of", "2"), "--multiple-of: is about changes of the source; give --fix-source"),
        (("--fix-source", "--no-verify"), "--fix-source compares the network before and after; leave out --no-verify"),
    ],
)
def test_mistakes(words: tuple[str, ...], message: str) -> None:
    outcome = onnxlint(*WORDS, *words)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.slow
def test_retinaface_loses_its_resizes() -> None:
    """The pyramid and the heads of the real network, with dynamo and with TorchScript."""
    root = Path(__file__).parents[2]
    Path("fixtures").mkdir()
    for name in ("__init__", "_export", "_files", "_ops", "resnet", "retinaface"):
        Path(f"fixtures/{name}.py").write_text((root / "fixtures" / f"{name}.py").read_text("utf-8"), encoding="utf-8")
    for exporter in ("dynamo", "torchscript"):
        before = Path("fixtures/retinaface.py").read_text("utf-8")
        outcome = onnxlint(
            *("export", "fixtures/retinaface.py:RetinaFace", "--arg", "width=32", "--shape", "1,3,128,128"),
            *(
                "--dynamic",
                "input0=N,3,H,W",
                "--exporter",
                exporter,
                "-o",
                "r.onnx",
                "--fix-source",
                "--multiple-of",
                "32",
            ),
        )
        assert outcome.code == 0, outcome.err
        assert "2 changes applied: the findings are gone; the network's outputs are bit-equal on " in outcome.out
        after = Path("fixtures/retinaface.py").read_text("utf-8")
        assert after.count("scale_factor=2") == before.count("scale_factor=2") + 2
        Path("fixtures/retinaface.py").write_text(before, encoding="utf-8")
