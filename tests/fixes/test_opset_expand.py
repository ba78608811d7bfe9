"""Operators of newer sets written in older ones: equal to the original in onnxruntime, and to the specification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.checker
import pytest
from onnx import TensorProto, helper

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
        heads = {"q_num_heads": self.heads[0], "kv_num_heads": self.heads[1]} if self.rank == 3 else {}
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
