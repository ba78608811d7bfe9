"""Which models a pull request changes, and their two versions out of git's objects."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnxlint.bot.entries import Status
from onnxlint.errors import OnnxlintError
from onnxlint.model.output import MODEL_SUFFIXES
from onnxlint.text import printable

SECONDS = 600
"""A command of git may take this long."""

MOST_MODELS = 200
"""Models of one pull request that are looked at."""

MOST_BYTES = 8 << 30
"""A model or its external data may be this large."""

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d{1,19})\n"
)
_STATUS: dict[str, Status] = {
    "A": "added",
    "M": "modified",
    "T": "modified",
    "R": "renamed",
    "C": "added",
    "D": "deleted",
}
_HUNK = re.compile(r"^@@ -\S+ \+(\d{1,9})(?:,(\d{1,9}))? @@", re.MULTILINE)


class MissingObject(Exception):  # noqa: N818 - an answer: the comment says it
    """A file cannot be read from the repository; the message has the reason and the way out."""


@dataclass(frozen=True)
class ChangedModel:
    """A model that differs between two commits.

    Attributes:
        status: `added`, `modified`, `renamed` or `deleted`.
        path: In the head; in the base for deleted models.
        old_path: In the base; the same where it was not renamed.
    """

    status: Status
    path: str
    old_path: str


class Repository:
    """A git repository, read through its objects: the work tree is never looked at.

    Args:
        folder: Any folder in it.

    Raises:
        OnnxlintError: It is in no repository, or git is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] = ".") -> None:
        self._folder = os.fspath(folder)
        self.top = self._git("rev-parse", "--show-toplevel").strip()
        self._common = os.path.join(self._folder, self._git("rev-parse", "--git-common-dir").strip())

    def commit(self, name: str) -> str:
        """The commit of a name.

        Raises:
            OnnxlintError: There is none.
        """
        if name.startswith("-"):
            raise OnnxlintError(f"{printable(name)}: not a commit")
        try:
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
        except OnnxlintError:
            raise OnnxlintError(
                f"{printable(name)}: no such commit in this repository; fetch it (actions/checkout: fetch-depth: 0)"
            ) from None

    def merge_base(self, base: str, head: str) -> str:
        """The commit that `head` branched off from.

        Raises:
            OnnxlintError: They have no common history here.
        """
        try:
            return self._git("merge-base", base, head).strip()
        except OnnxlintError:
            raise OnnxlintError(
                "base and head have no common commit in this clone; fetch the whole history "
                "(actions/checkout: fetch-depth: 0)"
            ) from None

    def changed_models(self, base: str, head: str, paths: Sequence[str] = ()) -> list[ChangedModel]:
        """Models that `git diff BASE...HEAD` names, in the order of their paths.

        Args:
            base, head: Commits.
            paths: Files and folders that are looked at; empty for all.
        """
        text = self._git("diff", "--name-status", "-z", "-M", f"{base}...{head}", "--", *paths)
        fields = iter(text.split("\0"))
        found = []
        for status in fields:
            if not status:
                continue
            old = next(fields)
            new = next(fields) if status[0] in "RC" else old
            kind = _STATUS.get(status[0])
            if kind is not None and any(path.lower().endswith(MODEL_SUFFIXES) for path in (old, new)):
                found.append(ChangedModel(kind, new, old))
        return sorted(found, key=lambda one: one.path)

    def changed_lines(self, base: str, head: str, path: str) -> tuple[tuple[int, int], ...]:
        """Ranges of lines of a file that the head adds or changes: (first, last), 1-based."""
        text = self._git(
            "diff", "-U0", "--no-color", "--no-ext-diff", f"{base}...{head}", "--", f":(top,literal){path}"
        )
        ranges = []
        for start, length in _HUNK.findall(text):
            count = int(length) if length else 1
            if count:
                ranges.append((int(start), int(start) + count - 1))
        return tuple(ranges)

    def line(self, commit: str, path: str, number: int) -> str:
        """One line of a text file of a commit, without its end; empty if it is not there."""
        try:
            text = self._git("cat-file", "blob", f"{commit}:{path}")
        except OnnxlintError:
            return ""
        lines = text.split("\n")
        return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else ""

    def extract(self, commit: str, path: str, folder: Path) -> Path:
        """Write a file of a commit below `folder`, a Git LFS pointer's object in its place.

        Raises:
            MissingObject: It is not there, or too large.
        """
        target = folder / PurePosixPath(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        name = f"{commit}:{path}"
        entry = self._git("ls-tree", "-z", "--full-tree", commit, "--", f":(literal){path}")
        if not entry.startswith(("100644 blob", "100755 blob")):
            raise MissingObject("not a regular file in this commit")
        size = int(self._git("cat-file", "-s", name))
        if size > MOST_BYTES:
            raise MissingObject(f"larger than {MOST_BYTES >> 30} GiB")
        with target.open("wb") as file:
            done = subprocess.run(
                ["git", "cat-file", "blob", name],
                cwd=self.top,
                stdout=file,
                stderr=subprocess.PIPE,
                timeout=SECONDS,
                check=False,
            )
        if done.returncode:
            raise MissingObject("git cannot read it in this clone")
        if size < 1024:
            pointer = _POINTER.fullmatch(target.read_bytes())
            if pointer:
                self._link_large(pointer[1].decode(), target)
        return target

    def _link_large(self, oid: str, target: Path) -> None:
        """Put an object of the local Git LFS store in a pointer's place."""
        stored = Path(self._common) / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        if not stored.is_file():
            raise MissingObject(
                "a Git LFS pointer whose object is not in this clone; run 'git lfs fetch' (actions/checkout: lfs: true)"
            )
        target.unlink()
        try:
            os.link(stored, target)
        except OSError:  # another file system
            shutil.copyfile(stored, target)

    def _git(self, *words: str) -> str:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["git", "-c", "core.quotePath=false", *words],
                cwd=self._folder,
                capture_output=True,
                timeout=SECONDS,
                env=environment,
                check=False,
            )
        except FileNotFoundError:
            raise OnnxlintError(
                "git is not installed, or not on PATH; onnxlint bot reads the repository with it"
            ) from None
        except ValueError:  # a null byte, or half of a surrogate pair
            raise OnnxlintError(f"git {words[0]}: {printable(words[-1])!r} is not a name that git accepts") from None
        except subprocess.TimeoutExpired:
            raise OnnxlintError(f"git {words[0]}: took more than {SECONDS} s") from None
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise OnnxlintError(f"git {words[0]}: {printable(lines[0] if lines else 'failed')}")
        return done.stdout.decode("utf-8", "surrogateescape")


def external_files(path: Path) -> Iterator[str]:
    """Files that a model keeps weights in, relative to its folder; those that leave it are left out (SEC001)."""
    from onnxlint.model.skeleton import is_external, open_model, walk_tensors

    seen: set[str] = set()
    for tensor in walk_tensors(open_model(path).proto):
        if is_external(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            parts = PurePosixPath(location.replace("\\", "/"))
            if location and location not in seen and not parts.is_absolute() and ".." not in parts.parts:
                seen.add(location)
                yield location
