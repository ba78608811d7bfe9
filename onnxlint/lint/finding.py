"""Findings of rules: plain data that can be printed, pickled and compared."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxlint.graph.location import Location
from onnxlint.tabular import Tabular
from onnxlint.text import counted, printable

if TYPE_CHECKING:
    from onnxlint.lint.neighbourhood import Neighbourhood


class Severity(str, enum.Enum):
    """How much a finding matters; `--fail-on` compares by `rank`."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """2 for errors, 1 for warnings, 0 for info."""
        return {"error": 2, "warning": 1, "info": 0}[self.value]


class Applicability(str, enum.Enum):
    """Applicability of a fix (see DESIGN.md)."""

    SAFE = "safe"  # same outputs for every input that the original accepts
    ASSUMES = "assumes"  # same outputs wherever a stated condition holds
    UNSAFE = "unsafe"  # changes the interface or the numbers on purpose


class Consent(str, enum.Enum):
    """The option of `onnxlint fix` that allows a fix which changes outputs or the interface."""

    UNSAFE = "--unsafe"
    CONCAT_HEADS = "--concat-heads"
    DROP_OUTPUT_ACTIVATIONS = "--drop-output-activations"
    CLAMP_FP16 = "--clamp-fp16"
    RENAME = "--rename"
    DYNAMIC = "--dynamic"


@dataclass(frozen=True)
class Fix:
    """That a finding can be fixed, and on which terms.

    Attributes:
        applicability: Whether the fix is safe or unsafe.
        condition: For `assumes`, the condition in words or as an expression (`H % 32 == 0`).
        flag: The command-line flag that asks for this fix, where one is needed (`--concat-heads`), with its arguments; of
            a fix under a condition the one that allows it (`--multiple-of 32`), which the engine fills in.
        shortens: Whether the finding stays, with less to compute: a shape chain that gets shorter.
        but: What may differ although the fix is safe (`the sign of zeros`); empty if nothing does.
        batch: The batch that the model is made for, where an unsafe fix is to keep what it computes for that, and to give
            the samples of larger batches what they get alone; 0 for other fixes.
    """

    applicability: Applicability
    condition: str | None = None
    flag: str | None = None
    shortens: bool = False
    but: str = ""
    batch: int = 0

    @property
    def consent(self) -> Consent | None:
        """The option that allows it: that of the flag, else `--unsafe`; None if it is safe under its conditions."""
        if self.applicability is not Applicability.UNSAFE:
            return None
        option = (self.flag or "").split(" ", 1)[0]
        return next((one for one in Consent if one.value == option), Consent.UNSAFE)


SAFE = Fix(Applicability.SAFE)


@dataclass(frozen=True, repr=False)
class Finding:
    """One thing that will hurt, and where.

    Attributes:
        code: Rule code (`SHP001`).
        name: Rule name (`resize-by-sizes`).
        severity: After overrides of the configuration.
        message: One line; the problem here, with the values that show it.
        location: Where.
        help: One line; what to do about it.
        evidence: Facts behind the message, as (key, value) pairs of text.
        fix: Present where onnxlint can fix it.
        actionable: False if neither a fix nor another export can remove it (a size that has to be computed): reports for
            people count these at the end.
        group: The common message of findings of its kind, as a sentence in the plural, for reports that show those
            together (`Reshape targets are computed from shapes, and could be constants`); empty: show it by itself.
        covers: Places where other findings are not reported, because nothing there ever runs, or because it goes with what
            this finding is about: (path of a graph, position of a node in it, or None for the whole graph).
        fingerprint: Identity that survives re-export: rule, scope, operator and ordinal, no node numbers.
        neighbourhood: What is around it in the graph; only where the plan asks for it.
        after: The neighbourhood after the fix, or the reason why it cannot be drawn; None if not tried.
    """

    code: str
    name: str
    severity: Severity
    message: str
    location: Location
    help: str = ""
    evidence: tuple[tuple[str, str], ...] = ()
    fix: Fix | None = None
    actionable: bool = True
    group: str = ""
    covers: tuple[tuple[str, int | None], ...] = ()
    fingerprint: str = ""
    neighbourhood: Neighbourhood | None = None
    after: Neighbourhood | str | None = None

    def __repr__(self) -> str:
        return f"<Finding {self.code} {self.severity.value} at {printable(self.location.place)}: {printable(self.message)}>"


@dataclass(frozen=True)
class FileError:
    """A model that could not be checked, and why (one line)."""

    model: str
    message: str


@dataclass(frozen=True, repr=False)
class CheckResult(Tabular):
    """What `check` found in one model: `len(result)` findings, which iteration gives.

    Attributes:
        model: The model as the user named it.
        findings: In the order of the graph.
        error: Why the model could not be checked, or only in part.
        suppressed: Findings silenced by a baseline, by the configuration or inside the model.
        seconds: Wall time.
        notes: What the user should know about how it was read; one line each.
        cacheable: Whether the result depends on the model's own bytes, the rules and the configuration alone; known
            where results are kept.
        content: Of a remote model whose result is cacheable, what its store or server calls the bytes that were read;
            empty if nothing stands for them.
    """

    model: str
    findings: tuple[Finding, ...] = ()
    error: FileError | None = None
    suppressed: int = 0  # by the baseline or inside the model
    suppressed_codes: tuple[str, ...] = ()  # theirs, each once
    seconds: float = field(default=0.0, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    cacheable: bool = field(default=False, compare=False)
    content: str = field(default="", compare=False)

    def entries(self) -> tuple[Finding, ...]:
        """The findings."""
        return self.findings

    def rows(self) -> list[dict[str, Any]]:
        """A row for each finding: model, code, name, severity, place, message, source, help, fix."""
        return [
            {
                "model": self.model,
                "code": one.code,
                "name": one.name,
                "severity": one.severity.value,
                "place": one.location.place,
                "message": one.message,
                "source": str(one.location.source[-1]) if one.location.source else "",
                "help": one.help,
                "fix": one.fix.applicability.value if one.fix is not None else "",
            }
            for one in self.findings
        ]

    def headline(self) -> str:
        """The model and the number of findings."""
        failed = f", failed: {self.error.message}" if self.error is not None else ""
        return f"{self.model}: {counted(len(self.findings), 'finding')}{failed}"
