"""Everything a developer does with this repository, on a machine that has Python and nothing else.

    python3 dev.py demo             build a small model with every pitfall; check, fix, convert and compare it
    python3 dev.py test [ARGS…]     run the tests; ARGS go to pytest (`-m slow` runs the slow ones)
    python3 dev.py ci               what .ci/run does: lint, types, docs and tests in a fresh environment
    python3 dev.py docs             write the rules' pages anew

It makes a virtual environment in .venv (for `ci` in .venv-ci) and installs into it what the command needs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 10)
IN_ONE_PROCESS = ("-n", "--numprocesses", "-s", "--pdb", "--trace", "--collect-only", "--co")
"""Options of pytest that exclude or settle running the tests in several processes."""


FIX = "--heads bbox,class,landm --drop-output-activations --multiple-of 32 --exit-zero"
RECIPE = "--images demo/images --shape 192,128,3 --mean 104,117,123"
MADE = ".onnx _fp16.onnx _quan_dynamic.onnx _quan_static.onnx .param _fp16.param _int8.param"
DEMO = (
    "check demo/pitfalls.onnx",
    f"fix demo/pitfalls.onnx -o demo/fixed.onnx {FIX}",
    "heads demo/fixed.onnx",
    f"convert demo/fixed.onnx --to all {RECIPE}",
    f"compare demo/pitfalls.onnx {' '.join(f'demo/fixed{ending}' for ending in MADE.split())} {RECIPE}",
)
"""What the demo runs; the README shows what it prints."""


def demo(arguments: list[str]) -> int:
    """Build a model and pictures, then check, fix, convert, quantize and compare; 0 where all of it succeeds."""
    python = environment(ROOT / ".venv", "test")
    run([python, "-m", "fixtures.pitfalls", "demo"])
    run([python, "-m", "fixtures.pictures", "demo/images", "--size", "192x128"])
    for words in DEMO:
        code = run([python, "-m", "onnxlint", *words.split()], shown=f"onnxlint {words}", expected=(0, 1))
        if code != words.startswith("check"):
            print("demo: the check has to find something, and all else to succeed", file=sys.stderr)
            return 2
    return 0


def test(arguments: list[str]) -> int:
    """Run pytest and return its exit code."""
    python = environment(ROOT / ".venv", "test")
    return run([python, "-m", "pytest", *_processes(arguments), *arguments], expected=range(256))


def docs(arguments: list[str]) -> int:
    """Write docs/rules/ anew."""
    python = environment(ROOT / ".venv", "fix")
    return run([python, "-m", "onnxlint.lint.rule_docs", *arguments], expected=(0, 1))


def ci(arguments: list[str]) -> int:
    """Run every step in a fresh environment, even after one has failed; 1 where any has."""
    folder = ROOT / ".venv-ci"
    shutil.rmtree(folder, ignore_errors=True)
    python = environment(folder, "dev")
    steps = [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "mypy"],
        [python, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        [python, "-m", "onnxlint.lint.rule_docs", "--check"],
        [python, "-m", "pytest", *_processes(arguments), *arguments],
    ]
    failed = []
    for step in steps:
        started = time.monotonic()
        code = run(step, expected=range(256))
        print(f"[{time.monotonic() - started:.0f} s, exit code {code}]", flush=True)
        if code:
            failed.append(" ".join(step[2:4]))
    shutil.rmtree(folder, ignore_errors=True)
    print(f"ci: failed: {', '.join(failed)}" if failed else "ci: all steps passed", flush=True)
    return 1 if failed else 0


def environment(folder: Path, extra: str) -> str:
    """Path of the Python in a virtual environment that has the project (editable) and one of its extras.

    Installing is left out where it was done since pyproject.toml last changed.
    """
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
    what = f".[{extra}]" if extra else "."
    stamp = folder / f"installed-{extra or 'base'}"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", what])
        stamp.write_text(wanted)
    return str(python)


def run(command: list[str], shown: str = "", expected: range | tuple[int, ...] = (0,)) -> int:
    """Print a command, run it in the repository and return its exit code; an unexpected one ends the program."""
    relative = os.path.relpath(command[0], ROOT) if command[0].startswith(str(ROOT)) else command[0]
    print(f"$ {shown or ' '.join([relative, *command[1:]])}", flush=True)
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code not in expected:
        # A signal has a negative code.
        sys.exit(f"dev.py: the command above failed with exit code {code}")
    return code


def _processes(arguments: list[str]) -> list[str]:
    settled = any(word.startswith(IN_ONE_PROCESS) for word in arguments)
    return [] if settled or (os.cpu_count() or 1) < 2 else ["-n", "auto"]


def main() -> int:
    """Parse the command line and return the exit code."""
    if sys.version_info < OLDEST:
        sys.exit(f"dev.py: needs Python {'.'.join(map(str, OLDEST))} or newer; this is {sys.version.split()[0]}")
    commands = {"demo": demo, "test": test, "ci": ci, "docs": docs}
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=list(commands))
    arguments = sys.argv[1:]
    # Everything after the command is for the tool that it runs, options included.
    chosen = parser.parse_args(arguments[:1] or ["--help"]).command
    return commands[chosen](arguments[1:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
