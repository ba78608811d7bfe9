"""The public functions, for Python programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.finding import CheckResult, Severity

if TYPE_CHECKING:
    import onnx

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
    from onnxlint.check import check_file, check_model
    from onnxlint.config import Configs, Settings, parse_severities
    from onnxlint.model import Model
    from onnxlint.run import Ledger, Plans

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


def _names(names: Iterable[str]) -> tuple[str, ...]:
    # A string is an iterable of letters: select="SHP001" must not ask for the rule "S".
    return (names,) if isinstance(names, str) else tuple(names)
