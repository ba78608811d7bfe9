"""What an export is asked for, as a command or a Python program gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from onnxlint.images.recipe import Recipe

Exporter = Literal["dynamo", "torchscript"]

EXPORTERS: tuple[Exporter, ...] = ("dynamo", "torchscript")

AUTO = "auto"
"""Both exporters, and the better result."""

OLDEST_OPSET, NEWEST_OPSET = 9, 25
"""Operator sets that one of the exporters may write; which of them depends on torch."""


@dataclass(frozen=True)
class Wanted:
    """One input of the network.

    Attributes:
        name: As the user gave it: a parameter of `forward`, `parameter.key` for a dictionary, or any name for the graph;
            empty if none was given.
        sizes: Of the example.
        dtype: torch's name of the element type: `float32`.
        free: Axis → symbol of a size that stays free.
        raised: Free axes whose example was 1 and became 2.
    """

    name: str
    sizes: tuple[int, ...]
    dtype: str = "float32"
    free: dict[int, str] = field(default_factory=dict)
    raised: tuple[int, ...] = ()


@dataclass(frozen=True)
class ExportOptions:
    """How to build, load and export a network; plain data, which another process can read.

    Attributes:
        inputs: In the order in which they were given; empty for an exported program, which knows its own.
        values: An .npz file with example inputs by name, in place of random numbers.
        weights: File of the weights; None leaves those that the factory made.
        weights_key: Entry of the checkpoint that holds them; None looks for it.
        arguments: Keyword arguments of the factory.
        allow_missing, allow_unexpected: Patterns of keys that may be missing from the file, or that the network lacks.
        input_names, output_names: Names in the graph; empty: those that `forward` gives.
        opset: Operator set; None for the exporter's own.
        exporter: `auto`, `dynamo` or `torchscript`.
        trust: Whether files may bring code (pickles) that runs when they are loaded.
        verify: Whether the network and the model run on the same inputs.
        recipe: How images become the input, to be kept in the file.
        references: Folder that gets the inputs and outputs of the network; empty: none.
        against: Folder with those of an earlier run, which the network is compared with.
        multiples: Symbol → number; earlier runs at other sizes say nothing.
        joined: Axis along which the earlier outputs are joined before they are compared; None: they are not.
    """

    inputs: tuple[Wanted, ...] = ()
    values: str | None = None
    weights: str | None = None
    weights_key: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    opset: int | None = None
    exporter: str = AUTO
    trust: bool = False
    verify: bool = True
    recipe: Recipe | None = None
    references: str = ""
    against: str = ""
    multiples: dict[str, int] = field(default_factory=dict)
    joined: int | None = None

    @property
    def exporters(self) -> tuple[Exporter, ...]:
        """The exporters to try, the preferred one first."""
        return tuple(one for one in EXPORTERS if self.exporter in (AUTO, one))


@dataclass(frozen=True)
class FixSource:
    """How the network's source may be changed.

    Attributes:
        multiple_of: Height and width of all images are multiples of this; None: nothing is assumed.
        concat_heads: Whether heads may be concatenated where `forward` returns them.
    """

    multiple_of: int | None = None
    concat_heads: bool = False
