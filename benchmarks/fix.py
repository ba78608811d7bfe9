"""What fixes achieve, and at what cost, against onnxslim and onnxsim on the same models in one run.

    python benchmarks/fix.py MODEL_OR_FOLDER… [--multiple-of 32] [--no-run] [--timeout 300] [--minutes 60]

For each model: nodes (Constants aside), shape chains and sizes-driven Resizes before and after, wall time of each tool as a
whole process, and whether every output is as it was, at four shapes where sizes are free. Without arguments it takes the
RetinaFace exports of ../shared/data; `python -m fixtures.transformers_exports` makes a wider set. Tools that are not
installed are left out. What a tool says when it ends with an error is on stderr. The last tables are sums: over all models,
and by group, which is exporter and shapes of a name such as bert__sdpa__dynamo__dyn.onnx.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "retinaface"
CHAINS = ("SHP001", "SHP002", "SHP005", "SHP006")


@dataclass(frozen=True)
class Counts:
    """What is in a model: nodes, consumers of shape chains, Reshapes among them, sizes-driven Resizes."""

    nodes: int
    chains: int
    reshapes: int
    resizes: int


def count(path: Path) -> Counts:
    """Chains and nodes of a model, as our own rules count them."""
    registry = load_registry()
    plan = Plan(tuple(registry.find(code) for code in CHAINS))
    view = make_view(open_model(path))
    findings, _, _ = check_view(view, plan)
    nodes = sum(node.op not in ("Constant",) for graph in view.graphs for node in graph.nodes)
    chains = [f for f in findings if "computed" in f.message or f.code in ("SHP005", "SHP006")]
    reshapes = sum(f.location.op_type == "Reshape" for f in chains)
    resizes = sum(f.location.op_type in ("Resize", "Upsample") for f in chains)
    return Counts(nodes, len(chains), reshapes, resizes)


def group_of(path: Path) -> str:
    """Exporter and shapes out of a name that transformers_exports gave, `other` for any other."""
    parts = path.stem.split("__")
    return " ".join(parts[2:]) if len(parts) == 4 else "other"


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool that failed said last; a traceback counts as failure."""
    text = done.stderr + done.stdout
    if done.returncode == 0 and "Traceback" not in text and "please report" not in text:
        return ""
    lines = [line for line in text.splitlines() if line.strip()] or ["no word"]
    return f"exit code {done.returncode}: {lines[-1][:300]}"


def run_tool(command: list[str], path: Path, target: Path, timeout: float) -> tuple[float, str]:
    """Seconds that a tool took for a model, and what it said where it failed."""
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [part.format(path, target) for part in command],
            capture_output=True,
            check=False,
            timeout=timeout,
            text=True,
            errors="replace",
        )
        said = complaint(done)
    except subprocess.TimeoutExpired:
        said = f"more than {timeout:g} s"
    return time.perf_counter() - started, said


def print_sums(totals: dict[str, Counter[str]]) -> None:
    """One row of sums for each tool."""
    print("| tool | nodes | chains | Reshape | Resize | seconds | equal | close | differs | fails | no file |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for tool, total in totals.items():
        verdict_counts = " | ".join(str(total[v]) for v in ("equal", "close", "differs", "fails", "no file"))
        print(
            f"| {tool} | {total['nodes']} | {total['chains']} | {total['reshapes']} | {total['resizes']} "
            f"| {total['milliseconds'] / 1000:.1f} | {verdict_counts} |"
        )


def tools(multiple_of: int) -> dict[str, list[str]]:
    """Name → command line; {0} is the model, {1} the result."""
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
    found = {"onnxlint": [*here, "--multiple-of", str(multiple_of)], "onnxlint (safe)": here}
    if find_spec("onnxsim") is not None:
        # Verified, because what onnxsim breaks has to be taken back.
        found["onnxlint (simplify)"] = [part for part in found["onnxlint"] if part != "--no-verify"] + ["--simplify"]
    for name in ("onnxslim", "onnxsim"):
        beside = Path(sys.executable).with_name(name)
        program = str(beside) if beside.exists() else shutil.which(name)
        if program:
            found[name] = [program, "{0}", "{1}"]
    return found


def shapes_of(model: onnx.ModelProto) -> list[dict[str, int]]:
    """Sizes for the symbols of a model's inputs: four sets where there are any."""
    free: dict[str, str] = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if not dim.HasField("dim_value"):
                kind = "batch" if axis == 0 else "space" if len(dims) >= 4 else "length"
                free.setdefault(dim.dim_param or f"{value.name}[{axis}]", kind)
    if not free:
        return [{}]
    sets = ((2, (64, 96), 12), (3, (128, 64), 16), (1, (96, 160), 24), (2, (192, 128), 7))
    out = []
    for batch, space, length in sets:
        spaces = iter(space * len(free))
        out.append(
            {
                name: batch if kind == "batch" else next(spaces) if kind == "space" else length
                for name, kind in free.items()
            }
        )
    return out


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


def compare(original: Path, results: dict[str, Path]) -> dict[str, str]:
    """Tool → `equal`, `close`, `differs`, `fails` or `not run`, over all shapes at which the original runs."""
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
    for sizes in shapes_of(model):
        try:
            feeds = feeds_of(model, sizes, original)
            wanted = reference.run(None, feeds)
        except Exception:
            continue  # a size that the original does not accept
        for tool, session in sessions.items():
            try:
                got = session.run(None, feeds)
            except Exception:
                verdict = "fails"
            else:
                same = len(got) == len(wanted) and all(a.shape == b.shape for a, b in zip(wanted, got, strict=True))
                if same and all(
                    np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(wanted, got, strict=True)
                ):
                    verdict = "equal"
                else:
                    near = same and all(
                        np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
                        for a, b in zip(wanted, got, strict=True)
                    )
                    verdict = "close" if near else "differs"
            verdicts[tool] = max(verdicts[tool], verdict, key=order.index)
    return verdicts


def main() -> int:
    """Run every tool on every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--multiple-of", type=int, default=32)
    parser.add_argument("--no-run", action="store_true", help="do not compare outputs")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one tool on one model")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no model after this time")
    options = parser.parse_args()
    given = options.models or [DATA]
    paths = [path for item in given for path in (sorted(item.glob("*.onnx")) if item.is_dir() else [item])]
    if not paths:
        print(f"no models in {', '.join(map(str, given))}", file=sys.stderr)
        return 2
    commands = tools(options.multiple_of)
    totals: dict[str, Counter[str]] = {tool: Counter() for tool in ("original", *commands)}
    groups: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: {tool: Counter() for tool in totals})
    print("| model | tool | nodes | chains | Reshape | Resize | seconds | outputs |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    begun = time.monotonic()
    measured = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            if time.monotonic() - begun > options.minutes * 60:
                break
            measured += 1
            before = count(path)
            rows = [("original", before, 0.0)]
            results: dict[str, Path] = {}
            for tool, command in commands.items():
                target = Path(folder) / f"{tool.split()[0]}{len(tool)}.onnx"
                seconds, said = run_tool(command, path, target, options.timeout)
                if said:
                    print(f"{path}: {tool}: {said}", file=sys.stderr, flush=True)
                if target.exists():
                    results[tool] = target
                    rows.append((tool, count(target), seconds))
                else:
                    rows.append((tool, before, seconds))
            verdicts = {} if options.no_run else compare(path, results)
            for tool, counts, seconds in rows:
                verdict = verdicts.get(tool, "" if tool == "original" else "no file" if tool not in results else "")
                for sums in (totals, groups[group_of(path)]):
                    sums[tool].update(
                        nodes=counts.nodes, chains=counts.chains, reshapes=counts.reshapes, resizes=counts.resizes
                    )
                    sums[tool]["milliseconds"] += round(seconds * 1000)
                    sums[tool][verdict] += 1
                print(
                    f"| {path.stem} | {tool} | {counts.nodes} | {counts.chains} | {counts.reshapes} | {counts.resizes} "
                    f"| {seconds:.2f} | {verdict} |",
                    flush=True,
                )
    print(f"\n{measured} of {len(paths)} models\n")
    print_sums(totals)
    for name, sums in sorted(groups.items()):
        print(f"\n{name}\n")
        print_sums(sums)
    return 0


if __name__ == "__main__":
    sys.exit(main())
