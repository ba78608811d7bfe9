"""What the README claims, on a RetinaFace export that the fixtures build: every pitfall found, fixed, and equal.

The network is a narrow one with random weights (half a megabyte), so that this runs in a clone and nothing else.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import onnxlint

pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from fixtures.retinaface import build  # noqa: E402

SIZES = [(1, 64, 64), (2, 96, 128), (3, 160, 64)]
"""(batch, height, width) to run at."""

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("headline")
    variants = ["op9_dyn", "op11_dyn", "op11_st", "op17_dyn", "dynamo_dyn", "dynamo_st"]
    paths = build(where, size=64, only=variants, width=32)
    assert all(path.stat().st_size < 750_000 for path in paths)
    return where


def run(path: Path, batch: int, height: int, width: int) -> list[Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(batch).normal(0, 50, (batch, 3, height, width)).astype(np.float32)
    outputs: list[Array] = session.run(None, {session.get_inputs()[0].name: x})
    return outputs


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("variant", "chains"),
    [
        ("op9_dyn", {"SHP002": 9, "OPS001": 1}),
        ("op11_dyn", {"SHP002": 9}),
        ("op17_dyn", {"SHP002": 9}),
        ("dynamo_dyn", {"SHP002": 9}),
        ("op11_st", {"SHP002": 6, "SHP003": 1}),
        ("dynamo_st", {"SHP003": 1}),
    ],
)
def test_every_pitfall_is_found_and_nothing_else(folder: Path, variant: str, chains: dict[str, int]) -> None:
    result = onnxlint.check(folder / f"original_{variant}.onnx", isolated=True)
    expected = {"SHP001": 2, "OUT001": 1, "OUT002": 1, "OUT004": 1, **chains}
    assert Counter(finding.code for finding in result.findings) == expected
    places = sum(int(dict(finding.evidence).get("count", 1)) for finding in result.findings if "SHP00" in finding.code)
    assert places == 11


def test_the_line_of_pytorch_is_named(folder: Path) -> None:
    source = Path("fixtures/retinaface.py")
    lines = (Path(__file__).parents[1] / source).read_text(encoding="utf-8").splitlines()
    result = onnxlint.check(folder / "original_dynamo_dyn.onnx", isolated=True, select=["SHP001", "SHP002"])
    assert len(result.findings) == 11
    for finding in result.findings:
        line = finding.location.source[-1]
        assert Path(line.path).parts[-2:] == source.parts
        assert lines[line.line - 1].strip() == line.code
        assert ("F.interpolate(" if finding.code == "SHP001" else "out.view(") in line.code


@pytest.mark.parametrize("variant", ["op9_dyn", "op11_dyn", "op17_dyn", "dynamo_dyn"])
def test_a_dynamic_export_is_fixed_bit_for_bit(folder: Path, tmp_path: Path, variant: str) -> None:
    original, fixed = folder / f"original_{variant}.onnx", tmp_path / "fixed.onnx"
    report = onnxlint.fix(original, fixed, multiple_of=32, isolated=True)
    assert report.verification is not None
    assert report.verification.verified
    assert not {"Shape", "Gather", "Slice", "Unsqueeze", "Cast"} & set(operators(fixed))
    for size in SIZES:
        for before, after in zip(run(original, *size), run(fixed, *size), strict=True):
            assert np.array_equal(before, after)


@pytest.mark.parametrize("variant", ["op11_dyn", "op17_dyn", "dynamo_dyn", "op11_st"])
def test_our_fix_equals_the_network_fixed_by_hand(folder: Path, tmp_path: Path, variant: str) -> None:
    fixed = tmp_path / "fixed.onnx"
    heads = ["box", "class", "landmark"] if not variant.startswith("dynamo") else True
    onnxlint.fix(
        folder / f"original_{variant}.onnx",
        fixed,
        multiple_of=32,
        concat_heads=heads,
        drop_output_activations=True,
        unsafe=variant.endswith("_st"),
        isolated=True,
    )
    by_hand = folder / f"fixed_{variant}.onnx"
    ours, theirs = operators(fixed), operators(by_hand)
    assert {op: ours[op] for op in ("Conv", "Resize", "Reshape", "Softmax")} == {
        op: theirs[op] for op in ("Conv", "Resize", "Reshape", "Softmax")
    }
    for size in SIZES if variant.endswith("_dyn") else SIZES[:1]:
        (a,), (b,) = run(fixed, *size), run(by_hand, *size)
        assert a.shape == b.shape
        order = _order(fixed)
        assert np.array_equal(a, b[..., order])


def _order(fixed: Path) -> list[int]:
    """Columns of the hand-fixed output (boxes, logits, landmarks) in the order of ours."""
    from onnxlint.fixes.heads import read_heads

    starts = {4: 0, 2: 4, 10: 6}
    (joined,) = read_heads(onnx.load(fixed, load_external_data=False))
    return [starts[h.stop - h.start] + i for h in joined.heads for i in range(h.stop - h.start)]
