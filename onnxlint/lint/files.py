"""Which models a command line means: files, folders, globs and standard input, mixed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from onnxlint.errors import OnnxlintError
from onnxlint.lint.finding import FileError
from onnxlint.text import printable

SUFFIXES = (".onnx", ".onnxtxt", ".onnxtext")
"""What counts as a model in a folder. A file that is named itself may be called anything."""

STDIN = "-"

_MAGIC = re.compile(r"[*?\[]")


def find_models(
    paths: Sequence[str], excluded: Callable[[str], bool] | None = None, force_exclude: bool = False
) -> Iterator[str | FileError]:
    """Models that `paths` name, each once, in the order of `paths`; those of a folder or glob sorted.

    Args:
        paths: Files, folders (searched recursively, hidden ones and virtual environments left out), globs that the
            shell did not expand, `-` for standard input.
        excluded: Whether a path found in a folder or by a glob is to be left out.
        force_exclude: Whether `excluded` decides on files that are named themselves too.

    Yields:
        Paths, as the user wrote them or below what the user wrote; a FileError for a folder or glob without models.
        A path that does not exist is yielded too: opening it says what is wrong.
    """
    seen: set[str] = set()
    for path in paths:
        for found in _expand(path, excluded or _nothing, force_exclude):
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


def _in_folder(folder: str, excluded: Callable[[str], bool]) -> Iterator[str | FileError]:
    found: list[str] = []
    left_out, problems = 0, list[OSError]()
    for where, folders, files in os.walk(folder, onerror=problems.append):
        folders[:] = [name for name in folders if not _is_skipped(os.path.join(where, name))]
        for name in files:
            if name.lower().endswith(SUFFIXES):
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
    models = [path for path in files if path.lower().endswith(SUFFIXES)] or files
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
    return f"; models end in {', '.join(SUFFIXES)}"


def _is_skipped(folder: str) -> bool:
    name = os.path.basename(folder)
    return name.startswith(".") or name == "node_modules" or os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _by_part(path: str) -> list[str]:
    # Compared part by part, files of one folder stay together: `a/z.onnx` comes before `a-b/c.onnx`.
    return path.split(os.sep)


def matches_any(patterns: Iterable[str], path: str, root: str) -> bool:
    """Whether a path matches one of the globs of a configuration file.

    Args:
        patterns: As in .gitignore: one with a slash inside is relative to `root`; one without matches a file or folder
            of that name at any depth. `*` and `?` stop at slashes, `**` does not. A match of a folder holds for all
            that is in it.
        path: Relative to the working directory, or absolute.
        root: Folder of the configuration file.
    """
    if path == STDIN:
        return STDIN in patterns
    relative = _relative(path, root)
    return any(_compiled(pattern).fullmatch(relative) for pattern in patterns)


def _relative(path: str, root: str) -> str:
    try:
        relative = os.path.relpath(path, root)
    except ValueError:  # another drive of Windows
        relative = os.path.abspath(path)
    return relative.replace(os.sep, "/")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    stripped = pattern.removeprefix("./").rstrip("/")
    anywhere = "" if "/" in stripped else "(?:.*/)?"
    body, i = [], 1 if stripped.startswith("/") else 0
    while i < len(stripped):
        if stripped.startswith("**/", i):
            body.append("(?:.*/)?")
            i += 3
        elif stripped.startswith("**", i):
            body.append(".*")
            i += 2
        elif stripped[i] == "*":
            body.append("[^/]*")
            i += 1
        elif stripped[i] == "?":
            body.append("[^/]")
            i += 1
        elif stripped[i] == "[" and (end := stripped.find("]", i + 2)) > 0:
            inside = stripped[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            body.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            i = end + 1
        else:
            body.append(re.escape(stripped[i]))
            i += 1
    try:
        return re.compile(f"{anywhere}{''.join(body)}(?:/.*)?", re.DOTALL)
    except re.error:  # a range such as [z-a]: taken literally, as the shell does
        return re.compile(f"{anywhere}{re.escape(stripped)}(?:/.*)?", re.DOTALL)


def write_atomically(path: str, text: str) -> None:
    """Write a text file as UTF-8: whoever reads it meanwhile sees the old content or the new, never a part.

    Raises:
        OnnxlintError: It cannot be written; what was there before is as it was.
    """
    import tempfile

    data = text.encode("utf-8", "backslashreplace")
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe such as /dev/stdout; or a folder
            with open(path, "wb") as device:
                device.write(data)
            return
        target = os.path.realpath(path)  # a link stays a link
        mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OnnxlintError(f"{printable(path)}: cannot be written: {reason}; choose another place") from None


def check_writable(path: str) -> None:
    """Raise OnnxlintError where a file cannot be written, before the work whose result it is to hold is done."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise OnnxlintError(f"{printable(path)}: is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise OnnxlintError(f"{printable(path)}: cannot be written: there is no folder {printable(folder)}; create it")
    is_device = os.path.exists(path) and not os.path.isfile(path)
    needed = [path] if is_device else [folder, path] if os.path.exists(path) else [folder]
    if not all(os.access(each, os.W_OK) for each in needed):
        raise OnnxlintError(f"{printable(path)}: cannot be written: permission denied; choose another place")


def _umask() -> int:
    # Python can read it only by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
