"""Built-in rules use only what docs/writing-rules.md offers to everybody."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxlint
from onnxlint import rulekit

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "rules").rglob("*.py"))
GUIDE = (ROOT / "docs/writing-rules.md").read_text(encoding="utf-8")


def tables() -> dict[str, set[str]]:
    """Module → names that the guide's section on imports lists."""
    section = GUIDE.split("## What rules may import\n")[1].split("\n## ")[0]
    parts = re.split(r"^From `(onnxlint[.\w]*)`", section, flags=re.MULTILINE)
    return {
        module: {name for row in re.findall(r"^\| (.+?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
        for module, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of everything imported from onnxlint, wherever the import stands; name is `*` for whole modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, "*") for a in node.names if a.name.split(".")[0] == "onnxlint")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "onnxlint":
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_there_are_rules_to_look_at() -> None:
    assert len(FILES) > 60
    assert sum(1 for file in FILES for _ in imports(ast.parse(file.read_text(encoding="utf-8")))) > 300


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_rule_imports_only_what_the_guide_lists(file: Path) -> None:
    offered = tables()
    wrong = [
        f"{module}: {name}"
        for module, name in imports(ast.parse(file.read_text(encoding="utf-8")))
        if name not in offered.get(module, ())
    ]
    assert not wrong, "list it in docs/writing-rules.md and onnxlint/rulekit.py, or do without"


def test_the_guide_lists_what_exists() -> None:
    offered = tables()
    assert sorted(offered["onnxlint.rulekit"]) == sorted(rulekit.__all__)
    assert sorted(rulekit.__all__) == sorted(rulekit._PLACES)
    assert offered["onnxlint"] <= set(onnxlint.__all__)
    for name in rulekit.__all__:
        assert getattr(rulekit, name) is not None
    for name in offered["onnxlint"]:
        assert getattr(onnxlint, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rulekit.nothing


def test_no_name_is_imported_and_never_offered_by_a_rule() -> None:
    """The public surface is as small as the built-in rules allow."""
    used = {pair for file in FILES for pair in imports(ast.parse(file.read_text(encoding="utf-8")))}
    assert not {name for name in rulekit.__all__ if ("onnxlint.rulekit", name) not in used}
