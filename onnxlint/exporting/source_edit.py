"""Lines of Python rewritten with LibCST: comments, formatting, encoding and line ends stay as they are."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxlint.exporting.suggestions import CAT, FLATTEN, SCALE, Suggestion

if TYPE_CHECKING:
    import libcst as cst

_LARGEST = 4 << 20


def edited(source: bytes, changes: Sequence[Suggestion]) -> tuple[bytes, tuple[Suggestion, ...]]:
    """A file with all changes that fit it, and those changes. One that finds no line that it fits is left out.

    Args:
        source: The file.
        changes: Of this file.
    """
    import libcst as cst

    made: list[Suggestion] = []
    if len(source) > _LARGEST:
        return source, ()
    for one in sorted(changes, key=lambda change: change.line, reverse=True):
        try:
            after = _change(source, one)
        except (cst.ParserSyntaxError, cst.CSTValidationError, SyntaxError, ValueError, RecursionError):
            continue
        if after is not None and after != source:
            source = after
            made.append(one)
    return source, tuple(reversed(made))


def unified(path: str, before: bytes, after: bytes) -> str:
    """The difference of two texts, as `diff -u` shows it."""
    old, new = (data.decode("utf-8", "replace").splitlines() for data in (before, after))
    return "\n".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", n=2, lineterm=""))


def _change(source: bytes, one: Suggestion) -> bytes | None:
    """The file with one change; None if no line, or more than one, fits."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper, PositionProvider

    wrapper = MetadataWrapper(cst.parse_module(source))
    places = wrapper.resolve(PositionProvider)
    found: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    class Finder(cst.CSTVisitor):
        def visit_Call(self, node: cst.Call) -> None:  # noqa: N802 - LibCST's name
            place = places[node]
            if one.kind != CAT and place.start.line <= one.line <= place.end.line:
                better = _better_call(node, one)
                if better is not None:
                    found.append((node, better))

        def visit_FunctionDef(self, node: cst.FunctionDef) -> None:  # noqa: N802 - LibCST's name
            if one.kind == CAT and node.name.value == "forward":
                first = min(places[part].start.line for part in (node, *node.decorators))
                if first == one.line and _has_name(wrapper.module, "torch"):
                    better = _better_return(node, int(one.value))
                    if better is not None:
                        found.append(better)

    wrapper.module.visit(Finder())
    if len(found) != 1:
        return None
    node, better = found[0]
    changed = wrapper.module.deep_replace(node, better)
    assert isinstance(changed, cst.Module)
    return changed.bytes


def _better_call(call: cst.Call, one: Suggestion) -> cst.Call | None:
    make: Callable[[cst.Call, str], cst.Call | None]
    make = {SCALE: _with_scale, FLATTEN: _with_flatten}.get(one.kind, _with_number)
    return make(call, one.value)


def _name(call: cst.Call) -> str:
    import libcst as cst

    function = call.func
    if isinstance(function, cst.Attribute):
        return function.attr.value
    return function.value if isinstance(function, cst.Name) else ""


def _with_scale(call: cst.Call, value: str) -> cst.Call | None:
    """`interpolate(x, size=…)` with `scale_factor=`."""
    import libcst as cst

    if _name(call) != "interpolate" or any(arg.star for arg in call.args):
        return None
    keywords = {arg.keyword.value: arg for arg in call.args if arg.keyword is not None}
    positional = [arg for arg in call.args if arg.keyword is None]
    if "scale_factor" in keywords or "recompute_scale_factor" in keywords:
        return None
    span = keywords.get("size", positional[1] if len(positional) == 2 else None)
    if span is None or (len(positional) > 2):
        return None
    equal = span.equal if isinstance(span.equal, cst.AssignEqual) else _tight()
    better = span.with_changes(keyword=cst.Name("scale_factor"), equal=equal, value=cst.parse_expression(value))
    return call.with_changes(args=[better if arg is span else arg for arg in call.args])


def _tight() -> cst.AssignEqual:
    import libcst as cst

    none = cst.SimpleWhitespace("")
    return cst.AssignEqual(whitespace_before=none, whitespace_after=none)


def _sizes(call: cst.Call) -> tuple[cst.BaseExpression, list[cst.BaseExpression]] | None:
    """The tensor and the sizes of `x.view(a, b)` or `x.reshape(a, b)`."""
    import libcst as cst

    if not isinstance(call.func, cst.Attribute) or _name(call) not in ("view", "reshape"):
        return None
    if any(arg.star or arg.keyword is not None for arg in call.args):
        return None
    return call.func.value, [arg.value for arg in call.args]


def _is_minus_one(value: cst.BaseExpression) -> bool:
    import libcst as cst

    return (
        isinstance(value, cst.UnaryOperation)
        and isinstance(value.operator, cst.Minus)
        and isinstance(value.expression, cst.Integer)
        and value.expression.value == "1"
    )


def _with_flatten(call: cst.Call, _value: str) -> cst.Call | None:
    """`x.view(x.size(0), -1)` as `x.flatten(1)`."""
    import libcst as cst

    parts = _sizes(call)
    if parts is None or len(parts[1]) != 2 or not _is_minus_one(parts[1][1]) or _is_minus_one(parts[1][0]):
        return None
    function = call.func
    assert isinstance(function, cst.Attribute)
    return call.with_changes(
        func=function.with_changes(attr=cst.Name("flatten")),
        args=[cst.Arg(cst.Integer("1"))],
    )


def _with_number(call: cst.Call, value: str) -> cst.Call | None:
    """`x.view(x.size(0), -1, 4)` as `x.view(-1, 100, 4)`; the number as a product of sizes where calls differ in it."""
    import libcst as cst

    parts = _sizes(call)
    if parts is None or len(parts[1]) != 3 or _is_minus_one(parts[1][0]) or not _is_minus_one(parts[1][1]):
        return None
    owner, sizes = parts
    if value.startswith("rank "):
        if not isinstance(owner, cst.Name) or not isinstance(sizes[2], cst.Name | cst.Attribute | cst.Integer):
            return None
        shown = cst.Module([]).code_for_node(sizes[2])
        factors = " * ".join(f"int({owner.value}.shape[{axis}])" for axis in range(1, int(value.removeprefix("rank "))))
        number: cst.BaseExpression = cst.parse_expression(f"{factors} // {shown}")
    else:
        number = cst.Integer(value)
    first, second, *rest = call.args
    minus_one = first.with_changes(value=cst.parse_expression("-1"))
    return call.with_changes(args=[minus_one, second.with_changes(value=number), *rest])


def _has_name(module: cst.Module, name: str) -> bool:
    """Whether a file says `import NAME`."""
    import libcst as cst

    return any(
        isinstance(alias.name, cst.Name) and alias.name.value == name and alias.asname is None
        for statement in module.body
        if isinstance(statement, cst.SimpleStatementLine)
        for small in statement.body
        if isinstance(small, cst.Import)
        for alias in small.names
    )


def _better_return(function: cst.FunctionDef, axis: int) -> tuple[cst.CSTNode, cst.CSTNode] | None:
    """`return a, b` as `return torch.cat([a, b], dim=2)`, where it is the one return of the function."""
    import libcst as cst

    returns: list[cst.Return] = []

    class Finder(cst.CSTVisitor):
        def visit_Return(self, node: cst.Return) -> None:  # noqa: N802 - LibCST's name
            returns.append(node)

        def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:  # noqa: N802 - LibCST's name
            return node is function  # those of functions inside are not this one's

        def visit_Lambda(self, node: cst.Lambda) -> bool:  # noqa: N802 - LibCST's name
            return False

    function.visit(Finder())
    if len(returns) != 1 or not isinstance(returns[0].value, cst.Tuple | cst.List):
        return None
    heads = returns[0].value.elements
    if len(heads) < 2 or any(isinstance(one, cst.StarredElement) for one in heads):
        return None
    texts = [cst.Module([]).code_for_node(one.value) for one in heads]
    if any("\n" in text or "#" in text for text in texts):
        return None
    better = cst.parse_expression(f"torch.cat([{', '.join(texts)}], dim={axis})")
    return returns[0], returns[0].with_changes(value=better, whitespace_after_return=cst.SimpleWhitespace(" "))
