"""The network and its export on the same inputs: sizes to try, random numbers, and how the outputs differ.

Needs torch and onnxruntime.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxlint.exporting.factory import said
from onnxlint.exporting.network import SEED, Network, random
from onnxlint.telemetry import load_onnxruntime
from onnxlint.verification.differences import Difference, compare, severity
from onnxlint.verification.results import BRAIN, HALF, Tolerance, Trial

if TYPE_CHECKING:
    import torch

TOLERANCE = Tolerance(1e-3, 1e-4)
"""Kernels of two runtimes sum in different orders: over a deep network in float32, that is far below this."""

ENOUGH = 4
"""Sizes that are compared, where the network has free ones."""

THREADS = 2

Sizes = dict[str, int]


class Random(Exception):  # noqa: N818 - a property of the network
    """Two runs of the network on the same inputs differ."""


def tolerance_of(network: Network) -> Tolerance:
    """What may differ: rounding, of the coarsest type that the network computes in."""
    import torch

    held = (network.program.state_dict if network.program is not None else network.module.state_dict()).values()
    kinds = {one.dtype for one in held if hasattr(one, "dtype")} | {one.example.dtype for one in network.inputs}
    return BRAIN if torch.bfloat16 in kinds else HALF if torch.float16 in kinds else TOLERANCE


@dataclass(frozen=True)
class Reference:
    """What the network computed from some inputs.

    Attributes:
        sizes: Symbol → size.
        feeds: Input → array.
        outputs: In the network's order.
    """

    sizes: Sizes
    feeds: dict[str, Any]
    outputs: list[Any]

    @property
    def dims(self) -> str:
        """The sizes, for people."""
        return ", ".join(f"{symbol}={size}" for symbol, size in self.sizes.items())


class References:
    """What the network computes at several sizes; made once, for all exports of it.

    Raises:
        Random: Its outputs are random.
    """

    def __init__(self, network: Network) -> None:
        import torch

        self.tolerance = tolerance_of(network)
        self.trials: list[Reference] = []
        first = network.run(network.args)
        if not all(_same(a, b) for a, b in zip(first, network.run(network.args), strict=True)):
            raise Random
        self._add(network, _sizes(network), network.args, first)
        generator = torch.Generator().manual_seed(SEED + 1)
        for sizes in _variations(_sizes(network)):
            if len(self.trials) >= ENOUGH:
                break
            # An input without free sizes keeps its value: it may be a factor, which is no random number.
            args = tuple(
                random(
                    [
                        sizes[one.free[axis]] if axis in one.free else size
                        for axis, size in enumerate(one.example.shape)
                    ],
                    str(one.example.dtype).removeprefix("torch."),
                    generator,
                ).to(one.example.device)
                if one.free
                else one.example
                for one in network.inputs
            )
            try:
                outputs = network.run(args)
            except Exception:  # noqa: BLE001, S112 - the network does not take this size, which says nothing
                continue
            self._add(network, sizes, args, outputs)

    def _add(
        self, network: Network, sizes: Sizes, args: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> None:
        feeds = {one.name: _numpy(value) for one, value in zip(network.inputs, args, strict=True)}
        self.trials.append(Reference(sizes, feeds, [_numpy(value) for value in outputs]))

    def save(self, folder: str) -> None:
        """Keep them for another process."""
        import numpy as np

        for i, one in enumerate(self.trials):
            with open(os.path.join(folder, f"reference{i}.json"), "w", encoding="utf-8") as file:
                json.dump({"sizes": one.sizes, "inputs": list(one.feeds), "outputs": len(one.outputs)}, file)
            for kind, arrays in (("in", one.feeds.values()), ("out", one.outputs)):
                for k, array in enumerate(arrays):
                    np.save(os.path.join(folder, f"reference{i}.{kind}{k}.npy"), array)


def run_model(path: str, names: Sequence[str], references: References) -> list[Trial]:
    """Compare an exported file with what the network computed.

    Args:
        path: The file.
        names: Its outputs, in the network's order.
        references: What the network computed.
    """
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - whatever the runtime raises
        return [_failed("", f"onnxruntime does not load it: {said(error)}")]
    taken = {one.name for one in session.get_inputs()}
    found = []
    for one in references.trials:
        dims, feeds, expected = one.dims, one.feeds, one.outputs
        try:
            got = session.run(None, {name: value for name, value in feeds.items() if name in taken})
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises
            found.append(_failed(dims, f"the model does not run: {said(error)}"))
            continue
        found.append(_compared(dims, expected, got, names, references.tolerance))
    return found


def run_again(network: Network, folder: str, multiples: Mapping[str, int], joined: int | None) -> list[Trial]:
    """Compare a network with what an earlier form of it computed.

    Args:
        network: The network.
        folder: What `References.save` kept.
        multiples: Symbol → number; runs at other sizes say nothing.
        joined: Axis along which the earlier outputs are joined before they are compared.
    """
    import numpy as np
    import torch

    found = []
    for place in sorted(glob.glob(os.path.join(glob.escape(folder), "reference*.json"))):
        with open(place, encoding="utf-8") as file:
            entry = json.load(file)
        if any(entry["sizes"].get(symbol, number) % number for symbol, number in multiples.items()):
            continue
        stem = place.removesuffix(".json")
        args = [torch.from_numpy(np.load(f"{stem}.in{k}.npy")) for k in range(len(entry["inputs"]))]
        expected = [np.load(f"{stem}.out{k}.npy") for k in range(entry["outputs"])]
        dims = Reference(entry["sizes"], {}, []).dims
        args = [arg.to(one.example) for arg, one in zip(args, network.inputs, strict=True)]
        try:
            got = [_numpy(value) for value in network.run(args)]
        except Exception as error:  # noqa: BLE001 - the user's code
            found.append(_failed(dims, f"the network fails: {said(error)}"))
            continue
        if joined is not None and len(expected) > 1:
            expected = [np.concatenate(expected, joined)]
        found.append(_compared(dims, expected, got, network.outputs, tolerance_of(network)))
    return found


def _compared(dims: str, expected: list[Any], got: list[Any], names: Sequence[str], tolerance: Tolerance) -> Trial:
    if len(got) != len(expected):
        return _failed(dims, f"{len(got)} outputs in place of {len(expected)}")
    differences = [
        (compare(a, b, tolerance.rtol, tolerance.atol), name) for a, b, name in zip(expected, got, names, strict=True)
    ]
    worst, name = max(differences, key=lambda pair: severity(pair[0]), default=(Difference("equal"), ""))
    outcome: Any = worst.outcome
    return Trial(dims, "normal", outcome, worst.worst, name if outcome != "equal" else "", worst.why)


def _failed(dims: str, why: str) -> Trial:
    return Trial(dims, "normal", "different", math.inf, "", why)


def _sizes(network: Network) -> Sizes:
    """Symbol → size in the example."""
    return {symbol: one.example.shape[axis] for one in network.inputs for axis, symbol in sorted(one.free.items())}


def _variations(base: Sizes) -> Iterator[Sizes]:
    """Other sizes: small ones (batches) become 1 and 3, others go up and down by what divides them, and by an odd number."""
    if not base:
        return
    steps = {symbol: min(size & -size, 32) for symbol, size in base.items()}
    small = {symbol for symbol, size in base.items() if size <= 4}
    for i in range(4):
        made = {}
        for k, (symbol, size) in enumerate(base.items()):
            step = steps[symbol]
            if symbol in small:
                made[symbol] = (1, 3, 2, 4)[i]
            elif i == 0:
                made[symbol] = size + step if k % 2 else max(size - step, step)
            elif i == 1:
                made[symbol] = max((size // 2) // step * step, step)
            elif i == 2:
                made[symbol] = max(size // 2 - (1 if k % 2 else 3), 1)
            else:
                made[symbol] = size + 2 * step
        yield made


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return compare(_numpy(one), _numpy(other), 0, 0).outcome == "equal"


def _numpy(value: torch.Tensor) -> Any:
    import torch

    value = value.detach().cpu()
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.contiguous().numpy()
