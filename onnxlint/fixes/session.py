"""A whole fix: model, request, patches, verification, file; shared by `onnxlint fix` and `onnxlint.fix`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.conditions import multiples_in
from onnxlint.fixes.conditions import noted_multiples as noted_multiples
from onnxlint.fixes.edits import apply_edits, edits_of
from onnxlint.fixes.engine import Compare, fix_model
from onnxlint.fixes.options import FixOptions
from onnxlint.fixes.results import FixReport
from onnxlint.fixes.simplify import require_onnxsim
from onnxlint.lint.session import Plans, fail_level
from onnxlint.model.reading import no_such_file
from onnxlint.model.skeleton import Model, open_model
from onnxlint.text import printable
from onnxlint.verification.interface import UNCHANGED, Interface
from onnxlint.verification.process import worker_ahead

if TYPE_CHECKING:
    import onnx

    from onnxlint.lint.configuration import Configs
    from onnxlint.verification.compare import Verification


@dataclass(frozen=True)
class Fixed:
    """What came out of a fix.

    Attributes:
        model: The original, opened.
        proto: The fixed skeleton; the original's where nothing changed.
        report: The report of the fix.
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
        options: Changes to make, assumptions, and how to verify.
        progress: Called with the current action.

    Raises:
        OnnxlintError: The model, the configuration or an assumption is wrong.
    """
    _require_usable(options)
    model = open_model(path)
    request = options.request
    edited = apply_edits(model, edits_of(request)).proto
    multiples = noted_multiples(replace(model, proto=edited), options.assumptions, options.multiple_of)
    if request.simplify:
        require_onnxsim()
        if not options.verify:
            raise OnnxlintError("--simplify needs verification by running both models; leave out --no-verify")
    request = replace(request, multiples=tuple(multiples.items()))
    plan = Plans(configs).of(path)
    if request.opset is not None:
        plan = replace(plan, options=replace(plan.options, min_opset=request.opset))
    compare = comparer(model, options.inputs, request.allow_empty) if options.verify else None
    with worker_ahead() as start:
        proto, report = fix_model(model, plan, request, compare, progress, start if options.verify else lambda: None)
    if options.verify and report.changed and not (report.verification and report.verification.verified):
        progress("loading")
        _require_loadable(model, proto, bool(request.dynamic or request.static))
    level = fail_level(configs.of(path))
    failing = level is not None and any(left.finding.severity.rank >= level.rank for left in report.left)
    return Fixed(model, proto, report, failing)


def _require_usable(options: FixOptions) -> None:
    """Raise for options that are wrong for every model.

    Raises:
        OnnxlintError: The operator set is one that onnxlint does not write, or the file of inputs does not exist.
    """
    from onnxlint.fixes.opset import NEWEST

    opset, inputs = options.request.opset, options.inputs
    if opset is not None and opset > NEWEST:
        raise OnnxlintError(f"--opset {opset}: operator sets up to {NEWEST} can be written; give a lower one")
    if inputs is not None and not os.path.isfile(inputs):
        raise OnnxlintError(f"--inputs {printable(inputs)}: {no_such_file(inputs)}")


def _require_loadable(model: Model, proto: onnx.ModelProto, has_sizes: bool) -> None:
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
    outputs = {value.name for value in model.proto.graph.output}
    try:
        joined = [one for one in read_heads(model.proto) if one.output in outputs]
    except OnnxlintError as error:
        raise OnnxlintError(f"{printable(path)}: {error}") from None
    if not joined:
        raise OnnxlintError(f"{printable(path)}: it has no joined output; 'onnxlint fix --concat-heads' makes one")
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.proto.graph.output}
    return "\n".join(describe_heads(one, ranks.get(one.output, one.axis + 1)) for one in joined)


def _has_external(proto: onnx.ModelProto) -> bool:
    from onnxlint.model.skeleton import is_external, walk_tensors

    return any(is_external(tensor) for tensor in walk_tensors(proto))


def comparer(model: Model, inputs: str | None = None, allow_empty: bool = False) -> Compare:
    """What runs a reference and a result on the same inputs, in a child process.

    Args:
        model: The original, whose file the weights are read from.
        inputs: An .npz of inputs to compare on, too.
        allow_empty: Whether the result has to accept empty inputs.
    """

    def compare(
        reference: onnx.ModelProto,
        result: onnx.ModelProto,
        exact: bool,
        conditions: Sequence[str],
        interface: Interface = UNCHANGED,
    ) -> Verification:
        from onnxlint.verification.compare import verify_models

        multiples = multiples_in(conditions)
        return verify_models(
            model,
            reference,
            result,
            exact=exact,
            multiples=multiples,
            inputs=inputs,
            interface=interface,
            allow_empty=allow_empty,
        )

    return compare
