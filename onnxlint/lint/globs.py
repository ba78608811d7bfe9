"""Globs of a configuration file, matched in time proportional to pattern × path for any pattern.

A regular expression would try every way to split a path among its stars. Here all ways are followed at once: bit i of a
number says that the first i parts of the pattern match what was read so far.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from onnxlint.model.skeleton import STDIN
from onnxlint.store.urls import is_remote

LONGEST = 4096
"""Characters that a glob can have: as many as a path."""


def matches_any(patterns: Iterable[str], path: str, root: str) -> bool:
    """Whether a path matches one of the globs of a configuration file.

    Args:
        patterns: As in .gitignore: one with a slash inside is relative to `root`; one without matches a file or folder
            of that name at any depth. `*` and `?` stop at slashes, `**` does not. A match of a folder holds for all
            that is in it.
        path: Relative to the working directory, or absolute; of an address, what follows `s3://` counts.
        root: Folder of the configuration file.
    """
    if path == STDIN:
        return STDIN in patterns
    relative = path.partition("://")[2] if is_remote(path) else _relative(path, root)
    return any(_matches(_compiled(pattern), relative) for pattern in patterns)


def _relative(path: str, root: str) -> str:
    try:
        relative = os.path.relpath(path, root)
    except ValueError:  # another drive of Windows
        relative = os.path.abspath(path)
    return relative.replace(os.sep, "/")


@dataclass
class _Glob:
    """A glob as an automaton: state i is left for i + 1 by a character that part i takes.

    Attributes:
        parts: What each part takes: one character, or a class as a regular expression; None for a part that is left
            otherwise.
        any: States that stay as they are at any character.
        within: States that stay as they are at any character but a slash.
        skip_one, skip_two: States that are also left for the next one, or the one after it, without a character.
        advance: Character → states that it lets advance; filled as characters come.
    """

    parts: list[str | re.Pattern[str] | None] = field(default_factory=list)
    any: int = 0
    within: int = 0
    skip_one: int = 0
    skip_two: int = 0
    advance: dict[str, int] = field(default_factory=dict)

    def add(self, part: str | re.Pattern[str]) -> None:
        self.parts.append(part)

    def add_star(self) -> None:
        """`*`: what stays within a folder."""
        bit = 1 << len(self.parts)
        self.within |= bit
        self.skip_one |= bit
        self.parts.append(None)

    def add_everything(self) -> None:
        """`**`: whatever follows."""
        bit = 1 << len(self.parts)
        self.any |= bit
        self.skip_one |= bit
        self.parts.append(None)

    def add_folders(self) -> None:
        """`**/`: nothing, or whatever ends with a slash."""
        bit = 1 << len(self.parts)
        self.skip_one |= bit
        self.skip_two |= bit
        self.any |= bit << 1
        self.parts += [None, "/"]

    def advancing(self, character: str) -> int:
        """The states that a character lets advance."""
        known = self.advance.get(character)
        if known is None:
            known = 0
            for i, part in enumerate(self.parts):
                taken = part == character if part is None or isinstance(part, str) else part.fullmatch(character)
                known |= bool(taken) << i
            self.advance[character] = known
        return known

    def closed(self, states: int) -> int:
        """The states, and those that are reached from them without a character."""
        while True:
            more = states | (states & self.skip_one) << 1 | (states & self.skip_two) << 2
            if more == states:
                return states
            states = more


def _matches(glob: _Glob, path: str) -> bool:
    """Whether a path, or a folder that it is in, matches."""
    end = 1 << len(glob.parts)
    states = glob.closed(1)
    for character in path:
        if character == "/" and states & end:
            return True
        staying = states & (glob.any if character == "/" else glob.any | glob.within)
        states = glob.closed((states & glob.advancing(character)) << 1 | staying)
        if not states:
            return False
    return bool(states & end)


@cache
def _compiled(pattern: str) -> _Glob:
    stripped = pattern.removeprefix("./").rstrip("/")
    try:
        return _parsed(stripped, "/" not in stripped)
    except re.error:  # a range such as [z-a]: taken literally, as the shell does
        glob = _Glob()
        if "/" not in stripped:
            glob.add_folders()
        for character in stripped:
            glob.add(character)
        return glob


def _parsed(pattern: str, anywhere: bool) -> _Glob:
    glob = _Glob()
    if anywhere:
        glob.add_folders()
    i = 1 if pattern.startswith("/") else 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            glob.add_folders()
            i += 3
            while pattern.startswith("**/", i):
                i += 3
        elif pattern.startswith("**", i):
            glob.add_everything()
            i += 2
        elif pattern[i] == "*":
            glob.add_star()
            i += 1
        elif pattern[i] == "?":
            glob.add(_NO_SLASH)
            i += 1
        elif pattern[i] == "[" and (end := pattern.find("]", i + 2)) > 0:
            inside = pattern[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            glob.add(re.compile(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]", re.DOTALL))
            i = end + 1
        else:
            glob.add(pattern[i])
            i += 1
    return glob


_NO_SLASH = re.compile("[^/]")
