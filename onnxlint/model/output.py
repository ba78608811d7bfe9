"""Write files so that nothing is lost: atomically, and never over an input or over somebody else's weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from onnxlint.errors import OnnxlintError
from onnxlint.model.scratch import prefix, undisturbed
from onnxlint.text import printable


def write_atomically(path: str, content: str | bytes) -> None:
    """Write a file (text as UTF-8): whoever reads it meanwhile sees the old content or the new, never a part.

    A link stays a link, and a file keeps its mode; a pipe or a device is written to directly.

    Raises:
        OnnxlintError: It cannot be written; the earlier file is unchanged.
    """
    with writing(path) as write:
        write(content)


@contextlib.contextmanager
def writing(path: str) -> Iterator[Callable[[str | bytes], None]]:
    """Write a file in pieces, as `write_atomically` does: it is in its place when the context ends without an error.

    Yields:
        A function that takes the next piece (text as UTF-8).

    Raises:
        OnnxlintError: It cannot be written; the earlier file is unchanged.
    """
    import tempfile

    def writer(file: BinaryIO) -> Callable[[str | bytes], None]:
        def write(content: str | bytes) -> None:
            try:
                file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            except OSError as error:
                raise failed(error) from None

        return write

    def failed(error: OSError) -> OnnxlintError:
        reason = error.strerror or str(error)
        return OnnxlintError(f"{printable(path)}: cannot be written: {reason}; choose another place")

    try:
        if is_stream(path) or os.path.isdir(path):
            with open(path, "wb") as device:
                yield writer(device)
            return
        target = os.path.realpath(path)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=prefix())
        try:
            with os.fdopen(handle, "wb") as file:
                yield writer(file)
                file.flush()
            replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise failed(error) from None


def write_together(*files: tuple[str, str | bytes]) -> None:
    """Write files that belong together, as the weights and the graph of a net.

    All are complete before the first takes its place. The last is removed before the others come, and comes last: whoever
    finds it, even after the process was killed, finds those that it belongs to.

    Args:
        files: Path and content (text as UTF-8) of each.

    Raises:
        OnnxlintError: One cannot be written; until all are complete, the earlier files are unchanged.
    """
    import tempfile

    if any(is_stream(path) or os.path.isdir(path) for path, _ in files):
        for path, content in files:
            write_atomically(path, content)
        return
    drafts: list[tuple[str, str]] = []
    shown = printable(files[-1][0])
    try:
        for path, content in files:
            shown, target = printable(path), os.path.realpath(path)
            handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=prefix())
            drafts.append((temporary, target))
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        with undisturbed():
            mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            for temporary, target in drafts:
                replace(temporary, target)
            if mode is not None:
                os.chmod(target, mode)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OnnxlintError(f"{shown}: cannot be written: {reason}; choose another place") from None
    finally:
        for temporary, _ in drafts:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def replace(temporary: str, destination: str) -> None:
    """Move a finished file over its destination, whose mode it gets.

    Raises:
        OSError: That is not possible.
    """
    mode = os.stat(destination).st_mode & 0o777 if os.path.exists(destination) else 0o666 & ~_umask()
    os.chmod(temporary, mode)
    os.replace(temporary, destination)


def is_stream(path: str) -> bool:
    """Whether the path is a pipe or a device, which cannot be replaced by a file."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def check_writable(path: str) -> None:
    """Raise OnnxlintError if a file cannot be written, before the work starts."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise OnnxlintError(f"{printable(path)}: is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise OnnxlintError(f"{printable(path)}: cannot be written: no such folder: {printable(folder)}; create it")
    needed = [path] if is_stream(path) else [folder, path] if os.path.exists(path) else [folder]
    if not all(os.access(each, os.W_OK) for each in needed):
        raise OnnxlintError(f"{printable(path)}: cannot be written: permission denied; choose another place")


MODEL_SUFFIXES = (".onnx", ".onnxtxt", ".onnxtext")
"""Endings of model files."""


def _umask() -> int:
    # Python can read it only by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
