"""OpenVINO: IRs are made, loaded, run and repeated; what is wrong is one line."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import onnxlint
from onnxlint.backends import Artifact, Job, NotConvertible, backend_for, find_target
from onnxlint.backends.channels import ROOM_COST
from onnxlint.backends.closeness import ENOUGH, Powers
from onnxlint.backends.openvino.better import Comparison, Judged, is_second_better, judged_on
from onnxlint.backends.openvino.runtime import NO_INTEGERS, default_precision
from onnxlint.backends.ort.feeds import parted
from onnxlint.backends.ort.session import OrtSession
from onnxlint.backends.outputs import FEWEST
from onnxlint.backends.task import Loss
from onnxlint.conversion.session import repeat
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import PRESETS, ImageSet, Recipe, find_images, tensors
from tests.support.conv_nets import IMAGES, RECIPE, conv_net

pytest.importorskip("openvino")

X = np.random.default_rng(3).standard_normal((1, 3, 24, 24)).astype(np.float32)


def make(source: str, to: str, folder: Path, **more: Any) -> Artifact:
    backend, target = find_target(to)
    files = tuple(str(folder / f"m{ending}") for ending in target.files)
    return backend.make(target, source, files, Job(**{"recipe": Recipe(), **more}))


def digests(made: Artifact) -> list[str]:
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in made.files]


def snr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10((a.astype(np.float64) ** 2).sum() / max(((a - b) ** 2).sum(), 1e-30)))


@pytest.mark.parametrize("size", [pytest.param(24, marks=pytest.mark.slow), "size"])
def test_float_and_half(tmp_path: Path, size: int | str) -> None:
    source = conv_net(tmp_path / "m.onnx", size)
    expected = backend_for(source).open(source).run({"x": X})
    sizes = {}
    for to, state, least in (("openvino", "fp32", 100), ("openvino-fp16", "fp16", 40)):
        made = make(source, to, tmp_path)
        backend = backend_for(made.files[0])
        session = backend.open(made.files[0])
        assert [port.name for port in session.inputs] == ["x"]
        assert session.inputs[0].shape == ((1, 3, 24, 24) if size == 24 else (1, 3, None, None))
        assert [port.name for port in session.outputs] == ["boxes", "scores"]
        for a, b in zip(expected, session.run({"x": X}), strict=True):
            assert snr(a, b) > least
        assert {one.layer for one in made.decisions} == {"stem", "deep", "wide", "left", "right", "scores"}
        assert {one.state for one in made.decisions} == {state}
        assert made.notes[0].startswith("compared with onnxruntime, INFERENCE_PRECISION_HINT f32: ")
        assert backend.parameters(made.files[0]) == backend_for(source).parameters(source)
        sizes[to] = sum(Path(file).stat().st_size for file in backend.files(made.files[0])[1:])
    assert sizes["openvino-fp16"] < 0.6 * sizes["openvino"]


METHODS = ["auto", pytest.param("minmax", marks=pytest.mark.slow), pytest.param("nncf", marks=pytest.mark.slow)]


@pytest.mark.parametrize("method", METHODS)
def test_int8(tmp_path: Path, method: str) -> None:
    if method == "nncf":
        pytest.importorskip("nncf")
    source = conv_net(tmp_path / "m.onnx")
    made = make(source, "openvino-int8", tmp_path, images=IMAGES, recipe=RECIPE, method=method)
    session = backend_for(made.files[0]).open(made.files[0])
    assert min(made.details["snr_db"].values()) > 20
    assert made.details["method"] == method
    assert "integer_layers" not in made.details  # those of onnxruntime
    assert not [note for note in made.notes if "int8 layers in integers" in note]
    assert {one.layer: one.state for one in made.decisions}.items() >= {"stem": "int8", "wide": "int8"}.items()
    kinds = computed_in(made.files[0])
    assert kinds["Convolution"] <= {"u8", "i8"}, "a quantized convolution has to be computed in integers"
    expected = backend_for(source).open(source).run({"x": X})
    for a, b in zip(expected, session.run({"x": X}), strict=True):
        assert snr(a, b) > 15


def computed_in(path: str) -> dict[str, set[str]]:
    """Layer type → types that it is computed in, from the plan that OpenVINO made for this CPU."""
    from onnxlint.backends.openvino.runtime import compiled, read_ir

    found: dict[str, set[str]] = {}
    for op in compiled(read_ir(path), path, 2).get_runtime_model().get_ops():
        info = op.get_rt_info()
        found.setdefault(info["layerType"].astype(str), set()).add(info["runtimePrecision"].astype(str))
    return found


@dataclass(frozen=True)
class Prefers:
    """A task that counts one of the candidates that it is shown as the best one."""

    seen: list[int]
    best: int

    def measure(self, pairs: Any) -> Loss:
        assert all(set(one) == set(other) == {"boxes", "scores"} for one, other, _ in pairs)
        self.seen.append(len(self.seen) - 1)
        return Loss((0.0 if self.seen[-1] == self.best else 5.0,), {"found": float(self.seen[-1])})

    def record(self) -> dict[str, object]:
        return {}


def test_one_answer_is_chance() -> None:
    def loss(lost: float, *decibels: float) -> Judged:
        noise = 10 ** (-np.array(decibels)[:, None] / 10)
        return Judged(Loss((lost, 0.0)), Powers(np.ones_like(noise), noise))

    assert is_second_better(loss(2, 25), loss(0, 20))
    assert not is_second_better(loss(0, 20), loss(2, 25))
    assert not is_second_better(loss(1, 25), loss(0, 20))
    assert is_second_better(loss(0, 20), loss(1, 25))
    assert not is_second_better(loss(5, 20), Judged(Loss(), loss(0, 20).powers))
    assert is_second_better(loss(0, 20, 30, 25), loss(0, 21, 32, 26))
    assert not is_second_better(loss(0, 20, 21, 20), loss(0, 19.9, 70, 19.9))  # closer on one of them alone
    assert not is_second_better(loss(0, 20, 30, 25), loss(0, 20.4, 30.4, 25.4))  # what room in ranges may cost
    assert is_second_better(loss(0, 20, 30, 25), loss(0, 20.6, 30.6, 25.6))


@pytest.mark.parametrize(("best", "by"), [(1, "onnx-int8-static"), (2, "nncf")])
def test_the_better_of_both_by_the_task(tmp_path: Path, best: int, by: str) -> None:
    pytest.importorskip("nncf")
    source = conv_net(tmp_path / "m.onnx")
    task = Prefers([], best)
    made = make(source, "openvino-int8", tmp_path, images=IMAGES, recipe=RECIPE, task=task)
    assert task.seen == [-1, 0, 1, 2]  # the model's own outputs first, twice: whether they are those of the task
    assert made.details["made_by"] == by
    names = dict(enumerate(["onnx-int8-static", "NNCF"], 1))
    found = {one: f"as {names[one]} does it: {one}00 % of the objects found" for one in names}
    assert f"calibrated {found[best]} on {len(IMAGES)} calibration images; {found[3 - best]}" in made.notes
    other = tmp_path / "other"
    other.mkdir()
    if best > 1:  # `auto` without a task may take another one
        assert digests(made) == digests(make(source, "openvino-int8", other, images=IMAGES, recipe=RECIPE, method=by))


def test_without_a_task_the_signal_decides(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    source = conv_net(tmp_path / "m.onnx")
    made = make(source, "openvino-int8", tmp_path, images=IMAGES, recipe=RECIPE)
    (note,) = (one for one in made.notes if one.startswith("calibrated as "))
    ratios = [float(one) for one in re.findall(r"does it: (\d+\.\d) dB SNR", note)]
    assert len(ratios) == 2
    assert ratios[0] > max(ratios) - ROOM_COST


def test_what_cannot_be_compared_is_said_and_ours_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as by a version of OpenVINO that has no exact arithmetic."""
    pytest.importorskip("nncf")
    monkeypatch.setitem(NO_INTEGERS, "NO_SUCH_PROPERTY", 1)
    made = make(conv_net(tmp_path / "m.onnx"), "openvino-int8", tmp_path, images=IMAGES, recipe=RECIPE)
    assert made.details["made_by"] == "onnx-int8-static"
    (note,) = (one for one in made.notes if one.startswith("not compared with NNCF: "))
    assert "NO_SUCH_PROPERTY" in note


def test_probabilities_are_judged_by_their_odds_as_well(tmp_path: Path) -> None:
    """Those that are not sure would decide alone otherwise; those that are exact, if each counted by itself."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[1,2] x) => (float[1,2] p) {
            logits = Add (x, shift)
            s = Softmax <axis = 1> (logits)
            p = Identity (s)
        }
        """
    )

    from onnxlint.backends.openvino.convert import converted, names_of

    def saved(name: str, shift: float) -> str:
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([[shift, 0]], np.float32), "shift"))
        onnx.save(model, tmp_path / name)
        return str(tmp_path / name)

    model.graph.initializer.add()
    session, other = OrtSession(saved("m.onnx", 0)), saved("shifted.onnx", 0.01)
    inputs = [{"x": np.array([[0, size]], np.float32)} for size in (0.5, 40.0)]
    comparison = Comparison(session, inputs, "made-up inputs", None, 1)
    judged = comparison.judged(converted(other), names_of(other))
    (unsure, _), (sure, _) = judged.powers.noise
    assert unsure > 1e-6
    assert sure < 1e-16
    of_p, of_odds = judged.powers.decibels
    assert 45 < of_p < ENOUGH
    assert 30 < of_odds < 70
    assert judged.loss.values["snr"] == judged.powers.score < ENOUGH


def test_candidates_are_judged_on_images_that_weights_were_not_fitted_to(tmp_path: Path) -> None:
    session = OrtSession(conv_net(tmp_path / "m.onnx"))

    def judged(count: int) -> tuple[list[np.ndarray], str]:
        pixels = np.stack([np.full((24, 24, 3), i, np.uint8) for i in range(count)])
        pixels[:, :, :12] = 0
        inputs, words = judged_on(session, Job(recipe=Recipe(), images=ImageSet("pixels", arrays=pixels)))
        return [feeds["x"] for feeds in inputs], words

    inputs, words = judged(24)
    assert words == "8 calibration images that weights were not fitted to"
    parts = parted(ImageSet("pixels", arrays=np.zeros((24, 1, 1, 3), np.uint8)), 32, 32)
    assert len(parts.held) == 16
    assert {int(x[..., -1].max()) for x in inputs} == {i * 24 // 8 for i in range(8)}
    inputs, words = judged(20)
    assert words == "16 calibration images"
    assert {int(x[..., -1].max()) for x in inputs} == {i * 20 // 16 for i in range(16)}


@pytest.mark.parametrize("count", [1, 9, 21, 22, 40, 200])
@pytest.mark.parametrize(("held", "judges"), [(12, 8), (32, 32), (12, 0)])
def test_each_image_has_one_part(count: int, held: int, judges: int) -> None:
    images = ImageSet("pixels", arrays=np.arange(count).reshape(-1, 1, 1, 1).astype(np.uint8))
    parts = parted(images, held, judges)
    found = [x for one in (parts.held, parts.unfitted, parts.rest) if one.arrays is not None for x in one.arrays.flat]
    assert sorted(map(int, found)) == list(range(count))
    assert len(parts.unfitted) == (min(judges, count // 3) if count >= FEWEST else 0)
    assert len(parts.held) == (min(held, count - len(parts.unfitted)) if count >= FEWEST or not judges else count)


@pytest.mark.parametrize("method", ["minmax", pytest.param("nncf", marks=pytest.mark.slow)])
def test_kept_nodes_stay_in_float(tmp_path: Path, method: str) -> None:
    if method == "nncf":
        pytest.importorskip("nncf")
    source = conv_net(tmp_path / "m.onnx")
    how = {"images": IMAGES, "recipe": RECIPE, "method": method}
    made = make(source, "openvino-int8", tmp_path, **how, keep=("wide", "scores"))
    states = {one.layer: one.state for one in made.decisions}
    assert states["wide"] == states["scores"] == "fp32"
    assert states["stem"] == "int8"
    with pytest.raises(OnnxlintError, match="has no node 'wid' to keep in float"):
        make(source, "openvino-int8", tmp_path, **how, keep=("wid",))


@pytest.mark.parametrize("to", ["openvino-fp16", "openvino-int8"])
def test_the_same_again_has_the_same_bytes(tmp_path: Path, to: str) -> None:
    # Names that PyTorch gave look like those that OpenVINO's counter gives, which runs on from model to model.
    source = conv_net(tmp_path / "m.onnx")
    model = onnx.load(source)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{40 + i}"
    onnx.save(model, source)
    made = [make(source, to, tmp_path, images=IMAGES, recipe=RECIPE, method="minmax", threads=n) for n in (1, 2, 2)]
    first, *others = (digests(one) for one in made)
    assert others == [first, first]


def test_inner_values_are_in_reach(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "m.onnx")
    made = make(source, "openvino", tmp_path)
    session, reference = (backend_for(path).open(path) for path in (made.files[0], source))
    names = [name for name, _ in session.tensors()]
    assert {"stem.act", "total", "boxes", "scores"} <= set(names)
    for name in ("stem.act", "total", "pool"):
        (a,), (b,) = (one.run({"x": X}, [name]) for one in (session, reference))
        assert snr(b, a) > 100
        changed = [one.run({"x": X, name: np.abs(b) + 1}, ["boxes", "scores"]) for one in (session, reference)]
        for one, other in zip(*changed, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    with pytest.raises(OnnxlintError, match=r"m_openvino\.xml: has no value 'nothing'"):
        session.run({"x": X}, ["nothing"])
    with pytest.raises(OnnxlintError, match=r"input 'x' is not given \(it takes x\)"):
        session.run({})
    with pytest.raises(OnnxlintError, match=r"OpenVINO cannot run it on x \[1, 3, 25, 24\]: ") as error:
        session.run({"x": np.zeros((1, 3, 25, 24), np.float32)})
    assert "\n" not in str(error.value)


def test_outputs_keep_their_names(tmp_path: Path) -> None:
    """An input that is an output, a value that is two outputs, and names that OpenVINO would make of others."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[1,4] in) => (float[1,4] b, float[1,4] a, float[1,4] same, int64[2] shape) {
            b = Relu (in)
            a = Identity (b)
            same = Identity (in)
            shape = Shape (in)
        }
        """
    )
    onnx.save(model, tmp_path / "m.onnx")
    made = make(str(tmp_path / "m.onnx"), "openvino", tmp_path)
    session = backend_for(made.files[0]).open(made.files[0])
    assert [port.name for port in session.outputs] == ["b", "a", "same", "shape"]
    x = np.array([[-1, 2, -3, 4]], np.float32)
    for value, expected in zip(
        session.run({"in": x}), [np.maximum(x, 0)] * 2 + [x, np.array([1, 4], np.int64)], strict=True
    ):
        np.testing.assert_array_equal(value, expected)


def test_files_that_are_no_ir(tmp_path: Path) -> None:
    made = make(conv_net(tmp_path / "m.onnx"), "openvino", tmp_path)
    text, weights = (Path(file).read_bytes() for file in made.files)
    (tmp_path / "m.bin").write_bytes(weights)
    path = tmp_path / "m.xml"
    backend = backend_for(str(path))
    for broken, message in (
        (b"", "is not an OpenVINO IR"),
        (b"<html></html>", "is not an OpenVINO IR"),
        (text[: len(text) // 2], "OpenVINO cannot read it: "),
        (text.replace(b'"Convolution"', b'"Convolutiom"'), "OpenVINO cannot read it: .*Convolutiom"),
        (text.replace(b'offset="0"', b'offset="99999999"'), "OpenVINO cannot read it: "),
        (text.replace(b'version="11"', b'version="11000"'), "OpenVINO cannot read it: "),
    ):
        path.write_bytes(broken)
        with pytest.raises(OnnxlintError, match=message) as error:
            backend.open(str(path))
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
    path.write_bytes(text)
    (tmp_path / "m.bin").write_bytes(weights[:100])
    with pytest.raises(OnnxlintError, match=r"m\.xml: OpenVINO cannot read it: "):
        backend.open(str(path))
    (tmp_path / "m.bin").unlink()
    with pytest.raises(OnnxlintError, match=r"m\.bin is missing; an IR is two files"):
        backend.open(str(path))
    with pytest.raises(OnnxlintError, match="cannot be read: No such file"):
        backend.open(str(tmp_path / "none.xml"))


def test_what_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = conv_net(tmp_path / "m.onnx")
    backend, int8 = find_target("openvino-int8")
    job = Job(RECIPE, IMAGES)

    def refused(**more: Any) -> str:
        with pytest.raises(OnnxlintError) as error:
            backend.preflight(int8, source, Job(**{"recipe": RECIPE, "images": IMAGES, **more}))
        return str(error.value)

    assert "openvino-int8 knows auto, learned, minmax, percentile, entropy" in refused(method="ncnf")
    assert "did you mean 'nncf'" in refused(method="ncnf")
    assert refused(method="nncf", mixed=True).startswith("--mixed: NNCF has no mixed precision")
    assert "--weight-bits 5" in refused(weight_bits=5)
    backend.preflight(int8, source, job)
    with pytest.raises(OnnxlintError, match="calibrated on images"):
        make(source, "openvino-int8", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    way = "install it with `pip install 'onnxlint[openvino]'`"
    assert backend.available(int8, job) == f"openvino-int8: openvino is not installed; {way}"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "nncf" else object())
    assert backend.available(int8, job) == ""
    assert "pip install 'onnxlint[nncf]'" in backend.available(int8, Job(RECIPE, IMAGES, method="nncf"))


def test_an_operator_that_openvino_lacks(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 16]>
        g (float[3,3] x) => (float[1] y) { y = Det (x) }
        """
    )
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(NotConvertible, match=r"m\.onnx: OpenVINO cannot convert it: .*Det") as error:
        make(str(tmp_path / "m.onnx"), "openvino", tmp_path)
    assert error.value.lint_target == "openvino"
    assert "\n" not in str(error.value)


def test_a_quantized_model_is_not_converted_again(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "m.onnx")
    backend, target = find_target("onnx-int8-static")
    out = str(tmp_path / "q.onnx")
    backend.make(target, source, (out,), Job(RECIPE, IMAGES, method="minmax"))
    openvino, int8 = find_target("openvino-int8")
    with pytest.raises(OnnxlintError, match="is quantized already"):
        openvino.preflight(int8, out, Job(RECIPE, IMAGES))


TELEMETRY = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)) if event.startswith("socket.") else None)
from pathlib import Path
from onnxlint.backends import Job, find_target
from tests.support.conv_nets import IMAGES, RECIPE, conv_net
folder = Path(sys.argv[1])
source = conv_net(folder / "m.onnx")
backend, target = find_target("openvino-int8")
files = tuple(str(folder / f"m{ending}") for ending in target.files)
for method in sys.argv[2:]:
    backend.make(target, source, files, Job(RECIPE, IMAGES, method=method))
import openvino.tools.ovc.telemetry_utils as utils
assert utils.tm.__name__.endswith("telemetry_stub"), utils.tm
assert sys.modules["openvino_telemetry"] is None
calls = [event for event in seen if event[0] in ("socket.connect", "socket.getaddrinfo", "socket.sendto")]
assert not calls, calls
print("silent")
"""


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    """In a process of its own: openvino's telemetry is decided upon when it is imported, and nncf has none in pytest."""
    methods = ["minmax"]
    try:
        import nncf  # noqa: F401
    except ImportError:
        pass
    else:
        methods.append("nncf")
    root = Path(onnxlint.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", TELEMETRY, str(tmp_path), *methods],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("silent")
    assert not (tmp_path / "intel").exists()


def test_converted_compared_and_repeated(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "net.onnx")
    images = tmp_path / "images.npz"
    assert IMAGES.arrays is not None
    np.savez(images, IMAGES.arrays)
    recipe = {"mean": "127.5,127.5,127.5", "norm": "0.015625,0.015625,0.015625", "pixel": "RGB"}
    done = onnxlint.convert(source, ["openvino", "openvino-int8"], images=str(images), recipe=recipe, method="minmax")
    assert not done.failures
    names = [Path(file).name for one in done.artifacts for file in one.files]
    assert names == [f"net_openvino{ending}" for ending in (".xml", ".bin", "_int8.xml", "_int8.bin")]
    document = json.loads(Path(done.manifest).read_text())
    assert "openvino" in document["versions"]
    report = onnxlint.compare(
        source, [done.artifacts[0].files[0], done.artifacts[1].files[0]], images=str(images), recipe=recipe, layers=True
    )
    exact, int8 = report.candidates
    assert exact.worst_snr_db > 100
    assert 15 < int8.worst_snr_db < 60
    assert any(layer.share for layer in int8.layers)
    usual = default_precision()
    note = f"run with INFERENCE_PRECISION_HINT f32; this CPU's default is {usual}, which is less exact"
    assert (note in exact.notes) == (usual != "f32")
    again = repeat(done.manifest)
    assert len(again.notes) == 4
    assert all(note.endswith(": the same bytes as recorded") for note in again.notes)


DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_retinaface(tmp_path: Path) -> None:
    """On a photo that int8 was not calibrated on (its crops were)."""
    source = str(DATA / "retinaface" / "hand_fixed_released.onnx")
    recipe = PRESETS["retinaface"]
    (_, x), *_ = tensors(find_images(str(DATA / "photos" / "crowd.jpg")), recipe)
    expected = backend_for(source).open(source).run({"input0": x[None]})[0]
    for to, least in (("openvino", 100), ("openvino-fp16", 40), ("openvino-int8", 18)):
        made = make(source, to, tmp_path, images=find_images(str(DATA / "calibration")), recipe=recipe)
        session = backend_for(made.files[0]).open(made.files[0])
        (found,) = session.run({"input0": x[None]})
        heads = [snr(expected[..., part], found[..., part]) for part in (slice(0, 4), slice(4, 6), slice(6, 16))]
        assert np.mean(heads) > least, (to, heads)
    assert Path(made.files[1]).stat().st_size <= 520_000
    assert len(computed_in(made.files[0])["Convolution"] - {"u8", "i8"}) == 0
