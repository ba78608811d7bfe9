"""The published workflows on their own networks, each step on the way; the pages' commands are in test_pages.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.command import onnxlint
from tests.support.fixture_tools import infer, op_counts, random_input

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from torch.nn import functional as F  # noqa: E402, N812

from fixtures import face_embedding, pictures, resnet, retinaface, shapes, srcnn, trained  # noqa: E402
from fixtures._ops import upsample  # noqa: E402
from onnxlint.images.recipe import find_images, make_recipe, tensors  # noqa: E402

COMPUTED = {"Shape", "Gather", "Unsqueeze", "Slice", "Cast", "Softmax", "Expand", "Identity"}


# 1. RetinaFace


@pytest.fixture(scope="module")
def of_resnet(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The original and the hand-fixed form with a narrow ResNet-50."""
    folder = tmp_path_factory.mktemp("resnet")
    return retinaface.build(folder, size=64, only=["op11_dyn"], width=32, backbone="resnet50")


def test_retinaface_with_resnet_is_fixed_as_by_hand(of_resnet: list[Path], tmp_path: Path) -> None:
    original, by_hand = of_resnet
    fixed = tmp_path / "fixed.onnx"
    words = "--heads bbox,cls,ldm --drop-output-activations --multiple-of 32 --exit-zero --no-verify".split()
    assert onnxlint("fix", original, "-o", fixed, *words).code == 0
    assert not COMPUTED & set(op_counts(fixed))
    for shape in ((1, 3, 64, 64), (2, 3, 96, 64)):
        x = random_input(*shape)
        (ours,), (theirs,) = infer(fixed, x), infer(by_hand, x)
        np.testing.assert_array_equal(ours, theirs)


def test_weights_of_resnet_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        state = retinaface.RetinaFace(backbone="resnet50").state_dict()
    published = {
        "body.conv1.weight": (64, 3, 7, 7),
        "body.layer4.2.conv3.weight": (2048, 512, 1, 1),
        "body.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "fpn.output1.0.weight": (256, 512, 1, 1),
        "ssh1.conv7x7_3.0.weight": (64, 64, 3, 3),
        "LandmarkHead.2.conv1x1.weight": (20, 256, 1, 1),
    }
    assert {key: tuple(state[key].shape) for key in published} == published


# 2. FaceNet


@pytest.mark.parametrize("backbone", ["mobilenet", pytest.param("inception_resnetv1", marks=pytest.mark.slow)])
def test_facenet_is_fixed_and_computes_what_the_network_computes(
    backbone: face_embedding.Backbone, tmp_path: Path
) -> None:
    (path,) = face_embedding.build(tmp_path, only=[backbone], base=8)
    found = {finding["code"] for finding in onnxlint("check", path, "--format", "json").json["findings"]}
    assert {"SHP005", "SHP006"} <= found
    fixed = tmp_path / "fixed.onnx"
    assert onnxlint("fix", path, "-o", fixed, "--no-verify").code == 0
    assert not COMPUTED & set(op_counts(fixed))
    x = random_input(3, 3, 112, 112)
    (ours,) = infer(fixed, x)
    with torch.no_grad():
        theirs = face_embedding.make_network(backbone, base=8)(torch.from_numpy(x), mode="predict").numpy()
    assert ours.shape == (3, 128)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_list_of_windows_powershell_is_read(tmp_path: Path) -> None:
    paths = pictures.build(tmp_path / "faces", 3, 64, 48)
    data = pictures.listed(paths, tmp_path)
    assert data.startswith(b"\xff\xfef\0a\0c\0e\0s\0\\\0")
    (tmp_path / "imagelist.txt").write_bytes(data)
    images = find_images(tmp_path / "imagelist.txt")
    assert [Path(path).name for path in images.paths] == [path.name for path in paths]
    recipe = make_recipe(shape="112,112,3", mean="127.5,127.5,127.5", norm="1/128,1/128,1/128", pixel="BGR")
    assert [x.shape for _, x in tensors(images, recipe)] == [(3, 112, 112)] * 3


# 3. The script for edge boards


def test_the_script_for_edge_boards_writes_its_names_and_asks_for_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resnet.build(".", size=64, classes=10, base=8)
    pictures.build(tmp_path / "images", 2, 64, 64)
    asked = onnxlint(*"convert resnet50.onnx --type onnx_fp16 onnx_quan_st ncnn_quan --images ./images".split())
    assert asked.code == 2
    line = (
        "onnxlint convert resnet50.onnx --to onnx-fp16 onnx-int8-static ncnn-int8 --images ./images --preset imagenet"
    )
    assert f"type '{line}'" in asked.err
    done = onnxlint(*"convert resnet50.onnx --type onnx_fp16,onnx_quan_dy".split())
    assert done.code == 0, done.err
    made = {path.name for path in tmp_path.glob("*.onnx")}
    assert made == {"resnet50.onnx", "resnet50_fp16.onnx", "resnet50_quan_dynamic.onnx"}


# 4. Super-resolution


def test_a_factor_at_run_time_is_found_named_and_bound(tmp_path: Path) -> None:
    (path,) = srcnn.build(tmp_path, only=["op11_dyn"], forms=["original"])
    (finding,) = onnxlint("check", path, "--format", "json").json["findings"]
    assert finding["code"] == "SHP008"
    assert "--bind factor=VALUES" in finding["help"]
    bound = tmp_path / "x2.onnx"
    assert onnxlint("fix", path, "-o", bound, "--bind", "factor=1,1,2,2", "--no-verify").code == 0
    assert [value.name for value in onnx.load(bound).graph.input] == ["input"]
    x = random_input(1, 3, 16, 24)
    (ours,) = infer(bound, x)
    np.testing.assert_array_equal(ours, infer(path, x, np.array([1, 1, 2, 2], np.float32))[0])


# 5. Networks that were trained


@pytest.mark.slow
def test_the_classifier_classifies_and_training_is_deterministic() -> None:
    network = trained.train_classifier()
    scenes = [shapes.scene(seed, trained.SIZES["classifier"], 1) for seed in range(100)]
    x = torch.from_numpy(np.stack([one.pixels for one in scenes])).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = network((x.float() - trained.MEAN) * trained.NORM).argmax(1).numpy()
    assert np.mean(found == [int(one.labels[0]) for one in scenes]) > 0.9


@pytest.mark.slow
def test_the_upscaler_is_better_than_bicubic_upsampling() -> None:
    network = trained.train_upscaler()
    factor = torch.tensor([1.0, 1.0, 2.0, 2.0])
    large = np.stack([shapes.scene(seed, 96, noise=1).pixels for seed in range(8)])
    x = torch.from_numpy(large).permute(0, 3, 1, 2).float() / 255
    small = (F.interpolate(x, scale_factor=0.5, mode="area") * 255).round() / 255
    with torch.no_grad():
        errors = [((made.clamp(0, 1) - x) ** 2).mean() for made in (network(small, factor), upsample(small, factor))]
    assert float(10 * torch.log10(errors[1] / errors[0])) > 0.4


@pytest.mark.slow
def test_the_detector_detects(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    trained.build(tmp_path, only=["detector"])
    words: list[str | Path] = [
        "--weights",
        tmp_path / "detector.pth",
        "--shape",
        "300,300,3",
        "--images",
        tmp_path / "many" / "images",
    ]
    labels: list[str | Path] = [
        "--labels",
        tmp_path / "many" / "labels.json",
        "--task",
        "detection",
        "--format",
        "json",
    ]
    done = onnxlint(
        "deploy", "fixtures.trained:detector", *words, *labels, "--preset", "ssd", "--out-dir", tmp_path / "out"
    )
    assert done.code == 0, done.err
    report = done.json["report"]
    assert report["reference"]["task"]["metrics"]["ap50"] > 0.5
