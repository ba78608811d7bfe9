"""NNCF's default quantization of an ONNX model, run by an interpreter that has nncf, onnx and onnxruntime.

Its own runs of int8 are exact, as all are here: sums overflow in onnxruntime on processors without VNNI.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx

from onnxlint.backends import backend_for
from onnxlint.backends.ort.prepare import prepare

SCRIPT = """
import sys
import numpy as np, onnx, onnxruntime
session = onnxruntime.InferenceSession
def exact(model, sess_options=None, **more):
    options = sess_options or onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return session(model, options, **more)
onnxruntime.InferenceSession = exact
import nncf
source, arrays, out = sys.argv[1:]
model = onnx.load(source)
with np.load(arrays) as loaded:
    inputs = [{str(loaded["name"]): x[None]} for x in loaded["inputs"]]
onnx.save(nncf.quantize(model, nncf.Dataset(inputs), subset_size=len(inputs)), out)
"""


def by_nncf(python: str, model: str, inputs: Sequence[npt.NDArray[np.float32]], folder: str) -> str:
    """The path of the model that NNCF makes.

    Args:
        python: The interpreter.
        model: The ONNX model; it is brought to operator set 13 first, as NNCF takes no old ones.
        inputs: To calibrate with (C, H, W), of one shape.
        folder: Where to write.

    Raises:
        RuntimeError: NNCF fails.
    """
    name = backend_for(model).open(model).inputs[0].name
    arrays, source, made = (os.path.join(folder, name) for name in ("inputs.npz", "source.onnx", "nncf.onnx"))
    onnx.save(prepare(model), source)
    np.savez(arrays, name=np.array(name), inputs=np.stack(inputs))
    done = subprocess.run(
        [python, "-W", "ignore", "-c", SCRIPT, source, arrays, made], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:100])
    return made
