"""Several models in one fix: each by itself, so that no error costs another model its result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.session import Fixed, fix_path, write
from onnxlint.lint.engines import Spread, check_engine, make_cluster
from onnxlint.lint.files import STDIN, find_models
from onnxlint.lint.finding import FileError
from onnxlint.lint.pool import WorkerPool
from onnxlint.model.limits import AVAILABLE, Budget, available_memory, usable_cores
from onnxlint.text import printable

if TYPE_CHECKING:
    from onnxlint.fixes.options import FixOptions
    from onnxlint.lint.configuration import Configs


@dataclass(frozen=True)
class Result:
    """What came out for one model.

    Attributes:
        path: The model as the user named it, or as it was found in a folder.
        fixed: The result; None if it failed.
        output: The file that the result was written to; None if nothing was.
        error: Why it failed, in one line; empty if it did not.
    """

    path: str
    fixed: Fixed | None = None
    output: str | None = None
    error: str = ""

    @property
    def exit_code(self) -> int:
        """2 where it failed, 1 where findings at or above `fail-on` are left, else 0."""
        return 2 if self.fixed is None else int(self.fixed.failing)

    @property
    def has_changed(self) -> bool:
        """Whether the fixed model differs from the original."""
        return self.fixed is not None and self.fixed.report.changed


@dataclass(frozen=True)
class Destination:
    """Where results go.

    Attributes:
        in_place: Whether they replace the models.
        folder: A folder for them, under the models' own names; None: none.
        external_data: Name of the file beside each that large weights are written to.
        inline: Whether external data is brought into the files.
    """

    in_place: bool = False
    folder: str | None = None
    external_data: str | None = None
    inline: bool = False


def fix_many(
    paths: Sequence[str],
    configs: Configs,
    options: FixOptions,
    destination: Destination,
    progress: Callable[[str], None] = lambda text: None,
    engine: str = "local",
    jobs: int = 1,
) -> Iterator[Result]:
    """Fix all models that `paths` name, and write the results.

    Args:
        paths: Files, folders, globs.
        configs: Where the configuration of each model comes from.
        options: Changes to make, assumptions, and how to verify.
        destination: Where results are written; nothing is written if it names neither.
        progress: Called with the current action.
        engine: Where models are fixed: `local`: on this machine; `ray`: see `onnxlint.lint.engines`.
        jobs: Processes of this machine; 1: models are fixed here, one after the other; 0: as many as it has room for.

    Yields:
        A result for each model, in the order in which they are named.

    Raises:
        OnnxlintError: Before anything is done: two results would be the same file, the folder cannot be made, or the
            engine cannot be used.
    """
    check_engine(engine)
    found = list(find_models(paths, lambda path: configs.of(path).excludes(path)))
    models = [one for one in found if isinstance(one, str)]
    outputs = _outputs(models, destination)
    processes = 1 if STDIN in models else _processes(models, jobs)
    if engine != "local" or processes > 1:
        yield from _spread(engine, processes, found, outputs, configs, options, destination, progress)
        return
    for number, one in enumerate(found, 1):
        if not isinstance(one, str):
            yield Result(one.model, error=one.message)
            continue

        def report_step(what: str, one: str = one, number: int = number) -> None:
            progress(f"{number} of {len(found)} {printable(os.path.basename(one))}: {what}" if len(found) > 1 else what)

        yield _fix_one(configs, options, destination, one, outputs.get(one), report_step)


def _processes(models: Sequence[str], jobs: int) -> int:
    """How many processes fix models at once: no more than there are cores and memory for, unless they are asked for."""
    if jobs or len(models) < 2:
        return min(jobs or 1, len(models))
    # Weights may lie in files beside the models.
    largest = max(map(_largest_file, {os.path.dirname(model) or "." for model in models}))
    available = available_memory()
    room = len(models) if available is None else int(AVAILABLE * available) // Budget.of(largest).memory
    return max(1, min(usable_cores(), len(models), room))


def _largest_file(folder: str) -> int:
    """Bytes of the largest file of a folder; 0 where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return max((entry.stat().st_size for entry in entries if entry.is_file()), default=0)
    except OSError:
        return 0


def _fix_one(
    configs: Configs,
    options: FixOptions,
    destination: Destination,
    path: str,
    output: str | None,
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    try:
        fixed = fix_path(path, configs, options, progress)
        if output is not None and (fixed.report.changed or not destination.in_place):
            progress("writing")
            write(fixed, output, destination.external_data, destination.inline)
        return Result(path, fixed, output if fixed.report.changed or not destination.in_place else None)
    except OnnxlintError as error:
        return Result(path, error=str(error))


def _fix_elsewhere(
    folder: str | None, configs: Configs, options: FixOptions, destination: Destination, path: str, output: str | None
) -> Result:
    """As `_fix_one`, in another process: what it found, without the graphs, which mean something there only.

    Args:
        folder: Where the command runs, on a machine of a cluster; None in a process of this machine.
    """
    import onnx  # Ray pickles a message by the name of its module only where that is loaded, which a model need not do

    if folder is not None:
        from onnxlint.lint.cluster import enter

        enter(folder, [path])
    result = _fix_one(configs, options, destination, path, output)
    if result.fixed is None:
        return result
    bare = replace(result.fixed.model, proto=onnx.ModelProto(), buffer=None)
    return replace(result, fixed=replace(result.fixed, model=bare, proto=bare.proto))


def _spread(
    engine: str,
    processes: int,
    found: Sequence[str | FileError],
    outputs: Mapping[str, str],
    configs: Configs,
    options: FixOptions,
    destination: Destination,
    progress: Callable[[str], None],
) -> Iterator[Result]:
    """Models are fixed, and written, by other processes, here or on a cluster.

    A task of a cluster that is started again writes the same file; a process of this machine is not started again.
    """
    models = [one for one in found if isinstance(one, str)]
    if engine != "local" and STDIN in models:
        raise OnnxlintError("--engine ray cannot fix standard input; name a file")
    where: Spread | None = make_cluster(engine)
    folder = None if where is None else os.getcwd()
    jobs = [(one, outputs.get(one)) for one in models]
    answers = (where or WorkerPool(processes)).each(_fix_elsewhere, jobs, folder, configs, options, destination)
    for number, one in enumerate(found, 1):
        if not isinstance(one, str):
            yield Result(one.model, error=one.message)
            continue
        progress(f"{number} of {len(found)} {printable(os.path.basename(one))}")
        result = next(answers)
        if result is None:
            yield Result(one, error=f"{printable(one)}: fixing it killed the worker process; please report this model")
        else:
            yield result


def exit_code(results: Sequence[Result], *, exit_zero: bool = False, on_change: bool = False) -> int:
    """The exit code of a fix of several models: 2 where one failed, else 1 where findings are left, else 0.

    Args:
        results: What came out for each.
        exit_zero: Whether findings that are left do not count.
        on_change: Whether a model that changed makes it 1, as fixers under pre-commit do.
    """
    codes = [one.exit_code for one in results]
    if 2 in codes:
        return 2
    if on_change and any(one.has_changed for one in results):
        return 1
    return int(1 in codes and not exit_zero)


def _outputs(models: Sequence[str], destination: Destination) -> dict[str, str]:
    """Model → file for its result.

    Raises:
        OnnxlintError: Two results would be the same file, or a result would replace a model.
    """
    if destination.in_place:
        if STDIN in models:
            raise OnnxlintError("--in-place cannot be used with stdin: there is no file to replace")
        return {model: model for model in models}
    if destination.folder is None:
        return {}
    folder = destination.folder
    shown = printable(folder)
    outputs: dict[str, str] = {}
    taken: dict[str, str] = {}
    originals = {os.path.realpath(model): model for model in models}
    for model in models:
        name = "model.onnx" if model == STDIN else os.path.basename(model)
        if name in taken:
            both = f"{printable(taken[name])} and {printable(model)}"
            raise OnnxlintError(
                f"{both} would both be written to {printable(os.path.join(folder, name))}: fix them in two runs"
            )
        taken[name] = model
        outputs[model] = os.path.join(folder, name)
        if os.path.realpath(outputs[model]) in originals:
            raise OnnxlintError(f"{shown}: {printable(name)} would be replaced; use --in-place for that")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OnnxlintError(f"{shown}: cannot be made: {error.strerror or error}") from None
    return outputs
