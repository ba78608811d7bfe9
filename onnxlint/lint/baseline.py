"""Known findings: those recorded in a baseline are not reported again.

The file is JSON: for each model (path relative to the file) the identities of its known findings and how many there
are of each. An identity is rule, graph, module scope and operator: it survives a re-export, which numbers nodes anew.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnxlint.errors import OnnxlintError
from onnxlint.lint.files import STDIN
from onnxlint.lint.finding import CheckResult, Finding
from onnxlint.model.reading import read_small
from onnxlint.text import printable

DEFAULT_NAME = "onnxlint-baseline.json"
VERSION = 1

_MOST = 64 << 20
"""Bytes that a baseline can have."""


@dataclass(frozen=True)
class Baseline:
    """Known findings of models.

    Attributes:
        path: The file, as it is shown to the user; model paths in it are relative to its folder.
        models: Model path → identity → how many.
    """

    path: str
    models: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def key(self, model: str) -> str:
        """A model's name in the file."""
        if model == STDIN:
            return model
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            relative = os.path.relpath(model, folder)
        except ValueError:  # another drive of Windows
            relative = os.path.abspath(model)
        return relative.replace(os.sep, "/")

    def apply(self, result: CheckResult) -> CheckResult:
        """The same result without its known findings, which are counted as suppressed."""
        left = Counter(self.models.get(self.key(result.model), {}))
        kept = []
        known_codes: set[str] = set()
        for finding in result.findings:
            known = identity(finding)
            if left[known] > 0:
                left[known] -= 1
                known_codes.add(finding.code)
            else:
                kept.append(finding)
        if not known_codes:
            return result
        number = len(result.findings) - len(kept)
        codes = tuple(sorted({*result.suppressed_codes, *known_codes}))
        return replace(result, findings=tuple(kept), suppressed=result.suppressed + number, suppressed_codes=codes)

    def stale(self, result: CheckResult, codes: frozenset[str]) -> int:
        """How many known findings of a model are gone.

        Args:
            result: Before `apply`.
            codes: Rules that ran on the model; entries of others are not judged.
        """
        if result.error:
            return 0
        now = Counter(map(identity, result.findings))
        known = self.models.get(self.key(result.model), {})
        return sum(max(0, count - now[one]) for one, count in known.items() if _code(one) in codes)

    def updated(self, results: Sequence[tuple[CheckResult, frozenset[str]]]) -> Baseline:
        """The baseline that knows all findings of `results`.

        Entries that this run did not check stay: other models that still exist, models that could not be read, and
        entries of rules that did not run.

        Args:
            results: (result before `apply`, codes of the rules that ran) of each model.
        """
        folder = os.path.dirname(os.path.abspath(self.path))
        models = {
            name: dict(known)
            for name, known in self.models.items()
            if name == STDIN or os.path.exists(os.path.join(folder, name))
        }
        for result, codes in results:
            if result.error and not result.findings:
                continue
            name = self.key(result.model)
            known = {one: count for one, count in models.get(name, {}).items() if _code(one) not in codes}
            known.update(Counter(map(identity, result.findings)))
            models[name] = known
        return replace(self, models={name: known for name, known in models.items() if known})

    @property
    def total(self) -> int:
        """Number of known findings."""
        return sum(count for known in self.models.values() for count in known.values())


def identity(finding: Finding) -> str:
    """A finding's fingerprint without its ordinal: equal ones are counted."""
    return finding.fingerprint.rsplit("|", 1)[0]


def _code(one: str) -> str:
    return one.split("|", 1)[0]


def load(path: str) -> Baseline:
    """Read a baseline file.

    Raises:
        OnnxlintError: It is missing, cannot be read, or is not a baseline.
    """
    import json

    shown = printable(path)
    try:
        document = json.loads(read_small(path, _MOST))
    except FileNotFoundError:
        raise OnnxlintError(f"{shown}: no such baseline; write it with --write-baseline {shown}") from None
    except OSError as error:
        raise OnnxlintError(f"{shown}: the baseline cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()))
        raise OnnxlintError(
            f"{shown}: not a baseline ({reason}); delete it and write it again with --write-baseline"
        ) from None
    problem = _problem(document)
    if problem:
        raise OnnxlintError(f"{shown}: not a baseline: {problem}; delete it and write it again with --write-baseline")
    return Baseline(path, document["models"])


def _problem(document: object) -> str:
    if not isinstance(document, dict) or not isinstance(document.get("models"), dict):
        return 'it has no object "models"'
    if document.get("onnxlint-baseline") != VERSION:
        return f'"onnxlint-baseline" is not {VERSION} (written by another version of onnxlint?)'
    for name, known in document["models"].items():
        if not isinstance(known, dict):
            return f"the entry of {printable(name)!r} is not an object"
        for one, count in known.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                return f"the count of {printable(one)!r} is not a whole number from 1"
    return ""


def open_or_new(path: str) -> Baseline:
    """The baseline at `path`, to be written again; a new one if the file does not exist yet.

    Raises:
        OnnxlintError: There is a file, and it is no baseline: it must not be overwritten.
    """
    return load(path) if os.path.lexists(path) else Baseline(path)


def save(baseline: Baseline) -> None:
    """Write a baseline file; readers see the old one or the new one, never a part.

    Raises:
        OnnxlintError: It cannot be written; the old file is as it was.
    """
    import json

    from onnxlint.model.output import write_atomically

    models = {name: dict(sorted(known.items())) for name, known in sorted(baseline.models.items())}
    document = {"onnxlint-baseline": VERSION, "models": models}
    write_atomically(baseline.path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
