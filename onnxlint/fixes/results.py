"""Result of a fix, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.lint.finding import Applicability, Finding
from onnxlint.tabular import Tabular
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    from onnxlint.verification.results import Verification

Key = tuple[str, str, str]
"""Key of a finding that patches elsewhere do not change: code, graph, node or value."""


@dataclass(frozen=True, repr=False)
class Applied:
    """A finding that a patch did away with.

    Attributes:
        finding: As it was before.
        round: In which round, from 1.
        is_rounded: Whether the patch computes something anew, such as folded weights, so that results may differ in
            the last digits, and where sums overflow.
        key: Key of the finding.
    """

    finding: Finding
    round: int
    is_rounded: bool = False
    key: Key = ("", "", "")

    @property
    def proof(self) -> str:
        """The evidence for the patch, in words."""
        fix = self.finding.fix
        if self.is_unsafe:
            return "asked for"
        words = ["proved up to rounding and overflow" if self.is_rounded else "proved"]
        if fix is not None and fix.but:
            words.append(f"but for {fix.but}")
        if fix is not None and fix.applicability is Applicability.ASSUMES:
            words.append(f"if {fix.condition}")
        return " ".join(words)

    def __repr__(self) -> str:
        return f"<Applied {self.finding.code} at {printable(self.finding.location.place)}: {printable(self.proof)}>"

    @property
    def is_unsafe(self) -> bool:
        """Whether the patch changes outputs or the interface on purpose."""
        fix = self.finding.fix
        return fix is not None and fix.applicability is Applicability.UNSAFE


@dataclass(frozen=True, repr=False)
class Left:
    """A finding that stays, and why."""

    finding: Finding
    why: str

    def __repr__(self) -> str:
        return f"<Left {self.finding.code} at {printable(self.finding.location.place)}: {printable(self.why)}>"


@dataclass(frozen=True)
class Simplified:
    """What onnxsim did to the model after all patches.

    Attributes:
        removed: Operator → nodes that it removed beyond the patches, most first; negative numbers are nodes that it added.
        refused: Why its result was rejected; empty if it was used.
    """

    removed: tuple[tuple[str, int], ...] = ()
    refused: str = ""


@dataclass(frozen=True, repr=False)
class FixReport(Tabular):
    """Result of a fix; iteration yields applied, shortened, remaining and rolled-back fixes.

    Attributes:
        model: The model as the user named it.
        asked: Changes that the user named explicitly, such as outputs to join; one line each.
        applied: Findings that patches did away with, in order.
        shortened: Findings that a patch made less of, and that stay: a shape chain that has to be computed.
        left: Findings of the result.
        rolled_back: Patches that were taken back, and why.
        conditions: What the result assumes about its inputs.
        nodes: Nodes before and after, Constants not counted.
        verification: The comparison of both models; None if it was not asked for, or nothing changed.
        not_compared: Changes of outputs on purpose, which the comparison leaves out; one line each.
        simplified: Changes by onnxsim; None without --simplify.
        has_minimum: Whether the fixes are exact for sizes of at least 1 only: an empty batch is no longer accepted.
        changed: Whether the result differs from the original at all.
        seconds: Wall time, verification included.
    """

    model: str
    asked: tuple[str, ...]
    applied: tuple[Applied, ...]
    shortened: tuple[Applied, ...]
    left: tuple[Left, ...]
    rolled_back: tuple[Left, ...]
    conditions: tuple[str, ...]
    nodes: tuple[int, int]
    verification: Verification | None
    changed: bool
    seconds: float
    not_compared: tuple[str, ...] = field(default=())
    simplified: Simplified | None = None
    has_minimum: bool = False

    def entries(self) -> tuple[Applied | Left, ...]:
        """Applied, shortened, remaining and rolled-back fixes, in this order."""
        return (*self.applied, *self.shortened, *self.left, *self.rolled_back)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each: state, code, name, place, message, and the evidence or the reason."""
        states = (("applied", self.applied), ("shortened", self.shortened), ("left", self.left))
        return [
            {
                "state": state,
                "code": one.finding.code,
                "name": one.finding.name,
                "place": one.finding.location.place,
                "message": one.finding.message,
                "why": one.proof if isinstance(one, Applied) else one.why,
            }
            for state, entries in (*states, ("rolled back", self.rolled_back))
            for one in entries
        ]

    def headline(self) -> str:
        """The model, how many findings were fixed, and how many are left."""
        verified = self.verification is not None and self.verification.verified
        shorter = f", shortened {counted(len(self.shortened), 'chain')}" if self.shortened else ""
        return (
            f"{self.model}: fixed {counted(len(self.applied), 'finding')}{shorter}, {len(self.left)} left"
            f"{', verified' if verified else ''}"
        )
