"""Any file under 1 MB: at most 10 s of CPU and 500 MB for a whole check, one clear line where it cannot be done.

The default run checks each hostile model once and runs all formats and commands over some; `-m slow` runs everything.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import re
import resource
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import onnx
import pytest

from fixtures import pitfalls
from onnxlint.lint.formats import FORMATS
from tests.support import hostile
from tests.support.fuzzing import EVERYTHING, in_child, mutated_model, random_mutations, warm_up

SHARED = Path(__file__).parents[3] / "shared"
CASES = SHARED / "cases/hostile"
CPU_SECONDS = 10
MEMORY = 450 << 20
"""Address space beside what this process has; 500 MB with what a fresh process would have."""

WAIT = 300
"""Seconds of wall time after which a command hangs: a busy machine gives it a part of a processor."""

UNPRINTABLE = r"[\x00-\x08\x0b-\x1f\x7f]"

GROUPS = 8
"""The models are checked in this many tests, so that processes share them."""


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    warm_up()


def problem(*words: str, cpu: float = CPU_SECONDS, memory: int = MEMORY) -> str:
    """What is wrong with how a command line ends; empty where nothing is."""
    run = in_child(lambda: _run(words), seconds=WAIT, memory=memory)
    return run.problem or _trouble(*run.value, words=words, cpu=cpu)


def _trouble(code: int, out: str, err: str, took: float, *, words: tuple[str, ...], cpu: float) -> str:
    if code not in (0, 1, 2):
        return f"exit code {code}\n{err}"
    for said in ("Traceback", "please report", "killed the worker", "needs more memory"):
        if said in err or said in out:
            return f"{said!r} in what it printed:\n{err}\n{out[-2000:]}"
    targets = words[words.index("--to") + 1].count(",") + 1 if "--to" in words else 1  # each has its own error
    if code == 2 and sum(not line.startswith("note: ") for line in err.splitlines()) > targets:
        return f"more than one line for an error:\n{err}"
    if "--format" not in words and re.search(UNPRINTABLE, out + err):
        return f"control characters in what it printed: {out!r}\n{err!r}"
    if re.search(r"^::error::forged", out + err, re.MULTILINE):
        return "a forged line of a CI system"
    return f"{took:.1f} s of CPU" if took > cpu else ""


def _run(words: tuple[str, ...]) -> tuple[int, str, str, float]:
    from onnxlint.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, out.getvalue(), err.getvalue(), time.process_time() - started + children.ru_utime + children.ru_stime


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    made = []
    for name, data in hostile.models():
        path = folder / f"{name}.onnx"
        path.write_bytes(data)
        made.append(path)
    if CASES.exists():
        made += sorted(CASES.glob("*.onnx"))
    return made


@pytest.mark.parametrize("group", range(GROUPS))
def test_checks(files: list[Path], group: int) -> None:
    problems = {path.name: problem("check", str(path), "--isolated", *EVERYTHING) for path in files[group::GROUPS]}
    assert {name: what for name, what in problems.items() if what} == {}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format(files: list[Path], format: str) -> None:
    """All formats over some of the models, others for each."""
    chosen = files[FORMATS.index(format) :: 5 * len(FORMATS)]
    problems = {path.name: problem("check", str(path), "--isolated", "--format", format) for path in chosen}
    assert {name: what for name, what in problems.items() if what} == {}


def problem_of_formats(path: Path) -> str:
    """What is wrong with any format of one check, which adds all that any format shows; empty where nothing is."""
    words = ("check", str(path), "--isolated", "--format", "html", *EVERYTHING)
    run = in_child(lambda: _run_all_formats(words), seconds=WAIT, memory=MEMORY)
    if run.problem:
        return run.problem
    (code, out, err, took), texts = run.value
    found = [_trouble(code, out, err, took, words=words, cpu=CPU_SECONDS)]
    found += [_trouble(code, text, "", 0, words=words, cpu=CPU_SECONDS) for text in texts.values()]
    found += ["control characters in the text"] * bool(re.search(UNPRINTABLE, texts.get("text", "")))
    found += [] if list(texts) == list(FORMATS) else [f"formats {list(texts)}"]
    return "\n".join(filter(None, found))


def _run_all_formats(words: tuple[str, ...]) -> tuple[tuple[int, str, str, float], dict[str, str]]:
    import onnxlint.report

    texts = {}
    render = onnxlint.report.render

    def render_all(format: str, report: onnxlint.report.Report) -> str:
        texts.update({one: render(one, report) for one in FORMATS})
        for one in ("json", "sarif", "gitlab", "rdjson"):
            json.loads(texts[one])
        ElementTree.fromstring(texts["junit"])
        return texts[format]

    onnxlint.report.render = render_all  # of this child
    return _run(words), texts


COMMANDS = {
    "fix": ("fix", "MODEL", "--dry-run", "--no-verify", "--isolated"),
    "fix to a file": ("fix", "MODEL", "-o", "OUT.onnx", "--no-verify", "--isolated", "--unsafe"),
    "diff of a fix": ("fix", "MODEL", "--diff", "--no-verify", "--isolated", "--concat-heads"),
    "fix for sizes": (
        "fix",
        "MODEL",
        "--dry-run",
        "--no-verify",
        "--isolated",
        "--multiple-of",
        "32",
        "--dynamic",
        "N,3",
    ),
    "heads": ("heads", "MODEL"),
    "diff": ("diff", "MODEL", "OTHER"),
    "config": ("config", "MODEL"),
}
LONG = {
    "verified fix": ("fix", "MODEL", "--dry-run", "--isolated"),
    "convert": ("convert", "MODEL", "--to", "onnx-fp16", "--out-dir", "OUT"),
    "compare": ("compare", "MODEL", "OTHER", "--no-latency"),
    "deploy": ("deploy", "MODEL", "--to", "onnx-fp16", "--out-dir", "OUT"),
}


def filled(words: tuple[str, ...], path: Path, other: Path, folder: Path) -> list[str]:
    places = {"MODEL": str(path), "OTHER": str(other), "OUT": str(folder / "out"), "OUT.onnx": str(folder / "out.onnx")}
    return [places.get(word, word) for word in words]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command(files: list[Path], tmp_path: Path, command: str) -> None:
    chosen = files[list(COMMANDS).index(command) :: 3 * len(COMMANDS)]
    problems = {
        path.name: problem(*filled(COMMANDS[command], path, chosen[0], tmp_path), cpu=3 * CPU_SECONDS)
        for path in chosen
    }
    assert {name: what for name, what in problems.items() if what} == {}


# All of it


@pytest.mark.slow
@pytest.mark.parametrize("group", range(4 * GROUPS))
def test_all_formats_and_commands_over_all_models(files: list[Path], tmp_path: Path, group: int) -> None:
    problems = {}
    for path in files[group :: 4 * GROUPS]:
        problems[f"{path.name} formats"] = problem_of_formats(path)
        for name, words in COMMANDS.items():
            problems[f"{path.name} {name}"] = problem(*filled(words, path, files[0], tmp_path), cpu=3 * CPU_SECONDS)
        for name, words in LONG.items():
            problems[f"{path.name} {name}"] = problem(
                *filled(words, path, files[0], tmp_path), cpu=12 * CPU_SECONDS, memory=8 << 30
            )
    assert {name: what for name, what in problems.items() if what} == {}


def asked(path: Path) -> dict[str, tuple[str, ...]]:
    """Options of `fix` that name inputs and outputs of a model, or change all of it."""
    graph = onnx.load(path, load_external_data=False).graph
    first, last = (end[0].name if end else "x" for end in (graph.input, graph.output))
    rank = len(graph.input[0].type.tensor_type.shape.dim) if graph.input else 1
    return {
        "rename": ("--rename", f"{last}=renamed", "--rename", f"{first}={last}"),
        "bind": ("--bind", f"{first}=1,2,3,4,5,6"),
        "static": ("--static", ",".join(["2"] * rank)),
        "dynamic": ("--dynamic", ",".join(f"Q{axis}" for axis in range(rank))),
        "lower": ("--opset", "11"),
        "raise": ("--opset", "23"),
        "heads": ("--concat-heads", "--drop-output-activations", "--unsafe", "--external-data", "w.data"),
    }


def problems_of_options(paths: list[Path], folder: Path) -> dict[str, str]:
    found = {
        f"{path.name} {name}": problem(
            *("fix", str(path), "-o", str(folder / "out.onnx"), "--no-verify", "--isolated", *words),
            cpu=3 * CPU_SECONDS,
        )
        for path in paths
        for name, words in asked(path).items()
    }
    return {name: what for name, what in found.items() if what}


def test_options_over_some_models(files: list[Path], tmp_path: Path) -> None:
    assert problems_of_options(files[::80], tmp_path) == {}


@pytest.mark.parametrize("name", ["sizes-doubling-Add.onnx", "dims-reshape-many.onnx"])
def test_free_sizes_beyond_bounds(files: list[Path], tmp_path: Path, name: str) -> None:
    path = next(path for path in files if path.name == name)
    words = ("fix", str(path), "-o", str(tmp_path / "out.onnx"), "--no-verify", "--isolated", *asked(path)["dynamic"])
    assert problem(*words, cpu=3 * CPU_SECONDS) == ""


@pytest.mark.parametrize("name", LONG)
def test_more_axes_than_arrays_have(files: list[Path], tmp_path: Path, name: str) -> None:
    path = next(path for path in files if path.name == "dims-relu-many.onnx")
    assert problem(*filled(LONG[name], path, files[0], tmp_path), cpu=6 * CPU_SECONDS, memory=8 << 30) == ""


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_options_over_all_models(files: list[Path], tmp_path: Path, group: int) -> None:
    assert problems_of_options(files[group::GROUPS], tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(200 * float(os.environ.get("ONNXLINT_FUZZ", "1")))))
def test_combinations(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(hostile.combined(seed).SerializePartialToString())
    formats = itertools.cycle(FORMATS)
    assert problem("check", str(path), "--isolated", "--format", next(formats), *EVERYTHING, cpu=3 * CPU_SECONDS) == ""
    words = list(COMMANDS.values())[seed % len(COMMANDS)]
    assert problem(*filled(words, path, path, tmp_path), cpu=3 * CPU_SECONDS) == ""


# Mutants of real models


def mutant(folder: Path, seed: int) -> Path:
    """A real model with some of its messages changed: the tests' own detector, and those of the shared data."""
    source = random.Random(seed)
    originals = [*pitfalls.build(folder / "good", opset=11), *sorted((SHARED / "data/retinaface").glob("*.onnx"))]
    proto = onnx.load(originals[seed % len(originals)])
    path = folder / f"mutant{seed}.onnx"
    path.write_bytes(mutated_model(proto, random_mutations(source, 6)).SerializePartialToString())
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mutant_through_every_command(tmp_path: Path, command: str) -> None:
    path = mutant(tmp_path, 1000 * list(COMMANDS).index(command))
    assert problem(*filled(COMMANDS[command], path, path, tmp_path), cpu=3 * CPU_SECONDS) == ""


MUTANTS = {
    **COMMANDS,
    **LONG,
    "show": ("show", "MODEL"),
    "verified diff": ("diff", "MODEL", "OTHER", "--verify"),
    "convert to all": ("convert", "MODEL", "--to", "onnx-int8-dynamic,ncnn", "--shape", "64,64,3", "--out-dir", "OUT"),
    "compare layers": ("compare", "MODEL", "MODEL", "--no-latency", "--layers"),
    "fix all": ("fix", "MODEL", "-o", "OUT.onnx", "--isolated", "--unsafe", "--opset", "13", "--concat-heads"),
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(20 * float(os.environ.get("ONNXLINT_FUZZ", "1")))))
def test_mutants_of_real_models_through_all_commands(tmp_path: Path, seed: int) -> None:
    path = mutant(tmp_path, seed)
    other = next(iter((tmp_path / "good").glob("*.onnx")))
    problems = {
        name: problem(*filled(words, path, other, tmp_path), cpu=12 * CPU_SECONDS, memory=8 << 30)
        for name, words in MUTANTS.items()
    }
    assert {name: what for name, what in problems.items() if what} == {}
