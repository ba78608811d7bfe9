"""From an ONNX node back to the line of PyTorch that made it.

`torch.onnx.export(dynamo=True)` leaves `pkg.torch.onnx.stack_trace` on nodes; the TorchScript exporter names nodes by
their module scope (`/fpn/Resize`).
"""

from __future__ import annotations

import ast
import os
import re
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from onnxlint.graph.location import SourceLine

if TYPE_CHECKING:
    import onnx

_FRAME = re.compile(r'File "([^"\n]+)", line ([0-9]{1,9})(?![0-9])(?:, in ([^\n]+))?(?:\n[ \t]+([^\n]*))?')
MAX_LIST = 100_000
"""Characters of a list in a node's metadata that are read at most."""

MAX_PATH = 4096
"""Longer paths are not treated as paths of files, and are shown unchanged."""

MAX_FOLDERS = 40
"""Maximum depth of a file that is looked for below the repository."""

_TORCH = re.compile(r"(^|(site|dist)-packages/)torch/")
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"


class Sources:
    """Resolves the places that exporters left in nodes.

    Args:
        root: The repository that source paths are shown relative to; by default the one around the working
            directory.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._root = Path(root).resolve() if root is not None else None
        self._paths: dict[tuple[str, str], str] = {}

    @cached_property
    def root(self) -> Path:
        """The repository's folder, or the working directory outside of repositories."""
        return self._root or repository_of(Path.cwd()) or Path.cwd()

    def lines(self, node: onnx.NodeProto) -> tuple[SourceLine, ...]:
        """The Python frames that made a node, outermost first, those inside torch dropped."""
        classes = _properties(node).get(_CLASSES, "")
        return tuple(
            SourceLine(self._relative(one.path, classes), one.line, one.code, one.function) for one in frames(node)
        )

    def scope(self, node: onnx.NodeProto) -> str:
        """The module that a node belongs to, dotted as in `named_modules()`; empty if the exporter did not say."""
        name = node.name
        if name.startswith("/"):
            # /fpn/output3/output3.2/LeakyRelu: each part repeats its parent's dotted name.
            parts = [part for part in name.split("/")[1:-1] if part]
            return ".".join(_last_names(parts))
        scopes = _properties(node).get(_NAME_SCOPES)
        if not scopes:
            return ""
        names = _string_list(scopes)[:-1]
        return next((name for name in reversed(names) if name and not name.startswith("_empty_nn_module")), "")

    def _relative(self, path: str, classes: str) -> str:
        key = (path, classes)
        known = self._paths.get(key)
        if known is None:
            known = self._paths[key] = self._find(path.replace("\\", "/"), classes)
        return known

    def _find(self, path: str, classes: str) -> str:
        if len(path) > MAX_PATH:
            return path
        root = self.root
        parts = path.split("/")
        if path.startswith("/") and Path(path).is_relative_to(root):
            return str(Path(path).relative_to(root))
        if "site-packages" in parts:
            return "/".join(parts[parts.index("site-packages") + 1 :])
        # Exported on another machine: the file is the one in this repository whose path has the same end.
        for i in range(max(len(parts) - MAX_FOLDERS, 1 if path.startswith("/") else 0), len(parts) - 1):
            tail = "/".join(parts[i:])
            if ".." not in parts[i:] and _is_file(root / tail):
                return tail
        if os.path.isabs(path) and _is_file(Path(path)):
            repository = repository_of(Path(path).parent)
            if repository is not None:
                return str(Path(path).relative_to(repository))
        # models.net.FPN in models/net.py: the package tells where the repository starts.
        for name in _string_list(classes):
            tail = "/".join(name.split(".")[:-1]) + ".py"
            if tail != ".py" and path.endswith("/" + tail):
                return tail
            package = name.split(".")[0]
            if package in parts[:-1] and "." in name:
                return "/".join(parts[parts.index(package) :])
        return path


def frames(node: onnx.NodeProto) -> tuple[SourceLine, ...]:
    """The Python frames that made a node, outermost first, those inside torch dropped; paths as the exporter wrote them."""
    return tuple(
        SourceLine(path, int(line), (code or "").strip(), (function or "").strip())
        for path, line, function, code in _FRAME.findall(_properties(node).get(_STACK_TRACE, ""))
        if not _TORCH.search(path)
    )


def _is_file(path: Path) -> bool:
    """Whether a path that a model names is a file here; it may be too long, or no path at all."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@cache
def repository_of(folder: Path) -> Path | None:
    """The nearest folder upwards that holds a `.git`."""
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists():
            return candidate
    return None


def _properties(node: onnx.NodeProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in node.metadata_props}


def _string_list(text: str) -> list[str]:
    if len(text) > MAX_LIST:
        return []
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _last_names(parts: list[str]) -> list[str]:
    """`["output3", "output3.2"]` → `["output3", "2"]`: what each module adds to its parent's name."""
    return [
        part[len(parent) + 1 :] if parent and part.startswith(parent + ".") else part
        for parent, part in zip(["", *parts], parts, strict=False)
    ]
