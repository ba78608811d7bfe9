"""Hostile models: small files that make a careless reader slow, large, loud or wrong. Each function makes some of a kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, cast

import onnx
from onnx import TensorProto, helper, numpy_helper

Models = Iterator[tuple[str, onnx.ModelProto]]

LIMIT = 1_000_000
"""Bytes that a hostile model may have: larger ones may cost more."""

KINDS: dict[str, Callable[[], Models]] = {}


def kind(make: Callable[[], Models]) -> Callable[[], Models]:
    KINDS[make.__name__] = make
    return make


def models() -> Iterator[tuple[str, bytes]]:
    """All of them: (name, file)."""
    for name, make in KINDS.items():
        for variant, proto in make():
            data = proto.SerializeToString()
            assert len(data) <= LIMIT, f"{name}-{variant} has {len(data)} bytes"
            yield f"{name}-{variant}", data


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str | None]] | None = None,
    outputs: tuple[str, ...] = ("y",),
    constants: dict[str, onnx.TensorProto] | None = None,
    opset: int = 17,
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    """A model around nodes; inputs are float."""
    made = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in (inputs or {"x": [2, 3]}).items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    for name, tensor in (constants or {}).items():
        tensor.name = name
        made.initializer.append(tensor)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("f", 1), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=domains, ir_version=10, functions=functions)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def ints(*values: int) -> onnx.TensorProto:
    return helper.make_tensor("", TensorProto.INT64, [len(values)], values)


def claimed(*dims: int, type: int = TensorProto.FLOAT) -> onnx.TensorProto:
    """A tensor that claims to have more elements than it holds."""
    return TensorProto(data_type=type, dims=dims, raw_data=b"\0" * 8)


TEXTS = {
    "escapes": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "lines": "a\n::error::forged\r\nb",
    "markup": "<script>alert(1)</script>](x)|`**",
    "bidi": "a\u202eb\u2066c",
    "zero": "a\0b",
    "long": "n" * 100_000,
    "empty": "",
    "format": "{0}{x.__class__}%s%n${jndi}",
    "code": "__import__('os')._exit(0)",
    "path": "../../../../etc/passwd",
    "surrogate": "\ufffd\uffff",
}


@kind
def names() -> Models:
    for what, text in TEXTS.items():
        yield f"node-{what}", model([helper.make_node("Relu", ["x"], ["y"], name=text)])
        yield f"value-{what}", model([node("Relu", "x", "a"), helper.make_node("Resize", ["a", "", "", text], ["y"])])
        yield f"operator-{what}", model([helper.make_node(text or "Relu", ["x"], ["y"], domain="f")])
        yield f"attribute-{what}", model([helper.make_node("Relu", ["x"], ["y"], **cast(Any, {text or "a": 1}))])
        yield f"dim-{what}", model([node("Reshape", "x s")], {"x": [text, 3, text]}, constants={"s": ints(-1, 3)})
        yield f"input-{what}", model([helper.make_node("Relu", [text], ["y"])], {text: [1]})


@kind
def metadata() -> Models:
    digits = "9" * 5000
    values = {
        "junk": "\x1b[31m",
        "nested": "[" * 50_000,
        "nested-objects": '{"a":' * 20_000,
        "digits": digits,
        "percent": f"H % {digits} == 0",
        "zero": "H % 0 == 0",
        "spaces": "H" + " " * 50_000 + "% 2 == 0",
        "many": " and ".join(f"H{i} % 2 == 0" for i in range(5000)),
        "heads": '[{"output": "y", "axis": 99999, "heads": [{"name": "\\u001b[31m", "start": -5, "end": 1e999}]}]',
        "nan": '{"H": [["x", NaN]]}',
        "pairs": '{"H": [["x", 1e308], ["x", -1]]}',
        "number": "3",
        "null": "null",
        "wrong": '[[["x"]]]',
    }
    for key in ("assumes", "symbols", "heads", "dropped_activations", "ignore"):
        for what, value in values.items():
            made = model([node("Relu", "x")], {"x": ["N", 3, "H", "W"]})
            made.metadata_props.add(key=f"onnxlint.{key}", value=value)
            yield f"{key}-{what}", made
    traces = {
        "line": f'File "x.py", line {digits}, in f',
        "path": f'File "{"d/" * 3000}x.py", line 3, in f',
        "many": "\n".join(f'File "f{i}.py", line {i}, in g' for i in range(5000)),
        "quotes": 'File "' * 10_000,
    }
    for key in ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.name_scopes", "namespace"):
        for what, value in {**values, **traces}.items():
            made = model([node("Relu", "x")])
            made.graph.node[0].metadata_props.add(key=key, value=value)
            yield f"{key.rpartition('.')[2]}-{what}", made


@kind
def dims() -> Models:
    sizes: dict[str, list[int | str | None]] = {
        "huge": [2**62, 2**62],
        "negative": [-5, 3],
        "zero": [0, 0],
        "many": [2] * 1000,
        "largest": [2**63 - 1],
        "sum": ["+".join(["h"] * 2000), 3],
        "product": ["*".join(["h"] * 2000), 3],
        "power": ["**".join(["9"] * 50), 3],
        "parentheses": ["(" * 5000 + "h" + ")" * 5000, 3],
        "doubling": ["h", "(" * 400 + "h" + "*h+h)" * 400],
        "division": ["h//0", "h%0"],
        "digits": ["9" * 5000, "h*" + "9" * 5000],
        "unknown": ["-1", "None", "?", "unk__1", ""],
    }
    for what, shape in sizes.items():
        yield f"relu-{what}", model([node("Relu", "x")], {"x": shape})
        yield f"flatten-{what}", model([node("Flatten", "x")], {"x": shape})
        yield (
            f"shape-{what}",
            model([node("Shape", "x", "s"), node("ConstantOfShape", "s")], {"x": shape}),
        )
        yield f"reshape-{what}", model([node("Reshape", "x s")], {"x": shape}, constants={"s": ints(0, -1)})


@kind
def sizes() -> Models:
    big = ints(10**9)
    yield "expand", model([node("Expand", "c s", "a"), node("Add", "x a")], constants={"s": big, "c": ints(1)})
    yield "constant-of-shape", model([node("ConstantOfShape", "s")], constants={"s": ints(2**20, 2**20)})
    yield (
        "constant-of-shape-used",
        model(
            [node("ConstantOfShape", "s", "a"), node("Shape", "a", "b"), node("Reshape", "x b")],
            constants={"s": ints(10**9)},
        ),
    )
    yield "tile", model([node("Tile", "c r", "a"), node("Reshape", "x a")], constants={"c": ints(1), "r": big})
    yield (
        "range",
        model(
            [node("Range", "a b c", "d"), node("Reshape", "x d")],
            constants={
                name: helper.make_tensor("", 7, [], [value]) for name, value in zip("abc", (0, 10**10, 1), strict=True)
            },
        ),
    )
    yield "pad", model([node("Pad", "c p", "a"), node("Reshape", "x a")], constants={"c": ints(1), "p": ints(0, 10**9)})
    yield (
        "one-hot",
        model(
            [node("OneHot", "c d v", "a"), node("Reshape", "x a")],
            constants={"c": ints(1), "d": helper.make_tensor("", 7, [], [10**9]), "v": ints(0, 1)},
        ),
    )
    for op in ("Concat", "Add", "Mul"):
        doubled = [
            helper.make_node(op, [f"a{i}", f"a{i}"], [f"a{i + 1}"], **cast(Any, {"axis": 0} if op == "Concat" else {}))
            for i in range(60)
        ]
        yield f"doubling-{op}", model([node("Shape", "x", "a0"), *doubled, node("Reshape", "x a60")])
        yield f"doubling-constant-{op}", model([*doubled, node("Reshape", "x a60")], constants={"a0": ints(7, 9)})
    yield "claims", model([node("Add", "x w")], constants={"w": claimed(2**40)})
    yield "claims-shape", model([node("Reshape", "x w")], constants={"w": claimed(2**40, type=TensorProto.INT64)})
    yield "claims-negative", model([node("Reshape", "x w")], constants={"w": claimed(-(2**40), type=TensorProto.INT64)})
    yield (
        "power",
        model(
            [node("Pow", "a b", "c"), node("Pow", "c b", "d"), node("Cast", "d", "e", to=7), node("Reshape", "x e")],
            constants={"a": ints(10**18), "b": ints(10**18)},
        ),
    )
    yield (
        "shift",
        model(
            [node("BitShift", "a b", "c", direction="LEFT"), node("Reshape", "x c")],
            constants={"a": ints(1), "b": ints(2**40)},
        ),
    )
    yield (
        "scales",
        model(
            [helper.make_node("Resize", ["x", "", "s"], ["y"])],
            {"x": [1, 3, 8, 8]},
            constants={"s": numpy_helper.from_array(__import__("numpy").float32([1, 1, 1e30, float("inf")]))},
        ),
    )
    yield (
        "convolution",
        model(
            [node("Conv", "x w", pads=[2**62] * 4, strides=[0, -1], dilations=[2**31, 0])],
            {"x": [1, 1, 8, 8]},
            constants={"w": claimed(1, 1, 1, 2)},
        ),
    )
    yield "split", model([helper.make_node("Split", ["x"], [f"y{i}" for i in range(20_000)])], outputs=("y0",))
    yield "transpose", model([node("Transpose", "x", perm=list(range(20_000)))])


@kind
def calls() -> Models:
    def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
        domains = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
        return helper.make_function("f", name, ["x"], ["y"], list(nodes), domains)

    def call(name: str, source: str, target: str) -> onnx.NodeProto:
        return helper.make_node(name, [source], [target], domain="f")

    leaf = function("f0", node("Relu", "x"))
    for depth in (20, 40):
        twice = [function(f"f{i}", call(f"f{i - 1}", "x", "a"), call(f"f{i - 1}", "a", "y")) for i in range(1, depth)]
        yield f"doubling-{depth}", model([call(f"f{depth - 1}", "x", "y")], functions=(leaf, *twice))
    once = [function(f"f{i}", call(f"f{i - 1}", "x", "y")) for i in range(1, 3000)]
    yield "chain", model([call("f2999", "x", "y")], functions=(leaf, *once))
    yield "itself", model([call("f0", "x", "y")], functions=(function("f0", call("f0", "x", "y")),))
    yield (
        "each-other",
        model(
            [call("f0", "x", "y")],
            functions=(function("f0", call("f1", "x", "y")), function("f1", call("f0", "x", "y"))),
        ),
    )
    yield "same-name", model([call("f0", "x", "y")], functions=(leaf, leaf, leaf))


@kind
def graphs() -> Models:
    yield (
        "chain",
        model(
            [helper.make_node("Relu", [f"a{i}" if i else "x"], [f"a{i + 1}"]) for i in range(20_000)],
            outputs=("a20000",),
        ),
    )
    yield (
        "diamonds",
        model(
            [helper.make_node("Add", [f"a{i}" if i else "x"] * 2, [f"a{i + 1}"]) for i in range(5000)],
            outputs=("a5000",),
        ),
    )
    yield (
        "reshapes",
        model(
            [
                one
                for i in range(1500)
                for one in (
                    helper.make_node("Shape", [f"a{i}" if i else "x"], [f"s{i}"]),
                    helper.make_node("Reshape", [f"a{i}" if i else "x", f"s{i}"], [f"a{i + 1}"]),
                )
            ],
            {"x": ["N", "C", "H", "W"]},
            outputs=("a1500",),
        ),
    )
    yield "wide", model([helper.make_node("Concat", ["x"] * 100_000, ["y"], axis=0)])
    yield "outputs", model([node("Relu", "x")], outputs=("y",) * 20_000)
    yield "inputs", model([node("Relu", "x0")], {f"x{i}": [1] for i in range(10_000)})
    yield "loops", model([node("Relu", "y", "x"), node("Relu", "x", "y")])
    yield "many-readers", model([helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(15_000)], outputs=("y0",))
    yield "same-output", model([node("Relu", "x") for _ in range(10_000)])
    symbolic = [
        one
        for i in range(800)
        for one in (
            helper.make_node("Conv", [f"a{i}" if i else "x", "w"], [f"c{i}"], strides=[2, 2]),
            helper.make_node("Resize", [f"c{i}", "", "s"], [f"a{i + 1}"]),
        )
    ]
    numbers = __import__("numpy")
    yield (
        "symbolic",
        model(
            symbolic,
            {"x": [1, 1, "H", "W"]},
            ("a800",),
            {
                "w": numpy_helper.from_array(numbers.ones((1, 1, 3, 3), numbers.float32)),
                "s": numpy_helper.from_array(numbers.float32([1, 1, 3, 3])),
            },
        ),
    )
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b0"])], "b", [], [helper.make_tensor_value_info("b0", 1, None)]
    )
    for depth in range(1, 12):
        branch = helper.make_node("If", ["c"], [f"b{depth}"], then_branch=body, else_branch=body)
        body = helper.make_graph([branch], "b", [], [helper.make_tensor_value_info(f"b{depth}", 1, None)])
    body.input.extend([helper.make_tensor_value_info("x", 1, [1]), helper.make_tensor_value_info("c", 9, [])])
    yield "branches", helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@kind
def attributes() -> Models:
    yield "many", model([helper.make_node("Relu", ["x"], ["y"], **cast(Any, {f"a{i}": i for i in range(20_000)}))])
    same = node("Relu", "x")
    same.attribute.extend([helper.make_attribute("a", 1)] * 20_000)
    yield "same", model([same])
    for what, value in {
        "nan": float("nan"),
        "infinite": float("inf"),
        "huge": 2**63 - 1,
        "bytes": b"\xff" * 50_000,
        "floats": [1e38] * 50_000,
        "text": "\x1b[31m" * 1000,
    }.items():
        for op, name in (("LeakyRelu", "alpha"), ("Resize", "mode"), ("Conv", "strides"), ("Cast", "to")):
            yield f"{op}-{what}", model([helper.make_node(op, ["x"], ["y"], **cast(Any, {name: value}))])
    yield "opset", model([node("Relu", "x")], opset=2**62)
    yield "opset-negative", model([node("Relu", "x")], opset=-(2**62))


def combined(seed: int) -> onnx.ModelProto:
    """Nodes of several hostile models in one graph, with names of others."""
    source = random.Random(seed)
    parts = [onnx.ModelProto.FromString(data) for _, data in source.sample(_ALL or _ALL.__iadd__(list(models())), 3)]
    made = parts[0]
    texts = list(TEXTS.values())
    for part in parts[1:]:
        made.graph.node.extend(part.graph.node[:200])
        made.graph.initializer.extend(part.graph.initializer)
        made.metadata_props.extend(part.metadata_props)
        made.functions.extend(part.functions[:50])
    for one in source.sample(list(made.graph.node), min(5, len(made.graph.node))):
        one.name = source.choice(texts)
        if one.input:
            one.input[source.randrange(len(one.input))] = source.choice(
                [*texts, *(v.name for v in made.graph.initializer)]
            )
    return made


_ALL: list[tuple[str, bytes]] = []
