"""The public functions, for Python programs: what the commands of the same names do.

Errors name the functions' arguments where the command line's name its options.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from onnxlint.errors import OnnxlintError, in_python, names_arguments
from onnxlint.lint.finding import CheckResult, Severity

if TYPE_CHECKING:
    import onnx
    import torch

    from onnxlint.accuracy.results import AccuracyReport
    from onnxlint.conversion.session import Conversion
    from onnxlint.deployment.pipeline import Deployment
    from onnxlint.difference.result import ModelDiff
    from onnxlint.fixes.results import FixReport
    from onnxlint.images.options import ImageOptions
    from onnxlint.images.recipe import ImageSet, Recipe
    from onnxlint.lint.configuration import Config

_Path = str | os.PathLike[str]
_Progress = Callable[[str, int, int | None], None]

IN_MEMORY = "<model>"
"""What findings call a model that is not a file."""


def _warn_of_withheld(config: Config) -> None:
    if config.withheld_note:
        import warnings

        warnings.warn(in_python(config.withheld_note), stacklevel=4)


@names_arguments
def check(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    select: Iterable[str] | None = None,
    extend_select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    targets: Iterable[str] | None = None,
    min_opset: int | None = None,
    severity: Mapping[str, Severity | str] | None = None,
    weights: bool | None = None,
    baseline: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    isolated: bool = False,
    trust_config: bool | None = None,
) -> CheckResult:
    """Find problems that an exported model will have in deployment, as `onnxlint check` does.

        result = onnxlint.check("model.onnx", targets=["ncnn"])
        assert not result.findings

    Args:
        model: A file, or a model that is loaded already. External data of a loaded model is looked for in the working
            directory.
        select: Rules to run, by code, prefix, name or `ALL`, in place of the default ones.
        extend_select: Rules to run beside the selected ones.
        ignore: Rules that do not run.
        targets: Backends that the model is meant for, such as `ncnn`.
        min_opset: Oldest operator set that is accepted.
        severity: Severities by rule, in place of the rules' own.
        weights: Whether rules may read weights.
        baseline: A baseline file; the findings in it are left out, and counted in `suppressed`.
        config: A configuration file, in place of the nearest one upwards from the model (for a loaded model: from the
            working directory).
        isolated: Leave configuration files unread.
        trust_config: Whether the code that `rule-paths` name is loaded: True, whatever configuration names it; False,
            never; None, where `config` or a configuration of the working directory does (a warning says what was not).

    Returns:
        What the selected rules found; a result without findings means that all of them ran.

    Raises:
        OnnxlintError: The model cannot be opened, a rule failed on it, or an argument or a configuration is wrong.
    """
    from onnxlint.lint.configuration import Configs, Settings, parse_severities
    from onnxlint.lint.engine import check_file, check_model
    from onnxlint.lint.session import Ledger, Plans
    from onnxlint.model.skeleton import Model

    command = Settings(
        select=None if select is None else _names(select),
        extend_select=_names(extend_select),
        ignore=_names(ignore),
        targets=None if targets is None else _names(targets),
        min_opset=min_opset,
        severity=parse_severities(
            f"{rule}={getattr(level, 'value', level)}" for rule, level in (severity or {}).items()
        ),
        weights=weights,
        baseline=_text(baseline),
    )
    configs = Configs(command, _text(config), isolated, trust_config)
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else IN_MEMORY
    plan = Plans(configs).of(name)
    _warn_of_withheld(configs.of(name))
    ledger = Ledger(configs)
    ledger.open(name)
    if isinstance(model, str | os.PathLike):
        result = check_file(name, plan)
    else:
        result = check_model(Model(name, model, model.ByteSize()), plan)
    if result.error:
        raise OnnxlintError(result.error.message)
    return ledger.without_known(result)


@names_arguments
def fix(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    select: Iterable[str] | None = None,
    extend_select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    assume: Iterable[str] = (),
    multiple_of: int | None = None,
    unsafe: bool = False,
    concat_heads: Iterable[str] | bool = False,
    concat_axis: int | None = None,
    concat_name: str = "output",
    drop_output_activations: bool = False,
    rename: Mapping[str, str] | None = None,
    dynamic: Iterable[str] = (),
    static: Iterable[str] = (),
    clamp_fp16: bool = False,
    opset: int | None = None,
    bind: Mapping[str, str] | None = None,
    simplify: bool = False,
    allow_empty: bool = False,
    targets: Iterable[str] | None = None,
    verify: bool = True,
    inputs: str | os.PathLike[str] | None = None,
    external_data: str | None = None,
    inline: bool = False,
    config: str | os.PathLike[str] | None = None,
    isolated: bool = False,
    trust_config: bool | None = None,
) -> FixReport:
    """Apply fixes that are proved, or verified by running both models, as `onnxlint fix` does.

        report = onnxlint.fix("model.onnx", "fixed.onnx", multiple_of=32)
        print([left.why for left in report.left])

    Args:
        model: A file; never touched unless it is `output` too.
        output: Where the fixed model goes, replaced atomically; None writes nothing.
        select: Rules whose findings are fixed, by code, prefix, name or `ALL`.
        extend_select: Rules in addition to the selected ones.
        ignore: Rules whose findings stay.
        assume: Conditions under which fixes may be exact: `H % 32 == 0`.
        multiple_of: The same for height and width of all images.
        unsafe: Allow fixes that change results or the interface.
        concat_heads: Outputs to join, in this order; True for all that are detection heads.
        concat_axis: Axis to join them along; None for the one in which they differ.
        concat_name: Name of the joined output.
        drop_output_activations: Drop a Softmax or Sigmoid at an output.
        rename: Old → new names of inputs and outputs.
        dynamic: Inputs whose sizes are set free: `image=N,3,H,?`; `?` leaves an axis as it is.
        static: Inputs whose sizes are fixed: `image=1,3,640,?`.
        clamp_fp16: Bring weights and constants into the range of float16. Reads weights.
        opset: Operator set to raise or lower the model to; None for 11 where it is below.
        bind: Input → numbers separated by commas, or an .npy file, that it becomes a constant of.
        simplify: Let onnxsim go over the result; needs `onnxlint[simplify]`.
        allow_empty: Only apply fixes that are exact for inputs of size 0, too.
        targets: Backends that the model is meant for, such as `ncnn`.
        verify: Run both models and compare.
        inputs: An .npz file with inputs to compare on, too.
        external_data: Name of the file beside `output` that large weights are written to; None leaves them where they
            are.
        inline: Bring external data into the file.
        config: As for `check`.
        isolated: As for `check`.
        trust_config: As for `check`.

    Returns:
        The fixes applied, the remaining findings with reasons, and the verification.

    Raises:
        OnnxlintError: The model cannot be read or written, or an argument is wrong; nothing was written.
    """
    from onnxlint.fixes.options import FixOptions
    from onnxlint.fixes.session import fix_path, write
    from onnxlint.lint.configuration import Configs, Settings
    from onnxlint.lint.rule import Request

    settings = Settings(
        select=None if select is None else _names(select),
        extend_select=_names(extend_select),
        ignore=_names(ignore),
        targets=None if targets is None else _names(targets),
        weights=True if clamp_fp16 else None,
    )
    heads = concat_heads if isinstance(concat_heads, bool) else _names(concat_heads)
    request = Request(
        unsafe=unsafe,
        concat_heads=None if heads is False else () if heads is True else heads,
        concat_axis=concat_axis,
        concat_name=concat_name,
        drop_output_activations=drop_output_activations,
        clamp_fp16=clamp_fp16,
        rename=tuple((rename or {}).items()),
        dynamic=_names(dynamic),
        static=_names(static),
        opset=opset,
        bind=tuple((bind or {}).items()),
        simplify=simplify,
        allow_empty=allow_empty,
    )
    configs = Configs(settings, _text(config), isolated, trust_config)
    _warn_of_withheld(configs.of(os.fspath(model)))
    fixed = fix_path(
        os.fspath(model),
        configs,
        FixOptions(request, _names(assume), multiple_of, verify, _text(inputs)),
    )
    if output is not None:
        write(fixed, os.fspath(output), external_data, inline)
    return fixed.report


@names_arguments
def diff(
    old: _Path,
    new: _Path,
    *,
    check: bool = True,
    verify: bool = False,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] = (),
    targets: Iterable[str] | None = None,
    config: _Path | None = None,
    isolated: bool = False,
) -> ModelDiff:
    """Compare two models: interface, findings, nodes and weights, as `onnxlint diff` does.

        changes = onnxlint.diff("old.onnx", "new.onnx")
        print(changes.same, [(one.change.value, one.op) for one in changes.nodes])

    Args:
        old: The model before.
        new: The model after.
        check: Whether findings are compared, too.
        verify: Whether both are run on the same inputs and their outputs compared.
        select: Rules that run, by code, prefix, name or `ALL`.
        ignore: Rules that do not run.
        targets: Runtimes that the models are meant for.
        config: A configuration file, in place of the nearest one.
        isolated: Whether to read no configuration file.

    Raises:
        OnnxlintError: A model cannot be read, or a rule or target does not exist.
    """
    from onnxlint.difference.session import diff_models
    from onnxlint.lint.configuration import Configs, Settings

    settings = Settings(
        select=None if select is None else _names(select),
        ignore=_names(ignore),
        targets=None if targets is None else _names(targets),
    )
    configs = Configs(settings, _text(config), isolated) if check else None
    return diff_models(old, new, configs=configs, verify=verify)


@names_arguments
def convert(
    path: _Path,
    to: str | Iterable[str],
    *,
    images: _Path | ImageSet | None = None,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    shapes: Mapping[str, Iterable[int]] | None = None,
    method: str = "auto",
    mixed: bool = False,
    budget: float = 0.08,
    keep: str | Iterable[str] = (),
    threads: int = 2,
    tools: _Path | None = None,
    weight_bits: int = 8,
    task: str | None = None,
    detection: Mapping[str, Any] | None = None,
    max_drop: str | Iterable[str] = (),
    holdout: float = 0.0,
    out_dir: _Path | None = None,
    progress: _Progress | None = None,
) -> Conversion:
    """Convert and quantize a model, and write the files and a manifest, as `onnxlint convert` does.

        made = onnxlint.convert("fixed.onnx", ["onnx-fp16", "ncnn-int8"], images="calibration/", recipe="imagenet")

    Args:
        path: The ONNX model.
        to: Names of targets, or `all`.
        images: What to calibrate with: a folder, a glob, a list, an .npz or .npy file.
        recipe: How images become the input: a `Recipe`, the name of a preset, or the arguments of `make_recipe` as a
            dictionary (`{"mean": (104, 117, 123), "pixel": "BGR"}`). The size is the model's own where it is fixed and
            none is given.
        shapes: Input → whole shape, for inputs with free sizes that are not images.
        method: Calibration of activations: `auto`, or a method of the target (ncnn: kl, aciq, eq; onnxruntime: learned,
            minmax, percentile, entropy, mse; OpenVINO: these and nncf).
        mixed: Whether layers that int8 hurts may stay in floating point.
        budget: Allowed growth of the weights by `mixed`, as a fraction of the pure int8 size.
        keep: Layers that stay in floating point.
        threads: How many to use.
        tools: Folder with the real tools of ncnn, to be used in place of ours.
        weight_bits: Of `onnx-int8-static` and `openvino-int8`, 7 or 8: 7 keeps the 16-bit sums of x86 processors without
            VNNI from overflowing.
        task: What outputs are used for, which `mixed` and `max_drop` count by: `detection`, `classification`,
            `verification`; None: detection where the outputs are RetinaFace's or an SSD's.
        detection: How outputs become boxes: the table `[detection]` of the configuration.
        max_drop: What int8 files have to keep on images that nothing is calibrated on: `found>=0.99`, `top1>=0.995`. The
            cheapest file that does is made, mixed up to `budget`.
        holdout: Part of the images that is held out for that; 0: 0.3.
        out_dir: Output folder; None for the model's folder.
        progress: Called with the current action, the number of steps done, and their total.

    Raises:
        OnnxlintError: A target, the model, the images or the recipe is wrong. A target that cannot be made is not an error
            here but a `Failure` in the result.
    """
    from onnxlint.accuracy.loss import loss_for
    from onnxlint.backends import silent
    from onnxlint.backends.options import ConvertOptions
    from onnxlint.conversion import session

    return session.convert(
        path,
        _names(to),
        _image_options(images, recipe, shapes),
        ConvertOptions(
            method,
            mixed,
            budget,
            _names(keep),
            threads,
            _text(tools),
            weight_bits,
            loss_for(os.fspath(path), task, detection) if images is not None else None,
            _names(max_drop),
            holdout,
        ),
        out_dir=_text(out_dir),
        progress=progress or silent,
    )


@names_arguments
def compare(
    reference: _Path,
    candidates: _Path | Iterable[_Path],
    *,
    images: _Path | ImageSet | None = None,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    shapes: Mapping[str, Iterable[int]] | None = None,
    task: str | None = None,
    labels: _Path | None = None,
    detection: Mapping[str, Any] | None = None,
    layers: bool = False,
    suggest: bool = False,
    threads: int = 2,
    fail_if: str | Iterable[str] = (),
    time: bool = True,
    progress: _Progress | None = None,
) -> AccuracyReport:
    """Compare the accuracy of models against a reference, as `onnxlint compare` does.

        report = onnxlint.compare("model.onnx", ["model_int8.param"], images="photos/", recipe="imagenet")
        print([(one.name, one.snr_db) for one in report.candidates])

    Args:
        reference: The reference model.
        candidates: The other models: ONNX files, ncnn .param files, or any file that a backend opens.
        images: A folder, a glob, a list of files, an .npz or .npy file; None: seeded random inputs, which say little.
        recipe: As for `convert`.
        shapes: As for `convert`.
        task: The task that outputs are judged by: detection, classification, verification or super-resolution.
        labels: Ground-truth labels; None: the reference's answers.
        detection: The table `[detection]` of the configuration.
        layers: Whether to compare intermediate values too, and to measure how much of the loss each layer causes.
        suggest: Whether to try out settings that may reduce the loss.
        threads: How many each model may use.
        fail_if: Conditions (`snr<20`) on each candidate; what meets one is in the report's `failures`.
        time: Whether to measure latency.
        progress: As for `convert`.

    Raises:
        OnnxlintError: A file cannot be read or run, no output of a candidate has a partner, or an argument is wrong.
    """
    from onnxlint.accuracy.compare import compare as compare_models
    from onnxlint.accuracy.options import CompareOptions
    from onnxlint.backends import silent

    models = (candidates,) if isinstance(candidates, str | os.PathLike) else tuple(candidates)
    options = CompareOptions(
        task, _text(labels), detection or {}, layers, suggest, _names(fail_if), threads=threads, time=time
    )
    return compare_models(reference, models, _image_options(images, recipe, shapes), options, progress or silent)


@names_arguments
def deploy(
    path: _Path | torch.nn.Module,
    to: str | Iterable[str] = (),
    *,
    weights: _Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    trust: bool = False,
    images: _Path | ImageSet | None = None,
    recipe: Recipe | Mapping[str, Any] | str | None = None,
    shapes: Mapping[str, Iterable[int]] | None = None,
    task: str | None = None,
    labels: _Path | None = None,
    detection: Mapping[str, Any] | None = None,
    assume: Iterable[str] = (),
    multiple_of: int | None = 32,
    concat_heads: bool = True,
    drop_output_activations: bool = True,
    method: str = "auto",
    mixed: bool = False,
    budget: float = 0.08,
    keep: str | Iterable[str] = (),
    weight_bits: int = 8,
    max_drop: str | Iterable[str] = (),
    holdout: float = 0.0,
    layers: bool = False,
    suggest: bool = False,
    fail_if: str | Iterable[str] = (),
    threads: int = 2,
    tools: _Path | None = None,
    out_dir: _Path | None = None,
    resume: bool = False,
    config: _Path | None = None,
    isolated: bool = False,
    progress: _Progress | None = None,
) -> Deployment:
    """Check, fix, convert, quantize and compare into one folder with samples, as `onnxlint deploy` does.

        done = onnxlint.deploy("model.onnx", "ncnn-int8", images="images", recipe="imagenet")
        print(done.report.candidates[-1].snr_db)

    Args:
        path: The ONNX model, which is not touched; or a PyTorch network, as for `export`, which is exported first.
        to: Targets, or `all`; empty: the fixed model and a sample for it.
        weights, arguments, trust: Of a network, as for `export`.
        images: What to calibrate with, and to compare on.
        shapes: As for `convert`.
        recipe: As for `convert`. For a RetinaFace (`task="detection"`) its own recipe is known.
        task: How the outputs are evaluated, as for `compare`; None with labels: the outputs tell.
        labels: As for `compare`; a list of classes also gives the samples their names.
        detection: As for `compare`.
        assume: As for `fix`; the size of the images has to fit.
        multiple_of: Height and width of images are multiples of this, as far as the recipe's size is; None: assume
            nothing.
        concat_heads: Whether detection heads are joined into one output.
        drop_output_activations: Whether a Softmax or Sigmoid at an output goes; the samples apply it.
        method: As for `convert`.
        mixed: As for `convert`.
        budget: As for `convert`.
        keep: As for `convert`.
        weight_bits: As for `convert`.
        max_drop: As for `convert`.
        holdout: As for `convert`.
        tools: As for `convert`.
        layers: As for `compare`.
        suggest: As for `compare`.
        fail_if: As for `compare`.
        threads: How many to use.
        out_dir: Output folder; None for `NAME_deploy` beside the model.
        resume: Whether steps are skipped whose inputs are unchanged.
        config: As for `check`.
        isolated: As for `check`.
        progress: As for `convert`.

    Raises:
        StepError: A step failed, and the deployment cannot continue.
        OnnxlintError: An argument, the model or the images are wrong. What earlier steps wrote stays.
    """
    from onnxlint.accuracy.options import CompareOptions
    from onnxlint.backends import silent
    from onnxlint.backends.options import ConvertOptions
    from onnxlint.deployment import pipeline
    from onnxlint.exporting.options import ExportOptions
    from onnxlint.fixes.options import FixOptions
    from onnxlint.lint.rule import Request

    heads = () if concat_heads else None
    request = Request(concat_heads=heads, drop_output_activations=drop_output_activations)
    return pipeline.deploy(
        path,
        _names(to),
        _image_options(images, recipe, shapes),
        FixOptions(request, _names(assume), multiple_of),
        ConvertOptions(
            method,
            mixed,
            budget,
            _names(keep),
            threads,
            _text(tools),
            weight_bits,
            max_drop=_names(max_drop),
            holdout=holdout,
        ),
        CompareOptions(task, _text(labels), detection or {}, layers, suggest, _names(fail_if), threads),
        ExportOptions(weights=_text(weights), arguments=dict(arguments or {}), trust=trust),
        out_dir=_text(out_dir),
        resume=resume,
        config=_text(config),
        isolated=isolated,
        progress=progress or silent,
    )


def _image_options(
    images: _Path | ImageSet | None,
    recipe: Recipe | Mapping[str, Any] | str | None,
    shapes: Mapping[str, Iterable[int]] | None,
) -> ImageOptions:
    from onnxlint.images.options import ImageOptions, as_recipe, leaves_values

    whole = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    return ImageOptions(images, as_recipe(recipe), whole, leaves_values(recipe))


def _text(path: _Path | None) -> str | None:
    return None if path is None else os.fspath(path)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    # A string is an iterable of letters: select="SHP001" must not ask for the rule "S".
    return (names,) if isinstance(names, str) else tuple(names)
