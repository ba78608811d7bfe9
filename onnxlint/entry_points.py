"""Entry points of installed packages: rules and backends.

`importlib.metadata` does the same; importing it takes a tenth of the time of a check, most of it for the e-mail parser of
metadata that nobody reads here. It is used where packages do not lie in folders.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from functools import reduce
from importlib.machinery import PathFinder
from typing import Any, NamedTuple


class EntryPoint(NamedTuple):
    """One line of an `entry_points.txt`: see the specification of entry points of the Python Packaging Authority.

    Attributes:
        name: What stands before `=`.
        value: `module` or `module:object`, perhaps with extras after it.
    """

    name: str
    value: str

    def load(self) -> Any:
        """Import the object."""
        module, _, attribute = self.value.partition("[")[0].strip().partition(":")
        found: Any = importlib.import_module(module.strip())
        return reduce(getattr, filter(None, attribute.strip().split(".")), found)


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group; of two installations of one package, those of the first on `sys.path`."""
    found: dict[str, list[EntryPoint]] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except NotADirectoryError:
            return _elsewhere(group)  # an archive
        except OSError:
            continue
        for name in names:
            if name.endswith(".egg"):
                return _elsewhere(group)
            if name.endswith((".dist-info", ".egg-info")):
                package = re.sub(r"[-_.]+", "_", name.rpartition(".")[0].partition("-")[0]).lower()
                if package not in found:
                    found[package] = _read(os.path.join(folder or ".", name, "entry_points.txt"), group)
    others = [finder for finder in sys.meta_path if hasattr(finder, "find_distributions") and finder is not PathFinder]
    return _elsewhere(group) if others else [point for points in found.values() for point in points]


def _read(path: str, group: str) -> list[EntryPoint]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return []  # a package without entry points
    points = []
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == group and "=" in line and line[0] not in "#;":
            name, _, value = line.partition("=")
            points.append(EntryPoint(name.strip(), value.strip()))
    return points


def _elsewhere(group: str) -> list[EntryPoint]:
    from importlib import metadata

    return [EntryPoint(point.name, point.value) for point in metadata.entry_points(group=group)]
