"""Results that are known already, by content, rules and configuration.

A result is taken from the cache only if nothing that it depends on has changed: the model's bytes (by their hash, by the
name that their store or server has for them, or, for large files, by what the file system says of them), the code of
onnxlint and of the rules, the versions of onnx and Python, and the plan. Models with external data are checked each time,
since their results depend on other files, too; so are those that could not be checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxlint.errors import OnnxlintError
from onnxlint.graph.location import Location, SourceLine
from onnxlint.lint.engine import Plan
from onnxlint.lint.finding import Applicability, CheckResult, Finding, Fix, Severity
from onnxlint.store.urls import is_remote, without_secrets
from onnxlint.text import printable
from onnxlint.version import __version__

NAME = "onnxlint-check.sqlite"
"""The cache's file in its folder."""

HASHED = 16 << 20
"""Files up to so many bytes are known by their hash; hashing larger ones costs more than checking them."""

JUST_WRITTEN = 100_000_000
"""Nanoseconds within which a file can change without its times telling."""

COMMIT_SECONDS = 2.0
"""How much work an interruption can cost."""

MOST_RESULTS = 2_000_000
"""Results that are kept: the newest."""

_TABLES = """
CREATE TABLE IF NOT EXISTS results (id INTEGER PRIMARY KEY, key BLOB UNIQUE, result TEXT);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, status TEXT, digest TEXT);
"""


@dataclass(frozen=True)
class Known:
    """A model as the cache sees it.

    Attributes:
        path: As the user named it.
        status: What the file system says of it; empty for a remote model.
        content: What stands for its bytes.
        identity: Of a remote model, what its store or server calls its content; empty for a local one.
        key: What its result is kept under.
    """

    path: str
    status: str
    content: str
    identity: str
    key: bytes


class ResultCache:
    """Results of earlier runs, in a folder that several runs may share.

    Args:
        folder: Made if it does not exist.
        root: The folder that source lines are relative to (`Sources.root`), which results depend on.

    Raises:
        OnnxlintError: The folder cannot be used.
    """

    def __init__(self, folder: str, root: Path) -> None:
        self._root = str(root)
        self._plans: dict[int, tuple[Plan, bytes]] = {}
        self._committed = time.monotonic()
        self._shown = printable(os.path.join(folder, NAME))
        self.hits = 0
        with self._explained():
            os.makedirs(folder, exist_ok=True)
            self._base = sqlite3.connect(os.path.join(folder, NAME), timeout=30)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.executescript(_TABLES)

    def find(self, path: str, plan: Plan, identity: str | None = None) -> Known | None:
        """A model as the cache sees it; None if nothing tells its content.

        Args:
            path: The model.
            plan: What is to be checked.
            identity: Of a remote model, what a listing calls its content; without one, its store or server is asked.
        """
        status = ""
        if is_remote(path) and not os.path.lexists(path):
            identity = _identify(path) if identity is None else identity
            content = f"{path} {identity}" if identity else ""
        else:
            identity = ""
            status = _status(path)
            with self._explained():
                content = self._content(path, status) if status else ""
        if not content:
            return None
        digest = hashlib.sha256(self._plan(plan))
        digest.update(content.encode("utf-8", "surrogateescape"))
        return Known(path, status, content, identity, digest.digest())

    def get(self, known: Known) -> CheckResult | None:
        """The result of a model, where it is known."""
        with self._explained():
            row = self._base.execute("SELECT result FROM results WHERE key = ?", (known.key,)).fetchone()
        result = _read(row[0], without_secrets(known.path)) if row is not None else None
        self.hits += result is not None
        return result

    def put(self, known: Known, result: CheckResult) -> None:
        """Keep a result, if it is one of the model that was found."""
        if not result.cacheable or result.error is not None or result.content != known.identity:
            return
        if known.status and _status(known.path) != known.status:
            return
        with self._explained():
            row = (known.key, _written(result))
            self._base.execute("INSERT OR REPLACE INTO results (key, result) VALUES (?, ?)", row)
            if known.status:
                entry = (_place(known.path), known.status, known.content)
                self._base.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", entry)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self._base.commit()
                self._committed = time.monotonic()

    def close(self) -> None:
        """Write what is not written yet, and leave out the oldest results where there are too many."""
        with self._explained():
            newest = self._base.execute("SELECT max(id) FROM results").fetchone()[0] or 0
            self._base.execute("DELETE FROM results WHERE id <= ?", (newest - MOST_RESULTS,))
            self._base.commit()
            self._base.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OnnxlintError(
                f"{self._shown}: the cache cannot be used: {printable(str(error))}; delete it, or pass --no-cache"
            ) from None

    def _content(self, path: str, status: str) -> str:
        """What stands for the bytes of a local file; empty if nothing does."""
        query = "SELECT digest FROM files WHERE path = ? AND status = ?"
        row = self._base.execute(query, (_place(path), status)).fetchone()
        if row is not None:
            return str(row[0])
        if int(status.split()[0]) > HASHED:
            return f"status {os.path.abspath(path)} {status}"
        try:
            with open(path, "rb") as file:
                return f"sha256 {hashlib.sha256(file.read(HASHED + 1)).hexdigest()}"
        except OSError:
            return ""  # checking it says why

    def _plan(self, plan: Plan) -> bytes:
        known = self._plans.get(id(plan))
        if known is None:
            # Repr of frozen dataclasses and enums: the same for the same values.
            told = (
                _code(plan),
                [rule.code for rule in plan.rules],
                plan.options,
                plan.severities,
                plan.ignorable,
                self._root,
            )
            known = self._plans[id(plan)] = plan, hashlib.sha256(repr(told).encode()).digest()
        return known[1]


def _identify(url: str) -> str:
    from onnxlint.store.opening import identify

    return identify(url)


def _place(path: str) -> bytes:
    """A file's absolute path, as the system has it: SQLite takes no text that is not UTF-8."""
    return os.fsencode(os.path.abspath(path))


def _status(path: str) -> str:
    """Size, times and place of a file; empty if it is no file, or may still be being written."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    import stat

    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    if not stat.S_ISREG(status.st_mode) or time.time_ns() - newest < JUST_WRITTEN:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"


def _code(plan: Plan) -> str:
    """A hash of the code that makes the results: onnxlint's, and that of the packages and files of the rules."""
    from importlib.metadata import version

    tops = {rule.__module__.partition(".")[0] for rule in plan.rules} | {"onnxlint"}
    places = {Path(file).resolve().parent for top in tops if (file := getattr(sys.modules.get(top), "__file__", None))}
    files = sorted(file for place in places for file in place.rglob("*.py"))
    for one in map(Path, plan.rule_paths):
        files += sorted(one.rglob("*.py")) if one.is_dir() else [one]
    digest = hashlib.sha256(f"{__version__} {version('onnx')} {sys.version}".encode())
    for file in files:
        try:
            digest.update(f"\0{file}\0".encode("utf-8", "surrogateescape") + file.read_bytes())
        except OSError:
            digest.update(os.urandom(16))  # not to be read: nothing is known about it
    return digest.hexdigest()


# Results as text: lists, in the order of the fields


def _written(result: CheckResult) -> str:
    return json.dumps(
        [result.suppressed, result.suppressed_codes, [_finding_row(finding) for finding in result.findings]],
        separators=(",", ":"),
    )


def _finding_row(one: Finding) -> list[Any]:
    place, fix = one.location, one.fix
    return [
        one.code,
        one.name,
        one.severity.value,
        one.message,
        [place.graph, place.node, place.op_type, place.index, place.value, place.scope, place.near],
        [[line.path, line.line, line.code, line.function] for line in place.source],
        one.help,
        one.evidence,
        None if fix is None else [fix.applicability.value, fix.condition, fix.flag, fix.shortens, fix.but],
        one.actionable,
        one.group,
        one.covers,
        one.fingerprint,
    ]


def _read(text: str, model: str) -> CheckResult | None:
    """The result in a text; None if it is damaged."""
    try:
        suppressed, codes, rows = json.loads(text)
        return CheckResult(model, tuple(_finding(row, model) for row in rows), None, suppressed, tuple(codes))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _finding(row: list[Any], model: str) -> Finding:
    code, name, severity, message, place, source, help_, evidence, fix, actionable, group, covers, fingerprint = row
    graph, node, op_type, index, value, scope, near = place
    location = Location(
        model=model,
        graph=graph,
        node=node,
        op_type=op_type,
        index=index,
        value=value,
        scope=scope,
        source=tuple(SourceLine(*line) for line in source),
        near=near,
    )
    return Finding(
        code,
        name,
        Severity(severity),
        message,
        location,
        help_,
        tuple((key, fact) for key, fact in evidence),
        None if fix is None else Fix(Applicability(fix[0]), *fix[1:]),
        actionable,
        group,
        tuple((path, at) for path, at in covers),
        fingerprint,
    )
