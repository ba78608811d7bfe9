"""Files on web servers, read in ranges; a server that refuses ranges is read to its end, once, into a temporary file.

Whatever the server says, no more is read than was asked for, or than a model can have; every wait has an end.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from onnxlint.errors import OnnxlintError
from onnxlint.store.urls import reason, shown
from onnxlint.text import size

if TYPE_CHECKING:
    import httpx

SECONDS = 30.0
"""How long a server may be silent."""

SLOWEST = 50_000
"""Bytes in a second that a server has to send on average."""

_STRONG = re.compile(r'"[^\s"]+"')
"""An ETag that promises equal bytes (RFC 9110, 8.8.3), not empty."""

REDIRECTS = 5
TRIES = 3


class WebFile:
    """A file on a web server.

    Args:
        url: Its address.
        limit: Bytes that it may have.

    Attributes:
        size: In bytes.
        whole: Whether it had to be read to its end.

    Raises:
        OnnxlintError: There is no such file, it is too large, or the server does not answer.
    """

    def __init__(self, url: str, limit: int) -> None:
        self.url = url
        self.limit = limit
        self.whole = False
        self._spool: BinaryIO | None = None
        self._version = ""  # what later answers have to agree with
        self._identities: set[str] = set()  # of all answers whose bytes were read
        self.size = self._ask()

    def __del__(self) -> None:
        spool = getattr(self, "_spool", None)
        if spool is not None:
            spool.close()

    @property
    def identity(self) -> str:
        """What the server calls the content that was read so far; empty if its answers do not name one and the same."""
        return next(iter(self._identities)) if len(self._identities) == 1 else ""

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`."""
        if self._spool is None:
            data = self._range(start, end)
            if data is not None:
                return data
            self._spool = self._download()
            if self._spool.seek(0, 2) != self.size:
                raise OnnxlintError(f"{shown(self.url)}: it changed while it was read; check it again")
        self._spool.seek(start)
        return self._spool.read(end - start)

    def _ask(self) -> int:
        """The size: what a request for the first byte says of the rest."""
        with _stream(self.url, {"Range": "bytes=0-0"}) as response:
            self._version = _version(response)
            if response.status_code == 206:
                size = self._checked(_total(response, self.url))
                self._identities.add(_identity(response, size))
                return size
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and len(length) < 20 and "Content-Encoding" not in response.headers:
                self._checked(int(length))
        self._spool = self._download()
        return self._spool.seek(0, 2)

    def _checked(self, size: int) -> int:
        if size > self.limit:
            raise _too_large(self.url, self.limit)
        return size

    def _range(self, start: int, end: int) -> bytes | None:
        """A range; None if the server sends something else."""
        for left in reversed(range(TRIES)):
            try:
                with _stream(self.url, {"Range": f"bytes={start}-{end - 1}"}) as response:
                    if response.status_code != 206:
                        return None
                    if _total(response, self.url) != self.size or _version(response) != self._version:
                        raise OnnxlintError(f"{shown(self.url)}: it changed while it was read; check it again")
                    if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-{end - 1}/"):
                        raise OnnxlintError(f"{shown(self.url)}: the server sent another range than it was asked for")
                    data = b"".join(_pieces(response, end - start))
                    if len(data) == end - start:
                        self._identities.add(_identity(response, self.size))
                        return data
            except _UnansweredError:
                if not left:
                    raise
        raise OnnxlintError(
            f"{shown(self.url)}: the server ends its answers too early; try again, or download the file"
        )

    def _download(self) -> BinaryIO:
        """All of it, in an unnamed temporary file."""
        self.whole = True
        spool: Any = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this file
        with _stream(self.url, {}) as response:
            for piece in _pieces(response, self.limit):
                spool.write(piece)
            self._identities.add(_identity(response, spool.tell()))
        spool.flush()
        return spool  # type: ignore[no-any-return]


def identify(url: str) -> str:
    """What a server calls the present content of a file, asked by HEAD; empty if it does not say, or does not answer."""
    try:
        with _stream(url, {}, "HEAD") as response:
            length = response.headers.get("Content-Length", "")
            if response.status_code != 200 or not length.isdecimal() or len(length) > 19:
                return ""
            return _identity(response, int(length))
    except OnnxlintError:
        return ""  # reading it says why


class _UnansweredError(OnnxlintError):
    """The server could not be reached, or was silent: asking again may help."""


_CLIENTS: dict[int, httpx.Client] = {}


def _client() -> httpx.Client:
    """One client for a process: connections are kept open between files."""
    import httpx

    client = _CLIENTS.get(os.getpid())
    if client is None:
        # An answer that is compressed could become any number of bytes, and has other places than the file.
        client = _CLIENTS[os.getpid()] = httpx.Client(timeout=SECONDS, headers={"Accept-Encoding": "identity"})
    return client


@contextmanager
def _stream(url: str, headers: dict[str, str], method: str = "GET") -> Iterator[httpx.Response]:
    """The server's answer, its body unread; redirects are followed, but not from https to http."""
    import httpx

    name = shown(url)
    try:
        place = httpx.URL(url)
        for _ in range(REDIRECTS + 1):
            with _client().stream(method, place, headers=headers) as response:
                if not response.has_redirect_location:
                    _check_status(response.status_code, name)
                    yield response
                    return
                following = place.join(response.headers["Location"])
            if following.scheme not in ("https", place.scheme):
                raise OnnxlintError(f"{name}: it redirects from https to {shown(str(following))}, which is refused")
            place = following
        raise OnnxlintError(f"{name}: it redirects more than {REDIRECTS} times")
    except httpx.TransportError as error:
        raise _UnansweredError(f"{name}: the server does not answer: {reason(error)}") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OnnxlintError(f"{name}: cannot be read: {reason(error)}") from None


def _check_status(status: int, name: str) -> None:
    if status in (200, 206):
        return
    if status == 404 or status == 410:
        raise OnnxlintError(f"{name}: no such file on the server; check the address")
    if status in (401, 403):
        raise OnnxlintError(f"{name}: the server denies access ({status}); check the address and your credentials")
    if status == 416:
        raise OnnxlintError(f"{name}: empty file; export or download the model again")
    if status == 429 or status >= 500:
        raise _UnansweredError(f"{name}: the server cannot answer now ({status}); try again later")
    raise OnnxlintError(f"{name}: the server answers with status {status}; check the address")


def _pieces(response: httpx.Response, most: int) -> Iterator[bytes]:
    """The body, which may have so many bytes, in the time that they may take."""
    name = shown(str(response.request.url))
    if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise OnnxlintError(f"{name}: the server compresses what was asked for as it is; download the file")
    end = time.monotonic() + SECONDS + most / SLOWEST
    total = 0
    for piece in response.iter_raw(1 << 16):
        total += len(piece)
        if total > most:
            raise OnnxlintError(f"{name}: the server sends more than {size(most)}, which is all that was asked for")
        if time.monotonic() > end:
            raise OnnxlintError(f"{name}: the server is too slow; download the file")
        yield piece


def _total(response: httpx.Response, url: str) -> int:
    """The size of the file, from `Content-Range: bytes 0-0/1234`."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if not total.isdecimal() or len(total) > 19:
        raise OnnxlintError(f"{shown(url)}: the server does not say how large the file is; download it")
    return int(total)


def _identity(response: httpx.Response, size: int) -> str:
    """What stands for the content of a file; empty without a strong ETag.

    An ETag names a version of one resource, so the place where redirects end is a part of it; size and time are, since
    servers send the same ETag for other files. As a hash: addresses may hold secrets.
    """
    etag = response.headers.get("ETag", "")
    if not _STRONG.fullmatch(etag) or response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        return ""
    told = (etag, size, response.headers.get("Last-Modified", ""), str(response.url))
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()


def _version(response: httpx.Response) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified", ""))


def _too_large(url: str, limit: int) -> OnnxlintError:
    return OnnxlintError(f"{shown(url)}: has more than {size(limit)}; this is not a file that onnxlint reads")
