"""Reshape targets that constants can express."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from onnxlint.graph.view import Node
from onnxlint.symbolic.engine import Symbolic
from onnxlint.symbolic.sizes import AnySize, Size, TooComplexError, divide, product

NeverEmpty = Callable[[AnySize], bool]
"""Whether a proof may take it that a size is at least 1 (`Symbolic.is_never_empty`)."""


def constant_target(data: Sequence[AnySize], target: Sequence[object], is_never_empty: NeverEmpty) -> list[int] | None:
    """A constant Reshape target that says the same as a computed one.

    Runtimes refuse a `-1` where another number of the target is 0, and so does this.

    Args:
        data: Sizes of the Reshape's input.
        target: Numbers of the target, sizes among them.
        is_never_empty: `Symbolic.is_never_empty`.

    Returns:
        Numbers, with `0` for what is copied from the same-numbered axis of the input and at most one `-1`; None if more
        than one size is neither a number nor such a copy, and the target has to be computed.
    """
    constant: list[int] = []
    for i, number in enumerate(target):
        copied = i < len(data) and number == data[i]
        if isinstance(number, int) and not (copied and i == 0):
            constant.append(number)
        else:
            constant.append(0 if copied else -1)
    if constant.count(-1) > 1:
        return None
    copies = [data[i] if i < len(data) else 0 for i, number in enumerate(constant) if number == 0]
    return constant if -1 not in constant or all(map(is_never_empty, copies)) else None


def may_copy(node: Node, symbolic: Symbolic) -> bool:
    """Whether a computed size in a Reshape target may be 0 and then copies another size, and something makes up for it.

    `[n * h, -1]` gives `[n, 0]` where h is 0, and `[n, c * h]` gives `[0, c]` where n is 0, too.
    """
    value, data = symbolic.val(node, 1), symbolic.of(node, 0) or ()
    if value is None or node.attribute("allowzero", 0):
        return False
    copied = [data[i] if n == 0 and i < len(data) else n for i, n in enumerate(value.numbers)]
    numbers = [(i, n) for i, n in enumerate(copied) if isinstance(n, Size)]
    zeros = [
        i for i, n in numbers if not (symbolic.is_never_empty(n) and (symbolic.is_filled(n) or n in data[i : i + 1]))
    ]
    makes_up = -1 in copied or len(zeros) > 1
    return makes_up and any(copied[i] not in data[i : i + 1] for i in zeros)


def hold_as_many(one: Sequence[AnySize], other: Sequence[AnySize]) -> bool:
    """Whether two shapes have the same number of elements for all inputs."""
    try:
        return product(one) == product(other)
    except TooComplexError:
        return False


class Step(NamedTuple):
    """One Reshape with a constant target, and the nodes before and after it that align copied axes.

    Attributes:
        unsqueeze: Axes of size 1 to insert into the input first.
        target: The constant target.
        squeeze: Axes of size 1 to take out afterwards.
    """

    unsqueeze: tuple[int, ...]
    target: tuple[int, ...]
    squeeze: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """How many nodes the step takes."""
        return 1 + bool(self.unsqueeze) + bool(self.squeeze)


def reshape_steps(data: Sequence[AnySize], target: Sequence[AnySize], is_never_empty: NeverEmpty) -> list[Step] | None:
    """Constant Reshapes that together equal one with a computed target.

    `0` copies only the same-numbered axis: axes of size 1, put in and taken out again, line up the others. Where several
    sizes are new, as when an image is cut into windows, each comes from a group of axes of its own and gets a Reshape of
    its own.

    Args:
        data: Sizes of the input.
        target: Sizes of the output: no `0` or `-1` among them.
        is_never_empty: `Symbolic.is_never_empty`.

    Returns:
        The steps, first to last; None if a group of axes has two new sizes, so that they have to be computed, where
        a size beside a `-1` may be 0, or where products of sizes are beyond bounds.
    """
    try:
        whole = _aligned(data, target, is_never_empty)
        groups = _groups(data, target) if whole is None else None
    except TooComplexError:
        return None
    if whole is not None:
        return [whole]
    if groups is None or len(groups) < 2:
        return None
    steps: list[Step] = []
    current = list(data)
    # From the right, so that what is still to come keeps its place.
    for (start, end), (first, last) in reversed(groups):
        wanted = [*current[:start], *target[first:last], *current[end:]]
        if wanted == current:
            continue
        step = _aligned(current, wanted, is_never_empty)
        if step is None:
            return None
        steps.append(step)
        current = wanted
    return steps


def _aligned(data: Sequence[AnySize], target: Sequence[AnySize], is_never_empty: NeverEmpty) -> Step | None:
    """One Reshape whose free sizes but one are copies of the input's, in the same order."""
    pairs: list[tuple[int, int]] = []
    place = 0
    free = 0
    for i, size in enumerate(target):
        if isinstance(size, int):
            continue
        found = next((p for p in range(place, len(data)) if data[p] == size), None)
        if found is None:
            free += 1
        else:
            pairs.append((found, i))
            place = found + 1
    if free > 1:
        return None
    beside = [*(target[i] for _, i in pairs), *(size for size in target if isinstance(size, int))]
    if free and not all(map(is_never_empty, beside)):
        return None  # a -1 beside a 0
    unsqueeze: list[int] = []
    squeeze: list[int] = []
    constant: list[int] = []
    shift_in = 0  # ones put into the input so far
    done = 0
    for p, i in [*pairs, (-1, len(target))]:
        constant += [size if isinstance(size, int) else -1 for size in target[done:i]]
        if p < 0:
            break
        while p + shift_in < len(constant):
            unsqueeze.append(p + shift_in)
            shift_in += 1
        while len(constant) < p + shift_in:
            squeeze.append(len(constant))
            constant.append(1)
        constant.append(0)
        done = i + 1
    return Step(tuple(unsqueeze), tuple(constant), tuple(squeeze))


def _groups(data: Sequence[AnySize], target: Sequence[AnySize]) -> list[tuple[tuple[int, int], tuple[int, int]]] | None:
    """Runs of axes of both shapes with the same product, as short as possible; None if they cannot be told."""
    groups = []
    i = j = 0
    while i < len(data) and j < len(target):
        start, first = i, j
        left, right = data[i], target[j]
        i, j = i + 1, j + 1
        while left != right:
            # Take in more on the side that the other does not divide into.
            if divide([left], [right]) is not None and j < len(target):
                right, j = right * target[j], j + 1
            elif i < len(data):
                left, i = left * data[i], i + 1
            elif j < len(target):
                right, j = right * target[j], j + 1
            else:
                return None
        groups.append(((start, i), (first, j)))
    if any(size != 1 for size in (*data[i:], *target[j:])):
        return None
    if groups:
        (start, _), (first, _) = groups[-1]
        groups[-1] = ((start, len(data)), (first, len(target)))
    return groups
