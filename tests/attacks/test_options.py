"""Options of `fix` on models that a careless fix breaks: done as it was asked, or one clear line and no file.

What was written is run beside the original: renamed values under their new names, heads taken out of the joined output and
the activations applied that were dropped, an input that was bound with its value. `-m slow` tries all options on all models.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data

from onnxlint.accuracy.activations import along_axis
from onnxlint.fixes.heads import read_dropped, read_heads
from onnxlint.model.metadata import metadata
from tests.support import zoo
from tests.support.adversary import RECORDS, Array, all_feeds, build, data_inputs, is_assumed
from tests.support.command import onnxlint
from tests.support.guards import reached, reaching
from tests.support.old_versions import newest_opset

pytest.importorskip("onnxruntime")

FREE = 6
"""The size that `--static` gives to a free axis."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of `fix`.

    Attributes:
        words: Its options.
        names: Input or output → new name.
        bound: Values of inputs that become constants.
        tolerance: Relative and absolute.
    """

    words: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    bound: Mapping[str, Array] = field(default_factory=dict)
    tolerance: float = 1e-5


def wanted(model: onnx.ModelProto) -> dict[str, Wanted]:
    """Everything that is asked of a model."""
    inputs, outputs = data_inputs(model), [value.name for value in model.graph.output]
    first = inputs[0]
    free = [not dim.HasField("dim_value") for dim in first.type.tensor_type.shape.dim]
    every = {value.name: f"new {value.name}" for value in inputs} | {name: f"new_{name}" for name in outputs}
    ends = (outputs[0], outputs[-1] if len(outputs) > 1 else first.name)
    swapped = {ends[0]: ends[1], ends[1]: ends[0]}
    value = _runnable(model)[inputs[-1].name]
    sizes = ",".join(str(FREE if axis else 2) if is_free else "?" for axis, is_free in enumerate(free))
    named = ",".join("?" if is_free else f"Q{axis}" for axis, is_free in enumerate(free))
    found = {
        "rename": Wanted((), every),
        "swap": Wanted((), swapped),
        "bind": Wanted((), bound={inputs[-1].name: value}),
        "multiple": Wanted(("--multiple-of", "6")),
        "heads": Wanted(("--concat-heads",)),
        "heads by name": Wanted(("--heads", ",".join(outputs), "--axis", "1")),
        "activations": Wanted(("--concat-heads", "--drop-output-activations")),
        "static": Wanted(("--static", f"{first.name}={sizes}")),
        "dynamic": Wanted(("--dynamic", f"{first.name}={named}")),
        "empty": Wanted(("--allow-empty",)),
        "external": Wanted(("--external-data", "weights.bin")),
        "all": Wanted(
            ("--static", f"{first.name}={sizes}", "--concat-heads", "--drop-output-activations", "--opset", "17"),
            {first.name: "image"},
            tolerance=1e-4,
        ),
    }
    for opset in (opset for opset in (9, 11, 13, 15, 18, 21, 23) if opset <= newest_opset()):
        found[f"opset {opset}"] = Wanted(("--opset", str(opset)), tolerance=1e-4)
    return found


def trouble(model: onnx.ModelProto, path: Path, one: Wanted, *more: str) -> str:
    """What is wrong with what `fix` does; empty where nothing is."""
    target = path.with_name("fixed.onnx")
    target.unlink(missing_ok=True)
    words = [*one.words, *more]
    for old, new in one.names.items():
        words += ["--rename", f"{old}={new}"]
    for name, value in one.bound.items():
        np.save(path.with_name("bound.npy"), value)
        words += ["--bind", f"{name}={path.with_name('bound.npy')}"]
    ran = onnxlint("fix", path, "-o", target, "--isolated", *words)
    said = ran.out + ran.err
    if ran.code not in (0, 1, 2) or "Traceback" in said or "please report" in said or "settled" in said:
        return f"exit code {ran.code}: {said[-1500:]}"
    if ran.code == 2:
        lines = [line for line in ran.err.splitlines() if not line.startswith("note: ")]
        is_clear = len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) < 1000
        left = sorted(
            other.name for other in path.parent.iterdir() if other.name not in (path.name, "bound.npy", "w.bin")
        )
        return "" if is_clear and not left else f"{lines} {left}"
    fixed = onnx.load(target)
    try:
        return _difference(model, fixed, target, one)
    finally:
        for other in path.parent.glob("weights.bin*"):
            other.unlink()


def _difference(model: onnx.ModelProto, fixed: onnx.ModelProto, target: Path, one: Wanted) -> str:
    before, _ = _session(str(target.with_name("m.onnx")))
    if before is None:  # nothing to compare
        return ""
    after, why = _session(str(target))
    if after is None:
        return "" if "NOT_IMPLEMENTED" in why else f"the result does not load: {why}"
    declared = {value.name: value.shape for value in after.get_inputs()}
    for feeds in all_feeds(model):
        feeds = {**feeds, **one.bound}
        renamed = {one.names.get(name, name): value for name, value in feeds.items()}
        if not is_assumed(fixed, renamed) or not _fits(declared, renamed):
            continue
        expected, _ = _run(before, feeds)
        if expected is None:  # sizes that the original cannot take
            continue
        reached()
        found, why = _run(after, {name: value for name, value in renamed.items() if name in declared})
        if found is None:
            return f"the result fails at {[value.shape for value in feeds.values()]}: {why}"
        restored = _restored(fixed, dict(zip([value.name for value in after.get_outputs()], found, strict=True)))
        for value, numbers in zip(model.graph.output, expected, strict=True):
            name = one.names.get(value.name, value.name)
            if name not in restored:
                return f"no output {name}; {sorted(restored)}"
            if not _same(numbers, restored[name], one.tolerance):
                return f"{name} differs at {[value.shape for value in feeds.values()]}"
    return ""


def _session(model: onnx.ModelProto | str) -> tuple[Any, str]:
    """A session, or None and why there is none."""
    try:
        return zoo.session(model), ""
    except Exception as error:  # noqa: BLE001 - onnxruntime has many
        return None, str(error)


def _runnable(model: onnx.ModelProto) -> dict[str, Array]:
    """The first inputs that the model takes; the first of all where it takes none."""
    session, _ = _session(model)
    feeds = list(all_feeds(model))
    return next((one for one in feeds if session is not None and _run(session, one)[0] is not None), feeds[0])


def _run(session: Any, feeds: Mapping[str, Array]) -> tuple[list[Any] | None, str]:
    """The outputs, or why there are none."""
    try:
        return session.run(None, dict(feeds)), ""
    except Exception as error:  # noqa: BLE001 - onnxruntime has many
        return None, str(error)


def _fits(declared: Mapping[str, list[int | str | None]], feeds: Mapping[str, Array]) -> bool:
    """Whether inputs have the fixed sizes of the result."""
    return all(
        not isinstance(size, int) or size == feeds[name].shape[axis]
        for name, shape in declared.items()
        if name in feeds
        for axis, size in enumerate(shape)
    )


def _restored(fixed: onnx.ModelProto, found: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs as they were: heads taken out of joined ones, dropped activations applied."""
    values = dict(found)
    for joined in read_heads(fixed):
        for head in joined.heads:
            values[head.name] = np.take(found[joined.output], range(head.start, head.stop), joined.axis)
    opset = next(entry.version for entry in fixed.opset_import if entry.domain == "")
    for name, (op, axis) in read_dropped(metadata(fixed)).items():
        values[name] = along_axis(op, axis, opset).apply(values[name]).astype(values[name].dtype)
    return values


def _same(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(_same(*pair, tolerance) for pair in zip(one, other, strict=True))
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return np.array_equal(one, other)
    return np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)


OPTIONS = tuple(wanted(build("heads3")))


def cases(part: int, parts: int) -> Iterator[tuple[str, str]]:
    """Every so many pairs of model and option, others for each part."""
    pairs = [(name, option) for name in RECORDS for option in OPTIONS]
    return (pair for pair in pairs if zlib.crc32(" ".join(pair).encode()) % parts == part)


def problems(folder: Path, part: int, parts: int, *more: str, external: bool = False) -> dict[str, str]:
    found = {}
    for name, option in cases(part, parts):
        model = build(name)
        place = folder / name
        place.mkdir(exist_ok=True)
        if external:
            _save_with_external_weights(model, place / "m.onnx")
        else:
            onnx.save(model, place / "m.onnx")
        asked = wanted(model)[option]
        found[f"{name} {option}"] = trouble(model, place / "m.onnx", asked, *more)
    return {key: what for key, what in found.items() if what}


def _save_with_external_weights(model: onnx.ModelProto, path: Path) -> None:
    """Whole numbers stay inside: onnxruntime loads few models whose sizes are outside of them."""
    saved = onnx.ModelProto.FromString(model.SerializeToString())
    path.with_name("w.bin").unlink(missing_ok=True)
    for tensor in saved.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))  # as raw data
            set_external_data(tensor, "w.bin")
    onnx.save(saved, path)


@reaching(190)
def test_some_options_on_some_models(tmp_path: Path) -> None:
    assert problems(tmp_path, 0, 80, "--no-verify") == {}


@reaching(100)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_every_option_on_every_model(tmp_path: Path, part: int) -> None:
    assert problems(tmp_path, part, 16, "--no-verify") == {}


@reaching(85)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_every_option_with_verification(tmp_path: Path, part: int) -> None:
    """A tenth of all pairs: each starts a process."""
    assert problems(tmp_path, part, 160) == {}


@reaching(100)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
def test_every_option_with_external_data(tmp_path: Path, part: int) -> None:
    """Half of all pairs."""
    assert problems(tmp_path, part, 32, "--no-verify", external=True) == {}
