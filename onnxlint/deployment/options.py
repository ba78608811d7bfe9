"""What a deployment is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxlint.images.recipe import ImageSet, Recipe
from onnxlint.lint.configuration import Configs, Settings


@dataclass(frozen=True)
class Options:
    """The options of `deploy`, which describes them; images are found already.

    Attributes:
        images: What to calibrate with and to compare on; None: made-up inputs.
        recipe: How images become the input, as the user gave it.
        shapes: Input → whole shape.
        task, labels, detection: How outputs are judged.
        multiple_of: Height and width of images are assumed to be multiples of this; None: nothing is assumed.
        concat_heads, drop_output_activations: Fixes that change the interface.
        method, mixed, budget, keep: How int8 targets are calibrated.
        layers, suggest, fail_if: What the comparison includes.
        threads: How many to use.
        tools: Folder with the real tools of ncnn.
        config, isolated: Where the configuration comes from.
    """

    images: ImageSet | None = None
    recipe: Recipe = field(default_factory=Recipe)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    task: str | None = None
    labels: str | None = None
    detection: Mapping[str, Any] = field(default_factory=dict)
    multiple_of: int | None = 32
    concat_heads: bool = True
    drop_output_activations: bool = True
    method: str = "auto"
    mixed: bool = False
    budget: float = 0.08
    keep: Sequence[str] = ()
    layers: bool = False
    suggest: bool = False
    fail_if: Sequence[str] = ()
    threads: int = 2
    tools: str | None = None
    config: str | os.PathLike[str] | None = None
    isolated: bool = False

    def configs(self, **settings: Any) -> Configs:
        """The configurations of models, with settings of the command line in front."""
        where = None if self.config is None else os.fspath(self.config)
        return Configs(Settings(**settings), where, self.isolated)
