"""`onnxlint.export`, for Python programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError, names_arguments

if TYPE_CHECKING:
    import torch

    from onnxlint.exporting.results import ExportReport
    from onnxlint.images.recipe import Recipe

_Path = str | os.PathLike[str]


@names_arguments
def export(
    network: torch.nn.Module | _Path,
    output: _Path | None = None,
    *,
    shape: str | Iterable[str] | Iterable[int] = (),
    dynamic: str | Iterable[str] = (),
    inputs: _Path | None = None,
    weights: _Path | None = None,
    weights_key: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    allow_missing: str | Iterable[str] = (),
    allow_unexpected: str | Iterable[str] = (),
    trust: bool = False,
    input_names: str | Iterable[str] = (),
    output_names: str | Iterable[str] = (),
    opset: int | None = None,
    exporter: str = "auto",
    verify: bool = True,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    targets: Iterable[str] | None = None,
    config: _Path | None = None,
    isolated: bool = False,
) -> ExportReport:
    """Export a PyTorch network, compare both on the same inputs, and check the model, as `onnxlint export` does.

        report = onnxlint.export(net, "model.onnx", shape=(1, 3, 640, 640), dynamic="image=N,3,H,W")
        print(report.exporter, report.verification.worst, [finding.code for finding in report])

    Args:
        network: A module, which is exported in this process and is as it was afterwards (but for `weights`); or
            `package.module:factory`, `file.py:factory`, or a file with a whole network, in a process of its own.
        output: The ONNX file, replaced atomically; None writes nothing.
        shape: Sizes of an example input: `(1, 3, 640, 640)`, `"image=1,3,640,640"`, `["ids=1,128:int64", …]`.
        dynamic: Sizes that stay free: `"image=N,3,H,W"`.
        inputs: An .npz file with example inputs by name, in place of random ones.
        weights: A checkpoint (.pth, .safetensors) to load; every key has to match.
        weights_key: Entry of the checkpoint that holds them; None looks for it.
        arguments: Of the factory.
        allow_missing, allow_unexpected: Patterns of keys that need not match: `fc.*`.
        trust: Whether files that can run code (pickled modules, .pt2) are loaded.
        input_names, output_names: Names in the graph, in place of those that `forward` gives.
        opset: Operator set; None for the exporter's own.
        exporter: `auto` (the better of both), `dynamo` or `torchscript`.
        verify: Run both and compare; a model that differs is not written.
        recipe: How images become the input, to be kept in the file; as for `convert`.
        select, ignore, targets, config, isolated: Of the check, as for `check`.

    Returns:
        Exporter, names, weights, verification and findings.

    Raises:
        OnnxlintError: The network cannot be built, loaded or exported, or the model computes something else; nothing was
            written.
    """
    from onnxlint.exporting.options import ExportOptions
    from onnxlint.exporting.parsing import is_plain, parse_inputs
    from onnxlint.exporting.session import export_network
    from onnxlint.images.options import as_recipe
    from onnxlint.lint.configuration import Configs, Settings

    is_named = isinstance(network, str | os.PathLike)
    given = dict(arguments or {})
    if given and not is_named:
        raise OnnxlintError("--arg: the network is a module already; arguments are those of a factory")
    odd = next((name for name, value in given.items() if not is_plain(value)), None)
    if odd is not None:
        raise OnnxlintError(f"--arg {odd}: only plain data reaches the other process; give the module itself")
    values = None if inputs is None else os.fspath(inputs)
    options = ExportOptions(
        inputs=parse_inputs(_shapes(shape), _names(dynamic), values),
        values=values,
        weights=None if weights is None else os.fspath(weights),
        weights_key=weights_key,
        arguments=given,
        allow_missing=_names(allow_missing),
        allow_unexpected=_names(allow_unexpected),
        input_names=_names(input_names),
        output_names=_names(output_names),
        opset=opset,
        exporter=exporter,
        trust=trust,
        verify=verify,
        recipe=as_recipe(recipe),
    )
    settings = Settings(
        select=None if select is None else _names(select),
        ignore=_names(ignore),
        targets=None if targets is None else _names(targets),
    )
    configs = Configs(settings, None if config is None else os.fspath(config), isolated)
    where = None if output is None else os.fspath(output)
    where_from = os.fspath(network) if isinstance(network, str | os.PathLike) else network
    return export_network(where_from, where, options, configs)


def _shapes(shape: str | Iterable[Any]) -> tuple[str, ...]:
    """Shapes as the command line writes them; numbers are the sizes of one input."""
    if isinstance(shape, str):
        return (shape,)
    parts = tuple(shape)
    if parts and all(isinstance(part, int) for part in parts):
        return (",".join(map(str, parts)),)
    return tuple(part if isinstance(part, str) else ",".join(map(str, part)) for part in parts)


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
