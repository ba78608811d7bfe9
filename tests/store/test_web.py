"""Models on web servers: read in ranges, or whole where a server refuses them; nothing a server does ends badly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxlint.store import web
from tests.support.command import BAD, onnxlint, save
from tests.support.large import save_large
from tests.support.servers import Site, serving

pytest.importorskip("httpx", reason="needs onnxlint[remote]")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    save(tmp_path / "bad.onnx", BAD)
    monkeypatch.setattr(web, "SECONDS", 5.0)
    with serving(Site({"/bad.onnx": tmp_path / "bad.onnx"})) as served:
        yield served


def test_findings_are_those_of_the_file(site: Site, tmp_path: Path) -> None:
    remote = onnxlint("check", f"{site.url}/bad.onnx", "--isolated", "--format", "jsonl")
    local = onnxlint("check", str(tmp_path / "bad.onnx"), "--isolated", "--format", "jsonl")
    assert (remote.code, remote.err) == (1, "")
    assert remote.out == local.out.replace(str(tmp_path), site.url)


def test_one_percent_of_a_large_model_is_read(site: Site, tmp_path: Path) -> None:
    """500 MB, of which at most 1 % may be read."""
    large = save_large(tmp_path / "large.onnx", 100, 5 << 20)
    size = large.stat().st_size
    assert size > 500_000_000
    site.files["/large.onnx"] = large
    outcome = onnxlint("check", f"{site.url}/large.onnx", "--isolated", "--format", "jsonl")
    assert outcome.err == ""
    assert site.sent < 0.01 * size
    local = onnxlint("check", str(large), "--isolated", "--format", "jsonl")
    assert outcome.out == local.out.replace(str(tmp_path), site.url)


def test_a_server_that_refuses_ranges_is_read_whole_and_that_is_said(site: Site, tmp_path: Path) -> None:
    large = save_large(tmp_path / "large.onnx", 6, 1 << 20)
    site.files["/large.onnx"], site.ranges = large, False
    outcome = onnxlint("check", f"{site.url}/large.onnx", "--isolated", "--format", "jsonl")
    assert "the server refuses ranges; all of it, 6.3 MB, was downloaded, weights included" in outcome.err
    local = onnxlint("check", str(large), "--isolated", "--format", "jsonl")
    assert outcome.out == local.out.replace(str(tmp_path), site.url)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("endless", "sends more than"),
        ("short", "ends its answers too early"),
        ("changes", "changed while it was read"),
        ("elsewhere", "another range than it was asked for"),
        ("compressed", "compresses"),
        ("denied", "denies access (403)"),
    ],
)
def test_a_bad_server_is_one_line_and_exit_code_2(site: Site, fault: str, says: str) -> None:
    site.fault = fault
    outcome = onnxlint("check", f"{site.url}/bad.onnx", "--isolated", "--format", "jsonl")
    assert outcome.code == 2
    assert says in outcome.err
    assert outcome.err.count("\n") == 1
    assert f"{site.url}/bad.onnx" in outcome.err
    assert site.sent < 64 << 20


def test_secrets_of_an_address_are_not_shown(site: Site) -> None:
    address = f"{site.url.replace('//', '//me:secret@')}/bad.onnx?signature=secret"
    found = onnxlint("check", address, "--isolated", "--format", "json")
    assert found.code == 1
    assert "secret" not in found.out + found.err
    site.fault = "denied"
    denied = onnxlint("check", address, "--isolated")
    assert denied.code == 2
    assert "secret" not in denied.out + denied.err


def test_redirects_are_followed_but_not_for_ever_and_not_to_other_schemes(site: Site) -> None:
    site.redirects = {"/moved.onnx": "/bad.onnx", "/round.onnx": "/round.onnx", "/out.onnx": "file:///etc/passwd"}
    assert onnxlint("check", f"{site.url}/moved.onnx", "--isolated").code == 1
    assert "redirects more than 5 times" in onnxlint("check", f"{site.url}/round.onnx", "--isolated").out
    assert "which is refused" in onnxlint("check", f"{site.url}/out.onnx", "--isolated").out


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(web, "SECONDS", 0.3)
    monkeypatch.setattr(web, "_CLIENTS", {})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        outcome = onnxlint("check", f"http://127.0.0.1:{silent.getsockname()[1]}/x.onnx", "--isolated")
    assert outcome.code == 2
    assert "the server does not answer" in outcome.out


def test_folders_and_globs_need_a_store(site: Site) -> None:
    for address in (f"{site.url}/", f"{site.url}/*.onnx"):
        outcome = onnxlint("check", address, "--isolated")
        assert outcome.code == 2
        assert "a web server does not list its files; name each model by its address" in outcome.out


def test_what_is_no_model_is_said(site: Site, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!DOCTYPE html><p>sign in")
    (tmp_path / "empty.onnx").write_bytes(b"")
    site.files |= {"/page.onnx": tmp_path / "page.html", "/empty.onnx": tmp_path / "empty.onnx"}
    assert "a web page, not a model" in onnxlint("check", f"{site.url}/page.onnx", "--isolated").out
    assert "empty file" in onnxlint("check", f"{site.url}/empty.onnx", "--isolated").out
    assert "no such file on the server" in onnxlint("check", f"{site.url}/none.onnx", "--isolated").out


def test_other_commands_say_that_they_read_no_remote_models(site: Site, tmp_path: Path) -> None:
    outcome = onnxlint("fix", f"{site.url}/bad.onnx", "-o", str(tmp_path / "fixed.onnx"))
    assert outcome.code == 2
    assert "only 'onnxlint check' reads remote models; download it first" in outcome.err + outcome.out


def test_weights_are_read_on_request(site: Site, tmp_path: Path) -> None:
    local = onnxlint("check", str(tmp_path / "bad.onnx"), "--isolated", "--weights", "--format", "jsonl")
    remote = onnxlint("check", f"{site.url}/bad.onnx", "--isolated", "--weights", "--format", "jsonl")
    assert remote.out == local.out.replace(str(tmp_path), site.url)
