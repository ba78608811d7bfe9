"""Base class of rules: a code, a name, a docstring in fixed sections, examples, and `check`."""

from __future__ import annotations

import enum
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from onnxlint.graph.location import Location
from onnxlint.lint.finding import Finding, Fix, Severity
from onnxlint.text import printable

if TYPE_CHECKING:
    import onnx

    from onnxlint.graph.view import GraphView
    from onnxlint.surgery.surgeon import Surgeon

SECTIONS = ("What it does", "Why it hurts", "Fix it at the source", "Fix safety", "References")
"""Sections that every rule's docstring has, as `## Title`, in this order."""


class Status(str, enum.Enum):
    """Stable rules keep their meaning; preview ones run only when selected by code; deprecated ones warn."""

    STABLE = "stable"
    PREVIEW = "preview"
    DEPRECATED = "deprecated"


@dataclass(frozen=True)
class Options:
    """Options that rules read besides the model.

    Attributes:
        targets: Backends that the model is meant for (`ncnn`, `tensorrt`, …); empty if the user named none.
        min_opset: Oldest operator set that the user accepts.
        weights: Whether rules may read weights.
        all_activations: Whether activations count at outputs of every model, as where `fix --drop-output-activations` is
            to drop them; else only at those of detectors.
    """

    targets: tuple[str, ...] = ()
    min_opset: int = 11
    weights: bool = False
    all_activations: bool = False


@dataclass(frozen=True)
class Example:
    """A model in ONNX's text syntax on which the rule fires.

    Attributes:
        bad: The model.
        good: The same model without the problem: the patched model or, without a patch, what a better
            export looks like. None only if no change of the graph helps.
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
    """The user's request to a fix, besides safe fixes.

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
        opset: Operator set that the model is to have, raised or lowered; None: at least 11.
        bind: (input, value) pairs: inputs that become constants. A value is numbers (`1,1,3,3`) or an .npy file.
        simplify: Whether onnxsim goes over the result.
        allow_empty: Whether fixes must also be exact for inputs of which a size is 0.
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
    bind: tuple[tuple[str, str], ...] = ()
    simplify: bool = False
    allow_empty: bool = False


class Unfixable(Exception):  # noqa: N818 - an answer, not an error
    """The patch cannot be applied here; the message tells the user why."""


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
        fix: Applicability of this rule's fixes in general; each finding carries its own.
        apart: Whether reports for people show each finding by itself, because the messages differ in more than the place.
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
    apart: ClassVar[bool] = False

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
        actionable: bool = True,
        group: str = "",
        covers: tuple[tuple[str, int | None], ...] = (),
        not_fixed: str = "",
        replacement: str = "",
        **evidence: object,
    ) -> Finding:
        """A finding of this rule.

        Control characters in the message are escaped, in case it holds a raw name.

        Args:
            location: Where, from `view.at`.
            message: One line: the problem here, with the values that show it.
            fix: Applicability and option of the fix; None if there is none.
            help: What to do about it, where the rule's `help` does not fit.
            severity: Overrides the rule's severity.
            actionable: False if neither a fix nor another export can remove it.
            group: The common message of findings of its kind, as a sentence in the plural.
            covers: Places where nothing ever runs, so that other findings there are not reported (see `Finding`).
            not_fixed: What stood in the way of a fix; becomes the evidence `not fixed`.
            replacement: The line of Python to write in place of the innermost one of `location.source`; becomes the
                evidence `replacement`.
            evidence: The facts behind the message, as text.
        """
        facts = {
            **evidence,
            **{key: value for key, value in (("not fixed", not_fixed), ("replacement", replacement)) if value},
        }
        return Finding(
            code=self.code,
            name=self.name,
            severity=severity or self.severity,
            message=printable(message),
            location=location,
            help=self.help if help is None else printable(help),
            evidence=tuple((key, str(value)) for key, value in facts.items()),
            fix=fix,
            actionable=actionable,
            group=printable(message if self.apart else group),
            covers=covers,
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
