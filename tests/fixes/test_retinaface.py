"""RetinaFace, as people export it: what goes, what stays and why, and that no output changes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.fixes.heads import read_heads
from onnxlint.model.save import to_bytes
from onnxlint.model.skeleton import Model, open_model
from tests.support.fixing import fix, image
from tests.support.zoo import session

ort = pytest.importorskip("onnxruntime")
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "retinaface"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


def free_sizes(model: Model) -> tuple[tuple[str, int], ...]:
    """The height and width of a model's image, as multiples of 32."""
    dims = model.proto.graph.input[0].type.tensor_type.shape.dim
    return tuple((dim.dim_param, 32) for dim in dims[2:] if dim.dim_param)


def joined(outputs: list[Any]) -> Any:
    return np.concatenate(outputs, axis=-1)


ORIGINALS = sorted(DATA.glob("original_*.onnx"))


@needs_data
@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.stem)
def test_retinaface_becomes_clean_and_stays_bit_equal(path: Path) -> None:
    model = open_model(path)
    multiples = free_sizes(model)
    fixed, report = fix(model, multiples=multiples, concat_heads=(), drop_output_activations=True)

    ops = Counter(node.op_type for node in fixed.graph.node)
    assert sum(ops.values()) - ops["Constant"] <= 126
    assert not {"Shape", "Gather", "Upsample", "Softmax"} & ops.keys()
    assert not any(node.op_type == "Resize" and len(node.input) > 3 and node.input[3] for node in fixed.graph.node)
    assert [output.name for output in fixed.graph.output] == ["output"]
    assert not any(left.finding.code.startswith("SHP") for left in report.left)

    # The reference: the original, its logits taken before the Softmax.
    reference = onnx.load(path)
    softmax = next(node for node in reference.graph.node if node.op_type == "Softmax")
    names = [output.name for output in reference.graph.output]
    names[names.index(softmax.output[0])] = softmax.input[0]
    reference.graph.output.append(onnx.helper.make_tensor_value_info(softmax.input[0], 1, None))
    before, after = session(reference), session(to_bytes(model, fixed))
    shapes = [(1, 640, 640)] if not multiples else [(1, 640, 640), (3, 320, 320), (1, 352, 608), (3, 352, 608)]
    for batch, height, width in shapes:
        feed = {"input0": image(batch, 3, height, width)}
        assert np.array_equal(joined(before.run(names, feed)), after.run(None, feed)[0]), (batch, height, width)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.stem)
def test_retinaface_at_1280(path: Path) -> None:
    model = open_model(path)
    multiples = free_sizes(model)
    if not multiples:
        pytest.skip("a static export")
    fixed, _ = fix(model, multiples=multiples)
    before, after = session(str(path)), session(to_bytes(model, fixed))
    feed = {"input0": image(1, 3, 1280, 1280)}
    for a, b in zip(before.run(None, feed), after.run(None, feed), strict=True):
        assert np.array_equal(a, b)


@needs_data
def test_retinaface_matches_the_hand_fixed_model() -> None:
    model = open_model(DATA / "original_op11_st.onnx")
    fixed, _ = fix(model, concat_heads=(), drop_output_activations=True)
    feed = {"input0": image(1, 3, 640, 640)}
    ours = session(to_bytes(model, fixed)).run(None, feed)[0]
    theirs = session(str(DATA / "hand_fixed_released.onnx")).run(None, feed)[0]
    np.testing.assert_allclose(ours, theirs, atol=5e-5, rtol=0)


@needs_data
@pytest.mark.parametrize("name", ["op9_dyn", "op11_dyn", "op17_dyn", "dynamo_dyn"])
def test_without_an_assumption_the_resizes_stay_and_say_why(name: str) -> None:
    model = open_model(DATA / f"original_{name}.onnx")
    fixed, report = fix(model, select="SHP")
    assert [applied.finding.code for applied in report.applied] == ["SHP002"] * 9
    assert all(applied.proof == "proved" for applied in report.applied)
    assert [left.finding.code for left in report.left] == ["SHP001"] * 2
    assert any("% 32 == 0" in left.why and "--assume" in left.why for left in report.left)
    before, after = session(str(DATA / f"original_{name}.onnx")), session(to_bytes(model, fixed))
    for shape in ((1, 3, 128, 160), (2, 3, 97, 131)):  # odd and prime, too
        feed = {"input0": image(*shape)}
        try:
            wanted = before.run(None, feed)
        except ort.capi.onnxruntime_pybind11_state.RuntimeException:
            assert name == "op9_dyn"  # Upsample rounds its scale down: the original fails there, too
            continue
        for a, b in zip(wanted, after.run(None, feed), strict=True):
            assert np.array_equal(a, b)


@needs_data
def test_the_condition_is_found_and_explained() -> None:
    _, report = fix(open_model(DATA / "original_op11_dyn.onnx"), select="SHP001")
    evidence = [dict(left.finding.evidence) for left in report.left]
    assert evidence[0]["exact when"] == "ceil(h/16) % 2 == 0 and ceil(w/16) % 2 == 0"
    assert evidence[1]["exact when"] == "ceil(h/8) % 2 == 0 and ceil(w/8) % 2 == 0"
    assert report.left[0].finding.fix is not None
    assert report.left[0].finding.fix.condition == "h % 32 == 0 and w % 32 == 0"


@needs_data
def test_traces_and_metadata_survive() -> None:
    model = open_model(DATA / "original_dynamo_dyn.onnx")
    fixed, _ = fix(model, multiples=free_sizes(model))
    before = {node.name: node for node in model.proto.graph.node}
    for node in fixed.graph.node:
        assert list(node.metadata_props) == list(before[node.name].metadata_props)
    assert list(fixed.graph.metadata_props) == list(model.proto.graph.metadata_props)
    assert {e.key: e.value for e in fixed.metadata_props}["onnxlint.assumes"].count("% 32 == 0") == 2


@needs_data
@pytest.mark.parametrize(
    "names", [("bbox", "cls", "ldm"), ("ldm", "class", "box"), ("landmarks", "scores", "4"), ("10", "2", "4")]
)
@pytest.mark.parametrize("path", ORIGINALS, ids=lambda path: path.stem)
def test_heads_are_known_by_role(path: Path, names: tuple[str, ...]) -> None:
    widths = {"bbox": 4, "box": 4, "cls": 2, "class": 2, "scores": 2, "ldm": 10, "landmarks": 10}
    fixed, _ = fix(open_model(path), concat_heads=names, select="OUT002")
    (joined,) = read_heads(fixed)
    assert [head.stop - head.start for head in joined.heads] == [widths.get(name) or int(name) for name in names]
