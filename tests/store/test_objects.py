"""Models in an object store: moto's S3 server on loopback, and other file systems of fsspec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxlint.store.urls import is_remote, shown
from tests.support.command import BAD, CLEAN, onnxlint, save
from tests.support.large import save_large
from tests.support.servers import object_store

pytest.importorskip("s3fs", reason="needs onnxlint[remote]")


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A client of an S3 server on loopback, with a bucket."""
    with object_store() as client:
        client.create_bucket(Bucket="models")
        yield client


@pytest.fixture
def bucket(store: Any, tmp_path: Path) -> Any:
    """A store with a bad and a clean model."""
    for name, model in (("faces/bad", BAD), ("faces/deep/clean", CLEAN)):
        save(tmp_path / "model.onnx", model)
        store.put_object(Bucket="models", Key=f"{name}.onnx", Body=(tmp_path / "model.onnx").read_bytes())
    store.put_object(Bucket="models", Key="faces/README.md", Body=b"no model")
    return store


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", ["faces/", "faces", "**/*.onnx", "faces/**"])
def test_folders_and_globs_name_their_models(bucket: Any, name: str) -> None:
    outcome = onnxlint("check", f"s3://models/{name}", "--isolated", "--format", "jsonl")
    assert outcome.err == ""
    assert [one["path"] for one in lines(outcome.out)] == [
        "s3://models/faces/bad.onnx",
        "s3://models/faces/deep/clean.onnx",
    ]
    assert outcome.code == 1


def test_findings_are_those_of_the_file(bucket: Any, tmp_path: Path) -> None:
    save(tmp_path / "bad.onnx", BAD)
    local = onnxlint("check", str(tmp_path / "bad.onnx"), "--isolated", "--format", "jsonl")
    remote = onnxlint("check", "s3://models/faces/bad.onnx", "--isolated", "--format", "jsonl")
    assert remote.out == local.out.replace(str(tmp_path), "s3://models/faces")


def test_workers_read_from_the_store(bucket: Any) -> None:
    alone = onnxlint("check", "s3://models/faces/", "--isolated", "--format", "jsonl", "-j", "1")
    shared = onnxlint("check", "s3://models/faces/", "--isolated", "--format", "jsonl", "-j", "2")
    assert shared.out == alone.out


def test_what_is_missing_is_one_line(bucket: Any) -> None:
    for address, says in (
        ("s3://models/faces/none.onnx", "no such file in the store"),
        ("s3://nothing/none.onnx", "no such file in the store"),
        ("s3://models/none/", "no models here"),
        ("s3://models/none*.onnx", "no models here"),
        ("nosuch://models/x.onnx", "cannot be read"),
    ):
        outcome = onnxlint("check", address, "--isolated", "--format", "jsonl")
        assert outcome.code == 2, address
        assert says in outcome.err
        assert outcome.err.count("\n") == 1


def test_a_configuration_excludes_by_what_follows_the_scheme(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "onnxlint.toml").write_text('exclude = ["models/faces/deep/**"]\n')
    outcome = onnxlint("check", "s3://models/faces/", "--format", "jsonl")
    assert [one["path"] for one in lines(outcome.out)] == ["s3://models/faces/bad.onnx"]


def test_the_cache_knows_objects_by_their_etag(bucket: Any, tmp_path: Path) -> None:
    words = ("check", "s3://models/faces/", "--isolated", "--format", "jsonl", "--cache-dir", str(tmp_path / "cache"))
    first = onnxlint(*words)
    second = onnxlint(*words)
    assert "2 results of 2 from the cache" in second.err
    assert second.out == first.out
    save(tmp_path / "other.onnx", CLEAN)
    bucket.put_object(Bucket="models", Key="faces/bad.onnx", Body=(tmp_path / "other.onnx").read_bytes())
    third = onnxlint(*words)
    assert "1 result of 2 from the cache" in third.err
    assert [len(one["findings"]) for one in lines(third.out)] == [0, 0]


def test_external_data_beside_a_remote_model_is_not_called_missing(bucket: Any, tmp_path: Path) -> None:
    model = """<ir_version: 8, opset_import: ["": 13]>
    g (float[4] x) => (float[4] y) <float[4] w = ["location": "%s", "offset": "0", "length": "16"]> { y = Add (x, w) }"""
    for key, location in (("beside", "w.bin"), ("outside", "../w.bin")):
        save(tmp_path / "m.onnx", model % location)
        bucket.put_object(Bucket="models", Key=f"{key}.onnx", Body=(tmp_path / "m.onnx").read_bytes())
    words = ("--isolated", "--select", "SEC", "--format", "jsonl")
    (beside,) = lines(onnxlint("check", "s3://models/beside.onnx", *words).out)
    (outside,) = lines(onnxlint("check", "s3://models/outside.onnx", *words).out)
    assert beside["findings"] == []
    assert [one["code"] for one in outside["findings"]] == ["SEC001"]


def test_a_large_object_is_read_in_ranges(bucket: Any, tmp_path: Path) -> None:
    from onnxlint.model.skeleton import open_model
    from onnxlint.store.ranges import RemoteBytes

    large = save_large(tmp_path / "large.onnx", 12, 1 << 20)
    with large.open("rb") as body:
        bucket.put_object(Bucket="models", Key="large.onnx", Body=body)
    model = open_model("s3://models/large.onnx", remote=True)
    assert model.proto.graph.node[11].name == "/net/add11"
    assert isinstance(model.buffer, RemoteBytes)
    assert model.buffer.fetched < 0.05 * model.size
    assert model.array(model.proto.graph.initializer[0]).sum() == 0


def test_credentials_are_in_no_message(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    outcome = onnxlint("check", "s3://elsewhere/x.onnx", "--isolated")
    assert outcome.code == 2
    assert "secret" not in outcome.out
    assert "KEYNAME" not in outcome.out


def test_addresses_are_told_from_files() -> None:
    assert is_remote("s3://bucket/key.onnx")
    assert is_remote("zip://model.onnx::s3://bucket/all.zip")
    assert not any(map(is_remote, ["model.onnx", "C:\\models\\a.onnx", "a/b.onnx", "s3/x.onnx", "-", "c://x"]))
    assert shown("https://me:word@host/x.onnx?key=1") == "https://host/x.onnx?…"
