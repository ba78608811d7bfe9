"""`onnxlint deploy` of a PyTorch network: exported first, named classes, a sample that runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.accuracy.options import CompareOptions
from onnxlint.deployment.network import is_network, name_of
from onnxlint.deployment.options import Options
from onnxlint.deployment.preflight import with_task
from onnxlint.errors import OnnxlintError
from tests.support.command import onnxlint

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")
pytest.importorskip("jinja2")

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.fc(x.view(x.size(0), -1))

def Small(classes=3):
    torch.manual_seed(0)
    return Net(classes)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "classes.txt").write_text("cat\ndog\nhorse\n")
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "w.pth").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ("nets.py:Small", True),
        ("package.module:make.it", True),
        ("w.pth", True),
        ("m.onnx", False),
        ("missing.onnx", False),
        ("C:\\models\\m.onnx", False),
        ("C:\\models", False),
        ("model", False),
        (object(), True),
    ],
)
def test_what_a_network_is(here: Path, given: object, network: bool) -> None:
    assert is_network(given) is network


def test_files_are_named_after_the_factory(here: Path) -> None:
    assert name_of("nets.py:Small") == "small"
    assert name_of("w.pth") == "w"
    assert name_of(ValueError()) == "valueerror"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nets.py:Small", "the size of its input is not known: give --shape W,H,C"),
        ("nets.py:Smal --shape 32,32,3", "did you mean 'Small'?"),
        ("nets.py:Small --shape 32,32,3 --weights none.pth", "--weights none.pth: no such file"),
        ("nets.py:Small --shape 32,32,3 --to ncnn-int8", "is calibrated with images"),
        ("nets.py:Small --shape 32,32,3 --to ,", "--to: no target given"),
        ("nets.py:Small --shape 32,32,3 --labels none.txt --task classification", "none.txt: no such labels"),
        ("m.onnx --weights w.pth", "m.onnx: is no network"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_exported(here: Path, words: str, message: str) -> None:
    pytest.importorskip("torch")
    done = onnxlint("deploy", *words.split())
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(here.glob("*_deploy"))


def save(path: Path, text: str) -> str:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}'), path)
    return str(path)


def task_of(model: str, labels: Path) -> str | None:
    return with_task(model, Options(comparing=CompareOptions(labels=str(labels)))).comparing.task


def test_the_outputs_tell_the_task_that_labels_are_for(here: Path) -> None:
    classifier = save(
        here / "c.onnx", "g (float[1,3,8,8] x) => (float[1,3] y) { p = GlobalAveragePool (x) y = Flatten (p) }"
    )
    assert task_of(classifier, here / "classes.txt") == "classification"
    # 3000 boxes, which a mobile SSD has at 300 × 300
    detector = save(
        here / "d.onnx",
        """g (float[1,3,300,300] x) => (float[1,3000,4] boxes, float[1,3000,4] scores)
        <int64[3] shape = {1, -1, 4}, int64[4] starts = {0, 0, 0, 0}, int64[4] ends = {1, 3, 40, 100}>
        { s = Slice (x, starts, ends) boxes = Reshape (s, shape) scores = Sigmoid (boxes) }""",
    )
    assert task_of(detector, here / "classes.txt") == "detection"
    other = save(here / "o.onnx", "g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu (x) }")
    with pytest.raises(OnnxlintError, match="--labels needs --task: classification or detection"):
        task_of(other, here / "classes.txt")


@pytest.mark.slow
def test_one_call_writes_model_labels_and_a_sample_that_runs(here: Path) -> None:
    torch = pytest.importorskip("torch")
    from PIL import Image

    sys.path.insert(0, str(here))
    try:
        network = importlib.import_module("nets").Small()
        state = {f"module.{key}": value + 0.01 for key, value in network.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, here / "best.pth")
    finally:
        sys.path.remove(str(here))
    rng = np.random.default_rng(0)
    (here / "images" / "cat").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(here / "images" / "cat" / f"{i}.png")
    options = "--shape 32,32,3 --images images --mean 0,0,0 --norm 1/255 --pixel RGB".split()
    done = onnxlint("deploy", "nets.py:Small", "--weights", "best.pth", "--labels", "classes.txt", *options)
    assert done.code == 0, done.err
    folder = here / "small_deploy"
    made = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert {"small.onnx", "exported/small.onnx", "classes.txt", "report.html", "samples/run_onnx.py"} <= made
    assert (folder / "classes.txt").read_text() == "cat\ndog\nhorse\n"
    assert next(iter(json.loads((folder / "deploy.json").read_text())["steps"])) == "export"
    ran = subprocess.run(
        [sys.executable, folder / "samples" / "run_onnx.py", here / "images" / "cat" / "0.png"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    with torch.no_grad():
        network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        pixels = np.asarray(Image.open(here / "images" / "cat" / "0.png"), np.float32).transpose(2, 0, 1)[None] / 255
        scores = network.eval()(torch.from_numpy(pixels))[0].softmax(0)
    best = ["cat", "dog", "horse"][int(scores.argmax())]
    assert ran.stdout.splitlines()[0].endswith(f"{scores.max():.4f}  {best}")
