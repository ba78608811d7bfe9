"""A small forge on this machine: GitHub's and GitLab's comments, with state, pages, refusals and rate limits."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

US, THEM = "github-actions[bot]", "mallory"


@dataclass
class ForgeState:
    """What the forge holds, and how it is to answer.

    Attributes:
        comments: Of the pull request: dicts with id, body and user.
        line_comments: Notes on lines.
        pulls: Open pull requests: dicts with number and head.
        requests: (method, path, headers, body) of every request.
        answers: (status, headers, body) to give before anything else, once each.
        read_only: Whether writing is refused.
    """

    comments: list[dict[str, Any]] = field(default_factory=list)
    line_comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    read_only: bool = False
    url: str = ""

    def comment(self, body: str, login: str = US) -> dict[str, Any]:
        """Add a comment."""
        one = {
            "id": len(self.comments) + 1,
            "body": body,
            "user": {"login": login},
            "author": {"id": 7 if login == US else 8},
        }
        self.comments.append(one)
        return one

    def written(self) -> list[tuple[str, str]]:
        """(method, path) of every request that writes."""
        return [(method, path) for method, path, _, _ in self.requests if method != "GET"]


@contextmanager
def forge() -> Iterator[ForgeState]:
    """A running server; its address is `state.url`."""
    state = ForgeState()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _page(self, items: list[Any], query: dict[str, list[str]]) -> None:
            page, size = int(query["page"][0]), int(query["per_page"][0])
            more = len(items) > page * size
            headers = {"Link": f'<{state.url}/next>; rel="next"'} if more else {}
            self._answer(200, items[(page - 1) * size : page * size], headers)

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body: Any = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            state.requests.append((self.command, parts.path, dict(self.headers), body))
            if state.answers:
                status, headers, answer = state.answers.pop(0)
                self._answer(status, answer, headers)
            elif self.command != "GET" and state.read_only:
                self._answer(403, {"message": "Resource not accessible by integration"})
            elif parts.path == "/user":
                if parts.path and "PRIVATE-TOKEN" in self.headers:
                    self._answer(200, {"id": 7})
                else:
                    self._answer(403, {"message": "Resource not accessible by integration"})
            elif re.search(r"/pulls$", parts.path):
                self._page(state.pulls, query)
            elif re.search(r"/(issues/\d+/comments|notes)$", parts.path):
                if self.command == "POST":
                    self._answer(201, state.comment(body["body"]))
                else:
                    self._page(state.comments, query)
            elif match := re.search(r"/(?:issues/comments|notes)/(\d+)$", parts.path):
                one = next(one for one in state.comments if one["id"] == int(match[1]))
                one["body"] = body["body"]
                self._answer(200, one)
            elif re.search(r"/(pulls/\d+/comments|discussions)$", parts.path):
                if self.command == "POST":
                    state.line_comments.append(body)
                    self._answer(201, {})
                else:
                    self._page(state.line_comments if "/pulls/" in parts.path else [], query)
            elif parts.path.endswith("/reviews"):
                state.line_comments += [{**one, "user": {"login": US}} for one in body["comments"]]
                self._answer(200, {})
            elif re.search(r"/merge_requests/\d+$", parts.path):
                self._answer(200, {"diff_refs": {"base_sha": "b" * 40, "start_sha": "b" * 40, "head_sha": "a" * 40}})
            else:
                self._answer(404, {"message": "Not Found"})

        do_GET = do_POST = do_PATCH = do_PUT = _handle  # noqa: N815 - http.server's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
