"""Which models a command line means: files, folders, globs and standard input, mixed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence

from onnxlint.errors import OnnxlintError
from onnxlint.lint.finding import FileError
from onnxlint.model.output import MODEL_SUFFIXES, is_stream
from onnxlint.model.skeleton import STDIN as STDIN
from onnxlint.store.urls import is_remote, shown, without_secrets
from onnxlint.text import printable

_MAGIC = re.compile(r"[*?\[]")


def find_models(
    paths: Sequence[str],
    excluded: Callable[[str], bool] | None = None,
    force_exclude: bool = False,
    note: Callable[[str], None] | None = None,
    identities: dict[str, str] | None = None,
) -> Iterator[str | FileError]:
    """Models that `paths` name, each once, in the order of `paths`; those of a folder or glob sorted.

    Args:
        paths: Files, folders (searched recursively, hidden ones and virtual environments left out), globs that the
            shell did not expand, addresses of remote files, folders and globs (`s3://…`), `-` for standard input.
        excluded: Whether a path found in a folder or by a glob is to be left out.
        force_exclude: Whether `excluded` decides on files that are named themselves too.
        note: Called with one line about each pipe or device that was found in a folder or by a glob, and skipped.
        identities: Gets what listings of stores call the content of remote files, by path; empty where they do not say.

    Yields:
        Paths, as the user wrote them or below what the user wrote; a FileError for a folder or glob without models.
        A path that does not exist is yielded too: opening it gives the error.
    """
    seen: set[str] = set()
    for path in paths:
        if is_remote(path) and not os.path.lexists(path):
            for found in _in_store(path, excluded or _nothing, force_exclude, {} if identities is None else identities):
                if isinstance(found, FileError) or found not in seen:
                    yield found
                    seen.add(found if isinstance(found, str) else "")
            continue
        for found in _expand(path, excluded or _nothing, force_exclude):
            if isinstance(found, str) and found != path and found != STDIN and is_stream(found):
                if note is not None:
                    note(f"{printable(found)}: skipped: it is a pipe or a device, not a file")
                continue
            if isinstance(found, FileError):
                yield found
                continue
            key = found if found == STDIN else os.path.abspath(found)
            if key not in seen:
                seen.add(key)
                yield found


def _nothing(path: str) -> bool:
    return False


def _expand(path: str, excluded: Callable[[str], bool], force_exclude: bool) -> Iterator[str | FileError]:
    if path == STDIN:
        yield path
    elif os.path.isdir(path):
        yield from _in_folder(path, excluded)
    elif _MAGIC.search(path) and not os.path.lexists(path):
        yield from _by_glob(path, excluded)
    elif not (force_exclude and excluded(path)):
        yield path


def _in_store(
    url: str, excluded: Callable[[str], bool], force_exclude: bool, identities: dict[str, str]
) -> Iterator[str | FileError]:
    from onnxlint.store.opening import find_remote

    left_out = 0
    any_found = False
    try:
        for found, identity in find_remote(url, MODEL_SUFFIXES):
            if (found != url or force_exclude) and excluded(found):
                left_out += 1
                continue
            if identity is not None:
                identities[found] = identity
            any_found = True
            yield found
    except OnnxlintError as error:
        yield FileError(without_secrets(url), str(error))
        return
    if not any_found and (left_out == 0 or not force_exclude):
        yield FileError(without_secrets(url), f"{shown(url)}: no models here{_why_none(left_out)}")


def _in_folder(folder: str, excluded: Callable[[str], bool]) -> Iterator[str | FileError]:
    found: list[str] = []
    left_out, problems = 0, list[OSError]()
    for where, folders, files in os.walk(folder, onerror=problems.append):
        folders[:] = [name for name in folders if not _is_skipped(os.path.join(where, name))]
        for name in files:
            if name.lower().endswith(MODEL_SUFFIXES):
                path = os.path.normpath(os.path.join(where, name))
                if excluded(path):
                    left_out += 1
                else:
                    found.append(path)
    for problem in problems:
        reason = problem.strerror or type(problem).__name__
        unread = problem.filename or folder
        yield FileError(unread, f"{printable(unread)}: cannot be read: {reason}; check its permissions")
    if not found and not problems:
        yield FileError(folder, f"{printable(folder)}: no models in this folder{_why_none(left_out)}")
    yield from sorted(found, key=_by_part)


def _by_glob(pattern: str, excluded: Callable[[str], bool]) -> Iterator[str | FileError]:
    import glob

    matches = sorted(glob.glob(pattern, recursive=True), key=_by_part)
    if not matches:
        yield FileError(pattern, f"{printable(pattern)}: no file matches; check the pattern")
        return
    # `models/**` matches folders, what is in them, and READMEs too: a folder speaks only where it is all there is.
    files = [path for path in matches if not os.path.isdir(path)]
    models = [path for path in files if path.lower().endswith(MODEL_SUFFIXES)] or files
    kept = [path for path in models if not excluded(path)]
    if not files:
        for folder in matches:
            yield from _in_folder(folder, excluded)
    elif not kept:
        yield FileError(pattern, f"{printable(pattern)}: no models match{_why_none(len(models))}")
    yield from kept


def _why_none(left_out: int) -> str:
    if left_out:
        return f": the configuration excludes all {left_out} of them" if left_out > 1 else ": the one there is excluded"
    return f"; models end in {', '.join(MODEL_SUFFIXES)}"


def _is_skipped(folder: str) -> bool:
    name = os.path.basename(folder)
    return name.startswith(".") or name == "node_modules" or os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _by_part(path: str) -> list[str]:
    # Compared part by part, files of one folder stay together: `a/z.onnx` comes before `a-b/c.onnx`.
    return path.split(os.sep)
