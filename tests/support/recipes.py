"""Preprocessing of the small models in `accuracy_models`."""

from __future__ import annotations

from onnxlint.images.recipe import Recipe
from tests.support.accuracy_models import SIZE

RECIPE = Recipe((SIZE, SIZE), (100.0, 110.0, 120.0), (1 / 64,) * 3, "BGR")
