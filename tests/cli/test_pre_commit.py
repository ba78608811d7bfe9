"""The hooks, run by the real pre-commit from a repository with a tag, as a team uses them.

pre-commit installs onnxlint and what it needs into an environment of its own, which takes a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from onnx import parser

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("pre_commit") is None, reason="pre-commit is not installed"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone"),
]

CLEAN = '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 8] x) => (float[N, 8] y) { [relu] y = Relu (x) }'
FIXABLE = (
    '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 8, 4, 4] x) => (float[N, 128] y) '
    "<int64[1] zero = {0}, int64[1] minus = {-1}> "
    "{ s = Shape (x)\n b = Gather (s, zero)\n t = Concat<axis = 0> (b, minus)\n y = Reshape (x, t) }"
)


class Team:
    """A team's repository that pins the hooks to a tag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "team"
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PRE_COMMIT"))},
            **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "t"),
            **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "t@example.com"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PRE_COMMIT_HOME": str(folder / "cache"),
        }
        hooks = folder / "hooks"
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(hooks)], check=True, env=self.env)
        # What is not committed yet is tested, too.
        for name in (".pre-commit-hooks.yaml", "pyproject.toml"):
            shutil.copy(ROOT / name, hooks / name)
        for name in ("onnxlint", "rules"):
            shutil.copytree(ROOT / name, hooks / name, dirs_exist_ok=True)
        self.run("git", "-C", str(hooks), "commit", "-q", "-a", "--allow-empty", "-m", "release", cwd=hooks)
        self.run("git", "-C", str(hooks), "tag", "-f", "v0.1.0", cwd=hooks)
        self.folder.mkdir()
        self.run("git", "init", "-q")
        (self.folder / ".pre-commit-config.yaml").write_text(
            f"repos: [{{repo: '{hooks}', rev: v0.1.0, hooks: [{{id: onnxlint-fix}}, {{id: onnxlint}}]}}]\n"
        )
        self.pre_commit("install")

    def run(self, *words: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=cwd or self.folder, env=self.env, capture_output=True, text=True, check=check, timeout=900
        )

    def pre_commit(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "pre_commit", *words, check=False)

    def commit(self) -> subprocess.CompletedProcess[str]:
        self.run("git", "add", "-A")
        return self.run("git", "commit", "-m", "models", check=False)


def test_a_bad_commit_is_blocked_fixed_and_made(tmp_path: Path) -> None:
    manifest = [sys.executable, "-m", "pre_commit", "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml")]
    subprocess.run(manifest, check=True)
    team = Team(tmp_path)
    (team.folder / "clean.onnx").write_bytes(parser.parse_model(CLEAN).SerializeToString())
    done = team.commit()
    assert done.returncode == 0, done.stdout + done.stderr

    model = team.folder / "exports" / "bad.onnx"
    model.parent.mkdir()
    model.write_bytes(parser.parse_model(FIXABLE).SerializeToString())
    before = model.read_bytes()
    blocked = team.commit()
    assert blocked.returncode == 1
    assert "files were modified by this hook" in blocked.stderr + blocked.stdout
    assert model.read_bytes() != before
    again = team.commit()
    assert again.returncode == 0, again.stdout + again.stderr

    (team.folder / "pointer.onnx").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    pointer = team.commit()
    assert pointer.returncode == 1
    assert "a Git LFS pointer, not the model; run 'git lfs pull'" in pointer.stdout + pointer.stderr
