"""What a pull request changes, out of a real repository: models in every state, renamed, deleted, large files, weights."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnxlint.bot.changes import Repository
from onnxlint.bot.collect import Wanted, collect
from onnxlint.bot.comment import comment
from onnxlint.bot.entries import Entries, from_json, to_json
from onnxlint.errors import OnnxlintError
from onnxlint.lint.configuration import Configs, Settings
from onnxlint.lint.finding import Severity

CLEAN = '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 8] x) => (float[N, 8] y) { [relu] y = Relu (x) }'
DIRTY = (
    '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 8] x) => (float[N, 8] y) '
    "{ [relu] t = Relu (x)\n [copy] y = Identity (t)\n [dead] z = Neg (x) }"
)


def model(text: str) -> bytes:
    return parser.parse_model(text).SerializeToString()


class Project:
    """A repository with a bare remote, made for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        remote = folder / "remote.git"
        self.env = {
            **os.environ,
            **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "t"),
            **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "t@example.com"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], env=self.env, check=True)
        subprocess.run(["git", "clone", "-q", str(remote), str(self.folder)], env=self.env, check=True, stderr=-3)
        self.git("checkout", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.folder, env=self.env, check=True, capture_output=True, text=True
        )
        return done.stdout

    def write(self, path: str, data: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def branch(self, name: str = "feature") -> None:
        self.git("push", "-q", "origin", "main")
        self.git("checkout", "-q", "-b", name)

    def collect(self, **wanted: object) -> Entries:
        self.commit("change")
        configs = Configs(Settings(), isolated=True)
        return collect(Repository(self.folder), Wanted("origin/main", **wanted), configs)  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_models_in_every_state(project: Project) -> None:
    project.write("a/modified.onnx", model(CLEAN))
    project.write("old/renamed.onnx", model(CLEAN.replace("Relu", "Elu")))
    project.write("deleted.onnx", model(CLEAN.replace("Relu", "Exp")))
    project.write("untouched.onnx", model(DIRTY))
    project.commit("start")
    project.branch()
    project.write("a/modified.onnx", model(DIRTY))
    project.git("mv", "old/renamed.onnx", "renamed.onnx")
    project.git("rm", "-q", "deleted.onnx")
    project.write("added with space \u00e9.onnx", model(DIRTY))
    project.write("text.onnxtxt", DIRTY.encode())
    project.write("broken.onnx", b"\x00\x01not a model" * 100)
    entries = project.collect()
    found = {entry.path: entry for entry in entries.models}
    assert {path: entry.status for path, entry in found.items()} == {
        "a/modified.onnx": "modified",
        "added with space \u00e9.onnx": "added",
        "broken.onnx": "added",
        "deleted.onnx": "deleted",
        "renamed.onnx": "renamed",
        "text.onnxtxt": "added",
    }
    codes = [finding.code for finding in found["a/modified.onnx"].findings]
    assert codes == ["GRF002"]
    assert found["a/modified.onnx"].nodes == (1, 3)
    assert [finding.code for finding in found["text.onnxtxt"].findings] == codes
    assert found["renamed.onnx"].old_path == "old/renamed.onnx"
    assert not found["renamed.onnx"].findings
    assert found["deleted.onnx"].nodes == (1, None)
    assert "broken.onnx" in found["broken.onnx"].error
    assert "onnxlint-bot-" not in found["broken.onnx"].error
    assert not entries.failing  # what they have is information
    assert project.collect(fail_on=Severity.INFO).failing
    text = comment(entries)
    assert "onnxlint fix a/modified.onnx --in-place" in text
    assert from_json(to_json(entries).encode(), "f") == entries


def test_what_main_gained_meanwhile_is_not_the_pull_requests(project: Project) -> None:
    project.write("m.onnx", model(CLEAN))
    project.commit("start")
    project.branch()
    project.git("checkout", "-q", "main")
    project.write("m.onnx", model(DIRTY))
    project.commit("somebody else")
    project.git("push", "-q", "origin", "main")
    project.git("checkout", "-q", "feature")
    assert project.collect().models == ()


def test_only_the_paths_that_were_named(project: Project) -> None:
    project.commit("start")
    project.branch()
    project.write("a/m.onnx", model(DIRTY))
    project.write("b/m.onnx", model(DIRTY))
    assert [entry.path for entry in project.collect(paths=("b",)).models] == ["b/m.onnx"]


def test_large_files_come_out_of_the_local_store(project: Project) -> None:
    project.commit("start")
    project.branch()
    data = model(DIRTY)
    oid = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()
    project.write("large.onnx", pointer)
    (entry,) = project.collect().models
    assert "git lfs fetch" in entry.error
    stored = project.folder / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    stored.parent.mkdir(parents=True)
    stored.write_bytes(data)
    (entry,) = project.collect().models
    assert not entry.error
    assert [finding.code for finding in entry.findings] == ["GRF002"]


def test_weights_in_other_files_come_along(project: Project) -> None:
    def with_weights(scale: float) -> None:
        proto = parser.parse_model(
            '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 64] x) => (float[N, 64] y) { y = MatMul (x, w) }'
        )
        values = (np.eye(64) * scale).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, "w"))
        project.folder.joinpath("m").mkdir(exist_ok=True)
        project.folder.joinpath("m/m.onnx.data").unlink(missing_ok=True)
        onnx.save(
            proto, project.folder / "m/m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0
        )

    with_weights(1.0)
    project.commit("start")
    project.branch()
    with_weights(2.0)
    project.write("m/m.onnx", project.folder.joinpath("m/m.onnx").read_bytes() + b"\x1a\x01x")  # the domain changes
    (entry,) = project.collect().models
    assert not entry.error
    assert ("weights", ("~ w: 64 of 4,096 elements differ, relative norm 1, largest 1",)) in entry.sections
    assert not entry.findings


def test_verify_says_how_far_apart(project: Project) -> None:
    pytest.importorskip("onnxruntime")
    project.write("m.onnx", model(CLEAN))
    project.commit("start")
    project.branch()
    project.write("m.onnx", model(CLEAN.replace("Relu", "Abs")))
    (entry,) = project.collect(verify=True).models
    assert entry.outputs.startswith("different on ")


def test_commits_that_are_not_there(project: Project) -> None:
    project.commit("start")
    repository = Repository(project.folder)
    for name in ("nowhere", "--output=x", "HEAD^99"):
        with pytest.raises(OnnxlintError, match="commit"):
            collect(repository, Wanted(name), Configs(Settings(), isolated=True))


def test_outside_of_a_repository(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match="not a git repository"):
        Repository(tmp_path)


def test_links_and_odd_names_write_nothing_elsewhere(project: Project, tmp_path: Path) -> None:
    project.commit("start")
    project.branch()
    os.symlink("/etc/passwd", project.folder / "link.onnx")
    project.write("@everyone](x).onnx", model(DIRTY))
    project.write("::error::.onnx", model(DIRTY))
    found = {entry.path: entry for entry in project.collect().models}
    assert "not a regular file" in found["link.onnx"].error
    assert not found["@everyone](x).onnx"].error
    text = comment(Entries("a" * 40, tuple(found.values())))
    assert "passwd" not in text.replace("link.onnx", "")
    assert not any(line.startswith("::") for line in text.splitlines())


def test_notes_only_where_the_pull_request_changes_lines(project: Project) -> None:
    project.write("net.py", b"".join(b"line %d\n" % i for i in range(1, 30)))
    project.commit("start")
    project.branch()
    lines: Callable[[int], bytes] = lambda i: b"new\n" if i in (5, 6, 20) else b"line %d\n" % i  # noqa: E731
    project.write("net.py", b"".join(lines(i) for i in range(1, 30)))
    project.commit("change")
    repository = Repository(project.folder)
    assert repository.changed_lines("origin/main", "HEAD", "net.py") == ((5, 6), (20, 20))
    assert repository.line("HEAD", "net.py", 20) == "new"
