"""onnx's messages and extension without onnx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import pitfalls

SAME_CLASSES = """
import sys
from onnxlint.model.messages import messages
ours = messages()
assert not {"onnx", "numpy"} & set(sys.modules), sorted(sys.modules)
tensor = ours.TensorProto(name="t")
import onnx, onnx.onnx_ml_pb2
names = [name for name in dir(onnx) if name.endswith("Proto")]
assert len(names) > 15
for name in names:
    if hasattr(ours, name):  # not those of onnx-data and onnx-operators
        assert getattr(ours, name) is getattr(onnx, name) is getattr(onnx.onnx_ml_pb2, name), name
assert isinstance(tensor, onnx.TensorProto)
graph = onnx.GraphProto()
graph.initializer.append(tensor)
import copy, pickle
assert pickle.loads(pickle.dumps(tensor)) == copy.deepcopy(tensor) == tensor
"""

EXTENSION = """
import sys
from onnxlint.model.messages import extension
found = extension()
assert found.defs.has_schema("Conv", "") and not {"onnx", "numpy"} & set(sys.modules)
import onnx, onnx.checker
assert onnx.defs.has("Conv")
model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 13]> g (float x) => (float y) { y = Relu(x) }')
onnx.checker.check_model(model)
"""

AFTER_A_CHECK = """
import sys
import onnxlint
before = onnxlint.check(sys.argv[1], isolated=True)
assert before.findings and not {"onnx", "numpy"} & set(sys.modules), sorted(sys.modules)
import onnx, onnx.onnx_cpp2py_export
assert onnx.onnx_cpp2py_export.defs.has_schema("Conv", "")
assert onnxlint.check(sys.argv[1], isolated=True).findings == before.findings
assert onnxlint.check(onnx.load(sys.argv[1]), isolated=True).findings
"""


def run(code: str, *words: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_classes_are_those_of_onnx() -> None:
    run(SAME_CLASSES)


@pytest.mark.skipif(sys.platform == "win32", reason="the extension is loaded alone in a forked child only")
def test_onnx_can_be_imported_after_its_extension() -> None:
    run(EXTENSION)


@pytest.mark.skipif(sys.platform == "win32", reason="without fork, onnx is imported")
def test_a_check_imports_neither_onnx_nor_numpy(tmp_path: Path) -> None:
    pitfalls.build(tmp_path)
    run(AFTER_A_CHECK, str(tmp_path / "pitfalls.onnx"))
