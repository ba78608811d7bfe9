"""Attention and RotaryEmbedding of opset 23 to 25, written in older operators.

The mask of Attention: a key is seen where `attn_mask` allows it, and with `is_causal` up to the query's own place, which
counts the keys before: those of `past_key`, or `nonpad_kv_seqlen` less the queries. A query that sees no key gives zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxlint.fixes.opset_body import Body, CannotExpandError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from onnxlint.graph.dims import Shape

_BOOL = 9
_LARGEST_MASK = 1 << 20
"""Elements of a mask that is written as a constant."""


@dataclass(frozen=True)
class _Heads:
    """Queries, keys or values by heads.

    Attributes:
        name: The tensor, [batch, heads, length, size of a head].
        heads: How many there are.
        size: Of a head; None if unknown.
        length: None if unknown.
    """

    name: str
    heads: int
    size: int | None
    length: int | str | None


def attention(body: Body) -> None:
    """Write out Attention.

    Raises:
        CannotExpandError: Ranks, numbers of heads or the size of a head are not known.
    """
    node = body.node
    if body.dtype(node.input(0)) != body.dtype(node.input(2)):
        raise CannotExpandError("its values have another element type than its queries")
    is_flat = body.rank(node.input(0)) == 3
    queries = _by_heads(body, 0, "q_num_heads")
    keys = _with_past(body, _by_heads(body, 1, "kv_num_heads"), 4, 1)
    values = _with_past(body, _by_heads(body, 2, "kv_num_heads"), 5, 2)
    keys, values = (_repeated(body, one, queries.heads) for one in (keys, values))
    scale = float(node.attribute("scale", 0.0) or 0.0)
    if not scale:
        if queries.size is None:
            raise CannotExpandError("the size of its heads is not known")
        scale = 1 / math.sqrt(queries.size)
    q = node.input(0)
    scaled = body.add("Mul", queries.name, body.floats(q, scale))
    mode = node.attribute("qk_matmul_output_mode", 0)
    shown = [node.output(3) if mode == i else "" for i in range(4)]
    scores = body.add("MatMul", scaled, body.add("Transpose", keys.name, perm=[0, 1, 3, 2]), output=shown[0])
    softcap = float(node.attribute("softcap", 0.0) or 0.0)
    if softcap:
        cap = body.floats(q, softcap)
        scores = body.add("Mul", body.add("Tanh", body.add("Div", scores, cap)), cap)
    if shown[1]:
        body.add("Identity", scores, output=shown[1])
    scores, may_be_blind = _masked(body, scores, queries, keys)
    if shown[2]:
        body.add("Identity", scores, output=shown[2])
    weights = _softmax(body, scores, may_be_blind)
    if shown[3]:
        body.add("Identity", weights, output=shown[3])
    if not is_flat:
        body.end("MatMul", weights, values.name)
        return
    joined = body.add("Transpose", body.add("MatMul", weights, values.name), perm=[0, 2, 1, 3])
    width = -1 if values.size is None else queries.heads * values.size
    body.end("Reshape", joined, body.integers([0, 0, width]))


def _by_heads(body: Body, i: int, attribute: str) -> _Heads:
    """An input as [batch, heads, length, size]."""
    name = body.node.input(i)
    dims = body.shape(name)
    if len(dims) == 4:
        if not isinstance(dims[1], int):
            raise CannotExpandError("its number of heads is not known")
        return _Heads(name, dims[1], _number(dims, 3), dims[2])
    if len(dims) != 3:
        raise CannotExpandError(f"its input {i} has rank {len(dims)}")
    heads = body.node.attribute(attribute, 0)
    if heads < 1:
        raise CannotExpandError(f"it lacks {attribute}")
    width = _number(dims, 2)
    size = None if width is None else width // heads
    apart = body.add("Reshape", name, body.integers([0, 0, heads, -1 if size is None else size]))
    return _Heads(body.add("Transpose", apart, perm=[0, 2, 1, 3]), heads, size, dims[1])


def _number(dims: Shape, axis: int) -> int | None:
    dim = dims[axis]
    return dim if isinstance(dim, int) else None


def _with_past(body: Body, now: _Heads, i: int, o: int) -> _Heads:
    """Keys or values after those of earlier steps."""
    past, present = body.node.input(i), body.node.output(o)
    if not past:
        if present:
            body.add("Identity", now.name, output=present)
        return now
    dims = body.shape(past)
    before = _number(dims, 2) if len(dims) == 4 else None
    length = before + now.length if before is not None and isinstance(now.length, int) else None
    return _Heads(body.add("Concat", past, now.name, output=present, axis=2), now.heads, now.size, length)


def _repeated(body: Body, one: _Heads, heads: int) -> _Heads:
    """Keys or values once for each head of the queries."""
    if one.heads == heads:
        return one
    if heads % one.heads:
        raise CannotExpandError(f"{heads} heads of queries do not share {one.heads} of keys evenly")
    places = body.integers([head // (heads // one.heads) for head in range(heads)])
    return _Heads(body.add("Gather", one.name, places, axis=1), heads, one.size, one.length)


def _masked(body: Body, scores: str, queries: _Heads, keys: _Heads) -> tuple[str, bool]:
    """Scores with -inf where a query does not see a key, and whether a query may see none at all."""
    node = body.node
    lowest = body.floats(node.input(0), -math.inf)
    mask, valid = node.input(3), node.input(6)
    if mask and body.opset >= 24:
        mask = _padded(body, mask, queries, keys)
    if mask and body.dtype(node.input(3)) == _BOOL:
        scores = body.add("Where", mask, scores, lowest)
    elif mask:
        scores = body.add("Add", scores, mask)
    left, right = (node.attribute(f"{side}_window_size", -1) for side in ("left", "right"))
    if node.attribute("is_causal", 0):
        right = 0
    if valid:
        columns = body.add("Range", body.scalar(0), _length(body, keys), body.scalar(1))
        counts = body.add("Reshape", valid, body.integers([-1, 1, 1, 1]))
        scores = body.add("Where", body.add("Less", columns, counts), scores, lowest)
    if left < 0 and right < 0:
        return scores, bool(mask or valid)
    constant = None if valid or node.input(4) else _constant_window(queries, keys, left, right)
    if constant is not None:
        return body.add("Where", body.constant(constant), scores, lowest), bool(mask or left >= 0)
    for hidden in _hidden(body, queries, keys, left, right):
        scores = body.add("Where", hidden, lowest, scores)
    return scores, bool(mask or valid or left >= 0)


def _padded(body: Body, mask: str, queries: _Heads, keys: _Heads) -> str:
    """A mask that may be shorter than the keys, with as many columns; what is added is not seen."""
    dims = body.shape(mask)
    if dims and dims[-1] is not None and dims[-1] == keys.length:
        return mask
    short = body.add("Sub", _length(body, keys), body.size(mask, len(dims) - 1))
    zeros = body.integers([0] * (2 * len(dims) - 1))
    pads = body.add("Concat", zeros, body.add("Reshape", short, body.integers([1])), axis=0)
    if body.dtype(mask) != _BOOL:
        return body.add("Pad", mask, pads, body.floats(mask, -math.inf))
    # Pad takes no bool before opset 13.
    numbers = body.add("Cast", mask, to=1)
    return body.add("Cast", body.add("Pad", numbers, pads), to=_BOOL)


def _length(body: Body, one: _Heads) -> str:
    if isinstance(one.length, int):
        return body.scalar(one.length)
    return body.add("Gather", body.add("Shape", one.name), body.scalar(2), axis=0)


def _constant_window(queries: _Heads, keys: _Heads, left: int, right: int) -> npt.NDArray[np.bool_] | None:
    """What is seen, [queries, keys], where both numbers are known and not large."""
    import numpy as np

    if not isinstance(queries.length, int) or not isinstance(keys.length, int):
        return None
    if queries.length * keys.length > _LARGEST_MASK:
        return None
    apart = np.arange(keys.length)[None, :] - np.arange(queries.length)[:, None]
    seen = np.ones(apart.shape, np.bool_)
    if right >= 0:
        seen &= apart <= right
    if left >= 0:
        seen &= apart >= -left
    return seen


def _hidden(body: Body, queries: _Heads, keys: _Heads, left: int, right: int) -> list[str]:
    """Tensors that are true where a query does not see a key, [queries, keys] or [batch, 1, queries, keys]."""
    node = body.node
    one, zero = body.scalar(1), body.scalar(0)
    count = _length(body, queries)
    rows = body.add("Range", zero, count, one)
    if node.input(4):
        past = body.add("Gather", body.add("Shape", node.input(4)), body.scalar(2), axis=0)
        rows = body.add("Add", rows, past)
    rows = body.add("Unsqueeze", rows, body.integers([1]))
    if node.input(6):
        before = body.add("Sub", node.input(6), count)
        rows = body.add("Add", rows, body.add("Reshape", before, body.integers([-1, 1, 1, 1])))
    columns = body.add("Range", zero, _length(body, keys), one)
    hidden = []
    if right >= 0:
        last = body.add("Add", rows, body.scalar(right)) if right else rows
        hidden.append(body.add("Less", last, columns))
    if left >= 0:
        first = body.add("Sub", rows, body.scalar(left)) if left else rows
        hidden.append(body.add("Greater", first, columns))
    return hidden


def _softmax(body: Body, scores: str, may_be_blind: bool) -> str:
    """Weights of the keys; zeros for a query that sees none."""
    q = body.node.input(0)
    kind = body.dtype(q)
    precision = body.node.attribute("softmax_precision", 0) or kind
    wide = scores if precision == kind else body.add("Cast", scores, to=precision)
    weights = body.add("Softmax", wide, axis=-1)
    if precision != kind:
        weights = body.add("Cast", weights, to=kind)
    if not may_be_blind:
        return weights
    blind = body.add("Equal", body.largest(scores, [3]), body.floats(q, -math.inf))
    return body.add("Where", blind, body.floats(q, 0.0), weights)


def rotary_embedding(body: Body) -> None:
    """Write out RotaryEmbedding.

    Raises:
        CannotExpandError: Ranks or the size of a head are not known.
    """
    node = body.node
    x, ids = node.input(0), node.input(3)
    dims = body.shape(x)
    is_flat = len(dims) == 3
    width = _number(dims, len(dims) - 1)
    heads = node.attribute("num_heads", 0)
    if width is None or (is_flat and heads < 1):
        raise CannotExpandError("the size of its heads is not known")
    size = width // heads if is_flat else width
    turned = node.attribute("rotary_embedding_dim", 0) or size
    # The tables are [batch, length, turned / 2], and x is [batch, length, heads, size] or [batch, heads, length, size].
    heads_axis = 2 if is_flat else 1
    tables = []
    for i in (1, 2):
        table = body.add("Gather", node.input(i), ids, axis=0) if ids else node.input(i)
        tables.append(body.add("Unsqueeze", table, body.integers([heads_axis])))
    cosine, sine = tables
    if is_flat:
        x = body.add("Reshape", x, body.integers([0, 0, heads, size]))
    last, one = body.integers([3]), body.integers([1])
    rest = ""
    if turned < size:
        rest = body.add("Slice", x, body.integers([turned]), body.integers([size]), last, one)
        x = body.add("Slice", x, body.integers([0]), body.integers([turned]), last, one)
    is_interleaved = bool(node.attribute("interleaved", 0))
    half = turned // 2
    spans = ((0, turned, 2), (1, turned, 2)) if is_interleaved else ((0, half, 1), (half, turned, 1))
    first, second = (
        body.add("Slice", x, body.integers([start]), body.integers([stop]), last, body.integers([step]))
        for start, stop, step in spans
    )
    real = body.add("Sub", body.add("Mul", cosine, first), body.add("Mul", sine, second))
    imaginary = body.add("Add", body.add("Mul", sine, first), body.add("Mul", cosine, second))
    if is_interleaved:
        pair = [body.add("Unsqueeze", part, body.integers([4])) for part in (real, imaginary)]
        done = body.add("Reshape", body.add("Concat", *pair, axis=4), body.integers([0, 0, 0, turned]))
    else:
        done = body.add("Concat", real, imaginary, axis=3)
    if rest:
        done = body.add("Concat", done, rest, axis=3)
    if is_flat:
        body.end("Reshape", done, body.integers([0, 0, width]))
    else:
        body.end("Identity", done)
