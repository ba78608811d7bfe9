"""Models of any size, whose weights are holes in the file."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper

from onnxlint.model.wire import key_bytes


def save_large(path: Path, tensors: int, each: int) -> Path:
    """A chain of Adds with a weight of `each` bytes apiece (zeros); the file takes no space on disk."""
    nodes = [helper.make_node("Add", [f"v{i}", f"w{i}"], [f"v{i + 1}"], f"/net/add{i}") for i in range(tensors)]
    shape: list[str | int | None] = ["N", each // 4]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("v0", f"v{tensors}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:])
    heads = [
        TensorProto(name=f"w{i}", dims=[each // 4], data_type=TensorProto.FLOAT).SerializeToString()
        + key_bytes(9, each)
        for i in range(tensors)
    ]
    start = graph.SerializeToString()
    keys = [key_bytes(5, len(head) + each) for head in heads]
    length = len(start) + sum(map(len, keys)) + sum(map(len, heads)) + tensors * each
    model = helper.make_model(helper.make_graph([], "", [], []), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    model.ClearField("graph")
    with open(path, "wb") as file:
        file.write(model.SerializeToString() + key_bytes(7, length) + start)
        for key, head in zip(keys, heads, strict=True):
            file.write(key + head)
            file.seek(each, 1)
        file.truncate()
    return path
