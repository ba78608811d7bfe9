"""The comparison as one JSON document; docs/schema/diff.json describes it."""

from __future__ import annotations

from onnxlint.difference.result import ModelDiff
from onnxlint.report._common import dumps


def render(diff: ModelDiff) -> str:
    """The comparison as JSON, without pictures."""
    return dumps(diff.to_dict())
