"""Arguments and options: how a command declares them, the types of their values, and those that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxlint.cli import completion
from onnxlint.cli.errors import UsageError as UsageError
from onnxlint.text import choices, did_you_mean, printable

if TYPE_CHECKING:
    from onnxlint.images.recipe import Recipe
    from onnxlint.lint.configuration import Config, Configs, Settings
    from onnxlint.lint.registry import Registry

OUTPUT = "output"
NETWORK = "network"
SOURCE = "the source of the network"
RULES = "rules"
CHANGES = "changes besides those exact for every input"
VERIFICATION = "verification"
IMAGES = "images"
INT8 = "int8"
TASK = "task"
MEASURE = "measurements"
REPORT = "report"
KNOWN = "known findings"
EXIT = "exit code"
WORK = "execution"

PANELS = {
    "": "",
    OUTPUT: "",
    NETWORK: "",
    SOURCE: "",
    RULES: "RULES are codes, prefixes, names or ALL, separated by commas.",
    CHANGES: "",
    VERIFICATION: "",
    IMAGES: "Also as [recipe] in onnxlint.toml. Brackets ([104,117,123]) and fractions (1/128) are understood.",
    INT8: "",
    TASK: "",
    MEASURE: "",
    REPORT: "",
    KNOWN: "",
    EXIT: "",
    WORK: "",
}
"""Headings that options are listed under, in the order of the help, and a line about them."""

_RECIPE = ("preset", "shape", "mean", "norm", "pixel", "resize")


def argument(metavar: str, help: str, complete: Callable[[], Any] | None = None) -> Any:
    """An argument, for `Annotated`: required where its field has no default.

    Args:
        metavar: What stands for it in the help.
        help: Description, in one line.
        complete: Names that the shell offers for it.
    """
    offered = completion.listed(complete) if complete is not None else None
    return typer.Argument(metavar=metavar, help=help, autocompletion=offered, show_default=False)


def option(
    *names: str,
    help: str,
    metavar: str | None = None,
    panel: str = "",
    parser: Callable[[Any], Any] | None = None,
    complete: Callable[[], Any] | None = None,
    hidden: bool = False,
) -> Any:
    """An option, for `Annotated`.

    Args:
        names: `--format`, or `-o` and `--output`.
        help: What it does, in one line; a default other than "none" and "off" is said there.
        metavar: What stands for its value in the help; None for a flag.
        panel: The heading that it is listed under.
        parser: Reads the value; raises typer.BadParameter.
        complete: Names that the shell offers for it.
        hidden: Whether it is left out of the help.
    """
    return typer.Option(
        *names,
        help=help,
        metavar=metavar,
        rich_help_panel=panel or None,
        parser=parser,
        autocompletion=completion.listed(complete) if complete is not None else None,
        show_default=False,
        hidden=hidden,
    )


# Values


MAX_THREADS = 1024


def number(least: int, most: int | None = None) -> Callable[[Any], int]:
    """The parser of a whole number from `least`, to `most` where there is a limit."""

    def parse(text: Any) -> int:
        try:
            value = int(text)
        except ValueError:  # of more than 4300 digits, too
            value = least - 1
        if value < least or (most is not None and value > most):
            to = "" if most is None else f" to {most:,}"
            raise typer.BadParameter(f"{_shown(text)} is not a whole number from {least}{to}")
        return value

    return parse


def percentage(text: Any) -> float:
    """The parser of a percentage from 0 to 1000, with or without its sign."""
    try:
        value = float(str(text).removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1000:
        raise typer.BadParameter(f"{_shown(text)} is not a percentage, such as 8")
    return value


def fraction(text: Any) -> float:
    """The parser of a part from 0 to 1, both excluded."""
    try:
        value = float(str(text))
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{_shown(text)} is not a part between 0 and 1, such as 0.3")
    return value


def one_of(*names: str) -> Callable[[Any], str]:
    """The parser of a value that is one of some names."""

    def parse(text: Any) -> str:
        if text not in names:
            raise typer.BadParameter(f"no such value: {_shown(text)}{did_you_mean(text, names, choices(names))}")
        return str(text)

    return parse


def _shown(text: Any) -> str:
    shown = printable(str(text))
    return repr(shown if len(shown) <= 40 else f"{shown[:40]}…")


def split(values: Sequence[str] | None) -> tuple[str, ...]:
    """`["SHP,OUT001", "GRF"]` → `("SHP", "OUT001", "GRF")`."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def input_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`["mask=1,512"]` → `{"mask": (1, 512)}`.

    Raises:
        UsageError: One is not of that form.
    """
    shapes = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        words = sizes.replace("x", ",").split(",")
        if not name or not all(len(word) <= 20 and word.strip().isdecimal() and int(word) > 0 for word in words):
            raise UsageError(f"--input-shape: {_shown(text)} is not of the form NAME=1,3,640,640")
        shapes[name] = tuple(int(word) for word in words)
    return shapes


# Options that several commands share


EngineName = Annotated[
    str, option("--engine", metavar="ENGINE", help="local (default), ray, or ray://HOST:PORT", panel=WORK)
]
"""Where work is done; see `onnxlint.lint.engines`."""

Jobs = Annotated[
    int | None,
    option("-j", "--jobs", metavar="N", parser=number(0), help="worker processes (default: 0 = automatic)", panel=WORK),
]
"""Processes of this machine that models are shared out to."""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """Where the configuration comes from."""

    config: Annotated[
        str | None, option("--config", metavar="FILE", help="read this configuration, not the nearest one", panel=WORK)
    ] = None
    isolated: Annotated[bool, option("--isolated", help="read no configuration file", panel=WORK)] = False
    trust_config: Annotated[
        bool | None,
        option(
            "--trust-config/--no-trust-config",
            help="load rule-paths from every configuration, or from none (default: from your own)",
            panel=WORK,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class QuietOption:
    """Whether anything beside results is printed."""

    quiet: Annotated[bool, option("-q", "--quiet", help="print neither summary nor progress", panel=WORK)] = False


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Which rules are meant."""

    select: Annotated[
        list[str] | None,
        option(
            "--select",
            metavar="RULES",
            help="run only these rules",
            panel=RULES,
            complete=completion.rules,
        ),
    ] = None
    extend_select: Annotated[
        list[str] | None,
        option(
            "--extend-select",
            metavar="RULES",
            help="run these rules too",
            panel=RULES,
            complete=completion.rules,
        ),
    ] = None
    ignore: Annotated[
        list[str] | None,
        option(
            "--ignore",
            metavar="RULES",
            help="skip these rules",
            panel=RULES,
            complete=completion.rules,
        ),
    ] = None
    target: Annotated[
        list[str] | None,
        option(
            "--target",
            metavar="NAMES",
            help="target runtimes: ncnn, tensorrt, …",
            panel=RULES,
            complete=completion.lint_targets,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TextOrJson:
    """How results are printed."""

    format: Annotated[
        str,
        option(
            "--format", metavar="FORMAT", parser=one_of("text", "json"), help="text (default) or json", panel=OUTPUT
        ),
    ] = "text"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """How a PyTorch network is built."""

    weights: Annotated[
        str | None,
        option("--weights", metavar="FILE", help="checkpoint to load (.pth, .safetensors)", panel=NETWORK),
    ] = None
    arg: Annotated[
        list[str] | None,
        option("--arg", metavar="NAME=VALUE", help="argument of the factory; may be repeated", panel=NETWORK),
    ] = None
    trust: Annotated[
        bool, option("--trust", help="load files that can run code (pickled modules, .pt2)", panel=NETWORK)
    ] = False


@dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """How pixels become values of the input, in ncnn2table's words."""

    preset: Annotated[
        str | None,
        option(
            "--preset",
            metavar="NAME",
            help="preset recipe: facenet, imagenet, retinaface, ssd",
            panel=IMAGES,
            complete=completion.presets,
        ),
    ] = None
    mean: Annotated[
        str | None,
        option("--mean", metavar="A,B,C", help="subtracted from each pixel (0–255), per channel", panel=IMAGES),
    ] = None
    norm: Annotated[
        str | None,
        option("--norm", metavar="A,B,C", help="scale applied after --mean, per channel", panel=IMAGES),
    ] = None
    pixel: Annotated[
        str | None, option("--pixel", metavar="ORDER", help="BGR (default), RGB or GRAY", panel=IMAGES)
    ] = None
    resize: Annotated[
        str | None,
        option("--resize", metavar="METHOD", help="stretch (default), letterbox or center-crop", panel=IMAGES),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Images, and their size."""

    images: Annotated[
        str | None,
        option("--images", metavar="PATH", help="folder, pattern, list, or .npz/.npy with inputs", panel=IMAGES),
    ] = None
    shape: Annotated[
        str | None,
        option(
            "--shape",
            metavar="W,H,C",
            help="input size: 640,640,3 or 1,3,640,640 (default: the model's own)",
            panel=IMAGES,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(PixelOptions, ImageOptions, ConfigOptions):
    """Images, and how they become the input."""


@dataclass(frozen=True, kw_only=True)
class InputShapeOption:
    """Sizes of inputs that are not images."""

    input_shape: Annotated[
        list[str] | None,
        option(
            "--input-shape",
            metavar="NAME=D,D,…",
            help="full shape of a non-image input with free sizes",
            panel=IMAGES,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """How targets are made."""

    method: Annotated[
        str | None,
        option(
            "--method",
            metavar="NAME",
            help="auto (default); kl, aciq, eq (ncnn); learned, minmax, percentile, entropy, mse (onnx); nncf (openvino)",
            panel=INT8,
        ),
    ] = None
    mixed: Annotated[bool, option("--mixed", help="keep the layers that lose most in floating point", panel=INT8)] = (
        False
    )
    budget: Annotated[
        float,
        option(
            "--budget",
            metavar="PERCENT",
            parser=percentage,
            help="most growth of the weights by --mixed, in % (default: 8)",
            panel=INT8,
        ),
    ] = 8.0
    keep: Annotated[
        list[str] | None,
        option("--keep", metavar="LAYERS", help="layers that stay in floating point", panel=INT8),
    ] = None
    weight_bits: Annotated[
        int,
        option(
            "--weight-bits",
            metavar="7|8",
            parser=number(7),
            help="bits of weights in onnx-int8-static and openvino-int8; 7 for x86 CPUs without VNNI (default: 8)",
            panel=INT8,
        ),
    ] = 8
    max_drop: Annotated[
        list[str] | None,
        option(
            "--max-drop",
            metavar="METRIC>=N",
            help="make the cheapest int8 file that keeps this on held-out images: found>=0.99, top1>=0.995",
            panel=INT8,
        ),
    ] = None
    holdout: Annotated[
        float | None,
        option(
            "--holdout",
            metavar="PART",
            parser=fraction,
            help="part of the images held out for --max-drop (default: 0.3)",
            panel=INT8,
        ),
    ] = None
    ncnn_tools: Annotated[
        str | None,
        option("--ncnn-tools", metavar="DIR", help="use ncnn's own tools in this folder", panel=WORK),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ThreadsOption:
    """How many threads work."""

    threads: Annotated[
        int,
        option(
            "--threads", metavar="N", parser=number(1, MAX_THREADS), help="number of threads (default: 2)", panel=WORK
        ),
    ] = 2


# What they say together with the configuration


def configs_of(options: ConfigOptions, command: Settings | None = None) -> Configs:
    """Where configurations come from.

    Args:
        options: The options of the command line.
        command: What it says in place of a configuration.
    """
    from onnxlint.lint.configuration import Configs, Settings

    return Configs(command or Settings(), options.config, options.isolated, options.trust_config)


def rule_settings(options: RuleOptions) -> Settings:
    """What the command line says about rules and targets, in place of a configuration."""
    from onnxlint.lint.configuration import Settings

    return Settings(
        select=None if options.select is None else split(options.select),
        extend_select=split(options.extend_select),
        ignore=split(options.ignore),
        targets=None if options.target is None else split(options.target),
    )


def registry(options: ConfigOptions) -> Registry:
    """The rules that the working directory's configuration knows."""
    from onnxlint.lint.registry import load_registry

    return load_registry(configs_of(options).of_folder(".").rule_paths)


@dataclass(frozen=True)
class Chosen:
    """Inputs from the command line, completed by `[recipe]` of the configuration.

    Attributes:
        images: Source of the images; None if not given.
        recipe: How they become the input.
        method: Calibration of activations; None if not given.
        task, labels: The task that outputs are judged by, and its labels.
        detection: The table `[detection]` of the configuration.
        noted: Whether nothing says how pixels become values, so that a model's metadata may.
    """

    images: str | None
    recipe: Recipe
    method: str | None
    task: str | None
    labels: str | None
    detection: Mapping[str, Any]
    noted: bool = True

    def notes(self, model: str) -> list[str]:
        """Where the recipe comes from, if it is a model's own metadata.

        Raises:
            OnnxlintError: The metadata is damaged, or the model cannot be read.
        """
        from onnxlint.images.noted import in_words, noted_recipe
        from onnxlint.model.skeleton import STDIN, open_model

        if not self.noted or self.images is None or model == STDIN or model.endswith(".param"):
            return []
        made = noted_recipe(open_model(model).proto, model)
        if made is None or not made.defines_values:
            return []
        return [f"pixels become the input as the metadata of {printable(model)} says: {in_words(made)}"]


def recipe_of(options: RecipeOptions) -> Chosen:
    """What the options and the configuration of the working directory say about inputs.

    Raises:
        OnnxlintError: It makes no recipe.
    """
    config = configs_of(options).of_folder(".")
    words, rest = _recipe_words(options, config)
    return Chosen(
        options.images if options.images is not None else rest.get("images"),
        _made_recipe(words, rest, config),
        rest.get("method"),
        rest.get("task"),
        rest.get("labels"),
        config.detection,
        not any(key in words for key in _RECIPE if key != "shape"),
    )


def pixels_of(options: PixelOptions, configs: Configs) -> Recipe | None:
    """How pixels become values, as the options and the configuration of the working directory say; None if they do not.

    Raises:
        OnnxlintError: It makes no recipe.
    """
    config = configs.of_folder(".")
    words, rest = _recipe_words(options, config)
    return _made_recipe(words, rest, config) if any(key in words for key in _RECIPE if key != "shape") else None


def _recipe_words(options: PixelOptions, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of a recipe by name, and what the configuration says beside the command line."""
    # A preset on the command line is a whole recipe: what the file says about parts of another one goes.
    rest = {key: text for key, text in config.recipe.items() if options.preset is None or key not in _RECIPE}
    keys = _RECIPE if isinstance(options, RecipeOptions) else [key for key in _RECIPE if key != "shape"]
    given = {key: value for key in keys if (value := getattr(options, key)) is not None}
    return {key: text for key, text in {**rest, **given}.items() if key in _RECIPE}, rest


def _made_recipe(words: dict[str, Any], rest: dict[str, Any], config: Config) -> Recipe:
    from onnxlint.errors import OnnxlintError
    from onnxlint.images.recipe import make_recipe

    try:
        return make_recipe(**words)
    except OnnxlintError as error:
        if not any(key in rest for key in _RECIPE):
            raise
        raise OnnxlintError(f"{error} (together with [recipe] of {config.file.path})") from None
