"""Single addresses and the cache: nothing of an unchanged model is read, and no result is that of other bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxlint.store import objects
from tests.support.command import BAD, CLEAN, Outcome, onnxlint, save
from tests.support.large import save_large
from tests.support.servers import Site, object_store, serving

Check = Callable[..., Outcome]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(*addresses: str, jobs: int = 1) -> Outcome:
        kept = ("--cache-dir", str(tmp_path / "cache"), "-j", str(jobs))
        return onnxlint("check", *addresses, "--isolated", "--format", "jsonl", *kept)

    return run


def codes(outcome: Outcome) -> list[list[str]]:
    """The rules that found something, model by model."""
    return [sorted({one["code"] for one in json.loads(line)["findings"]}) for line in outcome.out.splitlines()]


def is_reused(outcome: Outcome) -> bool:
    return "from the cache" in outcome.err


# Web servers

FIXED = {"ETag": '"1"', "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with a bad model, a clean one, and a bad one of the clean one's size."""
    pytest.importorskip("httpx", reason="needs onnxlint[remote]")
    bad, clean = save(tmp_path / "bad.onnx", BAD), save(tmp_path / "clean.onnx", CLEAN)
    pad_to_one_size(bad, clean)
    with serving(Site({"/m.onnx": bad, "/bad.onnx": bad, "/clean.onnx": clean})) as served:
        yield served


def pad_to_one_size(first: Path, second: Path) -> None:
    """Give two models as many bytes, by doc strings."""
    import onnx

    most = max(first.stat().st_size, second.stat().st_size)
    for path in (first, second):
        model = onnx.load(path)
        model.doc_string = "x" * (200 + most - path.stat().st_size)  # its length takes two bytes in both
        onnx.save(model, path)
    assert first.stat().st_size == second.stat().st_size


def test_of_an_unchanged_file_no_byte_is_read(site: Site, check: Check) -> None:
    first = check(f"{site.url}/m.onnx")
    site.sent, site.asked = 0, []
    second = check(f"{site.url}/m.onnx")
    assert is_reused(second)
    assert (second.out, second.code) == (first.out, first.code) == (first.out, 1)
    assert (site.sent, site.asked) == (0, ["HEAD"])


def test_workers_and_large_files(site: Site, check: Check, tmp_path: Path) -> None:
    site.files["/large.onnx"] = save_large(tmp_path / "large.onnx", 6, 1 << 20)
    addresses = [f"{site.url}/{name}.onnx" for name in ("m", "large")]
    first = check(*addresses, jobs=2)
    site.sent, site.asked = 0, []
    second = check(*addresses, jobs=2)
    assert second.out == first.out
    assert "2 results of 2 from the cache" in second.err
    assert (site.sent, site.asked) == (0, ["HEAD", "HEAD"])


def test_a_server_that_refuses_ranges(site: Site, check: Check) -> None:
    site.ranges = False
    check(f"{site.url}/m.onnx")
    site.sent = 0
    assert is_reused(check(f"{site.url}/m.onnx"))
    assert site.sent == 0


@pytest.mark.parametrize("etag", ["", 'W/"1"', "1", '""', '"1" "2"'], ids=["none", "weak", "unquoted", "empty", "two"])
def test_without_a_strong_etag_a_file_is_checked_each_time(site: Site, check: Check, etag: str) -> None:
    site.etag, site.headers = False, {**FIXED, "ETag": etag} if etag else {"Last-Modified": FIXED["Last-Modified"]}
    assert codes(check(f"{site.url}/m.onnx")) != [[]]
    site.files["/m.onnx"] = site.files["/clean.onnx"]
    second = check(f"{site.url}/m.onnx")
    assert not is_reused(second)
    assert codes(second) == [[]]


def test_a_server_without_head_is_read_each_time(site: Site, check: Check) -> None:
    def refuse(number: int) -> None:
        site.fault = "denied" if site.asked[-1] == "HEAD" else ""

    site.before = refuse
    assert [is_reused(check(f"{site.url}/m.onnx")) for _ in range(2)] == [False, False]


@pytest.mark.parametrize("told", ["size", "time"])
def test_the_same_etag_with_another_size_or_time_is_another_file(
    site: Site, check: Check, told: str, tmp_path: Path
) -> None:
    site.headers = dict(FIXED)
    assert codes(check(f"{site.url}/m.onnx")) != [[]]
    if told == "size":
        site.files["/m.onnx"] = save(tmp_path / "other.onnx", CLEAN)
    else:
        site.files["/m.onnx"] = site.files["/clean.onnx"]
        site.headers["Last-Modified"] = "Sat, 28 Nov 2026 10:00:01 GMT"
    second = check(f"{site.url}/m.onnx")
    assert not is_reused(second)
    assert codes(second) == [[]]


@pytest.mark.parametrize("names", [("bad.onnx", "clean.onnx"), ("m.onnx?version=1", "m.onnx?version=2")])
def test_the_same_etag_at_another_address_is_another_file(site: Site, check: Check, names: tuple[str, str]) -> None:
    site.headers = dict(FIXED)
    assert codes(check(f"{site.url}/{names[0]}")) != [[]]
    site.files["/m.onnx"] = site.files["/clean.onnx"]
    second = check(f"{site.url}/{names[1]}")
    assert not is_reused(second)
    assert codes(second) == [[]]


def test_a_redirect_that_leads_elsewhere_is_another_file(site: Site, check: Check) -> None:
    site.headers = dict(FIXED)
    site.redirects["/latest.onnx"] = "/bad.onnx"
    check(f"{site.url}/latest.onnx")
    site.sent = 0
    assert is_reused(check(f"{site.url}/latest.onnx"))
    assert site.sent == 0
    site.redirects["/latest.onnx"] = "/clean.onnx"
    moved = check(f"{site.url}/latest.onnx")
    assert not is_reused(moved)
    assert codes(moved) == [[]]


def test_a_file_that_is_replaced_before_it_is_read_is_not_kept_as_the_old_one(site: Site, check: Check) -> None:
    """The old file is asked for (HEAD), the new one is read; then the old one is back."""
    bad, clean = site.files["/bad.onnx"], site.files["/clean.onnx"]

    def replace(number: int) -> None:
        head = site.asked[-1] == "HEAD"
        site.files["/m.onnx"], site.headers = (bad, {"ETag": '"a"'}) if head else (clean, {"ETag": '"b"'})

    site.before = replace
    assert codes(check(f"{site.url}/m.onnx")) == [[]]
    site.before = lambda number: None
    site.files["/m.onnx"], site.headers = bad, {"ETag": '"a"'}
    again = check(f"{site.url}/m.onnx")
    assert not is_reused(again)
    assert codes(again) != [[]]


def test_answers_that_disagree_about_the_time_are_not_kept(site: Site, check: Check) -> None:
    other = {**FIXED, "Last-Modified": "Sat, 28 Nov 2026 10:00:01 GMT"}

    def alternate(number: int) -> None:
        site.headers = other if number == 2 else FIXED  # HEAD, the first byte, the rest

    site.before = alternate
    assert check(f"{site.url}/m.onnx").code == 1
    assert site.requests == 3
    site.before = lambda number: None
    assert not is_reused(check(f"{site.url}/m.onnx"))


# Object stores


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    pytest.importorskip("s3fs", reason="needs onnxlint[remote]")
    with object_store() as client:
        client.create_bucket(Bucket="single")
        yield client


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that the client of the store was asked for."""
    s3fs = pytest.importorskip("s3fs", reason="needs onnxlint[remote]")
    calls: list[str] = []
    original = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *words: Any, **named: Any) -> Any:
        calls.append(method)
        return await original(self, method, *words, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return calls


def put(store: Any, tmp_path: Path, text: str) -> None:
    body = save(tmp_path / "put.onnx", text).read_bytes()
    store.put_object(Bucket="single", Key="m.onnx", Body=body)


def test_of_an_unchanged_object_no_byte_is_read(store: Any, check: Check, asked: list[str], tmp_path: Path) -> None:
    put(store, tmp_path, BAD)
    first = check("s3://single/m.onnx")
    assert "get_object" in asked
    asked.clear()
    second = check("s3://single/m.onnx")
    assert is_reused(second)
    assert second.out == first.out
    assert asked == ["head_object"]
    put(store, tmp_path, CLEAN)
    third = check("s3://single/m.onnx")
    assert not is_reused(third)
    assert codes(third) == [[]]


def test_an_object_that_a_listing_named_is_asked_for_again(store: Any, check: Check, tmp_path: Path) -> None:
    put(store, tmp_path, BAD)
    assert codes(check("s3://single/m.onnx")) != [[]]
    system, path = objects.file_system("s3://single/m.onnx")
    before = objects.identify("s3://single/m.onnx")
    system.ls("single")  # which this process remembers
    put(store, tmp_path, CLEAN)
    assert system.info(path)["size"] != len((tmp_path / "put.onnx").read_bytes())
    outcome = check("s3://single/m.onnx")
    assert not is_reused(outcome)
    assert codes(outcome) == [[]]
    system.ls("single")
    after = objects.identify("s3://single/m.onnx")
    put(store, tmp_path, BAD)
    assert len({before.split()[0], after.split()[0]}) == 2
    assert objects.identify("s3://single/m.onnx").split()[0] == before.split()[0]


def test_a_listed_object_is_known_by_its_address(store: Any, check: Check, tmp_path: Path) -> None:
    put(store, tmp_path, BAD)
    check("s3://single/")
    assert is_reused(check("s3://single/m.onnx"))


def test_a_file_system_without_names_for_versions_is_read_each_time(check: Check, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs onnxlint[remote]")
    for text in (BAD, CLEAN):
        fsspec.filesystem("memory").pipe("/single/m.onnx", save(tmp_path / "m.onnx", text).read_bytes())
        outcome = check("memory://single/m.onnx")
        assert not is_reused(outcome)
        assert (codes(outcome) == [[]]) == (text is CLEAN)


def test_a_copy_that_another_file_system_keeps_is_not_known_by_the_original(
    store: Any, check: Check, tmp_path: Path
) -> None:
    put(store, tmp_path, BAD)
    check("simplecache::s3://single/m.onnx")
    assert not is_reused(check("simplecache::s3://single/m.onnx"))


def test_identities_of_stores() -> None:
    named = {"ETag": '"a"', "size": 3}
    assert objects.identity_of(named, "s3://b/m")
    assert objects.identity_of({**named, "ETag": 'W/"a"'}, "s3://b/m") == ""
    assert objects.identity_of(named, "filecache::s3://b/m") == ""
    assert objects.identity_of({"size": 3, "LastModified": "now"}, "s3://b/m") == ""
    assert (
        len({objects.identity_of({**named, **other}, "s3://b/m") for other in ({}, {"size": 4}, {"updated": "x"})}) == 3
    )
