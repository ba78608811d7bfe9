"""What the command lines of several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxlint.images.recipe import Recipe
    from onnxlint.lint.registry import Registry

_RECIPE = ("preset", "shape", "mean", "norm", "pixel", "resize")


class UsageError(Exception):
    """The command line is wrong; the message is one line."""


def config_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where the configuration comes from."""
    parser.add_argument("--config", metavar="FILE", help="read this configuration, not the nearest one")
    parser.add_argument("--isolated", action="store_true", help="read no configuration file")


def number(least: int) -> Callable[[str], int]:
    """The type of an option whose value is a whole number from `least`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return value

    return convert


def split(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["SHP,OUT001", "GRF"]` → `("SHP", "OUT001", "GRF")`."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def registry(options: argparse.Namespace) -> Registry:
    """The rules that the working directory's configuration knows."""
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.registry import load_registry

    return load_registry(Configs(Settings(), options.config, options.isolated).of_folder(".").rule_paths)


# Images and how they become the input


@dataclass(frozen=True)
class Chosen:
    """What the command line says about inputs, and `[recipe]` of the configuration where the command line is silent.

    Attributes:
        images: Where the images are; None where nobody says.
        recipe: How they become the input.
        method: How activations are calibrated; None where nobody says.
        task, labels: The task that outputs are judged by, and its labels.
    """

    images: str | None
    recipe: Recipe
    method: str | None = None
    task: str | None = None
    labels: str | None = None


def recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where images are and how they become the input, in ncnn2table's words."""
    group = parser.add_argument_group(
        "images", "Also as [recipe] in onnxlint.toml. Brackets ([104,117,123]) and fractions (1/128) are understood."
    )
    group.add_argument("--images", metavar="WHERE", help="folder, pattern, list of files, or .npz/.npy with inputs")
    group.add_argument("--preset", metavar="NAME", help="a whole recipe: facenet, imagenet, retinaface or ssd")
    group.add_argument("--shape", metavar="W,H,C", help="size of the input: 640,640,3 (default: the model's own)")
    group.add_argument("--mean", metavar="A,B,C", help="taken from pixels 0 to 255, in --pixel order")
    group.add_argument("--norm", metavar="A,B,C", help="what they are then multiplied by")
    group.add_argument("--pixel", metavar="ORDER", help="BGR (default), RGB or GRAY")
    group.add_argument("--resize", metavar="HOW", help="stretch (default), letterbox or center-crop")
    group.add_argument(
        "--input-shape",
        metavar="NAME=D,D,…",
        action="append",
        help="whole shape of an input that is no image and has free sizes",
    )


def calibration_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how int8 models are made."""
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--method",
        metavar="NAME",
        help="how activations are calibrated: auto (default); kl, aciq, eq (ncnn); minmax, percentile, entropy (onnx)",
    )
    group.add_argument("--mixed", action="store_true", help="let layers that int8 hurts stay in floating point")
    group.add_argument(
        "--budget",
        metavar="PERCENT",
        type=_percent,
        default=8.0,
        help="by how much --mixed may let the weights grow (default: 8)",
    )
    group.add_argument("--keep", metavar="LAYERS", action="append", help="layers that stay in floating point")


def recipe_of(options: argparse.Namespace) -> Chosen:
    """What `recipe_options` and the configuration of the working directory say.

    Raises:
        OnnxlintError: It makes no recipe.
    """
    from onnxlint.errors import OnnxlintError
    from onnxlint.images.recipe import make_recipe
    from onnxlint.lint.configuration import Configs, Settings

    config = Configs(Settings(), options.config, options.isolated).of_folder(".")
    written = config.recipe
    # A preset on the command line is a whole recipe: what the file says about parts of another one goes.
    rest = {key: text for key, text in written.items() if options.preset is None or key not in _RECIPE}
    given = {key: value for key in _RECIPE if (value := getattr(options, key)) is not None}
    try:
        recipe = make_recipe(**{key: text for key, text in {**rest, **given}.items() if key in _RECIPE})
    except OnnxlintError as error:
        if not any(key in rest for key in _RECIPE):
            raise
        raise OnnxlintError(f"{error} (together with [recipe] of {config.file.path})") from None
    return Chosen(
        options.images if options.images is not None else rest.get("images"),
        recipe,
        rest.get("method"),
        rest.get("task"),
        rest.get("labels"),
    )


def input_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`["mask=1,512"]` → `{"mask": (1, 512)}`.

    Raises:
        UsageError: One is not of that form.
    """
    shapes = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        words = sizes.replace("x", ",").split(",")
        if not name or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
            raise UsageError(f"--input-shape {text!r}: write it as NAME=1,3,640,640")
        shapes[name] = tuple(int(word) for word in words)
    return shapes


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage, such as 8")
    return value
