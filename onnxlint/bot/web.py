"""Requests to a forge: time limits, retries that the server asks for, pages; tokens are sent and never shown."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

TRIES = 4
SECONDS = 30.0
"""Seconds that one request may take."""

PATIENCE = 120.0
"""Most seconds to wait in total, even if a server asks for more."""

PAGES = 30
"""Pages of a list that are read at most."""


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The forge does not let this token do this.

    Attributes:
        status: The HTTP status: 401, 403 or 404.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """One forge's REST interface.

    Args:
        url: Its root, `https://api.github.com`; plain http is for addresses of this machine alone.
        headers: Sent with every request, the token among them.
        sleep: What waits; for tests.

    Raises:
        OnnxlintError: httpx is not installed, or the address is not one that a token may be sent to.
    """

    def __init__(self, url: str, headers: Mapping[str, str], sleep: Callable[[float], None] = time.sleep) -> None:
        try:
            parts = urlsplit(url)
            has_port = parts.port is None or parts.port > 0  # an impossible one raises
        except ValueError:
            raise OnnxlintError(f"{printable(url)}: not the address of an API; it begins with https://") from None
        if not has_port or not url.isprintable() or not parts.hostname or parts.scheme not in ("http", "https"):
            raise OnnxlintError(f"{printable(url)}: not the address of an API; it begins with https://")
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise OnnxlintError(f"{printable(url)}: not https: the token would be sent in the clear")
        try:
            self._httpx = importlib.import_module("httpx")
        except ImportError:
            raise OnnxlintError("httpx is not installed; 'pip install onnxlint[bot]' brings it") from None
        if any(not value.isascii() or not value.isprintable() for value in headers.values()):
            raise OnnxlintError("the token holds characters that no token has; set it again")
        self._url = url.rstrip("/")
        self._client = self._httpx.Client(headers=dict(headers), timeout=SECONDS, follow_redirects=False)
        self._sleep = sleep
        self._waited = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_all(self, path: str, **parameters: str | int) -> Iterator[Any]:
        """Items of a list, page after page."""
        for page in range(1, PAGES + 1):
            response = self._request("GET", path, params={**parameters, "per_page": 100, "page": page})
            items = self._json(response, path)
            if not isinstance(items, list):
                raise OnnxlintError(f"{self._where(path)}: the answer is not a list; is this the address of its API?")
            yield from (item for item in items if isinstance(item, dict))
            if len(items) < 100 and 'rel="next"' not in response.headers.get("link", ""):
                return

    def get(self, path: str) -> dict[str, Any]:
        """A document."""
        document = self._json(self._request("GET", path), path)
        if not isinstance(document, dict):
            raise OnnxlintError(f"{self._where(path)}: the answer is not an object; is this the address of its API?")
        return document

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        """Create or change something."""
        return self._json(self._request(method, path, json=dict(body)), path)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        problem = ""
        for attempt in range(TRIES):
            try:
                response = self._client.request(method, f"{self._url}{path}", **options)
            except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
                problem = f"{type(error).__name__}"
                delay = 2.0**attempt
                if method == "POST" and not isinstance(error, self._httpx.ConnectError):
                    break  # it may have arrived: a second comment is worse than none
            else:
                if response.is_success:
                    return response
                problem = f"HTTP {response.status_code} {_reason(response)}"
                asked = _delay(response, attempt)
                if asked is None:
                    if response.status_code in (401, 403, 404):
                        raise Refused(response.status_code, f"{self._where(path)}: {problem}")
                    break
                delay = asked
            if attempt + 1 == TRIES or self._waited + delay > PATIENCE:
                break
            self._waited += delay
            self._sleep(delay)
        raise OnnxlintError(f"{self._where(path)}: {problem}; try again later")

    def _where(self, path: str) -> str:
        return printable(f"{urlsplit(self._url).hostname}{path}")

    def _json(self, response: Any, path: str) -> Any:
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise OnnxlintError(f"{self._where(path)}: the answer is not JSON") from None


def entry(document: Any, *keys: str) -> Any:
    """What an answer holds below its keys; None where it holds something else."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def number(document: Any, key: str) -> int:
    """A whole number that an answer has to hold.

    Raises:
        OnnxlintError: It holds something else.
    """
    value = entry(document, key)
    if type(value) is not int:
        raise OnnxlintError(f"the forge's answer has no {key}; is this the address of its API?")
    return value


def _delay(response: Any, attempt: int) -> float | None:
    """Seconds to wait before the next try; None if another try is of no use."""
    status, headers = response.status_code, response.headers
    asked = headers.get("retry-after", "")
    limited = status == 429 or (status == 403 and (asked or headers.get("x-ratelimit-remaining") == "0"))
    if limited and not asked and headers.get("x-ratelimit-reset", "").isdigit():
        return min(max(float(headers["x-ratelimit-reset"]) - time.time(), 1.0), PATIENCE + 1)
    if limited or status in (500, 502, 503, 504):
        return min(float(asked), PATIENCE + 1) if asked.isdigit() and len(asked) < 7 else 2.0**attempt
    return None


def _reason(response: Any) -> str:
    """The server's error text, in one short line."""
    try:
        message = entry(response.json(), "message") or ""
    except (ValueError, RecursionError):
        message = ""
    return printable(" ".join(str(message).split()))[:160]
