"""SEC003: names that do to a terminal, or to a reader, what names should not do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from onnxlint import Example, Finding, GraphView, Location, Options, Rule, Silent, printable

# C0 and C1 controls, bidirectional controls, invisible characters, line and paragraph separators. Joiners (U+200C, U+200D)
# are left out: scripts need them.
_INVISIBLE = r"\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_IN_NAMES = re.compile(rf"[\x00-\x1f\x7f-\x9f{_INVISIBLE}]")
# Metadata values and doc strings are text, of any script and of several lines.
_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e]")


class UnprintableName(Rule):
    """A name holds control characters, terminal escapes or bidirectional overrides.

    ## What it does

    Looks at every name that tools show: of the graphs, nodes, values, operators, domains, functions, dims, at the
    producer, and at keys and values of the metadata. Reports control characters (values of the metadata may have tabs
    and line ends), terminal escapes, invisible characters and bidirectional controls. The finding shows them escaped.

    ## Why it hurts

    - Tools print names as they are. A name like `\\x1b[2J` clears the terminal, others set its title, forge lines of a log
      or of a CI run, or write to the clipboard.
    - `\\u202e` makes a name read as another: what a reviewer sees is not what the file says ("Trojan Source").
    - A zero-width character makes two names that look the same differ: `session.run(["output"])` fails on a name that
      cannot be told from `output`.

    ## Fix it at the source

    ```python
    # before: names from the outside, as they come
    onnx.helper.make_node("Relu", [name], [out], name=layer_name)
    # after
    name = re.sub(r"[^\\w./:-]", "_", layer_name)
    ```

    ## Fix safety

    Names inside the graph can be renamed exactly. Names of inputs and outputs are the interface: renaming them changes
    it.

    ## References

    - [Names in the ONNX IR](https://onnx.ai/onnx/repo-docs/IR.html#names-within-a-graph): identifiers of the C language are
      asked for
    - [CWE-150](https://cwe.mitre.org/data/definitions/150.html): escape sequences that are not neutralized
    - [CVE-2021-42574](https://www.cve.org/CVERecord?id=CVE-2021-42574): bidirectional controls in source code
    """

    code = "SEC003"
    name = "unprintable-name"
    apart = True
    help = "rename it; do not print the names of a model like this to a terminal with other tools"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                "a\x1b[2J" = Relu (x)
                y = Neg ("a\x1b[2J")
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                a = Relu (x)
                y = Neg (a)
            }
            """,
            says=r"'a\x1b[2J'",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13], producer_name: "py\u202ehcrot",
             metadata_props: ["license\x07": "MIT", "note": "a\x1b]0;title"]>
            g (float[N,4] x) => (float[N,4] "out\u200bput") { "out\u200bput" = Relu (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13], producer_name: "pytorch", metadata_props: ["license": "MIT"]>
            g (float[N,4] x) => (float[N,4] output) { output = Relu (x) }
            """,
            findings=4,
            says=r"producer name 'py\u202ehcrot'",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13], producer_name: "büro", metadata_props: ["names": "猫\n犬\tمرحبا"]>
            g (float[N,4] "входной тензор") => (float[N,4] "出力/Relu:0") { "出力/Relu:0" = Relu ("входной тензор") }
            """,
            why="names of any script are names, and metadata may have several lines",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        proto = view.proto
        for what, text in (
            ("producer name", proto.producer_name),
            ("producer version", proto.producer_version),
            ("domain of the model", proto.domain),
        ):
            if _IN_NAMES.search(text):
                yield self.found(view.at(), f"{what} {_shown(text)} holds {_kind(text)}")
        for entry in proto.metadata_props:
            if _IN_NAMES.search(entry.key):
                yield self.found(view.at(), f"metadata key {_shown(entry.key)} holds {_kind(entry.key)}")
            elif _IN_TEXT.search(entry.value):
                yield self.found(
                    view.at(),
                    f"the metadata under {_shown(entry.key)} holds {_kind(entry.value, _IN_TEXT)}",
                )
        yield from self._of_kind(view, "graph", ((view.at(graph=g), g.path) for g in view.graphs if not g.is_function))
        yield from self._of_kind(view, "graph", [(view.at(), proto.graph.name)])
        yield from self._of_kind(view, "operator", ((view.at(), op) for op in view.ops))
        yield from self._nodes(view)
        yield from self._values(view)

    def _nodes(self, view: GraphView) -> Iterator[Finding]:
        names = [node.proto.name for graph in view.graphs for node in graph.nodes]
        if not _all_printable(names):
            nodes = (node for graph in view.graphs for node in graph.nodes if _IN_NAMES.search(node.proto.name))
            yield from self._of_kind(view, "node", ((view.at(node), node.proto.name) for node in nodes))

    def _values(self, view: GraphView) -> Iterator[Finding]:
        for graph in view.graphs:
            names: list[str] = [*graph.inputs, *graph.outputs, *graph.initializers]
            for node in graph.nodes:
                names += node.outputs
            if not graph.is_function:
                names += _symbols(graph.proto)
            if not _all_printable(names):
                yield from self._of_kind(
                    view, "value or dim", ((view.at(value=name, graph=graph), name) for name in dict.fromkeys(names))
                )

    def _of_kind(self, view: GraphView, what: str, named: Iterable[tuple[Location, str]]) -> Iterator[Finding]:
        """One finding for all names of a kind: a hostile file has as many as it wants."""
        bad = [(location, name) for location, name in named if _IN_NAMES.search(name)]
        if bad:
            location, name = bad[0]
            more = f"; {len(bad) - 1} more such names" if len(bad) > 1 else ""
            yield self.found(location, f"{what} name {_shown(name)} holds {_kind(name)}{more}", count=len(bad))


def _all_printable(names: Iterable[str]) -> bool:
    text = "".join(names)
    return text.isprintable() or not _IN_NAMES.search(text)


def _symbols(proto: object) -> list[str]:
    """Symbolic dims of a graph's inputs and outputs."""
    values = [*getattr(proto, "input", ()), *getattr(proto, "output", ())]
    return [dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_param]


def _shown(text: str) -> str:
    """The name, escaped, in quotes; a long one cut around what makes it bad."""
    match = _IN_NAMES.search(text)
    if len(text) > 80 and match:
        start = max(match.start() - 20, 0)
        text = f"{'…' if start else ''}{text[start : start + 60]}…"
    return f"'{printable(text)}'"


def _kind(text: str, pattern: re.Pattern[str] = _IN_NAMES) -> str:
    match = pattern.search(text)
    assert match is not None
    code = ord(match[0])
    if code in (0x1B, 0x9B):
        return "a terminal escape"
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"the control character U+{code:04X}"
    if code in (0x061C, 0x200E, 0x200F) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069:
        return f"the bidirectional control U+{code:04X}"
    return f"the invisible character U+{code:04X}"
