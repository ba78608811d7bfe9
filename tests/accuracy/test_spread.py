"""A comparison whose models run in tasks of a real Ray cluster of two nodes: the same report, whatever dies."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.accuracy_models import SIZE, detector, weights
from tests.support.command import on_cluster

pytestmark = pytest.mark.slow

IMAGES = 23

KILLER = """
import os, signal, sys
from onnxlint.backends.ort import BACKEND as ORT

class Killer:
    name = "killer"
    targets = ()

    def opens(self, path):
        return path.endswith(".model")

    def open(self, path, threads):
        session = ORT.open(path, threads)
        run, marker, always = session.run, path + ".died", os.path.exists(path + ".always")

        def dying(feeds, names=None):
            in_task = "ray::" in open("/proc/self/cmdline").read()  # as Ray names its workers
            if in_task and (always or not os.path.exists(marker)) and next(iter(feeds.values())).flat[0] == 7:
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return run(feeds, names)

        session.run = dying
        return session

    def __getattr__(self, name):
        return getattr(ORT, name)

BACKEND = Killer()
"""


@pytest.fixture(scope="module")
def path_of_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The PYTHONPATH of all processes, with a backend in it that kills its worker on one of the images."""
    plugin = tmp_path_factory.mktemp("plugin")
    info = plugin / "killer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: killer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[onnxlint.backends]\nkiller = killer_backend:BACKEND\n")
    (plugin / "killer_backend.py").write_text(KILLER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(plugin), prepend=os.pathsep)
        yield os.environ["PYTHONPATH"]


@pytest.fixture(scope="module")
def cluster(path_of_python: str, request: pytest.FixtureRequest) -> Any:
    """The cluster of two nodes, whose workers find the backend, too."""
    assert path_of_python
    return request.getfixturevalue("two_nodes")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A reference, two candidates and images, of which the twelfth is the one that the backend waits for."""
    noise = np.random.default_rng(3)
    detector(tmp_path / "net.onnx")
    for name, amount in (("a.onnx", 0.01), ("b.onnx", 0.1)):
        changed = {"w1": weights()["w1"] + amount * noise.standard_normal((8, 8, 3, 3)).astype(np.float32)}
        detector(tmp_path / name, prefix=name[0], changed=changed)
    shutil.copy(tmp_path / "a.onnx", tmp_path / "a.model")
    images = noise.standard_normal((IMAGES, 3, SIZE, SIZE)).astype(np.float32)
    images[11, 0, 0, 0] = 7
    np.savez(tmp_path / "images.npz", image=images)
    return tmp_path


def compare(cluster: Any, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`onnxlint compare` as a program, in the folder of the models; its cluster, if it uses one, is this."""
    quiet = ("--no-latency", "--format", "json", "--quiet", "--isolated")
    return on_cluster(cluster, place, "compare", "net.onnx", *words, "--images", "images.npz", *quiet)


def test_the_report_is_that_of_one_machine_byte_for_byte(cluster: Any, place: Path) -> None:
    here = compare(cluster, place, "a.onnx", "b.onnx")
    assert here.returncode == 0, here.stderr
    assert f'"inputs": {IMAGES}' in here.stdout
    there = compare(cluster, place, "a.onnx", "b.onnx", "--engine", "ray")
    assert (there.returncode, there.stdout) == (0, here.stdout), there.stderr


def test_a_killed_worker_changes_nothing(cluster: Any, place: Path) -> None:
    there = compare(cluster, place, "a.model", "b.onnx", "--engine", "ray")
    assert (place / "a.model.died").exists(), "no worker was killed"
    here = compare(cluster, place, "a.model", "b.onnx")
    assert (there.returncode, there.stdout) == (0, here.stdout), there.stderr


def test_a_model_that_kills_every_worker_is_one_line(cluster: Any, place: Path) -> None:
    (place / "a.model.always").touch()
    there = compare(cluster, place, "a.model", "--engine", "ray")
    assert there.returncode == 2
    lines = [line for line in there.stderr.splitlines() if line.startswith("error:")]
    assert lines == ["error: images.npz[11]: running net.onnx, a.model on it ended its process again and again"]


def test_what_a_model_says_is_said_here(cluster: Any, place: Path) -> None:
    np.savez(place / "images.npz", image=np.zeros((3, 4, SIZE, SIZE), np.float32))
    here, there = (compare(cluster, place, "a.onnx", *more) for more in ((), ("--engine", "ray")))
    assert here.returncode == 2
    assert (there.returncode, there.stderr) == (here.returncode, here.stderr)
