"""docs/backends.md: the backend that it shows is installed, makes its target, and runs what it made."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onnxlint.backends import targets
from tests.support.conv_nets import conv_net

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")

pytest.importorskip("onnxruntime")


def test_the_example_is_short_and_works(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code) == 1
    assert len(code[0].splitlines()) <= 60
    name, point = re.findall(r'^(\S+) = "(.*)"$', PAGE, re.MULTILINE)[0]
    package = tmp_path / "package"
    info = package / "onnxlint_ort_format-1.0.dist-info"
    info.mkdir(parents=True)
    (package / f"{point.partition(':')[0]}.py").write_text(code[0])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxlint-ort-format\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[onnxlint.backends]\n{name} = {point}\n")
    conv_net(tmp_path / "model.onnx")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])}
    for words in re.findall(r"^onnxlint (.*)$", PAGE, re.MULTILINE):
        done = subprocess.run(
            [sys.executable, "-m", "onnxlint", *words.split()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert "model.ort" in done.stdout
    document = json.loads((tmp_path / "model.onnxlint.json").read_text())
    assert document["targets"]["ort-format"]["notes"] == ["2 outputs"]


def test_the_page_names_all_targets() -> None:
    table = PAGE.rpartition("## Backends that there are")[2]
    ours = [target.name for backend, target in targets()]
    assert set(ours) <= set(re.findall(r"`([a-z0-9-]+)`", table))
