"""Tests that come from a rule's own examples: for the built-in rules and, by `onnxlint test-rules`, for anybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.rounds import is_allowed
from onnxlint.lint.engine import Plan, check_view
from onnxlint.lint.finding import Consent, Finding
from onnxlint.lint.rule import Example, Options, Request, Rule
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

if TYPE_CHECKING:
    import onnx

DEFAULT_SIZE = 4
"""Size of symbolic dims for which an example says nothing."""


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        name: `SHP001 bad 1 fires`.
        run: Raises AssertionError, with a message for the rule's author, where the rule does not hold.
    """

    name: str
    run: Callable[[], None]


def cases(rule: type[Rule]) -> Iterator[Case]:
    """Every test of a rule's examples."""
    for i, example in enumerate(rule.examples, 1):
        yield Case(f"{rule.code} bad {i} fires", lambda e=example: _fires(rule, e))  # type: ignore[misc]
        if example.good is not None:
            yield Case(f"{rule.code} good {i} is silent", lambda e=example: _is_silent(rule, e.good, e.options))  # type: ignore[misc]
            if example.equal:
                yield Case(f"{rule.code} bad {i} equals good", lambda e=example: _equal(e))  # type: ignore[misc]
        if rule.patch is not Rule.patch or rule.rewrite is not Rule.rewrite:
            yield Case(f"{rule.code} bad {i} is fixed, or stays as it is", lambda e=example: _fixed(rule, e))  # type: ignore[misc]
    for i, silent in enumerate(rule.silent, 1):
        yield Case(
            f"{rule.code} silent {i} ({silent.why})",
            lambda s=silent: _is_silent(rule, s.model, s.options),  # type: ignore[misc]
        )


def run_examples(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run the examples of the rules in files and folders.

    Yields:
        (name of the test, error or empty).

    Raises:
        OnnxlintError: A file cannot be imported, or a rule is incomplete.
    """
    from pathlib import Path

    from onnxlint.lint.registry import Registry, rules_at

    for rule in Registry(rule for path in paths for rule in rules_at(Path(path))):
        for case in cases(rule):
            problem = ""
            try:
                case.run()
            except AssertionError as error:
                problem = str(error) or "an assertion failed"
            except Exception as error:  # noqa: BLE001 - whatever a rule under test raises is its author's to see
                problem = f"{type(error).__name__}: {error}"
            yield case.name, problem


def findings_in(rule: type[Rule], text: str, options: Options) -> list[Finding]:
    """Findings of one rule in a model in ONNX's text syntax.

    Raises:
        AssertionError: The text does not parse, or the rule failed on it.
    """

    model = Model(path="example.onnx", proto=parse(text), size=0)
    if rule.needs_weights:
        options = replace(options, weights=True)
    findings, _, failures = check_view(make_view(model), Plan((rule,), options))
    if failures:
        raise AssertionError("; ".join(failures))
    return findings


def parse(text: str) -> onnx.ModelProto:
    """A model from ONNX's text syntax.

    Raises:
        AssertionError: It does not parse; the message has the parser's words.
    """
    import onnx.parser

    try:
        return onnx.parser.parse_model(text)
    except (onnx.parser.ParseError, OnnxlintError) as error:
        raise AssertionError(f"the example does not parse: {error}\n{text}") from None


def _fires(rule: type[Rule], example: Example) -> None:
    found = findings_in(rule, example.bad, example.options)
    if len(found) != example.findings:
        messages = "\n".join(f"  {f.location.place}: {f.message}" for f in found)
        raise AssertionError(f"{len(found)} findings in place of {example.findings}:\n{messages}")
    wrong = [f.code for f in found if f.code != rule.code]
    if wrong:
        raise AssertionError(f"findings of another code: {wrong}")
    if example.says and example.says not in found[0].message:
        raise AssertionError(f"the message lacks {example.says!r}: {found[0].message!r}")
    if any("\n" in f.message or not f.message for f in found):
        raise AssertionError("the message has more than one line")


def _is_silent(rule: type[Rule], text: str, options: Options) -> None:
    found = findings_in(rule, text, options)
    if found:
        raise AssertionError("it fires: " + "; ".join(f"{f.location.place}: {f.message}" for f in found))


def _equal(example: Example) -> None:
    assert example.good is not None
    _same_outputs(parse(example.bad), parse(example.good), dict(example.dims), "bad", "good")


def _same_outputs(
    one: onnx.ModelProto, other: onnx.ModelProto, dims: dict[str, int], one_is: str, other_is: str
) -> None:
    import numpy as np

    for seed in range(2):
        feeds = random_inputs(one, dims, seed)
        left, right = run(one, feeds), run(other, feeds)
        if len(left) != len(right):
            raise AssertionError(f"{one_is} has {len(left)} outputs, {other_is} has {len(right)}")
        for name, a, b in zip([o.name for o in one.graph.output], left, right, strict=True):
            if a.shape != b.shape:
                raise AssertionError(f"output {name}: shape {a.shape} in {one_is}, {b.shape} in {other_is}")
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"output {name}")


def _fixed(rule: type[Rule], example: Example) -> None:
    """What can be fixed becomes `good` (or lints clean as it does), and computes the same; what cannot stays as it is."""
    import onnx.checker

    from onnxlint.fixes.engine import fix_model

    options = replace(example.options, weights=True) if rule.needs_weights else example.options
    found = findings_in(rule, example.bad, example.options)
    plan, request = Plan((rule,), options), _request(found)
    bad = parse(example.bad)
    fixed, report = fix_model(Model(path="example.onnx", proto=bad, size=0), plan, request)
    stuck = [left for left in report.left if left.finding.fix is not None and is_allowed(left.finding.fix, request)]
    if stuck:
        raise AssertionError("its patch did not work: " + "; ".join(f"{s.finding.message}: {s.why}" for s in stuck))
    if not report.applied:
        if fixed is not bad:
            raise AssertionError("nothing was fixed, but the model changed")
        return
    onnx.checker.check_model(fixed)
    if len(report.left) > sum(finding.fix is None for finding in found):
        still = "; ".join(f"{left.finding.location.place}: {left.finding.message}" for left in report.left)
        raise AssertionError(f"the fixed example does not lint clean: {still}")
    # Heads that are joined already cannot be asked for again.
    request = replace(request, concat_heads=None)
    again, second = fix_model(Model(path="fixed.onnx", proto=fixed, size=0), plan, request)
    if again is not fixed or second.applied:
        raise AssertionError("fixing twice changes something")
    dims = dict(example.dims)
    if example.equal:
        _same_outputs(bad, fixed, dims, "bad", "the fixed model")
    if example.good is None:
        raise AssertionError("it can be fixed: give the fixed model as `good`")
    good = parse(example.good)
    if not report.left and _structure(fixed) != _structure(good):
        # Another form of the same is as good.
        _same_outputs(good, fixed, dims, "good", "the fixed model")


def _request(found: list[Finding]) -> Request:
    """A request that covers the fixes of all findings."""
    asked = {finding.fix.consent for finding in found if finding.fix is not None}
    clauses = [c for f in found if f.fix is not None and f.fix.condition for c in f.fix.condition.split(" and ")]
    multiples = [(symbol, int(number[:-5])) for symbol, number in (clause.split(" % ") for clause in clauses)]
    return Request(
        unsafe=Consent.UNSAFE in asked,
        multiples=tuple(multiples),
        concat_heads=() if Consent.CONCAT_HEADS in asked else None,
        drop_output_activations=Consent.DROP_OUTPUT_ACTIVATIONS in asked,
        clamp_fp16=Consent.CLAMP_FP16 in asked,
    )


def _structure(model: onnx.ModelProto) -> tuple[object, ...]:
    """What a graph computes from what, without the names of values and nodes; equal for equal graphs."""
    from hashlib import sha256

    from onnx import numpy_helper

    def digest(*what: object) -> str:
        return sha256(repr(what).encode()).hexdigest()

    graph = model.graph
    values = {value.name: digest("input", value.name) for value in graph.input}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        values[tensor.name] = digest(array.dtype.str, array.shape, array.tobytes())
    for node in graph.node:
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        operands = [values.get(name, name) for name in node.input]
        made = digest(node.domain, node.op_type, attributes, operands)
        values.update((name, digest(made, i)) for i, name in enumerate(node.output) if name)
    outputs = [(value.name, values.get(value.name)) for value in graph.output]
    return [value.name for value in graph.input], outputs, len(graph.node)


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """Outputs of a model in `onnx.reference`; inputs that the model lacks are left out."""
    from onnx.reference import ReferenceEvaluator

    names = {value.name for value in model.graph.input}
    return list(ReferenceEvaluator(model).run(None, {k: v for k, v in feeds.items() if k in names}))


def random_inputs(model: onnx.ModelProto, dims: dict[str, int], seed: int) -> dict[str, Any]:
    """Seeded values for the inputs of a model: normal floats, small non-negative integers."""
    import numpy as np
    from onnx import helper

    generator = np.random.default_rng(seed)
    initializers = {tensor.name for tensor in model.graph.initializer}
    feeds: dict[str, Any] = {}
    for value in model.graph.input:
        if value.name in initializers:
            continue
        tensor = value.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else dims.get(d.dim_param, DEFAULT_SIZE) for d in tensor.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
        else:
            feeds[value.name] = generator.integers(0, 2 if dtype.kind == "b" else 4, shape).astype(dtype)
    return feeds
