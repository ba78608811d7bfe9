"""The command line as a user sees it: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onnxlint.cli.commands import COMMANDS
from onnxlint.report import FORMATS
from onnxlint.version import __version__
from tests.support.command import BAD, CLEAN, onnxlint, save, unmeasured
from tests.support.old_versions import have

DATA = Path(__file__).parents[3] / "shared" / "data" / "retinaface"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository to work in, with a clean and a bad model."""
    (tmp_path / ".git").mkdir()
    save(tmp_path / "clean.onnx", CLEAN)
    save(tmp_path / "bad.onnx", BAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    command = [sys.executable, "-m", "onnxlint", *words]
    run: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )
    return run


def team_rule(folder: Path, body: str, needs_weights: bool = False) -> None:
    """Write rule TEA001, which does `body` for every model, and the configuration that loads it."""
    from tests.lint.test_configuration import TEAM_RULE

    head, _, _ = TEAM_RULE.partition("        for node in view.nodes")
    (folder / "rules").mkdir()
    head = head.replace("    help =", f"    needs_weights = {needs_weights}\n    help =")
    (folder / "rules/team.py").write_text(f"{head}        {body}\n        yield from ()\n")
    (folder / "onnxlint.toml").write_text('rule-paths = ["rules"]')


# Exit codes and streams


def test_a_clean_model_passes(here: Path) -> None:
    outcome = onnxlint("check", "clean.onnx")
    assert (outcome.code, outcome.err) == (0, "")


def test_findings_fail_and_stand_on_stdout(here: Path) -> None:
    outcome = onnxlint("check", "bad.onnx")
    assert outcome.code == 1
    assert outcome.err == ""
    assert "bad.onnx" in outcome.out
    assert outcome.out.count("warning SHP001") == 2


def test_fail_on_and_exit_zero(here: Path) -> None:
    check = ("check", "bad.onnx", "--select", "SHP001")
    assert onnxlint(*check, "--fail-on", "error").code == 0
    assert onnxlint(*check, "--fail-on", "info").code == 1
    assert onnxlint(*check, "--fail-on", "never").code == 0
    assert onnxlint(*check, "--exit-zero").code == 0
    assert onnxlint(*check, "--severity", "resize-by-sizes=error", "--fail-on", "error").code == 1


@pytest.mark.parametrize("broken", [b"", b"\x0a\xff\xff\xff\xff\x0f", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_bad_file_does_not_stop_the_others_but_counts_most(here: Path, broken: bytes) -> None:
    (here / "broken.onnx").write_bytes(broken)
    outcome = onnxlint("check", "broken.onnx", "bad.onnx", "--exit-zero")
    assert outcome.code == 2
    assert "SHP001" in outcome.out
    assert "broken.onnx" in outcome.out


def test_missing_files_and_empty_folders(here: Path) -> None:
    (here / "empty").mkdir()
    outcome = onnxlint("check", "nope.onnx", "empty", "clean.onnx", "*.pt", "--format", "json")
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "error: nope.onnx: no such file; check the path",
        "error: empty: no models in this folder; models end in .onnx, .onnxtxt, .onnxtext",
        "error: *.pt: no file matches; check the pattern",
    ]


def test_the_working_directory_is_the_default(here: Path) -> None:
    assert onnxlint("check").code == 1
    assert "bad.onnx" in onnxlint("check").out


def test_standard_input(here: Path) -> None:
    assert onnxlint("check", "-", stdin=(here / "clean.onnx").read_bytes()).code == 0
    assert onnxlint("check", "-", stdin=(here / "bad.onnx").read_bytes()).code == 1
    assert onnxlint("check", "-", stdin=CLEAN.strip().encode()).code == 0
    assert onnxlint("check", "-").code == 2


def test_options_may_stand_anywhere(here: Path) -> None:
    outcome = onnxlint("check", "clean.onnx", "--select", "SHP001", "bad.onnx", "--format=json")
    assert outcome.code == 1
    assert "bad.onnx" in outcome.out


# Selection


def test_a_misspelt_rule_is_an_error_not_a_pass(here: Path) -> None:
    outcome = onnxlint("check", "clean.onnx", "--select", "NOPE")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: --select: no rule is called 'NOPE'; ")
    assert outcome.err.endswith("'onnxlint rules' lists them\n")
    assert "did you mean 'SHP001'?" in onnxlint("check", "empty", "--select", "SHQ001").err
    assert onnxlint("check", "clean.onnx", "--select", "").code == 2


def test_lists_by_commas_and_by_repetition(here: Path) -> None:
    outcome = onnxlint("check", "bad.onnx", "--select", "OUT001, SHP002", "--select=SHP001", "--ignore", "SHP002")
    assert outcome.out.count("SHP001") >= 2
    assert "SHP002" not in outcome.out


def test_only_selected_rules_run(here: Path) -> None:
    team_rule(here, "open('ran', 'w').close()")
    assert onnxlint("check", "clean.onnx", "--select", "SHP001").code == 0
    assert not (here / "ran").exists()
    onnxlint("check", "clean.onnx", "--ignore", "TEA")
    assert not (here / "ran").exists()
    onnxlint("check", "clean.onnx")
    assert (here / "ran").exists()


def test_a_rule_that_fails_does_not_take_the_others_down(here: Path) -> None:
    team_rule(here, "raise KeyError('oops')")
    outcome = onnxlint("check", "bad.onnx", "--format", "json")
    assert outcome.code == 2
    assert "SHP001" in outcome.out
    assert outcome.err.startswith("error: bad.onnx: TEA001 failed with KeyError at team.py:")
    assert outcome.err.count("\n") == 1


# Reports


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_renders_findings_errors_and_nothing(here: Path, format: str) -> None:
    findings = onnxlint("check", "bad.onnx", "nope.onnx", "--format", format)
    assert findings.code == 2
    assert "SHP001" in findings.out
    assert "Traceback" not in findings.err
    assert onnxlint("check", "clean.onnx", "--format", format).code == 0


def test_json_of_two_files_is_one_document(here: Path) -> None:
    document = onnxlint("check", "bad.onnx", "clean.onnx", "--format", "json").json
    assert "clean.onnx" in json.dumps(document)
    assert "bad.onnx" in json.dumps(document)


def test_github_annotations_name_files_that_exist(here: Path) -> None:
    outcome = onnxlint("check", "bad.onnx", "--format", "github", "--select", "SHP001")
    files = [
        line.split("file=")[1].split(",")[0].split("::")[0] for line in outcome.out.splitlines() if "file=" in line
    ]
    assert len(files) >= 2
    assert all((here / name).is_file() for name in files)


def test_a_report_in_a_file(here: Path) -> None:
    outcome = onnxlint("check", "bad.onnx", "nope.onnx", "--format", "json", "-o", "report.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: nope.onnx: no such file; check the path\n"
    assert "SHP001" in json.dumps(json.loads((here / "report.json").read_text()))
    assert onnxlint("check", "clean.onnx", "--output", "report.txt").err == ""


@pytest.mark.parametrize("place", ["nope/report.json", "."])
def test_a_report_that_cannot_be_written_is_known_before_the_work(here: Path, place: str) -> None:
    team_rule(here, "open('ran', 'w').close()")
    outcome = onnxlint("check", "bad.onnx", "--output", place)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {place}: ")
    assert not (here / "ran").exists()


def test_an_unknown_format_names_the_nearest(here: Path) -> None:
    outcome = onnxlint("check", "bad.onnx", "--format", "sarf")
    assert (outcome.code, outcome.err) == (2, "error: no report format is called 'sarf'; did you mean 'sarif'?\n")


def test_statistics_and_quiet(here: Path) -> None:
    outcome = onnxlint("check", "bad.onnx", "--statistics", "--select", "SHP001")
    assert "2  SHP001  resize-by-sizes" in outcome.out
    team_rule(here, "return", needs_weights=True)
    assert "TEA001" in onnxlint("check", "clean.onnx", "--select", "ALL").err
    assert (
        "note: TEA001 did not run: reads weights, which --weights allows\n"
        in onnxlint("check", "clean.onnx", "--select", "OUT,TEA").err
    )
    assert onnxlint("check", "clean.onnx", "--select", "ALL", "--quiet").err == ""


def test_colors_only_where_they_are_wanted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in onnxlint("check", "bad.onnx").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" in onnxlint("check", "bad.onnx").out
    assert "\x1b" not in onnxlint("check", "bad.onnx", "--no-color").out
    onnxlint("check", "bad.onnx", "-o", "report.txt")
    assert "\x1b" not in (here / "report.txt").read_text()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in onnxlint("check", "bad.onnx").out


def test_names_of_files_are_never_shown_raw(here: Path) -> None:
    save(here / "a\x1b[31m.onnx", BAD)
    for words in (["a\x1b[31m.onnx"], ["a\x1b[32m.onnx"], ["--select", "\x1b[31m", "clean.onnx"]):
        outcome = onnxlint("check", *words)
        assert "\x1b" not in outcome.out + outcome.err
    assert "\x1b" not in onnxlint("\x1b[31m.onnx").err


# Mistakes in the command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("chek bad.onnx", "no such command: chek; did you mean 'check'?"),
        ("zzz", "no such command: zzz; choose from demo, export, check, "),
        ("bad.onnx", "bad.onnx is not a command; did you mean 'onnxlint check bad.onnx'?"),
        ("nope.onnx -j 2", "nope.onnx is not a command; did you mean 'onnxlint check nope.onnx -j 2'?"),
        ("--select SHP bad.onnx", "--select is not a command; did you mean 'onnxlint check --select SHP bad.onnx'?"),
        ("check --selct SHP", "no such option: --selct; did you mean '--select'?"),
        ("check --statistic", "no such option: --statistic; did you mean '--statistics'?"),
        ("check --zzz", "no such option: --zzz; see 'onnxlint check --help'"),
        ("check --fail-on wrn", "--fail-on: 'wrn' is not a level; did you mean 'warning'?"),
        ("check -x", "no such option: -x; see 'onnxlint check --help'"),
        ("check -j x", "--jobs: 'x' is not a whole number from 0; see 'onnxlint check --help'"),
        ("compare a b --threads 99999999", "--threads: '99999999' is not a whole number from 1 to 1,024; see"),
        ("check --min-opset 0", "--min-opset: '0' is not a whole number from 1; see 'onnxlint check --help'"),
        (f"check --min-opset {'9' * 5000}", "--min-opset: '" + "9" * 40 + "…' is not a whole number from 1"),
        ("check --severity SHP001=fatal", "--severity: 'SHP001=fatal' is not of the form CODE=error"),
        ("check --config", "--config: needs a value (FILE); see 'onnxlint check --help'"),
        ("check --config= bad.onnx", "--config: needs a value (FILE); see 'onnxlint check --help'"),
        ("fix bad.onnx --diff --unsafe=yes", "--unsafe: does not take a value; see 'onnxlint fix --help'"),
        ("fix bad.onnx --diff --concat-heads=yes", "--concat-heads: does not take a value; see 'onnxlint fix --help'"),
        ("fix bad.onnx --diff --axis 1", "--axis needs --concat-heads or --heads NAMES"),
        ("fix bad.onnx --axis x", "--axis: 'x' is not a whole number from -64 to 63; see 'onnxlint fix --help'"),
        ("fix bad.onnx --unsafe yes -o x.onnx", "-o names one file, and 2 models are given: use --out-dir DIR or"),
        ("fix bad.onnx --diff --heads=", "--heads: needs a value (NAMES), such as bbox,cls,ldm"),
        ("check --select --ignore SHP", "--select: needs a value (RULES); see 'onnxlint check --help'"),
        ("check bad.onnx -o", "-o: needs a value (FILE); see 'onnxlint check --help'"),
        ("check --fix bad.onnx", "no such option: --fix; 'onnxlint fix MODEL -o FILE' fixes models"),
        ("check --explain SHP001", "no such option: --explain; 'onnxlint rule CODE' explains a rule"),
        ("quantize bad.onnx", "no such command: quantize; use 'onnxlint convert MODEL --to onnx-int8-static'"),
        ("simplify bad.onnx", "no such command: simplify; 'onnxlint fix MODEL -o FILE' simplifies a model"),
        ("info bad.onnx", "no such command: info; 'onnxlint check MODEL' reports problems"),
        ("--versoin", "no such option: --versoin; did you mean '--version'?"),
        ("ncnn tabel", "no such command: tabel; did you mean 'table'?"),
        ("fix --dynamic", "--dynamic: needs a value (SHAPE), such as 'image=N,3,H,W'"),
        ("fix bad.onnx --dynamic", "--dynamic: needs a value (SHAPE), such as 'image=N,4,H,W'"),
        ("fix bad.onnx --static --diff", "--static: needs a value (SHAPE), such as 'image=1,4,640,640'"),
        ("fix bad.onnx", "no output given: use -o FILE, --in-place, --out-dir DIR or --diff"),
        (
            "convert bad.onnx --to ncnn onnx-fp61",
            "unexpected argument: onnx-fp61; did you mean the target 'onnx-fp16'?",
        ),
        ("convert bad.onnx", "missing --to (for example --to ncnn-int8); 'onnxlint convert --list' shows all targets"),
        ("convert", "missing argument: MODEL with --to TARGETS (or --manifest FILE, to repeat a conversion)"),
        ("compare bad.onnx", "missing argument: CANDIDATE; see 'onnxlint compare --help'"),
        ("check --target ncn clean.onnx", "--target: "),
        ("rule resize-by-size", "no rule is called 'resize-by-size'; did you mean 'resize-by-sizes'?"),
        ("rule SHP001 SHP002", "unexpected argument: SHP002; see 'onnxlint rule --help'"),
        ("rules --format yaml", "--format: no such value: 'yaml'; choose from text, json"),
        ("rules --format jsn", "--format: no such value: 'jsn'; did you mean 'json'?"),
        ("rule", "missing argument: CODE; see 'onnxlint rule --help'"),
        ("test-rules nope.py", "nope.py: no such file or folder of rules"),
    ],
)
def test_mistakes_are_one_line_with_the_way_out(here: Path, words: str, message: str) -> None:
    outcome = onnxlint(*words.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith(f"error: {message}")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"demo"}))
def test_an_unset_variable_is_said(here: Path, command: str) -> None:
    for words in ([""], ["bad.onnx", ""], ["--", ""]):
        outcome = onnxlint(*command.split(), *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == "error: an argument is empty: is a variable of the command line unset?\n"


def test_without_anything_the_help_is_shown_and_nothing_passes() -> None:
    outcome = onnxlint()
    assert outcome.code == 2
    assert "onnxlint COMMAND" in outcome.out
    assert onnxlint("--help").code == 0
    assert onnxlint("--help").out == outcome.out
    assert (onnxlint("ncnn").code, onnxlint("ncnn", "-h").code) == (2, 0)
    assert "  table     Make a calibration table" in onnxlint("ncnn").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = onnxlint(*command.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: onnxlint {command}")
    assert COMMANDS[command].about in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80
    for spelt in (["help", *command.split()], [*command.split(), "--zzz", "-h"]):
        assert onnxlint(*spelt).out == outcome.out
    assert max(map(len, onnxlint("--help").out.splitlines())) <= 80


def test_the_version() -> None:
    assert onnxlint("--version").out == f"onnxlint {__version__}\n"


# The other commands


def test_the_catalogue() -> None:
    lines = onnxlint("rules").out.splitlines()
    assert any(line.startswith("SHP001  resize-by-sizes") and "  warning  " in line for line in lines)
    entries = onnxlint("rules", "--format", "json").json
    assert [entry["code"] for entry in entries] == [line[:6] for line in lines]
    assert {"code", "name", "summary", "severity", "status", "targets", "needs_weights", "default"} <= set(entries[0])


@pytest.mark.parametrize("name", ["SHP001", "shp001", "resize-by-sizes"])
def test_a_rule_page_by_any_name(name: str) -> None:
    outcome = onnxlint("rule", name)
    assert outcome.code == 0
    assert outcome.out.startswith("# SHP001: resize-by-sizes\n")
    assert "## Fix it at the source" in outcome.out


def test_examples_that_do_not_hold(here: Path) -> None:
    team_rule(here, "pass")
    outcome = onnxlint("test-rules", "rules")
    assert outcome.code == 1
    assert outcome.out == "FAILED  TEA001 bad 1 fires\n    0 findings in place of 1:\n1 failed\n"


def test_rules_that_are_not_complete(here: Path) -> None:
    team_rule(here, "pass")
    path = here / "rules/team.py"
    path.write_text(path.read_text().replace("## Fix safety", "## Safety"))
    for words in (["test-rules", "rules"], ["check", "clean.onnx"], ["rules"]):
        outcome = onnxlint(*words)
        assert outcome.code == 2
        assert "lacks these sections in its docstring: Fix safety" in outcome.err
    (here / "rules/other.py").write_text("import nothing_of_this_name")
    assert "other.py: cannot be imported: ModuleNotFoundError" in onnxlint("test-rules", "rules/other.py").err


# Many models, and the real program


def test_workers_give_the_same_report(here: Path) -> None:
    for i in range(6):
        save(here / f"more/{i}.onnx", BAD if i % 2 else CLEAN)
    (here / "more/3.onnx").write_bytes(b"broken")
    one = onnxlint("check", "more", "-j", "1")
    two = onnxlint("check", "more", "-j", "2")
    assert one.code == two.code == 2
    assert one.out == two.out


@pytest.mark.skipif(os.name == "nt", reason="start methods of POSIX")
def test_workers_that_are_not_forked(here: Path) -> None:
    # The default of macOS and Windows, and in another form of Linux since Python 3.14.
    team_rule(here, "yield self.found(view.at(), 'seen')")
    code = (
        "import multiprocessing; multiprocessing.set_start_method('spawn'); "
        "from onnxlint.cli.app import run; run(['check', '--select', 'TEA', '-j', '2', 'clean.onnx', 'bad.onnx'])"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert outcome.stderr == ""
    assert outcome.stdout.count("seen") == 2


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_progress_is_shown_on_a_terminal_when_it_takes_long(here: Path) -> None:
    import pty

    team_rule(here, "import time; time.sleep(1.5)")
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "onnxlint", "check", "clean.onnx", "--select", "TEA"]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=end, text=True, timeout=60, check=True, env=environment
    )
    os.close(end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "Checking models" in shown
    assert shown.rstrip("\r").endswith(("\x1b[2K", "\x1b[?25h\r\x1b[1A\x1b[2K"))  # and wiped again
    assert "Checking" not in process.stdout


def test_the_program_itself(here: Path) -> None:
    outcome = program("check", "bad.onnx", "nope.onnx", "--format", "json")
    assert outcome.returncode == 2
    assert json.loads(outcome.stdout)
    assert outcome.stderr == "error: nope.onnx: no such file; check the path\n"
    assert program("check", "bad.onnx").returncode == 1
    assert program("check", "clean.onnx").returncode == 0
    assert program("--version").stdout == f"onnxlint {__version__}\n"


def test_start_up_imports_nothing_heavy(here: Path) -> None:
    click = "'click', " if have("typer") >= (0, 26) else ""  # before, typer is made of it
    code = (
        "import sys; from onnxlint.cli.app import run; run(['check', 'bad.onnx']); "
        f"heavy = {{'torch', 'onnxruntime', 'onnx_graphsurgeon', 'sympy', 'onnx_ir', {click}'rich', 'pydantic', "
        "'typer.rich_utils', 'jsonschema', 'tomllib', 'multiprocessing.pool', "
        "'concurrent.futures.process', 'asyncio', 'xml', 'sqlite3'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=unmeasured()
    )
    assert outcome.stderr == "[]\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error(here: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        outcome = subprocess.run(
            [sys.executable, "-m", "onnxlint", "check", "bad.onnx"],
            stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (outcome.returncode, outcome.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error(here: Path) -> None:
    with open("/dev/full", "w") as full:
        outcome = subprocess.run(
            [sys.executable, "-m", "onnxlint", "check", "bad.onnx"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert outcome.returncode == 2
    assert outcome.stderr == "error: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_at_once_and_quietly(here: Path, jobs: str) -> None:
    team_rule(here, "import os, time; open(f'pid-{os.getpid()}', 'w').close(); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxlint", "check", "clean.onnx", "bad.onnx", "-j", jobs],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell that runs us in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(list(here.glob("pid-*"))) < int(jobs) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    time.sleep(0.2)
    for path in here.glob("pid-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name.removeprefix("pid-")), 0)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("delay", [0.03, 0.06, 0.1, 0.15, 0.25])
def test_ctrl_c_during_start_up_and_parsing_is_quiet(here: Path, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import onnxlint.cli.app as app; print(flush=True); app.main()", "check", "bad.onnx"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert err in ("", "error: interrupted\n")
    assert process.returncode in (130, 1)  # 1: it had finished


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data")
def test_a_real_export_shows_its_pitfalls() -> None:
    outcome = onnxlint("check", "-v", DATA / "original_dynamo_dyn.onnx")
    assert outcome.code == 1
    assert outcome.out.count("SHP001") == 2
    assert onnxlint("check", DATA / "original_dynamo_dyn.onnx").out.count("SHP001") == 1
    assert "models/net.py:" in outcome.out
