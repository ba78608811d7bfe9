"""Models in Google Cloud Storage (an emulator of it) and on the Hugging Face Hub (a server with its addresses)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from tests.support.command import BAD, CLEAN, save
from tests.support.large import save_large

pytestmark = pytest.mark.slow  # a process with a client library for each command

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name in the store → content; the large one has 25 MB of weights."""
    folder = tmp_path_factory.mktemp("models")
    found = {"faces/README.md": b"no model"}
    for name, model in (("faces/bad.onnx", BAD), ("faces/deep/clean.onnx", CLEAN)):
        save(folder / "model.onnx", model)
        found[name] = (folder / "model.onnx").read_bytes()
    found["large.onnx"] = save_large(folder / "large.onnx", 5, 5 << 20).read_bytes()
    return found


def check(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """`onnxlint check` as a program, whose client libraries read these settings."""
    command = [sys.executable, "-m", "onnxlint", "check", "--isolated", "--format", "jsonl", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment, "NO_PROXY": "*"}
    )


def expect(environment: dict[str, str], home: str, models: dict[str, bytes], folder: Path) -> None:
    """What holds for any store.

    Findings are those of files, folders and globs are listed, what is missing is one line, an unchanged model comes from
    the cache.
    """
    (folder / "bad.onnx").write_bytes(models["faces/bad.onnx"])
    local = check({}, str(folder / "bad.onnx"))
    remote = check(environment, f"{home}/faces/bad.onnx")
    assert remote.stderr == ""
    assert remote.stdout == local.stdout.replace(str(folder), f"{home}/faces")
    for name in ("faces/", "**/faces/**/*.onnx"):
        listed = check(environment, f"{home}/{name}")
        assert listed.stderr == "", name
        paths = [json.loads(line)["path"].split("/faces/")[1] for line in listed.stdout.splitlines()]
        assert paths == ["bad.onnx", "deep/clean.onnx"], name
    missing = check(environment, f"{home}/faces/none.onnx")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "no such file in the store" in missing.stderr
    kept = ("--cache-dir", str(folder / "kept"))
    for name, reused in (("faces/bad.onnx", 0), ("faces/bad.onnx", 1), ("faces/", 1), ("faces/deep/clean.onnx", 1)):
        again = check(environment, f"{home}/{name}", *kept)
        assert again.stderr.partition(" from the cache")[0].count("1 result of") == reused, name
        assert remote.stdout in again.stdout or "clean" in name


# Google Cloud Storage


@pytest.fixture(scope="module")
def bucket(models: dict[str, bytes]) -> Iterator[dict[str, str]]:
    """Settings of a client whose store has the models in the bucket `models`."""
    pytest.importorskip("gcsfs", reason="needs onnxlint[remote]")
    server = pytest.importorskip("gcp_storage_emulator.server", reason="needs onnxlint[test]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    emulator = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="models")
    emulator.start()
    # The emulator speaks HTTP; gcsfs asks over gRPC what kind of bucket it is, unless it is told not to.
    settings = {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "FSSPEC_GCS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    try:
        from gcsfs.core import GCSFileSystem

        store = GCSFileSystem(token="anon", endpoint_url=settings["STORAGE_EMULATOR_HOST"])
        for name, data in models.items():
            store.pipe_file(f"models/{name}", data)
        yield settings
    finally:
        emulator.stop()


def test_google_cloud_storage(bucket: dict[str, str], models: dict[str, bytes], tmp_path: Path) -> None:
    expect(bucket, "gs://models", models, tmp_path)


# Hugging Face Hub


class Hub:
    """A server with the addresses of the Hub that its client library asks: files, details of paths, listings.

    Attributes:
        files: Path in the repository `team/nets` → content.
        sent: Bytes of files that it sent.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.sent = 0
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def _answer(self, body: bytes = b"") -> None:
                hub.asked.append(f"{self.command} {self.path}")
                status, headers, data = hub.answer(unquote(urlsplit(self.path).path), body, self.headers.get("Range"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", headers.get("Content-Length", str(len(data))))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def entry(self, path: str) -> dict[str, Any]:
        """A file, as listings have it."""
        data = self.files[path]
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def answer(self, path: str, body: bytes, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        api, file = "/api/models/team/nets", f"/team/nets/resolve/{COMMIT}/"
        file = file if path.startswith(file) else "/team/nets/resolve/main/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            return self.json({"id": "team/nets", "sha": COMMIT, "siblings": []})
        match = re.fullmatch(rf"{api}/paths-info/(main|{COMMIT})", path)
        if match:
            asked = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
            folders = {name.rpartition("/")[0] for name in self.files}
            asked = [asked] if isinstance(asked, str) else asked
            found = [self.entry(name) for name in asked if name in self.files]
            found += [{"type": "directory", "path": name, "oid": "0" * 40} for name in asked if name in folders]
            return self.json(found)
        match = re.fullmatch(rf"{api}/tree/(main|{COMMIT})(?:/(.*))?", path)
        if match:
            return self.json([self.entry(name) for name in self.files if name.startswith(match[2] or "")])
        if path.startswith(file) and path.removeprefix(file) in self.files:
            return self.content(self.files[path.removeprefix(file)], wanted)
        return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"

    def json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        """An answer of the API."""
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    def content(self, data: bytes, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        """A file, or a range of it."""
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
        if not match:
            self.sent += len(data)
            return 200, headers, data
        part = data[int(match[1]) : int(match[2]) + 1]
        self.sent += len(part)
        return 206, {**headers, "Content-Range": f"bytes {match[1]}-{int(match[1]) + len(part) - 1}/{len(data)}"}, part


@pytest.fixture(scope="module")
def hub(models: dict[str, bytes]) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="needs onnxlint[remote]")
    started = Hub(models)
    yield started
    started.server.shutdown()


def settings_of(hub: Hub, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""}


def test_the_hub(hub: Hub, models: dict[str, bytes], tmp_path: Path) -> None:
    expect(settings_of(hub, tmp_path), "hf://team/nets", models, tmp_path)


def test_of_a_large_model_on_the_hub_only_the_graph_is_read(hub: Hub, models: dict[str, bytes], tmp_path: Path) -> None:
    before = hub.sent
    outcome = check(settings_of(hub, tmp_path), "hf://team/nets/large.onnx")
    assert outcome.stderr == ""
    assert json.loads(outcome.stdout)["error"] is None
    assert 0 < hub.sent - before < 0.1 * len(models["large.onnx"])


def test_an_unchanged_model_on_the_hub_comes_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    words = ("hf://team/nets/faces/", "--cache-dir", str(tmp_path / "cache"))
    first = check(settings_of(hub, tmp_path), *words)
    before = hub.sent
    second = check(settings_of(hub, tmp_path), *words)
    assert second.stdout == first.stdout
    assert "2 results of 2 from the cache" in second.stderr
    assert hub.sent == before
