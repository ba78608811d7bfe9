"""Configuration files: where they are found, what they may say, and how mistakes in them are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.lint.configuration import Config, Configs, Settings, find, parse_severities, read
from onnxlint.lint.finding import Severity
from tests.support.command import CLEAN, onnxlint, save


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository to work in."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def problem(text: str, path: str = "onnxlint.toml") -> str:
    """What reading a configuration complains about."""
    write(Path(path), text)
    with pytest.raises(OnnxlintError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


# Finding the file


def test_the_nearest_file_upwards_holds_and_nothing_is_merged(here: Path) -> None:
    write(here / "pyproject.toml", '[tool.onnxlint]\nfail-on = "error"\nmin-opset = 13')
    write(here / "models/onnxlint.toml", 'fail-on = "info"')
    configs = Configs(Settings())
    assert (configs.of("a.onnx").fail_on, configs.of("a.onnx").min_opset) == ("error", 13)
    assert (configs.of("models/deep/a.onnx").fail_on, configs.of("models/deep/a.onnx").min_opset) == ("info", 11)
    assert configs.of("-").fail_on == "error"


def test_onnxlint_toml_comes_before_pyproject_in_the_same_folder(here: Path) -> None:
    write(here / "pyproject.toml", '[tool.onnxlint]\nfail-on = "error"')
    write(here / "onnxlint.toml", 'fail-on = "info"')
    assert Configs(Settings()).of("a.onnx").fail_on == "info"


def test_a_pyproject_without_our_table_is_passed_over(here: Path) -> None:
    write(here / "onnxlint.toml", 'fail-on = "info"')
    write(here / "package/pyproject.toml", '[project]\nname = "x"\ndependencies = ["onnxlint"]')
    write(here / "broken/pyproject.toml", "this is not TOML, and not our business")
    assert Configs(Settings()).of("package/a.onnx").fail_on == "info"
    assert Configs(Settings()).of("broken/a.onnx").fail_on == "info"


def test_the_search_stops_at_the_repository(here: Path) -> None:
    write(here / "onnxlint.toml", 'fail-on = "info"')
    (here / "inner/.git").mkdir(parents=True)
    assert find("inner/models") is None
    assert Configs(Settings()).of("inner/models/a.onnx").fail_on == "warning"


def test_a_named_file_holds_for_all_and_isolated_reads_none(here: Path) -> None:
    write(here / "onnxlint.toml", 'fail-on = "info"')
    write(here / "ci/strict.toml", 'fail-on = "error"')
    assert Configs(Settings(), "ci/strict.toml").of("a.onnx").fail_on == "error"
    assert Configs(Settings(), isolated=True).of("a.onnx").fail_on == "warning"
    with pytest.raises(OnnxlintError, match=r"nope\.toml: no such configuration file"):
        Configs(Settings(), "nope.toml")
    write(here / "pyproject.toml", "[project]")
    with pytest.raises(OnnxlintError, match=r"pyproject\.toml: has no table \[tool\.onnxlint\]"):
        Configs(Settings(), "pyproject.toml")


# Its content


def test_every_key(here: Path) -> None:
    path = write(
        here / "sub/onnxlint.toml",
        """
        select = ["SHP", "OUT001"]
        extend-select = ["GRF001"]
        ignore = ["SHP002"]
        targets = ["ncnn"]
        min-opset = 13
        fail-on = "error"
        severity = {SHP001 = "error", OUT = "info"}
        per-file-ignores = {"old/*.onnx" = ["OPS001"]}
        rule-paths = ["tools/rules", "/opt/rules"]
        exclude = ["old/**"]
        baseline = "known.json"
        weights = true
        jobs = 2
        format = "json"
        """,
    )
    settings = read(str(path))
    assert settings.select == ("SHP", "OUT001")
    assert settings.severity == (("SHP001", Severity.ERROR), ("OUT", Severity.INFO))
    assert settings.rule_paths == (str(here / "sub/tools/rules"), "/opt/rules")
    assert settings.baseline == str(here / "sub/known.json")
    config = Config(settings, Settings())
    assert config.excludes("sub/old/deep/a.onnx")
    assert not config.excludes("old/a.onnx")
    assert config.ignored_in("sub/old/a.onnx") == ("OPS001",)
    assert (config.weights, config.jobs, config.format, config.targets) == (True, 2, "json", ("ncnn",))


def test_the_command_line_comes_on_top(here: Path) -> None:
    file = Settings(min_opset=13, fail_on="error", targets=("ncnn",), weights=True, baseline="a", jobs=1, format="json")
    command = Settings(min_opset=9, fail_on="info", targets=(), weights=False, baseline="b", jobs=3, format="text")
    config = Config(file, command)
    assert (config.min_opset, config.fail_on, config.targets, config.weights) == (9, "info", (), False)
    assert (config.baseline, config.jobs, config.format) == ("b", 3, "text")


def test_a_misspelt_key_names_the_nearest(here: Path) -> None:
    assert problem('selct = ["SHP"]') == "onnxlint.toml: unknown key 'selct'; did you mean 'select'?"
    assert problem("min_opset = 13") == "onnxlint.toml: unknown key 'min_opset'; did you mean 'min-opset'?"
    assert problem("target = []").endswith("did you mean 'targets'?")
    assert problem("zzzzzz = 1").startswith("onnxlint.toml: unknown key 'zzzzzz'; choose from select, extend-select")
    message = problem('[tool.onnxlint]\nselct = ["SHP"]', "pyproject.toml")
    assert message == "pyproject.toml: unknown key 'selct'; did you mean 'select'?"
    assert "the keys stand at the top level" in problem('[tool.onnxlint]\nselect = ["SHP"]')


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('select = "SHP"', 'select must be a list of rules, like ["SHP", "OUT001"]'),
        ("ignore = [1]", "ignore must be a list of rules"),
        ('targets = "ncnn"', 'targets must be a list of targets, like ["ncnn"]'),
        ('min-opset = "13"', "min-opset must be a whole number from 1 to 1000, like 13"),
        ("min-opset = true", "min-opset must be a whole number"),
        ("min-opset = 0", "min-opset must be a whole number from 1"),
        ("jobs = -1", "jobs must be a whole number from 0"),
        ('fail-on = "wrn"', "fail-on must be one of error, warning, info, never"),
        ("fail-on = []", "fail-on must be one of"),
        ('severity = {SHP001 = "fatal"}', "severity must be a table of error, warning or info"),
        ("severity = {SHP001 = 3}", "severity must be a table of error, warning or info"),
        ('severity = ["SHP001"]', "severity must be a table"),
        ('per-file-ignores = {"*.onnx" = "SHP"}', "per-file-ignores must be a table of lists of rules"),
        ('exclude = "old"', "exclude must be a list of globs"),
        ("baseline = 3", "baseline must be the path of a baseline file"),
        ("weights = 1", "weights must be true or false"),
        ('format = "xml"', "format must be one of text, json"),
        ('rule-paths = "rules"', "rule-paths must be a list of files and folders"),
    ],
)
def test_values_of_the_wrong_type(here: Path, line: str, wanted: str) -> None:
    assert problem(line).startswith(f"onnxlint.toml: {wanted}")


def test_toml_errors_say_where(here: Path) -> None:
    assert problem("select = [\n  oops\n]") == "onnxlint.toml: not valid TOML: Invalid value (at line 2, column 3)"
    Path("onnxlint.toml").write_bytes(b'select = ["\xff"]')
    with pytest.raises(OnnxlintError, match="not valid TOML: byte 11 is not UTF-8"):
        read("onnxlint.toml")


def test_severities_of_the_command_line() -> None:
    assert parse_severities(["SHP001=error", "OUT=info"]) == (("SHP001", Severity.ERROR), ("OUT", Severity.INFO))
    for pair in ("SHP001", "SHP001=fatal", "=error", "SHP001=error=info"):
        with pytest.raises(OnnxlintError, match="--severity"):
            parse_severities([pair])


# As the user sees it


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('select = ["NOPE001"]', "onnxlint.toml: select: no rule is called 'NOPE001'"),
        (
            'ignore = ["resize-by-size"]',
            "onnxlint.toml: ignore: no rule is called 'resize-by-size'; did you mean 'resize-",
        ),
        ('severity = {SHQ = "error"}', "onnxlint.toml: severity: no rule is called 'SHQ'; did you mean 'SHP'?"),
        ('per-file-ignores = {"x" = ["SHPP"]}', "onnxlint.toml: per-file-ignores: no rule is called 'SHPP'"),
        ('targets = ["ncn"]', "onnxlint.toml: targets: "),
        ('rule-paths = ["nope"]', "nope: no such file or folder of rules"),
        ("select = []", "onnxlint.toml: select names no rule"),
        ('baseline = "nope.json"', "no such baseline"),
    ],
)
def test_mistakes_that_only_the_rules_show_end_the_check(here: Path, text: str, wanted: str) -> None:
    write(here / "onnxlint.toml", text)
    save(here / "model.onnx", CLEAN)
    outcome = onnxlint("check", "model.onnx")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert wanted in outcome.err
    assert outcome.err.count("\n") == 1


def test_settings_of_each_model_come_from_its_own_folder(here: Path) -> None:
    write(here / "a/onnxlint.toml", 'ignore = ["SHP001"]')
    save(here / "a/model.onnx")
    save(here / "b/model.onnx")
    outcome = onnxlint("check", "--extend-select", "SHP001", "a", "b", "--format", "json")
    assert outcome.code == 1
    assert onnxlint("check", "--select", "SHP001,OUT", "a").code == 1  # the command line's select replaces all
    assert onnxlint("check", "a").out.count("SHP001") == 0
    assert onnxlint("check", "b").out.count("SHP001") >= 2


def test_per_file_ignores_severity_and_fail_on(here: Path) -> None:
    save(here / "models/old/model.onnx")
    save(here / "models/new/model.onnx")
    write(
        here / "onnxlint.toml",
        'select = ["SHP001"]\nper-file-ignores = {"models/old/*" = ["SHP"]}\nseverity = {SHP = "info", SHP001 = "error"}',
    )
    outcome = onnxlint("check", "models")
    assert outcome.code == 1
    assert "models/new/model.onnx" in outcome.out
    assert "models/old" not in outcome.out
    assert "error" in outcome.out
    assert onnxlint("check", "models/old").code == 0
    assert onnxlint("check", "models", "--severity", "SHP001=info").code == 0
    assert onnxlint("check", "models", "--severity", "SHP001=info", "--fail-on", "info").code == 1


def test_rules_of_a_team(here: Path) -> None:
    save(here / "model.onnx", CLEAN)
    write(here / "onnxlint.toml", 'rule-paths = ["tools/rules"]')
    write(here / "tools/rules/relu.py", TEAM_RULE)
    outcome = onnxlint("check", "model.onnx")
    assert outcome.code == 1
    assert "TEA001" in outcome.out
    assert "no Relu here" in outcome.out
    assert "TEA001" in onnxlint("rules").out
    assert onnxlint("rule", "no-relu").out.startswith("# TEA001: no-relu\n")
    assert onnxlint("check", "model.onnx", "--isolated").code == 0
    tested = onnxlint("test-rules", "tools/rules")
    assert tested.code == 0
    assert "ok  TEA001 bad 1 fires" in tested.out


TEAM_RULE = '''
from onnxlint import Example, Rule


class NoRelu(Rule):
    """Our accelerator has no Relu.

    ## What it does
    Reports Relu.
    ## Why it hurts
    It does not run.
    ## Fix it at the source
    Use Clip.
    ## Fix safety
    Exact.
    ## References
    None.
    """

    code = "TEA001"
    name = "no-relu"
    help = "use Clip"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 17]>
            g (float[N] x) => (float[N] y) { y = Relu (x) }
            """
        ),
    )

    def check(self, view, options):
        for node in view.nodes("Relu"):
            yield self.found(view.at(node), "there must be no Relu here")
'''


def test_what_holds_for_a_model_can_be_shown(here: Path) -> None:
    write(here / "models/onnxlint.toml", 'select = ["SHP001"]\nmin-opset = 13')
    outcome = onnxlint("config", "models/a.onnx")
    assert outcome.code == 0
    assert "configuration: models/onnxlint.toml\n" in outcome.out
    assert "min-opset: 13\n" in outcome.out
    assert "rules (1): SHP001\n" in outcome.out
    assert onnxlint("config", "models").out == outcome.out
    assert "configuration: none\n" in onnxlint("config").out
