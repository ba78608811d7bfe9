"""Temporary files: gone at the end, after SIGTERM, and cleared by the next run after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxlint.model.save import save
from onnxlint.model.scratch import PREFIX, _host, clear_left, prefix, work_folder
from onnxlint.model.skeleton import open_model

WORKS = """
import sys, time
from onnxlint.model.scratch import work_folder
with work_folder(sys.argv[1]) as made:
    open(made + "/half", "w").close()
    print("ready", flush=True)
    time.sleep(60)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WORKS, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_nothing(tmp_path: Path, number: int) -> None:
    with start(tmp_path) as process:
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(30) not in (0, 1 if number == signal.SIGTERM else 0)
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.kill()
    (left,) = tmp_path.iterdir()
    assert (left / "half").exists()
    with work_folder(str(tmp_path)) as made:
        assert [path.name for path in tmp_path.iterdir()] == [os.path.basename(made)]
    assert list(tmp_path.iterdir()) == []


def test_what_others_have_stays(tmp_path: Path) -> None:
    """Of a process that lives, of another machine, and whatever is merely called so."""
    with start(tmp_path) as process:
        (alive,) = tmp_path.iterdir()
        names = [f"{PREFIX}00000000-1-abcdef", f"{PREFIX}mine", f"{PREFIX}{_host()}-x-abc", f"{PREFIX}n.data.note"]
        for name in names:
            (tmp_path / name).write_text("theirs")
        clear_left(str(tmp_path))
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, *names])
        process.kill()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("kept")
    (tmp_path / f"{PREFIX}{_host()}-{dead()}-abc").symlink_to("precious", target_is_directory=True)
    clear_left(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious/file").read_text() == "kept"


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_weights_that_a_model_refers_to_stay(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2048] x) => (float[2048] y) { y = Add(x, w) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(2048, np.float32), "w"))
    needed, left = (f"{PREFIX}{_host()}-{dead()}-{name}.data" for name in ("abc", "xyz"))
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location=needed)
    (tmp_path / left).write_bytes(b"left")
    onnx.save_model(proto, tmp_path / "source.onnx")
    source = open_model(tmp_path / "source.onnx")
    save(source, source.proto, str(tmp_path / "new.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([needed, "m.onnx", "new.onnx", "source.onnx"])


def test_names_say_whose_they_are() -> None:
    assert prefix() == f"{PREFIX}{_host()}-{os.getpid()}-"


def test_fix_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    """The whole program, while it writes to a pipe that nobody reads."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2048] x) => (float[2048] y) { y = Add(x, w) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(2048, np.float32), "w"))
    onnx.save_model(proto, tmp_path / "m.onnx")
    before = sorted(path.name for path in tmp_path.iterdir())
    for delay in (0.2, 0.5, 0.8, 1.1):
        command = [sys.executable, "-m", "onnxlint", "fix", "m.onnx", "--in-place", "-q", "--isolated"]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            time.sleep(delay)
            process.terminate()
            code = process.wait(30)
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        assert code in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_sigterm_while_python_wraps_exceptions() -> None:
    """In `__set_name__`, SystemExit becomes a RuntimeError (Python 3.11): no traceback for that, and no exit code 2."""
    program = """
import os, signal, sys
from unittest import mock
from onnxlint.cli import app
from onnxlint.model.scratch import ending_by_exception

def wrapped(commands, words):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except SystemExit as error:
        raise RuntimeError("Error calling __set_name__") from error

with ending_by_exception(), mock.patch("onnxlint.cli.parsing.run_command", wrapped):
    sys.exit(app.run(["check"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, "")


IMPORTS = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from onnxlint.model.scratch import ending_by_exception
number = signal.Signals[sys.argv[2]]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with ending_by_exception():
        import native
        while True:
            signal.pause()
except (SystemExit, KeyboardInterrupt) as error:
    print(type(error).__name__, native.was_whole)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "kind"), [("SIGTERM", "Terminated"), ("SIGINT", "KeyboardInterrupt")])
def test_nothing_is_raised_within_an_import(tmp_path: Path, name: str, kind: str) -> None:
    """The initialization of a native module aborts the process, with a message in C++, when a call back raises."""
    (tmp_path / "native.py").write_text(
        "import os, signal, time\n"
        "was_whole = False\n"
        f"os.kill(os.getpid(), signal.{name})\n"
        "time.sleep(0.1)\n"
        "was_whole = True\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path), name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == [kind, "True"], done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_what_must_be_whole_is_not_interrupted(tmp_path: Path) -> None:
    code = """
import os, signal, time
from onnxlint.model.scratch import Terminated, ending_by_exception, undisturbed
try:
    with ending_by_exception():
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            print("whole", flush=True)
        signal.pause()
except Terminated as error:
    print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["whole", "143"], done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "kind"), [("SIGTERM", "Terminated"), ("SIGINT", "KeyboardInterrupt")])
def test_an_exception_that_python_drops_comes_again(name: str, kind: str) -> None:
    """In `__del__`, weak references and what runs after a fork."""
    code = f"""
import os, signal
from onnxlint.model.scratch import ending_by_exception
signal.signal(signal.SIGINT, signal.default_int_handler)

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})

try:
    with ending_by_exception():
        Dropping()
        signal.pause()
except (SystemExit, KeyboardInterrupt) as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == ([kind], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 7)])
def test_a_fork_without_handlers_of_its_own_raises_nothing(number: signal.Signals, code: int) -> None:
    """A worker that is told to end before it has begun."""
    script = f"""
import os, signal
from onnxlint.model.scratch import ending_by_exception
with ending_by_exception():
    child = os.fork()
    if child == 0:
        try:
            signal.raise_signal({number})
        except BaseException:
            os._exit(1)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (made.stdout, made.stderr) == (f"{code}\n", "")
