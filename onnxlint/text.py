"""Words and numbers as every message and report writes them: escaped names, counts, lists, hints, units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

UNKNOWN = "–"
"""Shown in place of a missing number."""

_COUNTS = frozenset("broken changed correct extra found images missed pairs repaired".split())
"""Metrics of tasks that count something."""

_UNITS = ("B", "KB", "MB", "GB", "TB")


def printable(text: str) -> str:
    """Escape control characters, terminal escapes and bidirectional overrides, so that `text` is safe to show.

    Names come out of untrusted files: none is ever printed raw. Ordinary Unicode stays unchanged.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of a text: its start and its end."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


BRIEF = 80
"""Characters of a word of the user, or of a file, that a message repeats."""


def brief(text: str, limit: int = BRIEF) -> str:
    """A text from a file or the command line, for a message: escaped, and without its middle if it is long."""
    return printable(shortened(text, limit))


MAX_WORD = 300
"""Characters without a space between that a message repeats of a name or of the user's words; paths are shorter."""

MAX_MESSAGE = 4000
"""Characters of a message."""

_LONG_WORD = re.compile(rf"\S{{{MAX_WORD + 1},}}")


def bounded(message: str) -> str:
    """A message of bounded length: long words in it lose their middle, and so does all of it."""
    if len(message) <= MAX_WORD:
        return message
    words = _LONG_WORD.sub(lambda match: shortened(match[0], MAX_WORD), shortened(message, 4 * MAX_MESSAGE))
    return shortened(words, MAX_MESSAGE)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 node`, `2 nodes`, `1,234 nodes`.

    Args:
        number: How many.
        noun: In the singular.
        plural: Plural form, if it is not the singular with an `s`.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def listed(items: Iterable[str], limit: int = 0, last: str = "and") -> str:
    """Items as a sentence lists them: `a`, `a and b`, `a, b and c`.

    Args:
        items: Already safe to show.
        limit: Show at most this many, then the number of the others (`a, b and 7 more`); 0: all.
        last: The word before the last one (`and`, `or`).
    """
    shown = list(items)
    if limit and len(shown) > limit:
        shown = [*shown[:limit], f"{len(shown) - limit} more"]
    return f" {last} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word nearest to a misspelt one (ignoring case and `_`); None if none is close.

    A word that begins with it, or has it between dashes, is nearer than one that has most of its letters.
    """
    import difflib

    folded: dict[str, str] = {}
    for key in known:
        folded.setdefault(key.lower().replace("_", "-"), key)
    wanted = word.lower().replace("_", "-")
    close = difflib.get_close_matches(wanted, folded, n=3, cutoff=0.6)
    if len(wanted) >= 4 and not (close and difflib.SequenceMatcher(None, wanted, close[0]).ratio() > 0.8):
        whole = [key for key in folded if key.startswith(wanted) or wanted in key.split("-")]
        close = sorted(whole, key=lambda key: (not key.startswith(wanted), len(key))) or close
    return folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a message about an unknown word: `; did you mean 'x'?`.

    Args:
        word: The misspelt word.
        known: The valid words.
        otherwise: The hint where no known word is close, such as `choices(known)`; empty for none.
    """
    near = nearest(word, known)
    if near is not None:
        return f"; did you mean {printable(near)!r}?"
    return f"; {otherwise}" if otherwise else ""


def choices(known: Iterable[str]) -> str:
    """A hint that lists all known words: `choose from a, b, c`."""
    return f"choose from {', '.join(map(printable, known))}"


def db(value: float | None) -> str:
    """A signal-to-noise ratio: `41.37 dB`; `exact` if nothing differs."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return "exact" if value == math.inf else f"{value:.2f} dB"


def gain(value: float | None) -> str:
    """A difference of two of them: `+4.96 dB`."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:+.2f} dB"


def share(value: float | None) -> str:
    """A part of a whole (0 to 1): `12.3 %`; positive values that round to 0 are `< 0.1 %`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def cosine(value: float | None) -> str:
    """A cosine, with as many digits as tell it from 1: `0.99987`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.5f}" if value >= 1 or value < 0.9999 else f"{value:.8f}"


def magnitude(value: float | None) -> str:
    """An error's magnitude: `0.0123`, `4.5e-07`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """A time: `14.2 ms`, `1.31 s`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.1f} ms" if value >= 1 else f"{value:.3f} ms"


def size(count: int | None) -> str:
    """Bytes, in decimal units: `853.6 KB`, `28 bytes`."""
    if count is None:
        return UNKNOWN
    if abs(count) < 1000:
        return f"{count} bytes" if abs(count) != 1 else f"{count} byte"
    value, unit = float(count), 0
    while unit == 0 or (abs(value) >= 999.95 and unit < len(_UNITS) - 1):
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_UNITS[unit]}"


def quantity(count: int | None) -> str:
    """How many there are: `426,608`."""
    return UNKNOWN if count is None else f"{count:,}"


def shape(sizes: Sequence[int]) -> str:
    """A tensor's: `1×16800×4`."""
    return "×".join(map(str, sizes)) if sizes else "scalar"


def metric(name: str, value: float | None) -> str:
    """A task's metric: counts as whole numbers, others with four digits."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "exact" if value > 0 else "-inf"
    if name in _COUNTS:
        return f"{round(value):,}"
    return f"{value if abs(value) >= 0.00005 else 0.0:.4f}"
