"""Results that are kept: used where nothing changed that they depend on, and only there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxlint.lint import cache as caches
from tests.support.command import BAD, CLEAN, Outcome, onnxlint, save
from tests.support.large import save_large

COUNT = 6


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models that were written a while ago."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for i in range(COUNT):
        save(tmp_path / f"models/m{i}.onnx", BAD if i % 2 else CLEAN, f"part{i}")
    time.sleep(caches.JUST_WRITTEN / 1e9)
    return tmp_path


def check(*words: str | Path) -> Outcome:
    return onnxlint(
        "check", *(words or ("models",)), "--isolated", "--format", "jsonl", "--cache-dir", "cache", "-j", "1"
    )


def reused(outcome: Outcome) -> int:
    """How many results came from the cache, as the user is told."""
    lines = [line for line in outcome.err.splitlines() if "from the cache" in line]
    return int(lines[0].split()[1]) if lines else 0


def test_a_second_run_is_the_first(here: Path) -> None:
    first, second = check(), check()
    assert (reused(first), reused(second)) == (0, COUNT)
    assert (second.out, second.code) == (first.out, first.code)


def test_reports_of_kept_results_are_equal_in_every_format(here: Path) -> None:
    check()
    for name in ("text", "json", "sarif", "gitlab", "markdown", "html"):
        plain = onnxlint("check", "models", "--isolated", "--format", name)
        kept = onnxlint("check", "models", "--isolated", "--format", name, "--cache-dir", "cache")
        assert kept.out == plain.out
        assert (reused(kept) > 0) == (name not in ("markdown", "html"))


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_that_are_not_utf8(here: Path) -> None:
    name = os.fsdecode(b"caf\xe9.onnx")
    os.rename("models/m0.onnx", f"models/{name}")
    time.sleep(caches.JUST_WRITTEN / 1e9)
    first, second = check(), check()
    assert (first.code, second.code) == (1, 1)
    assert (reused(first), reused(second)) == (0, COUNT)
    assert first.out == second.out


def test_a_changed_model_is_checked_again(here: Path) -> None:
    check()
    old = os.stat("models/m0.onnx")
    save(here / "models/m0.onnx", BAD, "part0")
    os.utime("models/m0.onnx", ns=(old.st_atime_ns, old.st_mtime_ns))  # its time of change tells all the same
    again = check()
    assert reused(again) == COUNT - 1
    assert again.out == onnxlint("check", "models", "--isolated", "--format", "jsonl").out


def test_a_copy_is_known_by_its_content(here: Path) -> None:
    check()
    copied = here / "copy.onnx"
    copied.write_bytes((here / "models/m1.onnx").read_bytes())
    time.sleep(caches.JUST_WRITTEN / 1e9)
    outcome = check("copy.onnx")
    assert reused(outcome) == 1
    assert outcome.out == onnxlint("check", "copy.onnx", "--isolated", "--format", "jsonl").out


def test_a_file_that_was_just_written_is_not_kept(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "JUST_WRITTEN", 60 * 10**9)
    check()
    assert reused(check()) == 0


def test_large_files_are_known_by_what_the_file_system_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "HASHED", 1000)
    save_large(here / "large.onnx", 2, 1 << 16)
    time.sleep(caches.JUST_WRITTEN / 1e9)
    assert [reused(check("large.onnx")) for _ in range(2)] == [0, 1]
    os.utime(here / "large.onnx")
    time.sleep(caches.JUST_WRITTEN / 1e9)
    assert reused(check("large.onnx")) == 0


def test_rules_options_and_severities_count(here: Path) -> None:
    check()
    for words in (("--ignore", "SHP001"), ("--target", "ncnn"), ("--weights",), ("--severity", "SHP001=error")):
        kept = onnxlint("check", "models", "--isolated", "--format", "jsonl", "--cache-dir", "cache", *words)
        assert reused(kept) == 0
        assert kept.out == onnxlint("check", "models", "--isolated", "--format", "jsonl", *words).out


def test_the_code_of_a_team_rule_counts(here: Path) -> None:
    from tests.lint.test_configuration import TEAM_RULE

    (here / "rules").mkdir()
    (here / "rules/team.py").write_text(TEAM_RULE)
    (here / "onnxlint.toml").write_text('rule-paths = ["rules"]')
    command = [sys.executable, "-m", "onnxlint", "check", "models", "--format", "jsonl", "--cache-dir", "cache"]

    def said() -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stderr

    assert "from the cache" not in said()
    assert f"{COUNT} results of {COUNT} from the cache" in said()
    (here / "rules/team.py").write_text(TEAM_RULE + "\n# another version\n")
    assert "from the cache" not in said()


def test_models_with_external_data_are_checked_each_time(here: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]>
    g (float[4] x) => (float[4] y) <float[4] w = ["location": "w.bin", "length": "16"]> { y = Add (x, w) }"""
    save(here / "external.onnx", text)
    (here / "w.bin").write_bytes(bytes(16))
    time.sleep(caches.JUST_WRITTEN / 1e9)
    first = check("external.onnx")
    (here / "w.bin").unlink()
    second = check("external.onnx")
    assert "SEC002" not in first.out
    assert "SEC002" in second.out


def test_what_could_not_be_checked_is_not_kept(here: Path) -> None:
    (here / "broken.onnx").write_bytes(b"\x08\x07broken")
    time.sleep(caches.JUST_WRITTEN / 1e9)
    assert [reused(check("broken.onnx")) for _ in range(2)] == [0, 0]


def test_no_cache_and_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXLINT_CACHE_DIR", str(here / "from-environment"))
    words = ("check", "models", "--isolated", "--format", "jsonl")
    onnxlint(*words, "--no-cache")
    assert not (here / "from-environment").exists()
    onnxlint(*words)
    assert reused(onnxlint(*words)) == COUNT
    assert reused(onnxlint(*words, "--no-cache")) == 0


def test_a_damaged_cache_is_one_line_and_damaged_results_are_made_again(here: Path) -> None:
    first = check()
    with sqlite3.connect(here / "cache" / caches.NAME) as base:
        base.execute("UPDATE results SET result = '[1, 2' WHERE id = 1")
        base.execute("UPDATE results SET result = '[0, [], [[\"SHP001\"]]]' WHERE id = 2")
    again = check()
    assert again.out == first.out
    assert reused(again) == COUNT - 2
    (here / "cache" / caches.NAME).write_bytes(b"no database" * 1000)
    for end in ("-wal", "-shm"):
        (here / "cache" / (caches.NAME + end)).unlink(missing_ok=True)
    broken = check()
    assert broken.code == 2
    assert "the cache cannot be used" in broken.err
    assert "--no-cache" in broken.err


def test_an_interrupted_run_continues(here: Path) -> None:
    """Killed without warning in the middle: what was committed is not checked again, and the end is the same."""
    for i in range(60):
        save(here / f"models/n{i:02}.onnx", BAD, f"module{i}")
    time.sleep(caches.JUST_WRITTEN / 1e9)
    code = "from onnxlint.lint import cache; cache.COMMIT_SECONDS = 0.0; from onnxlint.cli.app import main; main()"
    words = ("check", "models", "--isolated", "--format", "jsonl", "--cache-dir", "cache", "-j", "1")
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    rest = check()
    assert reused(rest) >= 10
    assert rest.out == onnxlint("check", "models", "--isolated", "--format", "jsonl").out
