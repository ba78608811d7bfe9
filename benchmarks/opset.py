"""`fix --opset` against onnx.version_converter, on models of one operator each.

    python benchmarks/opset.py [--versions 11,13,17,21]

Every model of `fixtures.old_operators` is raised to each version by both. Counted: results that have the same bits as the
original's in onnxruntime, results within 1e-6, wrong numbers, models that do not run, and refusals (an error in place of a
model). version_converter runs in a process of its own for each model, which it may end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from fixtures.old_operators import MODELS
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.opset import convert
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

_CODE = """
import sys, onnx
from onnx import version_converter
model = onnx.load_from_string(sys.stdin.buffer.read())
sys.stdout.buffer.write(version_converter.convert_version(model, int(sys.argv[1])).SerializeToString())
"""


def ours(proto: onnx.ModelProto, version: int) -> onnx.ModelProto | None:
    """The model at another operator set by onnxlint; None where it refuses."""
    try:
        return convert(make_view(Model("m.onnx", proto, 0)), version)
    except OnnxlintError:
        return None


def theirs(proto: onnx.ModelProto, version: int) -> onnx.ModelProto | None:
    """The model at another operator set by onnx.version_converter, in a process of its own; None where it fails."""
    command = [sys.executable, "-c", _CODE, str(version)]
    done = subprocess.run(command, input=proto.SerializeToString(), capture_output=True, check=False)
    return onnx.load_from_string(done.stdout) if done.returncode == 0 and done.stdout else None


def run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """Outputs of a model in onnxruntime, without optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return list(ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds))


def judge(wanted: list[Any], proto: onnx.ModelProto | None, feeds: dict[str, Any]) -> str:
    """`equal`, `close`, `wrong`, `refused` or `does not run`."""
    if proto is None:
        return "refused"
    try:
        got = run(proto, feeds)
    except Exception:
        return "does not run"
    if any(a.shape != b.shape for a, b in zip(wanted, got, strict=True)):
        return "wrong"
    if all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(wanted, got, strict=True)):
        return "same bits"
    close = all(np.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True) for a, b in zip(wanted, got, strict=True))
    return "within 1e-6" if close else "wrong"


def main() -> int:
    """Raise every model and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", default="11,13,17,21")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each wrong result")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {"onnxlint": Counter(), "version_converter": Counter()}
    for model in MODELS:
        proto, feeds = model.proto(), model.feeds()
        wanted = run(proto, feeds)
        for version in map(int, options.versions.split(",")):
            if version <= model.opset:
                continue
            for tool, convert_model in (("onnxlint", ours), ("version_converter", theirs)):
                verdict = judge(wanted, convert_model(proto, version), feeds)
                counts[tool][verdict] += 1
                if options.verbose and verdict in ("wrong", "does not run"):
                    print(f"{tool} → {version}: {verdict}: {model.name}")
    columns = ["same bits", "within 1e-6", "wrong", "does not run", "refused"]
    print(f"onnx {onnx.__version__}, onnxruntime {ort.__version__}, {len(MODELS)} models\n")
    print(f"| tool | {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}")
    for tool, found in counts.items():
        print(f"| {tool} | {' | '.join(str(found[column]) for column in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
