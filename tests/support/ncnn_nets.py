"""Small nets, made in the test, and where the reference data lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from onnxlint.backends.ncnn.format import Network, parse_bin, parse_param

pytest.importorskip("ncnn", reason="the ncnn wheel is not installed")

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REFERENCE = DATA / "ncnn_reference"

needs_data = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the reference files are not in {REFERENCE}")

SMALL = """7767517
11 12
Input                    in0                      0 1 in0
Convolution              stem                     1 1 in0 1 0=8 1=3 3=2 4=1 5=1 6=216 9=2 -23310=1,1.000000e-01
ConvolutionDepthWise     depth                    1 1 1 2 0=8 1=3 4=1 5=1 6=72 7=8 9=1
Convolution              wide                     1 1 2 3 0=16 1=1 5=1 6=128 9=2 -23310=1,1.000000e-01
Split                    fork                     1 2 3 4 5
Convolution              left                     1 1 4 6 0=16 1=3 4=1 5=1 6=2304
Convolution              right                    1 1 5 7 0=16 1=1 6=256
BinaryOp                 sum                      2 1 6 7 8
ReLU                     relu                     1 1 8 9
Pooling                  pool                     1 1 9 10 0=1 4=1
InnerProduct             dense                    1 1 10 out0 0=5 1=1 2=80
"""


def small(seed: int = 0) -> Network:
    """A net with every kind of layer that is quantized, input (3, H, W), output (5,)."""
    rng = np.random.default_rng(seed)

    def weights(outputs: int, size: int) -> bytes:
        spread = np.exp(rng.normal(size=(outputs, 1)))
        values = rng.normal(size=(outputs, size // outputs)) * spread / np.sqrt(size / outputs)
        return b"".join((bytes(4), values.astype("<f4").tobytes()))

    def bias(outputs: int) -> bytes:
        return rng.normal(size=outputs).astype("<f4").tobytes()

    data = weights(8, 216) + bias(8) + weights(8, 72) + bias(8) + weights(16, 128) + bias(16)
    data += weights(16, 2304) + bias(16) + weights(16, 256) + weights(5, 80) + bias(5)
    return parse_bin(parse_param(SMALL), data)


def inputs(count: int = 4, size: int = 24) -> list[npt.NDArray[np.float32]]:
    """Smooth random inputs (3, size, size)."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(count, 3, size, size))
    return [np.ascontiguousarray(np.cumsum(x, axis=2) / 4, np.float32) for x in noise]
