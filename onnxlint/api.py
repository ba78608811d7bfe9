"""The public functions, for Python programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.lint.finding import CheckResult, Severity

if TYPE_CHECKING:
    import onnx

    from onnxlint.fixes.engine import FixReport

IN_MEMORY = "<model>"
"""What findings call a model that is not a file."""


def check(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    select: Iterable[str] | None = None,
    extend_select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    targets: Iterable[str] | None = None,
    min_opset: int | None = None,
    severity: Mapping[str, Severity | str] | None = None,
    weights: bool | None = None,
    baseline: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    isolated: bool = False,
) -> CheckResult:
    """Look for what will hurt a model in deployment, as `onnxlint check` does.

        result = onnxlint.check("model.onnx", targets=["ncnn"])
        assert not result.findings

    Args:
        model: A file, or a model that is loaded already. External data of a loaded model is looked for in the working
            directory.
        select: Rules to run, by code, prefix, name or `ALL`, in place of the default ones.
        extend_select: Rules to run beside the selected ones.
        ignore: Rules that do not run.
        targets: Backends that the model is meant for, such as `ncnn`.
        min_opset: Oldest operator set that is accepted.
        severity: Severities by rule, in place of the rules' own.
        weights: Whether rules may read weights.
        baseline: A baseline file; the findings in it are left out, and counted in `suppressed`.
        config: A configuration file, in place of the nearest one upwards from the model (for a loaded model: from the
            working directory).
        isolated: Leave configuration files unread.

    Returns:
        What the selected rules found; a result without findings means that all of them ran.

    Raises:
        OnnxlintError: The model cannot be opened, a rule failed on it, or an argument or a configuration is wrong.
    """
    from onnxlint.lint.configuration import Configs, Settings, parse_severities
    from onnxlint.lint.engine import check_file, check_model
    from onnxlint.lint.session import Ledger, Plans
    from onnxlint.model.skeleton import Model

    command = Settings(
        select=None if select is None else _names(select),
        extend_select=_names(extend_select),
        ignore=_names(ignore),
        targets=None if targets is None else _names(targets),
        min_opset=min_opset,
        severity=parse_severities(
            f"{rule}={getattr(level, 'value', level)}" for rule, level in (severity or {}).items()
        ),
        weights=weights,
        baseline=None if baseline is None else os.fspath(baseline),
    )
    configs = Configs(command, None if config is None else os.fspath(config), isolated)
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else IN_MEMORY
    plan = Plans(configs).of(name)
    ledger = Ledger(configs)
    ledger.open(name)
    if isinstance(model, str | os.PathLike):
        result = check_file(name, plan)
    else:
        result = check_model(Model(name, model, model.ByteSize()), plan)
    if result.error:
        raise OnnxlintError(result.error.message)
    return ledger.without_known(result)


def fix(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    select: Iterable[str] | None = None,
    extend_select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    assume: Iterable[str] = (),
    multiple_of: int | None = None,
    unsafe: bool = False,
    concat_heads: Iterable[str] | bool = False,
    concat_axis: int | None = None,
    concat_name: str = "output",
    drop_output_activations: bool = False,
    rename: Mapping[str, str] | None = None,
    dynamic: Iterable[str] = (),
    static: Iterable[str] = (),
    clamp_fp16: bool = False,
    opset: int | None = None,
    targets: Iterable[str] | None = None,
    verify: bool = True,
    inputs: str | os.PathLike[str] | None = None,
    external_data: str | None = None,
    inline: bool = False,
    config: str | os.PathLike[str] | None = None,
    isolated: bool = False,
) -> FixReport:
    """Fix what can be proved or measured, as `onnxlint fix` does.

        report = onnxlint.fix("model.onnx", "fixed.onnx", multiple_of=32)
        print([left.why for left in report.left])

    Args:
        model: A file; never touched unless it is `output` too.
        output: Where the fixed model goes, replaced atomically; None writes nothing.
        select, extend_select, ignore: Findings to fix, by rule code, prefix, name or `ALL`.
        assume: Conditions under which fixes may be exact: `H % 32 == 0`.
        multiple_of: The same for height and width of all images.
        unsafe: Allow fixes that change results or the interface.
        concat_heads: Outputs to join, in this order; True for all that are detection heads.
        concat_axis: Axis to join them along; None for the one in which they differ.
        concat_name: Name of the joined output.
        drop_output_activations: Drop a Softmax or Sigmoid at an output.
        rename: Old → new names of inputs and outputs.
        dynamic: Inputs whose sizes are set free: `image=N,3,H,W`.
        static: Inputs whose sizes are fixed: `image=1,3,640,640`.
        clamp_fp16: Bring weights and constants into the range of float16. Reads weights.
        opset: Operator set to raise the model to; None for 11 where it is below.
        targets: Backends that the model is meant for, such as `ncnn`.
        verify: Run both models and compare.
        inputs: An .npz file with inputs to compare on, too.
        external_data: Name of the file beside `output` that large weights are written to; None leaves them where they
            are.
        inline: Bring external data into the file.
        config, isolated: As for `check`.

    Returns:
        What was done, what is left and why, and how it was verified.

    Raises:
        OnnxlintError: The model cannot be read or written, or an argument is wrong; nothing was written.
    """
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.rule import Request

    settings = Settings(
        select=None if select is None else _names(select),
        extend_select=_names(extend_select),
        ignore=_names(ignore),
        targets=None if targets is None else _names(targets),
        weights=True if clamp_fp16 else None,
    )
    heads = concat_heads if isinstance(concat_heads, bool) else _names(concat_heads)
    request = Request(
        unsafe=unsafe,
        concat_heads=None if heads is False else () if heads is True else heads,
        concat_axis=concat_axis,
        concat_name=concat_name,
        drop_output_activations=drop_output_activations,
        clamp_fp16=clamp_fp16,
        rename=tuple((rename or {}).items()),
        dynamic=_names(dynamic),
        static=_names(static),
        opset=opset,
    )
    fixed = fix_path(
        os.fspath(model),
        Configs(settings, None if config is None else os.fspath(config), isolated),
        request,
        assumptions=_names(assume),
        multiple_of=multiple_of,
        verify=verify,
        inputs=None if inputs is None else os.fspath(inputs),
    )
    if output is not None:
        write(fixed, os.fspath(output), external_data, inline)
    return fixed.report


def _names(names: Iterable[str]) -> tuple[str, ...]:
    # A string is an iterable of letters: select="SHP001" must not ask for the rule "S".
    return (names,) if isinstance(names, str) else tuple(names)
