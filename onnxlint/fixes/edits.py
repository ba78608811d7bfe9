"""Changes that a user asks for explicitly: functions from a model to a model, applied in order.

They make the reference that all later patches are measured against; see `onnxlint.fixes.engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from onnxlint.graph.view import GraphView
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    from onnxlint.lint.rule import Request
    from onnxlint.model.skeleton import Model


@dataclass(frozen=True)
class Edited:
    """Result of an edit.

    Attributes:
        proto: The new skeleton.
        done: Descriptions of the changes; one line each.
        renamed: Input or output of the original → its new name.
        bound: Input of the original → the value that it was bound to.
        conditions: What the edit assumes about sizes of inputs.
        exact: Whether outputs are bit-equal; if not, they are equal within rounding.
        unproven: What the edit needs, which running the models has to show.
    """

    proto: onnx.ModelProto
    done: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    bound: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    exact: bool = True
    unproven: tuple[str, ...] = ()


Edit = Callable[[GraphView], Edited]
"""Makes a new model of one; raises OnnxlintError where the model does not allow it. The view is not changed."""


def edits_of(request: Request) -> Iterator[Edit]:
    """The edits that a request asks for, in the order in which they are applied."""
    if request.bind:
        yield lambda view: _bound(view, request.bind)
    if request.dynamic:
        yield lambda view: _dynamic(view, request.dynamic)
    if request.static:
        yield lambda view: _static(view, request.static)
    if request.opset is not None:
        yield lambda view: _at_opset(view, request.opset or 0, request.allow_empty)
    if request.rename:
        yield lambda view: _renamed(view, request.rename)


def apply_edits(model: Model, edits: Iterable[Edit]) -> Edited:
    """The model after all edits; the original skeleton if there are none.

    Raises:
        OnnxlintError: The model does not allow one of them.
    """
    result = Edited(model.proto)
    for edit in edits:
        edited = edit(make_view(replace(model, proto=result.proto)))
        result = Edited(
            edited.proto,
            (*result.done, *edited.done),
            {**result.renamed, **edited.renamed},
            {**result.bound, **edited.bound},
            (*result.conditions, *edited.conditions),
            result.exact and edited.exact,
        )
    return result


def _bound(view: GraphView, bindings: Sequence[tuple[str, str]]) -> Edited:
    from onnxlint.fixes.bind import bind_inputs
    from onnxlint.fixes.demands import refuse_impossible, refuse_misread

    proto, values = bind_inputs(view, bindings)
    after = make_view(replace(view.model, proto=proto))
    refuse_impossible(after, view, "--bind")
    refuse_misread(after, view, "--bind")
    done = (f"bound input {printable(name)!r} to {printable(text)}" for name, text in bindings)
    return Edited(proto, tuple(done), bound=values)


def _dynamic(view: GraphView, shapes: Sequence[str]) -> Edited:
    from onnxlint.fixes.demands import refuse_misread
    from onnxlint.fixes.dynamic_sizes import make_dynamic

    proto, conditions = make_dynamic(view, shapes)
    refuse_misread(make_view(replace(view.model, proto=proto)), view, "--dynamic")
    return Edited(proto, tuple(f"set free: {printable(shape)}" for shape in shapes), conditions=conditions)


def _static(view: GraphView, shapes: Sequence[str]) -> Edited:
    from onnxlint.fixes.static_sizes import make_static

    return Edited(make_static(view, shapes), tuple(f"fixed: {printable(shape)}" for shape in shapes))


def _at_opset(view: GraphView, version: int, allow_empty: bool) -> Edited:
    """Lowered where the model's opset is newer; a rule raises it where it is older."""
    if not 0 < version < view.opset:
        return Edited(view.proto)
    from onnxlint.fixes.opset_lower import lower

    lowered = lower(view, version, allow_empty)
    done = f"lowered the opset from {view.opset} to {version}"
    return Edited(lowered.proto, (done, *lowered.notes), exact=lowered.exact)


def _renamed(view: GraphView, names: Sequence[tuple[str, str]]) -> Edited:
    from onnxlint.fixes.rename import rename_ends

    done = (f"renamed {printable(old)!r} to {printable(new)!r}" for old, new in names)
    return Edited(rename_ends(view, dict(names)), tuple(done), dict(names))


def join(view: GraphView, request: Request) -> Edited:
    """Join the outputs that the user names, whether a rule takes them for heads or not.

    Raises:
        OnnxlintError: They do not fit together.
    """
    from onnxlint.fixes.join import join_heads, pick_heads
    from onnxlint.surgery.surgeon import Surgeon

    surgeon = Surgeon(view)
    names = pick_heads(view, request.concat_heads or ())
    joined = join_heads(view, surgeon, names, request.concat_axis, request.concat_name)
    parts = ", ".join(f"{printable(head.name)} {head.start}:{head.stop}" for head in joined.heads)
    done = f"joined into {printable(joined.output)!r} along axis {joined.axis}: {parts}"
    assumed = tuple(surgeon.conditions)
    return Edited(surgeon.close(), (done,), conditions=assumed, unproven=tuple(surgeon.unproven))
