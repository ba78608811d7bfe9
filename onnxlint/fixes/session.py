"""A whole fix: the model, what is wanted, the patches, the proof, the file; what `onnxlint fix` and `onnxlint.fix` share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.edits import apply_edits, edits_of
from onnxlint.fixes.engine import FixReport, fix_model
from onnxlint.fixes.options import FixOptions
from onnxlint.lint.session import Plans, fail_level
from onnxlint.model.metadata import ASSUMES_KEY
from onnxlint.model.skeleton import Model, open_model
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.lint.configuration import Configs
    from onnxlint.verification.compare import Verification

_ASSUMPTION = re.compile(r"\s*([^\s%]+)\s*%\s*(\d+)\s*==\s*0\s*")


@dataclass(frozen=True)
class Fixed:
    """What came out of a fix.

    Attributes:
        model: The original, opened.
        proto: The fixed skeleton; the original's where nothing changed.
        report: What was done.
        failing: Whether a finding at or above `fail-on` is left.
    """

    model: Model
    proto: onnx.ModelProto
    report: FixReport
    failing: bool


def fix_path(
    path: str,
    configs: Configs,
    options: FixOptions,
    progress: Callable[[str], None] = lambda text: None,
) -> Fixed:
    """Fix one model, without writing anything.

    Args:
        path: The model.
        configs: Where its configuration comes from.
        options: What to change, what to assume, and how to verify it.
        progress: Called with what is being done.

    Raises:
        OnnxlintError: The model, the configuration or an assumption is wrong.
    """
    model = open_model(path)
    request = options.request
    edited = apply_edits(model, edits_of(request)).proto
    multiples = noted_multiples(edited, options.assumptions, options.multiple_of)
    request = replace(request, multiples=tuple(multiples.items()))
    plan = Plans(configs).of(path)
    if request.opset is not None:
        plan = replace(plan, options=replace(plan.options, min_opset=request.opset))
    comparer = _comparer(model, multiples, options.inputs) if options.verify else None
    proto, report = fix_model(model, plan, request, comparer, progress)
    if options.verify and report.changed and not (report.verification and report.verification.verified):
        progress("loading")
        _demand_loadable(model, proto, bool(request.dynamic or request.static))
    level = fail_level(configs.of(path))
    failing = level is not None and any(left.finding.severity.rank >= level.rank for left in report.left)
    return Fixed(model, proto, report, failing)


def _demand_loadable(model: Model, proto: onnx.ModelProto, has_sizes: bool) -> None:
    """A model that cannot be run on inputs of ours can still be loaded.

    Raises:
        OnnxlintError: onnxruntime loads the original, and not the result.
    """
    from onnxlint.verification.compare import load_problem

    problem = load_problem(model, proto)
    if problem and not load_problem(model, model.proto):
        why = "with the sizes asked for" if has_sizes else "after the fix"
        raise OnnxlintError(
            f"{printable(model.path)}: {why} onnxruntime would not load the model ({problem}): nothing was written"
        )


def write(fixed: Fixed, path: str, external_data: str | None = None, inline: bool = False) -> None:
    """Write the result, atomically; a copy of the original's bytes where nothing changed.

    Raises:
        OnnxlintError: It cannot be written.
    """
    from onnxlint.model.save import copy, save

    same = os.path.realpath(path) == os.path.realpath(fixed.model.path)
    if not fixed.report.changed and external_data is None and not inline:
        if same or fixed.model.path == "-":
            if fixed.model.path != "-":
                return
        elif not _has_external(fixed.proto):
            copy(fixed.model.path, path)
            return
    save(fixed.model, fixed.proto, path, external_data=external_data, inline=inline)


def joined_heads(path: str) -> str:
    """What is where in the joined outputs of a model, for people.

    Raises:
        OnnxlintError: The model cannot be read, or its heads were not joined.
    """
    from onnxlint.fixes.heads import describe_heads, read_heads

    model = open_model(path)
    joined = read_heads(model.proto)
    if not joined:
        raise OnnxlintError(
            f"{printable(path)}: no output of it was joined; 'onnxlint fix --concat-heads' does that and takes note"
        )
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.proto.graph.output}
    return "\n".join(describe_heads(one, ranks.get(one.output, one.axis + 1)) for one in joined)


def _has_external(proto: onnx.ModelProto) -> bool:
    from onnxlint.model.skeleton import is_external, walk_tensors

    return any(is_external(tensor) for tensor in walk_tensors(proto))


def noted_multiples(
    proto: onnx.ModelProto, assumptions: Sequence[str] = (), multiple_of: int | None = None
) -> dict[str, int]:
    """Symbol → number that it is a multiple of, from the command line and from the model's own metadata."""
    known = {entry.key: entry.value for entry in proto.metadata_props}.get(ASSUMES_KEY, "")
    if not assumptions and multiple_of is None and not known:
        return {}
    view = make_view(Model("", proto, 0))
    symbols: dict[str, None] = {}
    spatial: dict[str, None] = {}
    letters: dict[str, dict[str, None]] = {"N": {}, "H": {}, "W": {}}
    for name in view.main.data_inputs:
        shape = view.main.shape(name) or ()
        for axis, dim in enumerate(shape):
            if isinstance(dim, int):
                continue
            symbol = dim or f"{name}[{axis}]"
            symbols[symbol] = None
            if len(shape) >= 4 and axis >= len(shape) - 2:
                spatial[symbol] = None
                letters["H" if axis == len(shape) - 2 else "W"][symbol] = None
            elif len(shape) >= 4 and axis == 0:
                letters["N"][symbol] = None
    multiples: dict[str, int] = {}
    if multiple_of is not None:
        multiples = dict.fromkeys(spatial, multiple_of)
    for text in (*assumptions, *(clause for clause in known.split(" and ") if clause)):
        match = _ASSUMPTION.fullmatch(text)
        if match is None:
            raise OnnxlintError(f"--assume {text!r}: write it as 'H % 32 == 0'")
        name, number = match[1], int(match[2])
        found = [symbol for symbol in symbols if symbol == name] or [s for s in symbols if s.lower() == name.lower()]
        found = found or list(letters.get(name.upper(), ()))
        if not found and text in assumptions:
            sizes = ", ".join(map(printable, symbols)) or "none"
            raise OnnxlintError(f"--assume {text!r}: no input has a free size {name!r} (there are: {sizes})")
        if number < 1:
            raise OnnxlintError(f"--assume {text!r}: the number has to be positive")
        for symbol in found:
            multiples[symbol] = max(number, multiples.get(symbol, 1))
    return multiples


def _comparer(
    model: Model, multiples: dict[str, int], inputs: str | None
) -> Callable[[onnx.ModelProto, onnx.ModelProto, bool, Sequence[str]], Verification]:
    """Runs a reference and a result on the same inputs."""

    def compare(
        reference: onnx.ModelProto, result: onnx.ModelProto, exact: bool, conditions: Sequence[str]
    ) -> Verification:
        from onnxlint.verification.compare import verify_models

        return verify_models(
            model, reference, result, exact=exact, multiples=multiples if conditions else {}, inputs=inputs
        )

    return compare
