"""`--fix-source`: better lines written into the user's files, the network exported again, and put back unless all is well.

Files are replaced atomically. Whatever happens, an error or an interruption, they are put back as they were, unless the new
export shows that the findings are gone and the network computes what it computed before.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.exporting.results import SourceDiff
from onnxlint.exporting.source_edit import edited, unified
from onnxlint.exporting.suggestions import CAT, Suggestion
from onnxlint.graph.source import Sources
from onnxlint.model.output import write_atomically
from onnxlint.text import counted, listed, printable
from onnxlint.verification.results import Verification

if TYPE_CHECKING:
    from onnxlint.exporting.choice import Result
    from onnxlint.exporting.options import ExportOptions, FixSource

    Export = Callable[[ExportOptions, str], Result]


def proposed(proposals: Sequence[Suggestion]) -> tuple[SourceDiff, ...]:
    """Each better line as a diff of its own; those that fit no line of the file are left out."""
    return tuple(diff for one in proposals if (diff := _diff(one, Path(one.path).read_bytes())) is not None)


def fix_source(
    export: Export,
    before: Result,
    proposals: Sequence[Suggestion],
    options: ExportOptions,
    fixing: FixSource,
    folder: str,
) -> tuple[Result, tuple[SourceDiff, ...]]:
    """Apply what may be applied, export again in a fresh process, and keep it if it is right.

    Args:
        export: Exports the network, as it is then, to a folder.
        before: The export of the source as it is; `options.references` has the network's outputs.
        proposals: Better lines.
        options: How it was exported.
        fixing: What may be applied.
        folder: For the files of the new export.

    Returns:
        The export to take, and what became of each proposal.
    """
    contents = {path: Path(path).read_bytes() for path in dict.fromkeys(one.path for one in proposals)}
    allowed = [
        one for one in proposals if one.holds_for(fixing.multiple_of) and (one.kind != CAT or fixing.concat_heads)
    ]
    results = {path: edited(data, [one for one in allowed if one.path == path]) for path, data in contents.items()}
    applied = [one for _, made in results.values() for one in made]
    diffs = [(one, _diff(one, contents[one.path])) for one in proposals]
    if not applied:
        return before, tuple(diff for _, diff in diffs if diff is not None)
    unwritable = [path for path in contents if not os.access(path, os.W_OK)]
    if unwritable:
        raise OnnxlintError(
            f"{printable(unwritable[0])}: cannot be written: permission denied; --fix-source changes it"
        )
    after = {path: data for path, (data, made) in results.items() if made}
    result, state = before, "applied"
    try:
        with _written(contents, after):
            result, why = _again(export, before, applied, options, folder)
    except OnnxlintError as error:
        state, why = "put back", str(error)
    return result, tuple(
        replace(diff, state=state, why=why) if one in applied else diff for one, diff in diffs if diff is not None
    )


def _again(
    export: Export, before: Result, applied: Sequence[Suggestion], options: ExportOptions, folder: str
) -> tuple[Result, str]:
    """Export the changed source; the export, and how the network's outputs compare with those before.

    Raises:
        OnnxlintError: It does not export, computes something else, or the findings are still there.
    """
    multiples = {symbol: number for one in applied for symbol, number in one.multiples.items()}
    joined = next((int(one.value) for one in applied if one.kind == CAT), None)
    place = os.path.join(folder, "again")
    os.mkdir(place)
    again = replace(
        options,
        references="",
        against=options.references,
        multiples=multiples,
        joined=joined,
        output_names=() if joined is not None else options.output_names,
    )
    result = export(again, place)
    compared = Verification(result.made.against, "onnxruntime", result.made.tolerance)
    if not compared.trials:
        raise OnnxlintError("the network was run on no input that meets the conditions; give one with --shape")
    if not compared.verified:
        raise OnnxlintError(f"the changed network's outputs are {compared.summary()}")
    wanted: Counter[str] = Counter()
    for one in applied:
        wanted.update(dict.fromkeys(one.codes, one.findings))
    was, now = (Counter(finding.code for finding in one.chosen.check.findings) for one in (before, result))
    left = [code for code, number in wanted.items() if now[code] > was[code] - number]
    if left:
        raise OnnxlintError(f"{listed(left)} {'is' if len(left) == 1 else 'are'} still found after it")
    more = sum(now.values()) - sum(was.values())
    if more > 0:
        raise OnnxlintError(f"there are {counted(more, 'finding')} more after it")
    is_close = any(trial.outcome == "close" for trial in compared.trials)
    how = f"equal within {compared.tolerance} (worst difference {compared.worst:.2g})" if is_close else "bit-equal"
    return result, f"the network's outputs are {how} on {counted(len(compared.trials), 'input')}, before and after"


@contextmanager
def _written(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[None]:
    """Files changed; put back if the block fails, but for files that somebody else has changed since."""
    done: list[str] = []
    try:
        for path, data in after.items():
            done.append(path)
            write_atomically(path, data)
        yield
    except BaseException:
        for path in done:
            if Path(path).read_bytes() == after[path]:
                write_atomically(path, before[path])
        raise


def _diff(one: Suggestion, source: bytes) -> SourceDiff | None:
    after, made = edited(source, [one])
    if not made:
        return None
    root = Sources().root
    shown = os.path.relpath(one.path, root) if Path(one.path).is_relative_to(root) else one.path
    return SourceDiff(shown, one.line, one.codes, unified(shown, source, after), one.condition)
