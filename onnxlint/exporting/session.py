"""A whole export: preflight, exporters, choice, check, file; shared by `onnxlint export` and `onnxlint.export`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnxlint.exporting.options import ExportOptions, FixSource
from onnxlint.exporting.preflight import require_usable
from onnxlint.exporting.results import ExportReport, SourceDiff, Weights
from onnxlint.exporting.spec import Spec, parse_spec
from onnxlint.lint.engine import check_model
from onnxlint.lint.session import Ledger, Plans
from onnxlint.model.scratch import work_folder
from onnxlint.model.skeleton import open_model
from onnxlint.model.wire import FILE_LIMIT
from onnxlint.text import counted, listed, printable

if TYPE_CHECKING:
    from onnxlint.exporting.checkpoint import Loaded
    from onnxlint.exporting.choice import Result
    from onnxlint.exporting.suggestions import Suggestion
    from onnxlint.exporting.worker import Attempt
    from onnxlint.lint.configuration import Configs

MOST_PLACES = 4


class Session:
    """Exports one network, as often as its source changes.

    Args:
        spec: What to build, in a process of its own; None for a module.
        module: That module, exported in this process.
        shown: What findings call the model.
        configs: Where the configuration of the check comes from.
        progress: Called with what is being done.
        verbose: Whether what the user's code and torch print is shown.
    """

    def __init__(
        self,
        spec: Spec | None,
        module: Any,
        shown: str,
        configs: Configs,
        progress: Callable[[str], None],
        verbose: bool,
    ) -> None:
        self.spec, self.progress = spec, progress
        self._module, self._shown, self._verbose = module, shown, verbose
        self._plans, self._ledger = Plans(configs), Ledger(configs)
        self._plans.of(shown)  # a wrong --select is an error before anything runs
        self._ledger.open(shown)

    def export(self, options: ExportOptions, folder: str) -> Result:
        """Export with all exporters, and take a file.

        Args:
            options: How.
            folder: Where the files go.

        Raises:
            OnnxlintError: There is none that computes what the network computes.
        """
        from onnxlint.exporting.choice import Candidate, Result, choose

        if self.spec is not None:
            from onnxlint.exporting.process import export_in_process

            made = export_in_process(self.spec, options, folder, self.progress, self._verbose)
        else:
            from onnxlint.exporting.worker import run

            made = run(None, self._module, options, folder, lambda message: self.progress(message.get("doing", "")))
        self.progress("checking")
        plan = self._plans.of(self._shown)
        candidates = [
            Candidate(one, model, self._ledger.without_known(check_model(replace(model, path=self._shown), plan)))
            for one in made.attempts
            if one.path
            for model in [open_model(one.path)]
        ]
        return Result(made, *choose(made, candidates, options))


def export_network(
    network: Any,
    output: str | None,
    options: ExportOptions,
    configs: Configs,
    *,
    fixing: FixSource | None = None,
    progress: Callable[[str], None] = lambda text: None,
    verbose: bool = False,
) -> ExportReport:
    """Export a network, compare both on the same inputs, check the model, and write it.

    Args:
        network: A spec (`package.module:factory`, a file), built in a process of its own; or a module, exported here.
        output: The file; None writes nothing.
        options: How.
        configs: Where the configuration of the check comes from.
        fixing: How the network's source may be changed; None leaves it.
        progress: Called with what is being done.
        verbose: Whether what the user's code and torch print is shown.

    Raises:
        OnnxlintError: Something cannot be done; nothing was written.
    """
    started = time.perf_counter()
    spec = parse_spec(network) if isinstance(network, str) else None
    require_usable(options, spec, output, fixing)
    shown = output if output is not None else "model.onnx"
    session = Session(spec, network if spec is None else None, shown, configs, progress, verbose)
    with _folder(output) as folder:
        if fixing is not None:
            options = replace(options, references=folder)
        result = session.export(options, folder)
        diffs: tuple[SourceDiff, ...] = ()
        proposals = _proposals(result, spec)
        if proposals:
            from onnxlint.exporting.source_fix import fix_source, proposed

            if fixing is not None:
                result, diffs = fix_source(session.export, result, proposals, options, fixing, folder)
            else:
                diffs = proposed(proposals)
        size = _write(result, spec, options, output, progress)
        return replace(_report(result, spec, options, output, size), diffs=diffs, seconds=time.perf_counter() - started)


def _proposals(result: Result, spec: Spec | None) -> tuple[Suggestion, ...]:
    """Better lines for the network's source; none without LibCST."""
    from importlib.util import find_spec

    from onnxlint.exporting.suggestions import own_folders, suggestions

    if find_spec("libcst") is None or (spec is not None and spec.kind == "saved"):
        return ()
    folders = own_folders(spec.place if spec is not None else "")
    return suggestions(result.chosen.model, result.chosen.check, result.made.forward, folders)


def _report(result: Result, spec: Spec | None, options: ExportOptions, output: str | None, size: int) -> ExportReport:
    from onnxlint.exporting.choice import verification_of
    from onnxlint.exporting.provenance import origin

    made, chosen = result.made, result.chosen
    return ExportReport(
        output=output,
        size=size,
        network=made.network,
        exporter=chosen.attempt.exporter,
        opset=chosen.attempt.opset,
        why=result.why,
        attempts=result.attempts,
        inputs=made.inputs,
        outputs=made.outputs,
        weights=None if made.weights is None else _weights(made.weights),
        verification=verification_of(made, chosen.attempt, options),
        check=chosen.check,
        notes=tuple(_notes(chosen.attempt, options)),
        metadata=origin(spec, options, made, chosen.attempt),
    )


@contextmanager
def _folder(output: str | None) -> Iterator[str]:
    """Where exporters write: beside the output, on the same disk."""
    if output is not None:
        with work_folder(os.path.dirname(os.path.realpath(output))) as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
            yield folder


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
    result: Result, spec: Spec | None, options: ExportOptions, output: str | None, progress: Callable[[str], None]
) -> int:
    """Write the file, as one where that is possible; returns its bytes."""
    if output is None:
        return 0
    from onnxlint.exporting.provenance import origin, write_origin
    from onnxlint.model.save import save
    from onnxlint.model.skeleton import is_external, locate_external, walk_tensors

    progress("writing")
    model = result.chosen.model
    write_origin(model.proto, origin(spec, options, result.made, result.chosen.attempt), options)
    outside = [tensor for tensor in walk_tensors(model.proto) if is_external(tensor)]
    total = model.size + sum(locate_external(model, tensor).length for tensor in outside)
    if total > FILE_LIMIT:
        return save(model, model.proto, output, external_data=f"{os.path.basename(output)}.data")
    return save(model, model.proto, output, inline=bool(outside))
