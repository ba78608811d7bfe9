"""Where something is: model file, graph, node or value, module scope, and the lines of Python behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceLine:
    """One line of the Python program that was exported.

    Attributes:
        path: Relative to the repository it lies in where it is in one, else as the exporter wrote it.
        line: 1-based.
        code: The line's text, stripped; empty if the exporter did not keep it.
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
        source: Lines of Python, innermost last; empty if the exporter left no trace.
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
