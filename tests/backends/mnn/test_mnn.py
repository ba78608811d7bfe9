"""MNN: models are converted without the wheel's command-line wrappers, loaded, run and repeated."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import onnxlint
from onnxlint.backends import Artifact, Job, backend_for, find_target
from onnxlint.backends.mnn.runtime import runtime
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from tests.support.conv_nets import conv_net
from tests.support.optional import need

need("_mnncengine")

X = np.random.default_rng(3).standard_normal((1, 3, 24, 24)).astype(np.float32)


def make(source: str, to: str, folder: Path) -> Artifact:
    backend, target = find_target(to)
    files = tuple(str(folder / f"m{ending}") for ending in target.files)
    return backend.make(target, source, files, Job(Recipe()))


def snr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10((a.astype(np.float64) ** 2).sum() / ((a - b) ** 2).sum()))


@pytest.mark.parametrize(("to", "least"), [("mnn", 70), ("mnn-fp16", 40)])
def test_converted(tmp_path: Path, to: str, least: float) -> None:
    source = conv_net(tmp_path / "m.onnx", "size")
    made = make(source, to, tmp_path)
    first = hashlib.sha256(Path(made.files[0]).read_bytes()).hexdigest()
    session = backend_for(made.files[0]).open(made.files[0])
    assert [port.name for port in session.inputs] == ["x"]
    assert session.inputs[0].shape == (1, 3, None, None)
    assert [port.name for port in session.outputs] == ["boxes", "scores"]
    expected = backend_for(source).open(source).run({"x": X})
    for a, b in zip(expected, session.run({"x": X}), strict=True):
        assert a.shape == b.shape
        assert snr(a, b) > least
    (scores,) = session.run({"x": X}, ["scores"])
    np.testing.assert_array_equal(scores, session.run({"x": X})[1])
    make(source, to, tmp_path)
    assert hashlib.sha256(Path(made.files[0]).read_bytes()).hexdigest() == first, "MNN's random identity is replaced"
    assert made.notes[0].startswith("compared with onnxruntime: ")


def test_errors_are_one_line(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "m.onnx")
    made = make(source, "mnn", tmp_path)
    session = backend_for(made.files[0]).open(made.files[0])
    with pytest.raises(OnnxlintError, match=r"m\.mnn: input 'x' is not given \(it takes x\)"):
        session.run({})
    with pytest.raises(OnnxlintError, match="MNN gives no inner values, such as 'stem'"):
        session.run({"x": X}, ["stem"])
    data = Path(made.files[0]).read_bytes()
    path = tmp_path / "bad.mnn"
    for broken in (b"", b"no model" * 99, data[: len(data) // 2]):
        path.write_bytes(broken)
        with pytest.raises(OnnxlintError, match=r"bad\.mnn: MNN cannot load it"):
            backend_for(str(path)).open(str(path))
    with pytest.raises(OnnxlintError, match=r"none\.mnn: cannot be read: No such file"):
        backend_for("none.mnn").open(str(tmp_path / "none.mnn"))


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("Hardmax", r"m\.onnx: MNN cannot convert it: These Op Not Support: ONNX::Hardmax"),
        ("Shrink", r"m\.mnn: MNN computes something else: its output 'y' has .* dB SNR"),
    ],
)
def test_what_mnn_cannot_do_is_no_success(tmp_path: Path, operator: str, message: str) -> None:
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 16]>
        g (float[3,4] x) => (float[3,4] y) {{ y = {operator} (x) }}
        """
    )
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(OnnxlintError, match=message) as error:
        make(str(tmp_path / "m.onnx"), "mnn", tmp_path)
    assert "\n" not in str(error.value)


SILENT = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
from pathlib import Path
from onnxlint.backends import Job, find_target
from onnxlint.images.recipe import Recipe
from tests.support.conv_nets import conv_net
from tests.support.optional import need
folder = Path(sys.argv[1])
source = conv_net(folder / "m.onnx")
backend, target = find_target("mnn")
backend.make(target, source, (str(folder / "m.mnn"),), Job(Recipe()))
wrong = [event for event in seen if event[0] in ("socket.connect", "socket.getaddrinfo", "os.system")]
assert not wrong, wrong
started = [event[1][1] for event in seen if event[0] == "subprocess.Popen"]
assert all("_tools.mnnconvert" in words[3] for words in started), started
assert not [name for name in sys.modules if name.startswith("MNN.tools")]
print("silent")
"""


def test_the_wrappers_are_never_imported_and_nothing_is_printed(tmp_path: Path) -> None:
    root = Path(onnxlint.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "silent\n"


def test_compared_by_everybody(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "net.onnx")
    done = onnxlint.convert(source, ["mnn", "mnn-fp16"])
    assert not done.failures
    report = onnxlint.compare(source, [one.files[0] for one in done.artifacts], layers=True)
    exact, half = report.candidates
    assert exact.worst_snr_db > 70
    assert 40 < half.worst_snr_db < 80
    assert exact.parameters is None


@pytest.mark.parametrize("head", [b"", bytes(4096), b"\xff" * 4096, b"PK\x03\x04" * 99])
def test_what_is_no_model_is_refused_before_it_is_read(tmp_path: Path, head: bytes) -> None:
    """MNN reads a file whole before it looks: 4 GB take it seconds, and as much memory."""
    path = tmp_path / "holes.mnn"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(4 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(OnnxlintError, match=r"holes\.mnn: MNN cannot load it; it is damaged, or no \.mnn model"):
        backend_for(str(path)).open(str(path))
    assert time.process_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_an_extension_that_glibc_refuses_has_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("_mnncengine.so: cannot enable executable stack as shared object requires: Invalid argument")

    monkeypatch.setattr("onnxlint.backends.mnn.runtime.importlib.import_module", refuse)
    with pytest.raises(OnnxlintError, match="patchelf --clear-execstack"):
        runtime()
