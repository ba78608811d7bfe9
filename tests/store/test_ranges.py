"""Remote bytes: the same as the file's, and no more of them than needed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxlint.store import ranges
from onnxlint.store.ranges import BLOCK, RemoteBytes


class Memory:
    """A source that remembers what it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.asked: list[tuple[int, int]] = []

    @property
    def identity(self) -> str:
        return ""

    def fetch(self, start: int, end: int) -> bytes:
        assert 0 <= start < end <= self.size
        self.asked.append((start, end))
        return self.data[start:end]


PATTERN = bytes(i * 31 % 251 for i in range(5 * BLOCK + 77))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(PATTERN)), st.integers(0, len(PATTERN))), max_size=8), st.booleans())
def test_every_slice_is_the_files(places: list[tuple[int, int]], whole: bool) -> None:
    before = ranges.WHOLE, ranges._KEPT
    ranges.WHOLE, ranges._KEPT = (ranges.WHOLE if whole else 0), 2 * BLOCK
    try:
        source = Memory(PATTERN)
        remote = RemoteBytes(source)
        for start, end in places:
            assert remote[start:end] == PATTERN[start:end]
            if start < len(PATTERN):
                assert remote[start] == PATTERN[start]
        assert remote.fetched == sum(end - start for start, end in source.asked)
        assert remote.requests == len(source.asked)
    finally:
        ranges.WHOLE, ranges._KEPT = before


def test_places_beyond_the_end_are_none() -> None:
    remote = RemoteBytes(Memory(b"abc"))
    assert remote[3:9] == b""
    assert remote[1:9] == b"bc"
    for place in (3, -1):
        with pytest.raises(IndexError):
            remote[place]


def test_a_small_file_is_one_request() -> None:
    source = Memory(PATTERN)
    remote = RemoteBytes(source)
    assert [remote[i * BLOCK] for i in range(5)] == [PATTERN[i * BLOCK] for i in range(5)]
    assert source.asked == [(0, len(PATTERN))]


def test_reading_in_a_row_asks_for_more_at_once_and_a_jump_for_one_block() -> None:
    source = Memory(bytes(512 * BLOCK))
    remote = RemoteBytes(source)
    for place in range(0, 100 * BLOCK, BLOCK):
        remote[place]
    assert remote.requests <= 8
    before = remote.fetched
    remote[400 * BLOCK]
    assert remote.fetched - before == BLOCK
