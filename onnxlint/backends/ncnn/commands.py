"""What `onnxlint ncnn table` and `onnxlint ncnn quantize` run in a process of their own: a net that ncnn crashes on, or that
takes all memory, ends that process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxlint.backends import Progress
from onnxlint.backends.ncnn.backend import JUDGED, Inputs
from onnxlint.backends.ncnn.calibrate import Method, make_table
from onnxlint.backends.ncnn.evaluate import Evaluator, spread
from onnxlint.backends.ncnn.format import load
from onnxlint.images.recipe import Recipe, find_images
from onnxlint.lint.engines import Spread

if TYPE_CHECKING:
    from onnxlint.backends.ncnn.table import Table


def calibrated(
    progress: Progress,
    net: tuple[str, str],
    images: str,
    recipe: Recipe,
    method: Method,
    threads: int,
    cluster: Spread | None = None,
) -> tuple[Table, int, tuple[str, ...]]:
    """The table of a net, the number of images, and notes on them.

    Args:
        progress: Called with the current action.
        net: Its `.param` and `.bin`.
        images: Where images are.
        recipe: How they become the input.
        method: Of calibration.
        threads: How many images are computed at once.
        cluster: What computes statistics of images in place of threads.

    Raises:
        OnnxlintError: The net, the table or the images are wrong.
    """
    float_net = load(*net)
    inputs = Inputs(float_net, find_images(images), recipe, threads)
    made = make_table(float_net, inputs, method, threads=threads, progress=progress, spread=cluster)
    return made, len(inputs.images), inputs.notes()


def measured(
    _progress: Progress, net: tuple[str, str], made: tuple[str, str], images: str, recipe: Recipe, threads: int
) -> tuple[float, int, tuple[str, ...]]:
    """Mean SNR of the outputs of a quantized net beside its float net in dB, on how many images, and notes on them.

    Args:
        net, made: The `.param` and `.bin` of each.
        images: Where images are.
        recipe: How they become the input.
        threads: How many images are computed at once.

    Raises:
        OnnxlintError: A net or the images are wrong.
    """
    float_net = load(*net)
    inputs = Inputs(float_net, find_images(images), recipe, threads)
    some = spread(inputs, JUDGED)
    ratio = Evaluator(float_net, some, threads).score(load(*made))
    return ratio, len(some), inputs.notes()
