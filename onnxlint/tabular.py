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
        """A table for notebooks, in their light and dark themes; every value is escaped."""
        rows = self.rows()
        keys = [key for key in (rows[0] if rows else {}) if any(row[key] not in (None, "") for row in rows)]
        caption = printable(self.headline())
        models = {str(row["model"]) for row in rows} if "model" in keys else set()
        if len(models) == 1 and len(keys) > 1:  # said once, above
            keys.remove("model")
            caption += f" · {printable(models.pop())}"
        return html_table(caption, keys, rows)


def html_table(caption: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for notebooks with a caption, columns and at most `MAX_ROWS` rows; every value is escaped."""
    from html import escape

    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in keys)
    body = "".join(f"<tr>{''.join(_data(key, row.get(key)) for key in keys)}</tr>" for row in rows[:MAX_ROWS])
    more = f"<p>and {len(rows) - MAX_ROWS:,} more</p>" if len(rows) > MAX_ROWS else ""
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>" if rows else ""
    return f'{_STYLE}<table class="onnxlint"><caption>{escape(caption)}</caption>{table}</table>{more}'


_STYLE = """<style>
table.onnxlint {border-collapse: collapse; max-width: 100%}
table.onnxlint caption {caption-side: top; text-align: left; font-weight: bold; padding: .3em 0}
table.onnxlint th, table.onnxlint td {text-align: left; vertical-align: top; padding: .3em .6em; white-space: normal;
  overflow-wrap: anywhere; min-width: 4em; max-width: 32em; border-bottom: 1px solid rgba(128, 128, 128, .3)}
table.onnxlint td.number {text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap}
table.onnxlint td.code {font-family: monospace}
table.onnxlint td.error {color: #d33; font-weight: bold}
table.onnxlint td.warning {color: #b70; font-weight: bold}
</style>"""

_IN_CODE = frozenset(("code", "place", "source", "output", "file"))
"""Columns that hold names from a model or a program."""


def _data(key: str, value: Any) -> str:
    """One cell."""
    from html import escape

    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = "number" if is_number else "code" if key in _IN_CODE else value if value in ("error", "warning") else ""
    return f'<td class="{kind}">{escape(_cell(value))}</td>' if kind else f"<td>{escape(_cell(value))}</td>"


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
