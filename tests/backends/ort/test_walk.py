"""Inner values, piece by piece: the same as at once, and each node is in one piece only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

pytest.importorskip("onnxruntime")

from onnxlint.backends.ort.session import OrtSession
from onnxlint.backends.ort.walk import Walk

CHAIN = " ".join(f"v{i} = {'Relu' if i % 2 else 'Neg'} (v{i - 1})" for i in range(1, 40)).replace("(v0)", "(x)")

MODELS = {
    "chain": f"(float[N,4] x) => (float[N,4] y) {{ {CHAIN} y = Identity (v39) }}",
    "far": f"""(float[N,4] x) => (float[N,4] y) <float[4] w = {{1, 2, 3, 4}}> {{
        far = Mul (x, w) {CHAIN} y = Add (far, v39) }}""",
    "constants": f"""(float[N,4] x) => (float[N,A] y) {{ c = Constant <value_ints = [0, 2, 2]> () {CHAIN}
        r = Reshape (v39, c) d = Constant <value_float = 2.0> () e = Mul (r, d) f = Add (e, d) y = Flatten (f) }}""",
    "sequence": f"""(float[N,4] x) => (float[A,B] y) {{ s = SequenceConstruct (x, x) {CHAIN}
        t = SequenceInsert (s, v39) u = ConcatFromSequence <axis = 0> (t) y = Neg (u) }}""",
    "branches": f"""(float[N,4] x, bool b) => (float[N,4] y) {{ {CHAIN} z = If (b) <
        then_branch = t () => (float[N,4] p) {{ p = Add (v3, v39) }},
        else_branch = e () => (float[N,4] q) {{ q = Sub (v5, v39) }}> y = Neg (z) }}""",
}


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("name", list(MODELS))
def test_values_are_those_of_a_run(tmp_path: Path, name: str, size: int) -> None:
    text = MODELS[name]
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    session = OrtSession(str(path))
    wanted = [name for name, kind in session.kinds().items() if kind == "tensor(float)"]
    walk = Walk(session, wanted, size)
    for n in (2, 3):
        feeds: dict[str, np.ndarray] = {"x": np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)}
        if "bool b" in text:
            feeds["b"] = np.array(n == 2)
        found = dict(walk.values(feeds))
        assert found.keys() == set(wanted)
        for one, value in zip(wanted, session.run(feeds, wanted), strict=True):
            assert np.array_equal(found[one], value), one
    nodes = [id(node) for piece in walk._pieces for node in piece.nodes if node.op_type != "Constant"]
    assert len(nodes) == len(set(nodes)) <= len(proto.graph.node)
    if size == 3:
        assert len(walk._pieces) > 8 or name == "sequence"
