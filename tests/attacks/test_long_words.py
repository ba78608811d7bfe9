"""Messages repeat what users and files say only in part, however long it is."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxlint.cli import app
from onnxlint.errors import OnnxlintError
from onnxlint.report._common import LIMIT
from onnxlint.text import MAX_MESSAGE, MAX_WORD, bounded
from tests.support import zoo

LONG = "A" * 5000
MOST = 1500
"""Characters of a line, at most: a message that repeats two words or more."""

COMMANDS = [
    *(("fix", "MODEL", "--dry-run", "--no-verify", "--assume", text) for text in (f"{LONG} % 8 == 0", LONG)),
    *(
        ("fix", "MODEL", "--dry-run", "--no-verify", option, text)
        for option in ("--dynamic", "--static", "--rename", "--bind", "--heads")
        for text in (LONG, f"{LONG}={LONG}", f"x={LONG}", f"x={','.join(['1'] * 2000)}")
    ),
    ("fix", "MODEL", "--out-dir", LONG),
    *(
        ("check", "MODEL", option, LONG)
        for option in ("--select", "--target", "--format", "--fail-on", "--baseline", "-o")
    ),
    ("check", "MODEL", f"--{LONG}"),
    ("check", LONG),
    ("rule", LONG),
    (LONG,),
    *(
        ("convert", "MODEL", "--to", "onnx-fp16", option, LONG)
        for option in ("--preset", "--images", "--mean", "--input-shape")
    ),
    ("compare", "MODEL", LONG),
    ("compare", "MODEL", "MODEL", "--fail-if", LONG),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose names are long, with two findings that stay and one that goes."""
    proto = zoo.parse(
        """
        g (float[N,C,P] x, float[N,C,H,W] like) => (float[N,C,H,W] y) {
            target = Shape (like)
            kept = Identity (x)
            y = Reshape (kept, target)
        }
        """
    )
    names = {"x": f"x{LONG}", "like": f"like{LONG}", "y": f"y{LONG}", "target": f"t{LONG}", "kept": f"k{LONG}"}
    for node in proto.graph.node:
        node.name = f"{node.op_type}{LONG}"
        for side in (node.input, node.output):
            for i, name in enumerate(side):
                side[i] = names.get(name, name)
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names[value.name]
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_param = f"{dim.dim_param}{LONG}"
    path = tmp_path_factory.mktemp("long") / "m.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(word[:12] for word in words))
def test_what_a_user_says(
    words: tuple[str, ...],
    model: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run([str(model) if word == "MODEL" else word for word in words]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert max(map(len, (said.out + said.err).splitlines())) <= MOST


@pytest.mark.parametrize(
    "words", [("check",), ("check", "-v"), ("fix", "--dry-run"), ("fix", "--dry-run", "--no-verify")]
)
def test_what_a_model_says(words: tuple[str, ...], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, *options = words
    app.run([command, str(model), *options, "--exit-zero"])
    said = capsys.readouterr()
    assert not said.err
    assert max(map(len, said.out.splitlines())) <= 2 * LIMIT + 100  # the place, and the output near it


def test_errors_of_the_library_are_bounded_too() -> None:
    assert len(str(OnnxlintError(f"{LONG}: no such file"))) <= MAX_WORD + len(": no such file")
    assert len(str(OnnxlintError("a " * MAX_MESSAGE))) <= MAX_MESSAGE
    assert bounded(f"m.onnx: {'word ' * 100}the end").endswith("the end")
