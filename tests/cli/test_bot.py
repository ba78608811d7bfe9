"""`onnxlint bot` as jobs run it: in one step, and in the two halves that pull requests of forks need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bot.test_collect import CLEAN, DIRTY, Project, model
from tests.cli.test_check import team_rule
from tests.support.command import onnxlint
from tests.support.forge import ForgeState, forge

pytest.importorskip("httpx")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("GITHUB_TOKEN", "GITHUB_EVENT_PATH", "GITHUB_REPOSITORY", "GITHUB_STEP_SUMMARY", "GITLAB_CI", "CI"):
        monkeypatch.delenv(name, raising=False)
    made = Project(tmp_path)
    made.write("m.onnx", model(CLEAN))
    made.commit("start")
    made.branch()
    made.write("m.onnx", model(DIRTY))
    made.commit("worse")
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def state(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForgeState]:
    with forge() as held:
        head = project.git("rev-parse", "HEAD").strip()
        base = project.git("rev-parse", "origin/main").strip()
        held.pulls += [{"number": 5, "head": {"sha": head}}]
        event = {"pull_request": {"number": 5, "base": {"sha": base}}}
        (tmp_path / "event.json").write_text(json.dumps(event))
        monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
        monkeypatch.setenv("GITHUB_API_URL", held.url)
        monkeypatch.setenv("GITHUB_REPOSITORY", "team/models")
        monkeypatch.setenv("GITHUB_TOKEN", "s3cret")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
        yield held


def test_dry_run_prints_the_comment(project: Project) -> None:
    outcome = onnxlint("bot", "--dry-run", "--base", "origin/main", "--fail-on", "info")
    assert outcome.code == 1
    assert outcome.out.startswith("<!-- onnxlint-bot -->\n### ❌ onnxlint: 1 new finding in 1 model")
    assert "GRF002" in outcome.out


def test_in_one_step(state: ForgeState, tmp_path: Path) -> None:
    outcome = onnxlint("bot", "--fail-on", "info")
    assert (outcome.code, outcome.out) == (1, "")
    assert "comment written" in outcome.err
    assert "s3cret" not in outcome.err
    assert len(state.comments) == 1
    assert "GRF002" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert onnxlint("bot").code == 0  # information does not fail a job
    assert len(state.comments) == 1


@pytest.mark.parametrize(
    "base",
    [None, [], "x", {"sha": None}, {"sha": 5}, {"sha": ["a"]}, {"sha": "a\0b"}, {"sha": "\ud800"}, {"sha": "-x"}],
)
def test_events_of_another_shape(state: ForgeState, tmp_path: Path, base: object) -> None:
    (tmp_path / "event.json").write_text(json.dumps({"pull_request": {"number": 5, "base": base}}))
    outcome = onnxlint("bot", "--dry-run")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1


def test_in_two_halves(state: ForgeState, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "onnxlint.json"
    assert onnxlint("bot", "--write", report).code == 0
    assert not state.requests
    head = project.git("rev-parse", "HEAD").strip()
    (tmp_path / "event.json").write_text(json.dumps({"workflow_run": {"head_sha": head, "pull_requests": []}}))
    monkeypatch.chdir(tmp_path)  # no repository is there
    outcome = onnxlint("bot", "--post", report)
    assert (outcome.code, outcome.out) == (0, "")
    assert state.written()[0] == ("POST", "/repos/team/models/issues/5/comments")


def test_a_file_of_another_commit_is_not_posted(
    state: ForgeState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "onnxlint.json"
    onnxlint("bot", "--write", report)
    (tmp_path / "event.json").write_text(json.dumps({"workflow_run": {"head_sha": "f" * 40}}))
    outcome = onnxlint("bot", "--post", report)
    assert outcome.code == 2
    assert "another commit" in outcome.err
    assert not state.written()


def test_a_token_that_may_not_write_leaves_the_summary(state: ForgeState, tmp_path: Path) -> None:
    state.read_only = True
    outcome = onnxlint("bot")
    assert outcome.code == 0
    assert "may not comment" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert "GRF002" in (tmp_path / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GITHUB_REPOSITORY"])
def test_what_is_missing_is_said_before_models_are_read(
    state: ForgeState, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    outcome = onnxlint("bot")
    assert outcome.code == 2
    assert f"{name} is not set" in outcome.err


def test_without_a_base(project: Project) -> None:
    outcome = onnxlint("bot", "--dry-run")
    assert outcome.code == 2
    assert "--base" in outcome.err


@pytest.mark.parametrize("words", [[], ["--config", "onnxlint.toml"]])
def test_code_of_the_pull_request_is_never_run(state: ForgeState, project: Project, words: list[str]) -> None:
    project.write("evil.py", b"import os\nopen('ran', 'w').close()\nos._exit(0)\n")
    project.write("onnxlint.toml", b'rule-paths = ["evil.py"]\n')
    project.commit("rules")
    outcome = onnxlint("bot", "--fail-on", "info", *words)
    assert not (project.folder / "ran").exists()
    assert outcome.code == 1
    assert len(state.comments) == 1


def test_the_base_decides_what_is_looked_for(state: ForgeState, project: Project) -> None:
    project.write("onnxlint.toml", b'ignore = ["ALL"]\n')
    project.commit("all is well")
    assert onnxlint("bot", "--fail-on", "info").code == 1
    project.git("checkout", "-q", "main")
    project.write("onnxlint.toml", b'ignore = ["GRF002"]\n')
    project.commit("a decision of the team")
    project.git("push", "-q", "origin", "main")
    project.git("checkout", "-q", "-b", "later")
    project.write("m.onnx", model(DIRTY))
    project.commit("worse")
    assert onnxlint("bot", "--base", "origin/main", "--fail-on", "info", "--dry-run").code == 0


def test_rules_of_the_repository_run_where_they_are_trusted(state: ForgeState, project: Project) -> None:
    team_rule(project.folder, "open('ran', 'w').close(); yield self.found(view.at(), 'ours')")
    project.commit("rules")
    outcome = onnxlint("bot", "--dry-run", "--trust-config", "--fail-on", "never")
    assert (project.folder / "ran").exists()
    assert "1 remaining" in outcome.out  # the rule fires on both versions
