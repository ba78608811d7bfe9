"""From two commits to the entries of a comment: each changed model is compared with its old version and checked."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from onnxlint.bot.changes import MOST_MODELS, ChangedModel, MissingObject, Repository, external_files
from onnxlint.bot.entries import Entries, FindingEntry, ModelEntry, PictureEntry
from onnxlint.difference.result import ModelDiff
from onnxlint.difference.session import diff_models
from onnxlint.errors import OnnxlintError
from onnxlint.lint.configuration import FILE_NAMES, Configs
from onnxlint.lint.finding import Finding, Severity
from onnxlint.report.diff.lines import module_line, modules, node_lines, summary, weight_lines
from onnxlint.symbolic.view import make_view

if TYPE_CHECKING:
    from onnxlint.lint.neighbourhood import Neighbourhood

MOST_FINDINGS = 100
"""New findings of a model that are described; the table counts all."""

MOST_LINES = 60
"""Lines about the changes in one module."""


@dataclass(frozen=True)
class Wanted:
    """What to look at, and how.

    Attributes:
        base, head: Names of commits; the comparison is `base...head`, from where they parted.
        paths: Files and folders; empty for all models of the repository.
        verify: Whether both versions are run.
        fail_on: The severity from which on a new finding fails the job; None: never.
    """

    base: str
    head: str = "HEAD"
    paths: tuple[str, ...] = ()
    verify: bool = False
    fail_on: Severity | None = Severity.WARNING


def collect(repository: Repository, wanted: Wanted, configs: Configs) -> Entries:
    """Look at all models that a pull request changes.

    A model that cannot be read is an entry with an error; the others are looked at all the same.

    Raises:
        OnnxlintError: The commits cannot be found, or git fails.
    """
    base, head = repository.commit(wanted.base), repository.commit(wanted.head)
    models = repository.changed_models(base, head, wanted.paths)
    start = repository.merge_base(base, head)
    entries = [_entry(repository, model, start, head, wanted, configs) for model in models[:MOST_MODELS]]
    if len(models) > MOST_MODELS:
        error = f"{len(models) - MOST_MODELS} more changed models were not looked at; name folders to look at fewer"
        entries.append(ModelEntry("…", "modified", error=error))
    entries = [replace(one, findings=tuple(_whole_line(repository, head, f) for f in one.findings)) for one in entries]
    sources = sorted({finding.path for entry in entries for finding in entry.findings if finding.path})
    lines = ((path, repository.changed_lines(base, head, path)) for path in sources)
    failing = wanted.fail_on is not None and any(
        Severity(finding.severity).rank >= wanted.fail_on.rank for entry in entries for finding in entry.findings
    )
    return Entries(head, tuple(entries), tuple(one for one in lines if one[1]), failing)


def _whole_line(repository: Repository, head: str, finding: FindingEntry) -> FindingEntry:
    """The replacement with the indentation of the line that it replaces; none if the line is another one by now."""
    if not finding.replacement:
        return finding
    line = repository.line(head, finding.path, finding.line)
    is_same = line.strip() == finding.text.strip() and bool(line.strip())
    indent = line[: len(line) - len(line.lstrip())]
    return replace(finding, replacement=f"{indent}{finding.replacement.strip()}" if is_same else "")


def _entry(
    repository: Repository, model: ChangedModel, base: str, head: str, wanted: Wanted, configs: Configs
) -> ModelEntry:
    entry = ModelEntry(model.path, model.status, model.old_path if model.old_path != model.path else "")
    with tempfile.TemporaryDirectory(prefix="onnxlint-bot-") as scratch:
        folders = Path(scratch, "base"), Path(scratch, "head")
        sides: list[Path | None] = []
        for commit, path, folder, there in (
            (base, model.old_path, folders[0], model.status != "added"),
            (head, model.path, folders[1], model.status != "deleted"),
        ):
            try:
                sides.append(_extract(repository, commit, path, folder) if there else None)
            except (MissingObject, OnnxlintError) as error:
                return replace(entry, error=_relative(f"{path}: {error}", scratch))
        _configure(repository, base, model.path, folders)
        try:
            return _compared(entry, sides[0], sides[1], wanted, configs, scratch)
        except OnnxlintError as error:
            return replace(entry, error=_relative(str(error), scratch))


def _configure(repository: Repository, base: str, path: str, folders: Sequence[Path]) -> None:
    """Lay the configuration of the base beside the models: a pull request does not decide what is looked for in it."""
    for folder in folders:
        (folder / ".git").mkdir(parents=True, exist_ok=True)  # nothing above it is read
        for parent in PurePosixPath(path).parents:
            for name in FILE_NAMES:
                try:
                    repository.extract(base, str(parent / name), folder)
                except MissingObject:
                    continue  # most folders have none


def _extract(repository: Repository, commit: str, path: str, folder: Path) -> Path:
    written = repository.extract(commit, path, folder)
    parent = PurePosixPath(path).parent
    for location in external_files(written):
        try:
            repository.extract(commit, str(parent / location), folder)
        except MissingObject:
            continue  # SEC002 reports what is not there
    return written


def _relative(message: str, scratch: str) -> str:
    """A message about a file in the temporary folder, under its name in the repository."""
    for side in ("base", "head"):
        message = message.replace(f"{scratch}/{side}/", "")
    return message


def _compared(
    entry: ModelEntry, old: Path | None, new: Path | None, wanted: Wanted, configs: Configs, scratch: str
) -> ModelEntry:
    if old is not None and new is not None:
        diff = diff_models(old, new, configs=configs, verify=wanted.verify, pictures=True)
        return _of_diff(entry, diff, scratch)
    from onnxlint.difference.compare import sizes
    from onnxlint.lint.engine import check_view
    from onnxlint.lint.session import Plans
    from onnxlint.model.skeleton import open_model

    there = new if new is not None else old
    assert there is not None
    view = make_view(open_model(there))
    own = sizes(view)
    if new is None:
        return replace(entry, nodes=(own.nodes, None), bytes=(own.bytes, None), opset=(view.opset, None))
    found, _, failures = check_view(view, Plans(configs, neighbourhoods=True).of(str(new)))
    return replace(
        entry,
        error=_relative("; ".join(failures), scratch),
        nodes=(None, own.nodes),
        bytes=(None, own.bytes),
        opset=(None, view.opset),
        findings=tuple(_finding(one, entry.path) for one in found[:MOST_FINDINGS]),
    )


def _of_diff(entry: ModelEntry, diff: ModelDiff, scratch: str) -> ModelEntry:
    assert diff.findings is not None
    problems = [result.error.message for result in diff.checks or () if result.error]
    old, new = diff.sizes
    return replace(
        entry,
        error=_relative("; ".join(problems), scratch),
        fixed=len(diff.findings.fixed),
        remaining=len(diff.findings.remaining),
        nodes=(old.nodes, new.nodes),
        bytes=(old.bytes, new.bytes),
        opset=diff.opsets,
        outputs=diff.verified.words if diff.verified is not None else "",
        rows=tuple(summary(diff)),
        sections=tuple(_sections(diff)),
        findings=tuple(_finding(one, entry.path) for one in diff.findings.new[:MOST_FINDINGS]),
    )


def _sections(diff: ModelDiff) -> Iterator[tuple[str, tuple[str, ...]]]:
    for module, changes in modules(diff).items():
        yield module_line(module, changes), _cut(list(node_lines(changes)))
    weights = list(weight_lines(diff.weights))
    if weights:
        yield "weights", _cut(weights)


def _cut(lines: Sequence[str]) -> tuple[str, ...]:
    more = (f"  and {len(lines) - MOST_LINES} more",) if len(lines) > MOST_LINES else ()
    return (*lines[:MOST_LINES], *more)


def _finding(finding: Finding, path: str) -> FindingEntry:
    place = finding.location
    source = place.source[-1] if place.source else None
    return FindingEntry(
        finding.code,
        finding.name,
        finding.severity.value,
        finding.message,
        place.place,
        finding.help,
        source.path if source is not None else "",
        source.line if source is not None else 0,
        source.code if source is not None else "",
        _command(finding, path),
        dict(finding.evidence).get("replacement", ""),
        _picture(finding.neighbourhood),
    )


def _command(finding: Finding, path: str) -> str:
    """The command that fixes a finding; empty if none does."""
    if finding.fix is None:
        return ""
    flag = finding.fix.flag
    return f"onnxlint fix {shlex.quote(path)} --in-place{f' {flag}' if flag else ''}"


def _picture(around: Neighbourhood | None) -> PictureEntry | None:
    if around is None:
        return None
    return PictureEntry(tuple((box.kind, box.title, box.name) for box in around.boxes), around.edges, around.center)
