"""`onnxlint debug-info`: what a bug report needs, and nothing about the user."""

from __future__ import annotations

import getpass
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from onnxlint.version import __version__
from tests.support.command import onnxlint


def test_versions_and_machine() -> None:
    ran = onnxlint("debug-info")
    assert ran.code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in ran.out.splitlines()}
    assert rows["onnxlint"] == __version__
    assert rows["Python"].startswith(platform.python_version())
    assert f"{os.cpu_count()} cores" in rows["processor"]
    for name in ("onnx", "numpy", "onnxruntime", "onnx-graphsurgeon"):
        assert rows[name] == version(name)
    assert not {"pytest", "mypy", "ruff"} & set(rows), "tools of developers say nothing about a bug"


def test_nothing_about_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    monkeypatch.chdir(tmp_path)
    ran = onnxlint("debug-info")
    words = set(ran.out.split())
    assert "secret-token" not in ran.out
    assert getpass.getuser() not in words
    assert str(Path.home()) not in ran.out
    assert str(tmp_path) not in ran.out
