"""The process that runs the user's code: it builds the network, exports it, and runs both.

It is started for each export, with a task (a file of JSON) whose results it writes as lines of JSON on what was its standard
output; what the user's code and torch print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.checkpoint import Loaded, load_weights, sha256_of
from onnxlint.exporting.exporters import Refused, custom_symbolics, export, ignored_symbolics
from onnxlint.exporting.factory import build, unwrapped
from onnxlint.exporting.network import Network, prepared
from onnxlint.exporting.options import Exporter, ExportOptions, Wanted
from onnxlint.exporting.spec import Spec
from onnxlint.exporting.trials import Random, References, run_again, run_model
from onnxlint.verification.results import Tolerance, Trial

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Attempt:
    """What one exporter made of the network.

    Attributes:
        exporter: Which.
        path: The file; empty if it refused.
        opset: Of the file.
        refused: Why there is no file, in one line.
        frozen: Places where the tracer made a constant of a value.
        symbolics: Classes whose own `symbolic` made nodes.
        ignored: Why the graph is not what the author of a `symbolic` meant.
        trials: The network and the file on the same inputs.
    """

    exporter: Exporter
    path: str = ""
    opset: int = 0
    refused: str = ""
    frozen: tuple[str, ...] = ()
    symbolics: tuple[str, ...] = ()
    ignored: str = ""
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Made:
    """What came out of the process.

    Attributes:
        torch: Version.
        network: The class.
        weights: What was loaded; None without a file.
        source: SHA-256 of the file that held the network; empty if a factory made it.
        inputs, outputs: Names in the graph.
        tolerance: Of the comparison.
        attempts: One for each exporter.
        forward: File and first line of the network's `forward`; empty and 0 if it has none.
        against: The network and an earlier form of it on the same inputs.
    """

    torch: str
    network: str
    weights: Loaded | None
    source: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tolerance: Tolerance
    attempts: tuple[Attempt, ...]
    forward: tuple[str, int] = ("", 0)
    against: tuple[Trial, ...] = ()


def run(spec: Spec | None, module: Any, options: ExportOptions, folder: str, say: Say) -> Made:
    """Build, load, export and run.

    Args:
        spec: What to build; None for a module that is there.
        module: That module.
        options: How.
        folder: Where the files go.
        say: Called with what is being done.

    Raises:
        OnnxlintError: The network, its weights or its inputs are wrong.
    """
    say({"doing": "importing torch"})
    import torch

    source = ""
    if spec is not None:
        say({"doing": f"building {spec.text}"})
        module = build(spec, options.arguments, options.trust)
        source = sha256_of(spec.place) if spec.kind == "saved" else ""
    module = unwrapped(module)
    loaded = None
    if options.weights is not None:
        say({"doing": f"loading {options.weights}"})
        loaded = _load(module, options)
    with prepared(module, options) as network:
        references = None
        if options.verify:
            say({"doing": "running the network"})
            references = _references(network)
            if options.references:
                references.save(options.references)
        against: tuple[Trial, ...] = ()
        if options.against:
            say({"doing": "comparing the network with what it was"})
            against = tuple(run_again(network, options.against, options.multiples, options.joined))
        symbolics = custom_symbolics(network)
        attempts = tuple(
            _attempt(network, one, options, folder, references, symbolics, say) for one in options.exporters
        )
        tolerance = references.tolerance if references is not None else Tolerance(0.0, 0.0)
        names = tuple(one.name for one in network.inputs)
        name = str(getattr(module, "original_name", type(module).__name__))  # of a TorchScript program, its class
        outputs = network.outputs
    return Made(torch.__version__, name, loaded, source, names, outputs, tolerance, attempts, _forward(module), against)


def _forward(module: Any) -> tuple[str, int]:
    """Where `forward` of a network is defined."""
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    return ("", 0) if code is None else (code.co_filename, code.co_firstlineno)


def _load(module: Any, options: ExportOptions) -> Loaded:
    import torch

    assert options.weights is not None
    if isinstance(module, torch.export.ExportedProgram):
        raise OnnxlintError("--weights: an exported program (.pt2) has its own weights; leave it out")
    return load_weights(
        module,
        options.weights,
        key=options.weights_key,
        trust=options.trust,
        allow_missing=options.allow_missing,
        allow_unexpected=options.allow_unexpected,
    )


def _references(network: Network) -> References:
    try:
        return References(network)
    except Random:
        raise OnnxlintError(
            "the network's outputs are random: two runs in evaluation mode differ (dropout that does not look at "
            "'self.training'?), so that the export cannot be compared; make it deterministic, or give --no-verify"
        ) from None


def _attempt(
    network: Network,
    exporter: Exporter,
    options: ExportOptions,
    folder: str,
    references: References | None,
    symbolics: list[str],
    say: Say,
) -> Attempt:
    path = os.path.join(folder, exporter, "model.onnx")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    say({"doing": f"exporting with {exporter}", "exporter": exporter})
    try:
        written = export(network, exporter, options.opset, path)
    except Refused as why:
        reason = f"{ignored_symbolics(symbolics)} ({why})" if symbolics and exporter == "dynamo" else str(why)
        return Attempt(exporter, refused=reason)
    ignored = ignored_symbolics(symbolics) if exporter == "dynamo" and symbolics else ""
    trials: tuple[Trial, ...] = ()
    if references is not None:
        say({"doing": f"running what {exporter} made", "exporter": exporter})
        trials = tuple(run_model(path, network.outputs, references))
    return Attempt(exporter, path, written.opset, "", written.frozen, written.symbolics, ignored, trials)


# The process


def write_task(path: str, spec: Spec, options: ExportOptions, folder: str) -> None:
    """Write what a process is to do."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"spec": asdict(spec), "options": asdict(options), "folder": folder}, file)


def _read_task(path: str) -> tuple[Spec, ExportOptions, str]:
    with open(path, encoding="utf-8") as file:
        raw = json.load(file)
    plain = raw["options"]
    for key, value in plain.items():
        if isinstance(value, list):
            plain[key] = tuple(value)
    inputs = tuple(
        Wanted(
            one["name"],
            tuple(one["sizes"]),
            one["dtype"],
            {int(axis): symbol for axis, symbol in one["free"].items()},
            tuple(one["raised"]),
        )
        for one in plain["inputs"]
    )
    options = replace(ExportOptions(**{**plain, "recipe": None}), inputs=inputs)
    return Spec(**raw["spec"]), options, raw["folder"]


def made_from(raw: dict[str, Any]) -> Made:
    """The result, out of the JSON that `main` wrote."""

    def loaded(entry: dict[str, Any] | None) -> Loaded | None:
        return None if entry is None else Loaded(**_tuples(entry))

    attempts = tuple(Attempt(**{**_tuples(one), "trials": _trials(one["trials"])}) for one in raw["attempts"])
    return Made(
        **{
            **_tuples(raw),
            "weights": loaded(raw["weights"]),
            "tolerance": Tolerance(**raw["tolerance"]),
            "attempts": attempts,
            "against": _trials(raw["against"]),
        }
    )


def _trials(entries: list[dict[str, Any]]) -> tuple[Trial, ...]:
    return tuple(Trial(**{**one, "worst": float(one["worst"])}) for one in entries)


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def main(task: str, parent: str) -> None:
    """Do the task of a file."""
    from onnxlint.model.limits import die_with_parent

    die_with_parent(int(parent))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the user's code prints must not come between the messages

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    spec, options, folder = _read_task(task)
    try:
        say({"made": asdict(run(spec, None, options, folder, say))})
    except OnnxlintError as error:
        say({"error": str(error)})
    except MemoryError:
        say({"error": f"{spec.text}: exporting it needs more memory than there is"})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the user's code started are not waited for
