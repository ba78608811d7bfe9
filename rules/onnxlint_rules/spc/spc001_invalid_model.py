"""SPC001: what onnx.checker refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

from onnxlint import Example, Finding, GraphView, Node, Options, Rule, Severity, Silent, counted, printable
from onnxlint.rulekit import first_opset, inline_span, newest_ir_version, newest_opset, tensor_bytes
from onnxlint_rules._tensors import stored_tensors
from onnxlint_rules.spc._copy import Copy, empty_tensor

if TYPE_CHECKING:
    from onnxlint import Graph, Location

MAX_FAULTS = 10
"""The checker stops at a fault; it is run again without the node that had it, so often at most."""

_EXPERIMENTAL = (
    "ATen",
    "Affine",
    "ConstantFill",
    "Crop",
    "DynamicSlice",
    "GRUUnit",
    "GivenTensorFill",
    "ImageScaler",
    "ParametricSoftplus",
    "Scale",
    "ScaledTanh",
)
"""Operators from before ONNX 1.0, about which the checker prints on standard output."""

_UNSORTED = re.compile(r"must be topologically sorted, however input '(.*?)' of node", re.DOTALL)
_TWICE = re.compile(r"however '(.*?)' has been used as output names multiple times", re.DOTALL)
_NO_OP = re.compile(r"No Op registered for (.*?) with domain_version of (\d+)", re.DOTALL)
_NO_IMPORT = re.compile(r"No opset import for domain '(.*?)'", re.DOTALL)
_NAMED = re.compile(r"tensor name: (.*?)\)|Graph output '(.*?)' is not|^(.*) in initializer but not", re.DOTALL)


class InvalidModel(Rule):
    """The model breaks the ONNX specification.

    ## What it does

    Runs `onnx.checker` on the model without its weights and reports what it finds, each fault at its node: unknown or
    missing attributes, wrong numbers of inputs, operators that the imported operator set does not have, values that are
    read before they are made, made twice, or never made, tensors whose data is shorter than their shape (of less than
    4 KiB: with onnx 1.23 and later).
    The checker stops at the first fault; the rule takes the faulty node aside and goes on. A model newer than the
    installed `onnx` is checked as far as that version can, and the finding says so.

    ## Why it hurts

    - onnxruntime refuses most such models when it loads them, with a message that seldom names the node.
    - Converters and simplifiers that do not check first write wrong models from them, or crash.

    ## Fix it at the source

    ```python
    # after every edit with onnx.helper or onnx_graphsurgeon
    onnx.checker.check_model(model)
    # and for an operator that is too new for the operator set
    torch.onnx.export(model, args, "model.onnx", opset_version=20)
    ```

    ## Fix safety

    Sorting nodes is exact. No other fault has one right repair: what the author meant is not in the file.

    ## References

    - [The ONNX IR specification](https://onnx.ai/onnx/repo-docs/IR.html)
    - [onnx.checker](https://onnx.ai/onnx/api/checker.html)
    """

    code = "SPC001"
    name = "invalid-model"
    apart = True
    severity = Severity.ERROR
    help = "repair the program that wrote the model, or export it again"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                a = Relu <slope = 0.1> (x)
                y = Neg (a)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                a = LeakyRelu <alpha = 0.1> (x)
                y = Neg (a)
            }
            """,
            says="Unrecognized attribute: slope for operator Relu",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                y = Relu (a)
                a = Neg (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) {
                a = Neg (x)
                y = Relu (a)
            }
            """,
            says="reads 'a' before the node that makes it",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y, float[N,4] z) {
                y = Gelu (x)
                y = Relu (x)
                z = Add (x)
            }
            """,
            findings=3,
            says="Gelu came with opset 20, and the model imports opset 13",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[2,4] x, bool c) => (float[2,4] y) {
                y = If (c) <
                    then_branch = t () => (float[2,4] a) { a = Cast (x) },
                    else_branch = e () => (float[2,4] b) { b = Relu (nowhere) }
                >
            }
            """,
            findings=2,
            says="Required attribute 'to' is missing",
        ),
        Example(
            bad="""
            <ir_version: 90, opset_import: ["": 900]>
            g (float[4] x) => (float[4] y) { y = Relu (x) }
            """,
            findings=2,
            says="cannot be checked whole",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13, "com.example": 1]>
            g (float[N,4] x) => (float[N,4] y) { y = com.example.Fancy <depth = 3> (x) }
            """,
            why="operators of other domains have no specification to break",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4] x) => (float[N,4] y) <float[4] w = ["location": "nowhere.bin"]> { y = Add (x, w) }
            """,
            why="missing external data is SEC002's",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[1,1,2,2] x, float[4] s) => (float[1,1,4,4] y) { y = Upsample (x, s) }
            """,
            why="deprecated operators are OPS002's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        copy = Copy(view, deepcopy(view.proto))
        copy.empty_tensors()
        for node in view.nodes(*_EXPERIMENTAL):
            copy.skip_node(node)
        yield from self._too_new(view, copy)
        yield from self._short_tensors(view)
        yield from self._unsorted(view, copy)
        yield from self._faults(view, copy)

    def _too_new(self, view: GraphView, copy: Copy) -> Iterator[Finding]:
        """Report versions newer than the installed onnx; the copy is set to the newest known ones."""
        known = newest_ir_version()
        if view.proto.ir_version > known:
            yield self.found(
                view.at(),
                f"IR version {view.proto.ir_version} is newer than onnx {_installed()} knows ({known}): "
                "the model cannot be checked whole",
                help="update onnx; or export for an older version, which more runtimes load",
                severity=Severity.INFO,
            )
            copy.proto.ir_version = known
        newest = newest_opset()
        if view.opset > newest:
            yield self.found(
                view.at(),
                f"opset {view.opset} is newer than onnx {_installed()} knows ({newest}): operators are checked as "
                f"opset {newest} has them",
                help="update onnx; or export for an older operator set, which more runtimes load",
                severity=Severity.INFO,
            )

    def _short_tensors(self, view: GraphView) -> Iterator[Finding]:
        """Large tensors, which the checker does not see, that are shorter than their shape."""
        for stored in stored_tensors(view):
            span = inline_span(stored.tensor)
            needed = tensor_bytes(stored.tensor)
            if span is None or span.field != "raw_data" or needed is None:
                continue
            if min(stored.tensor.dims, default=0) < 0 or span.length < needed:
                shape = list(stored.tensor.dims)
                yield self.found(
                    stored.at(view),
                    f"tensor {printable(stored.name)!r} holds {span.length} bytes, and its shape {shape} takes {needed}",
                )

    def _unsorted(self, view: GraphView, copy: Copy) -> Iterator[Finding]:
        """Graphs whose nodes stand in another order than they run; sorts them in the copy."""
        for graph in view.graphs:
            if graph.is_sorted:
                continue
            moved = [node for node in graph.nodes for i in range(len(node.inputs)) if _comes_later(node, i)]
            late = list(dict.fromkeys(moved))
            if late:
                first = late[0]
                name = next(first.input(i) for i in range(len(first.inputs)) if _comes_later(first, i))
                others = len(late) - 1
                more = f", as {'does' if others == 1 else 'do'} {counted(others, 'other node')}" if others else ""
                yield self.found(
                    view.at(first),
                    f"{first.op} reads {printable(name)!r} before the node that makes it{more}: nodes must be sorted",
                )
            copy.sort(graph)

    def _faults(self, view: GraphView, copy: Copy) -> Iterator[Finding]:
        for _ in range(MAX_FAULTS):
            text = _refusal(copy)
            if text and not copy.labels:
                copy.label()
                text = _refusal(copy)
            if not text:
                return
            fault = _fault(view, copy, text)
            if fault.message:
                yield self.found(fault.location, fault.message, severity=fault.severity)
            if not fault.repaired:
                return


class _Fault(NamedTuple):
    """What the checker said.

    Attributes:
        message: One line; empty if another rule reports it.
        location: Where.
        repaired: Whether the copy has lost the fault, so that the checker can look for the next.
        severity: Where it is not the rule's own.
    """

    message: str
    location: Location
    repaired: bool
    severity: Severity | None = None


def _installed() -> str:
    """Version of onnx."""
    from importlib.metadata import version

    return version("onnx")


def _refusal(copy: Copy) -> str:
    """Why the checker refuses the copy; empty if it does not."""
    from onnxlint.rulekit import Crashed, run_checker

    try:
        run_checker(copy.proto.SerializeToString())
    except Crashed as error:
        return f"onnx's checker does not survive this model: {error}"
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def _fault(view: GraphView, copy: Copy, text: str) -> _Fault:
    message = _clean(copy, text)
    match = _UNSORTED.search(text)
    if match:
        return _read_before_made(view, copy, match[1], copy.labelled(text)[0])
    match = _TWICE.search(text)
    if match:
        return _made_twice(view, copy, match[1])
    match = _NO_IMPORT.search(text)
    if match:
        return _not_imported(view, copy, match[1])
    node = _node(view, copy, text)
    match = _NO_OP.search(text)
    if match and node is not None:
        copy.skip_node(node)
        return _Fault(_unknown_operator(match[1], node), view.at(node), True)
    if node is not None:
        copy.skip_node(node)
        return _Fault("" if "is deprecated in domain_version" in text else message, view.at(node), True)
    if "in initializer but not in graph input" in text:
        # Each initializer is a fault of its own: they are all reported as one.
        copy.proto.ir_version = 4
        name = text.split(" in initializer", 1)[0]
        version = view.proto.ir_version
        message = f"{printable(name)!r} is an initializer but no graph input, which IR version {version} asks for"
        return _Fault(message, view.at(value=name), True, Severity.WARNING)  # onnxruntime loads it all the same
    match = _NAMED.search(text)
    name = next((group for group in match.groups() if group), "") if match else ""
    return _Fault(message, view.at(value=name), _drop(copy, name))


def _read_before_made(view: GraphView, copy: Copy, name: str, node: Node) -> _Fault:
    own = copy.node(node)
    for i, given in enumerate(own.input):
        if given == name:
            own.input[i] = ""
    made_later = node.graph.owner(name) is not None
    what = "before it is made" if made_later else "which nothing makes"
    copy.skip_node(node)
    return _Fault(
        f"{printable(node.op)} reads {printable(name)!r}{'' if made_later else ','} {what}", view.at(node), True
    )


def _made_twice(view: GraphView, copy: Copy, name: str) -> _Fault:
    makers = [node for graph in view.graphs for node in graph.nodes if name in copy.node(node).output]
    last = makers[-1] if makers else None
    if last is None:
        return _Fault(f"{printable(name)!r} is made more than once", view.at(value=name), False)
    own = copy.node(last)
    for i, made in enumerate(own.output):
        if made == name:
            own.output[i] = f"{name} {last.graph.path} {last.index}"
    return _Fault(
        f"{printable(last.op)} makes {printable(name)!r}, which is made elsewhere already: every value has one source",
        view.at(last),
        True,
    )


def _not_imported(view: GraphView, copy: Copy, domain: str) -> _Fault:
    nodes = [node for graph in view.graphs for node in graph.nodes if node.proto.domain == domain]
    copy.proto.opset_import.add(domain=domain, version=1)
    for function in copy.proto.functions:
        function.opset_import.add(domain=domain, version=1)
    more = f", as do {len(nodes) - 1} other nodes" if len(nodes) > 2 else ""
    return _Fault(
        f"{printable(nodes[0].op) if nodes else 'a node'} is of domain {printable(domain)!r}{more}, which the model does "
        "not import",
        view.at(nodes[0]) if nodes else view.at(),
        bool(nodes),
    )


def _unknown_operator(op: str, node: Node) -> str:
    from onnx import defs

    opset = node.graph.view.opset_of(node.proto.domain)
    shown = printable(node.op)
    try:
        since = defs.get_schema(op, node.proto.domain).since_version
    except defs.SchemaError:
        return f"{shown} is not an ONNX operator"
    first = first_opset(op, node.proto.domain)
    if first > opset:
        return f"{shown} came with opset {first}, and the model imports opset {opset}"
    return f"{shown} is not in opset {opset}; its newest version is of opset {since}"


def _node(view: GraphView, copy: Copy, text: str) -> Node | None:
    """The node that a message is about."""
    said, _, context = text.partition("==> Context")
    quoted = copy.labelled(said)
    if quoted:
        return quoted[0]
    around = copy.labelled(context)
    first = said.strip()
    if around:
        # The checker names the outermost node only.
        inside = [graph for graph in view.graphs if _is_inside(graph, around[0])]
        return _failing(copy, inside, first) or around[0]
    return _failing(copy, [graph for graph in view.graphs if graph.path.startswith("function:")], first)


def _is_inside(graph: Graph, node: Node) -> bool:
    here: Graph | None = graph
    while here is not None:
        if here.parent_node is node:
            return True
        here = here.parent
    return False


def _failing(copy: Copy, graphs: list[Graph], said: str) -> Node | None:
    """The first node of these graphs of which the checker, shown it alone, says the same."""
    wanted = copy.without_labels(said)
    for graph in graphs:
        refusals = copy.refusals(graph.nodes)
        for node in graph.nodes:
            refusal = refusals.get(id(node))
            if refusal and copy.without_labels(refusal).strip() == wanted:
                return node
    return None


def _drop(copy: Copy, name: str) -> bool:
    """Take an output or the content of an initializer out of the copy; whether there was one."""
    graph = copy.proto.graph
    for i, value in enumerate(graph.output):
        if value.name == name:
            del graph.output[i]
            return True
    for tensor in graph.initializer:
        if tensor.name == name and (len(tensor.dims) != 1 or tensor.dims[0] != 0):
            empty_tensor(tensor)
            return tensor.data_type != 0
    return False


def _clean(copy: Copy, text: str) -> str:
    said = text.partition("==> Context")[0]
    return printable(" ".join(copy.without_labels(said).split()))[:300].rstrip(" .")


def _comes_later(node: Node, i: int) -> bool:
    producer = node.producer(i)
    return producer is not None and producer.graph is node.graph and producer.index >= node.index
