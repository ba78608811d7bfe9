"""Topological order of nodes, given by the names that they read and make."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


def topological_order(reads: Sequence[Sequence[str]], makes: Sequence[Sequence[str]]) -> tuple[list[int], list[int]]:
    """Order nodes so that each stands after those that it reads (Kahn's algorithm).

    Args:
        reads: Names that each node reads; names that no node makes are ignored.
        makes: Names that each node makes; where several make one, the first counts.

    Returns:
        Indices of the nodes in order, and indices of those that are left because a cycle goes through or before them.
    """
    maker = _makers(makes)
    needed = [{maker[name] for name in names if name in maker} for names in reads]
    users: list[list[int]] = [[] for _ in reads]
    for i, makers in enumerate(needed):
        for j in makers:
            users[j].append(i)
    waiting = [len(makers) for makers in needed]
    ready = deque(i for i, count in enumerate(waiting) if not count)
    order: list[int] = []
    while ready:
        i = ready.popleft()
        order.append(i)
        for user in users[i]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return order, [i for i, count in enumerate(waiting) if count > 0]


def nearest_outputs(
    outputs: Sequence[str], reads: Sequence[Sequence[str]], makes: Sequence[Sequence[str]]
) -> dict[int, str]:
    """For each node that an output depends on, the output that the fewest nodes separate from it.

    Args:
        outputs: Names of the graph's outputs.
        reads, makes: As for `topological_order`.
    """
    maker = _makers(makes)
    nearest: dict[int, str] = {}
    queue: deque[int] = deque()
    for name in outputs:
        i = maker.get(name)
        if i is not None and i not in nearest:
            nearest[i] = name
            queue.append(i)
    while queue:
        i = queue.popleft()
        for name in reads[i]:
            j = maker.get(name)
            if j is not None and j not in nearest:
                nearest[j] = nearest[i]
                queue.append(j)
    return nearest


def _makers(makes: Sequence[Sequence[str]]) -> dict[str, int]:
    """Name → the first node that makes it."""
    maker: dict[str, int] = {}
    for i, names in enumerate(makes):
        for name in names:
            if name:
                maker.setdefault(name, i)
    return maker
