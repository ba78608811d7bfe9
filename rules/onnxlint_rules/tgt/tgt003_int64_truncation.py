"""TGT003: integers that a target cuts to 32 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxlint import Example, Finding, Graph, GraphView, Node, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import Target, target_names
from onnxlint_rules.tgt._tables import targets

if TYPE_CHECKING:
    from onnxlint import Location

INT64 = 7
LOW, HIGH = -(2**31), 2**31 - 1
_LIMITS = {-(2**63), -(2**63) + 1, 2**63 - 2, 2**63 - 1}

# Inputs that say "to the end" or "no bound" with a huge number: cut to the largest int32, they say the same.
_BOUNDS = {"Slice": (1, 2), "Clip": (1, 2), "Min": (0, 1), "Max": (0, 1)}


class Int64Truncation(Rule):
    """The model computes with integers of more than 32 bits, and the target has 32.

    ## What it does

    For targets that compute with 32-bit integers in place of int64, reports int64 constants beyond that range, and,
    where the caller has to know (TensorRT before 9), int64 inputs. Not reported: huge numbers that mean "to the end" or
    "no bound" (in Slice, Clip, Min and Max), and the largest and smallest int64, where the target makes the largest
    and smallest int32 of them and nothing computes with them.

    ## Why it hurts

    - TensorRT 8 clamps them (`One or more weights outside the range of INT32 was clamped`), pnnx keeps their low 32
      bits: both go on, and hashes, time stamps, ids and masks come out wrong.
    - An engine of TensorRT 8 has int32 bindings where the model has int64 inputs: a buffer of int64 token ids is read as
      twice as many int32, every other one 0.

    ## Fix it at the source

    ```python
    # before: a mask value that only int64 holds
    ids = torch.where(mask, ids, torch.tensor(2**40))
    # after: one that int32 holds as well
    ids = torch.where(mask, ids, torch.tensor(2**31 - 1))
    # for inputs: cast inside the model
    def forward(self, ids: torch.Tensor):  # int32
        return self.model(ids.long())
    ```

    ## Fix safety

    A smaller constant is exact only where it is compared or masked with; the author knows.

    ## References

    - [onnx-tensorrt 8.6: convertINT64](https://github.com/onnx/onnx-tensorrt/blob/6ba67d3428e05f690145373ca87fb8d32f98df45/onnx2trt_utils.cpp#L367)
    - [onnx-tensorrt's changelog, 9.0](https://github.com/onnx/onnx-tensorrt/blob/main/docs/Changelog.md): INT64 inputs need
      INT64 bindings since then, INT32 bindings before
    - [pnnx: load_onnx.cpp](https://github.com/Tencent/ncnn/blob/master/tools/pnnx/src/load_onnx.cpp), `Parameter`
    """

    code = "TGT003"
    name = "int64-truncation"
    apart = True
    help = "keep integers within 32 bits, or compute with them outside the model"
    targets = frozenset(target_names())
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (int32[4] x) => (int64[4] y) <int64 big = {4294967296}> {
                a = Cast <to = 7> (x)
                y = Add (a, big)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (int32[4] x) => (int64[4] y) <int64 big = {1024}> {
                a = Cast <to = 7> (x)
                y = Add (a, big)
            }
            """,
            findings=2,
            says="4294967296 of 'big' does not fit into int32",
            equal=False,
            options=Options(targets=("tensorrt-8", "ncnn")),
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (int64[N,S] input_ids, int64[N,S] attention_mask) => (int64[N,S] y) { y = Mul (input_ids, attention_mask) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (int32[N,S] input_ids, int32[N,S] attention_mask) => (int64[N,S] y) {
                a = Mul (input_ids, attention_mask)
                y = Cast <to = 7> (a)
            }
            """,
            says="int64 inputs 'input_ids', 'attention_mask'",
            options=Options(targets=("tensorrt-8",)),
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (float[1,8] x) => (float[1,A] y)
            <int64[1] start = {1}, int64[1] end = {9223372036854775807}, int64[1] axis = {1}> {
                y = Slice (x, start, end, axis)
            }
            """,
            why="the end of a Slice is clamped to the size anyway",
            options=Options(targets=("tensorrt-8", "ncnn")),
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 17]>
            g (int64[4] x) => (int64[4] y) <int64 big = {4294967296}> { y = Add (x, big) }
            """,
            why="TensorRT has int64 since version 9",
            options=Options(targets=("tensorrt", "onnxruntime")),
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for target in targets(options):
            if target.int64 == "yes":
                continue
            yield from self._inputs(view, target)
            for graph in view.graphs:
                for name, value, location in _large(view, graph):
                    readers = graph.consumers(name)
                    if readers and all(_is_harmless(node, name, value) for node in readers):
                        continue
                    yield self.found(
                        location,
                        f"{target}: {value} of {printable(name)!r} does not fit into int32: {target.int64_note}",
                        target=target.name,
                    )

    def _inputs(self, view: GraphView, target: Target) -> Iterator[Finding]:
        wide = [name for name in view.main.data_inputs if view.main.dtype(name) == INT64]
        if wide and target.int64_inputs:
            shown = ", ".join(repr(printable(name)) for name in wide[:4]) + (", …" if len(wide) > 4 else "")
            yield self.found(
                view.at(value=wide[0]),
                f"{target}: int64 input{'s' if len(wide) > 1 else ''} {shown}: {target.int64_inputs}",
                help="feed int32, or make the inputs int32 and cast them in the model",
                severity=Severity.INFO,
                target=target.name,
            )


def _large(view: GraphView, graph: Graph) -> Iterator[tuple[str, int, Location]]:
    """Small int64 constants with elements beyond int32: (value name, the worst element, where)."""
    constants: list[tuple[str, Location | None]] = [
        (name, None) for name, tensor in graph.initializers.items() if tensor.data_type == INT64
    ]
    constants += [(node.output(), view.at(node)) for node in view.nodes("Constant") if node.graph is graph]
    for name, location in constants:
        given = graph.numbers(name)
        if given is None or given.kind != "i" or given.bits < 64 or not given.values:
            continue
        ends = (min(given.values), max(given.values))
        worst = next((value for value in ends if not LOW <= value <= HIGH), None)
        if worst is not None:
            yield name, worst, location or view.at(value=name, graph=graph)


def _is_harmless(node: Node, name: str, value: int) -> bool:
    """Whether the number means the same when it is cut to int32's range."""
    if node.op in _BOUNDS and all(i in _BOUNDS[node.op] for i, read in enumerate(node.inputs) if read == name):
        return True
    # Both kinds of target make the largest int32 of the largest int64; only arithmetic would notice.
    return value in _LIMITS and node.op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Where")
