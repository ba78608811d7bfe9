"""float16 by what was measured."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxlint.backends import Artifact, Job, find_target
from onnxlint.backends.ort import trial
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Recipe

HUGE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z)
<float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1, 1, 2, 2, 2, 2},
 float up = {1e6}, float down = {1e-6}, float eps = {1e-12}>
{
    [product] p = MatMul (x, w)
    [large] q = Mul (p, up)
    [small] r = Mul (q, down)
    [still] y = Tanh (r)
    [square] s = Mul (p, p)
    [guard] t = Add (s, eps)
    [root] u = Sqrt (t)
    [share] z = Div (p, u)
}
"""


def save(tmp_path: Path, model: onnx.ModelProto) -> str:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return str(path)


def half(path: str, **more: object) -> tuple[Artifact, onnx.ModelProto]:
    backend, target = find_target("onnx_fp16")
    assert target.files == ("_fp16.onnx",)
    out = path.replace(".onnx", "_fp16.onnx")
    made = backend.make(target, path, (out,), Job(recipe=Recipe(), **more))  # type: ignore[arg-type]
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)  # sorted, too
    return made, proto


def states(made: Artifact) -> dict[str, str]:
    return {one.layer: one.state for one in made.decisions}


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    path = save(tmp_path, onnx.parser.parse_model(HUGE))
    made, proto = half(path)
    found = states(made)
    assert [found[name] for name in ("large", "small", "guard")] == ["fp32"] * 3
    assert [found[name] for name in ("product", "still")] == ["fp16"] * 2
    assert "beyond float16's 65504" in next(one.why for one in made.decisions if one.layer == "large")
    # Between two nodes in float32 nothing is cast: the value that is too large passes as it is.
    nodes = {node.name: node for node in proto.graph.node}
    assert nodes["small"].input[0] == nodes["large"].output[0]
    assert made.details["snr_db"] > 50
    kinds = [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)]
    assert kinds == [onnx.TensorProto.FLOAT] * 3


def test_onnxruntimes_own_converter_loses_it(tmp_path: Path) -> None:
    """Why there is one of ours."""
    import onnxruntime
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.parser.parse_model(HUGE)
    theirs = convert_float_to_float16(model, keep_io_types=True, node_block_list=["large", "small", "guard"])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(theirs.SerializeToString(), options)
    x = np.full((1, 4), 0.1, np.float32)
    y = session.run(None, {"x": x})[0]
    path = save(tmp_path, onnx.parser.parse_model(HUGE))
    ours = half(path)[1]
    session = onnxruntime.InferenceSession(ours.SerializeToString(), options)
    assert np.abs(session.run(None, {"x": x})[0] - np.tanh(x @ _weights(model))).max() < 1e-2
    assert np.abs(y - np.tanh(x @ _weights(model))).max() > 0.05


def _weights(model: onnx.ModelProto) -> np.ndarray:
    return onnx.numpy_helper.to_array(model.graph.initializer[0])


def test_sizes_subgraphs_and_casts_of_all_kinds(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, H, W] x, bool c, float[1] unused) => (float[1, 3, A, B] y, float[1, 3, H, W] z, float[1] same)
    <float[2] ones = {1, 1}>
    {
        s = Shape (x)
        f = Cast <to = 1> (s)
        two = Constant <value = float {2}> ()
        g2 = Mul (f, two)
        i = Cast <to = 7> (g2)
        first = Constant <value = int64[1] {2}> ()
        last = Constant <value = int64[1] {4}> ()
        hw = Slice (i, first, last)
        nc = Constant <value = int64[2] {1, 3}> ()
        sizes = Concat <axis = 0> (nc, hw)
        a = Sigmoid (x)
        y = Resize <mode = "linear"> (a, , , sizes)
        z = If (c) <then_branch = t () => (float[1, 3, H, W] p) { p = Neg (a) },
                    else_branch = e () => (float[1, 3, H, W] q) { q = Abs (x) }>
        same = Identity (unused)
    }
    """
    path = save(tmp_path, onnx.parser.parse_model(text))
    made, proto = half(path, shape={"x": (1, 3, 6, 8)})
    assert {node.op_type for node in proto.graph.node if node.op_type == "Sigmoid"}
    assert made.details["snr_db"] > 50
    assert "made-up inputs" in made.notes[0]
    why = {one.type: one.why for one in made.decisions}
    assert why["Mul"] == "computes sizes"
    assert why["If"] == "has a graph inside"


def test_images_measure_what_made_up_inputs_do_not(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) <float k = {400}> { [up] a = Mul (x, k)  [down] y = Div (a, k) }
    """
    path = save(tmp_path, onnx.parser.parse_model(text))
    assert states(half(path)[0]) == {"up": "fp16", "down": "fp16"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    made, _ = half(path, images=ImageSet("pixels", arrays=pixels))
    assert states(made) == {"up": "fp32", "down": "fp32"}
    assert made.details["inputs_measured"] == 3


def test_kept_nodes_metadata_and_the_same_bytes_again(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(HUGE)
    model.metadata_props.add(key="onnxlint.heads", value="[]")
    path = save(tmp_path, model)
    made, proto = half(path, keep=("product",))
    assert states(made)["product"] == "fp32"
    assert [(entry.key, entry.value) for entry in proto.metadata_props] == [("onnxlint.heads", "[]")]
    first = Path(made.files[0]).read_bytes()
    half(path, keep=("product",))
    assert Path(made.files[0]).read_bytes() == first
    with pytest.raises(OnnxlintError, match="has no node 'prodct'"):
        half(path, keep=("prodct",))


@pytest.mark.parametrize(
    ("operator", "shape", "state"),
    [
        ("GlobalAveragePool(x)", "1,3,128,128", "fp32"),
        ("GlobalAveragePool(x)", "1,3,32,32", "fp16"),
        ("ReduceMean<axes=[2,3]>(x)", "1,3,512,512", "fp32"),
        ("ReduceMean<axes=[1]>(x)", "1,3,512,512", "fp16"),
        ("LayerNormalization<axis=-1>(x, s)", "1,2,3,8192", "fp32"),
        ("Relu(x)", "1,3,512,512", "fp16"),
    ],
)
def test_long_sums_stay_float32(tmp_path: Path, operator: str, shape: str, state: str) -> None:
    last = shape.rsplit(",", 1)[1]
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float[{shape}] x) => (float[a,b,c,d] y)
        {{ s = ConstantOfShape<value = float[1] {{1.0}}>(n) y = {operator} }}"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([int(last)]), "n"))
    made, _ = half(save(tmp_path, model))
    found = {one.type: one.state for one in made.decisions}
    assert found[operator.split("(")[0].split("<")[0]] == state


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    folder = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9"))
    os.mkdir(folder)
    path = os.path.join(folder, "model.onnx")
    onnx.save(onnx.parser.parse_model(HUGE), path)
    made, _ = half(path)
    assert made.details["snr_db"] > 40


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="Windows has no timers of CPU time")
def test_a_model_that_takes_too_long_to_load_is_no_crash_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGVTALRM)")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"")
    with pytest.raises(OnnxlintError, match=r"m\.onnx: it takes more than 5 s of CPU time to load"):
        trial.crashes(str(path), {})
