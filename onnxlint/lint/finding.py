"""What a rule reports: plain data that can be printed, pickled and compared."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.lint.excerpt import Neighbourhood


class Severity(str, enum.Enum):
    """How much a finding matters; `--fail-on` compares by `rank`."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        return {"error": 2, "warning": 1, "info": 0}[self.value]


class Applicability(str, enum.Enum):
    """How far a fix can be trusted (see DESIGN.md)."""

    SAFE = "safe"  # same outputs for every input that the original accepts
    ASSUMES = "assumes"  # same outputs wherever a stated condition holds
    UNSAFE = "unsafe"  # changes the interface or the numbers on purpose


@dataclass(frozen=True)
class Fix:
    """That a finding can be fixed, and on which terms.

    Attributes:
        applicability: How far the fix can be trusted.
        condition: For `assumes`, the condition in words or as an expression (`H % 32 == 0`).
        flag: The command-line flag that asks for this fix, where one is needed (`--concat-heads`).
    """

    applicability: Applicability
    condition: str | None = None
    flag: str | None = None


SAFE = Fix(Applicability.SAFE)


@dataclass(frozen=True)
class SourceLine:
    """One line of the Python program that was exported.

    Attributes:
        path: Relative to the repository it lies in where it is in one, else as the exporter wrote it.
        line: 1-based.
        code: The line's text, stripped; empty where the exporter did not keep it.
        function: The function it stands in.
    """

    path: str
    line: int
    code: str = ""
    function: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.code}".rstrip()


@dataclass(frozen=True)
class Location:
    """Where a finding is.

    Attributes:
        model: The model file as the user named it (`-` for standard input).
        graph: Path of the graph: `graph`, `graph/If_3.then_branch`, `function:domain.name`.
        node: Node name; empty for nameless nodes and for findings about values or the whole model.
        op_type: Operator of that node.
        index: Position of the node in its graph, 0-based.
        value: Tensor name, for findings about inputs, outputs and initializers.
        scope: Module scope that the exporter kept (`fpn`, `layer1.0`).
        source: Lines of Python, innermost last; empty where the exporter left no trace.
        near: The nearest graph output downstream, where there is neither scope nor source.
    """

    model: str
    graph: str = "graph"
    node: str = ""
    op_type: str = ""
    index: int | None = None
    value: str = ""
    scope: str = ""
    source: tuple[SourceLine, ...] = ()
    near: str = ""

    @property
    def place(self) -> str:
        """The shortest unambiguous name of the place, to be shown to people (not yet escaped)."""
        what = self.value if self.index is None else self.node or f"{self.op_type} #{self.index}"
        if self.graph == "graph":
            return what or "model"
        return f"{self.graph}/{what}" if what else self.graph


@dataclass(frozen=True)
class Finding:
    """One thing that will hurt, and where.

    Attributes:
        code: Rule code (`SHP001`).
        name: Rule name (`resize-by-sizes`).
        severity: After overrides of the configuration.
        message: One line; says what is wrong here, with the values that show it.
        location: Where.
        help: One line; what to do about it.
        evidence: Facts behind the message, as (key, value) pairs of text.
        fix: Present where onnxlint can fix it.
        fingerprint: Identity that survives re-export: rule, scope, operator and ordinal, no node numbers.
        neighbourhood: What is around it in the graph; only where the plan asks for it.
        after: What its fix makes of that, or in words why it cannot be drawn; None where that was not tried.
    """

    code: str
    name: str
    severity: Severity
    message: str
    location: Location
    help: str = ""
    evidence: tuple[tuple[str, str], ...] = ()
    fix: Fix | None = None
    fingerprint: str = ""
    neighbourhood: Neighbourhood | None = None
    after: Neighbourhood | str | None = None


@dataclass(frozen=True)
class FileError:
    """A model that could not be checked, and why (one line)."""

    model: str
    message: str


@dataclass(frozen=True)
class CheckResult:
    """All that `check` has to say about one model."""

    model: str
    findings: tuple[Finding, ...] = ()
    error: FileError | None = None
    suppressed: int = 0  # by the baseline, by per-file-ignores or inside the model
    seconds: float = field(default=0.0, compare=False)
