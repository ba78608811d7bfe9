"""A whole export: preflight, exporters, choice, check, file; shared by `onnxlint export` and `onnxlint.export`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import AUTO, EXPORTERS, NEWEST_OPSET, OLDEST_OPSET, ExportOptions
from onnxlint.exporting.results import Exported, ExportReport, Weights
from onnxlint.exporting.spec import Spec, parse_spec
from onnxlint.lint.engine import check_model
from onnxlint.lint.finding import CheckResult, Severity
from onnxlint.lint.session import Ledger, Plans
from onnxlint.model.output import check_writable
from onnxlint.model.protect import refuse_inputs
from onnxlint.model.scratch import work_folder
from onnxlint.model.skeleton import Model, open_model
from onnxlint.model.wire import FILE_LIMIT
from onnxlint.text import choices, counted, did_you_mean, listed, printable
from onnxlint.verification.results import Verification

if TYPE_CHECKING:
    from onnxlint.exporting.checkpoint import Loaded
    from onnxlint.exporting.worker import Attempt, Made
    from onnxlint.lint.configuration import Configs

EXTRA = "install it with \"pip install 'onnxlint[torch]'\""

MOST_PLACES = 4


@dataclass(frozen=True)
class _Candidate:
    """An exporter's file that could be taken."""

    attempt: Attempt
    model: Model
    check: CheckResult


def export_network(
    network: Any,
    output: str | None,
    options: ExportOptions,
    configs: Configs,
    *,
    progress: Callable[[str], None] = lambda text: None,
    verbose: bool = False,
) -> ExportReport:
    """Export a network, compare both on the same inputs, check the model, and write it.

    Args:
        network: A spec (`package.module:factory`, a file), built in a process of its own; or a module, exported here.
        output: The file; None writes nothing.
        options: How.
        configs: Where the configuration of the check comes from.
        progress: Called with what is being done.
        verbose: Whether what the user's code and torch print is shown.

    Raises:
        OnnxlintError: Something cannot be done; nothing was written.
    """
    started = time.perf_counter()
    spec = parse_spec(network) if isinstance(network, str) else None
    require_usable(options, spec, output)
    shown = output if output is not None else "model.onnx"
    plans, ledger = Plans(configs), Ledger(configs)
    plans.of(shown)  # a wrong --select is an error before anything runs
    ledger.open(shown)
    with _folder(output) as folder:
        if spec is not None:
            from onnxlint.exporting.process import export_in_process

            made = export_in_process(spec, options, folder, progress, verbose)
        else:
            from onnxlint.exporting.worker import run

            made = run(None, network, options, folder, lambda message: progress(message.get("doing", "")))
        progress("checking")
        candidates = [
            _Candidate(one, model, ledger.without_known(check_model(replace(model, path=shown), plans.of(shown))))
            for one in made.attempts
            if one.path
            for model in [open_model(one.path)]
        ]
        chosen, why, attempts = _choose(made, candidates, options)
        size = _write(chosen, spec, options, made, output, progress)
        from onnxlint.exporting.provenance import origin

        report = ExportReport(
            output=output,
            size=size,
            network=made.network,
            exporter=chosen.attempt.exporter,
            opset=chosen.attempt.opset,
            why=why,
            attempts=attempts,
            inputs=made.inputs,
            outputs=made.outputs,
            weights=None if made.weights is None else _weights(made.weights),
            verification=_verification(made, chosen.attempt, options),
            check=chosen.check,
            notes=tuple(_notes(chosen.attempt, options)),
            metadata=origin(spec, options, made, chosen.attempt),
        )
        return replace(report, seconds=time.perf_counter() - started)


def require_usable(options: ExportOptions, spec: Spec | None, output: str | None) -> None:
    """Raise for what cannot work, before torch is imported.

    Raises:
        OnnxlintError: A package is missing, a file does not exist, or an option is wrong.
    """
    if find_spec("torch") is None:
        raise OnnxlintError(f"export needs torch: {EXTRA}")
    if options.exporter not in (AUTO, *EXPORTERS):
        hint = did_you_mean(options.exporter, (AUTO, *EXPORTERS), choices((AUTO, *EXPORTERS)))
        raise OnnxlintError(f"--exporter: no exporter is called {printable(options.exporter)!r}{hint}")
    if options.exporter != "torchscript" and find_spec("onnxscript") is None:
        raise OnnxlintError(f"the dynamo exporter needs onnxscript: {EXTRA}, or use --exporter torchscript")
    if options.verify and find_spec("onnxruntime") is None:
        raise OnnxlintError(f"comparing the network with the model needs onnxruntime: {EXTRA}, or give --no-verify")
    if options.opset is not None and not OLDEST_OPSET <= options.opset <= NEWEST_OPSET:
        raise OnnxlintError(f"--opset {options.opset}: the exporters write opsets {OLDEST_OPSET} to {NEWEST_OPSET}")
    for flag, path in (("--weights", options.weights), ("--inputs", options.values)):
        if path is not None and not os.path.isfile(path):
            what = "is a folder" if os.path.isdir(path) else "no such file"
            raise OnnxlintError(f"{flag} {printable(path)}: {what}")
    if options.weights is None:
        for flag, given in (
            ("--weights-key", options.weights_key),
            ("--allow-missing", options.allow_missing),
            ("--allow-unexpected", options.allow_unexpected),
        ):
            if given:
                raise OnnxlintError(f"{flag}: is about a file of weights; give --weights FILE")
    for flag, names in (("--input-names", options.input_names), ("--output-names", options.output_names)):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OnnxlintError(f"{flag}: {printable(twice)!r} is given twice")
    both = set(options.input_names) & set(options.output_names)
    if both:
        raise OnnxlintError(f"--output-names: {printable(min(both))!r} is the name of an input")
    if output is not None:
        check_writable(output)
        read = [options.weights, options.values, spec.place if spec is not None else None]
        refuse_inputs(output, [path for path in read if path is not None and os.path.isfile(path)])


@contextmanager
def _folder(output: str | None) -> Iterator[str]:
    """Where exporters write: beside the output, on the same disk."""
    if output is not None:
        with work_folder(os.path.dirname(os.path.realpath(output))) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
            yield folder


# The choice


def _choose(
    made: Made, candidates: list[_Candidate], options: ExportOptions
) -> tuple[_Candidate, str, tuple[Exported, ...]]:
    """The file to take, why, and what became of each attempt.

    Raises:
        OnnxlintError: There is none that computes what the network computes.
    """
    rejected = {one.exporter: f"it cannot export the network: {one.refused}" for one in made.attempts if one.refused}
    good = []
    for one in candidates:
        verification = _verification(made, one.attempt, options)
        if verification is not None and not verification.verified:
            rejected[one.attempt.exporter] = f"its outputs are {verification.summary()}"
        elif one.check.error is not None and not one.check.findings:
            rejected[one.attempt.exporter] = f"its model cannot be checked: {one.check.error.message}"
        else:
            good.append(one)
    if not good:
        reasons = "; ".join(f"{exporter}: {why}" for exporter, why in rejected.items())
        raise OnnxlintError(f"nothing was written: {reasons}")
    best = min(good, key=lambda one: (_is_ignoring(one, good), _rank(one.check), EXPORTERS.index(one.attempt.exporter)))
    for one in good:
        if one is not best:
            rejected[one.attempt.exporter] = _why_not(one, best)
    found = {one.attempt.exporter: one for one in candidates}
    attempts = tuple(
        Exported(
            one.exporter,
            one.opset,
            len(found[one.exporter].model.proto.graph.node) if one.exporter in found else 0,
            len(found[one.exporter].check.findings) if one.exporter in found else 0,
            rejected.get(one.exporter, ""),
            one.exporter in [each.attempt.exporter for each in good],
        )
        for one in made.attempts
    )
    if len(made.attempts) == 1:
        return best, "", attempts
    others = [one for one in good if one is not best]
    why = "the other exporter's was refused" if not others else _why_not(best, others[0], better=True)
    return best, why, attempts


def _is_ignoring(one: _Candidate, good: list[_Candidate]) -> bool:
    """Whether a file lacks what the author of a `symbolic` meant, and another one has it."""
    return bool(one.attempt.ignored) and any(other.attempt.symbolics for other in good)


def _rank(check: CheckResult) -> tuple[int, int]:
    """How bad findings are: errors first, then their number."""
    errors = sum(finding.severity is Severity.ERROR for finding in check.findings)
    return errors, len(check.findings)


def _why_not(one: _Candidate, best: _Candidate, better: bool = False) -> str:
    if better:
        one, best = best, one
    if one.attempt.ignored and best.attempt.symbolics:
        return one.attempt.ignored if not better else f"{one.attempt.ignored}, and TorchScript does"
    mine, other = _rank(one.check), _rank(best.check)
    if mine == other:
        return "as many findings; dynamo is PyTorch's own choice" if better else "as many findings"
    what = "error" if mine[0] != other[0] else "finding"
    a, b = (mine[0], other[0]) if mine[0] != other[0] else (mine[1], other[1])
    return f"{counted(b, what)} in place of {a}" if better else f"{counted(a, what)} in place of {b}"


def _verification(made: Made, attempt: Attempt, options: ExportOptions) -> Verification | None:
    if not options.verify:
        return None
    return Verification(attempt.trials, "onnxruntime", made.tolerance)


# What is said, and written


def _weights(loaded: Loaded) -> Weights:
    notes = []
    if loaded.entry:
        also = (
            f"; {listed(map(repr, map(printable, loaded.others)))} would fit too (--weights-key)"
            if loaded.others
            else ""
        )
        notes.append(f"taken from {printable(loaded.entry)!r}{also}")
    if loaded.prefix:
        notes.append(f"prefix {printable(loaded.prefix)!r} removed")
    for what, keys in (("missing", loaded.missing), ("unexpected", loaded.unexpected)):
        if keys:
            left = "kept as the factory made them" if what == "missing" else "left out"
            notes.append(f"{counted(len(keys), 'key')} {what} and {left}: {listed(map(printable, keys), 5)}")
    return Weights(loaded.file, loaded.sha256, loaded.keys, tuple(notes))


def _notes(attempt: Attempt, options: ExportOptions) -> Iterator[str]:
    if attempt.frozen:
        yield (
            f"the tracer took values for constants at {listed(attempt.frozen, MOST_PLACES)}: other inputs may need others; "
            "what was compared is said above"
        )
    if attempt.ignored:
        yield f"{attempt.ignored}: the graph is what 'forward' computes"
    twos = [f"axis {axis} of {printable(one.name or 'the input')}" for one in options.inputs for axis in one.raised]
    if twos:
        yield f"exported with size 2 on {listed(twos)}: an example of 1 would become a constant"


def _write(
    chosen: _Candidate,
    spec: Spec | None,
    options: ExportOptions,
    made: Made,
    output: str | None,
    progress: Callable[[str], None],
) -> int:
    """Write the file, as one where that is possible; returns its bytes."""
    if output is None:
        return 0
    from onnxlint.exporting.provenance import origin, write_origin
    from onnxlint.model.save import save
    from onnxlint.model.skeleton import is_external, locate_external, walk_tensors

    progress("writing")
    model = chosen.model
    write_origin(model.proto, origin(spec, options, made, chosen.attempt), options)
    outside = [tensor for tensor in walk_tensors(model.proto) if is_external(tensor)]
    total = model.size + sum(locate_external(model, tensor).length for tensor in outside)
    if total > FILE_LIMIT:
        return save(model, model.proto, output, external_data=f"{os.path.basename(output)}.data")
    return save(model, model.proto, output, inline=bool(outside))
