"""Operators of newer sets written in older ones: equal to the original in onnxruntime, and to the specification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.checker
import pytest
from onnx import TensorProto, helper

from onnxlint.errors import OnnxlintError
from onnxlint.fixes.opset_lower import lower
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

ort = pytest.importorskip("onnxruntime")


def run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return list(ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds))


def model_of(node: onnx.NodeProto, feeds: dict[str, Any], opset: int, free: bool) -> onnx.ModelProto:
    """A model of one node; with free sizes batch and lengths are symbols, each axis its own."""
    inputs = []
    for name, value in feeds.items():
        fixed = {1, value.ndim - 1} if value.ndim == 4 and "mask" not in name else {value.ndim - 1}
        fixed = set() if "mask" in name or value.ndim == 1 else fixed
        dims = [f"{name}_{i}" if free and i not in fixed else size for i, size in enumerate(value.shape)]
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), dims))
    kind = TensorProto.FLOAT
    ranks = {"y": next(iter(feeds.values())).ndim}
    outputs = [
        helper.make_tensor_value_info(name, kind, [f"{name}_{i}" for i in range(ranks.get(name, 4))])
        for name in node.output
        if name
    ]
    graph = helper.make_graph([node], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def lowered(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
    result = lower(make_view(Model("m.onnx", proto, 0)), version).proto
    onnx.checker.check_model(result)
    assert {entry.version for entry in result.opset_import} == {version}
    return result


def close(wanted: list[Any], got: list[Any]) -> None:
    assert [one.shape for one in got] == [one.shape for one in wanted]
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class Case:
    """An Attention: sizes, and what it is given."""

    rank: int = 4
    heads: tuple[int, int] = (4, 4)
    lengths: tuple[int, int] = (5, 5)
    past: int = 0
    mask: str = ""
    opset: int = 23
    batch: int = 2
    nonpad: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = [f"{self.rank}d", f"heads{self.heads}", f"{self.lengths}", f"past{self.past}", self.mask or "no_mask"]
        return "-".join(
            [*told, f"b{self.batch}", f"op{self.opset}", *map(str, self.attributes), "nonpad" * self.nonpad]
        )

    def feeds(self) -> dict[str, Any]:
        generator = np.random.default_rng(0)
        (hq, hk), (sq, sk), d = self.heads, self.lengths, 8

        def normal(*shape: int) -> Any:
            return generator.standard_normal(shape).astype(np.float32)

        if self.rank == 3:
            feeds = {"q": normal(self.batch, sq, hq * d), "k": normal(self.batch, sk, hk * d)}
            feeds["v"] = normal(self.batch, sk, hk * d)
        else:
            feeds = {"q": normal(self.batch, hq, sq, d), "k": normal(self.batch, hk, sk, d)}
            feeds["v"] = normal(self.batch, hk, sk, d)
        total = sk + self.past
        shape = {"2d": (sq, total), "4d": (self.batch, 1, sq, total), "heads": (self.batch, hq, sq, total)}
        kind, _, dims = self.mask.partition("_")
        if kind == "bool":
            feeds["mask"] = generator.random(shape[dims]) < 0.6
            feeds["mask"][..., 0, :] = False  # a query that sees nothing
        elif kind == "float":
            feeds["mask"] = normal(*shape[dims])
            feeds["mask"][..., -1] = -np.inf
        if self.past:
            feeds["past_k"] = normal(self.batch, hk, self.past, d)
            feeds["past_v"] = normal(self.batch, hk, self.past, d)
        if self.nonpad:
            feeds["nonpad"] = np.array([sk - 1, sk - 2][: self.batch], np.int64)
        return feeds

    def node(self) -> onnx.NodeProto:
        feeds = self.feeds()
        names = ["q", "k", "v", "mask", "past_k", "past_v", "nonpad"]
        inputs = [name if name in feeds else "" for name in names]
        while not inputs[-1]:
            inputs.pop()
        outputs = ["y", "present_k", "present_v"] if self.past else ["y"]
        if "qk_matmul_output_mode" in self.attributes:
            outputs = [*(outputs if self.past else ["y", "", ""]), "qk"]
        heads: dict[str, Any] = {"q_num_heads": self.heads[0], "kv_num_heads": self.heads[1]} if self.rank == 3 else {}
        return helper.make_node("Attention", inputs, outputs, "attention", **heads, **self.attributes)


CASES = [
    *(Case(rank, heads) for rank in (3, 4) for heads in ((4, 4), (4, 2), (6, 1))),
    *(Case(rank, mask=mask) for rank in (3, 4) for mask in ("bool_2d", "bool_4d", "float_2d", "float_heads")),
    *(Case(lengths=lengths, attributes={"is_causal": 1}) for lengths in ((5, 5), (3, 7), (7, 7), (1, 6))),
    *(Case(rank, heads, past=3, attributes={"is_causal": 1}) for rank in (3, 4) for heads in ((4, 4), (4, 2))),
    Case(past=3, lengths=(1, 1), mask="bool_4d", attributes={"is_causal": 1}),
    Case(heads=(4, 2), past=4, mask="float_4d", attributes={"softcap": 2.0}),
    Case(mask="bool_heads", attributes={"is_causal": 1}),
    Case(attributes={"scale": 0.3}),
    Case(attributes={"softcap": 1.5}),
    Case(mask="float_2d", attributes={"softcap": 1.5, "is_causal": 1}),
    *(Case(mask="float_2d", attributes={"softcap": 1.5, "qk_matmul_output_mode": mode}) for mode in (0, 3)),
    Case(attributes={"softmax_precision": 1}),
    Case(opset=24, mask="bool_2d", attributes={"is_causal": 1}),
    Case(opset=24, nonpad=True),
    Case(opset=24, nonpad=True, mask="float_2d"),
    Case(batch=3, lengths=(1, 1)),
]


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_computes_the_same(case: Case, free: bool) -> None:
    feeds = case.feeds()
    proto = model_of(case.node(), feeds, case.opset, free)
    wanted = run(proto, feeds)
    for version in (11, 17):
        close(wanted, run(lowered(proto, version), feeds))


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def half(*shape: int) -> Any:
    return normal(*shape, dtype=np.float16)


CACHE = {"x": normal(2, 6, 4, 8), "cos": normal(2, 4, 4), "sin": normal(2, 4, 4)}
OTHERS: list[tuple[int, str, dict[str, Any], dict[str, Any]]] = [
    (23, "RMSNormalization", {"x": normal(2, 3, 8), "s": normal(8)}, {}),
    (23, "RMSNormalization", {"x": normal(2, 3, 8), "s": normal(3, 8)}, {"axis": 1, "epsilon": 0.1}),
    (17, "LayerNormalization", {"x": 30 + normal(2, 3, 8), "s": normal(8), "b": normal(8)}, {}),
    (17, "LayerNormalization", {"x": normal(2, 3, 8), "s": normal(3, 8)}, {"axis": 1}),
    (18, "GroupNormalization", {"x": normal(2, 6, 5, 4), "s": normal(3), "b": normal(3)}, {"num_groups": 3}),
    (21, "GroupNormalization", {"x": normal(2, 6, 5, 4), "s": normal(6), "b": normal(6)}, {"num_groups": 3}),
    (21, "GroupNormalization", {"x": normal(2, 6, 5), "s": normal(6), "b": normal(6)}, {"num_groups": 1}),
    (20, "Gelu", {"x": normal(2, 9)}, {}),
    (20, "Gelu", {"x": normal(2, 9)}, {"approximate": "tanh"}),
    (14, "HardSwish", {"x": 4 * normal(2, 9)}, {}),
    (18, "Mish", {"x": normal(2, 9)}, {}),
    (24, "Swish", {"x": normal(2, 9)}, {"alpha": 1.7}),
    (24, "Swish", {"x": normal(2, 9)}, {}),
    (12, "Celu", {"x": normal(2, 9)}, {"alpha": 0.7}),
    (23, "RotaryEmbedding", CACHE | {"x": normal(2, 3, 4, 8)}, {}),
    (23, "RotaryEmbedding", CACHE | {"x": normal(2, 3, 4, 8)}, {"interleaved": 1}),
    (23, "RotaryEmbedding", CACHE | {"x": normal(2, 4, 24)}, {"num_heads": 3}),
    (23, "RotaryEmbedding", CACHE | {"x": normal(2, 4, 24)}, {"num_heads": 3, "interleaved": 1}),
    (
        23,
        "RotaryEmbedding",
        {
            "x": normal(2, 3, 4, 8),
            "cos": normal(9, 2),
            "sin": normal(9, 2),
            "ids": np.array([[0, 1, 2, 3], [5, 6, 7, 8]]),
        },
        {"rotary_embedding_dim": 4},
    ),
    (24, "TensorScatter", {"c": normal(2, 3, 6, 4), "u": normal(2, 3, 2, 4), "i": np.array([1, 4])}, {}),
    (
        24,
        "TensorScatter",
        {"c": normal(2, 3, 6, 4), "u": normal(2, 3, 2, 4), "i": np.array([5, 4])},
        {"mode": "circular"},
    ),
    (24, "TensorScatter", {"c": normal(2, 6, 4), "u": normal(2, 2, 4)}, {"axis": 1}),
    (14, "Trilu", {"x": normal(2, 4, 5)}, {}),
    (14, "Trilu", {"x": normal(2, 4, 5)}, {"upper": 0}),
    (13, "Softmax", {"x": normal(2, 4, 5)}, {"axis": 1}),
    (13, "LogSoftmax", {"x": normal(2, 4, 5, 3)}, {"axis": -2}),
    (20, "GridSample", {"x": normal(2, 3, 5, 6), "g": np.tanh(normal(2, 4, 4, 2))}, {"mode": "cubic"}),
    (20, "GridSample", {"x": normal(2, 3, 5, 6), "g": np.tanh(normal(2, 4, 4, 2))}, {}),
]


@pytest.mark.parametrize(("opset", "op", "feeds", "attributes"), OTHERS)
def test_operators_compute_the_same(opset: int, op: str, feeds: dict[str, Any], attributes: dict[str, Any]) -> None:
    node = helper.make_node(op, list(feeds), ["y"], "node", **attributes)
    proto = model_of(node, feeds, opset, free=False)
    wanted = run(proto, feeds)
    for version in {16 if op == "GridSample" else 11, opset - 1}:
        close(wanted, run(lowered(proto, version), feeds))


def test_results_of_normalizations_are_of_the_type_of_the_input() -> None:
    feeds = {"x": half(2, 3, 8), "s": half(8), "b": half(8)}
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], "node")
    proto = model_of(node, feeds, 17, free=True)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    result = lowered(proto, 13)
    (wanted,), (got,) = run(proto, feeds), run(result, feeds)
    assert got.dtype == wanted.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float32), wanted.astype(np.float32), atol=2e-3)


def test_a_name_that_is_made_is_not_one_that_the_model_has() -> None:
    feeds = {"x": normal(2, 9)}
    first = model_of(helper.make_node("Gelu", ["x"], ["y"], "node"), feeds, 20, free=False)
    names = {name for node in lowered(first, 17).graph.node for name in node.output}
    (taken,) = [name for name in names if "Erf" in name]
    second = helper.make_node("Relu", ["x"], [taken])
    first.graph.node.append(second)
    first.graph.output.append(helper.make_tensor_value_info(taken, TensorProto.FLOAT, [2, 9]))
    close(run(first, feeds), run(lowered(first, 17), feeds))


@pytest.mark.parametrize(
    ("op", "attributes", "dims", "why"),
    [
        ("Attention", {}, [["b", "h", "s", 8]] * 3, "its number of heads is not known"),
        (
            "Attention",
            {"q_num_heads": 2, "kv_num_heads": 2},
            [["b", "s", "w"]] * 3,
            "the size of its heads is not known",
        ),
        ("Trilu", {}, [["b", "n", "n"]], "the sizes of its matrices are not known"),
    ],
)
def test_refusals_say_what_is_not_known(op: str, attributes: dict[str, Any], dims: list[Any], why: str) -> None:
    names = [f"i{i}" for i in range(len(dims))]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in zip(names, dims, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"y{i}" for i in range(len(dims[0]))])
    graph = helper.make_graph([helper.make_node(op, names, ["y"], "node", **attributes)], "g", inputs, [output])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    with pytest.raises(OnnxlintError, match=f"m.onnx: {op} 'node' cannot be lowered to opset 13: {why}"):
        lowered(proto, 13)


def test_heads_are_known_behind_a_rotary_embedding() -> None:
    nodes = [
        helper.make_node("RotaryEmbedding", ["x", "cos", "sin"], ["turned"], "rotary"),
        helper.make_node("Attention", ["turned", "turned", "x"], ["y"], "attention", is_causal=1),
    ]
    dims: dict[str, list[str | int | None]] = {"x": ["b", 3, "s", 8], "cos": ["b", "s", 4], "sin": ["b", "s", 4]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3, "s", 8])
    graph = helper.make_graph(nodes, "g", inputs, [output])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    feeds = CACHE | {"x": normal(2, 3, 4, 8)}
    close(run(proto, feeds), run(lowered(proto, 17), feeds))
