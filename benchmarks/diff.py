"""What `onnxlint diff` costs against checking both models: `python benchmarks/diff.py [--runs 3] [--only …]`.

Each pair is a model and the same with a change: a RetinaFace export and its fix, a chain of 20,000 nodes with one node more,
1.9 GB of weights of which one element differs. CPU seconds (user and system, medians of interleaved runs) of whole
processes, their ratio, and peak memory.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.check import build, measure

NAMES = ("retinaface", "chain-20k", "inline-1.9GB")
BAR = 2.0
"""Times the CPU of both checks."""


def changed(name: str, model: Path, folder: Path) -> Path:
    """A copy with a change."""
    path = folder / f"{name}-changed.onnx"
    if name == "retinaface":
        words = ["fix", str(model), "-o", str(path), "--multiple-of", "32", "--exit-zero", "--no-verify", "--isolated"]
        subprocess.run([sys.executable, "-m", "onnxlint", *words], check=True, capture_output=True)
    elif name == "chain-20k":
        proto = onnx.load(model)
        proto.graph.node.insert(10_000, helper.make_node("Abs", [proto.graph.node[9_999].output[0]], ["more"], "more"))
        proto.graph.node[10_001].input[0] = "more"
        onnx.save(proto, path)
    else:
        shutil.copyfile(model, path)
        with path.open("r+b") as file:
            file.seek(model.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
    return path


def main() -> int:
    """Measure and print the table; returns 1 where a pair takes more than `BAR` times its checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--timeout", type=float, default=600)
    options = parser.parse_args()
    missed = False
    print("| models | check of both, CPU s | diff, CPU s | ratio | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, old in build(folder, set(options.only.split(","))).items():
            new = changed(name, old, folder)
            checks, diffs, memory = [], [], 0.0
            for _ in range(options.runs):
                program = [sys.executable, "-m", "onnxlint"]
                costs = [measure([*program, "check", "--isolated", str(path)], options.timeout) for path in (old, new)]
                cost = measure([*program, "diff", "--isolated", str(old), str(new)], options.timeout)
                if cost is None or None in costs:
                    raise SystemExit(f"{name}: took more than {options.timeout:.0f} s")
                checks.append(sum(one[0] for one in costs if one is not None))
                diffs.append(cost[0])
                memory = max(memory, cost[1])
            ratio = statistics.median(diffs) / statistics.median(checks)
            missed |= ratio > BAR
            figures = f"{statistics.median(checks):.2f} | {statistics.median(diffs):.2f} | {ratio:.2f} | {memory:.0f}"
            print(f"| {name} | {figures} |", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
