"""SHP011: an input size that a fix ruled out."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, counted, printable


class BrokenAssumption(Rule):
    """An input has a fixed size that contradicts what the model was fixed under.

    ## What it does

    Some fixes are exact only for some sizes: a Resize that follows another map becomes one by a constant 2 where height
    and width are multiples of 32. `onnxlint fix` writes such a condition into the model's metadata (`onnxlint.assumes`).
    Reports each input that has a fixed size which breaks one, and conditions that cannot be used: damaged ones, and those
    about a size that no input has.

    ## Why it hurts

    Maps that are added or joined no longer have the same size: runtimes stop with a shape mismatch, or, where the maps
    broadcast or are cropped, compute something else.

    ## Fix it at the source

    ```python
    # before
    torch.onnx.export(model, torch.zeros(1, 3, 600, 600), "model.onnx")
    # after: sizes that the network divides without a remainder
    torch.onnx.export(model, torch.zeros(1, 3, 608, 608), "model.onnx")
    ```

    Or fix the original model again, at the size that is wanted: `onnxlint fix --static 'image=1,3,600,600'`.

    ## Fix safety

    There is no patch: the original, in which the sizes were still computed, is needed.

    ## References

    - [ONNX: metadata_props](https://onnx.ai/onnx/repo-docs/IR.html#models)
    - [Resize](https://onnx.ai/onnx/operators/onnx__Resize.html): scales and sizes
    """

    code = "SHP011"
    name = "broken-assumption"
    apart = True
    severity = Severity.ERROR
    help = "choose a size that fits, or fix the original at this size"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13],
             metadata_props: ["onnxlint.assumes": "H % 32 == 0", "onnxlint.symbols": "{\\"H\\": [[\\"x\\", 2]]}"]>
            g (float[1,3,600,640] x) => (float[1,3,600,640] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13],
             metadata_props: ["onnxlint.assumes": "H % 32 == 0", "onnxlint.symbols": "{\\"H\\": [[\\"x\\", 2]]}"]>
            g (float[1,3,608,640] x) => (float[1,3,608,640] y) {
                y = Relu (x)
            }
            """,
            equal=False,
            says="axis 2 of input 'x' is 600, and the model was fixed under H % 32 == 0",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13], metadata_props: ["onnxlint.assumes": "H % 0 == 0 and W % 8 == 0"]>
            g (float[1,3,H,H] x) => (float[1,3,H,H] y) {
                y = Relu (x)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13], metadata_props: ["onnxlint.assumes": "H % 8 == 0"]>
            g (float[1,3,H,H] x) => (float[1,3,H,H] y) {
                y = Relu (x)
            }
            """,
            says="condition 'H % 0 == 0' in the model's metadata is not of the form 'H % 32 == 0'; 1 other cannot be used",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13], metadata_props: ["onnxlint.assumes": "H % 32 == 0"]>
            g (float[1,3,H,W] x) => (float[1,3,H,W] y) {
                y = Relu (x)
            }
            """,
            why="the size is free",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        if not view.proto.metadata_props:
            return
        from onnxlint.rulekit import assumptions, unusable_assumptions

        unusable = unusable_assumptions(view.proto)
        if unusable:
            clause, why = unusable[0]
            shown = printable(clause if len(clause) <= _SHOWN else f"{clause[:_SHOWN]}…")
            more = f"; {counted(len(unusable) - 1, 'other')} cannot be used either" if len(unusable) > 1 else ""
            yield self.found(
                view.at(),
                f"condition '{shown}' in the model's metadata {why}{more}: nothing checks it",
                severity=Severity.WARNING,
                help="remove onnxlint.assumes from metadata_props, or fix the original model again",
            )
        for one in assumptions(view.proto):
            shape = view.main.shape(one.input) or ()
            size = shape[one.axis] if one.axis < len(shape) else None
            if isinstance(size, int) and size % one.multiple:
                yield self.found(
                    view.at(value=one.input),
                    f"axis {one.axis} of input {printable(one.input)!r} is {size}, and the model was fixed under "
                    f"{printable(one.clause)}",
                )


_SHOWN = 80
"""Characters of a condition that are shown."""
