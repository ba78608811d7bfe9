"""SHP012: a free size of an input that one number alone satisfies."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import BakedSize, baked_sizes
from onnxlint_rules._graph import advice, label

MAX_RELATION = 120
"""Characters of a condition on several sizes that a message shows."""


class BakedSizeRule(Rule):
    """An input declares a free size, but the graph holds the number that it was exported with.

    ## What it does

    Follows every size of the inputs through the graph, and reports each free axis for which the operators leave one size
    (or a largest one, or a few together with another axis), with the node that fixes it: a Reshape to constant numbers, a
    weight or an initial state of constant size that meets a free axis, a Concat or MatMul of both, a Gemm behind a Flatten.

    ## Why it hurts

    The declaration says that any size is accepted. At every other size the runtime stops with a shape mismatch, or,
    where a `-1` takes up what is left over, the model computes something else without a word.

    ## Fix it at the source

    ```python
    # before: int() takes the number of the example input into the graph
    h, w = (int(v) for v in x.shape[2:])
    y = x.view(-1, 9, h * w)
    # after
    y = x.flatten(2)
    ```

    Or declare the size fixed, if one is enough: leave it out of `dynamic_axes` or `dynamic_shapes`.

    ## Fix safety

    There is no patch: what the model should do at another size is not in the file.

    ## References

    - [torch.onnx.export](https://docs.pytorch.org/docs/stable/onnx_export.html): `dynamic_shapes`
    - [Tracing: Python numbers become constants](https://docs.pytorch.org/docs/stable/generated/torch.jit.trace.html)
    """

    code = "SHP012"
    name = "baked-size"
    apart = True
    severity = Severity.WARNING
    help = "compute with x.shape or flatten/unflatten in place of numbers, or declare the size fixed"
    since = "0.2.0"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H] x) => (float[N,2,12] y) <int64[3] target = {0, 2, 12}> {
                y = Reshape (x, target)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H] x) => (float[N,2,P] y) <int64[3] target = {0, 2, -1}> {
                y = Reshape (x, target)
            }
            """,
            says="axis 2 of input 'x' is declared free (H), but only size 6 runs: Reshape",
            dims={"H": 6},
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,T,16] x) => (float[A,6,2,8] y) <int64[4] target = {-1, 6, 2, 8}> {
                y = Reshape (x, target)
            }
            """,
            says="is declared free (T), but Reshape 'Reshape #0' is written for 6: other sizes fail, or move elements",
            dims={"T": 6},
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,H] x) => (float[N,2] y) <int64[2] target = {0, 2}> {
                small = MaxPool <kernel_shape = [4], strides = [4]> (x)
                y = Reshape (small, target)
            }
            """,
            says="no size above 7 runs",
            dims={"H": 7},
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,T,2] x) => (float[N,T,4] y) <float[1,3,2] position = {1, 2, 3, 4, 5, 6}> {
                y = Concat <axis = 2> (x, x)
                shifted = Add (x, position)
                z = Relu (shifted)
            }
            """.replace("(float[N,T,4] y)", "(float[N,T,4] y, float[N,T,2] z)"),
            says="axis 1 of input 'x' is declared free (T), but only sizes 1 and 3 run: Add",
            dims={"T": 3},
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,1,H,W] x) => (float[N,1] y) <float[4,1] w = {1, 2, 3, 4}> {
                flat = Flatten (x)
                y = MatMul (flat, w)
            }
            """,
            says="but only sizes with H*W = 4 (2 for example) run: MatMul 'MatMul #1' fixes it",
            dims={"H": 2, "W": 2},
            findings=2,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,6] x) => (float[N,2,12] y) <int64[3] target = {0, 2, 12}> {
                y = Reshape (x, target)
            }
            """,
            why="the size is declared fixed",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,4,H] x) => (float[N,2,P] y) <int64[3] target = {0, 2, -1}> {
                y = Reshape (x, target)
            }
            """,
            why="every size runs",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[H,W] x) => (float[P,1] y) <int64[2] target = {-1, 1}> {
                y = Reshape (x, target)
            }
            """,
            why="a column of all elements",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        for baked in baked_sizes(view):
            shape = view.main.shape(baked.input)
            declared = shape[baked.axis] if shape is not None and baked.axis < len(shape) else None
            yield self.found(
                view.at(baked.node),
                f"axis {baked.axis} of input {printable(baked.input)!r} is declared free"
                f"{f' ({printable(str(declared))})' if declared is not None else ''}, but {_what(baked)}",
                group=f"axes of {f'input {printable(baked.input)!r}' if baked.relation else 'inputs'} are declared free, "
                f"but {_sizes(baked)}",
                help=advice(
                    view, self.help, "compute with the sizes of the input in place of numbers, or declare it fixed"
                ),
                input=baked.input,
                axis=baked.axis,
                sizes=_relation(baked)
                if baked.relation
                else (str(baked.smallest) if baked.smallest == baked.largest else f"up to {baked.largest}"),
            )


def _what(baked: BakedSize) -> str:
    node = f"{printable(baked.node.op)} {label(baked.node)!r}"
    if not baked.fails:
        return f"{node} is written for {_written_for(baked)}: other sizes fail, or move elements to other axes"
    return f"{_sizes(baked)}: {node} fixes it"


def _sizes(baked: BakedSize) -> str:
    """The sizes that are right, as a clause that ends with its verb."""
    if not baked.fails:
        return f"the graph is written for {_written_for(baked)}"
    if baked.relation:
        return f"only sizes with {_relation(baked)} run"
    if baked.smallest != baked.largest:
        # Where a window is larger than what it slides over, runtimes differ: nothing is said of smaller sizes.
        return f"no size above {max(baked.largest, baked.other)} runs"
    if baked.other:
        return f"only sizes {min(baked.other, baked.smallest)} and {max(baked.other, baked.smallest)} run"
    return f"only size {baked.smallest} runs"


def _written_for(baked: BakedSize) -> str:
    if baked.relation:
        return f"sizes with {_relation(baked)}"
    return f"{'up to ' * (baked.smallest != baked.largest)}{baked.largest}"


def _relation(baked: BakedSize) -> str:
    shown = baked.relation if len(baked.relation) <= MAX_RELATION else f"{baked.relation[:MAX_RELATION]}…"
    return f"{printable(shown)} ({baked.smallest} for example)"
