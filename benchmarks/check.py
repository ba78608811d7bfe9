"""What a check costs, as whole processes, against `python -c "import onnx"` and against the tools that are installed.

    python -m benchmarks.check [--runs 5] [--assert] [--only retinaface,chain-20k,…] [--timeout 600] [--write]

Builds its models in a temporary folder: a detector with every pitfall (and the RetinaFace export of ../shared/data where it
is there), chains of 20,000 and 200,000 nodes, and 1.9 GB of weights, inline and external. Reports CPU seconds (user and
system, medians of interleaved runs) as multiples of importing onnx, and peak memory. `--assert` fails where onnxlint misses
its own bars. `--write` puts the table into docs/benchmarks.md, and the ratios of one model into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxlint
from benchmarks.results import write_into

ROOT = Path(__file__).resolve().parents[1]
RETINAFACE = ROOT.parent / "shared" / "data" / "retinaface" / "original_op11_dyn.onnx"
BARS = {  # CPU seconds as a multiple of importing onnx, and peak memory in MB
    "retinaface": (0.9, None),
    "chain-20k": (3.0, None),
    "inline-1.9GB": (1.7, 200),
    "external-1.9GB": (1.6, 80),
}


def chain(nodes: int, path: Path) -> None:
    """Conv and Relu in turn, a weight for every hundred convolutions."""
    generator = np.random.default_rng(0)
    made, weights, value = [], [], "x"
    for i in range(nodes):
        if i % 2 == 0:
            if i % 200 == 0:
                weights.append(numpy_helper.from_array(generator.standard_normal((8, 8, 3, 3)).astype("f4"), f"w{i}"))
            inputs = [value, weights[-1].name]
            made.append(helper.make_node("Conv", inputs, [f"v{i}"], f"/net/conv{i}", kernel_shape=[3, 3], pads=[1] * 4))
        else:
            made.append(helper.make_node("Relu", [value], [f"v{i}"], f"/net/relu{i}"))
        value = f"v{i}"
    shape: list[str | int | None] = ["N", 8, 32, 32]
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def heavy(path: Path, external: bool) -> None:
    """19 matrix products of 100 MB each; written piece by piece, so that the benchmark itself stays small."""
    size, count = 5000, 19
    data = np.random.default_rng(0).standard_normal((size, size)).astype("f4").tobytes()
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"], f"/net/fc{i}") for i in range(count)]
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["N", size])],
        [helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, ["N", size])],
    )
    for i in range(count):
        weight = graph.initializer.add(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[size, size])
        if external:
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", f"{path.name}.data"), ("offset", i * len(data)), ("length", len(data))):
                weight.external_data.add(key=key, value=str(value))
        else:
            weight.raw_data = data
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    if external:
        with open(f"{path}.data", "wb") as file:
            for _ in range(count):
                file.write(data)


def build(folder: Path, wanted: set[str]) -> dict[str, Path]:
    """Build the models that are wanted; returns name → file."""
    models: dict[str, Path] = {}

    def add(name: str, path: Path) -> None:
        models[name] = path

    if "pitfalls" in wanted:
        from fixtures import pitfalls

        pitfalls.build(folder)
        add("pitfalls", folder / "pitfalls.onnx")
    if "retinaface" in wanted and RETINAFACE.exists():
        add("retinaface", RETINAFACE)
    for name, nodes in (("chain-20k", 20_000), ("chain-200k", 200_000)):
        if name in wanted:
            chain(nodes, folder / f"{name}.onnx")
            add(name, folder / f"{name}.onnx")
    for name, external in (("inline-1.9GB", False), ("external-1.9GB", True)):
        if name in wanted:
            # In a process of its own, whose memory is given back at its end.
            path = folder / f"{name}.onnx"
            code = (
                f"from pathlib import Path; from benchmarks.check import heavy; heavy(Path({str(path)!r}), {external})"
            )
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
            add(name, path)
    return models


def tools() -> dict[str, list[str]]:
    """Name → command line, {0} for the model and {1} for a scratch file."""
    found = {"onnxlint": [sys.executable, "-m", "onnxlint", "check", "--isolated", "{0}"]}
    others = {
        "onnx-doctor": ["onnx-doctor", "check", "{0}"],
        "onnxslim": ["onnxslim", "{0}", "{1}"],
        "onnxsim": ["onnxsim", "{0}", "{1}"],
        "polygraphy": ["polygraphy", "check", "lint", "{0}"],
    }
    for name, command in others.items():
        beside = Path(sys.executable).with_name(command[0])
        program = str(beside) if beside.exists() else shutil.which(command[0])
        if program:
            found[name] = [program, *command[1:]]
    return found


LAUNCH = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
                     file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)])
usage = os.wait4(pid, 0)[2]
os.write(3, f"{usage.ru_utime + usage.ru_stime} {usage.ru_maxrss / 1024}".encode())
"""
"""A small parent for what is measured: a child's peak memory begins with that of the process that started it."""


def measure(command: list[str], timeout: float) -> tuple[float, float] | None:
    """(CPU seconds, peak MB) of a process; None where it takes too long."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    receive, send = os.pipe()
    program = shutil.which(command[0]) or command[0]
    script = f"import os; os.dup2({send}, 3); {LAUNCH}"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, program, *command[1:]],
        env=environment,
        pass_fds=(send,),
        start_new_session=True,
    )
    os.close(send)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
    finally:
        answer = os.read(receive, 100) if process.returncode == 0 else b""
        os.close(receive)
    cpu, memory = map(float, answer.split())
    return cpu, memory


def versions() -> str:
    """The tools that are measured, the machine and the day."""
    found = []
    for name in ("onnx", "onnx-doctor", "onnxslim", "onnxsim", "polygraphy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    python = platform.python_version()
    machine = f"Python {python}, {platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}"
    return f"onnxlint {onnxlint.__version__}, {', '.join(found)}; {machine}"


def write(rows: list[str], ratios: dict[str, dict[str, float]]) -> None:
    """Put the table into docs/benchmarks.md, and the ratios of RetinaFace (else of the first model) into README.md."""
    label = "retinaface" if "retinaface" in ratios else next(iter(ratios))
    said = ", ".join(f"{tool} {ratio:.1f}" for tool, ratio in sorted(ratios[label].items(), key=lambda one: one[1]))
    table = "\n".join(rows)
    for path, text in (
        (ROOT / "docs" / "benchmarks.md", f"{table}\n\n{versions()}.\n"),
        (ROOT / "README.md", f"({datetime.date.today()}): {said}.\n"),
    ):
        write_into(path, text)


def interleaved(
    model: Path, scratch: str, commands: dict[str, list[str]], options: argparse.Namespace
) -> tuple[float, dict[str, list[tuple[float, float]]]]:
    """CPU seconds of importing onnx, and (CPU seconds, peak MB) of each tool's runs, none where it takes too long."""
    base: list[float] = []
    results: dict[str, list[tuple[float, float]]] = {tool: [] for tool in commands}
    dropped: set[str] = set()
    for run in range(options.runs + 1):
        floor = measure([sys.executable, "-c", "import onnx"], options.timeout)
        for tool, command in commands.items():
            slow = tool != "onnxlint" and run > 1 and results[tool] and results[tool][0][0] > 10
            if tool in dropped or slow:
                continue
            cost = measure([part.format(model, scratch) for part in command], options.timeout)
            if cost is None:
                dropped.add(tool)
            elif run:  # the first run warms the caches
                results[tool].append(cost)
        if run and floor is not None:
            base.append(floor[0])
    return statistics.median(base), results


def main() -> int:
    """Measure and print the table; returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--only", default="pitfalls,retinaface,chain-20k,chain-200k,inline-1.9GB,external-1.9GB")
    parser.add_argument("--ours", action="store_true", help="leave the other tools out")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md and README.md")
    parser.add_argument("--assert", action="store_true", dest="bars", help="fail where a bar is missed")
    options = parser.parse_args()
    commands = tools()
    if options.ours:
        commands = {"onnxlint": commands["onnxlint"]}
    missed: list[str] = []
    rows: list[str] = []
    ratios: dict[str, dict[str, float]] = {}

    def row(text: str) -> None:
        print(text, flush=True)
        rows.append(text)

    row("| model | tool | CPU seconds | × import onnx | peak MB |")
    row("| --- | --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = build(folder, set(options.only.split(",")))
        scratch = str(folder / "scratch.onnx")
        for label, model in models.items():
            unit, results = interleaved(model, scratch, commands, options)
            row(f"| {label} | import onnx | {unit:.3f} | 1.00 | |")
            for tool, costs in results.items():
                if not costs:
                    row(f"| {label} | {tool} | more than {options.timeout:.0f} s | | |")
                    continue
                cpu = statistics.median(cost[0] for cost in costs)
                memory = max(cost[1] for cost in costs)
                row(f"| {label} | {tool} | {cpu:.3f} | {cpu / unit:.2f} | {memory:.0f} |")
                ratios.setdefault(label, {})[tool] = cpu / unit
                if tool == "onnxlint" and label in BARS:
                    most, space = BARS[label]
                    if cpu / unit > most:
                        missed.append(f"{label}: {cpu / unit:.2f} × import onnx, the bar is {most}")
                    if space is not None and memory > space:
                        missed.append(f"{label}: {memory:.0f} MB, the bar is {space}")
    if options.write:
        write(rows, ratios)
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if options.bars and missed else 0


if __name__ == "__main__":
    sys.exit(main())
