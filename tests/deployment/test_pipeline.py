"""`onnxlint deploy`: the whole way, what it leaves behind, and what it does not do twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxlint.api import deploy
from onnxlint.deployment.pipeline import Deployment, StepError
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from tests.support.command import onnxlint

DATA = Path(__file__).parents[3] / "shared" / "data"
RECIPE = Recipe(mean=(127.5,) * 3, norm=(1 / 128,) * 3, pixel="RGB")

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier that ends in a Softmax and computes a shape at run time, and six images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("deploy")
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[1,3,24,32] image) => (float[1,5] probabilities)
        <int64[1] end = {-1}> {
            c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (image, w, b)
            r = Relu (c)
            p = GlobalAveragePool (r)
            s = Shape (p)
            f = Flatten (p)
            logits = Gemm (f, v, a)
            probabilities = Softmax <axis = 1> (logits)
        }
        """
    )
    for name, shape, size in (("w", (8, 3, 3, 3), 0.3), ("b", (8,), 0.1), ("v", (8, 5), 3), ("a", (5,), 0.1)):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.normal(0, size, shape).astype(np.float32), name)
        )
    onnx.save(model, folder / "net.onnx")
    (folder / "images").mkdir()
    for i in range(6):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(folder / "images" / f"{i}.png")
    return folder


def targets() -> list[str]:
    try:
        import ncnn  # noqa: F401
        import pnnx  # noqa: F401
    except ImportError:
        return ["onnx-fp16", "onnx-int8-static"]
    return ["onnx-fp16", "onnx-int8-static", "ncnn", "ncnn-int8"]


def go(place: Path, out: Path, **options: Any) -> Deployment:
    arguments: dict[str, Any] = {
        "images": place / "images",
        "recipe": RECIPE,
        "task": "classification",
        "isolated": True,
    }
    arguments |= {"out_dir": str(out), **options}
    return deploy(place / "net.onnx", arguments.pop("to", targets()), **arguments)


@pytest.fixture(scope="module")
def done(place: Path) -> Deployment:
    return go(place, place / "out")


def test_everything_is_in_one_folder(place: Path, done: Deployment) -> None:
    assert done.ok
    assert [artifact.target for artifact in done.artifacts] == targets()
    assert all(os.path.exists(file) for artifact in done.artifacts for file in artifact.files)
    left = {path.name for path in (place / "out").iterdir()}
    assert {"net.onnx", "net.onnxlint.json", "deploy.json", "report.html", "report.json", "samples"} <= left
    scripts = {path.name for path in (place / "out" / "samples").iterdir()}
    assert scripts == {f"run_{name.replace('-', '_')}{ending}" for name in targets() for ending in (".py", ".cpp")}
    assert [step.name.split()[0] for step in done.steps][:2] == ["check", "fix"]
    assert [step.name for step in done.steps][-2:] == ["compare", "samples"]


def test_the_fixed_model_and_what_came_of_it_are_compared_with_the_original(place: Path, done: Deployment) -> None:
    assert done.report is not None
    names = [os.path.basename(candidate.path) for candidate in done.report.candidates]
    assert names == ["net.onnx", *(os.path.basename(artifact.files[0]) for artifact in done.artifacts)]
    fixed, half = done.report.candidates[:2]
    assert (done.report.reference.name, fixed.name) == ("net.onnx (exported)", "net.onnx (fixed)")
    assert fixed.snr_db > 100
    assert half.snr_db > 40
    assert all(candidate.task is not None for candidate in done.report.candidates)
    document = json.loads((place / "out" / "report.json").read_text())
    assert [one["snr_db"] for one in document["candidates"]] == [
        None if one.snr_db == math.inf else one.snr_db for one in done.report.candidates
    ]


def test_the_activation_that_was_dropped_is_in_the_samples(place: Path, done: Deployment) -> None:
    operators = [node.op_type for node in onnx.load(done.fixed).graph.node]
    assert "Softmax" not in operators
    assert "Shape" not in operators
    session = __import__("onnxruntime").InferenceSession(str(place / "net.onnx"))
    from onnxlint.images.recipe import decode, fit, preprocess

    image = place / "images" / "2.png"
    sized = Recipe((32, 24), RECIPE.mean, RECIPE.norm, "RGB")
    assert fit(decode(str(image)), sized).shape == (24, 32, 3)
    scores = session.run(None, {"image": preprocess(decode(str(image)), sized)[None]})[0][0]
    for artifact in done.artifacts:
        name = f"run_{artifact.target.replace('-', '_')}.py"
        ran = subprocess.run(
            [sys.executable, name, str(image)],
            cwd=place / "out" / "samples",
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.rpartition(": ")[2].split() for line in ran.stdout.splitlines()]
        printed = {int(words[-1]): float(words[0]) for words in lines}
        assert len(printed) == 5
        slack = 0.05 if "int8" in artifact.target else 0.002
        np.testing.assert_allclose([printed[i] for i in range(5)], scores, atol=slack)


@pytest.mark.parametrize(("flags", "warns"), [("fma avx2", True), ("avx2 avx512_vnni", False), ("neon", False)])
def test_samples_warn_where_int8_sums_overflow(
    place: Path, done: Deployment, tmp_path: Path, flags: str, warns: bool
) -> None:
    printed = said(place, place / "out" / "samples" / "run_onnx_int8_static.py", tmp_path, flags)
    assert ("AVX2 without VNNI" in printed) == warns


def test_samples_of_openvino_warn_as_well(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    for bits, warns in ((8, True), (7, False)):
        out = tmp_path / str(bits)
        assert go(place, out, to=["openvino-int8"], weight_bits=bits, method="minmax").ok
        printed = said(place, out / "samples" / "run_openvino_int8.py", tmp_path, "fma avx2")
        assert ("AVX2 without VNNI" in printed) == warns
        assert ("without VNNI" in (out / "samples" / "run_openvino_int8.cpp").read_text()) == warns


def said(place: Path, sample: Path, tmp_path: Path, flags: str) -> str:
    """What a sample writes to stderr on a processor with other flags."""
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
    changed = sample.with_name("other_processor.py")
    text = sample.read_text()
    changed.write_text(text.replace('Path("/proc/cpuinfo")', f"Path({str(tmp_path / 'cpuinfo')!r})"))
    words = [sys.executable, str(changed), str(place / "images" / "2.png")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    changed.unlink()
    return ran.stderr


def test_resume_leaves_out_what_has_not_changed(place: Path, done: Deployment) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*") if path.name != "deploy.json"}
    again = go(place, place / "out", resume=True)
    assert {step.state for step in again.steps if step.name != "check"} == {"unchanged"}
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert again.artifacts == done.artifacts
    assert again.report is not None
    assert done.report is not None
    assert [one.outputs for one in again.report.candidates] == [one.outputs for one in done.report.candidates]
    assert [one.task for one in again.report.candidates] == [one.task for one in done.report.candidates]


def test_resume_clears_what_a_killed_run_left(place: Path, done: Deployment, tmp_path: Path) -> None:
    from onnxlint.model.scratch import _host, prefix

    shutil.copytree(place / "out", tmp_path / "out")
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    dead = tmp_path / "out" / f".onnxlint-{_host()}-{process.pid}-abc"
    (dead / "onnx-fp16").mkdir(parents=True)
    (dead / "onnx-fp16" / "part.onnx").write_bytes(b"x")
    alive = tmp_path / "out" / f"{prefix()}abc"
    alive.mkdir()
    again = go(place, tmp_path / "out", resume=True)
    assert {step.state for step in again.steps if step.name != "check"} == {"unchanged"}
    assert not dead.exists()
    assert alive.exists()


def test_resume_knows_what_was_exact(place: Path, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1,3,24,32] x) => (float[1,3,24,32] y) { y = Relu (x) }'
    )
    onnx.save(model, tmp_path / "relu.onnx")
    for resume in (False, True):
        made = deploy(
            tmp_path / "relu.onnx", ["onnx-fp16"], images=place / "images", recipe=RECIPE, resume=resume, isolated=True
        )
        assert made.report is not None
        assert made.steps[-1].state == ("unchanged" if resume else "done")
        assert made.report.candidates[0].snr_db == made.report.candidates[0].outputs[0].snr_db == math.inf


def test_resume_does_again_what_has_changed(place: Path, done: Deployment, tmp_path: Path) -> None:
    def states(result: Deployment) -> dict[str, str]:
        return {step.name.split()[0]: step.state for step in result.steps}

    shutil.copytree(place / "out", tmp_path / "out")
    to = ["onnx-fp16"]
    assert states(go(place, tmp_path / "out", to=to, resume=True))["fix"] == "unchanged"
    name = next(path for path in (tmp_path / "out").iterdir() if "fp16" in path.name)
    name.write_bytes(name.read_bytes() + b"x")
    assert states(go(place, tmp_path / "out", to=to, resume=True)) == {
        "check": "done",
        "fix": "unchanged",
        "convert": "done",
        "compare": "unchanged",  # it is the same file again
        "samples": "unchanged",
    }
    again = go(place, tmp_path / "out", to=to, resume=True)
    assert set(states(again).values()) - {"done"} == {"unchanged"}
    os.unlink(tmp_path / "out" / "report.html")
    os.unlink(tmp_path / "out" / "net.onnx")
    again = go(place, tmp_path / "out", to=to, resume=True)
    assert states(again) == {
        "check": "done",
        "fix": "done",  # the file is gone
        "convert": "unchanged",  # but its bytes are the same
        "compare": "done",
        "samples": "unchanged",
    }
    again = go(place, tmp_path / "out", to=to, resume=True, task=None)
    assert states(again) == {
        "check": "done",
        "fix": "unchanged",
        "convert": "unchanged",
        "compare": "done",
        "samples": "done",
    }
    assert states(go(place, tmp_path / "out", to=to, resume=True, drop_output_activations=False)) == dict.fromkeys(
        states(again), "done"
    )


def test_a_fix_can_be_turned_off(place: Path, tmp_path: Path) -> None:
    made = go(place, tmp_path / "out", to=["onnx-fp16"], drop_output_activations=False, task=None)
    assert "Softmax" in [node.op_type for node in onnx.load(made.fixed).graph.node]
    assert made.report is not None
    assert made.report.candidates[0].snr_db > 120


def test_it_asks_how_images_become_the_input(place: Path, tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match=r"preprocessing of pixels \(0–255\) unknown"):
        go(place, tmp_path / "out", recipe=Recipe())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "clasification"}, "did you mean 'classification"),
        ({"task": None, "labels": "x"}, "x: no such labels"),
        ({"to": ["onnx-fp61"]}, r"did you mean 'onnx.fp16"),
        ({"fail_if": ["snr"]}, "snr"),
        ({"images": None}, "is calibrated with images"),
        ({"images": "nowhere"}, "no such file or folder"),
        ({"labels": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    place: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OnnxlintError, match=message):
        go(place, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_said_before_anything_is_made(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    for package in ("jinja2", "ncnn"):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more, hidden=package: None if name == hidden else real(name, *more),
        )
        with pytest.raises(OnnxlintError, match=f"{package}.*pip install"):
            go(place, tmp_path / "out", to=["ncnn"])
        assert not (tmp_path / "out").exists()


def test_a_missing_shape_is_said_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1,3,H,W] x) => (float[1,3,H,W] y) { y = Relu (x) }'
    )
    onnx.save(model, tmp_path / "free.onnx")
    if "ncnn" not in targets():
        pytest.skip("needs pnnx and ncnn")
    with pytest.raises(OnnxlintError, match="free sizes"):
        deploy(tmp_path / "free.onnx", ["ncnn"], images=place / "images", recipe=RECIPE, out_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Halves a map of patches of 14 pixels, and doubles it to the size that it had: a factor of 2 only if H % 28 == 0."""
    path = tmp_path_factory.mktemp("patches") / "net.onnx"
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[1,3,H,W] image) => (float[1,3,h,w] map)
        <int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}, float[0] none = {}> {
            p = MaxPool <kernel_shape = [14, 14], strides = [14, 14]> (image)
            c = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (p)
            all = Shape (p)
            size = Slice (all, two, four)
            of = Shape (c)
            first = Slice (of, zero, two)
            sizes = Concat <axis = 0> (first, size)
            map = Resize <mode = "nearest"> (c, none, none, sizes)
        }
        """
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("assume", "sizes"), [((), 1), (("H % 28 == 0", "W % 28 == 0"), 0), (("H%56==0,W%28==0",), 0)])
def test_conditions_are_assumed(patches: Path, tmp_path: Path, assume: tuple[str, ...], sizes: int) -> None:
    recipe = Recipe(size=(84, 56), mean=(127.5,) * 3, norm=(1 / 128,) * 3, pixel="RGB")
    flat = [part for text in assume for part in text.split(",")]
    done = deploy(patches, recipe=recipe, assume=flat, isolated=True, out_dir=str(tmp_path / "out"))
    assert done.ok
    nodes = onnx.load(tmp_path / "out" / "net.onnx").graph.node
    assert sum(node.op_type == "Resize" and len(node.input) > 3 and node.input[3] != "" for node in nodes) == sizes


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("H % 32 == 0", "--assume 'H % 32 == 0': input 'image' will have H = 56"),
        ("W%56==0", "--assume 'W%56==0': input 'image' will have W = 84"),
        ("depth % 2 == 0", "--assume 'depth % 2 == 0': no input has a free size 'depth'; free sizes: H and W"),
        ("H > 3", "--assume 'H > 3': write it as 'H % 32 == 0'"),
    ],
)
def test_a_condition_that_does_not_hold_is_refused_at_once(
    patches: Path, tmp_path: Path, condition: str, said: str
) -> None:
    out = tmp_path / "out"
    words = ["deploy", str(patches), "--shape", "1,3,56,84", "--assume", condition, "--isolated", "--out-dir", str(out)]
    done = onnxlint(*words)
    assert done.code == 2
    assert said in done.err
    assert not out.exists()


def test_a_condition_of_the_model_is_not_blamed_on_the_user(patches: Path, tmp_path: Path) -> None:
    """56 is a multiple of 28, whatever the model says of itself (SHP011 reports that)."""
    model = onnx.load(patches)
    model.metadata_props.add(key="onnxlint.assumes", value="H % 32 == 0")
    onnx.save(model, tmp_path / "net.onnx")
    words = ["deploy", str(tmp_path / "net.onnx"), "--shape", "1,3,56,84", "--assume", "H % 28 == 0", "--isolated"]
    assert "--assume" not in onnxlint(*words).err


def test_a_condition_on_a_size_without_a_name(patches: Path, tmp_path: Path) -> None:
    model = onnx.load(patches)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.ClearField("dim_param")
    onnx.save(model, tmp_path / "net.onnx")
    words = ["deploy", str(tmp_path / "net.onnx"), "--shape", "1,3,56,84", "--assume", "H % 32 == 0", "--isolated"]
    said = "error: --assume 'H % 32 == 0': input 'image' will have image[2] = 56; change the condition or --shape\n"
    assert onnxlint(*words).err == said


def test_it_does_not_replace_the_original(place: Path) -> None:
    before = (place / "net.onnx").read_bytes()
    with pytest.raises(OnnxlintError, match="would replace the original"):
        go(place, place)
    assert (place / "net.onnx").read_bytes() == before


def test_it_stops_with_the_findings(place: Path, tmp_path: Path) -> None:
    if "ncnn" not in targets():
        pytest.skip("needs pnnx and ncnn")
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 16]>
        g (float[1,3,24,32] image) => (float[1,3,24,32] y, int64[4,N] where) {
            y = Relu (image)
            where = NonZero (y)
        }
        """
    )
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(StepError, match="no target could be made: ncnn: ") as stopped:
        deploy(tmp_path / "odd.onnx", ["ncnn"], images=place / "images", recipe=RECIPE, isolated=True)
    assert any("NonZero" in line for line in stopped.value.findings)
    assert (tmp_path / "odd_deploy" / "odd.onnx").exists()


def test_command(place: Path, tmp_path: Path) -> None:
    words = ["deploy", str(place / "net.onnx"), "--to", "onnx-fp16", "--images", str(place / "images"), "--isolated"]
    words += ["--out-dir", str(tmp_path / "out")]
    asked = onnxlint(*words)
    assert asked.code == 2
    assert "--preset imagenet' (or facenet, retinaface, ssd), or add your training's --mean" in asked.err
    words += ["--mean", "127.5,127.5,127.5", "--norm", "1/128,1/128,1/128", "--pixel", "RGB"]
    made = onnxlint(*words, "--task", "classification")
    assert made.code == 0, made.err
    assert "OUT002" in made.out
    assert "run_onnx_fp16.py" in made.out
    assert "Everything is in" in made.out
    failed = onnxlint(*words, "--resume", "--fail-if", "snr<500", "--format", "json")
    assert failed.code == 1
    document = json.loads(failed.out)
    assert document["report"]["failures"][0].startswith("net.onnx (fixed)")
    assert [step["state"] for step in document["steps"]][1:3] == ["unchanged", "unchanged"]
    assert onnxlint("deploy", str(place / "net.onnx"), "--out-dir", str(tmp_path / "fixed")).code == 0
    assert (tmp_path / "fixed" / "net.onnx").exists()


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_retinaface_all_the_way(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    model = DATA / "retinaface" / "original_op11_dyn.onnx"
    made = deploy(
        model,
        ["all"],
        images=DATA / "calibration",
        recipe=Recipe((640, 640)),
        task="detection",
        out_dir=str(tmp_path),
        isolated=True,
    )
    assert made.ok
    assert made.recipe.mean == (104.0, 117.0, 123.0)  # RetinaFace's, though nobody said so
    assert made.report is not None
    reports = dict(zip([artifact.target for artifact in made.artifacts], made.report.candidates[1:], strict=True))
    assert reports["ncnn"].snr_db >= 100
    assert reports["ncnn-fp16"].snr_db >= 40
    assert reports["onnx-fp16"].snr_db >= 40
    # The samples find as many faces as compare did.
    faces = {}
    photos = sorted(DATA.glob("calibration/*.png"))
    for target in reports:
        script = f"run_{target.replace('-', '_')}.py"
        ran = subprocess.run(
            [sys.executable, script, *map(str, photos)],
            cwd=tmp_path / "samples",
            capture_output=True,
            text=True,
            check=True,
        )
        faces[target] = sum(line.startswith("  face") for line in ran.stdout.splitlines())
    for target, report in reports.items():
        assert report.task is not None
        found, extra = report.task.metrics["found"], report.task.metrics["extra"]
        assert faces[target] == (found or 0) + (extra or 0)


def test_a_hostile_record_reaches_no_terminal(place: Path, done: Deployment, tmp_path: Path) -> None:
    from onnxlint.cli.deploy import _text

    shutil.copytree(place / "out", tmp_path / "out")
    path = tmp_path / "out" / "deploy.json"
    document = json.loads(path.read_text())
    for step in document["steps"].values():
        step["lines"] = ["\x1b[2J\x1b[31mAll checks passed\u202e", "::error file=a.py::forged"]
    path.write_text(json.dumps(document))
    again = go(place, tmp_path / "out", resume=True)
    assert {step.state for step in again.steps if step.name != "check"} == {"unchanged"}
    text = _text(again)
    assert "forged" in text
    assert all(line.isprintable() and not line.lstrip().startswith("::") for line in text.splitlines())
