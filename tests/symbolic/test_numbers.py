"""Numbers computed from sizes, against onnxruntime, for inputs whose dimensions bear every kind of name."""

from __future__ import annotations

from random import Random
from typing import cast

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.sizes import Size, substitute, symbols
from tests.support import zoo
from tests.support.guards import reached, reaching

NAMES = ["None", "-1", "?", "h", "w", "2*h", "(h+1)//2", "h + 1", "unk__0", "w//2", ""]

HEAD = """g (float[a, b, c] x) => (y, z) <int64[1] i = {0}, int64[1] j = {1}, int64[1] k = {2}, int64[1] two = {2},
    int64[1] three = {3}, int64[1] five = {5}, float[1] half = {0.5}> {
    s = Shape(x)
    v0 = Gather(s, i)
    v1 = Gather(s, j)
    v2 = Gather(s, k)
"""


def arithmetic(random: Random) -> onnx.ModelProto:
    """A model that computes numbers from the sizes of its input, in a few random steps."""
    lines, count = [], 3

    def some() -> str:
        return f"v{random.randrange(count)}"

    for _ in range(random.randint(3, 9)):
        op = random.choice(["Add", "Sub", "Mul", "Div", "Max", "Min", "Mod"])
        second = random.choice(["two", "three", "five"]) if op in ("Div", "Mod") else some()
        lines.append(f"v{count} = {op}({some()}, {second})")
        count += 1
    lines.append(f"c1 = GreaterOrEqual({some()}, {some()}) w1 = Where(c1, {some()}, {some()})")
    lines.append(f"f1 = Cast<to = 1>({some()}) f2 = Mul(f1, half) f3 = {random.choice(['Floor', 'Ceil'])}(f2)")
    lines.append("w2 = Cast<to = 7>(f3) z = Concat<axis = 0>(w1, w2, v0) y = Relu(x)")
    proto = zoo.parse(HEAD + "\n".join(lines) + " }")
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_param = random.choice(NAMES)
    return proto


@reaching(200)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_numbers_are_those_of_a_run(seed: int) -> None:
    random = Random(seed)
    proto = arithmetic(random)
    view, runner = zoo.view(proto), zoo.session(proto)
    symbolic = exact_sizes(view)
    for _ in range(4):
        bound = {"h": random.randint(0, 9), "w": random.randint(0, 9)}
        dims = []
        for size in symbolic.shape(view.main, "x") or ():
            for name in symbols(size):
                bound.setdefault(name, random.randint(1, 9))
            dims.append(substitute(size, bound))
        if any(not isinstance(dim, int) or dim < 1 for dim in dims):
            continue
        _, real = runner.run(None, {"x": np.zeros(cast(list[int], dims), np.float32)})
        value = symbolic.value(view.main, "z")
        for number, wanted in zip(value.numbers if value else (), real.tolist(), strict=False):
            said = substitute(number, bound) if isinstance(number, int | Size) else None
            if isinstance(said, int):
                reached()
                assert said == wanted, f"{number} at {bound}"
