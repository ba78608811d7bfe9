"""Files of every file system that fsspec knows (`s3://`, `gs://`, `hf://`, …): listed, and read in ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from onnxlint.errors import OnnxlintError
from onnxlint.store.urls import reason, scheme, shown
from onnxlint.telemetry import turn_off_telemetry
from onnxlint.text import size as shown_size

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SECONDS = 120.0
"""How long a request may take, the client library's own retries included."""

LISTING_SECONDS = 3600.0
"""How long a listing may take: a million objects are a thousand requests."""

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "abfs": "adlfs",
    "az": "adlfs",
}
_SETTINGS: dict[str, dict[str, Any]] = {
    name: {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 4}}}
    for name in ("s3", "s3a")
}
_IDENTITY = ("ETag", "etag", "md5Hash", "generation", "blob_id", "sha256", "content_md5")
"""Names that file systems have for what changes with the content of a file."""

_MODIFIED = ("LastModified", "last_modified", "updated")
"""Names that file systems have for the time of the last change."""

_Answer = TypeVar("_Answer")


class StoredFile:
    """A file in a store.

    Args:
        url: Its address.
        limit: Bytes that it may have.

    Attributes:
        size: In bytes.
        whole: Whether all of it had to be read; stores give ranges.

    Raises:
        OnnxlintError: There is no such file, it is too large, or the store does not answer.
    """

    whole = False

    def __init__(self, url: str, limit: int) -> None:
        self.url = url
        system, path = file_system(url)
        # The details that opening asks for hold for all reads: S3 refuses to read on from another version.
        self._file = timed(lambda: system.open(path, "rb", cache_type="none"), url)
        details = getattr(self._file, "details", None) or timed(lambda: system.info(path), url)
        length = details.get("size")
        if not isinstance(length, int):
            raise OnnxlintError(f"{shown(url)}: the store does not say how large the file is; download it")
        if length > limit:
            raise OnnxlintError(
                f"{shown(url)}: has more than {shown_size(limit)}; this is not a file that onnxlint reads"
            )
        self.size = length
        self._identity = identity_of(details, url)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()

    @property
    def identity(self) -> str:
        """What the store calls the content that was read so far; empty if it does not say, or if it changed meanwhile.

        S3 is told with each request which version is meant. Other stores are asked again.
        """
        if self._identity and "IfMatch" not in getattr(self._file, "read_kw", {}):
            return self._identity if identify(self.url) == self._identity else ""
        return self._identity

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`."""

        def read() -> bytes:
            self._file.seek(start)
            return bytes(self._file.read(end - start))

        data = timed(read, self.url)
        if len(data) != end - start:
            raise OnnxlintError(f"{shown(self.url)}: it changed while it was read; check it again")
        return data


def identity_of(details: Mapping[str, Any], url: str) -> str:
    """What a store calls the content of a file, with its size and time; empty if it does not say.

    Args:
        details: What the file system says of the file.
        url: The address that was asked for. Of a chained one (`filecache::s3://…`), the details may be of another
            version than the bytes.
    """
    name = next((str(details[key]) for key in _IDENTITY if details.get(key)), "")
    if not name or name.startswith("W/") or "::" in url:
        return ""
    modified = next((details[key] for key in _MODIFIED if details.get(key)), "")
    if isinstance(modified, datetime):
        modified = int(modified.timestamp())  # listings may have fractions of a second that other answers lack
    return f"{name} {details.get('size')} {modified}"


def identify(url: str) -> str:
    """What a store calls the present content of a file; empty if it does not say, or does not answer."""
    if "::" in url:
        return ""

    def ask() -> Mapping[str, Any]:
        system.invalidate_cache(path)
        return system.info(path)  # type: ignore[no-any-return]

    try:
        system, path = file_system(url)
        return identity_of(timed(ask, url), url)
    except OnnxlintError:
        return ""  # reading it says why


def listed(url: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """(address, identity) of the models that a folder or a glob of a store names, sorted.

    The identity is what the store calls the content of the model, empty if it does not say; None for the address of a
    file, which was not asked for.

    Args:
        url: A glob, or the address of a folder or a file.
        suffixes: Endings of models, which count in folders.

    Raises:
        OnnxlintError: The store does not answer, or denies access.
    """
    system, path = file_system(url)
    timed(system.invalidate_cache, url)  # of earlier runs of this process
    if is_glob(url):
        found = timed(lambda: system.glob(path, detail=True), url, LISTING_SECONDS)
        wanted = {name: one for name, one in found.items() if one.get("type", "file") == "file"}
        models = {name: one for name, one in wanted.items() if name.lower().endswith(suffixes)} or wanted
    elif not path.endswith("/") and path.lower().endswith(suffixes):
        yield url, None
        return
    else:
        found = timed(lambda: system.find(path, detail=True), url, LISTING_SECONDS)
        models = {name: one for name, one in found.items() if name.lower().endswith(suffixes)}
        if not models and set(found) == {path.rstrip("/")}:
            yield url, None
            return
    for name in sorted(models):
        yield system.unstrip_protocol(name), identity_of(models[name], url)


def is_glob(url: str) -> bool:
    """Whether an address has wildcards."""
    return any(letter in url for letter in "*?[")


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        OnnxlintError: A package is missing, or nothing is known about such addresses.
    """
    kind = scheme(url)
    turn_off_telemetry()
    try:
        import fsspec
    except ImportError:
        raise _missing(url, "fsspec") from None
    try:
        return timed(lambda: fsspec.url_to_fs(url, **_SETTINGS.get(kind, {})), url)  # type: ignore[no-any-return]
    except ImportError:
        raise _missing(url, _PACKAGES.get(kind, "")) from None


def _missing(url: str, package: str) -> OnnxlintError:
    kind = scheme(url)
    named = f"the package {package}" if package else f"fsspec's package for {kind}://"
    return OnnxlintError(f"{shown(url)}: reading it takes {named}: pip install 'onnxlint[remote]'")


def timed(call: Callable[[], _Answer], url: str, seconds: float = SECONDS) -> _Answer:
    """The result of a call to a client library, which may not take for ever.

    Raises:
        OnnxlintError: It failed, or took too long.
        ImportError: A package is missing.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)  # not waited for at the end of the process
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    name = shown(url)
    if not errors:
        raise OnnxlintError(f"{name}: the store does not answer within {seconds:.0f} s; try again later")
    error = errors[0]
    if isinstance(error, OnnxlintError | ImportError | MemoryError):
        raise error
    if isinstance(error, FileNotFoundError):
        raise OnnxlintError(f"{name}: no such file in the store; check the address") from None
    if isinstance(error, PermissionError) or "NoCredentials" in type(error).__name__:
        raise OnnxlintError(f"{name}: the store denies access ({reason(error)}); check your credentials") from None
    if isinstance(error, IsADirectoryError):
        raise OnnxlintError(f"{name}: is a folder; end its address with a slash") from None
    raise OnnxlintError(f"{name}: cannot be read: {reason(error)}") from None
