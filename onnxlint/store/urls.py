"""Addresses of models on object stores and web servers, and how they are shown."""

from __future__ import annotations

import re

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)(?:://|::)", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/?#\s@]*@")
_QUERY = re.compile(r"\?[^\s'\"]*")
_HIDDEN = "…"
_LONGEST = 300

WEB = ("http", "https")
"""Schemes of web servers, which have no listings."""


def is_remote(path: str) -> bool:
    """Whether a path is an address that fsspec or a web server resolves (`s3://…`), not a file name."""
    return _SCHEME.match(path) is not None


def scheme(url: str) -> str:
    """`s3` of `s3://bucket/key`; the first one of a chained address (`zip://a.onnx::s3://…`)."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def shown(url: str) -> str:
    """An address as messages and reports name it: without user, password and query, which may hold a signature."""
    return printable(without_secrets(url))


def must_be_local(url: str) -> OnnxlintError:
    """What commands other than `check` say of an address."""
    return OnnxlintError(f"{shown(url)}: only 'onnxlint check' reads remote models; download it first")


def without_secrets(text: str) -> str:
    """A text without the users, passwords and queries of the addresses in it."""
    if "://" not in text:
        return text
    return _QUERY.sub(f"?{_HIDDEN}", _USER.sub("", text))


def reason(error: BaseException) -> str:
    """What an error of a client library says, in one line that holds no secrets."""
    if isinstance(error, UnicodeError):
        return "the address is not UTF-8"
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and lines[0].endswith(":"):  # boto3: Parameter validation failed:
        lines[0] += f" {lines[1]}"
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return printable(without_secrets(said))[:_LONGEST]
