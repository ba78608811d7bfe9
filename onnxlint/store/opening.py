"""Find and open remote files, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint.errors import OnnxlintError
from onnxlint.store import objects
from onnxlint.store.objects import StoredFile, is_glob, listed
from onnxlint.store.ranges import RemoteBytes
from onnxlint.store.urls import WEB, scheme, shown
from onnxlint.text import size


class RemoteFile:
    """A remote file, opened.

    Args:
        url: Its address.
        limit: Bytes that it may have.

    Attributes:
        data: Its bytes, fetched as they are asked for.

    Raises:
        OnnxlintError: It cannot be opened.
    """

    def __init__(self, url: str, limit: int) -> None:
        self._url = url
        if scheme(url) in WEB:
            from onnxlint.store.web import WebFile

            self._file: WebFile | StoredFile = WebFile(url, limit)
        else:
            self._file = StoredFile(url, limit)
        self.data = RemoteBytes(self._file)

    @property
    def note(self) -> str:
        """What reading it cost beyond what it should; empty if nothing."""
        if not self._file.whole:
            return ""
        whole = size(self._file.size)
        return f"{shown(self._url)}: the server refuses ranges; all of it, {whole}, was downloaded, weights included"


def identify(url: str) -> str:
    """What stands for the present content of a remote file; empty if nothing does.

    One request, which reads none of its bytes.

    Args:
        url: Its address.
    """
    if scheme(url) in WEB:
        from onnxlint.store import web

        return web.identify(url)
    return objects.identify(url)


def find_remote(url: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """(address, identity) of the models that an address names, sorted; the identity is None where `identify` tells it.

    Args:
        url: A file, a folder or a glob; of a web server, which does not list its files, a file only.
        suffixes: Endings of models, which count in folders.

    Raises:
        OnnxlintError: It cannot be listed.
    """
    if scheme(url) not in WEB:
        yield from listed(url, suffixes)
    elif is_glob(url.partition("?")[0]) or url.endswith("/"):
        raise OnnxlintError(f"{shown(url)}: a web server does not list its files; name each model by its address")
    else:
        yield url, None
