"""What `onnxlint test-rules` demands of a rule's examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxlint import SAFE, Example, Finding, Rule
from onnxlint.fixes.rule_tests import cases

SECTIONS = "\n\n".join(
    f"## {title}\n\nText."
    for title in ("What it does", "Why it hurts", "Fix it at the source", "Fix safety", "References")
)


class NoRelu(Rule):
    """Finds Relu and Clip, and fixes Relu only, by a Clip."""

    code = "TST901"
    name = "no-relu"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N,4] x) => (float[N,4] y) <float zero = {0}> { y = Max (x, zero) }
            """,
        ),
    )

    def check(self, view: Any, options: Any) -> Iterator[Finding]:
        for node in view.nodes("Relu", "Clip"):
            yield self.found(view.at(node), f"{node.op} is not wanted", fix=SAFE if node.op == "Relu" else None)

    def patch(self, finding: Any, view: Any, surgeon: Any, request: Any) -> None:
        import numpy as np

        node = view.find(finding.location)
        held = surgeon.node(node)
        held.op, held.name = "Clip", "clip"
        held.inputs.append(surgeon.constant("zero", np.array(0, np.float32)))


NoRelu.__doc__ = f"{NoRelu.__doc__}\n\n{SECTIONS}"


def problems(rule: type[Rule]) -> dict[str, str]:
    found = {}
    for case in cases(rule):
        try:
            case.run()
        except AssertionError as error:
            found[case.name] = str(error)
    return found


def test_a_fixed_example_that_does_not_lint_clean_fails() -> None:
    (problem,) = problems(NoRelu).items()
    assert problem == (
        "TST901 bad 1 is fixed, or stays as it is",
        "the fixed example does not lint clean: clip: Clip is not wanted",
    )


def test_another_form_that_lints_clean_is_as_good() -> None:
    class Better(NoRelu):
        __doc__ = NoRelu.__doc__

        def check(self, view: Any, options: Any) -> Iterator[Finding]:
            yield from (finding for finding in super().check(view, options) if finding.fix is not None)

    assert problems(Better) == {}
