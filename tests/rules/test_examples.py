"""Every built-in rule's own examples."""

from __future__ import annotations

import pytest

from onnxlint.fixes.rule_tests import Case, cases
from onnxlint.lint.registry import load_registry


@pytest.mark.parametrize("case", [case for rule in load_registry() for case in cases(rule)], ids=lambda case: case.name)
def test_examples(case: Case) -> None:
    case.run()
