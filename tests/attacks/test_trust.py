"""Nobody is let in: a configuration that lies with a model runs no code, and a model does not judge itself."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import onnx
import pytest

import onnxlint as package
from onnxlint.errors import OnnxlintError
from onnxlint.lint.configuration import Configs, Settings
from tests.cli.test_check import team_rule
from tests.support.command import BAD, onnxlint, save

HOSTILE = Path(__file__).parents[3] / "shared/cases/hostile"


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a configuration and code, beside the working directory."""
    (tmp_path / "mine").mkdir()
    folder = tmp_path / "downloads"
    folder.mkdir()
    save(folder / "model.onnx")
    team_rule(folder, f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path / "mine")
    return folder


def ran(downloads: Path) -> bool:
    return (downloads.parent / "ran").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("check", "../downloads/model.onnx"),
        ("check", "../downloads"),
        ("check", "../downloads/*.onnx"),
        ("fix", "../downloads/model.onnx", "--dry-run"),
        ("config", "../downloads/model.onnx"),
        ("config", "../downloads"),
    ],
)
def test_code_beside_a_model_is_not_loaded(downloads: Path, words: tuple[str, ...]) -> None:
    before = set(sys.modules)
    outcome = onnxlint(*words)
    assert not ran(downloads)
    assert not [name for name in set(sys.modules) - before if name.startswith("onnxlint_local_rules")]
    assert "rule-paths not loaded" in outcome.out + outcome.err
    assert "Traceback" not in outcome.err


def test_one_line_says_how_to_allow_it(downloads: Path) -> None:
    outcome = onnxlint("check", "../downloads/model.onnx")
    (line,) = [line for line in outcome.err.splitlines() if "rule-paths" in line]
    assert str(downloads / "onnxlint.toml") in line
    assert "--trust-config" in line
    assert "--config" in line
    for option in (("--trust-config",), ("--config", downloads / "onnxlint.toml")):
        (downloads.parent / "ran").unlink(missing_ok=True)
        assert "rule-paths" not in onnxlint("check", "../downloads/model.onnx", *option).err
        assert ran(downloads)


def test_the_users_own_configuration_loads_code(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (downloads / "sub").mkdir()
    monkeypatch.chdir(downloads / "sub")
    onnxlint("check", "../model.onnx")
    assert ran(downloads)


def test_a_selected_rule_that_is_not_loaded_is_an_error(downloads: Path) -> None:
    config = (downloads / "onnxlint.toml").read_text()
    (downloads / "onnxlint.toml").write_text(f'{config}\nextend-select = ["TEA001"]')
    for command in (("check",), ("fix", "--dry-run")):
        outcome = onnxlint(command[0], "../downloads/model.onnx", *command[1:])
        assert outcome.code == 2
        assert "TEA001" in outcome.err
        assert "rule-paths not loaded" in outcome.err
        assert outcome.err.count("\n") == 1
    assert onnxlint("check", "../downloads/model.onnx", "--trust-config").code == 1


def test_python_asks_before_it_loads_code(downloads: Path) -> None:
    with pytest.warns(UserWarning, match="rule-paths not loaded.*trust_config"):
        package.check("../downloads/model.onnx")
    assert not ran(downloads)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        package.check("../downloads/model.onnx", trust_config=True)
    assert ran(downloads)


def test_never_trusting_holds_in_the_working_directory_too(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the bot needs it: its working directory is somebody's pull request."""
    monkeypatch.chdir(downloads)
    for config in (None, "onnxlint.toml"):
        found = Configs(Settings(), config, trust_config=False).of("model.onnx")
        assert found.rule_paths == ()
        assert "not loaded" in found.withheld_note
    outcome = onnxlint("check", "model.onnx", "--no-trust-config")
    assert not ran(downloads)
    assert "rule-paths not loaded: no code of a configuration is trusted here" in outcome.err
    assert Configs(Settings()).of("model.onnx").rule_paths == (str(downloads / "rules"),)


def test_a_configuration_that_anybody_could_have_put_there_is_nobodys(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    (downloads / "mine").mkdir()
    monkeypatch.chdir(downloads / "mine")
    assert Configs(Settings()).of_folder(".").rule_paths
    downloads.chmod(0o777)
    assert Configs(Settings()).of_folder(".").rule_paths  # writable for all, but the file is the user's own
    if os.geteuid() != 0:
        pytest.skip("giving a file away takes root")
    os.chown(downloads / "onnxlint.toml", 65534, 65534)
    assert not Configs(Settings()).of_folder(".").rule_paths


@pytest.mark.parametrize("end", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
@pytest.mark.parametrize("when", ["import", "check"])
def test_a_rule_that_ends_the_process_is_no_pass(downloads: Path, end: str, when: str) -> None:
    rule = downloads / "rules/team.py"
    text = rule.read_text()
    rule.write_text(f"{end}\n{text}" if when == "import" else text.replace("open(", f"{end}\n        open(", 1))
    done = subprocess.run(
        [sys.executable, "-m", "onnxlint", "check", "model.onnx"],
        cwd=downloads,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "team.py" in done.stdout + done.stderr
    if when == "check":
        assert "SHP001" in done.stdout  # the other rules went on


def test_a_teams_own_rule_is_its_own_to_correct(downloads: Path) -> None:
    (downloads / "rules/team.py").write_text((downloads / "rules/team.py").read_text().replace("open(", "0 / 0, open("))
    said = onnxlint("check", "../downloads/model.onnx", "--trust-config").out
    assert "TEA001 failed with ZeroDivisionError at team.py:" in said
    assert f"correct the rule in {downloads / 'rules/team.py'}" in said
    assert "report it" not in said


def test_a_worker_that_vanishes_is_an_error(downloads: Path) -> None:
    for i in range(3):
        save(downloads / f"m{i}.onnx")
    rule = downloads / "rules/team.py"
    rule.write_text(
        rule.read_text().replace("open(", "import os, signal; os.kill(os.getpid(), signal.SIGKILL); open(", 1)
    )
    outcome = onnxlint("check", "../downloads", "--trust-config", "-j", "2", "--format", "json")
    assert outcome.code == 2
    assert outcome.err.count("killed the worker process") == 4


# What a model says about itself


def silenced(path: Path, selectors: str, location: str | None = None) -> Path:
    """A model with two findings of SHP001, which asks for silence."""
    model = onnx.parser.parse_model(BAD)
    model.metadata_props.add(key="onnxlint.ignore", value=selectors)
    if location is not None:
        tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4], data_location=1)
        tensor.external_data.add(key="location", value=location)
        model.graph.node.append(onnx.helper.make_node("Identity", ["w"], ["unused"]))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("selectors", ["ALL", "SEC", "SEC001", "sec001", "external-data-escapes", "S"])
def test_security_is_never_silenced(tmp_path: Path, selectors: str) -> None:
    path = silenced(tmp_path / "m.onnx", selectors, "/etc/passwd")
    assert "SEC001" in onnxlint("check", path, "--isolated").out
    (tmp_path / "onnxlint.toml").write_text('in-model-ignores = "errors"')
    assert "SEC001" in onnxlint("check", path).out


def test_the_summary_names_what_was_silenced(tmp_path: Path) -> None:
    path = silenced(tmp_path / "m.onnx", "ALL")
    assert "suppressed (" in onnxlint("check", path, "--isolated", "--select", "SHP001").out
    assert "2 suppressed (SHP001)" in onnxlint("check", path, "--isolated", "--select", "SHP001").out


def test_errors_are_silenced_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    path = silenced(tmp_path / "m.onnx", "ALL")
    for value, code in (("nothing", 1), ("warnings", 1), ("errors", 0)):
        (tmp_path / "onnxlint.toml").write_text(f'in-model-ignores = "{value}"\nseverity = {{SHP001 = "error"}}')
        assert onnxlint("check", path, "--select", "SHP001").code == code
    (tmp_path / "onnxlint.toml").write_text('in-model-ignores = "nothing"')
    assert "2 suppressed" not in onnxlint("check", path, "--select", "SHP001").out


def test_unknown_values_of_the_key_are_errors(tmp_path: Path) -> None:
    (tmp_path / "onnxlint.toml").write_text('in-model-ignores = "all"')
    with pytest.raises(OnnxlintError, match="in-model-ignores must be one of nothing, warnings, errors"):
        Configs(Settings(), str(tmp_path / "onnxlint.toml"))


@pytest.mark.skipif(not HOSTILE.exists(), reason="needs ../shared/cases")
def test_the_model_of_the_report() -> None:
    outcome = onnxlint("check", HOSTILE / "silences_security.onnx", "--isolated")
    assert outcome.code == 1
    assert "SEC" in outcome.out
