"""Files that are no files, files without end, and configurations that would keep the parser busy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.lint.configuration import MAX_DEPTH, MOST, Configs, Settings, read
from onnxlint.lint.globs import matches_any
from onnxlint.model import reading
from onnxlint.model.skeleton import open_model
from tests.support.command import CLEAN, onnxlint, save
from tests.support.fuzzing import in_child


def program(*words: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnxlint", *words]
    run: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, **options
    )
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model among things that are called like models."""
    save(tmp_path / "clean.onnx", CLEAN)
    os.mkfifo(tmp_path / "pipe.onnx")
    for device in ("stdin", "zero", "random", "full"):
        if os.path.exists(f"/dev/{device}"):
            (tmp_path / f"{device}.onnx").symlink_to(f"/dev/{device}")
    return tmp_path


def test_they_are_skipped_in_a_folder(folder: Path) -> None:
    done = program("check", ".", cwd=folder, stdin=subprocess.PIPE)
    assert done.returncode == 0
    assert "All checks passed" in done.stdout
    skipped = [line for line in done.stderr.splitlines() if "skipped" in line]
    assert len(skipped) == len(done.stderr.splitlines()) == len(list(folder.iterdir())) - 1


def test_they_are_skipped_by_globs(folder: Path) -> None:
    done = program("check", "*.onnx", cwd=folder, stdin=subprocess.PIPE)
    assert done.returncode == 0
    assert "pipe.onnx: skipped" in done.stderr


@pytest.mark.parametrize("command", [("check",), ("fix", "--dry-run"), ("heads",)])
def test_named_themselves_they_are_refused(
    folder: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WRITER_SECONDS", 0.2)
    for name, said in (("zero", "is a device"), ("random", "is a device"), ("pipe", "a pipe that nobody writes to")):
        run = in_child(lambda name=name: onnxlint(command[0], folder / f"{name}.onnx", *command[1:]), memory=300 << 20)  # type: ignore[misc]
        assert run.problem == ""
        assert run.value.code == 2
        assert said in run.value.out + run.value.err


def test_a_pipe_with_a_writer_is_read(tmp_path: Path) -> None:
    """As `onnxlint check <(command)` gives it, however slow the command."""
    model = save(tmp_path / "clean.onnx", CLEAN).read_bytes()
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with open(tmp_path / "pipe", "wb") as pipe:
            time.sleep(0.3)
            pipe.write(model[:50])
            pipe.flush()
            time.sleep(0.3)
            pipe.write(model[50:])

    writer = threading.Thread(target=write)
    writer.start()
    assert open_model(tmp_path / "pipe").size == len(model)
    writer.join()


def test_zeros_are_refused_at_the_first_bytes(tmp_path: Path) -> None:
    with open(tmp_path / "zeros.onnx", "wb") as file:
        file.truncate(3 << 30)
    run = in_child(lambda: onnxlint("check", tmp_path / "zeros.onnx", "--format", "json"), seconds=10, memory=4 << 30)
    assert run.problem == ""
    assert "byte 0 is not a protobuf field" in run.value.err
    assert run.peak < 100 << 20
    started = time.monotonic()
    done = subprocess.run(
        f"head -c 3000000000 /dev/zero | {sys.executable} -m onnxlint check - --format json",
        shell=True,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert time.monotonic() - started < 30


def test_closed_standard_input(tmp_path: Path) -> None:
    for command in (("check", "-"), ("fix", "-", "-o", "x.onnx")):
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m onnxlint {' '.join(command)} <&-"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 2
        assert "standard input is closed" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


# Configurations and baselines


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/random", "/dev/stdin"])
def test_devices_are_no_configuration(tmp_path: Path, device: str) -> None:
    save(tmp_path / "clean.onnx", CLEAN)
    for option in ("--config", "--baseline"):
        done = program("check", "clean.onnx", option, device, cwd=tmp_path, stdin=subprocess.DEVNULL)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "device" in done.stderr


def test_special_files_beside_a_model_are_not_read(tmp_path: Path) -> None:
    save(tmp_path / "clean.onnx", CLEAN)
    os.mkfifo(tmp_path / "onnxlint.toml")
    (tmp_path / "pyproject.toml").symlink_to("/dev/zero")
    assert program("check", "clean.onnx", cwd=tmp_path).returncode == 0


HOSTILE_TOML = {
    "brackets": "select = " + "[" * 20_000,
    "spread brackets": "x = [" + "1,[" * 20_000,
    "tables": "x = " + "{a=" * 20_000,
    "dotted key": ".".join(["a"] * 50_000) + " = 1",
    "dotted table": "[" + ".".join(["a"] * 50_000) + "]",
    "quotes": 'x = "' + '\\"' * 50_000,
    "many quotes": "'" * 100_001,
    "digits": "min-opset = " + "9" * 5000,
    "hex digits": "min-opset = 0x" + "f" * 5000,
    "negative": "min-opset = -1",
    "many digits": "min-opset = " + "9" * 4000,
    "date": "min-opset = 9999-99-99",
    "float": "min-opset = 1e99999",
    "size": "# " + "x" * MOST,
    "keys": "\n".join(f"key{i} = 1" for i in range(15_000)),
    "long glob": f'exclude = ["{"*a" * 5000}"]',
}


@pytest.mark.parametrize("what", HOSTILE_TOML)
def test_configurations_are_bounded(tmp_path: Path, what: str) -> None:
    (tmp_path / "onnxlint.toml").write_text(HOSTILE_TOML[what])

    def refusal() -> str:
        with pytest.raises(OnnxlintError) as caught:
            read(str(tmp_path / "onnxlint.toml"))
        return str(caught.value)

    started = time.process_time()
    run = in_child(refusal, seconds=30, memory=200 << 20)
    assert run.problem == ""
    assert "\n" not in run.value
    assert "onnxlint.toml" in run.value
    assert len(run.value) < 1000
    assert run.seconds < 15, time.process_time() - started


def test_nesting_within_the_limit_is_read(tmp_path: Path) -> None:
    text = (
        "[detection]\nx = "
        + "[" * (MAX_DEPTH - 1)
        + "]" * (MAX_DEPTH - 1)
        + "\n"
        + 'y = "'
        + "[" * 100
        + '" # '
        + "{" * 100
    )
    (tmp_path / "onnxlint.toml").write_text(text)
    assert Configs(Settings(), str(tmp_path / "onnxlint.toml")).of_folder(".").detection["y"] == "[" * 100


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "\0", '{"models": {"a": {"b": 1e999}}}'])
def test_baselines_are_bounded(tmp_path: Path, text: str) -> None:
    save(tmp_path / "clean.onnx", CLEAN)
    (tmp_path / "b.json").write_text(text)
    run = in_child(lambda: onnxlint("check", tmp_path / "clean.onnx", "--isolated", "--baseline", tmp_path / "b.json"))
    assert run.problem == ""
    assert run.value.code == 2
    assert run.value.err.count("\n") == 1


@pytest.mark.parametrize(
    "glob",
    ["**/" * 40 + "x", "*a" * 30, "**" * 200, "*?" * 500, "[a-z]*" * 100, "**/*" * 300, "*" * 4000, "a" * 4000 + "*"],
    ids=lambda glob: glob[:8],
)
def test_globs_take_linear_time(glob: str) -> None:
    path = "/".join(["aaaaaaaa"] * 100) + "/b"
    started = time.process_time()
    for _ in range(3):
        matches_any([glob], path, ".")
        matches_any([glob], "a" * 4000, ".")
    assert time.process_time() - started < 5
