"""How command lines are read: values in separate words, synonyms, old spellings, completion, and what start-up imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxlint.cli.commands import COMMANDS
from onnxlint.cli.words import normalized
from tests.support.command import BAD, CLEAN, onnxlint, save


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save(tmp_path / "clean.onnx", CLEAN)
    save(tmp_path / "bad.onnx", BAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


OPTIONS = {
    "--to": "TARGETS", "--format": "FORMAT", "-o": "FILE", "--mean": "A,B,C", "--select": "RULES", "--fail-if": "COND",
    "--concat-heads": "", "--heads": "NAMES", "--write-baseline": "[FILE]", "--quiet": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("m.onnx --to ncnn onnx-fp16 -o x", "m.onnx --to=ncnn --to=onnx-fp16 -o x"),
        ("--to ncnn,onnx-fp16 all m.onnx", "--to=ncnn,onnx-fp16 --to=all m.onnx"),
        ("--type onnx_fp16 m.onnx", "--to=onnx_fp16 m.onnx"),
        ("--type=onnx_fp16 m.onnx", "--to=onnx_fp16 m.onnx"),
        ("--output-format json m.onnx", "--format=json m.onnx"),
        ("--mean 104 117 123 m.onnx", "--mean=104,117,123 m.onnx"),
        ("--mean 1/127.5 -0.5 .5", "--mean=1/127.5,-0.5 .5"),
        ("--select SHP OUT001 m.onnx", "--select=SHP --select=OUT001 m.onnx"),
        ("--select shape-chain m.onnx", "--select=shape-chain m.onnx"),
        ("--fail-if snr<20 ap<0.9 m.onnx", "--fail-if=snr<20 --fail-if=ap<0.9 m.onnx"),
        ("--concat-heads m.onnx", "--concat-heads m.onnx"),
        ("--concat-heads bbox,class m.onnx", "--heads=bbox,class m.onnx"),
        ("--concat-heads=bbox,class m.onnx", "--heads=bbox,class m.onnx"),
        ("--concat-heads=yes m.onnx", "--concat-heads=yes m.onnx"),
        ("--concat-heads a,b.onnx", "--concat-heads a,b.onnx"),
        ("m.onnx --concat-heads", "m.onnx --concat-heads"),
        ("--write-baseline m.onnx", "--write-baseline= m.onnx"),
        ("--write-baseline b.json m.onnx", "--write-baseline=b.json m.onnx"),
        ("-- --to a b", "-- --to a b"),
        ("--zzz a b", "--zzz a b"),
        ("--quiet m.onnx -o x", "--quiet m.onnx -o x"),
        ("-ox m.onnx", "-ox m.onnx"),
    ],
)
def test_words_are_read_by_how_they_are_spelt(words: str, read: str) -> None:
    def is_target(option: str, word: str) -> bool:
        return word in ("ncnn", "onnx-fp16", "all")

    assert normalized(words.split(), OPTIONS, is_target) == read.split()


def test_no_word_is_read_by_what_files_exist(here: Path) -> None:
    (here / "bbox,class").write_bytes((here / "bad.onnx").read_bytes())
    outcome = onnxlint("fix", "clean.onnx", "--diff", "--concat-heads", "bbox,class")
    assert outcome.code == 2
    assert "bbox" in outcome.err


def test_synonyms(here: Path) -> None:
    assert onnxlint("lint", "bad.onnx").out == onnxlint("check", "bad.onnx").out
    assert onnxlint("explain", "SHP001").out == onnxlint("rule", "SHP001").out
    assert onnxlint("check", "bad.onnx", "--output-format", "json").json


def test_a_name_with_a_dash_and_standard_input_that_is_closed(here: Path) -> None:
    save(here / "-dash.onnx", CLEAN)
    assert onnxlint("check", "--", "-dash.onnx").code == 0
    closed = subprocess.run(
        [sys.executable, "-m", "onnxlint", "check", "-"],
        capture_output=True, text=True, timeout=60, check=False, preexec_fn=lambda: os.close(0),
    )  # fmt: skip
    assert closed.returncode == 2
    assert closed.stdout + closed.stderr != ""
    assert "Traceback" not in closed.stderr


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_names_that_are_not_utf8(here: Path) -> None:
    name = os.fsdecode(b"caf\xe9.onnx")
    try:
        save(here / name, BAD)
    except OSError:
        pytest.skip("the file system wants UTF-8")
    for words in (["check", name], ["check", name, "--format", "json"], ["fix", name, "--diff"], ["config", name]):
        outcome = onnxlint(*words)
        assert outcome.code in (0, 1)
        assert (outcome.out + outcome.err).encode()  # nothing that cannot be written


def test_hostile_names_stay_text(here: Path) -> None:
    for name in ("[red]x[/red].onnx", "\x1b[31mx.onnx", "a\n::error::x.onnx"):
        outcome = onnxlint("check", name)
        assert outcome.code == 2
        assert "\x1b" not in outcome.err + outcome.out
        assert "\n::error" not in outcome.err + outcome.out
        outcome = onnxlint("check", "--", "bad.onnx", f"--{name}")
        assert "\x1b" not in outcome.err + outcome.out


def imported(*words: str) -> set[str]:
    """Modules of onnxlint and others that a command line imports."""
    code = (
        "import sys; from onnxlint.cli.app import run; run(sys.argv[1:]); "
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.split())


def test_help_imports_no_command_and_a_command_no_other() -> None:
    modules = {entry.module for entry in COMMANDS.values()}
    assert not modules & imported("--help")
    assert not {"rich", "onnx", "numpy", "typer.rich_utils"} & imported("--help")
    assert modules & imported("check", "--help") == {"onnxlint.cli.check"}
    assert not {"rich", "onnx", "numpy"} & imported("check", "--help")


def completed(words: str) -> str:
    """What bash is offered for the last word."""
    environment = {
        **os.environ,
        "_ONNXLINT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "onnxlint"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("onnxlint ch", ["check"]),
        ("onnxlint ncnn ", ["table", "quantize"]),
        ("onnxlint check --sel", ["--select"]),
        ("onnxlint check --select SHP00", ["SHP001", "SHP002"]),
        ("onnxlint check --select OUT001,SHP00", ["OUT001,SHP001"]),
        ("onnxlint rule OUT00", ["OUT001"]),
        ("onnxlint check --target tens", ["tensorrt"]),
        ("onnxlint check --format sa", ["sarif"]),
        ("onnxlint convert --to ncnn-", ["ncnn-fp16", "ncnn-int8"]),
        ("onnxlint compare --preset ima", ["imagenet"]),
        ("onnxlint compare --format h", ["html"]),
        ("onnxlint compare --task class", ["classification"]),
    ],
)
def test_completion(words: str, offered: list[str]) -> None:
    assert set(offered) <= set(completed(words).split())


def test_completion_can_be_installed() -> None:
    environment: dict[str, Any] = {
        **os.environ,
        "SHELL": "/bin/bash",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "onnxlint", "--show-completion", "bash"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "_ONNXLINT_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("option", "example"),
    [
        ("--bind", "--bind: needs a value (NAME=VALUE), such as '"),
        ("--multiple-of", "--multiple-of: needs a value (N), such as 32"),
        ("--heads", ", such as bbox,cls,ldm"),
        ("-o", "-o: needs a value (FILE), such as fixed.onnx"),
    ],
)
def test_a_missing_value_is_shown_by_an_example(here: Path, option: str, example: str) -> None:
    outcome = onnxlint("fix", "bad.onnx", option)
    assert outcome.code == 2
    assert example in outcome.err
    assert outcome.err.count("\n") == 1


def test_commands_that_write_several_files_name_their_option(here: Path) -> None:
    for command in ("convert", "deploy"):
        outcome = onnxlint(command, "bad.onnx", "--to", "onnx-fp16", "-o", "x.onnx")
        assert outcome.code == 2
        assert "no such option: -o; this command writes several files: use --out-dir DIR" in outcome.err
    assert "--out-dir" not in onnxlint("rules", "-o", "x").err


@pytest.mark.parametrize(
    "words",
    [
        ("check", "clean.onnx", "-o", "URL"),
        ("check", "clean.onnx", "--cache-dir", "URL"),
        ("check", "clean.onnx", "--config", "URL"),
        ("fix", "bad.onnx", "-o", "URL"),
        ("fix", "bad.onnx", "--out-dir", "URL"),
        ("convert", "clean.onnx", "--to", "onnx-fp16", "--out-dir", "URL"),
        ("compare", "clean.onnx", "clean.onnx", "--images", "URL"),
        ("compare", "clean.onnx", "URL"),
        ("deploy", "clean.onnx", "--out-dir", "URL"),
        ("demo", "URL"),
    ],
)
def test_an_address_is_no_folder(here: Path, words: tuple[str, ...]) -> None:
    """The system would make a folder `s3:` of it, and the command would say that it wrote to the store."""
    before = sorted(here.iterdir())
    outcome = onnxlint(*(word.replace("URL", "s3://user:secret@bucket/x.onnx") for word in words))
    assert outcome.code == 2
    assert "s3://bucket/x.onnx" in outcome.err
    assert "secret" not in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(here.iterdir()) == before
