"""GRF005: the same weights more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from onnxlint import SAFE, Example, Finding, GraphView, OnnxlintError, Options, Request, Rule, Severity, Silent, counted
from onnxlint.rulekit import byte_size, is_external, tensor_bytes
from onnxlint_rules._graph import names_shown, overridable
from onnxlint_rules._patching import each, is_held

if TYPE_CHECKING:
    import onnx

    from onnxlint import Graph, Node, Surgeon

SMALL = 256
"""Tensors of fewer bytes are axes, shapes and scalars: equal ones are no waste."""

SHARE = 0.01
"""A finding needs at least this share of all the weights' bytes …"""

NOTABLE = 4096
"""… and this many bytes, or ten times that share."""

HEAVY = 1_000_000
"""This many wasted bytes are worth a warning."""

_SAMPLE = 4096
_CHUNK = 1 << 24

_ROW = ", ".join(str(i / 8) for i in range(64))
_OTHER = ", ".join(str(i / 4) for i in range(64))


class DuplicateInitializer(Rule):
    """The file holds the same initializer more than once.

    ## What it does

    Compares initializers of at least 256 bytes that have the same type and dims, and reports those whose bytes are
    equal, once, where they take 10 % of all weights, or 1 % and 4 KB. Without `--weights` only those under 4 KB are
    compared; with it all of them are, and no tensor is held in memory. Tensors that refer to the same place in an external
    file share it already.

    A warning from 1 MB of repeated bytes on, else for information.

    ## Why it hurts

    The file, the download and the memory of every runtime that does not look for it hold the weights twice. Typical
    causes: a layer used twice that tracing has written out twice, tied weights (an embedding and the output layer) that
    were saved one by one, two models merged into one file.

    ## Fix it at the source

    ```python
    # before: equal, but two parameters
    self.head.weight = torch.nn.Parameter(self.embed.weight.clone())
    # after: one parameter in two places
    self.head.weight = self.embed.weight
    ```

    A file from elsewhere: `onnx_ir.passes.common.DeduplicateInitializersPass`.

    ## Fix safety

    Exact: consumers of the copy read the first one. A quantizer that treats them differently may want a copy for each again.

    ## References

    - [onnx_ir.passes.common.DeduplicateInitializersPass](https://onnx.ai/ir-py/api/ir_passes_common.html)
    - [ir-py#406](https://github.com/onnx/ir-py/issues/406): deduplication, and when quantizers need it undone
    - [onnxruntime#21277](https://github.com/microsoft/onnxruntime/issues/21277): tied weights in quantization
    """

    code = "GRF005"
    name = "duplicate-initializer"
    severity = Severity.INFO
    help = "keep one copy and let all consumers read it"
    examples = (
        Example(
            bad=f"""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8] x) => (float[N,8] y) <float[8,8] a = {{{_ROW}}}, float[8,8] b = {{{_ROW}}}> {{
                t = MatMul (x, a)
                y = MatMul (t, b)
            }}
            """,
            good=f"""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8] x) => (float[N,8] y) <float[8,8] a = {{{_ROW}}}> {{
                t = MatMul (x, a)
                y = MatMul (t, a)
            }}
            """,
            says="1 initializer repeats the bytes of another: 256 bytes, 50 % of the weights (b is a)",
        ),
    )
    silent = (
        Silent(
            f"""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,8] x) => (float[N,8] y) <float[8,8] a = {{{_ROW}}}, float[8,8] b = {{{_OTHER}}}> {{
                t = MatMul (x, a)
                y = MatMul (t, b)
            }}
            """,
            why="same type and dims, other values",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2] a = {1, 2}, float[2] b = {1, 2}> {
                t = Add (x, a)
                y = Add (t, b)
            }
            """,
            why="the duplicate holds only 8 bytes",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        copies: list[tuple[str, str]] = []
        wasted = 0
        mergeable = False
        for same in _copies(view, options.weights):
            copies += [(tensor.name, same[0].name) for tensor in same[1:]]
            wasted += (len(same) - 1) * (tensor_bytes(same[0]) or 0)
            mergeable = mergeable or bool(_merges(view, same))
        if not copies:
            return
        total = sum(tensor_bytes(tensor) or 0 for graph in view.graphs for tensor in graph.initializers.values())
        if wasted < (SHARE if wasted >= NOTABLE else 10 * SHARE) * total:
            return
        one = len(copies) == 1
        yield self.found(
            view.at(value=copies[0][0]),
            f"{counted(len(copies), 'initializer')} {'repeats' if one else 'repeat'} the bytes of "
            f"{'another' if one else 'others'}: {byte_size(wasted)}, {100 * wasted / total:.0f} % of the weights "
            f"({names_shown(f'{copy} is {first}' for copy, first in copies)})",
            severity=Severity.WARNING if wasted >= HEAVY else None,
            bytes=wasted,
            weights=int(options.weights),
            fix=SAFE if mergeable else None,
        )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        instead: dict[tuple[int, str], tuple[Graph, str]] = {}
        for same in _copies(view, dict(finding.evidence)["weights"] == "1"):
            for graph, copy, home, first in _merges(view, same):
                instead[(id(graph), copy)] = (home, first)
        readers = {
            id(reader): reader
            for graph in view.graphs
            for copy in graph.initializers
            if (id(graph), copy) in instead
            for reader in graph.consumers(copy)
        }

        def read_first(node: Node) -> None:
            held = surgeon.node(node)
            found = {
                i: instead[key]
                for i, name in enumerate(node.inputs)
                if name and (key := (id(node.graph.owner(name)), name)) in instead
            }
            tensors = {i: surgeon.tensor(home.consumers(first)[0], first) for i, (home, first) in found.items()}
            for i, tensor in tensors.items():
                held.inputs[i] = tensor

        each(surgeon, readers.values(), read_first)


def _copies(view: GraphView, weights: bool) -> list[list[onnx.TensorProto]]:
    """Groups of equal initializers; made once."""
    key = f"onnxlint_rules.copies.{weights}"
    known: list[list[onnx.TensorProto]] | None = view.memo.get(key)
    if known is None:
        groups: dict[tuple[int, tuple[int, ...]], list[onnx.TensorProto]] = {}
        for graph in view.graphs:
            for tensor in graph.initializers.values():
                if (tensor_bytes(tensor) or 0) >= SMALL and (weights or tensor.data_location != 1):
                    groups.setdefault((tensor.data_type, tuple(tensor.dims)), []).append(tensor)
        known = [same for tensors in groups.values() if len(tensors) > 1 for same in _equal(view, tensors)]
        view.memo[key] = known
    return known


def _merges(view: GraphView, same: list[onnx.TensorProto]) -> list[tuple[Graph, str, Graph, str]]:
    """(graph, copy, graph of the first, first) for the copies whose readers can see another one that comes first."""
    homes: dict[int, Graph] = {id(t): graph for graph in view.graphs for t in graph.initializers.values()}
    kept: list[tuple[Graph, str]] = []
    merges = []
    for tensor in same:
        graph, name = homes[id(tensor)], tensor.name
        if not is_held(graph) or (graph is view.main and name in overridable(view)) or not graph.consumers(name):
            continue
        outwards = {id(graph)}
        here = graph.parent
        while here is not None:
            outwards.add(id(here))
            here = here.parent
        home = next(((g, first) for g, first in kept if id(g) in outwards), None)
        if home is None or graph.is_output(name):
            kept.append((graph, name))
        else:
            merges.append((graph, name, *home))
    return merges


def _equal(view: GraphView, tensors: list[onnx.TensorProto]) -> Iterator[list[onnx.TensorProto]]:
    """Groups of at least two tensors with equal bytes."""
    for alike in _by_digest(view, tensors, whole=False):
        yield from _by_digest(view, alike, whole=True)


def _by_digest(view: GraphView, tensors: Iterable[onnx.TensorProto], whole: bool) -> Iterator[list[onnx.TensorProto]]:
    found: dict[bytes, list[onnx.TensorProto]] = {}
    places: set[tuple[str, ...]] = set()
    for tensor in tensors:
        place = _place(tensor)
        if place and place in places:
            continue  # the same bytes of an external file
        places.add(place)
        try:
            digest = _digest(view, tensor, whole)
        except OnnxlintError:
            continue  # data that is missing or does not fit: SEC002 and SPC001 report it
        found.setdefault(digest, []).append(tensor)
    yield from (same for same in found.values() if len(same) > 1)


def _place(tensor: onnx.TensorProto) -> tuple[str, ...]:
    if not is_external(tensor):
        return ()
    return tuple(sorted(f"{entry.key}={entry.value}" for entry in tensor.external_data))


def _digest(view: GraphView, tensor: onnx.TensorProto, whole: bool) -> bytes:
    """What equal tensors have in common: a hash of all their bytes, or the first and the last few thousand themselves."""
    stored = view.raw(tensor)
    if stored is not None and len(stored) == tensor_bytes(tensor):
        data = stored
    elif tensor.HasField("raw_data"):
        data = memoryview(tensor.raw_data)
    else:
        import numpy as np

        data = np.ascontiguousarray(view.array(tensor)).reshape(-1).view(np.uint8).data
    if not whole:
        return bytes(data[:_SAMPLE]) + bytes(data[-_SAMPLE:])
    import hashlib  # OpenSSL takes as long to load as a small model takes to check, and few models have such tensors

    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(data), _CHUNK):
        digest.update(data[start : start + _CHUNK])
    return digest.digest()
