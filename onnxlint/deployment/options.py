"""Options of a deployment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnxlint.accuracy.options import CompareOptions
from onnxlint.backends.options import ConvertOptions
from onnxlint.fixes.options import FixOptions
from onnxlint.images.recipe import ImageSet, Recipe
from onnxlint.lint.configuration import Configs, Settings
from onnxlint.lint.rule import Request

FIXING = FixOptions(Request(concat_heads=(), drop_output_activations=True), multiple_of=32)
"""The fixes of a deployment: detection heads are joined, and activations at outputs dropped."""


@dataclass(frozen=True)
class Options:
    """The options of `deploy`, which describes them; images are found already.

    Attributes:
        images: What to calibrate with and to compare on; None: made-up inputs.
        recipe: How images become the input, as the user gave it.
        shapes: Input → whole shape.
        fixing: What is fixed beside what is exact for every input; `multiple_of` holds as far as the recipe's size is such
            a multiple, `assumptions` have to.
        converting: How targets are made.
        comparing: Contents of the comparison, and how outputs are evaluated.
        config, isolated: Where the configuration comes from.
    """

    images: ImageSet | None = None
    recipe: Recipe = field(default_factory=Recipe)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fixing: FixOptions = FIXING
    converting: ConvertOptions = field(default_factory=ConvertOptions)
    comparing: CompareOptions = field(default_factory=CompareOptions)
    config: str | os.PathLike[str] | None = None
    isolated: bool = False

    def evaluated(self) -> CompareOptions:
        """What is compared: tasks need images."""
        return self.comparing if self.images is not None else replace(self.comparing, task=None, labels=None)

    def configs(self, **settings: Any) -> Configs:
        """The configurations of models, with settings of the command line in front."""
        where = None if self.config is None else os.fspath(self.config)
        return Configs(Settings(**settings), where, self.isolated)
