"""The bytes of a remote file, fetched as they are asked for.

A skeleton is read by walking from field to field: mostly forward, with jumps over the data of weights. Blocks are small
after a jump and grow while reading goes on in a row, so that a large model costs about one block for each large tensor,
and a small one a single request.
"""

from __future__ import annotations

from typing import Protocol, overload

BLOCK = 1 << 14
"""Bytes that are fetched after a jump."""

MOST_AHEAD = 64
"""Blocks that are fetched at once where reading goes on in a row."""

WHOLE = 4 << 20
"""Files of so many bytes are fetched by one request: it costs less than a request for each tensor."""

_KEPT = 1 << 20
"""Longer pieces (weights) are handed out and not kept."""


class Source(Protocol):
    """Where bytes come from.

    Attributes:
        size: Bytes of the file.
    """

    size: int

    @property
    def identity(self) -> str:
        """What stands for the content that was read so far; empty if nothing does, or if it changed meanwhile."""

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`; exactly as many.

        Raises:
            OnnxlintError: They cannot be had.
        """


class RemoteBytes:
    """A remote file as a sequence of bytes.

    Attributes:
        fetched: Bytes that were asked for so far.
        requests: Requests that were made for them.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._size = source.size
        self._blocks: dict[int, bytes] = {}
        self._ahead = 1
        self.fetched = 0
        self.requests = 0

    @property
    def identity(self) -> str:
        """What stands for the content that was read so far; see `Source`."""
        return self._source.identity

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> bytes: ...

    def __getitem__(self, place: int | slice) -> int | bytes:
        if isinstance(place, int):
            if not 0 <= place < self._size:
                raise IndexError(place)
            block = self._blocks.get(place // BLOCK)
            if block is None:
                self._load(place // BLOCK, place // BLOCK + 1)
                block = self._blocks[place // BLOCK]
            return block[place % BLOCK]
        start, end, _ = place.indices(self._size)
        return self._piece(start, max(start, end))

    def _piece(self, start: int, end: int) -> bytes:
        first, last = start // BLOCK, -(-end // BLOCK)
        if end - start > _KEPT and any(i not in self._blocks for i in range(first, last)):
            return self._fetch(start, end)
        self._load(first, last)
        joined = b"".join(self._blocks[i] for i in range(first, last))
        return joined[start - first * BLOCK : end - first * BLOCK]

    def _load(self, first: int, last: int) -> None:
        """Fetch the blocks that are missing, and some ahead."""
        if self._size <= WHOLE and first < last:
            first, last = 0, -(-self._size // BLOCK)
        while first < last:
            if first in self._blocks:
                first += 1
                continue
            in_a_row = first == 0 or first - 1 in self._blocks
            self._ahead = min(self._ahead * 2, MOST_AHEAD) if in_a_row else 1
            end = first + 1
            while end < max(last, first + self._ahead) and end * BLOCK < self._size and end not in self._blocks:
                end += 1
            data = self._fetch(first * BLOCK, min(end * BLOCK, self._size))
            for i in range(first, end):
                self._blocks[i] = data[(i - first) * BLOCK : (i - first + 1) * BLOCK]
            first = end

    def _fetch(self, start: int, end: int) -> bytes:
        self.requests += 1
        self.fetched += end - start
        return self._source.fetch(start, end)
