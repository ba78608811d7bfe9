"""The one error a user can cause."""

from __future__ import annotations

from onnxlint.text import printable as printable


class OnnxlintError(Exception):
    """Bad input or an impossible request.

    The message is one line that names the file (or option), the problem and the way out. The CLI prints it and
    exits with code 2; nothing has been written when it is raised.
    """
