"""Results that are lists of things: length, iteration, rows for pandas, plain data, and a table in notebooks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from onnxlint.text import printable

MAX_ROWS = 100
"""Rows that a notebook shows."""


class Tabular:
    """What the results of onnxlint's functions have in common.

    A subclass is a dataclass made with `repr=False`, and implements `entries`, `rows` and `headline`. A result is true
    whatever its length: ask `len(result)` or, for findings, `result.findings`.
    """

    def entries(self) -> Sequence[Any]:
        """What `len` counts and iteration gives."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """A flat dictionary for each entry, all with the same keys: `pandas.DataFrame(result.rows())`."""
        raise NotImplementedError

    def headline(self) -> str:
        """The result in a few words: `9 findings`."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The whole result as dictionaries, lists, text and numbers. Pictures (bytes) are left out."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def __len__(self) -> int:
        return len(self.entries())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries())

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {printable(self.headline())}>"

    def _repr_html_(self) -> str:
        """A table for notebooks; every value is escaped."""
        from html import escape

        rows = self.rows()
        keys = [key for key in (rows[0] if rows else {}) if any(row[key] not in (None, "") for row in rows)]
        head = "".join(f"<th>{escape(key)}</th>" for key in keys)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(_cell(row[key]))}</td>' for key in keys)}</tr>" for row in rows[:MAX_ROWS]
        )
        more = f"<p>and {len(rows) - MAX_ROWS:,} more</p>" if len(rows) > MAX_ROWS else ""
        caption = escape(printable(self.headline()))
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: _plain(one) for name, one in pairs if not isinstance(one, bytes)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return value
