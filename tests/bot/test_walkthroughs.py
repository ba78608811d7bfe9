"""What docs/ci.md and action.yml tell a team to write, executed as written on repositories made for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bot.test_collect import CLEAN, DIRTY, Project, model
from tests.support.forge import ForgeState, forge

pytest.importorskip("httpx")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Code blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def workflow(title: str) -> Any:
    """The YAML block that begins with a comment."""
    text = next(block for block in blocks("yaml") if block.startswith(f"# {title}"))
    # YAML 1.1 takes `on` for true.
    return yaml.safe_load(re.sub(r"^on:", '"on":', text, flags=re.MULTILINE))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("m.onnx", model(CLEAN))
    made.commit("start")
    made.branch()
    made.write("m.onnx", model(DIRTY))
    made.commit("worse")
    return made


@pytest.fixture
def state(project: Project) -> Iterator[ForgeState]:
    with forge() as held:
        held.pulls += [{"number": 5, "head": {"sha": project.git("rev-parse", "HEAD").strip()}}]
        yield held


def environment(tmp_path: Path, state: ForgeState, event: dict[str, Any]) -> dict[str, str]:
    """What a job of GitHub Actions has, with `onnxlint` on its path."""
    program = tmp_path / "bin" / "onnxlint"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m onnxlint "$@"\n')
    program.chmod(0o755)
    (tmp_path / "event.json").write_text(json.dumps(event))
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "GITLAB_", "CI"))},
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(Path(part).resolve()) for part in sys.path if part),
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_API_URL": state.url,
        "GITHUB_REPOSITORY": "team/models",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "RUNNER_TEMP": str(tmp_path),
    }


def bash(script: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A step, as GitHub runs it."""
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_pull_requests_from_forks(project: Project, state: ForgeState, tmp_path: Path) -> None:
    """Both workflows of the page: the first has no secret, the second checks out nothing."""
    first, second = (
        workflow(".github/workflows/onnxlint.yml\non: pull_request\npermissions:\n  contents: read\njobs"),
        workflow(".github/workflows/onnxlint-comment.yml"),
    )
    assert first["permissions"] == {"contents": "read"}
    steps = [step["run"] for step in first["jobs"]["onnxlint"]["steps"] if "run" in step]
    assert steps[0].startswith("pip install 'onnxlint[bot] @ git+https://")
    base = project.git("rev-parse", "origin/main").strip()
    env = environment(tmp_path, state, {"pull_request": {"number": 5, "base": {"sha": base}}})
    done = bash(steps[1], project.folder, env)
    assert done.returncode == 0, done.stderr
    assert not state.requests

    assert not any("checkout" in step.get("uses", "") for step in second["jobs"]["comment"]["steps"])
    assert set(second["permissions"]) == {"actions", "pull-requests"}
    (post,) = [step for step in second["jobs"]["comment"]["steps"] if "--post" in step.get("run", "")]
    assert list(post["env"]) == ["GITHUB_TOKEN"]
    empty = tmp_path / "job"
    empty.mkdir()
    (empty / "onnxlint.json").write_bytes((project.folder / "onnxlint.json").read_bytes())
    head = project.git("rev-parse", "HEAD").strip()
    env = environment(tmp_path, state, {"workflow_run": {"head_sha": head, "pull_requests": []}})
    done = bash(post["run"], empty, {**env, "GITHUB_TOKEN": "s3cret"})
    assert done.returncode == 0, done.stderr
    assert len(state.comments) == 1
    assert "s3cret" not in done.stdout + done.stderr


def test_the_action(project: Project, state: ForgeState, tmp_path: Path) -> None:
    """The steps of action.yml that are ours, with its own defaults."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    defaults = {name: str(value.get("default", "")) for name, value in action["inputs"].items()}
    steps = {step.get("name"): step for step in action["runs"]["steps"]}
    base = project.git("rev-parse", "origin/main").strip()
    env = environment(tmp_path, state, {"pull_request": {"number": 5, "base": {"sha": base}}})
    python = tmp_path / "onnxlint" / "bin"
    python.mkdir(parents=True)
    (python / "onnxlint").symlink_to(tmp_path / "bin" / "onnxlint")

    def step(name: str, **given: str) -> subprocess.CompletedProcess[str]:
        own = {}
        for key, value in steps[name]["env"].items():
            wanted = re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)
            assert wanted is not None, value
            own[key] = given.get(wanted[1].replace("-", "_"), defaults[wanted[1]])
        return bash(steps[name]["run"], project.folder, {**env, **own})

    check = "Check what the pull request changes"
    done = step(check, token="s3cret", fail_on="info")
    assert done.returncode == 1, done.stderr
    assert len(state.comments) == 1
    assert step(check, token="s3cret", fail_on="info", paths="elsewhere another").returncode == 0
    evil = "x'; touch pwned; echo '$(touch pwned)`touch pwned`"
    step(check, token="s3cret", paths=evil, select=evil, target=evil, fail_on=evil)
    assert not (project.folder / "pwned").exists()
    written = step(check, comment="false")
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "onnxlint.json").exists()
    scanned = step("Check all models for code scanning")
    assert scanned.returncode == 0, scanned.stderr
    assert json.loads((tmp_path / "onnxlint.sarif").read_text(encoding="utf-8"))["version"] == "2.1.0"


def test_inputs_of_the_action_reach_the_shell_as_variables_alone() -> None:
    """An expression inside of a script would be code of whoever chooses its value."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert len(scripts) == 3
    assert not any("${{" in script for script in scripts)


def test_gitlab(project: Project, state: ForgeState, tmp_path: Path) -> None:
    job = workflow(".gitlab-ci.yml")["onnxlint"]
    env = environment(tmp_path, state, {})
    for name in ("GITHUB_EVENT_PATH", "GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_STEP_SUMMARY"):
        del env[name]
    env |= {
        "GITLAB_CI": "true",
        "GITLAB_TOKEN": "s3cret",
        "CI_API_V4_URL": state.url,
        "CI_PROJECT_ID": "77",
        "CI_MERGE_REQUEST_IID": "5",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": project.git("rev-parse", "origin/main").strip(),
    }
    for command in job["script"]:
        done = bash(command, project.folder, env)
        assert done.returncode == 0, done.stderr
    report = job["artifacts"]["reports"]["codequality"]
    assert isinstance(json.loads((project.folder / report).read_text(encoding="utf-8")), list)
    assert state.written()[0] == ("POST", "/projects/77/merge_requests/5/notes")


def test_commands_of_the_page(project: Project, state: ForgeState, tmp_path: Path) -> None:
    (project.folder / "exports").mkdir()
    (project.folder / "exports" / "m.onnx").write_bytes(model(DIRTY))
    env = environment(tmp_path, state, {})
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) == 2
    for command in commands:
        done = bash(command.split(" | ")[0], project.folder, env)
        assert done.returncode == 0, done.stderr
