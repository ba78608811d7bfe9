"""`onnxlint.export` and `onnxlint export`: real networks, real exporters, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxlint
from onnxlint import ExportReport, OnnxlintError
from onnxlint.model.metadata import metadata
from tests.support.command import onnxlint as command

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tests.exporting import nets  # noqa: E402 - needs torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def traced(network: Any, output: str | None = "net.onnx", **more: Any) -> ExportReport:
    return onnxlint.export(network, output, **{"exporter": "torchscript", **more})


def io(path: str) -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [one.name for one in graph.input], [one.name for one in graph.output]


def test_the_file_computes_what_the_network_computes() -> None:
    import onnxruntime

    net = nets.Plain().train()
    assert net.norm.running_mean is not None
    net.norm.running_mean.add_(1)
    report = traced(net, shape=(1, 3, 8, 8), dynamic="image=N,3,H,W")
    assert report.verification is not None
    assert report.verification.verified
    assert len(report.verification.trials) == 4
    assert net.training
    assert net.norm.training
    x = torch.randn(3, 3, 10, 6)
    got = onnxruntime.InferenceSession("net.onnx").run(None, {"image": x.numpy()})[0]
    assert np.allclose(got, net.eval()(x).detach(), atol=1e-5)
    assert io("net.onnx") == (["image"], ["output"])
    assert os.listdir() == ["net.onnx"]


def test_both_exporters_and_the_one_with_fewer_findings() -> None:
    report = onnxlint.export(nets.Pyramid(), "net.onnx", shape=(1, 3, 16, 16), dynamic="x=N,3,H,W")
    assert [one.exporter for one in report.attempts] == ["dynamo", "torchscript"]
    assert all(one.opset and one.usable for one in report.attempts)
    fewest = min(one.findings for one in report.attempts)
    taken = next(one for one in report.attempts if one.exporter == report.exporter)
    assert taken.findings == fewest == len(report)
    assert report.why
    assert not any("symbolic" in note for note in report.notes)  # that of a class that this network does not use
    dims = [dim.dim_param or dim.dim_value for dim in onnx.load("net.onnx").graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3, "H", "W"]


def test_traced_nodes_name_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    report = traced(nets.Pyramid(), shape=(1, 3, 16, 16), dynamic="x=N,3,H,W")
    finding = next(one for one in report if one.code == "SHP001")
    line = finding.location.source[-1]
    text = (HERE / "nets.py").read_text(encoding="utf-8").splitlines()
    assert line.code == text[line.line - 1].strip()
    assert line.code.startswith("up = F.interpolate(low, size=")
    assert line.function == "forward"
    assert [one.function for one in finding.location.source] == ["forward"]
    assert not any(node.doc_string for node in onnx.load("net.onnx").graph.node)


def test_sizes_of_example_inputs_can_be_free() -> None:
    np.savez("in.npz", image=np.random.default_rng(0).random((1, 3, 8, 8), np.float32), ids=np.array([[0, 1, 2]]))
    report = traced(nets.Two(), inputs="in.npz", dynamic=["image=N,3,H,W", "ids=N,T"])
    assert report.verification is not None
    assert len(report.verification.trials) == 4
    dims = [[dim.dim_param for dim in one.type.tensor_type.shape.dim] for one in onnx.load("net.onnx").graph.input]
    assert dims == [["N", "", "H", "W"], ["N", "T"]]


def test_a_shape_with_the_channels_last_is_explained() -> None:
    for shape, way in (((12, 8, 3), "1,3,8,12"), ((12, 8), "1,3,8,12")):
        with pytest.raises(OnnxlintError, match=rf"give a size that it takes with shape, such as {way}$"):
            traced(nets.Plain(), shape=shape)


def test_names_of_files_in_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxlint.exporting.factory import shown_file

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert shown_file(str(tmp_path / "work" / "net.py")) == "net.py"
    assert shown_file(str(tmp_path / "nets" / "net.py")) == os.path.join("..", "nets", "net.py")
    assert shown_file("/opt/venv/lib/python3/site-packages/timm/layers.py") == "timm/layers.py"


def test_a_custom_symbolic_goes_through_torchscript() -> None:
    with open("in.npz", "wb") as file:
        np.savez(
            file, x=np.random.default_rng(0).random((1, 3, 8, 8), np.float32), factor=np.array([1, 1, 2, 2], np.float32)
        )
    report = onnxlint.export(nets.Enlarging(), "net.onnx", inputs="in.npz")
    assert report.exporter == "torchscript"
    dynamo = report.attempts[0]
    assert dynamo.why_not.startswith("it cannot export the network: dynamo does not call 'symbolic' of ")
    assert "\n" not in dynamo.why_not
    assert io("net.onnx")[0] == ["x", "factor"]
    assert "Resize" in [node.op_type for node in onnx.load("net.onnx").graph.node]


def test_inputs_by_name_and_type() -> None:
    report = traced(nets.Two(), shape=["ids=2,5:int64", "image=1,3,4,4"], dynamic=["ids=N,T"])
    assert report.inputs == ("image", "ids")
    assert report.outputs == ("output0", "output1")
    assert onnx.load("net.onnx").graph.input[1].type.tensor_type.elem_type == onnx.TensorProto.INT64


def test_names_given() -> None:
    report = traced(
        nets.Two(), shape=["1,3,4,4", "2,5:int64"], input_names="picture,words".split(","), output_names=["big", "rows"]
    )
    assert (report.inputs, report.outputs) == (("picture", "words"), ("big", "rows"))
    assert io("net.onnx") == (["picture", "words"], ["big", "rows"])


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_dictionaries_in_and_out(exporter: str) -> None:
    net = nets.Nested()
    report = onnxlint.export(
        net, "net.onnx", exporter=exporter, shape=["batch.x=1,2,3", "batch.y=1,4"], dynamic="batch.x=N,2,3"
    )
    assert report.inputs == ("batch.x", "batch.y")
    assert report.outputs == ("a", "pair.score", "pair.box")
    assert "forward" not in vars(net)


def test_what_the_tracer_froze_is_said_and_caught() -> None:
    with pytest.raises(
        OnnxlintError, match=r"nothing was written: torchscript: its outputs are different at H="
    ) as error:
        traced(nets.Baked(), shape=(1, 3, 16, 16), dynamic="x=1,3,H,16")
    assert "output 'output'" in str(error.value)
    assert os.listdir() == []
    report = traced(nets.Baked(), shape=(1, 3, 16, 16))
    assert any("took values for constants at" in note and "nets.py:" in note for note in report.notes)


def test_random_networks_are_refused() -> None:
    with pytest.raises(OnnxlintError, match=r"outputs are random.*give verify=False"):
        traced(nets.Noisy(), shape=(1, 300))
    assert traced(nets.Noisy(), shape=(1, 300), verify=False).verification is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "needs an example of its 1 input \\(image\\): give shape image=1,3,640,640"),
        ({"shape": (1, 4, 8, 8)}, "fails on its example \\(image \\[1, 4, 8, 8\\]\\): RuntimeError: .*channels"),
        ({"shape": ["1,3,8,8", "1,2"]}, "2 inputs for the 1 parameter of forward: image"),
        ({"shape": ["image=1,3,8,8", "mask=1,2"]}, "forward has no parameter 'mask'"),
        ({"shape": (1, 3, 8, 8), "output_names": ["a", "b"]}, "output_names: 2 names for 1 output"),
        ({"shape": (1, 3, 8, 8), "input_names": ["a", "b"]}, "input_names: 2 names for 1 input"),
        ({"shape": "1,3,8,0"}, "shape '1,3,8,0': write sizes"),
        ({"shape": "1,3,8,8:float"}, "no element type is called 'float'; did you mean 'float"),
        ({"shape": (1, 3, 8, 8), "dynamic": "image=N,3,H"}, "has 3 sizes, and the shape has 4 axes"),
        ({"shape": (1, 3, 8, 8), "dynamic": "image=N,4,H,W"}, "axis 1 is 4, and 3 in shape"),
        ({"dynamic": "image=N,3,H,W"}, "give an example's size too, such as shape image=1,3,640,640"),
        ({"shape": (1, 3, 8, 8), "opset": 3}, "the exporters write opsets 9 to"),
        ({"shape": (1, 3, 8, 8), "weights": "no.pth"}, "weights no.pth: no such file"),
        ({"shape": (1, 3, 8, 8), "allow_missing": "a"}, "give weights FILE"),
        ({"shape": (1, 3, 8, 8), "arguments": {"a": 1}}, "is a module already"),
        ({"shape": (1, 3, 8, 8), "exporter": "dynam"}, "did you mean 'dynamo'"),
        ({"shape": (1, 3, 8, 8), "recipe": "imagnet"}, "did you mean 'imagenet'"),
    ],
)
def test_mistakes(more: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxlintError, match=message):
        traced(nets.Plain(), **more)
    assert os.listdir() == []


def test_the_file_says_how_it_was_made() -> None:
    recipe = {"mean": (104, 117, 123), "norm": 1 / 128, "pixel": "BGR"}
    torch.save(nets.Plain().state_dict(), "w.pth")
    report = traced(nets.Plain(), shape=(1, 3, 8, 8), weights="w.pth", recipe=recipe)
    kept = metadata(onnx.load("net.onnx"))
    entry = json.loads(kept["onnxlint.export"])
    assert entry == report.metadata
    assert entry["network"] == "Plain"
    assert entry["torch"] == torch.__version__
    assert entry["weights"]["file"] == "w.pth"
    assert len(entry["weights"]["sha256"]) == 64
    assert json.loads(kept["onnxlint.recipe"])["mean"] == [104.0, 117.0, 123.0]
    onnxlint.fix("net.onnx", "fixed.onnx")
    fixed = metadata(onnx.load("fixed.onnx"))
    assert {key: fixed[key] for key in kept} == kept


def test_the_same_export_gives_the_same_bytes() -> None:
    torch.manual_seed(0)
    net = nets.Pyramid()
    for name in ("a.onnx", "b.onnx"):
        traced(net, name, shape=(1, 3, 16, 16), dynamic="x=N,3,H,W")
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_saved_networks() -> None:
    """Built in this process: torch need not be imported once more for each."""
    from onnxlint.exporting.options import ExportOptions, Wanted
    from onnxlint.exporting.spec import parse_spec, saved_kind
    from onnxlint.exporting.worker import Made
    from onnxlint.exporting.worker import run as export_saved

    net = nets.Plain().eval()
    example = torch.randn(2, 3, 8, 8)
    torch.save(net, "whole.pt")
    torch.save({"model": net.half(), "epoch": 3}, "half.pt")
    torch.jit.trace(net.float(), example).save("script.pt")
    torch.export.save(torch.export.export(net, (example,)), "program.pt2")
    kinds = {"whole.pt": "pickle", "half.pt": "pickle", "script.pt": "torchscript", "program.pt2": "program"}
    assert {path: saved_kind(path) for path in kinds} == kinds
    image = Wanted("image", (2, 3, 8, 8))

    def made(path: str, exporter: str, *inputs: Wanted, trust: bool = False) -> Made:
        options = ExportOptions(inputs, exporter=exporter, trust=trust)
        return export_saved(parse_spec(path), None, options, os.getcwd(), lambda message: None)

    for path in ("whole.pt", "program.pt2"):
        with pytest.raises(OnnxlintError, match=r"can run (any )?code; add trust|can run (any )?code; add --trust"):
            made(path, "torchscript", image)
    for done in (
        made("whole.pt", "torchscript", image, trust=True),
        made("half.pt", "torchscript", image, trust=True),
        made("script.pt", "torchscript", image),
        made("program.pt2", "dynamo", trust=True),
    ):
        (attempt,) = done.attempts
        assert not attempt.refused
        assert attempt.trials
        assert all(trial.outcome in ("equal", "close") for trial in attempt.trials)
        assert done.inputs == ("image",)
    assert "cannot read TorchScript programs" in made("script.pt", "dynamo", image).attempts[0].refused
    with pytest.raises(OnnxlintError, match="has its own inputs and sizes"):
        made("program.pt2", "dynamo", image, trust=True)
    torch.save(net.state_dict(), "weights.pth")
    with pytest.raises(OnnxlintError, match=r"holds weights and no network; name what builds it: package"):
        made("weights.pth", "torchscript", image)


def test_what_training_puts_around_a_network_goes() -> None:
    report = traced(torch.nn.DataParallel(nets.Plain()), shape=(1, 3, 8, 8))
    assert (report.network, report.inputs) == ("Plain", ("image",))


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_large_networks_are_one_file_where_they_fit(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    from onnxlint.exporting import exporters, session

    monkeypatch.setattr(exporters, "ONE_FILE", 0)
    monkeypatch.setattr(session, "FILE_LIMIT", limit)
    net = torch.nn.Linear(256, 64)
    onnxlint.export(net, "net.onnx", shape=(1, 256), exporter="dynamo")
    assert sorted(os.listdir()) == (["net.onnx", "net.onnx.data"] if limit == 0 else ["net.onnx"])
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load("net.onnx").graph.initializer}
    assert any(array.shape == (64, 256) and np.array_equal(array, net.weight.detach()) for array in weights.values())


def test_an_input_is_not_overwritten() -> None:
    torch.save(nets.Plain().state_dict(), "w.pth")
    with pytest.raises(OnnxlintError, match=r"w\.pth: is an input of this command"):
        traced(nets.Plain(), "w.pth", shape=(1, 3, 8, 8), weights="w.pth")


# The command


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "rules"), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "onnxlint", "export", *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_command_builds_loads_exports_and_checks() -> None:
    Path("models").mkdir()
    Path("models/net.py").write_text((HERE / "nets.py").read_text(encoding="utf-8"), encoding="utf-8")
    state = {f"module.{key}": value for key, value in nets.Plain(8).state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, "w.pth")
    done = run(
        *("models.net:Plain", "--arg", "width=8", "--weights", "w.pth", "--shape", "1,3,8,8"),
        *("--dynamic", "input0=N,3,H,W", "--exporter", "torchscript", "--preset", "imagenet", "-o", "net.onnx"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Plain: input0 → output" in done.stdout
    assert "w.pth: 7 keys loaded; taken from 'state_dict'; prefix 'module.' removed" in done.stdout
    assert "verified    equal" in done.stdout or "verified    bit-equal" in done.stdout
    assert "Wrote net.onnx (" in done.stdout
    assert done.stdout.endswith("All checks passed\n")
    origin = json.loads(metadata(onnx.load("net.onnx"))["onnxlint.export"])
    assert origin["factory"] == "models.net:Plain"
    assert origin["arguments"] == {"width": "8"}
    assert sorted(os.listdir()) == ["models", "net.onnx", "w.pth"]


@pytest.mark.slow
def test_json() -> None:
    Path("net.py").write_text((HERE / "nets.py").read_text(encoding="utf-8"), encoding="utf-8")
    words = (
        "net:Pyramid",
        "--shape",
        "1,3,16,16",
        "--dynamic",
        "N,3,H,W",
        "--exporter",
        "torchscript",
        "-o",
        "net.onnx",
    )
    done = run(*words, "--format", "json", "--fail-on", "warning")
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert report["exporter"] == "torchscript"
    assert report["verification"]["trials"][0]["outcome"] in ("equal", "close")
    assert [one["code"] for one in report["check"]["findings"]] == ["SHP001"]
    assert report["diffs"][0]["condition"] == "H % 2 == 0 and W % 2 == 0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.net:Plain",), "no module 'nowhere' in the working directory or the installed packages"),
        (("net.py",), "name the function or class in it: net.py:"),
        (("net.py:Plian",), "net.py defines no 'Plian'; did you mean 'Plain'?"),
        (("net:Plian",), "defines no 'Plian'; did you mean 'Plain'?"),
        (("missing.py:Plain",), "missing.py: no such file"),
        (("net",), "net: names no function or class; write package.module:factory"),
        (("w.pth.tar",), "w.pth.tar: no such file"),
        (("net:Plain", "--arg", "width"), "--arg 'width': write NAME=VALUE"),
        (("broken.py:Net",), "broken.py:1: is not Python"),
        (("net:Plain", "--shape", "1,3,8,8", "--mean", "1,2"), "--mean: 2 numbers for the 3 channels of BGR"),
        (("net:Plain", "--shape", "1,3,8,8", "-o", "nowhere/net.onnx"), "no such folder"),
        (("net:Plain",), "net:Plain: needs an example of its 1 input (image): give --shape image=1,3,640,640"),
        (("net:Two",), "its 2 inputs (image and ids): give --shape image=1,3,640,640 --shape ids="),
        (("net:failing",), "net:failing: needs an example of its input: give --shape 1,3,640,640"),
        (("net.py",), "net.py:Enlarging, net.py:Noisy, net.py:Baked or "),
        (("weights.pth",), "weights.pth: holds weights and no network; name what builds it: package.module:factory"),
        (("old.pth",), "old.pth: holds weights and no network"),
        (("net:Plain", "--shape", "1,3,8,8", "--weights", "wieghts.pth"), "did you mean 'weights.pth'?"),
        (("net:Plain", "--shape", "1,3,8,8", "--weights", "model.onnx"), "--weights model.onnx: is an ONNX model"),
        (("net:Plain", "--shape", "1,3,8,8", "--weights", "net.py"), "net.py: is neither a file of torch.save nor"),
        (("nte.py:Plain",), "nte.py: no such file; did you mean 'net.py'?"),
    ],
)
def test_what_cannot_work_is_said_before_torch_is_imported(words: tuple[str, ...], message: str) -> None:
    Path("net.py").write_text((HERE / "nets.py").read_text(encoding="utf-8"), encoding="utf-8")
    Path("broken.py").write_text("def (:\n", encoding="utf-8")
    Path("model.onnx").write_bytes(b"\x08\x0a")
    state = {
        "epoch": 1,
        "state_dict": nets.Plain().half().state_dict(),
        "optimizer": {"lr": 0.1, "step": torch.ones(1)},
    }
    torch.save(state, "weights.pth")
    torch.save(state, "old.pth", _use_new_zipfile_serialization=False)
    outcome = command("export", *words, *(() if "-o" in words else ("-o", "net.onnx")))
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxlint.exporting import preflight

    for package in ("torch", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setattr(preflight, "find_spec", lambda name, lacking=package: None if name == lacking else object())
            outcome = command("export", f"{HERE / 'nets.py'}:Plain", "-o", "net.onnx")
        assert outcome.code == 2
        assert "pip install 'onnxlint[torch]'" in outcome.err
