"""The contents of a pull request's comment, as data that one job can write to a file and another can post.

The job that posts has a token, and the file comes from one that ran a stranger's code: everything in it is checked when it
is read, and escaped when it is shown.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

VERSION = 1
MOST_BYTES = 8_000_000
"""A file of entries is this long at most."""

_MOST_TEXT = 20_000
_MOST_ITEMS = 5_000

Status = Literal["added", "modified", "renamed", "deleted"]
Level = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class PictureEntry:
    """The graph around a finding: boxes as (kind, title, name), edges as (from, to, label), and the box in the middle."""

    boxes: tuple[tuple[str, str, str], ...]
    edges: tuple[tuple[int, int, str], ...]
    center: int


@dataclass(frozen=True)
class FindingEntry:
    """One new finding.

    Attributes:
        code, name, severity, message, help: As the finding has them.
        place: Node or value.
        path, line, text: The line of PyTorch that made it; empty and 0 if it is not known.
        fix: The command that fixes it; empty if there is none.
        replacement: The line of PyTorch to write instead; empty if no rule knows one.
        picture: The graph around it.
    """

    code: str
    name: str
    severity: Level
    message: str
    place: str
    help: str = ""
    path: str = ""
    line: int = 0
    text: str = ""
    fix: str = ""
    replacement: str = ""
    picture: PictureEntry | None = None


@dataclass(frozen=True)
class ModelEntry:
    """One model that the pull request changes.

    Attributes:
        path: In the head; in the base for deleted models.
        status: `added`, `modified`, `renamed` or `deleted`.
        old_path: In the base, where that is another one.
        error: Why it could not be checked; empty if it was.
        fixed, remaining: Numbers of findings.
        nodes, bytes, opset: (base, head); None if there is no such side.
        outputs: What running both said; empty if they were not run.
        rows: (label, text) of the summary.
        sections: (title, lines) about changes of the graph.
        findings: New ones.
    """

    path: str
    status: Status
    old_path: str = ""
    error: str = ""
    fixed: int = 0
    remaining: int = 0
    nodes: tuple[int | None, int | None] = (None, None)
    bytes: tuple[int | None, int | None] = (None, None)
    opset: tuple[int | None, int | None] = (None, None)
    outputs: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    sections: tuple[tuple[str, tuple[str, ...]], ...] = ()
    findings: tuple[FindingEntry, ...] = ()


@dataclass(frozen=True)
class Entries:
    """All models of a pull request.

    Attributes:
        head: Commit that was looked at, 40 or 64 hexadecimal digits.
        models: In the order of their paths.
        lines: Path of a source file → (first, last) line ranges that the pull request changes.
        failing: Whether a new finding is as severe as the job is to fail on.
    """

    head: str
    models: tuple[ModelEntry, ...]
    lines: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()
    failing: bool = False

    @property
    def new(self) -> int:
        """Number of new findings."""
        return sum(len(model.findings) for model in self.models)

    @property
    def errors(self) -> int:
        """Number of models that could not be looked at."""
        return sum(bool(model.error) for model in self.models)


def to_json(entries: Entries) -> str:
    """The entries as a file holds them."""
    return json.dumps({"onnxlint-bot": VERSION, **asdict(entries)}, ensure_ascii=True)


def from_json(data: bytes, name: str) -> Entries:
    """The entries of a file.

    Args:
        data: Its bytes.
        name: The file, for messages.

    Raises:
        OnnxlintError: The file is not one of these, too large, or damaged.
    """
    shown = printable(name)
    if len(data) > MOST_BYTES:
        raise OnnxlintError(f"{shown}: larger than {MOST_BYTES:,} bytes; write it again with onnxlint bot --write")
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.pop("onnxlint-bot", None) != VERSION:
            raise ValueError(f'"onnxlint-bot" is not {VERSION}')
        entries: Entries = _read(Entries, document, "the file")
    except (ValueError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()))[:200]
        raise OnnxlintError(
            f"{shown}: not a file of onnxlint bot: {reason}; write it with onnxlint bot --write"
        ) from None
    if len(entries.head) not in (40, 64) or not all(c in "0123456789abcdef" for c in entries.head):
        raise OnnxlintError(
            f"{shown}: not a file of onnxlint bot: head is not a commit; write it with onnxlint bot --write"
        )
    return entries


def _read(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as the type that a field declares; ValueError if it is another one."""
    if kind is str:
        if not isinstance(value, str) or len(value) > _MOST_TEXT:
            raise ValueError(f"{where} is not a text of at most {_MOST_TEXT:,} characters")
        return value
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(get_args(kind))}")
        return value
    if kind in (int, bool):
        if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or abs(value) > 2**53)):
            raise ValueError(f"{where} is not {'a number' if kind is int else 'true or false'}")
        return value
    if hasattr(kind, "__dataclass_fields__"):
        return _record(kind, value, where)
    arguments: tuple[Any, ...] = getattr(kind, "__args__", ())
    if type(None) in arguments:
        (inner,) = (one for one in arguments if one is not type(None))
        return None if value is None else _read(inner, value, where)
    if not isinstance(value, list) or len(value) > _MOST_ITEMS:
        raise ValueError(f"{where} is not a list of at most {_MOST_ITEMS:,} items")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(arguments[0], item, f"an item of {where}") for item in value)
    if len(value) != len(arguments):
        raise ValueError(f"{where} has {len(value)} items, not {len(arguments)}")
    return tuple(_read(one, item, f"an item of {where}") for one, item in zip(arguments, value, strict=True))


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    unknown = sorted(value.keys() - names)
    if unknown or names - value.keys():
        raise ValueError(f"{where} does not have the fields of a {kind.__name__}")
    return kind(**{name: _read(hints[name], value[name], name) for name in names})
