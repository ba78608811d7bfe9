"""Operators and limits of each deployment target, from tables in data files.

`--target` names a table of `onnxlint_rules/targets/`: one JSON file a target, with the version that it was read from,
where the facts come from, and how they were obtained. Rules never hold such facts in code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from onnxlint.errors import OnnxlintError
from onnxlint.text import choices, did_you_mean, printable


class Limit(NamedTuple):
    """A limit of a target on an operator.

    One of the conditions below says when the operator is all right; where none is set, the limit is only text, and no
    rule checks it. What is unknown (a rank, a computed input) counts as all right.

    Attributes:
        text: The unsupported feature (`antialias`, `zero points other than 0`).
        attribute: Name of an attribute that must be one of `allowed` (each element of it, for lists).
        allowed: Values of that attribute, or of the elements of input `values`.
        default: The attribute's value where it is absent; None: absent is all right.
        values: Index of an input whose elements, where it is a small constant, must be one of `allowed`.
        counts: How many elements that attribute or input may have, in place of which ones.
        constant: Index of an input that must be a constant.
        scalar: Index of an input that must be a constant of rank 0.
        no_input: Index of an input that must be left out.
        no_output: Index of an output that must be left out or unused.
        ranks: Ranks that the first input may have.
        types: Element types (`int8`) that input `type_of` may have.
        type_of: See `types`.
        varying_rank: Whether the rank of the output must not depend on sizes of the input (an If whose branches differ in
            rank, a Squeeze without axes on a free shape).
        unless_constant: Index of an input that lifts the limit where it is a constant.
        wrong: Whether the target takes it all the same, and computes something else.
    """

    text: str
    attribute: str = ""
    allowed: tuple[Any, ...] = ()
    default: Any = None
    values: int | None = None
    counts: tuple[int, ...] = ()
    constant: int | None = None
    scalar: int | None = None
    no_input: int | None = None
    no_output: int | None = None
    ranks: tuple[int, ...] = ()
    types: tuple[str, ...] = ()
    type_of: int = 0
    varying_rank: bool = False
    unless_constant: int | None = None
    wrong: bool = False


class Operator(NamedTuple):
    """An operator that a target reads.

    Attributes:
        limits: What it does not read of it.
        until: Newest operator set (of the model) in which it reads it; None: no such limit.
    """

    limits: tuple[Limit, ...] = ()
    until: int | None = None


@dataclass(frozen=True)
class Target:
    """One deployment target.

    Attributes:
        name: What `--target` accepts.
        title: For people: `ncnn, converted by pnnx`.
        version: The version that the table describes.
        aliases: Other names that `--target` accepts.
        sources: Where the facts come from, with commit or date.
        read: How they were obtained.
        min_opset: Oldest operator set that it reads; 0: not stated.
        max_opset: Newest one; 0: not stated.
        max_ir: Newest IR version of the file; 0: not stated.
        missing: What becomes of an operator that it lacks, as a clause (`the parser refuses the model`).
        falls_back: Whether such operators run elsewhere (on the CPU), so that the model works all the same.
        folds: Whether what depends only on constants and on shapes is computed before operators are looked up.
        domains: Operator domains that it reads entirely (`com.microsoft`), beside the operators listed.
        dynamic: `yes`, `partial` or `no`: whether inputs may have free dims.
        dynamic_note: What becomes of a free dim, as a sentence.
        dynamic_help: What to do about it.
        free_batch: Whether a free first dim does no harm.
        int64: `yes`; `clamps` (to int32's range); `wraps` (keeps the low 32 bits).
        int64_note: The same as a sentence.
        int64_inputs: Conversion of int64 inputs, as a sentence; empty if they stay int64.
        no_batch: Whether it keeps the batch out of its tensors, so that no operator may work along it.
        ops: By name; `domain::Name` outside the standard domain.
        note: Facts that no rule checks.
    """

    name: str
    title: str
    version: str
    sources: tuple[str, ...]
    read: str
    aliases: tuple[str, ...] = ()
    min_opset: int = 0
    max_opset: int = 0
    max_ir: int = 0
    missing: str = ""
    falls_back: bool = False
    folds: bool = True
    domains: tuple[str, ...] = ()
    dynamic: str = "yes"
    dynamic_note: str = ""
    dynamic_help: str = ""
    free_batch: bool = True
    int64: str = "yes"
    int64_note: str = ""
    int64_inputs: str = ""
    no_batch: bool = False
    ops: Mapping[str, Operator] = field(default_factory=dict, compare=False, repr=False)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.title} {self.version}"


@cache
def names() -> tuple[str, ...]:
    """Every target's name, sorted."""
    return tuple(sorted(file.name[: -len(".json")] for file in _folder().iterdir() if file.name.endswith(".json")))


@cache
def load(name: str) -> Target:
    """The target of a name or alias, ignoring case.

    Raises:
        OnnxlintError: No such name; the message has the nearest match.
    """
    key = name.lower()
    if key in names():
        return _read(key)
    aliases = {alias: target.name for target in map(_read, names()) for alias in target.aliases}
    if key in aliases:
        return _read(aliases[key])
    hint = did_you_mean(key, [*names(), *aliases], choices(names()))
    raise OnnxlintError(f"no target is called {printable(name)!r}{hint}")


def _folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec("onnxlint_rules")
    if spec is None or spec.origin is None:
        raise OnnxlintError("the package onnxlint_rules, which holds the target tables, is missing; reinstall onnxlint")
    return Path(spec.origin).parent / "targets"


@cache
def _read(name: str) -> Target:
    import json

    table = json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8"))
    ops = {op: _operator(entry) for op, entry in table.pop("ops").items()}
    return Target(name=name, ops=ops, **_frozen(table))


def _operator(entry: dict[str, Any]) -> Operator:
    return Operator(tuple(Limit(**_frozen(limit)) for limit in entry.get("limits", ())), entry.get("until"))


def _frozen(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
