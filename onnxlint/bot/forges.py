"""GitHub's pull requests and GitLab's merge requests: one comment that is kept up to date, and notes on lines."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from onnxlint.bot.comment import MARKER
from onnxlint.bot.web import Api, Refused, entry, number
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

LINE_MARKER = "<!-- onnxlint-bot-line -->"
"""The first line of a note on a line of source."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class LineNote:
    """A note on one line of a source file.

    Attributes:
        path: In the head.
        line: 1-based.
        body: Markdown, its marker included.
    """

    path: str
    line: int
    body: str


class Forge(ABC):
    """Where the comment goes."""

    @abstractmethod
    def find(self) -> tuple[int, str] | None:
        """(number, text) of our comment; None if there is none."""

    @abstractmethod
    def create(self, text: str) -> None:
        """Write a comment."""

    @abstractmethod
    def update(self, number: int, text: str) -> None:
        """Write another text into our comment."""

    @abstractmethod
    def annotate(self, notes: Sequence[LineNote], head: str) -> None:
        """Write notes on lines, those that are there already left out."""


class GitHub(Forge):
    """A pull request of GitHub or GitHub Enterprise.

    Args:
        api: `https://api.github.com`, or `https://HOST/api/v3`.
        repository: `owner/name`.
        number: Of the pull request.
        author: Login that our comments are written by; None to ask, and `github-actions[bot]` where the token has none.

    Source: GitHub REST API, version 2022-11-28.
    """

    def __init__(self, api: Api, repository: str, number: int, author: str | None = None) -> None:
        self._api = api
        self._repository = _checked(repository)
        self._number = number
        self._author = author

    @staticmethod
    def headers(token: str) -> dict[str, str]:
        """Headers of every request."""
        return {
            "Authorization": f"Bearer {token}",
            # The second type is for servers that check requests against the published description.
            "Accept": "application/vnd.github+json, application/json;q=0.9",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "onnxlint-bot",
        }

    def _login(self) -> str:
        if self._author is None:
            try:
                self._author = str(entry(self._api.get("/user"), "login") or "github-actions[bot]")
            except Refused:  # the token of a workflow belongs to no user
                self._author = "github-actions[bot]"
        return self._author

    def find(self) -> tuple[int, str] | None:
        """Our comment: with our marker and written by us."""
        for one in self._api.get_all(f"/repos/{self._repository}/issues/{self._number}/comments"):
            text = str(one.get("body") or "")
            if text.startswith(MARKER) and entry(one, "user", "login") == self._login():
                return number(one, "id"), text
        return None

    def create(self, text: str) -> None:
        """Write a comment."""
        self._api.send("POST", f"/repos/{self._repository}/issues/{self._number}/comments", {"body": text})

    def update(self, number: int, text: str) -> None:
        """Write another text into our comment."""
        self._api.send("PATCH", f"/repos/{self._repository}/issues/comments/{number}", {"body": text})

    def annotate(self, notes: Sequence[LineNote], head: str) -> None:
        """One review with a comment on each line."""
        known = {
            (str(one.get("path")), str(one.get("line")), str(one.get("body") or ""))
            for one in self._api.get_all(f"/repos/{self._repository}/pulls/{self._number}/comments")
            if entry(one, "user", "login") == self._login()
        }
        new = [note for note in notes if (note.path, str(note.line), note.body) not in known]
        if not new:
            return
        body = {
            "commit_id": head,
            "event": "COMMENT",
            "comments": [{"path": note.path, "line": note.line, "side": "RIGHT", "body": note.body} for note in new],
        }
        self._api.send("POST", f"/repos/{self._repository}/pulls/{self._number}/reviews", body)


def pull_request_of(api: Api, repository: str, head: str) -> int:
    """Number of the open pull request whose newest commit is `head`.

    The event that starts a `workflow_run` does not name the pull requests of forks, and the file that such a job gets
    must not be asked: it comes from the fork.

    Raises:
        OnnxlintError: No such pull request: it was closed, or has newer commits.
    """
    path = f"/repos/{_checked(repository)}/pulls"
    for one in api.get_all(path, state="open", sort="updated", direction="desc"):
        if entry(one, "head", "sha") == head:
            return number(one, "number")
    raise OnnxlintError(f"no open pull request of {repository} has {head[:12]} as its newest commit; nothing is posted")


class GitLab(Forge):
    """A merge request of GitLab.

    Args:
        api: `https://gitlab.com/api/v4`.
        project: Number or path.
        number: The merge request's number in the project (IID).

    Source: GitLab REST API v4, notes and discussions.
    """

    def __init__(self, api: Api, project: str, number: int) -> None:
        self._api = api
        self._path = f"/projects/{quote(project, safe='')}/merge_requests/{number}"
        self._user: int | None = None

    @staticmethod
    def headers(token: str) -> dict[str, str]:
        """Headers of every request."""
        return {"PRIVATE-TOKEN": token, "User-Agent": "onnxlint-bot"}

    def _is_ours(self, author: Any) -> bool:
        if self._user is None:
            self._user = number(self._api.get("/user"), "id")
        return isinstance(author, dict) and author.get("id") == self._user

    def find(self) -> tuple[int, str] | None:
        """Our note: with our marker and written by us."""
        for one in self._api.get_all(f"{self._path}/notes", sort="asc"):
            text = str(one.get("body") or "")
            if text.startswith(MARKER) and self._is_ours(one.get("author")):
                return number(one, "id"), text
        return None

    def create(self, text: str) -> None:
        """Write a note."""
        self._api.send("POST", f"{self._path}/notes", {"body": text})

    def update(self, number: int, text: str) -> None:
        """Write another text into our note."""
        self._api.send("PUT", f"{self._path}/notes/{number}", {"body": text})

    def annotate(self, notes: Sequence[LineNote], head: str) -> None:
        """A discussion on each line."""
        known = {
            tuple(str(entry(note, *keys)) for keys in (("position", "new_path"), ("position", "new_line"), ("body",)))
            for one in self._api.get_all(f"{self._path}/discussions")
            for note in (one["notes"] if isinstance(one.get("notes"), list) else ())
            if self._is_ours(entry(note, "author"))
        }
        new = [note for note in notes if (note.path, str(note.line), note.body) not in known]
        if not new:
            return
        versions = entry(self._api.get(self._path), "diff_refs")
        if entry(versions, "head_sha") != head:
            return  # the merge request has newer commits: their own job writes the notes
        for note in new:
            position = {
                "position_type": "text",
                "base_sha": versions.get("base_sha"),
                "start_sha": versions.get("start_sha"),
                "head_sha": head,
                "old_path": note.path,
                "new_path": note.path,
                "new_line": note.line,
            }
            self._api.send("POST", f"{self._path}/discussions", {"body": note.body, "position": position})


def _checked(repository: str) -> str:
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise OnnxlintError(f"{printable(repository)}: not a repository; it is written owner/name (GITHUB_REPOSITORY)")
    return repository
