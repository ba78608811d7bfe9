"""Better lines for the network's source: what findings of an exported model say about the lines that made its nodes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxlint.graph.source import frames, repository_of
from onnxlint.lint.finding import Finding
from onnxlint.model.assumptions import read_clause
from onnxlint.symbolic.view import make_view

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView, Node
    from onnxlint.lint.finding import CheckResult
    from onnxlint.model.skeleton import Model

SCALE, FLATTEN, VIEW, CAT = "scale", "flatten", "view", "cat"


@dataclass(frozen=True)
class Suggestion:
    """One change of one line.

    Attributes:
        path: The file, absolute.
        line: 1-based.
        kind: `scale`: `scale_factor=` in place of a size; `flatten`: `flatten(1)` in place of `view(x.size(0), -1)`; `view`:
            the number in place of -1, which the batch gets; `cat`: heads concatenated where they are returned.
        value: The factor; the number, or the rank of the input where it is another one for each call; the axis.
        codes: Rules that ask for it.
        findings: How many findings it does away with.
        condition: Under which the network computes the same; empty: for all inputs.
    """

    path: str
    line: int
    kind: str
    value: str
    codes: tuple[str, ...]
    findings: int
    condition: str = ""

    def holds_for(self, multiple_of: int | None) -> bool:
        """Whether the condition follows from height and width being multiples of a number."""
        clauses = [read_clause(text) for text in self.condition.split(" and ")] if self.condition else []
        return all(one is not None and multiple_of is not None and multiple_of % one[1] == 0 for one in clauses)

    @property
    def multiples(self) -> dict[str, int]:
        """Symbol → number of the condition."""
        clauses = [read_clause(text) for text in self.condition.split(" and ")] if self.condition else []
        return dict(one for one in clauses if one is not None)


def suggestions(
    model: Model, check: CheckResult, forward: tuple[str, int], folders: Sequence[str]
) -> tuple[Suggestion, ...]:
    """What could be written in place of the lines that findings are about.

    Args:
        model: The exported model.
        check: Its findings.
        forward: File and line of the network's own `forward`.
        folders: Where the user's own files are.
    """
    view = make_view(model)
    found: dict[tuple[str, int, str], Suggestion] = {}
    dropped: set[tuple[str, int, str]] = set()
    for one in _each(view, check.findings, forward):
        if not is_own(one.path, folders):
            continue
        key = one.path, one.line, one.kind
        known = found.get(key)
        if known is None:
            found[key] = one
            continue
        value = known.value
        if known.value != one.value:
            if one.kind == VIEW and _rank(known.value) == _rank(one.value):
                value = f"rank {_rank(one.value)}"
            else:
                dropped.add(key)  # one line, and another factor for each of its calls
        conditions = dict.fromkeys(
            part for text in (known.condition, one.condition) for part in text.split(" and ") if part
        )
        found[key] = replace(
            known,
            value=value,
            findings=known.findings + 1,
            condition=" and ".join(conditions),
            codes=tuple(dict.fromkeys([*known.codes, *one.codes])),
        )
    made = _nodes_by_line(view)
    return tuple(
        replace(one, value=one.value.partition(" of ")[0])
        for key, one in sorted(found.items())
        # A line that made other nodes of the kind, too, may be right for them as it is.
        if key not in dropped and (one.kind not in _OPERATORS or made[key] == one.findings)
    )


_OPERATORS = {SCALE: ("Resize", "Upsample"), VIEW: ("Reshape",)}


def _nodes_by_line(view: GraphView) -> Counter[tuple[str, int, str]]:
    """How many nodes each line made, by the kind of change that concerns them."""
    found: Counter[tuple[str, int, str]] = Counter()
    for kind, operators in _OPERATORS.items():
        for node in view.nodes(*operators):
            lines = frames(node.proto)
            if lines:
                found[os.path.abspath(lines[-1].path), lines[-1].line, kind] += 1
    return found


def _rank(value: str) -> str:
    return value.rpartition(" ")[2]


def _each(view: GraphView, findings: Sequence[Finding], forward: tuple[str, int]) -> Iterator[Suggestion]:
    for finding in findings:
        facts = dict(finding.evidence)
        if finding.code == "OUT001" and forward[0] and facts.get("axis", "").isdecimal():
            outputs = [value.name for value in view.proto.graph.output]
            if ", ".join(outputs) == facts.get("outputs"):
                yield Suggestion(forward[0], forward[1], CAT, facts["axis"], (finding.code,), 1)
            continue
        node = _node(view, finding)
        lines = frames(node.proto) if node is not None else ()
        if node is None or not lines:
            continue
        path, line = os.path.abspath(lines[-1].path), lines[-1].line
        condition = finding.fix.condition or "" if finding.fix is not None else ""
        if finding.code == "SHP001" and "scale factor" in facts and finding.fix is not None:
            yield Suggestion(path, line, SCALE, facts["scale factor"], (finding.code,), 1, condition)
        elif finding.code == "SHP006":
            yield Suggestion(path, line, FLATTEN, "", (finding.code,), 1)
        elif finding.code == "SHP002" and (number := _number(node)):
            yield Suggestion(path, line, VIEW, number, (finding.code,), 1)


def _node(view: GraphView, finding: Finding) -> Node | None:
    try:
        return view.find(finding.location)
    except KeyError:
        return None


def _number(node: Node) -> str:
    """For a Reshape of [N, …] to [N, n, k] whose other sizes are numbers: `n of RANK`; else empty."""
    if node.op != "Reshape":
        return ""
    before, after = node.shape(0), node.graph.shape(node.output())
    if before is None or after is None or len(after) != 3 or len(before) < 2:
        return ""
    rest = before[1:]
    if not all(isinstance(size, int) and size > 0 for size in rest) or before[0] != after[0]:
        return ""
    if not isinstance(after[1], int) or not isinstance(after[2], int) or after[1] <= 0:
        return ""
    return f"{after[1]} of {len(before)}"


def own_folders(spec_place: str) -> tuple[str, ...]:
    """Where the user's own files are: the working directory's repository, and the folder of the file that was named."""
    here = Path.cwd()
    places = [str(repository_of(here) or here), str(here)]
    if spec_place.endswith(".py"):
        places.append(os.path.dirname(os.path.abspath(spec_place)))
    return tuple(dict.fromkeys(places))


def is_own(path: str, folders: Sequence[str]) -> bool:
    """Whether a source file is the user's to change: below one of the folders, in no installation of packages."""
    real = os.path.realpath(path)
    parts = Path(real).parts
    if not os.path.isfile(real) or {"site-packages", "dist-packages"} & set(parts):
        return False
    if any(Path(real).is_relative_to(os.path.join(prefix, "lib")) for prefix in {sys.prefix, sys.base_prefix}):
        return False
    return any(Path(real).is_relative_to(os.path.realpath(folder)) for folder in folders)
