"""QNT001: weights and constants that float16 cannot hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from onnxlint import (
    Applicability,
    Example,
    Finding,
    Fix,
    GraphView,
    Node,
    OnnxlintError,
    Options,
    Request,
    Rule,
    Severity,
    Silent,
    Unfixable,
    counted,
)
from onnxlint_rules._graph import FLOAT16, FLOATS, label, names_shown
from onnxlint_rules._patching import array_of, each, is_held

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from onnxlint import Surgeon
    from onnxlint_rules.qnt._weights import Weight

CLAMP = Fix(Applicability.UNSAFE, flag="--clamp-fp16")

EPS = 1e-6
"""What takes the place of an eps that float16 has no number for."""

MASK = 1e4
"""What takes the place of a mask beyond the range: sums of it stay finite too."""

LARGEST = 65504.0
"""Largest finite float16."""

SMALLEST_NORMAL = 2.0**-14
"""Smaller magnitudes are subnormal in float16: held with fewer bits, or flushed to zero."""

ZERO = 2.0**-25
"""Magnitudes up to here round to zero in float16."""

ENOUGH_DB = 50.0
"""Signal to noise of a layer's weights without its subnormal ones. Rounding to float16 alone leaves about 74 dB."""


class Fp16Range(Rule):
    """Weights, constants or sums are out of the range of float16.

    ## What it does

    Reads the weights (`--weights`) of convolutions, matrix products and recurrent layers, and reports a tensor

    - with finite numbers beyond ±65504, which are infinite in float16;
    - in which the numbers under 2⁻¹⁴ (6.1e-5), which are subnormal in float16, carry so much of the signal that flushing
      them to zero leaves less than 50 dB: 10·log₁₀(Σw² / Σw² of the subnormal ones). Rounding to float16 alone leaves about
      74 dB.

    Reports constants for information, once for each kind: finite ones beyond ±65504 outside Clip, Min and Max (masks of
    -3.4e38), and those that Add, Clip or Max read and that float16 rounds to zero (`eps=1e-12`). Reports reductions that
    add up more than 4,096 numbers (a mean over a map of 512×512), for information as well.

    ## Why it hurts

    - pnnx writes float16 with subnormals flushed to zero. Measured on RetinaFace, whose first convolution takes raw 0…255
      pixels: its weights are at most 0.0047, 15.7 % of them vanish, and the boxes come out at 32 dB; with
      the same weights times 128 and the input divided by 128, at 41 dB.
    - TensorRT warns `Subnormal FP16 values detected` for each such layer, and suggests to change the weights.
    - A mask of -3.4e38 becomes -inf: a row that is masked completely becomes NaN. An `eps` of 1e-12 becomes 0, and 0/0 is
      NaN too. A device that adds up in float16 gets infinity for a mean of ones over 512×512 numbers, whose sum is 262,144.
      Some converters clamp instead (onnxconverter-common to 1e-7 and 1e4, onnxruntime to 5.96e-8 and 65504).

    ## Fix it at the source

    ```python
    # before: raw pixels, tiny weights
    out = model(pixels)
    # after: the same numbers, in the middle of the range
    model.stem.conv.weight.data *= 128
    out = model(pixels / 128)

    # before
    F.normalize(x, eps=1e-12)
    scores.masked_fill(mask, torch.finfo(torch.float32).min)
    # after
    F.normalize(x, eps=1e-6)
    scores.masked_fill(mask, -1e4)
    ```

    ## Fix safety

    Scaling weights by a power of two and its input by the inverse is exact in float32. `--clamp-fp16` changes numbers on
    purpose: weights beyond ±65504 become that, other constants beyond it ±1e4, and an `eps` that vanishes 1e-6.

    ## References

    - [pnnx utils.cpp](https://github.com/Tencent/ncnn/blob/master/tools/pnnx/src/utils.cpp): `float32_to_float16`, "denormal, always underflow"
    - [TensorRT#2232](https://github.com/NVIDIA/TensorRT/issues/2232): `Subnormal FP16 values detected`
    - [onnxconverter-common#153](https://github.com/microsoft/onnxconverter-common/pull/153): "dividing by a small epsilon turns into a division by 0"
    - [pytorch#41527](https://github.com/pytorch/pytorch/issues/41527): layer norm of zeros with eps=1e-12 in half precision
    - [transformers#1154](https://github.com/huggingface/transformers/pull/1154): masks beyond 65504
    """  # noqa: E501 - one link a line

    code = "QNT001"
    name = "fp16-range"
    apart = True
    needs_weights = True
    help = "scale the weights down, and their inputs up by the same factor"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {0.00003, 0.00004, 0.0002, 0.00001}> {
                y = MatMul (x, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y)
            <float[2,2] w = {0.03072, 0.04096, 0.2048, 0.01024}, float scale = {0.0009765625}> {
                small = Mul (x, scale)
                y = MatMul (small, w)
            }
            """,
            says="75 % of 4 weights are subnormal in float16 (largest 0.0002): flushed to zero, they leave 12 dB",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {100000, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {65504, 2, 3, 4}> {
                y = MatMul (x, w)
            }
            """,
            equal=False,
            says="1 of 4 weights is infinite in float16 (largest 1e+05)",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, bool[N,2] mask) => (float[N,2] y) <float low = {-3e38}, float eps = {1e-12}> {
                norm = ReduceL2 <axes = [1]> (x)
                some = Max (norm, eps)
                unit = Div (x, some)
                y = Where (mask, unit, low)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x, bool[N,2] mask) => (float[N,2] y) <float low = {-1e4}, float eps = {1e-6}> {
                norm = ReduceL2 <axes = [1]> (x)
                some = Max (norm, eps)
                unit = Div (x, some)
                y = Where (mask, unit, low)
            }
            """,
            findings=2,
            equal=False,
            says="1 constant is 0 in float16: 1e-12 in Max",
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,512,512] x) => (float[N,2,1,1] y) {
                y = ReduceMean <axes = [2, 3]> (x)
            }
            """,
            says="1 reduction adds up more than 4,096 numbers (ReduceMean of 262,144)",
            dims={"N": 1},
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {0.5, 0.25, 0.00001, 0}, float top = {3e38}> {
                a = MatMul (x, w)
                y = Clip (a, , top)
            }
            """,
            why="a subnormal weight among normal ones does no harm, and an infinite bound does not limit anything",
        ),
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[N,2,32,32] x, int64[4,9999] i) => (float[N,2,1,1] y, int64[1,1] j) {
                y = GlobalAveragePool (x)
                j = ReduceMean (i)
            }
            """,
            why="1,024 numbers are few, and integers are not converted",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        from onnxlint_rules.qnt._weights import weights

        multiplied: set[int] = set()
        for weight in weights(view):
            multiplied.add(id(weight.tensor))
            if weight.tensor.data_type != FLOAT16:
                yield from self._weight(view, weight)
        yield from self._constants(view, multiplied)
        yield from self._reductions(view)

    def _reductions(self, view: GraphView) -> Iterator[Finding]:
        from onnxlint_rules.qnt._reductions import MANY, large_reductions

        found = large_reductions(view)
        if found:
            node, count = found[0]
            verb = "adds" if len(found) == 1 else "add"
            yield self.found(
                view.at(node),
                f"{counted(len(found), 'reduction')} {verb} up more than {MANY:,} numbers ({node.op} of {count:,}): "
                "a sum in float16 overflows at 65504, and loses what is small beside it",
                severity=Severity.INFO,
                help="keep these operators in float32",
                nodes=names_shown((label(one) for one, _ in found), 10),
                count=len(found),
            )

    def _weight(self, view: GraphView, weight: Weight) -> Iterator[Finding]:
        from onnxlint_rules.qnt._weights import figures

        seen = figures(view, weight.tensor)
        if seen is None or not seen.energy:
            return
        place = view.at(weight.node, value=weight.tensor.name)
        if seen.largest > LARGEST:
            beyond = _count_beyond(view, weight.tensor)
            yield self.found(
                place,
                f"{beyond:,} of {counted(seen.count, 'weight')} {'is' if beyond == 1 else 'are'} infinite in float16 "
                f"(largest {seen.largest:.3g})",
                tensor=names_shown([weight.tensor.name]),
                fix=CLAMP if is_held(weight.node.graph) and weight.node.input(weight.operand) else None,
            )
            return
        # The subnormal ones cannot carry more than this: no need to look for them in most tensors.
        ratio = 10 ** (ENOUGH_DB / 10)
        if seen.count * SMALLEST_NORMAL**2 * ratio < seen.energy:
            return
        count, energy = _subnormal(view, weight.tensor)
        if energy * ratio < seen.energy:
            return
        why: dict[str, Any] = {"not fixed": "clamping does not help: scale them, and what they multiply by the inverse"}
        left = 10 * math.log10(seen.energy / energy)
        yield self.found(
            place,
            f"{100 * count / seen.count:.3g} % of {counted(seen.count, 'weight')} are subnormal in float16 "
            f"(largest {seen.largest:.2g}): flushed to zero, they leave {left:.0f} dB",
            tensor=names_shown([weight.tensor.name]),
            signal_to_noise_db=f"{left:.1f}",
            **why,
        )

    def _constants(self, view: GraphView, multiplied: set[int]) -> Iterator[Finding]:
        lost, infinite = _beyond(view, multiplied)
        for found, what, help in (
            (lost, "0", "use an eps that float16 holds: 1e-6"),
            (infinite, "infinite", "use a bound that float16 holds: -1e4 for masks"),
        ):
            if found:
                verb = "is" if len(found) == 1 else "are"
                places = dict.fromkeys(text for _, _, text in found)
                yield self.found(
                    view.at(found[0][0]),
                    f"{counted(len(found), 'constant')} {verb} {what} in float16: {names_shown(places)}",
                    severity=Severity.INFO,
                    help=help,
                    fix=CLAMP,
                )

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        import numpy as np

        from onnxlint_rules.qnt._weights import weights

        node, name = view.find(finding.location), finding.location.value
        every = weights(view)
        if name:
            weight = next(w for w in every if w.node is node and w.tensor.name == name)
            held, values = surgeon.node(node), array_of(node, weight.operand)
            if values is None:
                raise Unfixable("it is computed from the weight that the file holds")
            clamped = np.where(np.isfinite(values), values.clip(-LARGEST, LARGEST), values).astype(values.dtype)
            held.inputs[weight.operand] = surgeon.constant(f"{name}_clamped", clamped)
            return
        lost, infinite = _beyond(view, {id(weight.tensor) for weight in every})
        found = lost if any(reader is node for reader, _, _ in lost[:1]) and "is 0" in _kind(finding) else infinite
        by_reader: dict[int, list[int]] = {}
        for reader, operand, _ in found:
            by_reader.setdefault(id(reader), []).append(operand)

        def clamp(reader: Node) -> None:
            held = surgeon.node(reader)
            for operand in by_reader[id(reader)]:
                values = array_of(reader, operand)
                if values is None:
                    raise Unfixable("it is not a plain tensor")
                constant = surgeon.constant(f"{reader.input(operand)}_clamped", _in_range(values), reader.graph)
                held.inputs[operand] = constant

        each(surgeon, {id(reader): reader for reader, _, _ in found}.values(), clamp)


def _kind(finding: Finding) -> str:
    return "is 0" if " 0 in float16" in finding.message else "is infinite"


def _in_range(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Constants in float16's range: larger ones become ±1e4, smaller ones ±1e-6."""
    import numpy as np

    floats = values.astype(np.float64)
    magnitude, sign = abs(floats), np.sign(floats)
    floats = np.where((magnitude > LARGEST) & np.isfinite(floats), sign * MASK, floats)
    floats = np.where((magnitude > 0) & (magnitude <= ZERO), sign * EPS, floats)
    return floats.astype(values.dtype)


def _beyond(view: GraphView, multiplied: set[int]) -> tuple[list[tuple[Node, int, str]], list[tuple[Node, int, str]]]:
    """(reader, operand, words) of the constants that are 0 in float16, and of those that are infinite."""
    from onnxlint_rules.qnt._weights import figures, small_constants

    lost: list[tuple[Node, int, str]] = []
    infinite: list[tuple[Node, int, str]] = []
    for reader, operand, value in small_constants(view):
        magnitude = abs(value)
        if 0 < magnitude <= ZERO and reader.op in _GUARDS:
            lost.append((reader, operand, f"{value:.3g} in {reader.op}"))
        elif LARGEST < magnitude < math.inf and (reader.op not in _BOUNDS or operand == 0):
            infinite.append((reader, operand, f"{value:.3g} in {reader.op}"))
    for graph in view.graphs:
        for name, tensor in graph.initializers.items():
            # Masks: read where their size shows that they are no single number, and no weights.
            if id(tensor) in multiplied or tensor.data_type not in FLOATS or math.prod(tensor.dims) <= 1:
                continue
            seen = figures(view, tensor)
            readers = graph.consumers(name)
            if seen is not None and readers and tensor.data_type != FLOAT16 and seen.largest > LARGEST:
                reader = readers[0]
                infinite.append((reader, reader.inputs.index(name), f"±{seen.largest:.3g} in {reader.op}"))
    return lost, infinite


_GUARDS = frozenset(("Add", "Clip", "Max"))
"""Operators that keep a divisor, or what a root or logarithm is taken of, away from zero."""

_BOUNDS = frozenset(("Clip", "Max", "Min"))
"""Operators for which an infinite constant means "no bound"."""


def _count_beyond(view: GraphView, tensor: onnx.TensorProto) -> int:
    import numpy as np

    from onnxlint_rules.qnt._weights import pieces

    try:
        return sum(int(((abs(piece) > LARGEST) & np.isfinite(piece)).sum()) for piece in pieces(view, tensor))
    except OnnxlintError:
        return 0  # the file changed since its figures were read


def _subnormal(view: GraphView, tensor: onnx.TensorProto) -> tuple[int, float]:
    """(count, sum of squares) of the numbers that are subnormal in float16, zeros left out."""
    import numpy as np

    from onnxlint_rules.qnt._weights import pieces

    count, energy = 0, 0.0
    try:
        for piece in pieces(view, tensor):
            small = piece[(abs(piece) < SMALLEST_NORMAL) & (piece != 0)].astype(np.float64)
            count += small.size
            energy += float(np.dot(small, small))
    except OnnxlintError:
        return 0, 0.0  # the file changed since its figures were read
    return count, energy
