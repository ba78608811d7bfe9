"""Calibration tables: the real tools' text, and the traps of editing it by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxlint.backends.ncnn import table as tab
from onnxlint.backends.ncnn.calibrate import make_table
from onnxlint.backends.ncnn.format import load
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.errors import OnnxlintError
from tests.support.ncnn_nets import REFERENCE, inputs, needs_data, small

NET = small()


@pytest.fixture(scope="module")
def text() -> str:
    return tab.dump_table(make_table(NET, inputs(), "kl"))


def messages(text: str) -> list[str]:
    return [str(i) for i in tab.diagnose(tab.parse_table(text), NET)]


@needs_data
@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_real_tables_come_back_byte_for_byte(method: str) -> None:
    path = REFERENCE / method / "model.table"
    table = tab.load_table(path)
    assert tab.dump_table(table) == path.read_text()
    assert tab.diagnose(table, load(REFERENCE / "fp32.param")) == []


def test_a_made_table_is_clean(text: str) -> None:
    assert messages(text) == []
    assert [row.split()[0] for row in text.splitlines()[:2]] == ["stem_param_0", "depth_param_0"]
    assert [row.split()[0] for row in text.splitlines()[-2:]] == ["right", "dense"]


def test_blank_line(text: str) -> None:
    rows = text.splitlines()
    rows.insert(3, "")
    (message,) = messages("\n".join(rows))
    assert message == "line 4: blank line: ncnn2int8 stops here and ignores 9 rows below; delete the line"
    assert messages(text + "\n\n") == []  # at the end it does no harm


def test_half_deleted_layer(text: str) -> None:
    rows = text.splitlines()
    (message,) = messages("\n".join(r for r in rows if not r.startswith("wide_param_0")))
    assert message.startswith("line 8: 'wide' is left but 'wide_param_0' is missing: ncnn2int8 would stop quantizing")
    (message,) = messages("\n".join(r for r in rows if not r.startswith("wide ")))
    assert message == "line 3: 'wide_param_0' is left but 'wide' is missing: the layer stays in fp16"


def test_commented_rows(text: str) -> None:
    edited = text.replace("depth_param_0", "#depth_param_0").replace("\ndepth ", "\n#depth ")
    assert messages(edited) == [
        "line 2: row of 'depth' is commented out; the layer stays in fp16",
        "line 8: row of 'depth' is commented out; the layer stays in fp16",
    ]
    decisions = {d.layer: d for d in quantize(NET, tab.parse_table(edited)).decisions}
    assert decisions["depth"].state == "fp16"
    assert decisions["depth"].why == "the table has no row depth_param_0 and none depth"
    assert decisions["wide"].state == "int8"


def test_unequal_split_scales(text: str) -> None:
    rows = [r if not r.startswith("right ") else "right 1.5 " for r in text.splitlines()]
    (message,) = messages("\n".join(rows))
    assert message.startswith("line 11: 'right' and 'left' (line 10) read the same blob with the scales 1.5 and ")


def test_table_of_another_model(text: str) -> None:
    other = "\n".join("x" + row for row in text.splitlines())
    assert "made for another model" in messages(other)[-1]
    with pytest.raises(OnnxlintError, match="made for another model"):
        quantize(NET, tab.parse_table(other))
    with pytest.raises(OnnxlintError, match="has 1 scales and the layer needs 16"):
        quantize(NET, tab.parse_table(text.replace("wide_param_0", "wide_param_0 3\nold_param_0")))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("depth zero", "holds something that is not a number"),
        ("depth -1", "holds the scale -1"),
        ("depth nan", "holds the scale nan"),
        ("depth", "has no scales"),
        ("depth 1 2", "has 2 scales and needs one"),
    ],
)
def test_bad_numbers_are_fatal(text: str, row: str, problem: str) -> None:
    rows = [row if r.startswith("depth ") else r for r in text.splitlines()]
    with pytest.raises(OnnxlintError, match=problem):
        quantize(NET, tab.parse_table("\n".join(rows)))


def test_row_given_twice(text: str) -> None:
    assert any("was given before, on line 8" in m for m in messages(text + "depth 1\n") + messages(text + "depth 1\n"))


def test_files(tmp_path: Path) -> None:
    table = make_table(NET, inputs(), "aciq")
    tab.save_table(table, tmp_path / "t.table")
    again = tab.load_table(tmp_path / "t.table")
    assert all(np.allclose(again.weights[k], v, rtol=1e-5) for k, v in table.weights.items())
    (tmp_path / "x.table").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OnnxlintError, match="not a text file"):
        tab.load_table(tmp_path / "x.table")
    (tmp_path / "y.table").write_text("x\n" * 0 + "only words here\n")
    with pytest.raises(OnnxlintError, match="holds no row"):
        tab.load_table(tmp_path / "y.table")
    with pytest.raises(OnnxlintError, match="cannot be read"):
        tab.load_table(tmp_path / "z.table")
