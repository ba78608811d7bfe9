"""Results of benchmarks that take long: kept row by row in a file, so that what was interrupted goes on where it was, and
written into a page between two marks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Results:
    """Rows by name in a JSON file; without a file, in memory alone."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self.rows: dict[str, dict[str, Any]] = {}
        if self._path is not None and self._path.exists():
            self.rows = json.loads(self._path.read_text(encoding="utf-8"))

    def get(self, name: str, measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """The row, which is measured and saved where it is not there. To measure it again, take it out of the file."""
        if name not in self.rows:
            self.rows[name] = measure(*arguments)
            if self._path is not None:
                new = self._path.with_suffix(".new")
                new.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")
                os.replace(new, self._path)
        return self.rows[name]


def write_into(page: Path, text: str) -> None:
    """Replace what a page has between its marks.

    Raises:
        ValueError: It has no marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
