"""Servers on loopback: an object store, and a web server with ranges, or with the faults that servers have, that counts."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Site:
    """What a server does, and what it did.

    Attributes:
        files: Path → file.
        url: Its address, without a slash at the end.
        ranges: Whether it serves ranges.
        redirects: Path → location.
        fault: `endless` (sends on and on), `short` (ends early), `changes` (another ETag each time), `elsewhere` (another
            range), `compressed`, `denied`, or empty.
        etag: Whether it names versions.
        headers: What it sends with every file, in place of its own where the name is the same; read for each request.
        sent: Bytes of bodies that it sent.
        requests: Requests that it got.
        asked: Their methods.
        before: Called before the answer to each request, with its number from 1.
    """

    files: dict[str, Path] = field(default_factory=dict)
    url: str = ""
    ranges: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    etag: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    requests: int = 0
    asked: list[str] = field(default_factory=list)
    before: Callable[[int], None] = lambda number: None


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve a site on loopback while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            site.requests += 1
            site.asked.append(self.command)
            site.before(site.requests)
            path = self.path.partition("?")[0]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if path in site.redirects:
                    self._answer(302, b"", Location=site.redirects[path])
                elif site.fault == "denied":
                    self._answer(403, b"")
                elif path not in site.files:
                    self._answer(404, b"nothing here")
                else:
                    self._serve(site.files[path])

        def _serve(self, file: Path) -> None:
            size = file.stat().st_size
            headers = {"ETag": f'"{size}-{site.requests if site.fault == "changes" else 0}"'} if site.etag else {}
            headers |= site.headers
            match = _RANGE.fullmatch(self.headers.get("Range", ""))
            start, end = (int(match[1]), min(int(match[2]) + 1, size)) if match and site.ranges else (0, size)
            with open(file, "rb") as opened:
                opened.seek(start)
                data = opened.read(end - start)
            if not match or not site.ranges:
                return self._answer(200, data, **headers)
            if site.fault == "elsewhere":
                start += 1
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            if site.fault == "compressed":
                headers["Content-Encoding"] = "gzip"
            if site.fault == "endless":
                return self._pour(headers)
            return self._answer(206, data[:-1] if site.fault == "short" and len(data) > 1 else data, **headers)

        def _answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                site.sent += len(body)

        def _pour(self, headers: dict[str, str]) -> None:
            self.send_response(206)
            for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for _ in range(4096):  # 256 MB: far more than anybody asks for
                self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                site.sent += 1 << 16

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            # A client that refuses an answer hangs up; the server would print that among what the command says.
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def object_store() -> Iterator[Any]:
    """A client of an S3 server (moto's); while the context lasts, the environment names the server."""
    server = pytest.importorskip("moto.server", reason="needs moto's server")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("ACCESS_KEY_ID", "KEYNAME"),
            ("SECRET_ACCESS_KEY", "secret"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(f"AWS_{name}", value)
        started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        started.start()
        host, port = started.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        import boto3

        try:
            _forget_clients()
            yield boto3.client("s3")
        finally:
            started.stop()
            _forget_clients()


def _forget_clients() -> None:
    """fsspec keeps a client for a whole process, with the server of the environment at its start."""
    with contextlib.suppress(ImportError):
        import fsspec

        fsspec.get_filesystem_class("s3").clear_instance_cache()
