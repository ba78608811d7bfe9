"""Runnable samples: a Python script and a C++ program that load an artifact, prepare images as the recipe says, take the
outputs apart, apply what was dropped from the model, and print what the network found. They need no onnxlint.

The files in templates/ are code with two marks: lines between `#@ if NAME == "VALUE"` (or `//@ if`) and `#@ end` stay
where the condition holds, and `@NAME@` is replaced.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxlint.backends import Array, Port, Session
from onnxlint.errors import OnnxlintError, printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.accuracy.tasks.decoder import Decoder
    from onnxlint.accuracy.tasks.heads import Part as RolePart
    from onnxlint.images.recipe import Recipe

THREADS = 2
LANGUAGES = {"python": ".py", "cpp": ".cpp"}
"""Folder of templates → ending of the sample."""

_IF = re.compile(r'\s*(?:#|//)@ if (\w+) (==|!=) "([^"]*)"')
_END = re.compile(r"\s*(?:#|//)@ end")
_ROLE_SLICE = re.compile(r"(.+?)\[(?:\s*\.\.\.\s*,|\s*:\s*,)*\s*(-?\d*)\s*:\s*(-?\d*)\s*\]")


@dataclass(frozen=True)
class Part:
    """An output of an artifact, or a head in it.

    Attributes:
        name: What it is called in the model.
        output: Which output of the artifact it is in.
        axis: The axis that heads were joined along; None for a whole output.
        start, stop: Its slice of that axis.
        activation: Operator that was dropped from the model and has to be applied; empty: none.
        along: The axis that it is applied along, counted from the end.
    """

    name: str
    output: int
    axis: int | None = None
    start: int = 0
    stop: int = 0
    activation: str = ""
    along: int = -1

    def of(self, outputs: Sequence[Array]) -> Array:
        """Its numbers, without the activation."""
        array = outputs[self.output]
        return array if self.axis is None else array[(slice(None),) * self.axis + (slice(self.start, self.stop),)]


def sample_texts(
    target: str,
    files: Sequence[str],
    session: Session,
    model: onnx.ModelProto,
    recipe: Recipe,
    x: Array,
    *,
    task: str | None = None,
    detection: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
) -> dict[str, str]:
    """The samples for an artifact: name of the file → its text. They look for the artifact one folder above their own.

    Args:
        target: The artifact's target.
        files: Its files, of which the names are used.
        session: The artifact, loaded. It is run once: what comes out tells what the sample has to do.
        model: The ONNX model that it was made from, for the records of joined heads and dropped activations.
        recipe: How images become the input.
        x: An input (1, C, H, W).
        task: One of `onnxlint.accuracy.tasks.TASKS`; None: the sample prints what is in the outputs.
        detection: The table `[detection]` of the configuration.
        classes: Names of the classes.

    Raises:
        OnnxlintError: The model is not one that takes an image, or its outputs are not those of the task.
    """
    if len(session.inputs) != 1:
        shown = ", ".join(printable(port.name) for port in session.inputs)
        raise OnnxlintError(f"{target}: samples are written for models with one input, an image; this one has {shown}")
    if x.ndim != 4 or x.shape[1] != recipe.channels:
        raise OnnxlintError(f"{target}: samples are written for models that take images, not {x.shape}")
    port = session.inputs[0]
    outputs = session.run({port.name: x})
    names = [one.name for one in session.outputs]
    parts = parts_of(model, names, outputs)
    values: dict[str, Any] = _common(target, files, port, names, recipe)
    values.update(_task_values(task, parts, outputs, recipe, (x.shape[3], x.shape[2]), detection or {}))
    if task != "detection" or not values["CLASSES"]:
        values["CLASSES"] = tuple(classes)
    used = {part.activation.lower() for part in parts} | {
        values[k] for k in ("activation", "objectness") if k in values
    }
    if values.get("logits") == "yes":
        used.add("softmax")
    stem = sample_name(target)
    return {f"{stem}{ending}": _render(language, values, parts, used) for language, ending in LANGUAGES.items()}


def sample_name(target: str) -> str:
    """A sample's name without its ending. A script called ncnn.py would hide the module ncnn."""
    return f"run_{target.replace('-', '_')}"


def parts_of(model: onnx.ModelProto, names: Sequence[str], outputs: Sequence[Array]) -> list[Part]:
    """What is in an artifact's outputs, from the records in the ONNX model that it was made from.

    Args:
        names: Of the artifact's outputs; where they are not the model's, their order tells which is which.
        outputs: Arrays with a batch axis.

    Raises:
        OnnxlintError: There are not as many outputs as the model has, or they are not as recorded.
    """
    from onnxlint.fixes.heads import DROPPED_KEY, read_heads

    own = {value.name: value for value in model.graph.output}
    if len(own) != len(names):
        raise OnnxlintError(f"the artifact has {len(names)} outputs, and the model it was made from has {len(own)}")
    known = list(names) if set(own) == set(names) else list(own)
    joined = {one.output: one for one in read_heads(model)}
    record = next((entry.value for entry in model.metadata_props if entry.key == DROPPED_KEY), "{}")
    dropped: dict[str, Any] = json.loads(record)
    parts: list[Part] = []
    for i, (name, array) in enumerate(zip(known, outputs, strict=True)):
        rank = len(own[name].type.tensor_type.shape.dim) or array.ndim

        if name not in joined:
            parts.append(Part(name, i, **_dropped(dropped, name, rank)))
            continue
        axis = joined[name].axis - rank + array.ndim
        if not 0 <= axis < array.ndim or array.shape[axis] < joined[name].heads[-1].stop:
            raise OnnxlintError(
                f"output {printable(name)!r} is not as its record of joined heads says; fix the original again"
            )
        parts += [
            Part(head.name, i, axis, head.start, head.stop, **_dropped(dropped, head.name, rank))
            for head in joined[name].heads
        ]
    return parts


def _dropped(record: Mapping[str, Any], name: str, rank: int) -> dict[str, Any]:
    """The activation that was dropped from an output, and its axis counted from the end."""
    entry = record.get(name, {})
    along = int(entry.get("axis", -1))
    return {"activation": str(entry.get("op", "")), "along": along if along < 0 else along - rank}


# What the templates ask for


def _common(target: str, files: Sequence[str], port: Port, names: Sequence[str], recipe: Recipe) -> dict[str, Any]:
    base = [os.path.basename(file) for file in files]
    return {
        "TARGET": target,
        "FILES": base,
        "runtime": "ncnn" if base[0].endswith(".param") else "onnxruntime",
        "INPUT": port.name,
        "OUTPUTS": list(names),
        "dtype": port.dtype,
        "DTYPE": port.dtype,
        "resize": recipe.resize if recipe.size is not None else "none",
        "pixel": recipe.pixel,
        "KIND": {"BGR": "PIXEL_RGB2BGR", "RGB": "PIXEL_RGB", "GRAY": "PIXEL_RGB2GRAY"}[recipe.pixel],
        "size": recipe.size,
        "MEAN": recipe.mean or (0.0,) * recipe.channels,
        "NORM": recipe.norm or (1.0,) * recipe.channels,
        "CLASSES": (),
    }


def _task_values(
    task: str | None,
    parts: Sequence[Part],
    outputs: Sequence[Array],
    recipe: Recipe,
    size: tuple[int, int],
    detection: Mapping[str, Any],
) -> dict[str, Any]:
    if task is None:
        return {"task": "none"}
    if task == "detection":
        return {"task": task, **_detection_values(parts, outputs, size, detection)}
    arrays = {part.name: part.of(outputs) for part in parts}
    if task == "super-resolution":
        return {"task": task, **_picture_values(parts, arrays, recipe)}
    from onnxlint.accuracy.tasks.vector import pick_vector

    names = "logit|prob|class|score|softmax|pred" if task == "classification" else "emb|feat|out"
    name, values = pick_vector(arrays, names, task)
    index = [part.name for part in parts].index(name)
    done = task != "classification" or parts[index].activation or _is_probability(values)
    return {"task": task, "SCORES": str(index), "logits": "no" if done else "yes"}


def _is_probability(values: Array) -> bool:
    inside = bool(((values >= -0.01) & (values <= 1.01)).all())
    return inside and bool(abs(values.sum() - 1) < 0.02 + 0.004 * len(values))


def _picture_values(parts: Sequence[Part], arrays: Mapping[str, Array], recipe: Recipe) -> dict[str, Any]:
    from onnxlint.accuracy.tasks.super_resolution import find_scale

    for i, part in enumerate(parts):
        array = arrays[part.name]
        if array.ndim >= 3 and array.shape[-3] in (1, 3):
            scale = find_scale(array.reshape(array.shape[-3:]).transpose(1, 2, 0).astype(np.float32), recipe)
            channels = int(array.shape[-3])
            full = {"SCALE": scale.factor, "SHIFT": scale.offset}
            return {"SCORES": str(i), **{key: tuple(v) * (channels // len(v)) for key, v in full.items()}}
    raise OnnxlintError("--task super-resolution: samples are written for pictures of the shape 1×C×H×W, C 1 or 3")


def _probabilities(rows: Array) -> bool:
    """Whether each row holds probabilities that add up to 1."""
    inside = bool(((rows >= -0.01) & (rows <= 1.01)).all())
    return inside and bool((np.abs(rows.sum(axis=-1) - 1) < 0.05).all())


def _detection_values(
    parts: Sequence[Part], outputs: Sequence[Array], size: tuple[int, int], table: Mapping[str, Any]
) -> dict[str, Any]:
    from onnxlint.accuracy.tasks import decoder as decoders
    from onnxlint.accuracy.tasks import heads

    arrays = {part.name: part.of(outputs) for part in parts}
    chosen = decoders.read_table(table) or decoders.choose(arrays, size)
    columns = chosen.layout == "columns"
    pieces = [
        replace(piece, activation=part.activation)
        for part, piece in zip(parts, heads.take_apart(arrays, columns=columns), strict=True)
    ]
    specs = {role: names for role in heads.ROLES if (names := getattr(chosen, role))}
    roles = heads.named_roles(pieces, specs) if specs else heads.guess_roles(pieces, chosen.joined)
    if "boxes" not in roles or "scores" not in roles:
        raise heads.unclear(pieces)
    places = {
        role: [_place(name, parts, pieces) for name in specs.get(role, (part.name,))] for role, part in roles.items()
    }
    scores = roles["scores"]
    # What `take_apart` of the sample applies is done; the decoder's own is for numbers that are no probabilities yet.
    activation = "none" if scores.activation else chosen.activation
    if activation == "softmax" and (scores.width == 1 or _probabilities(scores.rows)):
        activation = "none" if _inside(scores.rows) else "sigmoid"
    if activation == "sigmoid" and _inside(scores.rows):
        activation = "none"
    values: dict[str, Any] = {
        "layout": chosen.layout,
        "stacked": "yes" if any(len(place) > 1 for place in places.values()) else "no",
        "box": chosen.box,
        "relative": "yes" if chosen.box not in ("offsets", "distances") and chosen.unit == "relative" else "no",
        "activation": activation,
        "objectness": "no",
        "labels": "yes" if "labels" in roles else "no",
        "landmarks": "no",
        "background": "no",
        "priors": "no",
        "PLACES": places,
        "THRESHOLD": chosen.threshold,
        "NMS": chosen.nms,
        "LIMIT": chosen.limit,
        "CLASSES": chosen.names,
    }
    if "objectness" in roles:
        done = roles["objectness"].activation or _inside(roles["objectness"].rows)
        values["objectness"] = "probability" if done else "sigmoid"
    if chosen.background is not None and scores.width > 1 and "labels" not in roles:
        values["background"] = "yes"
        values["BACKGROUND"] = chosen.background % scores.width
    if chosen.priors is not None:
        priors = chosen.priors
        values.update(priors="yes", clip="yes" if priors.clip else "no", CENTER=priors.center, LEVELS=_levels(chosen))
        values["VARIANCES"] = priors.variances
    if "landmarks" in roles:
        values["landmarks"] = chosen.box if chosen.priors is not None else chosen.unit
        values["POINTS"] = str(roles["landmarks"].width // 2)
    return values


def _inside(rows: Array) -> bool:
    return bool(((rows >= -0.01) & (rows <= 1.01)).all())


def _place(name: str, parts: Sequence[Part], pieces: Sequence[RolePart]) -> tuple[int, int, int | None]:
    """Which part a role's name means, and which of its columns."""
    for i, part in enumerate(parts):
        if part.name == name:
            return i, 0, None
    match = _ROLE_SLICE.fullmatch(name)
    for i, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        if match is not None and part.name == match[1]:
            start, stop, _ = slice(int(match[2]) if match[2] else None, int(match[3]) if match[3] else None).indices(
                piece.width
            )
            return i, start, stop
    raise OnnxlintError(f"--task detection: no output {printable(name)}")


def _levels(decoder: Decoder) -> list[tuple[int, float, list[tuple[float, float]]]]:
    """Cells along an edge (0: as many as the step allows), pixels between cells (0: the edge by the cells) and the boxes
    (width, height) in each cell, of each level."""
    priors = decoder.priors
    assert priors is not None
    levels = []
    for i, sizes in enumerate(priors.min_sizes):
        boxes: list[tuple[float, float]] = [(size, size) for size in sizes]
        if priors.max_sizes:
            boxes += [(math.sqrt(size * priors.max_sizes[i]),) * 2 for size in sizes]
        for ratio in priors.aspect_ratios[i] if priors.aspect_ratios else ():
            root = math.sqrt(ratio)
            for size in sizes:
                boxes += [(size * root, size / root), (size / root, size * root)]
        cells = priors.features[i] if priors.features else 0
        levels.append((cells, priors.steps[i] if priors.steps else 0, boxes))
    return levels


# Writing code


def python_string(text: str) -> str:
    """A Python literal, in ASCII."""
    literal = ascii(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def cpp_string(text: str) -> str:
    """A C++ literal of the text's UTF-8 bytes; octal escapes end after three digits, whatever follows."""
    body = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "backslashreplace")
    )
    return f'"{body}"'


def comment(text: str) -> str:
    """A name within a comment or a docstring, which nothing in it can end."""
    return re.sub(r"[^A-Za-z0-9 ._/=,+:()-]", "_", text)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _float(value: float) -> str:
    """A C++ literal of the nearest float."""
    return f"{float(np.float32(value))!r}f"


def _template(language: str, name: str) -> str:
    path = resources.files(__package__) / "templates" / language / f"{name}{LANGUAGES[language]}.txt"
    return path.read_text(encoding="utf-8")


def fill(text: str, values: Mapping[str, Any]) -> str:
    """A template with its conditions decided and its marks replaced."""
    lines: list[str] = []
    open_: list[bool] = []
    for line in text.splitlines():
        found = _IF.fullmatch(line)
        if found is not None:
            open_.append((values[found[1]] == found[3]) == (found[2] == "==") if all(open_) else False)
        elif _END.fullmatch(line):
            open_.pop()
        elif all(open_):
            lines.append(line)
    body = "\n".join(lines).strip("\n")
    return re.sub(r"@([A-Z]+)@", lambda mark: str(values[mark[1]]), body)


def _render(language: str, values: Mapping[str, Any], parts: Sequence[Part], used: set[str]) -> str:
    runtime, task = values["runtime"], values["task"]
    functions = [name for name in ("softmax", "sigmoid") if name in used]
    write = _python if language == "python" else _cpp
    head, apart, marks = write(values, parts)
    marks = {**values, **marks}
    if language == "python":
        preprocess = "numpy" if runtime == "onnxruntime" else "ncnn"
        names = ["size", f"preprocess_{preprocess}", f"load_{runtime}", *functions]
        blocks = [fill(_template(language, name), marks) for name in names]
        blocks += [apart, fill(_template(language, task), marks), fill(_template(language, "main"), marks)]
        return "\n\n\n".join([head, *blocks]) + "\n"
    preprocess = "plain" if runtime == "onnxruntime" else "ncnn"
    names = ["tensor", "image", "size", f"preprocess_{preprocess}", f"load_{runtime}"]
    names += ["slice"] if task == "detection" or any(part.axis is not None for part in parts) else []
    blocks = [fill(_template(language, name), marks) for name in [*names, *functions]]
    names = ["classes"] if task in ("detection", "classification") else []
    blocks += [apart, *(fill(_template(language, name), marks) for name in [*names, task])]
    return "\n\n".join([head, *blocks, "}  // namespace", fill(_template(language, "main"), marks)]) + "\n"


def _shown_task(values: Mapping[str, Any]) -> str:
    what = {
        "detection": "prints what it finds",
        "classification": "prints the five most likely classes",
        "verification": "prints how like the first image each other one is",
        "super-resolution": "writes the picture that it makes",
        "none": "prints what is in its outputs",
    }
    return f"Runs {comment(values['FILES'][0])} ({values['TARGET']}) on images and {what[values['task']]}."


def _python(values: Mapping[str, Any], parts: Sequence[Part]) -> tuple[str, str, dict[str, Any]]:
    """The beginning of a script, its `take_apart`, and what else its templates ask for."""
    runtime, task = values["runtime"], values["task"]

    def floats(name: str) -> str:
        return f"{name} = [{', '.join(repr(float(v)) for v in values[name])}]"

    imports = ["import math"] if values.get("priors") == "yes" else []
    imports += ["import sys", "from pathlib import Path", ""]
    imports += (
        ["import ncnn", "import numpy as np"] if runtime == "ncnn" else ["import numpy as np", "import onnxruntime"]
    )
    lines = [
        f'"""{_shown_task(values)}',
        "",
        f"    python {sample_name(values['TARGET'])}.py photo.jpg",
        "",
        f"Needs: pip install numpy pillow {runtime}. Written by onnxlint; edit it as you like.",
        '"""',
        "",
        *imports,
        "from PIL import Image",
        "",
        "FOLDER = Path(__file__).resolve().parent.parent",
    ]
    keys = ("PARAM", "BIN") if runtime == "ncnn" else ("MODEL",)
    lines += [f"{key} = {python_string(name)}" for key, name in zip(keys, values["FILES"], strict=False)]
    lines.append(f"INPUT = {python_string(values['INPUT'])}")
    lines += _wrapped("OUTPUTS = [", [python_string(name) for name in values["OUTPUTS"]], "]")
    lines.append(f"THREADS = {THREADS}")
    if values["size"] is not None:
        lines.append(f"SIZE = ({values['size'][0]}, {values['size'][1]})  # width, height")
    lines += [f"{floats('MEAN')}  # in {values['pixel']} order", floats("NORM")]
    if task in ("detection", "classification"):
        lines += _wrapped("CLASSES = [", [python_string(name) for name in values["CLASSES"]], "]")
    if task == "super-resolution":
        lines += [floats("SCALE"), floats("SHIFT")]
    if task == "none":
        lines += _wrapped("NAMES = [", [python_string(part.name) for part in parts], "]")
    marks: dict[str, Any] = {"SUFFIX": values["TARGET"]}
    if task == "detection":
        lines += [
            f"{key} = {_number(values[key])}" for key in ("THRESHOLD", "NMS", "LIMIT", "BACKGROUND") if key in values
        ]
        if values["priors"] == "yes":
            lines.append(f"VARIANCES = ({', '.join(map(_number, values['VARIANCES']))})")
            lines.append(f"CENTER = {_number(values['CENTER'])}  # where in its cell a prior box is centred")
            lines.append("# Cells along an edge (0: as many as the step allows), pixels between cells, boxes in a cell")
            lines.append("LEVELS = [")
            for cells, step, boxes in values["LEVELS"]:
                sides = ", ".join(f"({_number(w)}, {_number(h)})" for w, h in boxes)
                lines.append(f"    ({cells}, {_number(step)}, [{sides}]),")
            lines.append("]")
        for role, places in values["PLACES"].items():
            texts = [f"rows(parts[{i}]{_columns(start, stop)})" for i, start, stop in places]
            marks[role.upper()] = texts[0] if len(texts) == 1 else f"np.concatenate([{', '.join(texts)}])"
    apart = [
        "def take_apart(outputs):",
        '    """The parts of the outputs, with what was dropped from the model applied."""',
    ]
    apart.append("    return [")
    for part in parts:
        text = f"outputs[{part.output}]"
        if part.axis is not None:
            text += f"[{':, ' * part.axis}{part.start}:{part.stop}]"
        if part.activation == "Softmax":
            text = f"softmax({text}, axis={part.along})"
        elif part.activation:
            text = f"{part.activation.lower()}({text})"
        apart.append(f"        {text},  # {comment(part.name)}")
    apart.append("    ]")
    return "\n".join(lines), "\n".join(apart), marks


def _cpp(values: Mapping[str, Any], parts: Sequence[Part]) -> tuple[str, str, dict[str, Any]]:
    """The beginning of a program, its `take_apart`, and what else its templates ask for."""
    runtime, task, target = values["runtime"], values["task"], values["TARGET"]
    program = sample_name(target)

    def floats(name: str) -> str:
        return f"const float {name}[] = {{{', '.join(map(_float, values[name]))}}};"

    library = "-I NCNN/include/ncnn NCNN/lib/libncnn.a -fopenmp"
    if runtime == "onnxruntime":
        library = "-I ORT/include -L ORT/lib -lonnxruntime"
    standard = "algorithm cmath cstdint cstdio filesystem fstream iterator limits numeric stdexcept string utility"
    lines = [
        f"// {_shown_task(values)}",
        "//",
        f"//     g++ -std=c++17 -O2 {program}.cpp {library} -o {program}",
        f"//     ./{program} .. photo.ppm",
        "//",
        "// Written by onnxlint; edit it as you like.",
        "",
        *([] if runtime == "ncnn" else ["#include <onnxruntime_cxx_api.h>", ""]),
        *(f"#include <{name}>" for name in [*standard.split(), "vector"]),
        *(["", '#include "net.h"'] if runtime == "ncnn" else []),
        "",
        "namespace {",
        "",
    ]
    keys = ("PARAM", "BIN") if runtime == "ncnn" else ("MODEL",)
    lines += [
        f"const char* const {key} = {cpp_string(name)};" for key, name in zip(keys, values["FILES"], strict=False)
    ]
    lines.append(f"const char* const INPUT = {cpp_string(values['INPUT'])};")
    lines += _wrapped("const char* const OUTPUTS[] = {", [cpp_string(name) for name in values["OUTPUTS"]], "};")
    lines.append(f"const int THREADS = {THREADS};")
    if values["size"] is not None:
        lines.append(f"const int WIDTH = {values['size'][0]}, HEIGHT = {values['size'][1]};")
    if runtime == "onnxruntime":
        lines.append(f"const int CHANNELS = {len(values['MEAN'])};")
    lines += [f"{floats('MEAN')}  // in {values['pixel']} order", floats("NORM")]
    if task in ("detection", "classification"):
        names = [cpp_string(name) for name in values["CLASSES"]]
        lines += _wrapped("const std::vector<std::string> CLASSES = {", names, "};")
    if task == "super-resolution":
        lines += [floats("SCALE"), floats("SHIFT")]
    if task == "none":
        lines += _wrapped("const char* const NAMES[] = {", [cpp_string(part.name) for part in parts], "};")
    marks: dict[str, Any] = {"ARTIFACT": keys[0], "SUFFIX": target}
    if task == "detection":
        lines += [f"const float THRESHOLD = {_float(values['THRESHOLD'])};", f"const double NMS = {values['NMS']!r};"]
        lines.append(f"const size_t LIMIT = {values['LIMIT']};")
        if "BACKGROUND" in values:
            lines.append(f"const size_t BACKGROUND = {values['BACKGROUND']};")
        if values["priors"] == "yes":
            lines.append(f"const double VARIANCES[] = {{{', '.join(map(_number, values['VARIANCES']))}}};")
            lines.append(
                f"const double CENTER = {_number(values['CENTER'])};  // where in its cell a prior box is centred"
            )
            lines += [
                "",
                "struct Level {",
                "    int cells;    // along an edge; 0: as many as the step allows",
                "    double step;  // pixels between cells; 0: the edge by the cells",
                "    std::vector<std::pair<double, double>> sides;  // of the boxes in a cell",
                "};",
                "",
                "const std::vector<Level> LEVELS = {",
            ]
            for cells, step, boxes in values["LEVELS"]:
                sides = ", ".join(f"{{{_number(w)}, {_number(h)}}}" for w, h in boxes)
                lines.append(f"    {{{cells}, {_number(step)}, {{{sides}}}}},")
            lines.append("};")
        for role, places in values["PLACES"].items():
            texts = [f"rows(parts[{i}]{_columns(start, stop)})" for i, start, stop in places]
            marks[role.upper()] = texts[0] if len(texts) == 1 else f"stack({{{', '.join(texts)}}})"
    apart = ["// The parts of the outputs, with what was dropped from the model applied."]
    apart.append("std::vector<Tensor> take_apart(const std::vector<Tensor>& outputs) {")
    apart.append("    return {")
    for part in parts:
        text = f"outputs[{part.output}]"
        if part.axis is not None:
            text = f"slice({text}, {part.axis}, {part.start}, {part.stop})"
        if part.activation == "Softmax":
            text = f"softmax({text}, {part.along})"
        elif part.activation:
            text = f"{part.activation.lower()}({text})"
        apart.append(f"        {text},  // {comment(part.name)}")
    apart += ["    };", "}"]
    return "\n".join(lines), "\n".join(apart), marks


def _columns(start: int, stop: int | None) -> str:
    return "" if stop is None else f", {start}, {stop}"


def _wrapped(start: str, items: Sequence[str], end: str) -> list[str]:
    """`NAMES = ["a", "b"]`, over several lines where it is long."""
    line = f"{start}{', '.join(items)}{end}"
    if len(line) <= 100:
        return [line]
    lines, current = [start], ""
    for item in items:
        if current and len(current) + len(item) > 92:
            lines.append(f"    {current.rstrip()}")
            current = ""
        current += f"{item}, "
    return [*lines, f"    {current.rstrip()}", end]
