"""Weights: found in checkpoints, matched key by key, and never more than data."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from onnxlint import OnnxlintError

torch = pytest.importorskip("torch")

from onnxlint.exporting.checkpoint import load_weights  # noqa: E402 - needs torch
from tests.exporting.nets import Plain  # noqa: E402


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.fixture
def state() -> dict[str, Any]:
    torch.manual_seed(1)
    made: dict[str, Any] = Plain().state_dict()
    return made


@pytest.mark.parametrize(
    ("wrap", "entry", "prefix"),
    [
        (lambda s: s, "", ""),
        (lambda s: prefixed(s, "module."), "", "module."),
        (lambda s: prefixed(s, "module.module."), "", "module.module."),
        (lambda s: prefixed(s, "_orig_mod."), "", "_orig_mod."),
        (lambda s: prefixed(s, "module._orig_mod."), "", "module._orig_mod."),
        (lambda s: {"state_dict": prefixed(s, "model."), "epoch": 3}, "state_dict", "model."),
        (lambda s: {"model": s, "optimizer": {"state": {}}}, "model", ""),
        (lambda s: {"net": prefixed(s, "module."), "acc": 0.9}, "net", "module."),
        (lambda s: {"ema": s}, "ema", ""),
        (lambda s: {"model": {"state_dict": s}, "step": 1}, "model.state_dict", ""),
        (lambda s: {"model": {"other": torch.zeros(1)}, "ema": s}, "ema", ""),
        (lambda s: {"weights": OrderedDict(s)}, "weights", ""),
    ],
)
def test_weights_are_found(tmp_path: Path, state: dict[str, Any], wrap: Any, entry: str, prefix: str) -> None:
    path = str(tmp_path / "w.pth")
    torch.save(wrap(state), path)
    net = Plain()
    loaded = load_weights(net, path)
    assert (loaded.entry, loaded.prefix, loaded.keys) == (entry, prefix, len(state))
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_of_two_that_fit_the_other_is_named(tmp_path: Path, state: dict[str, Any]) -> None:
    path = str(tmp_path / "w.pth")
    torch.save({"ema": state, "model": {key: value + 1 for key, value in state.items()}}, path)
    loaded = load_weights(Plain(), path)
    assert (loaded.entry, loaded.others) == ("model", ("ema",))
    net = Plain()
    assert load_weights(net, path, key="ema").entry == "ema"
    assert torch.equal(net.conv.bias, state["conv.bias"])


def test_a_network_with_a_layer_called_module(tmp_path: Path) -> None:
    path = str(tmp_path / "w.pth")
    net = torch.nn.Module()
    net.module = torch.nn.Linear(2, 2)
    torch.save(net.state_dict(), path)
    assert load_weights(net, path).prefix == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv.bias"), r"1 key missing: conv\.bias; 6 of 7 match.*--allow-missing 'conv\.bias'"),
        (
            lambda s: s.update({"fc.w": torch.ones(1), "fc.b": torch.ones(1)}),
            r"2 keys unexpected: fc\.w, fc\.b; .*'fc\.\*'",
        ),
        (
            lambda s: s.update({"conv1.bias": s.pop("conv.bias")}),
            r"1 key missing: conv\.bias \(near conv1\.bias\); 1 key unexpected: conv1\.bias",
        ),
        (
            lambda s: s.update({"conv.bias": torch.ones(9)}),
            r"1 shape of weights differ: conv\.bias is \[9\] in the file and \[4\] in the network; give the arguments",
        ),
        (lambda s: [s.pop(k) for k in list(s)] and s.update(a=torch.ones(1)), "0 of 7 match; is this another network"),
    ],
)
def test_every_difference_is_said(tmp_path: Path, state: dict[str, Any], change: Any, message: str) -> None:
    change(state)
    path = str(tmp_path / "w.pth")
    torch.save(state, path)
    with pytest.raises(OnnxlintError, match=message):
        load_weights(Plain(), path)


def test_named_keys_may_differ(tmp_path: Path, state: dict[str, Any]) -> None:
    path = str(tmp_path / "w.pth")
    state["fc.weight"] = torch.ones(1)
    del state["conv.bias"]
    torch.save(state, path)
    loaded = load_weights(Plain(), path, allow_missing=["conv.*"], allow_unexpected=["fc.*"])
    assert (loaded.missing, loaded.unexpected, loaded.keys) == (("conv.bias",), ("fc.weight",), 6)


def test_what_old_torch_did_not_count(tmp_path: Path, state: dict[str, Any]) -> None:
    """BatchNorm's counter came with torch 1.0; torch itself forgives its absence in files that say they are older."""
    path = str(tmp_path / "w.pth")
    del state["norm.num_batches_tracked"]
    torch.save(dict(state), path)
    assert load_weights(Plain(), path).keys == 6


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("content", [Evil(), {"state_dict": {}, "args": argparse.Namespace(a=1)}, Plain()])
def test_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "w.pth")
    with pytest.raises(OnnxlintError, match=r"w\.pth: .*\(.*\).*can run any code; add --trust") as error:
        load_weights(Plain(), "w.pth")
    assert "\n" not in str(error.value)
    assert os.listdir() == ["w.pth"]


def test_trusted_files_bring_modules(tmp_path: Path, state: dict[str, Any]) -> None:
    path = str(tmp_path / "w.pth")
    net = Plain()
    net.load_state_dict(state)
    torch.save({"model": net, "args": argparse.Namespace(a=1)}, path)
    assert load_weights(Plain(), path, trust=True).entry == "model"


NOTHING = [b"", b"PK\x03\x04", b"\x80\x02", b"hello, world\n", b"\x00" * 100, b"cos\nsystem\n(S'true'\ntR."]


@pytest.mark.parametrize("data", NOTHING)
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(data)
    with pytest.raises(OnnxlintError) as error:
        load_weights(Plain(), str(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_what_torch_says_is_not_repeated(tmp_path: Path, state: dict[str, Any]) -> None:
    """Its advice on a file that runs code is to let it."""
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"a": os.system}))
    with pytest.raises(OnnxlintError, match=r"is damaged; write it again: torch.save") as error:
        load_weights(Plain(), str(path))
    assert "weights_only" not in str(error.value)
    torch.save({key: value.to("meta") for key, value in state.items()}, path)
    with pytest.raises(OnnxlintError, match=r"Cannot copy out of meta tensor; no data!$"):
        load_weights(Plain(), str(path))


@pytest.mark.parametrize("content", [3, [torch.ones(1)], {"a": 1}, {"state_dict": 3}, {1: torch.ones(1)}])
def test_files_without_weights_by_name(tmp_path: Path, content: Any) -> None:
    path = str(tmp_path / "w.pth")
    torch.save(content, path)
    with pytest.raises(OnnxlintError, match=r"w\.pth"):
        load_weights(Plain(), path)


def test_safetensors(tmp_path: Path, state: dict[str, Any]) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = str(tmp_path / "w.safetensors")
    safetensors.save_file(state, path)
    assert load_weights(Plain(), path).keys == 7
    Path(path).write_bytes(b"{")
    with pytest.raises(OnnxlintError, match="is no safetensors file"):
        load_weights(Plain(), path)
