"""Both models run on the same inputs: `onnxlint diff --verify`."""

from __future__ import annotations

from math import lcm

from onnxlint.difference.compare import same_inputs, same_outputs
from onnxlint.difference.result import Verified
from onnxlint.graph.view import GraphView
from onnxlint.model.assumptions import assumptions
from onnxlint.text import counted
from onnxlint.verification.compare import verify
from onnxlint.verification.interface import Interface


def _conditions(old: GraphView, new: GraphView, inputs: dict[str, str]) -> dict[str, int]:
    """Symbols of the old model's inputs → what their sizes have to be multiples of, as the models' metadata says."""
    names = {other: one for one, other in inputs.items()}
    conditions: dict[str, int] = {}
    for view, own in ((old, {name: name for name in inputs}), (new, names)):
        for one in assumptions(view.proto):
            shape = old.main.shape(own[one.input]) if one.input in own else None
            symbol = shape[one.axis] if shape is not None and one.axis < len(shape) else None
            if isinstance(symbol, str):
                conditions[symbol] = lcm(conditions.get(symbol, 1), one.multiple)
    return conditions


def run_both(old: GraphView, new: GraphView) -> Verified:
    """Run two models in onnxruntime and compare their outputs bit by bit.

    Inputs and outputs that were renamed are matched as the comparison of the graphs matches them.

    Raises:
        OnnxlintError: onnxruntime is not installed.
    """
    inputs, outputs = same_inputs(old.main, new.main), same_outputs(old.main, new.main)
    lost = [name for name in old.main.outputs if name not in outputs]
    if lost or len(inputs) < len(old.main.data_inputs) or len(inputs) < len(new.main.data_inputs):
        return Verified(None, "not compared: the models do not have the same inputs and outputs")
    if old.model.path == "-" or new.model.path == "-":
        return Verified(None, "not compared: a model read from standard input cannot be run")
    renamed = {one: other for one, other in (*inputs.items(), *outputs.items()) if one != other}
    conditions = _conditions(old, new, inputs)
    result = verify(old.model.path, new.model.path, multiples=conditions, interface=Interface(renamed=renamed))
    ran = [trial for trial in result.trials if trial.outcome in ("equal", "close", "different")]
    if result.skipped or not ran:
        return Verified(None, f"not compared: {result.skipped or 'neither model ran'}")
    different = [trial for trial in ran if trial.outcome == "different"]
    if not different:
        where = "".join(f", {name} a multiple of {number}" for name, number in conditions.items())
        return Verified(True, f"equal on {counted(len(ran), 'input')}{where}, in {result.engine}", 0.0)
    worst = max(different, key=lambda trial: trial.worst)
    where = f" at {worst.dims}" if worst.dims else ""
    why = f": {worst.why}" if worst.why else f", largest difference {worst.worst:.3g} in output {worst.output!r}"
    return Verified(False, f"different on {len(different)} of {counted(len(ran), 'input')}{why}{where}", worst.worst)
