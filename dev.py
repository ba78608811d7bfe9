"""Everything a developer does with this repository, on a machine that has Python and nothing else.

    python3 dev.py demo             onnxlint demo: check, fix, convert and compare a small detector
    python3 dev.py test [ARGS…]     run the tests; ARGS go to pytest (`-m slow` runs the slow ones)
    python3 dev.py ci               what .ci/run does: lint, types, docs and tests in a fresh environment
    python3 dev.py coverage         run the tests and print their branch coverage, module by module
    python3 dev.py rules            write docs/rules/ from the rules
    python3 dev.py docs             serve the site; --build writes it into site/ and fails on warnings
    python3 dev.py dist             build wheel and sdist twice, compare their bytes, try the wheel in an empty environment
    python3 dev.py lowest           run the tests with the lowest versions that pyproject.toml admits

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


def demo(arguments: list[str]) -> int:
    """What `onnxlint demo` does with everything installed."""
    python = environment(ROOT / ".venv", "test")
    return run([python, "-m", "onnxlint", "demo", *arguments], shown="onnxlint demo", expected=range(256))


def test(arguments: list[str]) -> int:
    """Run pytest and return its exit code; the environment also has what the hooks of pre-commit run."""
    python = environment(ROOT / ".venv", "dev")
    return run([python, "-m", "pytest", *_processes(arguments), *arguments], expected=range(256))


def coverage(arguments: list[str]) -> int:
    """Print the branch coverage of the fast suite, module by module; 0 where it is as high as pyproject.toml asks for."""
    python = environment(ROOT / ".venv", "dev")
    measured = ["--cov", "--cov-report=term"]
    return run([python, "-m", "pytest", *_processes(arguments), *measured, *arguments], expected=range(256))


def rules(arguments: list[str]) -> int:
    """Write docs/rules/ anew."""
    python = environment(ROOT / ".venv", "fix")
    return run([python, "-m", "onnxlint.lint.rule_docs", *arguments], expected=(0, 1))


def docs(arguments: list[str]) -> int:
    """Serve the site until ctrl-c; with `--build`, write it into site/."""
    python = environment(ROOT / ".venv", "docs")
    if "--build" in arguments:
        return run(site(python, ROOT / "site"), expected=(0, 1))
    return run([python, "-m", "mkdocs", "serve", *arguments])


def site(python: str, folder: Path) -> list[str]:
    """The command that builds the site, and fails on a warning."""
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # about a version that pyproject.toml excludes
    return [python, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]


def dist(arguments: list[str]) -> int:
    """Build the files of a release into dist/; 0 where two builds have the same bytes and the wheel works by itself."""
    python = environment(ROOT / ".venv", "dev")
    folder = ROOT / "dist"
    built = []
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "build", "--outdir", str(folder)])
        built.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())})
    if built[0] != built[1]:
        print(f"dist: two builds differ: {built[0]} {built[1]}", file=sys.stderr)
        return 1
    tag = os.environ.get("TAG", "")
    wheel = next(folder.glob("*.whl"))
    if tag and tag != f"v{wheel.name.split('-')[1]}":
        print(f"dist: tag {tag} does not fit {wheel.name}", file=sys.stderr)
        return 1
    return run([python, "-m", "tests.support.wheel", str(wheel)], expected=(0, 1))


def lowest(arguments: list[str]) -> int:
    """Run the tests with the lowest versions of dependencies that pyproject.toml admits."""
    python = environment(ROOT / ".venv", "dev")
    folder = ROOT / ".venv-lowest"
    run([python, "-m", "uv", "venv", "--clear", "--python", sys.executable, str(folder)])
    lowest = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [python, "-m", "uv", "pip", "install", "--quiet", "--python", str(lowest)]
    # uv reads none of pip's settings.
    links = [f"--find-links={where}" for where in os.environ.get("PIP_FIND_LINKS", "").split()]
    run([*install, *links, "--resolution", "lowest-direct", "--editable", ".[test]"])
    return run([str(lowest), "-m", "pytest", *_processes(arguments), *arguments], expected=range(256))


def ci(arguments: list[str]) -> int:
    """Run every step in a fresh environment, even after one has failed; 1 where any has."""
    folder = ROOT / ".venv-ci"
    shutil.rmtree(folder, ignore_errors=True)
    python = environment(folder, "dev")
    # The coverage of all tests: pytest prints the figure, and fails where it is below that of pyproject.toml.
    measured = [] if arguments else ["--cov", "--cov-report="]
    steps = [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "mypy"],
        [python, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        [python, "-m", "onnxlint.lint.rule_docs", "--check"],
        site(python, folder / "site"),
        [python, "-m", "pytest", *_processes(arguments), *measured, *arguments],
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
    commands = {one.__name__: one for one in (demo, test, ci, coverage, rules, docs, dist, lowest)}
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
