"""Findings of one kind together, for reports that people read: one message, one advice, many places."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from onnxlint.lint.finding import Applicability, CheckResult, Finding, Fix
from onnxlint.report._common import shown
from onnxlint.symbolic.free_sizes import MULTIPLE_OF
from onnxlint.text import counted, listed

_MULTIPLE = re.compile(rf"{MULTIPLE_OF}\d{{1,6}}")
_LARGEST = 1 << 16
"""Of a multiple that a hint names."""


class Group(NamedTuple):
    """Findings of one model that say the same about several places.

    Attributes:
        findings: One or more; the same rule, severity and advice.
    """

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The finding that is first in the model."""
        return self.findings[0]

    @property
    def places(self) -> int:
        """How many places they are about."""
        return sum(map(_places, self.findings))

    @property
    def message(self) -> str:
        """What they say: the message of one; of several the sentence that their rule has for all, or the first's."""
        if len(self.findings) == 1:
            return self.first.message
        messages = {finding.message for finding in self.findings}
        number = f"{self.places:,}"
        if len(messages) == 1:
            return f"{self.first.message} ({number} places)"
        if self.first.group:
            return f"{self.first.group} ({number} places)"
        return f"{self.first.message} ({number} places like this)"

    @property
    def conditions(self) -> tuple[str, ...]:
        """Under which condition the fixes hold: one, or none; conditions of several fixes are combined."""
        fixes = [finding.fix for finding in self.findings if finding.fix is not None]
        conditions = dict.fromkeys(fix.condition for fix in fixes if fix.condition)
        if len(conditions) < 2:
            return tuple(conditions)
        from onnxlint.fixes.conditions import strictest

        return (" and ".join(strictest(clause for one in conditions for clause in one.split(" and "))),)


def _places(finding: Finding) -> int:
    """How many places a finding is about: rules that report nodes of a kind together say how many these are."""
    count = dict(finding.evidence).get("count", "")
    return int(count) if count.isdecimal() and len(count) < _DIGITS else 1


_DIGITS = 10
"""Of a number of places at most: a team's own rules may call something else a count."""


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Findings by kind, in the order in which each kind comes first."""
    kinds: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        fix = None
        if finding.fix is not None:  # conditions of a group are combined, and so are the options for them
            flag = "" if finding.fix.condition else finding.fix.flag
            fix = (finding.fix.applicability, flag, finding.fix.shortens)
        kinds.setdefault((finding.code, finding.severity, finding.group, finding.help, fix), []).append(finding)
    return [Group(tuple(kind)) for kind in kinds.values()]


def split(result: CheckResult) -> tuple[list[Finding], list[Finding]]:
    """The findings that somebody can act on, and the others."""
    some = [finding for finding in result.findings if finding.actionable]
    return some, [finding for finding in result.findings if not finding.actionable]


def unactionable(findings: Sequence[Finding], listed_by: str = "-v") -> str:
    """The others in one sentence, with what lists them; empty if there are none."""
    if not findings:
        return ""
    codes = Counter(finding.code for finding in findings)
    shown_codes = listed(f"{code} ×{number}" if number > 1 else code for code, number in codes.items())
    many = counted(len(findings), "finding")
    return f"{many} that no fix and no other export would remove ({shown_codes}); {listed_by} lists them"


def fix_hint(results: Sequence[CheckResult]) -> str:
    """The meaning of `[*]` and the command to type, in one line; empty if nothing can be fixed."""
    fixes = [finding.fix for result in results for finding in result.findings if finding.fix is not None]
    if not fixes:
        return ""
    models = [result.model for result in results if any(finding.fix for finding in result.findings)]
    model = shlex.quote(shown(models[0])) if len(models) == 1 else "MODEL"
    command = f"[*] 'onnxlint fix {model} -o fixed.onnx'"
    options = Counter(map(_option, fixes))
    always = options.pop("", 0) - (shorter := sum(fix.shortens and not _option(fix) for fix in fixes))
    multiples = {option: number for option, number in options.items() if _MULTIPLE.fullmatch(option)}
    if len(multiples) > 1:  # what is a multiple of 32 is one of 16
        together = math.lcm(*(int(option.removeprefix(MULTIPLE_OF)) for option in multiples))
        if together <= _LARGEST:
            options = options - Counter(multiples)
            options[f"{MULTIPLE_OF}{together}"] = sum(multiples.values())
    does = [f"fixes {always}"] * bool(always) + [f"shortens {shorter}"] * bool(shorter)
    rest = [f"{number}{' more' if does else ''} with {option}" for option, number in options.items()]
    return "; ".join([f"{command} {' and '.join(does)}", *rest] if does else [f"{command} fixes {listed(rest)}"])


def _option(fix: Fix) -> str:
    """What has to be given for a fix beside the model; empty: nothing."""
    if fix.flag:
        return shown(fix.flag)
    if fix.applicability is Applicability.UNSAFE:
        return "--unsafe"
    if fix.applicability is Applicability.SAFE or not fix.condition:
        return ""
    return f"--assume {shlex.quote(shown(fix.condition))}"
