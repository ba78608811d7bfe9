"""docs/scale.md: its lines run, against stores and a cluster on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import BAD, save
from tests.support.documents import ROOT, commands
from tests.support.servers import Site, object_store, serving

LINES = commands((ROOT / "docs" / "scale.md").read_text(encoding="utf-8"))
ELSEWHERE = ("gs://", "hf://")
"""Stores that no server on loopback stands for."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A bucket and a web server with a model; the credentials are in the environment, of nodes started later, too."""
    pytest.importorskip("s3fs", reason="needs onnxlint[remote]")
    folder = tmp_path_factory.mktemp("models")
    save(folder / "model.onnx", BAD)
    with object_store() as client, serving(Site({"/model.onnx": folder / "model.onnx"})) as site:
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="models/model.onnx", Body=(folder / "model.onnx").read_bytes())
        yield site


def run(words: list[str], site: Site, folder: Path, **environment: str) -> None:
    """Run a line in a folder, which is the user's home, too."""
    here = [word.replace("https://host", site.url).replace("~", str(folder)) for word in words]
    command = [sys.executable, "-m", "onnxlint", *(word for word in here if not word.startswith(ELSEWHERE))]
    outcome = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert outcome.returncode == 1, outcome.stderr
    report = folder / "report.jsonl"
    printed = report.read_text(encoding="utf-8") if "report.jsonl" in words else outcome.stdout
    assert "SHP001" in printed
    assert "s3://bucket/models/model.onnx" in printed


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in LINES if "--engine" not in words], ids=" ".join)
def test_lines_about_stores(place: Site, tmp_path: Path, words: list[str]) -> None:
    run(words, place, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("words", [words for words in LINES if words[-2:] == ["--engine", "ray"]], ids=" ".join)
def test_lines_about_a_cluster(place: Site, tmp_path: Path, words: list[str], cluster: Any) -> None:
    run(words, place, tmp_path, RAY_ADDRESS=cluster.address)


def test_every_line_has_a_test() -> None:
    """All but the one that names a Ray head elsewhere."""
    with_engine = [words[words.index("--engine") + 1] for words in LINES if "--engine" in words]
    assert len(LINES) > 2
    assert with_engine == ["ray", "ray://head:10001"]
