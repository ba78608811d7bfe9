"""What a rule is, and where rules come from.

A rule is one file that explains itself: a class with a code, a name, a docstring in fixed sections, examples, and
`check`. Built-in rules come in through the `onnxlint.rules` entry point, as anybody else's do; a team's own files
through `rule-paths` in the configuration.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from onnxlint.errors import OnnxlintError, printable
from onnxlint.graph.location import Location
from onnxlint.lint.finding import Finding, Fix, Severity

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView
    from onnxlint.surgery.surgeon import Surgeon

ENTRY_POINTS = "onnxlint.rules"

SECTIONS = ("What it does", "Why it hurts", "Fix it at the source", "Fix safety", "References")
"""Sections that every rule's docstring has, as `## Title`, in this order."""

_CODE = re.compile(r"[A-Z]{3}\d{3}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Status(str, enum.Enum):
    """Stable rules keep their meaning; preview ones run only when selected by code; deprecated ones warn."""

    STABLE = "stable"
    PREVIEW = "preview"
    DEPRECATED = "deprecated"


@dataclass(frozen=True)
class Options:
    """What a rule may want to know beside the model.

    Attributes:
        targets: Backends that the model is meant for (`ncnn`, `tensorrt`, …); empty where the user named none.
        min_opset: Oldest operator set that the user accepts.
        weights: Whether rules may read weights.
    """

    targets: tuple[str, ...] = ()
    min_opset: int = 11
    weights: bool = False


@dataclass(frozen=True)
class Example:
    """A model in ONNX's text syntax on which the rule fires.

    Attributes:
        bad: The model.
        good: The same model without the problem: what the patch makes of it or, where there is no patch, what a better
            export looks like. None only where nothing can be done to the graph.
        findings: How often the rule fires on `bad`.
        says: A part of the first message, so that the words are tested too.
        dims: Sizes for the symbols of the inputs (`N`, `H`, …) when both models are run; unlisted ones get small
            sizes.
        equal: Whether `bad` and `good` compute the same outputs, which the tests then verify with
            `onnx.reference`.
        options: What the user asked for.
    """

    bad: str
    good: str | None = None
    findings: int = 1
    says: str = ""
    dims: Mapping[str, int] = field(default_factory=dict)
    equal: bool = True
    options: Options = Options()


@dataclass(frozen=True)
class Silent:
    """A model on which the rule must say nothing, and why somebody could think that it should."""

    model: str
    why: str
    options: Options = Options()


@dataclass(frozen=True)
class Request:
    """What the user wants of a fix beside what is safe.

    Attributes:
        unsafe: Whether fixes that change results or the interface are wanted at all (`--unsafe`).
        multiples: Assumptions: (symbol of an input, number that it is a multiple of).
        concat_heads: Names of outputs to join into one, in this order; empty for all heads in graph order; None: do not.
        concat_axis: Axis to join them along; None: the only one in which they differ.
        concat_name: Name of the joined output.
        drop_output_activations: Whether a Softmax or Sigmoid at an output is to go.
        clamp_fp16: Whether weights and constants are to be brought into the range of float16.
        rename: (old, new) names of inputs and outputs.
        dynamic: Shapes that inputs are to have, `name=N,3,H,W`: letters are free sizes.
        static: Shapes that inputs are to have, `name=1,3,640,640`.
        opset: Operator set that the model is to have; None: at least 11.
    """

    unsafe: bool = False
    multiples: tuple[tuple[str, int], ...] = ()
    concat_heads: tuple[str, ...] | None = None
    concat_axis: int | None = None
    concat_name: str = "output"
    drop_output_activations: bool = False
    clamp_fp16: bool = False
    rename: tuple[tuple[str, str], ...] = ()
    dynamic: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    opset: int | None = None


class Unfixable(Exception):  # noqa: N818 - an answer, not an error
    """A patch found that it cannot be applied here; the message says why, for the user."""


class Rule(ABC):
    """One kind of problem.

    Subclasses set the class attributes, write a docstring with the sections of `SECTIONS` after a summary line,
    and implement `check`.

    Attributes:
        code: Three letters and three digits, for ever.
        name: In kebab-case, as good as the code wherever rules are named.
        severity: Unless the configuration says otherwise.
        help: One line: what to do about it.
        examples: At least one.
        silent: Models that must stay silent.
        status: See `Status`.
        since: Version of onnxlint (or of the package) that brought the rule.
        aliases: Former codes and names.
        targets: Backends that the rule is about: it runs only when the user names one of them. Empty: everybody.
        default: Whether the rule runs when nothing is selected.
        needs_weights: Whether it reads weights, and so runs only with `--weights`.
        fix: What a fix of this rule is in general; each finding carries its own.
        arithmetic: Whether its patch changes arithmetic, so that results are equal only within rounding.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity] = Severity.WARNING
    help: ClassVar[str] = ""
    examples: ClassVar[tuple[Example, ...]] = ()
    silent: ClassVar[tuple[Silent, ...]] = ()
    status: ClassVar[Status] = Status.STABLE
    since: ClassVar[str] = "0.1.0"
    aliases: ClassVar[tuple[str, ...]] = ()
    targets: ClassVar[frozenset[str]] = frozenset()
    default: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = False
    fix: ClassVar[Fix | None] = None
    arithmetic: ClassVar[bool] = False

    @abstractmethod
    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        """Yield a finding for each place where the problem is, in the order of the file."""

    def patch(self, finding: Finding, view: GraphView, surgeon: Surgeon, request: Request) -> None:
        """Do away with a finding that carries a fix, by changing graphsurgeon's graph.

        All nodes that change are asked from `surgeon.node` first: where another patch of the same round has changed one of
        them, that raises, and the patch comes again in the next round.

        Raises:
            Unfixable: It cannot be done here.
        """
        raise Unfixable(f"{self.code} has no patch")

    def rewrite(self, finding: Finding, view: GraphView, request: Request) -> onnx.ModelProto | None:
        """As `patch`, for fixes that concern the model as a whole: the new skeleton, or None to be patched."""
        return None

    def found(
        self,
        location: Location,
        message: str,
        *,
        fix: Fix | None = None,
        help: str | None = None,
        severity: Severity | None = None,
        **evidence: object,
    ) -> Finding:
        """A finding of this rule. `evidence` holds the facts behind the message, as text.

        Control characters in the message are escaped, should a name have got in as it is.
        """
        return Finding(
            code=self.code,
            name=self.name,
            severity=severity or self.severity,
            message=printable(message),
            location=location,
            help=self.help if help is None else printable(help),
            evidence=tuple((key, str(value)) for key, value in evidence.items()),
            fix=fix,
        )

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0]

    @classmethod
    def sections(cls) -> dict[str, str]:
        """The docstring's sections: title → Markdown."""
        text = inspect.cleandoc(cls.__doc__ or "")
        parts = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)
        return {title.strip(): body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


class Registry:
    """The rules that exist, by code, name and alias.

    Args:
        rules: Rule classes.

    Raises:
        OnnxlintError: A rule is incomplete, or two share a code or a name.
    """

    def __init__(self, rules: Iterable[type[Rule]]) -> None:
        self.rules: dict[str, type[Rule]] = {}
        self._names: dict[str, str] = {}
        for rule in sorted(rules, key=lambda r: getattr(r, "code", "")):
            problem = _incomplete(rule)
            if problem:
                raise OnnxlintError(f"rule {rule.__module__}.{rule.__qualname__} {problem}")
            for key in (rule.code, rule.name, *rule.aliases):
                if key in self._names:
                    other = self.rules[self._names[key]]
                    raise OnnxlintError(
                        f"{key!r} names two rules: {other.__module__}.{other.__qualname__} and "
                        f"{rule.__module__}.{rule.__qualname__}; rename one"
                    )
                self._names[key] = rule.code
            self.rules[rule.code] = rule

    def __iter__(self) -> Iterator[type[Rule]]:
        return iter(self.rules.values())

    def find(self, name: str) -> type[Rule]:
        """The rule of a code, name or alias.

        Raises:
            OnnxlintError: There is none; the message has the nearest match.
        """
        code = self._names.get(name) or self._names.get(name.upper()) or self._names.get(name.lower())
        if code is None:
            raise self.unknown(name)
        return self.rules[code]

    def expand(self, selector: str) -> list[type[Rule]]:
        """Rules of a selector: a code, a prefix (`SHP`, `SHP00`), a name, an alias or `ALL`.

        Raises:
            OnnxlintError: It selects nothing.
        """
        if selector == "ALL":
            return list(self)
        if selector in self._names:
            return [self.find(selector)]
        prefix = selector.upper()
        found = [rule for rule in self if rule.code.startswith(prefix)] if selector else []
        if found:
            return found
        return [self.find(selector)]

    def unknown(self, name: str) -> OnnxlintError:
        import difflib

        prefixes = {code[:3] for code in self.rules}
        folded = {key.lower(): key for key in (*self._names, *prefixes, "ALL")}
        near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
        hint = f"did you mean {folded[near[0]]!r}? " if near else ""
        return OnnxlintError(f"no rule is called {name!r}; {hint}'onnxlint rules' lists them")


def _incomplete(rule: type[Rule]) -> str:
    if not _CODE.fullmatch(getattr(rule, "code", "")):
        return "has no code of three letters and three digits, like ABC001"
    if not _NAME.fullmatch(getattr(rule, "name", "")):
        return f"({rule.code}) has no name in kebab-case, like resize-by-sizes"
    if not rule.examples:
        return f"({rule.code}) has no examples; give it at least one Example(bad=…)"
    if sys.flags.optimize < 2:
        document = rule.__doc__ or ""
        missing = [title for title in SECTIONS if f"## {title}" not in document]
        if missing:
            return f"({rule.code}) lacks these sections in its docstring: {', '.join(missing)}"
    return ""


@cache
def load_registry(rule_paths: tuple[str, ...] = ()) -> Registry:
    """Rules of every installed package, and of the given files and folders.

    Raises:
        OnnxlintError: A package or file cannot be imported, or holds an incomplete rule.
    """
    from importlib.metadata import entry_points

    rules: dict[type[Rule], None] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
            found = rules_in(loaded) if isinstance(loaded, ModuleType) else [loaded]
        except Exception as error:
            raise OnnxlintError(
                f"the rules of entry point {point.name!r} ({point.value}) cannot be loaded: {_short(error)}"
            ) from error
        rules.update(dict.fromkeys(found))
    for path in rule_paths:
        rules.update(dict.fromkeys(rules_at(Path(path))))
    return Registry(rules)


def rules_in(module: ModuleType) -> list[type[Rule]]:
    """Rule classes that a module defines and, for a package, those of its modules and packages (without a leading `_`)."""
    found = _defined_in(module)
    if hasattr(module, "__path__"):
        names = [info.name for info in pkgutil.iter_modules(module.__path__) if info.name[0] != "_"]
        for name in names:
            found += rules_in(importlib.import_module(f"{module.__name__}.{name}"))
    return found


def rules_at(path: Path) -> list[type[Rule]]:
    """Rule classes of a Python file, or of every file in a folder.

    Raises:
        OnnxlintError: There is no such path, no rule in it, or it cannot be imported.
    """
    if not path.exists():
        raise OnnxlintError(f"{path}: no such file or folder of rules; check rule-paths")
    files = sorted(f for f in path.rglob("*.py") if not f.name.startswith("_")) if path.is_dir() else [path]
    found: list[type[Rule]] = []
    for file in files:
        name = "onnxlint_local_rules." + re.sub(r"\W", "_", str(file.resolve().with_suffix("")))
        module = sys.modules.get(name)
        if module is None:
            spec = importlib.util.spec_from_file_location(name, file)
            if spec is None or spec.loader is None:
                raise OnnxlintError(f"{file}: not a Python file; rules are written in .py files")
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[name]
                raise OnnxlintError(f"{file}: cannot be imported: {_short(error)}") from error
        found += _defined_in(module)
    if not found:
        raise OnnxlintError(f"{path}: holds no rule (a subclass of onnxlint.Rule)")
    return found


def _defined_in(module: ModuleType) -> list[type[Rule]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__  # before issubclass: Python 3.10 takes list[int] for a type here
        and issubclass(value, Rule)
        and not inspect.isabstract(value)
    ]


def _short(error: BaseException) -> str:
    text = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
