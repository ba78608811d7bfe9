"""Broken and hostile models: one clear line each, in bounded time and memory, whatever is in the file.

The default run takes some seconds and the same models each time; `ONNXLINT_FUZZ=10 HYPOTHESIS_PROFILE=random pytest
tests/attacks/test_fuzz.py` makes ten times as many new ones, and `python -m tests.support.fuzzing` goes on for as long as
one likes.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from fixtures import old_operators, pitfalls
from onnxlint.errors import OnnxlintError
from onnxlint.model.skeleton import open_model
from tests.support.command import BAD, CLEAN, onnxlint
from tests.support.fuzzing import (
    EVERYTHING,
    Mutation,
    check_problem,
    fix_problem,
    in_child,
    mutated_bytes,
    mutated_model,
    mutated_text,
    varint,
    warm_up,
)

TIMES = float(os.environ.get("ONNXLINT_FUZZ", "1"))
ZOO = Path(__file__).parents[3] / "zoo"
BACKEND = Path(os.path.dirname(onnx.__file__), "backend/test/data")
SMALL = 40_000

TEXTS = [
    CLEAN,
    BAD,
    """
    <ir_version: 10, opset_import: ["": 21, "own": 1], metadata_props: ["a": "b"]>
    net (float[N,3] x, bool c) => (float[N,3] y) <float[3] w = {1, 2, 3}, float[N,3] t> {
        t = own.twice <k = 2> (x)
        y = If (c) <
            then_branch = g1 () => (float[N,3] a) { a = Add (t, w) },
            else_branch = g2 () => (float[N,3] b) { b = Sub (t, w) }
        >
    }
    <domain: "own", opset_import: ["": 21]>
    twice <k> (p) => (q) { q = Add (p, p) }
    """,
]

mutations = st.lists(st.tuples(*[st.integers(0, 2**31 - 1)] * 3), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small models of many kinds: what mutants are made of."""
    warm_up()
    folder = tmp_path_factory.mktemp("seeds")
    found = [path.read_bytes() for opset in (9, 11) for path in pitfalls.build(folder, opset=opset)]
    found += [model.proto().SerializeToString() for model in old_operators.MODELS[::4]]
    found += [onnx.parser.parse_model(text).SerializeToString() for text in TEXTS]
    for folder in (BACKEND, ZOO / "real"):
        files = sorted(path for path in folder.rglob("*.onnx") if path.stat().st_size < SMALL)
        found += [path.read_bytes() for path in files[::4]]
    return found


def examples(number: int) -> settings:
    return settings(
        max_examples=max(1, int(number * TIMES)),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def broken(folder: Path, data: bytes, name: str = "broken.onnx") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# Mutants


@examples(25)
@given(which=st.integers(0, 10_000), changes=mutations)
def test_checks_of_broken_graphs(seeds: list[bytes], tmp_path: Path, which: int, changes: list[Mutation]) -> None:
    proto = mutated_model(onnx.ModelProto.FromString(seeds[which % len(seeds)]), changes)
    note(str(proto)[:3000])
    assert check_problem(broken(tmp_path, proto.SerializePartialToString()), *EVERYTHING) == ""


@examples(15)
@given(which=st.integers(0, 10_000), changes=mutations)
def test_fixes_of_broken_graphs(seeds: list[bytes], tmp_path: Path, which: int, changes: list[Mutation]) -> None:
    proto = mutated_model(onnx.ModelProto.FromString(seeds[which % len(seeds)]), changes)
    note(str(proto)[:3000])
    assert fix_problem(broken(tmp_path, proto.SerializePartialToString())) == ""


@examples(25)
@given(which=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), changes=mutations)
def test_broken_bytes(seeds: list[bytes], tmp_path: Path, which: tuple[int, int], changes: list[Mutation]) -> None:
    data, other = (seeds[i % len(seeds)] for i in which)
    assert check_problem(broken(tmp_path, mutated_bytes(data, other, changes)), *EVERYTHING) == ""


@examples(20)
@given(text=st.sampled_from(TEXTS), changes=mutations)
def test_broken_texts(seeds: list[bytes], tmp_path: Path, text: str, changes: list[Mutation]) -> None:
    data = mutated_text(text, changes).encode()
    assert check_problem(broken(tmp_path, data, "broken.onnxtxt"), *EVERYTHING) == ""


# What crashed: the essence of each


def crashes() -> dict[str, onnx.ModelProto]:
    x = helper.make_tensor_value_info("x", 1, [2, 6])
    y = helper.make_tensor_value_info("y", 1, None)

    def model(*nodes: onnx.NodeProto, inputs: tuple[onnx.ValueInfoProto, ...] = (x,)) -> onnx.ModelProto:
        graph = helper.make_graph(nodes, "g", inputs, [y])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 5)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    nameless = onnx.ValueInfoProto()
    nameless.CopyFrom(x)
    nameless.name = ""
    whole = numpy_helper.from_array(np.array([1], np.int64))
    return {
        "more outputs than a Split says": model(
            helper.make_node("Split", ["x"], ["y", "b", "c", "d"], axis=1, num_outputs=3)
        ),
        "an axis far out of range": model(
            helper.make_node("LayerNormalization", ["x", "x", "x"], ["y", "mean", "deviation"], axis=2**63 - 1)
        ),
        "an input without a name": model(helper.make_node("EyeLike", ["x", "x"], ["y"], dtype=11), inputs=(nameless,)),
        "an input without a type": model(
            helper.make_node("RegexFullMatch", ["x"], ["y"], pattern=""), inputs=(onnx.ValueInfoProto(name="x"),)
        ),
        "a tree that reads nothing": model(
            helper.make_node("TreeEnsemble", ["nothing"], ["y"], domain="ai.onnx.ml", nodes_splits=whole)
        ),
        "an axis put in twice": model(
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Constant", [], ["axes"], value_ints=[0, 0]),
            helper.make_node("Unsqueeze", ["s", "axes"], ["t"]),
            helper.make_node("Reshape", ["x", "t"], ["y"]),
        ),
        "a vector of more elements than there are": model(
            helper.make_node("Reshape", ["x", "s"], ["y"]),
            helper.make_node(
                "Constant", [], ["s"], value=onnx.TensorProto(data_type=7, dims=[2**40], raw_data=b"\0" * 8)
            ),
        ),
    }


@pytest.mark.parametrize("what", list(crashes()))
def test_what_crashed_a_library(tmp_path: Path, what: str) -> None:
    path = broken(tmp_path, crashes()[what].SerializeToString())
    assert check_problem(path, *EVERYTHING) == ""
    assert fix_problem(path) == ""


# One line each


def nested(depth: int, number: int = 7) -> bytes:
    """Messages in messages: a graph whose first node has a graph, and so on."""
    data = b""
    for _ in range(depth):
        for field in (6, 5, 1):  # graph of an attribute of a node
            data = varint(field << 3 | 2) + varint(len(data)) + data
    return varint(number << 3 | 2) + varint(len(data)) + data


def cyclic() -> bytes:
    nodes = [helper.make_node("Relu", ["b"], ["a"], "first"), helper.make_node("Neg", ["a"], ["b"], "second")]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("a", 1, [1])])
    return bytes(helper.make_model(graph).SerializeToString())


HEADER = b"\x08\x08"
"""ir_version: 8."""

FILES = {
    "empty": (b"", "empty file"),
    "one byte": (b"\x3a", "not a complete ONNX model: it ends inside a field"),
    "spaces": (b" " * 100, "not a"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n",
        "a Git LFS pointer, not the model; run 'git lfs pull'",
    ),
    "checkpoint": (b"PK\x03\x04" + b"\0" * 100, "a zip archive"),
    "web page": (b"<!DOCTYPE html><html></html>", "a web page"),
    "gigabyte string": (
        HEADER + b"\x12" + varint(1 << 30) + b"x" * 1000,
        "claims 1073741824 bytes and 1000 are left",
    ),
    "gigabyte graph": (HEADER + b"\x3a" + varint(1 << 31) + b"x" * 1000, "claims 2147483648 bytes"),
    "exabyte tensor": (HEADER + b"\x3a" + varint(5005) + b"\x2a" + varint(2**62) + b"x" * 4995, "claims"),
    "endless varint": (b"\x08" + b"\xff" * 1000, "has more than 10 bytes"),
    "cut varint": (b"\x08\x80", "ends inside a number"),
    "group": (b"\x0b" * 10, "not a protobuf field"),
    "nesting bomb": (nested(10_000), "nested more than"),
    "narrow nesting bomb": (nested(90), "not an ONNX model"),
    "no graph": (HEADER, "neither a graph nor functions"),
    "cycle": (cyclic(), "the graph has a cycle through first and second"),
}


OPTIONS = {
    "check": ("check", "--format", "json"),
    "fix": ("fix", "--diff"),
    "fix with conditions": ("fix", "--diff", "--multiple-of", "2", "--assume", "N % 2 == 0", "--static", "x=1"),
}


@pytest.mark.parametrize("command", OPTIONS)
@pytest.mark.parametrize("what", list(FILES))
def test_one_clear_line(tmp_path: Path, what: str, command: str) -> None:
    data, said = FILES[what]
    path = broken(tmp_path, data)
    command, *options = OPTIONS[command]
    run = in_child(lambda: onnxlint(command, path, *options), memory=300 << 20)
    assert run.problem == ""
    assert run.value.code == 2
    assert run.value.err.count("\n") == 1
    assert run.value.err.startswith(f"error: {path}: ")
    assert said in run.value.err


def test_folders_that_are_called_like_models(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    outcome = onnxlint("check", tmp_path / "x.onnx", "--format", "json")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no models in this folder" in outcome.err
    outcome = onnxlint("fix", tmp_path / "x.onnx", "--diff")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no models in this folder" in outcome.err
    outcome = onnxlint("show", tmp_path / "x.onnx")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "is a folder, not a model" in outcome.err


def test_names_used_twice_are_findings(tmp_path: Path) -> None:
    """Not errors: the check goes on."""
    nodes = [helper.make_node("Relu", ["x"], ["y"], "same"), helper.make_node("Neg", ["x"], ["y"], "same")]
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    twice = [numpy_helper.from_array(np.array([i], np.float32), "w") for i in range(2)]
    graph.initializer.extend(twice)
    path = broken(tmp_path, helper.make_model(graph).SerializeToString())
    assert check_problem(path, *EVERYTHING) == ""
    outcome = onnxlint("check", path, "--select", "SPC", "--format", "json")
    assert outcome.code == 1
    assert {finding["code"] for finding in outcome.json["findings"]} >= {"SPC001"}


def test_deep_graphs_within_the_limit_are_checked(tmp_path: Path) -> None:
    """If in If in If: as deep as protobuf goes."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y0"])], "g0", [], [helper.make_tensor_value_info("y0", 1, [1])]
    )
    for i in range(1, 15):
        node = helper.make_node("If", ["c"], [f"y{i}"], then_branch=body, else_branch=body if i < 3 else _leaf(i))
        body = helper.make_graph([node], f"g{i}", [], [helper.make_tensor_value_info(f"y{i}", 1, [1])])
    body.input.extend([helper.make_tensor_value_info("x", 1, [1]), helper.make_tensor_value_info("c", 9, [])])
    path = broken(tmp_path, helper.make_model(body).SerializeToString())
    assert check_problem(path, *EVERYTHING) == ""
    assert onnxlint("check", path).code in (0, 1)


def _leaf(i: int) -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Neg", ["x"], [f"leaf{i}"])], f"l{i}", [], [helper.make_tensor_value_info(f"leaf{i}", 1, [1])]
    )


def test_long_chains_do_not_overflow_the_stack(tmp_path: Path) -> None:
    length = 10 * sys.getrecursionlimit()
    nodes = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
    nodes[0].input[0] = "x"
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in ("x", f"v{length}")]
    path = broken(tmp_path, helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])).SerializeToString())
    assert check_problem(path) == ""


@pytest.mark.parametrize("text", ["", "<", "<ir_version", "{" * 50_000, "\0", "<ir_version: 8>\n" + "(" * 50_000])
def test_texts_that_are_no_models(tmp_path: Path, text: str) -> None:
    for name in ("m.onnxtxt", "m.json", "m.textproto"):
        path = broken(tmp_path, text.encode(), name)
        run = in_child(partial(refusal, path))
        assert run.problem == ""
        assert "\n" not in run.value
        assert name in run.value


def refusal(path: Path) -> str:
    with pytest.raises(OnnxlintError) as caught:
        open_model(path)
    return str(caught.value)
