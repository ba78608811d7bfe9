"""Commands on a Python that lacks what Windows lacks: no fork, no limits, no POSIX signals, no flags of open().

The processes that commands start are of this system; what the command itself does is what it would do there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import BAD, save
from tests.support.conv_nets import conv_net

WINDOWS = """
import os, shutil, signal, sys, subprocess, tempfile
subprocess._USE_POSIX_SPAWN = False  # from Python 3.12 on, it is taken where no descriptor is closed
for name in ("fork", "forkpty", "killpg", "register_at_fork", "geteuid", "getuid", "sched_getaffinity", "mkfifo", "wait4",
             "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "setsid", "posix_spawn"):
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd = frozenset()
shutil._use_fd_functions = False
if hasattr(shutil, "_rmtree_impl"):  # from Python 3.14 on, chosen when it is imported
    shutil._rmtree_impl = shutil._rmtree_unsafe
for name in ("SIGALRM", "SIGXCPU", "SIGHUP", "SIGQUIT", "SIGUSR1", "setitimer", "alarm", "pthread_sigmask", "ITIMER_REAL"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
import multiprocessing
multiprocessing.set_start_method("spawn", force=True)
from onnxlint.cli.app import main
if __name__ == "__main__":
    sys.exit(main())
"""


def windows(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "windows.py").write_text(WINDOWS)
    command = [sys.executable, "windows.py", *words]
    return subprocess.run(
        command, cwd=folder, env=os.environ.copy(), capture_output=True, text=True, timeout=300, check=False
    )


def test_check_and_workers(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.onnx", BAD)
    one = windows(tmp_path, "check", ".", "-j", "1", "--isolated")
    two = windows(tmp_path, "check", ".", "-j", "2", "--isolated")
    assert (one.returncode, one.stderr) == (1, "")
    assert "SHP001" in one.stdout
    assert (two.returncode, two.stdout, two.stderr) == (1, one.stdout, "")


def test_fix_is_verified(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    save(tmp_path / "m.onnx", BAD)
    done = windows(tmp_path, "fix", "m.onnx", "-o", "fixed.onnx", "--multiple-of", "32", "--isolated", "--exit-zero")
    assert (done.returncode, done.stderr) == (0, "")
    assert "verified" in done.stdout
    assert "not verified" not in done.stdout
    assert (tmp_path / "fixed.onnx").exists()


def test_simplify(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxsim")
    save(tmp_path / "m.onnx", BAD)
    done = windows(tmp_path, "fix", "m.onnx", "-o", "fixed.onnx", "--simplify", "--isolated", "--exit-zero")
    assert (done.returncode, done.stderr) == (0, "")
    assert "not used" not in done.stdout


def test_convert_and_compare(tmp_path: Path) -> None:
    for needed in ("onnxruntime", "PIL", "sympy"):
        pytest.importorskip(needed)
    conv_net(tmp_path / "m.onnx")
    made = windows(tmp_path, "convert", "m.onnx", "--to", "onnx-fp16", "--isolated")
    assert (made.returncode, made.stderr) == (0, "")
    compared = windows(tmp_path, "compare", "m.onnx", "m_fp16.onnx", "--no-latency", "--isolated")
    assert (compared.returncode, compared.stderr) == (0, "")
    assert "dB" in compared.stdout


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07broken")
    for words in (("check", "m.onnx"), ("fix", "m.onnx", "-o", "out.onnx"), ("diff", "m.onnx", "m.onnx")):
        done = windows(tmp_path, *words, "--isolated")
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"m.onnx", "windows.py", "__pycache__"}
