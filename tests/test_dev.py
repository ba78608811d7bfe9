"""dev.py: what it runs and what it makes of the exit codes (setting up an environment is CI's to try)."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types of its own

SCRIPT = Path(__file__).parents[1] / "dev.py"


def returns(monkeypatch: pytest.MonkeyPatch, dev: ModuleType, code: int, keep: Callable[[list[str]], None]) -> None:
    """Commands are kept and not run, and end with this exit code."""

    def run(command: list[str], **_: object) -> int:
        keep(command)
        return code

    monkeypatch.setattr(dev, "run", run)


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with an environment that is there already."""
    spec = importlib.util.spec_from_file_location("dev", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "environment", lambda folder, extra: sys.executable)
    return module


def test_the_demo_is_the_one_that_users_have(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    returns(monkeypatch, dev, 2, lambda command: commands.append(command[1:]))
    assert dev.demo(["elsewhere"]) == 2
    assert commands == [["-m", "onnxlint", "demo", "elsewhere"]]


def test_arguments_go_to_pytest(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    returns(monkeypatch, dev, 5, lambda command: commands.append(command[3:]))
    monkeypatch.setattr(dev.os, "cpu_count", lambda: 2)
    assert dev.test(["-m", "slow", "tests/test_cli.py"]) == 5
    dev.test(["--pdb"])
    dev.test(["-n0"])
    assert commands == [["-n", "auto", "-m", "slow", "tests/test_cli.py"], ["--pdb"], ["-n0"]]


def test_a_contributor_has_what_the_hooks_run(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def environment(folder: Path, extra: str) -> str:
        asked.append(extra)
        return sys.executable

    monkeypatch.setattr(dev, "environment", environment)
    returns(monkeypatch, dev, 0, lambda command: None)
    dev.test([])
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    extras = tomllib.loads((SCRIPT.parent / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    packages = [re.split(r"\W", line.replace("-", "_"))[0] for line in extras[asked[0]]]
    (hooks,) = yaml.safe_load((SCRIPT.parent / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    commands = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks["hooks"]}
    assert "ruff" in commands
    for command in commands:
        assert {"lint-imports": "import_linter"}.get(command, command) in packages


def test_a_command_that_fails_ends_the_program(dev: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="failed with exit code 3"):
        dev.run([sys.executable, "-c", "raise SystemExit(3)"])
    assert dev.run([sys.executable, "-c", "raise SystemExit(3)"], expected=(3,)) == 3
    assert capfd.readouterr().out.startswith("$ ")


def test_without_a_command_it_says_what_there_is() -> None:
    outcome = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert "python3 dev.py demo" in outcome.stdout
    wrong = subprocess.run([sys.executable, SCRIPT, "tset"], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 2
    assert "invalid choice: 'tset'" in wrong.stderr


def test_a_tag_has_to_fit_the_version(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(command: list[str], expected: object = (0,)) -> int:
        if "build" in command:
            (tmp_path / "dist").mkdir()
            (tmp_path / "dist" / "onnxlint-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
        return 0

    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "run", build)
    monkeypatch.setenv("TAG", "v0.1.0")
    assert dev.dist([]) == 0
    monkeypatch.setenv("TAG", "v0.2.0")
    assert dev.dist([]) == 1
    assert capsys.readouterr().err == "dist: tag v0.2.0 does not fit onnxlint-0.1.0-py3-none-any.whl\n"


def test_builds_that_differ_are_no_release(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter((b"one", b"two"))

    def build(command: list[str], expected: object = (0,)) -> int:
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist" / "onnxlint-0.1.0-py3-none-any.whl").write_bytes(next(times))
        return 0

    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "run", build)
    assert dev.dist([]) == 1
    assert capsys.readouterr().err.startswith("dist: two builds differ: ")
