"""The runtimes that a model is verified in: onnxruntime without optimizations, and onnx's reference evaluator."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxlint.model.limits import (
    die_with_parent,
    lacks_memory,
    limit_memory,
    loading,
    memory_overrun,
    running,
    set_budget,
)
from onnxlint.telemetry import load_onnxruntime

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class Unrunnable(Exception):  # noqa: N818 - an answer, not an error
    """A model cannot be loaded or run; the message has the reason."""


class TooLarge(Unrunnable):
    """A model takes more memory than it may: at other sizes it would, too."""


class OrtSession:
    """A model in onnxruntime, with optimizations off, so that the file's own nodes run."""

    def __init__(self, model: bytes, folder: str, threads: int) -> None:
        onnxruntime = load_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Buffers that are shared by what declared shapes say would make a wrong claim an error.
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        try:
            with loading():
                self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error
        self.outputs = [output.name for output in self._session.get_outputs()]
        self._takes = {value.name for value in self._session.get_inputs()}

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any]:
        """Run the model once; returns its outputs in order. Raises Unrunnable with the engine's reason."""
        taken = {name: x for name, x in feeds.items() if name in self._takes}
        size = sum(getattr(x, "nbytes", 0) for x in taken.values())
        try:
            with running(size):
                return list(self._session.run(None, taken))
        except Exception as error:
            if lacks_memory(error):
                raise TooLarge(memory_overrun(size)) from error
            raise Unrunnable(_first_line(error)) from error


class ReferenceSession:
    """A model in onnx's reference evaluator, slow and complete, for models that onnxruntime rejects."""

    def __init__(self, model: bytes, folder: str) -> None:
        import onnx
        from onnx.external_data_helper import load_external_data_for_model
        from onnx.reference import ReferenceEvaluator

        try:
            proto = onnx.ModelProto.FromString(model)
            if folder:
                load_external_data_for_model(proto, folder)
            self._evaluator = ReferenceEvaluator(proto)
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error
        self.outputs = [output.name for output in proto.graph.output]
        self._takes = {value.name for value in proto.graph.input}

    def __call__(self, feeds: Mapping[str, Array]) -> list[Any]:
        """Run the model once; returns its outputs in order. Raises Unrunnable with the engine's reason."""
        import numpy as np

        try:
            with np.errstate(all="ignore"):
                outputs = self._evaluator.run(None, {name: x for name, x in feeds.items() if name in self._takes})
        except Exception as error:
            raise Unrunnable(_first_line(error)) from error
        return list(outputs)


Engine = OrtSession | ReferenceSession


def load(
    path: str, folder: str, engine: str, threads: int, is_bare: bool = False, *, is_loose: bool = False
) -> tuple[Engine, bool]:
    """The model, and whether its declared shapes had to be removed for it to load.

    Args:
        path, folder: The file, and the folder that its external data is relative to.
        engine: `onnxruntime` or `onnx.reference`.
        threads: Threads of the runtime.
        is_bare: Whether to remove declared shapes of computed values.
        is_loose: Whether to remove those of its inputs as well, so that it can be run at other sizes.

    Raises:
        Unrunnable: It cannot be loaded.
    """
    with open(path, "rb") as file:
        data = file.read()
    if is_loose:
        data = without_claims(data, inputs=True)
    if engine != "onnxruntime":
        return ReferenceSession(data, folder), False
    if not is_bare:
        try:
            return OrtSession(data, folder, threads), False
        except Unrunnable as error:
            why = error
        try:
            return OrtSession(without_claims(data), folder, threads), True
        except Unrunnable:
            raise why from None
    return OrtSession(without_claims(data), folder, threads), True


def without_claims(data: bytes, *, inputs: bool = False) -> bytes:
    """The model without declared shapes of computed values: they may be wrong.

    Args:
        data: The model.
        inputs: Whether the sizes of its inputs go too; their ranks stay.
    """
    import onnx

    proto = onnx.ModelProto.FromString(data)
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for value in proto.graph.input if inputs else ():
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    return proto.SerializeToString()


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix("[ONNXRuntimeError] : ")[:300]


def print_load_problem(path: str, folder: str, size: str, parent: str) -> None:
    """Print as JSON why onnxruntime does not load a model; null if it does.

    Args:
        path, folder: The file, and the folder that its external data is relative to.
        size: Bytes of both.
        parent: Process id of who asks.
    """
    die_with_parent(int(parent))
    limit_memory()
    set_budget(int(size))
    with open(path, "rb") as file:
        data = file.read()
    problem = None
    try:
        OrtSession(data, folder, 1)
    except Unrunnable as error:
        problem = str(error)
    sys.stdout.write(json.dumps(problem) + "\n")
