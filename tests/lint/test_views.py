"""Where views are made."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_rooms_above_make_their_views_here() -> None:
    """A view that was made otherwise would lose ranks and sizes without a word."""
    makers = [
        path.relative_to(ROOT)
        for folder in ("onnxlint", "rules")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "GraphView"
    ]
    # use onnxlint.symbolic.view.make_view
    assert makers == [Path("onnxlint/symbolic/view.py")]
