"""What came out of an export, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onnxlint.exporting.options import Exporter
from onnxlint.lint.finding import CheckResult, Finding
from onnxlint.tabular import Tabular
from onnxlint.text import counted
from onnxlint.verification.results import Verification


@dataclass(frozen=True)
class Exported:
    """What one exporter made of the network.

    Attributes:
        exporter: Which.
        opset: Of its model; 0 without one.
        nodes: Of its model.
        findings: Number of its findings.
        why_not: Why its model was not taken, in one line; empty for the one that was.
        usable: Whether it could have been taken.
    """

    exporter: Exporter
    opset: int = 0
    nodes: int = 0
    findings: int = 0
    why_not: str = ""
    usable: bool = True


@dataclass(frozen=True)
class Weights:
    """What was loaded into the network.

    Attributes:
        file: As the user named it.
        sha256: Of that file.
        keys: Tensors that the network took.
        notes: How they were found: the entry, the prefix, what else fits, what is missing with the user's consent.
    """

    file: str
    sha256: str
    keys: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceDiff:
    """A better line for the network's source.

    Attributes:
        path: The file.
        line: 1-based.
        codes: Rules that ask for it.
        text: A unified diff.
        condition: Under which the line computes the same; empty: for all inputs.
        state: `proposed`, `applied`, or `put back`.
        why: Why it was put back; how the outputs compare, if it was applied.
    """

    path: str
    line: int
    codes: tuple[str, ...]
    text: str
    condition: str = ""
    state: str = "proposed"
    why: str = ""


@dataclass(frozen=True, repr=False)
class ExportReport(Tabular):
    """What `export` made: a file, and what is known of it. `len(report)` findings, which iteration gives.

    Attributes:
        output: The file; None if none was written.
        size: Bytes of the file.
        network: Class of the network.
        exporter, opset: Of the file.
        why: Why it is this exporter's; empty if only that was asked for.
        attempts: What each exporter made.
        inputs, outputs: Names.
        weights: What was loaded; None for the factory's own.
        verification: The network and the file on the same inputs; None if that was not asked for.
        check: Findings, as `check` reports them.
        notes: What the user should know beside that.
        diffs: Better lines for the network's source.
        metadata: What the file says of its origin.
        seconds: Wall time.
    """

    output: str | None
    size: int
    network: str
    exporter: Exporter
    opset: int
    why: str
    attempts: tuple[Exported, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Weights | None
    verification: Verification | None
    check: CheckResult
    notes: tuple[str, ...] = ()
    diffs: tuple[SourceDiff, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def entries(self) -> tuple[Finding, ...]:
        """The findings."""
        return self.check.findings

    def rows(self) -> list[dict[str, Any]]:
        """A row for each finding, as for `check`."""
        return self.check.rows()

    def headline(self) -> str:
        """The network, the exporter and the number of findings."""
        where = f" → {self.output}" if self.output is not None else ""
        return f"{self.network}{where}: {self.exporter}, opset {self.opset}, {counted(len(self.check.findings), 'finding')}"
