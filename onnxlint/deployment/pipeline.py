"""From an export to files for devices in one call: check, fix, convert, quantize, compare, and runnable samples; shared by
`onnxlint deploy` and `onnxlint.deploy`.

Everything goes into one folder. `deploy.json` in it records each step: see `onnxlint.deployment.journal`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxlint.accuracy.options import CompareOptions
from onnxlint.accuracy.results import AccuracyReport
from onnxlint.backends import Artifact, Progress, silent
from onnxlint.backends.options import ConvertOptions
from onnxlint.conversion.session import Failure
from onnxlint.deployment import steps
from onnxlint.deployment.journal import (
    Journal,
    damaged,
    digest_of,
    images_digest,
    labels_digest,
    model_digest,
    read_json,
)
from onnxlint.deployment.network import FromNetwork, export_first, is_network, name_of
from onnxlint.deployment.options import FIXING, Options
from onnxlint.deployment.preflight import places, preflight, preflight_network, shared_multiple, with_task
from onnxlint.deployment.results import Deployment, Step, StepError
from onnxlint.errors import OnnxlintError
from onnxlint.exporting.options import ExportOptions
from onnxlint.fixes.options import FixOptions
from onnxlint.images.noted import completed
from onnxlint.images.options import ImageOptions
from onnxlint.images.recipe import ImageSet, Recipe, find_images
from onnxlint.lint.finding import Finding
from onnxlint.model.scratch import clear_left
from onnxlint.model.skeleton import open_model
from onnxlint.text import printable

_CALIBRATION = ("method", "mixed", "budget", "keep", "weight_bits", "max_drop", "holdout")


def deploy(
    path: Any,
    to: Sequence[str] = (),
    inputs: ImageOptions = ImageOptions(),  # noqa: B008 - frozen
    fixing: FixOptions = FIXING,
    converting: ConvertOptions = ConvertOptions(),  # noqa: B008 - frozen
    comparing: CompareOptions = CompareOptions(),  # noqa: B008 - frozen
    exporting: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
    *,
    out_dir: str | None = None,
    resume: bool = False,
    config: str | os.PathLike[str] | None = None,
    isolated: bool = False,
    progress: Progress = silent,
) -> Deployment:
    """Take a model from its export to files that run on devices, and measure the accuracy loss of each.

        done = deploy("model.onnx", ["ncnn-int8"], ImageOptions("images", make_recipe(preset="imagenet")))
        print(done.report.candidates[-1].snr_db)

    Args:
        path: The ONNX model, which is not changed; or a PyTorch network, which is exported first: a module,
            `package.module:factory`, or a file that torch wrote.
        to: Names of targets, or `all`; empty: the fixed model and a sample for it.
        inputs: What to calibrate with and to compare on, and how images become the input. For a RetinaFace (task
            detection) its own recipe is known.
        fixing, converting, comparing: How; see `onnxlint.deployment.options.Options`. Labels without a task: the outputs
            tell whether it is classification or detection.
        exporting: How a network is exported.
        out_dir: Output folder; None for `NAME_deploy` beside the model, or in the working directory for a network.
        resume: Whether steps are skipped whose inputs are unchanged.
        config, isolated: As for `onnxlint.check`.
        progress: Called with the step under way.

    Raises:
        StepError: A step failed, and the deployment cannot continue.
        OnnxlintError: An argument, the model or the images are wrong. Files of earlier steps stay.
    """
    if isinstance(path, str | os.PathLike) and os.fspath(path) == "-":
        raise OnnxlintError("deploy names its files after the model: name a file, not stdin")
    images = inputs.images
    found = images if images is None or isinstance(images, ImageSet) else find_images(images)
    recipe = inputs.recipe or Recipe()
    asked = Options(found, recipe, inputs.shapes, fixing, converting, comparing, config, isolated)
    exported = None
    if is_network(path):
        preflight_network(path, to, asked)
        out_dir = out_dir if out_dir is not None else f"{name_of(path)}_deploy"
        exported = export_first(path, out_dir, asked, exporting, progress)
        path = exported.report.output
    elif exporting != ExportOptions():
        raise OnnxlintError(
            f"{printable(os.fspath(path))}: is no network: weights and arguments are those of a factory"
        )
    path = os.fspath(path)
    if found is not None:
        asked = replace(asked, recipe=completed(recipe, inputs, open_model(path)))
    asked = with_task(path, asked)
    known = preflight(path, out_dir, to, asked, progress)
    folder, fixed = places(path, out_dir)
    try:
        os.makedirs(os.path.join(folder, steps.SAMPLES), exist_ok=True)
    except OSError as error:
        raise OnnxlintError(f"{printable(folder)}: cannot be written to: {error.strerror or error}") from None
    clear_left(folder)
    clear_left(os.path.join(folder, steps.SAMPLES))
    return _Pipeline(path, tuple(to), folder, fixed, asked, known, Journal(folder, resume, progress), exported).run()


@dataclass(frozen=True)
class _Pipeline:
    """A deployment under way; `recipe` is the one that inputs are made by."""

    path: str
    to: tuple[str, ...]
    folder: str
    fixed: str
    options: Options
    recipe: Recipe
    journal: Journal
    exported: FromNetwork | None = None

    def run(self) -> Deployment:
        """All steps, in order."""
        self._export()
        findings = self._check()
        said = tuple(map(steps.finding_line, findings))
        self._fix(findings, said)
        job = {
            "recipe": asdict(self.recipe),
            "shapes": steps.plain(self.options.shapes),
            "images": images_digest(self.options.images),
        }
        failures = self._convert(job)
        failed = {failure.target for failure in failures}
        wanted = [target.name for _, target in steps.targets_of(self.to)]
        artifacts = steps.read_artifacts(self.folder, self.fixed, [name for name in wanted if name not in failed])
        if failures and not artifacts:
            first = failures[0]
            raise StepError(
                f"{printable(self.path)}: no target could be made: {first.target}: {first.message}",
                first.findings or said,
            )
        job["files"] = {
            name: digest_of(os.path.join(self.folder, name)) for name in self.journal.files_of(("fix", "convert"))
        }
        job |= {
            "task": self.options.comparing.task,
            "detection": steps.plain(self.options.comparing.detection),
            "labels": labels_digest(self.options.comparing.labels),
        }
        report = self._compare(job, artifacts)
        with self.journal.step("samples", job) as step:
            if step.todo:
                steps.write_samples(self._to_sample(artifacts), self.fixed, self.recipe, self.options, step)
        done = tuple(self.journal.steps)
        return Deployment(self.path, self.folder, self.fixed, self.recipe, done, artifacts, failures, report)

    def _to_sample(self, artifacts: Sequence[Artifact]) -> Sequence[Artifact]:
        """What samples are written for: the targets, or the fixed model where none was asked for."""
        return artifacts or [Artifact("onnx", (self.fixed,), (), (), {})]

    def _export(self) -> None:
        from onnxlint.report.export import render_export

        if self.exported is None:
            return
        with self.journal.step("export") as step:
            step.started = self.exported.started
            step.files += (self.path,)
            step.lines += tuple(line.strip() for line in render_export(self.exported.report).splitlines())

    def _check(self) -> tuple[Finding, ...]:
        with self.journal.step("check") as step:
            findings = steps.check_model(self.path, self.to, self.options)
            step.lines += (steps.summary_of(findings),)
        return findings

    def _fix(self, findings: Sequence[Finding], said: tuple[str, ...]) -> None:
        codes = {finding.code for finding in findings}
        wanted = self.options.fixing.request
        fixes = steps.Fixes(
            multiple_of=shared_multiple(self.options.fixing.multiple_of, self.recipe),
            assumptions=self.options.fixing.assumptions,
            concat_heads=wanted.concat_heads is not None and "OUT001" in codes,
            drop_output_activations=wanted.drop_output_activations,
        )
        key = {
            **asdict(fixes),
            "model": self._source_digest(),
            "configuration": repr(self.options.configs().of(self.path)),
        }
        with self.journal.step("fix", key, said) as step:
            if step.todo:
                steps.fix_model(self.path, self.fixed, fixes, self.options, step)

    def _source_digest(self) -> str:
        return model_digest(open_model(self.path))

    def _convert(self, job: Mapping[str, Any]) -> tuple[Failure, ...]:
        failures: tuple[Failure, ...] = ()
        source = model_digest(open_model(self.fixed))
        for targets in steps.by_backend(self.to):
            names = [target.name for target in targets]
            key: dict[str, Any] = {**job, "model": source, "tools": self.options.converting.tools}
            if any(target.calibrates for target in targets):
                key |= {name: steps.plain(getattr(self.options.converting, name)) for name in _CALIBRATION}
                key |= {"task": self.options.comparing.task, "detection": steps.plain(self.options.comparing.detection)}
            with self.journal.step(f"convert {', '.join(names)}", key) as step:
                if step.todo:
                    failures += steps.convert_model(self.fixed, self.folder, names, self.recipe, self.options, step)
        return failures

    def _compare(self, job: Mapping[str, Any], artifacts: Sequence[Artifact]) -> AccuracyReport:
        comparing = self.options.evaluated()
        candidates = [self.fixed, *(artifact.files[0] for artifact in artifacts)]
        key = {
            **job,
            "reference": self._source_digest(),
            "asked": [comparing.layers, comparing.suggest, list(comparing.fail_if)],
        }
        with self.journal.step("compare", key) as step:
            if step.todo:
                return steps.compare_artifacts(self.path, candidates, self.recipe, self.options, step)
            return _read_report(os.path.join(self.folder, "report.json"))


def _read_report(path: str) -> AccuracyReport:
    """The comparison of an earlier run.

    Raises:
        OnnxlintError: It cannot be read, or is damaged.
    """
    from onnxlint.report.compare.json import parse

    try:
        return parse(read_json(path))
    except (FileNotFoundError, ValueError) as error:
        raise damaged(path, str(error)) from None


__all__ = ["Deployment", "Step", "StepError", "deploy"]
