"""Which rules run: selectors, layers, targets, weights, and what is said about those that do not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import GraphView
from onnxlint.lint.configuration import Config, Settings
from onnxlint.lint.finding import Finding, Severity
from onnxlint.lint.registry import Registry
from onnxlint.lint.rule import Example, Options, Rule, Status
from onnxlint.lint.selection import Selection, select


def make(code: str, name: str, **attributes: Any) -> type[Rule]:
    """A rule that does nothing."""

    def check(self: Rule, view: GraphView, options: Options) -> Iterator[Finding]:
        return iter(())

    document = "\n\n".join(
        ["Nothing.", "## What it does", "## Why it hurts", "## Fix it at the source", "## Fix safety", "## References"]
    )
    members = {"code": code, "name": name, "examples": (Example(bad=""),), "check": check, "__doc__": document}
    return type(name, (Rule,), {**members, **attributes})


REGISTRY = Registry(
    [
        make("ABC001", "one", aliases=("uno", "OLD001")),
        make("ABC002", "two"),
        make("ABC003", "opinion", default=False),
        make("DEF001", "weighty", needs_weights=True),
        make("DEF002", "for-ncnn", targets=frozenset({"ncnn"})),
        make("GHI001", "coming", status=Status.PREVIEW),
        make("GHI002", "going", status=Status.DEPRECATED),
    ]
)


def selection(file: Settings | None = None, **command: Any) -> Selection:
    return select(REGISTRY, Config(file or Settings(), Settings(**command)))


def codes(file: Settings | None = None, **command: Any) -> str:
    return " ".join(rule.code for rule in selection(file, **command).rules)


def file(**settings: Any) -> Settings:
    return Settings(path="onnxlint.toml", **settings)


def test_the_default_is_what_is_stable_and_meant_for_everybody() -> None:
    assert codes() == "ABC001 ABC002"
    assert selection().notes == ()


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (("ABC001",), "ABC001"),
        (("abc001",), "ABC001"),
        (("two",), "ABC002"),
        (("uno",), "ABC001"),
        (("ABC",), "ABC001 ABC002 ABC003"),
        (("ABC00", "going"), "ABC001 ABC002 ABC003 GHI002"),
        (("ALL",), "ABC001 ABC002 ABC003 GHI002"),
        (("coming",), "GHI001"),
        (("GHI001",), "GHI001"),
        (("DEF001",), "DEF001"),
    ],
)
def test_selectors(selectors: tuple[str, ...], expected: str) -> None:
    assert codes(select=selectors) == expected
    assert codes(file(select=selectors)) == expected


def test_the_more_specific_selector_wins_and_ignore_wins_ties() -> None:
    assert codes(select=("ABC",), ignore=("ABC001",)) == "ABC002 ABC003"
    assert codes(select=("ABC001", "DEF001"), ignore=("ABC",)) == "ABC001 DEF001"
    assert codes(select=("ABC",), ignore=("ABC00",), extend_select=("DEF001",)) == "DEF001"
    assert codes(select=("ABC001", "two"), ignore=("one",)) == "ABC002"
    assert codes(ignore=("ABC",), extend_select=("opinion",)) == "ABC003"


def test_the_command_line_comes_on_top_of_the_file() -> None:
    assert codes(file(select=("ABC",)), ignore=("ABC002",)) == "ABC001 ABC003"
    assert codes(file(select=("ABC002",)), extend_select=("opinion",)) == "ABC002 ABC003"
    assert codes(file(ignore=("ABC001",)), extend_select=("ABC001",)) == "ABC001 ABC002"
    assert codes(file(select=("ABC001", "two")), ignore=("ABC",), extend_select=("DEF001",)) == "DEF001"
    # select starts anew
    assert codes(file(select=("ABC001",), ignore=("ABC002",)), select=("ABC002",)) == "ABC002"


def test_target_rules_run_when_their_target_is_named() -> None:
    assert codes(targets=("ncnn",)) == "ABC001 ABC002 DEF002"
    assert codes(targets=("tensorrt",)) == "ABC001 ABC002"
    assert selection(targets=("ncnn",)).options.targets == ("ncnn",)


def test_weight_rules_run_with_weights_or_by_their_own_code() -> None:
    assert codes(weights=True) == "ABC001 ABC002 DEF001"
    assert selection(weights=True).options.weights
    assert not selection().options.weights
    by_code = selection(select=("weighty",))
    assert [rule.code for rule in by_code.rules] == ["DEF001"]
    assert by_code.options.weights


def test_selected_rules_that_cannot_run_are_noted() -> None:
    chosen = selection(select=("ABC001", "DEF"))
    assert [rule.code for rule in chosen.rules] == ["ABC001"]
    assert chosen.notes == (
        "DEF002 did not run: only for --target ncnn",
        "DEF001 did not run: reads weights, which --weights allows",
    )
    assert selection(select=("ABC001", "weighty"), weights=False).notes == (
        "DEF001 did not run: reads weights, which --weights allows",
    )


def test_old_names_and_deprecated_rules_are_noted() -> None:
    assert selection(select=("uno", "GHI002")).notes == (
        "uno is now called ABC001 (one)",
        "GHI002 (going) is deprecated",
    )
    assert selection(ignore=("OLD001",)).notes == ("OLD001 is now called ABC001 (one)",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": ("NOPE",)}, "--select: no rule is called 'NOPE'"),
        ({"select": ("weighti",)}, "--select: no rule is called 'weighti'; did you mean 'weighty'?"),
        ({"ignore": ("ABC004",)}, "--ignore: no rule is called 'ABC004'; did you mean 'ABC00"),
        ({"extend_select": ("",)}, "--extend-select: no rule is called ''"),
        ({"select": ()}, "--select names no rule"),
        ({"ignore": ("ALL",)}, "no rule is left to run"),
        ({"select": ("DEF002",)}, "no rule is left to run; DEF002 did not run: only for --target ncnn"),
        ({"select": ("GHI00",), "ignore": ("GHI002",)}, "no rule is left to run"),
        ({"severity": (("NOPE", Severity.INFO),)}, "--severity: no rule is called 'NOPE'"),
        ({"targets": ("ncn",)}, "--target: "),
    ],
)
def test_what_selects_nothing_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxlintError) as error:
        selection(**settings)
    assert str(error.value).startswith(message)


def test_mistakes_in_a_file_name_the_file_and_the_key() -> None:
    with pytest.raises(OnnxlintError, match=r"^onnxlint\.toml: select: no rule is called 'NOPE'"):
        codes(file(select=("NOPE",)))


def test_severities_the_most_specific_and_the_latest_win() -> None:
    levels = (("ABC001", Severity.ERROR), ("ABC", Severity.INFO))
    assert dict(selection(file(severity=levels)).severities) == {
        "ABC001": Severity.ERROR,
        "ABC002": Severity.INFO,
        "ABC003": Severity.INFO,
    }
    chosen = selection(file(severity=levels), severity=(("ABC", Severity.WARNING),))
    assert dict(chosen.severities)["ABC001"] is Severity.WARNING


def test_a_code_that_lacks_digits_is_explained() -> None:
    from tests.support.command import CLEAN, onnxlint

    err = onnxlint("check", "-", "--select", "SHP01", stdin=CLEAN.strip().encode()).err
    assert err.startswith("note: SHP01 stands for SHP010, SHP011")
    assert onnxlint("check", "-", "--select", "SHP", stdin=CLEAN.strip().encode()).err == ""
