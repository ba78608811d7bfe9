"""The structure of the code: rooms, circles and sizes. `lint-imports` holds the layers; docs/architecture.md shows them."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FUNCTION = 70
LONGEST_MODULE = 600

sys.path.insert(0, str(ROOT))


def sources() -> Iterator[Path]:
    for folder in ("onnxlint", "rules", "fixtures"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    yield ROOT / "dev.py"


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert len(lengths) > 200
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_no_function_is_too_long() -> None:
    long: dict[str, int] = {}
    count = 0
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count += 1
                lines = _lines(node)
                if lines > LONGEST_FUNCTION:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert count > 1500
    assert long == {}


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which may be as long as it needs to be."""
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_what_is_public_has_a_docstring() -> None:
    """All but the methods of rules that `Rule` describes: their class says what they do."""
    described = {"check", "patch", "rewrite"}
    without: list[str] = []
    count = 0
    for path in sources():
        if path.parts[-2] == "fixtures" or path.name == "dev.py":
            continue
        for node in _public(ast.parse(path.read_text(encoding="utf-8"))):
            count += 1
            if ast.get_docstring(node) is None and not ("onnxlint_rules" in path.parts and node.name in described):
                without.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert count > 1000
    assert without == []


def _public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def test_no_circle_of_imports() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("onnxlint", "onnxlint_rules", cache_dir=None)
    modules = sorted(graph.modules)
    assert len(modules) > 200
    imports = {module: graph.find_modules_directly_imported_by(module) for module in modules}
    # The package's own `__init__` names what is public, for type checkers; no module of it imports it.
    importers = graph.find_modules_that_directly_import("onnxlint")
    assert [module for module in importers if module.startswith("onnxlint.")] == []
    assert _circles(imports) == []


def _circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan's algorithm, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root in imports:
        if root in index:
            continue
        work = [(root, iter(sorted(imports[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            module, successors = work[-1]
            following = next((name for name in successors if name in imports), None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == index[module]:
                    component = stack[stack.index(module) :]
                    del stack[stack.index(module) :]
                    if len(component) > 1:
                        found.append(sorted(component))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(sorted(imports[following]))))
            elif following in stack:
                low[module] = min(low[module], index[following])
    return found


def test_circles_are_found() -> None:
    imports = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set[str](), "f": {"f"}}
    assert _circles(imports) == [["a", "b", "c"]]


def test_the_page_shows_the_layers_that_are_held() -> None:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    settings = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `onnxlint/([\w/, .]+)` \|", page, re.MULTILINE)
    shown = [row.replace(".py", "").split(", ") for row in rows]
    held = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    assert shown == held
    packages = {path.name for path in (ROOT / "onnxlint").iterdir() if (path / "__init__.py").exists()}
    assert packages <= {name for layer in held for name in layer}
