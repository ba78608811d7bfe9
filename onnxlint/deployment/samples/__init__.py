"""Runnable samples: a Python script and a C++ program that load an artifact, prepare images as the recipe says, split the
outputs, apply activations that were removed from the model, and print what the network found. They do not need onnxlint.

The jinja2 templates are in templates/; `parts` and `plan` find out what they have to say, `writing` fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxlint.backends import Array, Session
from onnxlint.deployment.samples.plan import make_plan
from onnxlint.deployment.samples.writing import LANGUAGES, render, render_tensorrt, sample_name

if TYPE_CHECKING:
    import onnx

    from onnxlint.images.recipe import Recipe


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
    classes: Sequence[str] | Callable[[int], Sequence[str]] = (),
) -> dict[str, str]:
    """The samples for an artifact: file name → text. They look for the artifact one folder above their own.

    For MNN there is the Python script alone. For TensorRT there is a shell script besides, with trtexec and polygraphy; the
    programs run the file in onnxruntime.

    Args:
        target: The artifact's target.
        files: Its files, of which the names are used.
        session: The artifact, loaded. It is run once: its outputs determine the sample's code.
        model: The ONNX model that it was made from, for the records of concatenated heads and removed activations.
        recipe: How images become the input.
        x: An input (1, C, H, W).
        task: One of `onnxlint.accuracy.tasks.TASKS`; None: the sample prints statistics of the outputs.
        detection: The table `[detection]` of the configuration.
        classes: Names of the classes, or a function that takes the number of the model's classes and returns them.

    Raises:
        OnnxlintError: The model does not take one image, its outputs do not fit the task, or jinja2 is not installed.
    """
    plan = make_plan(target, files, session, model, recipe, x, task=task, detection=detection or {}, classes=classes)
    texts = {
        f"{sample_name(target)}{ending}": render(language, plan)
        for language, ending in LANGUAGES.items()
        if language == "python" or plan.runtime != "mnn"  # MNN's wheel has no headers to compile a C++ program with
    }
    if target.startswith("tensorrt"):
        is_free = None in session.inputs[0].shape
        texts[f"build_{target.replace('-', '_')}.sh"] = render_tensorrt(plan, x.shape, is_free)
    return texts
