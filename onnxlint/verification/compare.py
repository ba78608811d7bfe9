"""Numerical equivalence of two models, measured.

Both are run in onnxruntime, with its optimizations off, on the same seeded inputs: normal ones, zeros and large ones, and
for dynamic models several shapes, small, so that it is fast. Shapes that a model declares for computed values are not
believed. Inputs that the original refuses say nothing. The runs happen in a process of their own (see `worker`), which may
crash or hang without harm.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import GraphView
from onnxlint.model.limits import usable_cores
from onnxlint.model.skeleton import Model, open_model, walk_tensors
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable
from onnxlint.verification.contract import common_contract, demanded_sizes
from onnxlint.verification.inputs import Input
from onnxlint.verification.interface import UNCHANGED, Incomparable, Interface, LostOutput, bound, restored
from onnxlint.verification.process import load_failure, run_worker, write_model
from onnxlint.verification.results import ARITHMETIC as ARITHMETIC
from onnxlint.verification.results import BRAIN as BRAIN
from onnxlint.verification.results import EXACT as EXACT
from onnxlint.verification.results import HALF as HALF
from onnxlint.verification.results import Tolerance as Tolerance
from onnxlint.verification.results import Trial as Trial
from onnxlint.verification.results import Verification as Verification
from onnxlint.verification.trials import Task
from onnxlint.verification.undefined import without_undefined

if TYPE_CHECKING:
    import onnx


def verify(
    original: str | os.PathLike[str],
    fixed: str | os.PathLike[str],
    *,
    tolerance: Tolerance = EXACT,
    multiples: Mapping[str, int] | None = None,
    inputs: str | None = None,
    interface: Interface = UNCHANGED,
    seconds: float = 300.0,
) -> Verification:
    """Compare two model files that are to give the same outputs in the same order.

    Args:
        original, fixed: The files.
        tolerance: What is demanded; for models in 16 bits anything but EXACT becomes HALF or BRAIN.
        multiples: Symbol of an input → number that its size has to be a multiple of.
        inputs: An .npz file with inputs of the user's own, by name, to compare on as well.
        interface: How the inputs and outputs of the second differ from those of the first.
        seconds: Time limit.

    Raises:
        OnnxlintError: A file cannot be read, or onnxruntime is not installed.
    """
    first, second = open_model(original), open_model(fixed)
    return _verify((first, first.proto), (second, second.proto), tolerance, multiples or {}, inputs, seconds, interface)


def verify_models(
    model: Model,
    reference: onnx.ModelProto,
    result: onnx.ModelProto,
    *,
    exact: bool = True,
    multiples: Mapping[str, int] | None = None,
    inputs: str | None = None,
    interface: Interface = UNCHANGED,
    allow_empty: bool = False,
    seconds: float = 300.0,
) -> Verification:
    """Compare two skeletons of one model.

    With `interface`, changes that a user asked for are verified too: give the original as it was read as `reference`, and
    list renamed, joined, dropped and bound ends. Every output of the original is then compared, under its old name.
    Sizes need no word: where a size is a number in one model and free in the other (`--static`, `--dynamic`), both run at
    that number. At the other sizes that `--dynamic` sets free, the result is compared with the original wherever that
    runs there once its declared sizes are ignored, and batches with runs of the original on each sample; trials at sizes
    where the result alone runs have the outcome `ran`, which proves nothing.

    Args:
        model: Where their weights are.
        reference: The model that the result has to equal.
        result: The other skeleton.
        exact: Whether outputs have to be bit-equal. Outputs whose activation was dropped may differ by rounding.
        multiples: Symbol of an input → number that its size has to be a multiple of.
        inputs: An .npz file with inputs of the user's own, by the reference's names.
        interface: How the result's inputs and outputs differ from the reference's.
        allow_empty: Whether they have to agree for a batch of 0 as well; else a difference there is only noted.
        seconds: Time limit.

    Raises:
        OnnxlintError: `inputs` does not fit, or onnxruntime is not installed.
    """
    tolerance = EXACT if exact else ARITHMETIC
    sides = (model, reference), (model, result)
    return _verify(*sides, tolerance, multiples or {}, inputs, seconds, interface, allow_empty)


def load_problem(model: Model, proto: onnx.ModelProto, seconds: float = 300.0) -> str:
    """Why onnxruntime does not load a skeleton, in one line; empty if it does, or if that is unknown.

    Args:
        model: Where its weights are.
        proto: The skeleton.
        seconds: Time limit.

    Raises:
        OnnxlintError: onnxruntime is not installed.
    """
    _require_runtime()
    with tempfile.TemporaryDirectory(prefix="onnxlint-") as scratch:
        path = os.path.join(scratch, "model.onnx")
        try:
            written = write_model(model, proto, path)
        except Incomparable:
            return ""
        return load_failure(path, written, seconds)


_Side = tuple[Model, "onnx.ModelProto"]


def _verify(
    original: _Side,
    fixed: _Side,
    tolerance: Tolerance,
    multiples: Mapping[str, int],
    inputs: str | None,
    seconds: float,
    interface: Interface = UNCHANGED,
    allow_empty: bool = False,
) -> Verification:
    _require_runtime()
    view = make_view(replace(original[0], proto=original[1]))
    half = _half(view)
    if tolerance != EXACT and half is not None:
        tolerance = half
    try:
        before = bound(original[1], interface.bound)
        after = restored(original[1], fixed[1], interface)
        if interface.bound:
            view = make_view(replace(original[0], proto=before))
        contract = common_contract(view, make_view(replace(fixed[0], proto=after)), multiples, interface.renamed)
    except LostOutput as why:
        return Verification((Trial("", "normal", "different", math.inf, "", str(why)),), "", tolerance)
    except Incomparable as why:
        return Verification(tolerance=tolerance, skipped=str(why))
    if inputs is not None:
        _check_npz(inputs, contract.inputs)
    outputs = tuple(value.name for value in original[1].graph.output)
    with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
        paths = os.path.join(folder, "original.onnx"), os.path.join(folder, "fixed.onnx")
        try:
            first, second = write_model(original[0], before, paths[0]), write_model(fixed[0], after, paths[1])
        except Incomparable as why:
            return Verification(tolerance=tolerance, skipped=str(why))
        task = Task(
            original=paths[0],
            fixed=paths[1],
            folders=(first.folder, second.folder),
            contract=contract,
            rtol=tolerance.rtol,
            atol=tolerance.atol,
            half=None if half is None else (half.rtol, half.atol),
            user="" if inputs is None else os.path.abspath(inputs),
            seconds=seconds,
            threads=_threads(),
            outputs=outputs,
            renamed={old: new for old, new in interface.renamed.items() if old not in outputs},
            rounded=tuple(name for name in outputs if name in interface.dropped),
            weights=max(first.bytes, second.bytes),
            allow_empty=allow_empty,
        )
        found = run_worker(task, os.path.join(folder, "task.json"), tolerance)
        if found.trials and all(trial.outcome == "original failed" for trial in found.trials):
            likely = demanded_sizes(view, contract.inputs)
            if likely:
                task = replace(task, contract=replace(contract, likely=likely))
                found = run_worker(task, os.path.join(folder, "task.json"), tolerance)
        return without_undefined(found, before, contract)


def _require_runtime() -> None:
    from importlib.util import find_spec

    if find_spec("onnxruntime") is None:
        raise OnnxlintError(
            "comparing the models needs onnxruntime: install it with \"pip install 'onnxlint[fix]'\", "
            "or leave the comparison out with --no-verify"
        )


def _check_npz(path: str, inputs: tuple[Input, ...]) -> None:
    """Raise if a user's file cannot be read, or lacks an input."""
    from onnxlint.model.arrays import read_inputs

    arrays = read_inputs(path, [one.name for one in inputs])
    for one in inputs:
        kind = arrays[one.name].dtype.kind
        if (kind in "SU") != (one.dtype == "str") or (kind == "c" and not one.dtype.startswith("complex")):
            raise OnnxlintError(
                f"{printable(path)}: array {printable(one.name)!r} is {arrays[one.name].dtype}, and the input is {one.dtype}"
            )


def _half(view: GraphView) -> Tolerance | None:
    """The tolerance of a model that computes in 16 bits; None for others."""
    kinds = {tensor.data_type for tensor in walk_tensors(view.proto)}
    kinds.update(value.type.tensor_type.elem_type for value in view.proto.graph.input)
    kinds.update(node.attribute("to", 0) for node in view.nodes("Cast"))
    return BRAIN if 16 in kinds else HALF if 10 in kinds else None


MOST_THREADS = 8
"""Threads of the runtime at most: inputs are small, and each thread takes address space."""


def _threads() -> int:
    return min(usable_cores(), MOST_THREADS)
