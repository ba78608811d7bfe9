"""What is wanted of a fix; the command line, the Python functions and deployment give it as one argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxlint.lint.rule import Request


@dataclass(frozen=True)
class FixOptions:
    """Changes to make, assumptions, and how to verify.

    Attributes:
        request: What is wanted beside what is safe.
        assumptions: Conditions under which fixes may be exact: `H % 32 == 0`; symbols of the inputs, or N, H and W for the
            axes of images.
        multiple_of: The same for height and width of all images.
        verify: Whether both models are run and compared.
        inputs: An .npz file with inputs of the user's own to compare on.
    """

    request: Request = field(default_factory=Request)
    assumptions: tuple[str, ...] = ()
    multiple_of: int | None = None
    verify: bool = True
    inputs: str | None = None
