"""The one error a user can cause."""

from __future__ import annotations


class OnnxlintError(Exception):
    """Bad input or an impossible request.

    The message is one line that names the file (or option), the problem and the way out. The CLI prints it and
    exits with code 2; nothing has been written when it is raised.
    """


def printable(text: str) -> str:
    """Escape control characters, terminal escapes and bidirectional overrides, so that `text` is safe to show.

    Names come out of files that anybody can make: none is ever echoed raw. Ordinary Unicode stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
