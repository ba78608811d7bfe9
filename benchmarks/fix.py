"""What fixes achieve, and at what cost, against onnxslim and onnxsim on the same models in one run.

    python -m benchmarks.fix MODEL_OR_FOLDER… [--multiple-of 32] [--no-run] [--timeout 300] [--minutes 60] > a.txt
    python -m benchmarks.fix --sum a.txt b.txt [--words WORDS] -o docs/zoo.md

For each model: nodes (Constants aside), shape chains and sizes-driven Resizes before and after, CPU time of each tool as a
whole process, and whether every output is as it was, at several shapes where sizes are free. Results that promise all
sizes are compared at batch 0 and at odd sizes, too. Where a model accepts none of these, sizes that its graph demands are
tried. Without arguments it takes the RetinaFace exports of ../shared/data; `python -m fixtures.transformers_exports` makes
a wider set, and wheels on PyPI hold others. Tools that are not installed are left out. What a tool says when it ends with
an error is on stderr. The last tables are sums: over all models, and by group, which is exporter and shapes of a name such
as bert__sdpa__dynamo__dyn.onnx, and the models on which onnxlint takes more CPU time than onnxslim. `--sum` runs nothing,
and writes the page of runs whose output was kept, several of which may have gone on at once.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxlint.graph.view import GraphView
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import Finding
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view
from onnxlint.verification.contract import common_contract, demanded_sizes
from onnxlint.verification.sizes import candidates, feeds_for

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "retinaface"
CHAINS = ("SHP001", "SHP002", "SHP005", "SHP006")
USUAL = 32
"""What sizes of images are most often a multiple of."""


@dataclass(frozen=True)
class Counts:
    """What is in a model: nodes, consumers of shape chains, Reshapes among them, sizes-driven Resizes."""

    nodes: int
    chains: int
    reshapes: int
    resizes: int


@dataclass(frozen=True)
class Row:
    """What one tool made of one model, or the original."""

    model: str
    tool: str
    counts: Counts
    seconds: float
    verdict: str

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"| {self.model} | {self.tool} | {counts.nodes} | {counts.chains} | {counts.reshapes} | {counts.resizes} "
            f"| {self.seconds:.2f} | {self.verdict} |"
        )


def chains_of(view: GraphView) -> list[Finding]:
    """Consumers of sizes that a graph computes, as our own rules find them."""
    registry = load_registry()
    plan = Plan(tuple(registry.find(code) for code in CHAINS))
    findings, _, _ = check_view(view, plan)
    return [f for f in findings if "computed" in f.message or f.code in ("SHP005", "SHP006")]


def count(path: Path) -> Counts:
    """Chains and nodes of a model."""
    view = make_view(open_model(path))
    nodes = sum(node.op not in ("Constant",) for graph in view.graphs for node in graph.nodes)
    chains = chains_of(view)
    reshapes = sum(f.location.op_type == "Reshape" for f in chains)
    resizes = sum(f.location.op_type in ("Resize", "Upsample") for f in chains)
    return Counts(nodes, len(chains), reshapes, resizes)


def left_in(path: Path) -> Counter[tuple[str, str]]:
    """(operator, why it stays) → number, for the chains of a fixed model."""
    found: Counter[tuple[str, str]] = Counter()
    for finding in chains_of(make_view(open_model(path))):
        evidence = dict(finding.evidence)
        why = evidence.get("not fixed", "").partition(": the chain stays")[0]
        if "no constant factor exists" in finding.message:
            why = "a map of fixed size is resized to a free size"
        elif finding.fix is not None and finding.fix.condition:
            why = f"its factor is constant only if {finding.fix.condition}"
        found[finding.location.op_type, why or "its size is not known before the model runs"] += 1
    return found


def read_left(path: Path) -> Counter[tuple[str, str]]:
    """What an earlier run printed of chains that are left."""
    found: Counter[tuple[str, str]] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split(" | ")
        if len(cells) == 5 and cells[0] == LEFT:
            found[cells[2], cells[3]] += int(cells[4])
    return found


LEFT = "left"
"""What lines about chains that are left begin with."""


def group_of(model: str) -> str:
    """Exporter and shapes out of a name that transformers_exports gave, `other` for any other."""
    parts = model.split("__")
    return " ".join(parts[2:]) if len(parts) == 4 else "other"


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool that failed said last; a traceback counts as failure."""
    text = done.stderr + done.stdout
    if done.returncode == 0 and "Traceback" not in text and "please report" not in text:
        return ""
    lines = [line for line in text.splitlines() if line.strip()] or ["no word"]
    return f"exit code {done.returncode}: {lines[-1][:300]}"


def asked_of(path: Path) -> int:
    """The multiple with which `onnxlint check` says that more of a model is fixed; the usual one where it names none."""
    words = [sys.executable, "-m", "onnxlint", "check", str(path), "--isolated", "--exit-zero"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, errors="replace")
    numbers = re.findall(r"with --multiple-of (\d+)", done.stdout)
    return math.lcm(*map(int, numbers)) if numbers else USUAL


def run_tool(command: list[str], path: Path, target: Path, asked: int, timeout: float) -> tuple[float, str]:
    """CPU seconds that a tool took for a model, and what it said where it failed."""
    target.unlink(missing_ok=True)
    started = cpu_of_children()
    try:
        done = subprocess.run(
            [part.format(path, target, asked) for part in command],
            capture_output=True,
            check=False,
            timeout=timeout,
            text=True,
            errors="replace",
        )
        said = complaint(done)
    except subprocess.TimeoutExpired:
        said = f"more than {timeout:g} s"
    return cpu_of_children() - started, said


def cpu_of_children() -> float:
    """CPU seconds, of user and system, of all processes that this one started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sums_of(rows: Iterable[Row]) -> dict[str, dict[str, Counter[str]]]:
    """Group → tool → sums; the first group is all of them."""
    found: dict[str, dict[str, Counter[str]]] = {"all": {}}
    for row in rows:
        for group in ("all", group_of(row.model)):
            total = found.setdefault(group, {}).setdefault(row.tool, Counter())
            total.update(
                models=1,
                nodes=row.counts.nodes,
                chains=row.counts.chains,
                reshapes=row.counts.reshapes,
                resizes=row.counts.resizes,
                milliseconds=round(row.seconds * 1000),
            )
            total[row.verdict.split(" (")[0]] += 1
    return found


def tables(rows: Sequence[Row]) -> str:
    """Sums over all models and by group, as Markdown."""
    verdicts = ("equal", "close", "differs", "fails", "no file", "not run")
    out = []
    for group, totals in sums_of(rows).items():
        count = totals["original"]["models"]
        out += [f"## {group[0].upper()}{group[1:]}: {count} models", ""]
        out += [f"| tool | nodes | chains | Reshape | Resize | CPU s | {' | '.join(verdicts)} |"]
        out += ["| --- |" + " ---: |" * (5 + len(verdicts))]
        for tool, total in totals.items():
            cells = [str(total[name]) for name in ("nodes", "chains", "reshapes", "resizes")]
            cells += [f"{total['milliseconds'] / 1000:.1f}", *(str(total[verdict]) for verdict in verdicts)]
            out.append(f"| {tool} | {' | '.join(cells)} |")
        out.append("")
    return "\n".join(out)


def slower(rows: Sequence[Row]) -> list[str]:
    """The models on which onnxlint takes more CPU time than onnxslim, the worst first."""
    spent = {(row.model, row.tool): row.seconds for row in rows}
    pairs = [(spent[model, "onnxlint"], other, model) for (model, tool), other in spent.items() if tool == "onnxslim"]
    worst = sorted(((a / b, a, b, model) for a, b, model in pairs if 0 < b < a), reverse=True)
    return [f"{model} ({a:.1f} s, {b:.1f} s)" for _, a, b, model in worst]


def table_of_left(left: Counter[tuple[str, str]]) -> str:
    """What stays computed in the results, and why no fix can change that."""
    if not left:
        return ""
    rows = [
        f"| {op} | {why} | {number} |" for (op, why), number in sorted(left.items(), key=lambda one: (-one[1], one[0]))
    ]
    return "\n".join((WHY_LEFT, *rows)) + "\n"


WHY_LEFT = """
## What is left

Chains in the results of `onnxlint`. For these nodes as they stand, no constant is right for every admitted size.

- A target of Reshape holds one `-1`, and its `0` copies only the axis of the same number. Where tokens, an axis of H·W,
  become a map of H and W again (SegFormer, Swin, Depth Anything), one of both has to come from another value.
- Expand, Range, ConstantOfShape and Tile make tensors as large as a free size.
- Position embeddings that are resized to the size of the image have no constant factor.

`--static` makes all of these constant.

| operator | why it stays | chains |
| --- | --- | ---: |"""


def page(rows: Sequence[Row], made: date, models: str, left: Counter[tuple[str, str]]) -> str:
    """docs/zoo.md: what fixes achieve over many models, against other tools."""
    programs = [f"{name} {version(name)}" for name in ("onnxlint", "onnxsim", "onnxruntime")]
    slim = [line for line in (tool_version("onnxslim"),) if line]
    head = f"""# What fixes achieve over a zoo of models

Made by `python -m benchmarks.fix --sum` from runs on {made} ({", ".join(programs + slim)}; Python \
{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, shared with other work, so that seconds compare
the tools and say no more) over {models}.

*nodes* are those of all graphs, Constants aside. *chains* are consumers of sizes that the graph computes, *Reshape* and
*Resize* those among them; *CPU s* are user and system time of whole processes. Outputs are compared with the original's
in onnxruntime without optimizations, at up to four sets of sizes (batch 1, 2 and 3), and for tools that promise all sizes
also at batch 0 and at odd ones. A model that accepts none of these gets the sizes that its graph demands. *close* is
within rtol 1e-3 and atol 1e-4, *fails* a result that does not run where the original does. `onnxlint` is
`fix --multiple-of 32`; `(asked)` takes the multiple with which `check` says that more is fixed, 32 where it names none;
`(safe)` is `fix --allow-empty`; `(simplify)` is the first with `--simplify`. How often each rule fires is in
[rule-statistics.md](rule-statistics.md).

"""
    return head.replace("\\\n", "") + tables(rows).rstrip() + f"\n\n{cost(rows)}\n{table_of_left(left)}"


def cost(rows: Sequence[Row]) -> str:
    """A sentence on where onnxlint takes more CPU time than onnxslim; empty where onnxslim did not run."""
    if not any(row.tool == "onnxslim" for row in rows):
        return ""
    models = slower(rows)
    where = f"on {len(models)} models: {', '.join(models)}" if models else "on no model"
    return f"`onnxlint` takes more CPU time than onnxslim {where}."


def tool_version(name: str) -> str:
    """Name and version of a program that may live in another environment; empty where it is absent."""
    program = shutil.which(name)
    if program is None:
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return f"{name} {done.stdout.split()[-1]}" if done.returncode == 0 and done.stdout.split() else name


def read_rows(path: Path) -> list[Row]:
    """The rows that an earlier run printed."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 8 and cells[2].isdecimal():
            counts = Counts(*(int(cell) for cell in cells[2:6]))
            rows.append(Row(cells[0], cells[1], counts, float(cells[6]), cells[7]))
    return rows


def in_all(rows: Sequence[Row]) -> list[Row]:
    """Rows of the tools that ran on every model, so that sums compare the same models."""
    models = {row.model for row in rows}
    ran = Counter(row.tool for row in rows)
    return [row for row in rows if ran[row.tool] == len(models)]


def tools(multiple_of: int) -> dict[str, list[str]]:
    """Name → command line; {0} is the model, {1} the result, {2} the multiple that `check` asks for."""
    here = [
        sys.executable,
        "-m",
        "onnxlint",
        "fix",
        "{0}",
        "-o",
        "{1}",
        "--isolated",
        "--no-verify",
        "--exit-zero",
        "-q",
    ]
    found = {
        "onnxlint": [*here, "--multiple-of", str(multiple_of)],
        "onnxlint (asked)": [*here, "--multiple-of", "{2}"],
        "onnxlint (safe)": [*here, "--allow-empty"],
    }
    if find_spec("onnxsim") is not None:
        # Verified, because what onnxsim breaks has to be taken back.
        found["onnxlint (simplify)"] = [part for part in found["onnxlint"] if part != "--no-verify"] + ["--simplify"]
    for name in ("onnxslim", "onnxsim"):
        beside = Path(sys.executable).with_name(name)
        program = str(beside) if beside.exists() else shutil.which(name)
        if program:
            found[name] = [program, "{0}", "{1}"]
    return found


def shapes_of(model: onnx.ModelProto, multiples: Iterable[int]) -> list[tuple[int, dict[str, int]]]:
    """Sizes for the symbols of a model's inputs: four sets for each multiple, and three for results that promise all.

    Returns:
        What the sizes of images are a multiple of, 1 where only results that promise all sizes are compared, and
        symbol → size.
    """
    free: dict[str, str] = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if not dim.HasField("dim_value"):
                kind = "batch" if axis == 0 else "space" if len(dims) >= 4 else "length"
                free.setdefault(dim.dim_param or f"{value.name}[{axis}]", kind)
    if not free:
        return [(0, {})]
    sets = ((2, (2, 3), 12), (3, (4, 2), 16), (1, (3, 5), 24), (2, (6, 4), 7))
    others = ((0, (64, 96), 12), (1, (97, 131), 13), (3, (75, 61), 5))
    of_multiples = [(n, (batch, (n * a, n * b), length)) for n in multiples for batch, (a, b), length in sets]
    out = []
    for multiple, (batch, space, length) in [*of_multiples, *((1, one) for one in others)]:
        spaces = iter(space * len(free))
        sizes = {
            name: batch if kind == "batch" else next(spaces) if kind == "space" else length
            for name, kind in free.items()
        }
        out.append((multiple, sizes))
    return out


def fitted(path: Path) -> Iterator[dict[str, Any]]:
    """Inputs of the sizes that a model's graph demands, for those that accept no usual ones.

    Numbers that choose a branch, as a sample rate does, have each value that the graph compares them with.
    """
    view = make_view(open_model(path))
    contract = common_contract(view, view, {})
    contract = replace(contract, likely=demanded_sizes(view, contract.inputs))
    chosen = {one.name: compared_with(view, one.name) for one in contract.inputs if one.dims == ()}
    for sizes in itertools.islice(candidates(contract, contract.ranks[0]), 60):
        for way in range(2):
            feeds = feeds_for(contract, sizes, "normal", way, contract.ranks[0], seed=0)
            yield feeds
            for name, numbers in chosen.items():
                for number in numbers:
                    yield {**feeds, name: np.asarray(number, feeds[name].dtype)}


def compared_with(view: GraphView, name: str) -> list[int]:
    """The constants that nodes compare an input with."""
    found = []
    for node in view.main.consumers(name):
        if node.op == "Equal":
            constants = [node.constant(i) for i in range(2) if node.input(i) != name]
            found += [int(one.reshape(-1)[0]) for one in constants if one is not None and one.size == 1]
    return found


def feeds_of(model: onnx.ModelProto, sizes: dict[str, int], path: Path) -> dict[str, Any]:
    """Seeded inputs of these sizes, or the recorded ones."""
    made = path.parent.parent / "inputs" / f"{path.stem}.npz"
    if not sizes and made.exists():
        return dict(np.load(made))
    generator = np.random.default_rng(0)
    feeds = {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in initializers:
            continue
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.HasField("dim_value") else sizes[dim.dim_param or f"{value.name}[{axis}]"]
            for axis, dim in enumerate(tensor.shape.dim)
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:
            few = any(word in value.name for word in ("mask", "type"))  # of 0 and 1, as in BERT's token_type_ids
            feeds[value.name] = generator.integers(0, 2 if few else 20, shape).astype(dtype)
    return feeds


def cases_of(
    model: onnx.ModelProto, path: Path, reference: Any, multiples: Iterable[int]
) -> Iterator[tuple[int, dict[str, Any], list[Any]]]:
    """What a model gives for inputs that it accepts: what their sizes are a multiple of (`shapes_of`), feeds, outputs."""
    accepted = False
    for multiple, sizes in shapes_of(model, multiples):
        try:
            feeds = feeds_of(model, sizes, path)
            wanted = reference.run(None, feeds)
        except Exception:
            continue  # a size that the original does not accept
        accepted = accepted or multiple != 1
        yield multiple, feeds, wanted
    if accepted:
        return
    ran = 0
    for feeds in fitted(path):
        try:
            wanted = reference.run(None, feeds)
        except Exception:
            continue
        yield 0, feeds, wanted
        ran += 1
        if ran == 4:
            return


def verdict_of(wanted: list[Any], got: list[Any]) -> str:
    """`equal`, `close` or `differs`."""
    if [one.shape for one in got] != [one.shape for one in wanted]:
        return "differs"
    pairs = list(zip(wanted, got, strict=True))
    if all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs):
        return "equal"
    return "close" if all(np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) for a, b in pairs) else "differs"


def compare(original: Path, results: dict[str, Path], promised: dict[str, int]) -> dict[str, str]:
    """Tool → `equal`, `close`, `differs`, `fails` or `not run`, over all inputs on which the original runs.

    A tool that is in `promised` is compared at multiples of its number, any other at all sizes, 0 included.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = onnx.load(original, load_external_data=False)
    try:
        reference = ort.InferenceSession(str(original), options)
    except Exception as error:
        return dict.fromkeys(results, f"not run ({type(error).__name__})")
    verdicts = dict.fromkeys(results, "not run")
    sessions: dict[str, Any] = {}
    for tool, path in results.items():
        try:
            sessions[tool] = ort.InferenceSession(str(path), options)
        except Exception:
            verdicts[tool] = "fails"
    order = ["not run", "equal", "close", "differs", "fails"]
    for multiple, feeds, wanted in cases_of(model, original, reference, sorted(set(promised.values()) or {USUAL})):
        for tool, session in sessions.items():
            if tool in promised and multiple % promised[tool] != 0:
                continue
            try:
                verdict = verdict_of(wanted, session.run(None, feeds))
            except Exception:
                verdict = "fails"
            verdicts[tool] = max(verdicts[tool], verdict, key=order.index)
    return verdicts


def target_of(tool: str) -> str:
    """Name of the file that a tool writes."""
    return f"{tool.replace(' ', '_')}.onnx"


def rows_of(
    path: Path, commands: dict[str, list[str]], multiple_of: int, folder: Path, timeout: float, runs: bool
) -> list[Row]:
    """Run every tool on one model."""
    before = count(path)
    asked = asked_of(path) if "onnxlint (asked)" in commands else multiple_of
    promised = {"onnxlint": multiple_of, "onnxlint (asked)": asked, "onnxlint (simplify)": multiple_of}
    seconds = dict.fromkeys(("original", *commands), 0.0)
    results: dict[str, Path] = {}
    for tool, command in commands.items():
        target = folder / target_of(tool)
        seconds[tool], said = run_tool(command, path, target, asked, timeout)
        if said:
            print(f"{path}: {tool}: {said}", file=sys.stderr, flush=True)
        if target.exists():
            results[tool] = target
    verdicts = dict.fromkeys(commands, "no file") | dict.fromkeys(results, "")
    verdicts |= compare(path, results, {tool: n for tool, n in promised.items() if tool in results}) if runs else {}
    return [
        Row(path.stem, tool, count(results[tool]) if tool in results else before, spent, verdicts.get(tool, ""))
        for tool, spent in seconds.items()
    ]


def main() -> int:
    """Run every tool on every model and print the table, or write the page of earlier tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--multiple-of", type=int, default=USUAL)
    parser.add_argument("--tools", nargs="+", help="names of the tools to run, as in the table")
    parser.add_argument("--no-run", action="store_true", help="do not compare outputs")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one tool on one model")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no model after this time")
    parser.add_argument("--sum", nargs="+", type=Path, help="tables of earlier runs")
    parser.add_argument("--words", default="given models", help="what models these are, for the page")
    parser.add_argument("-o", "--output", type=Path, help="page to write with --sum")
    options = parser.parse_args()
    if options.sum:
        rows = in_all([row for path in options.sum for row in read_rows(path)])
        made = date.fromtimestamp(max(path.stat().st_mtime for path in options.sum))
        left = sum((read_left(path) for path in options.sum), Counter[tuple[str, str]]())
        text = page(rows, made, options.words, left)
        if options.output:
            options.output.write_text(text, encoding="utf-8")
        else:
            print(text)
        return 0
    given = options.models or [DATA]
    paths = [path for item in given for path in (sorted(item.glob("*.onnx")) if item.is_dir() else [item])]
    if not paths:
        print(f"no models in {', '.join(map(str, given))}", file=sys.stderr)
        return 2
    commands = tools(options.multiple_of)
    if options.tools:
        commands = {name: command for name, command in commands.items() if name in options.tools}
    print("| model | tool | nodes | chains | Reshape | Resize | CPU s | outputs |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    begun = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            if time.monotonic() - begun > options.minutes * 60:
                break
            made_rows = rows_of(path, commands, options.multiple_of, Path(folder), options.timeout, not options.no_run)
            print(*made_rows, sep="\n", flush=True)
            rows += made_rows
            if "onnxlint" in commands and (fixed := Path(folder) / target_of("onnxlint")).exists():
                for (op, why), number in sorted(left_in(fixed).items()):
                    print(LEFT, path.stem, op, why, number, sep=" | ", flush=True)
                fixed.unlink()
    print(f"\n{len(rows) // (1 + len(commands))} of {len(paths)} models\n")
    print(tables(rows))
    print(cost(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
