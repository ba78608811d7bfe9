"""Models over a real Ray cluster of several nodes: the same bytes as on one machine, whatever dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import BAD, CLEAN, on_cluster, save

pytestmark = pytest.mark.slow

MODELS = 120


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for i in range(MODELS):
        save(folder / f"m{i:03}.onnx", BAD if i % 3 else CLEAN, f"part{i}")
    (folder / "broken.onnx").write_bytes(b"\x08\x07broken")
    return folder


def deadly_rule(folder: Path, deed: str) -> str:
    """The configuration of a rule that finds nothing, and does a deed for each model first."""
    from tests.lint.test_configuration import TEAM_RULE

    head, _, _ = TEAM_RULE.partition("        for node in view.nodes")
    body = f"import os\n        path = view.model.path\n        {deed}\n        yield from ()\n"
    (folder / "team.py").write_text(f"{head}        {body}")
    (folder / "onnxlint.toml").write_text(f'rule-paths = ["{folder}/team.py"]')
    return str(folder / "onnxlint.toml")


def run(cluster: Any, *words: str) -> tuple[str, str]:
    """(stdout, stderr) of a check whose cluster, if it uses one, is this."""
    outcome = on_cluster(cluster, Path.cwd(), "check", "--format", "jsonl", *words)
    return outcome.stdout, outcome.stderr


def test_results_are_those_of_the_local_engine_byte_for_byte(cluster: Any, models: Path) -> None:
    local = run(cluster, str(models), "--isolated", "-j", "1")
    assert len(local[0].splitlines()) == MODELS + 1
    assert run(cluster, str(models), "--isolated", "--engine", "ray") == local


def test_a_killed_worker_costs_no_result(cluster: Any, models: Path, tmp_path: Path) -> None:
    marker = tmp_path / "was-killed"
    once = f"path.endswith('m040.onnx') and not os.path.exists({str(marker)!r})"
    deed = f"if {once}: open({str(marker)!r}, 'w').close(); os.kill(os.getpid(), 9)"
    config = deadly_rule(tmp_path, deed)
    out, _ = run(cluster, str(models), "--engine", "ray", "--config", config)  # Ray tells of the death on stderr
    assert marker.exists()
    assert out == run(cluster, str(models), "--config", config, "-j", "1")[0]


def test_a_model_that_kills_every_worker_stops_nobody_else(cluster: Any, models: Path, tmp_path: Path) -> None:
    config = deadly_rule(tmp_path, "if path.endswith('m007.onnx'): os.kill(os.getpid(), 9)")
    out, err = run(cluster, str(models), "--engine", "ray", "--config", config)
    assert len(out.splitlines()) == MODELS + 1
    failed = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(failed) == 2  # and broken.onnx
    assert any("m007.onnx: checking it killed the worker process" in line for line in failed)
    assert run(cluster, str(models), "--config", config, "-j", "2")[0] == out


def test_a_cluster_that_is_not_there_is_one_line(models: Path) -> None:
    pytest.importorskip("ray", reason="needs onnxlint[ray]")
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9"}
    command = [sys.executable, "-m", "onnxlint", "check", str(models), "--isolated", "--engine", "ray"]
    outcome = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: --engine: no Ray cluster at 127.0.0.1:9")
    assert outcome.stderr.count("\n") == 1


def test_paths_are_relative_to_where_the_command_runs(cluster: Any, models: Path) -> None:
    command = ["check", "m001.onnx", "m003.onnx", "--isolated", "--format", "jsonl"]
    said = [on_cluster(cluster, models, *command, *more) for more in ((), ("--engine", "ray"))]
    assert said[0].stdout.count('"error":null') == 2
    assert said[1].stdout == said[0].stdout


def test_models_are_fixed_as_they_are_here_byte_for_byte(cluster: Any, models: Path) -> None:
    command = ["fix", "m001.onnx", "broken.onnx", "m003.onnx", "m004.onnx", "--isolated", "--no-verify", "--out-dir"]
    said = []
    for folder, more in (("here", ()), ("there", ("--engine", "ray"))):
        outcome = on_cluster(cluster, models, *command, folder, *more)
        assert outcome.returncode == 2  # broken.onnx
        said.append(re.sub(r"[0-9.]+ s", "… s", outcome.stdout.replace(folder, "…")))
    assert said[1] == said[0]
    made = sorted(path.name for path in (models / "here").iterdir())
    assert made == ["m001.onnx", "m003.onnx", "m004.onnx"]
    assert [(models / "there" / name).read_bytes() for name in made] == [
        (models / "here" / name).read_bytes() for name in made
    ]


@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_a_net_is_calibrated_as_it_is_here_bit_for_bit(
    cluster: Any, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ncnn", reason="needs onnxlint[ncnn]")
    import numpy as np

    from onnxlint.backends.ncnn.format import save
    from tests.support.ncnn_nets import inputs, small

    save(small(), str(tmp_path / "net.param"), str(tmp_path / "net.bin"))
    np.savez(tmp_path / "images.npz", np.stack(inputs(9)))
    command = ["ncnn", "table", "net.param", "images.npz", "--method", method, "-o"]
    for name, more in (("here", ("--threads", "3")), ("there", ("--engine", "ray"))):
        done = on_cluster(cluster, tmp_path, *command, name, *more)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()


@pytest.mark.parametrize(
    ("target", "method"), [("onnx-int8-static", "entropy"), ("onnx-int8-static", "auto"), ("ncnn-int8", "kl")]
)
def test_a_model_is_calibrated_as_it_is_here_byte_for_byte(
    cluster: Any, tmp_path: Path, target: str, method: str
) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxlint[fix]")
    if target.startswith("ncnn"):
        pytest.importorskip("pnnx", reason="needs onnxlint[ncnn]")
    import numpy as np

    from tests.support.accuracy_models import SIZE, detector

    detector(tmp_path / "net.onnx")
    images = np.random.default_rng(5).standard_normal((40, 3, SIZE, SIZE)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    command = ["convert", "net.onnx", "--to", target, "--method", method, "--images", "images.npz", "--isolated"]
    for name, more in (("here", ()), ("there", ("--engine", "ray"))):
        done = on_cluster(cluster, tmp_path, *command, "--out-dir", name, *more)
        assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (tmp_path / "here").iterdir())
    models = [name for name in made if not name.endswith(".json")]
    assert models
    for name in models:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
