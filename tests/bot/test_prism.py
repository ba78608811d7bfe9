"""Every request that the bot sends to GitHub, validated against GitHub's own description of its API.

    npm install --prefix .prism @stoplight/prism-cli@5.14.2 @octokit/openapi
    python3 dev.py test -m slow tests/bot/test_prism.py

Prism answers as the description says, and refuses a request that does not fit it (422).
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from onnxlint.bot.forges import GitHub, LineNote, pull_request_of
from onnxlint.bot.web import Api
from onnxlint.errors import OnnxlintError

httpx = pytest.importorskip("httpx")

FOLDER = Path(os.environ.get("ONNXLINT_PRISM", Path(__file__).parents[2] / ".prism"))
PRISM = FOLDER / "node_modules" / ".bin" / "prism"
DESCRIPTION = FOLDER / "node_modules" / "@octokit" / "openapi" / "generated" / "api.github.com.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PRISM.exists(), reason="Prism is not installed: see the top of this file"),
]


class Server(NamedTuple):
    """A running Prism."""

    url: str
    log: Path


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("prism") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(PRISM), "mock", "--errors", "-h", "127.0.0.1", "-p", str(port), str(DESCRIPTION)],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 240
            while b"Prism is listening" not in log.read_bytes():
                assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.5)
            yield Server(f"http://127.0.0.1:{port}", log)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def api(prism: Server) -> Iterator[Api]:
    held = Api(prism.url, GitHub.headers("t0ken"), sleep=lambda seconds: None)
    yield held
    held.close()


def test_comments(api: Api) -> None:
    forge = GitHub(api, "octocat/hello-world", 1)
    assert forge.find() is None  # the comment of the description's example is not ours
    forge.create("Me too")
    forge.update(42, "Me too")


def test_reviews(api: Api) -> None:
    GitHub(api, "octocat/hello-world", 1).annotate([LineNote("file1.txt", 2, "Great stuff!")], "a" * 40)


def test_pull_requests(api: Api, prism: Server) -> None:
    """The description's own example of this answer does not fit the description: only the request is looked at."""
    before = len(prism.log.read_bytes())
    with pytest.raises(OnnxlintError, match=r"HTTP 500|no open pull request"):
        pull_request_of(api, "octocat/hello-world", "f" * 40)
    said = prism.log.read_bytes()[before:]
    assert b"The request passed the validation rules" in said
    assert b"The request did not pass" not in said


def test_a_request_that_does_not_fit_is_refused(api: Api) -> None:
    """So that the tests above can fail."""
    with pytest.raises(OnnxlintError, match="422"):
        api.send("POST", "/repos/octocat/hello-world/issues/1/comments", {"text": "no body"})
