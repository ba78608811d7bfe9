"""What ONNX's specification says about operators, as far as rules ask for it, without importing onnx.

onnx's schemas live in its C++ extension. Where onnx is imported already they are read there; else in the child process
that runs its shape inference anyway, once for each operator.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from onnxlint.model.messages import messages
from onnxlint.model.native import Crashed, describe_schemas, read_schemas

if TYPE_CHECKING:
    from onnxlint.graph.view import GraphView


class Schema(NamedTuple):
    """One version of an operator.

    Attributes:
        since: The version of its domain that brought it.
        deprecated: Whether it is deprecated.
        inputs: The type of each input: a name of `allowed`, or a type such as `tensor(int64)`.
        repeats: Whether the last of them stands for any number of inputs of one type.
        allowed: Name of a type → the types that it may stand for.
    """

    since: int
    deprecated: bool
    inputs: tuple[str, ...]
    repeats: bool
    allowed: dict[str, frozenset[str]]


_Key = tuple[str, str, int]  # operator, domain, version of the domain (0: the newest)

_known: dict[_Key, Schema] = {}
_MEMO = "onnxlint.schemas"


def schema(view: GraphView, op: str, newest: bool = False) -> Schema | None:
    """The schema of an operator in the operator set that a model imports; None if that does not have it.

    Args:
        view: The model.
        op: As in `Node.op`.
        newest: Take the newest version that the installed onnx knows, whatever the model imports.
    """
    found: dict[_Key, Schema] | None = view.memo.get(_MEMO)
    if found is None:
        keys = {key for one in view.ops for key in (_key(view, one, True), _key(view, one, False))}
        found = view.memo[_MEMO] = _read(keys)
    key = _key(view, op, newest)
    if key not in found and op not in view.ops:
        return _read([key]).get(key)
    return found.get(key)


def _key(view: GraphView, op: str, newest: bool) -> _Key:
    domain, _, name = op.rpartition("::")
    return name, domain, 0 if newest else view.opset_of(domain) or -1


def newest_opset() -> int:
    """Version of the newest operator set of ONNX's own domain that the installed onnx knows."""
    key = ("Identity", "", 0)
    _read([key])
    return _newest[0]


def first_opset(op: str, domain: str = "") -> int:
    """The first version of a domain that has an operator, which it does have; the operator may have changed since."""
    from onnx import defs

    return min(
        one.since_version for one in defs.get_all_schemas_with_history() if (one.name, one.domain) == (op, domain)
    )


def newest_ir_version() -> int:
    """The newest version of the IR that the installed onnx knows."""
    return int(messages().IR_VERSION)


_newest: list[int] = []


def _read(keys: Iterable[_Key]) -> dict[_Key, Schema]:
    keys = list(keys)
    unknown = [key for key in keys if key not in _known and key[2] >= 0]
    if unknown or not _newest:
        newest, answers = json.loads(_ask(json.dumps(unknown).encode()))
        _newest[:] = [newest]
        for key, answer in zip(unknown, answers, strict=True):
            if answer is not None:  # operators that do not exist are not remembered: models can name any number of them
                since, deprecated, inputs, repeats, allowed = answer
                types = {name: frozenset(types) for name, types in allowed.items()}
                _known[key] = Schema(since, deprecated, tuple(inputs), repeats, types)
    return {key: _known[key] for key in keys if key in _known}


def _ask(request: bytes) -> bytes:
    if "onnx" not in sys.modules:
        try:
            return read_schemas(request)
        except Crashed:
            pass  # the child is gone: asked here
    import onnx.defs  # noqa: F401 - describe_schemas reads its extension

    return describe_schemas(request)
