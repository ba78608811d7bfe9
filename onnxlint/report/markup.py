"""Text from models and pull requests as Markdown that GitHub and GitLab show as it is, and pictures in Mermaid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnxlint.report._common import shown
from onnxlint.text import shortened

if TYPE_CHECKING:
    from onnxlint.lint.neighbourhood import Box, Neighbourhood

_SIGNS = {"+": "➕", "-": "➖", "~": "✏️"}
_LABEL = 48
"""Characters of a name in a picture."""

_TEXT = 400
"""Characters of a name or message outside of pictures."""

# Punctuation that Markdown, and what GitHub and GitLab add to it (mentions, links, mathematics), reads something into.
_MARKUP = re.compile(r"[\\`*\[\]<>&|~$@#]|(?<![^\W_])_|_(?![^\W_])|:(?=\S)|(?<=www)\.", re.IGNORECASE)


def picture(around: Neighbourhood) -> str:
    """A Mermaid flowchart in a fenced block, the box in the middle marked."""
    lines = ["", "```mermaid", "flowchart LR"]
    lines += [f"    n{i}{_box(box)}" for i, box in enumerate(around.boxes)]
    lines += [f'    n{source} -->|"{_label(label)}"| n{target}' for source, target, label in around.edges]
    lines += ["    classDef finding stroke-width:4px,stroke:orange", f"    class n{around.center} finding", "```", ""]
    return "\n".join(lines)


def _box(box: Box) -> str:
    title = _label(box.title)
    if box.kind != "node":
        return f'(["{title}"])'
    # The operator is in most names already, but not in all; the name says which of them it is.
    return f'["{title}<br/>{_label(box.name)}"]' if box.name else f'["{title}"]'


def _label(text: str) -> str:
    """A text for a quoted label: all but letters, digits and what is harmless as Mermaid's entity codes."""
    text = shown(shortened(text, _LABEL), _LABEL * 10) or " "
    return "".join(c if c.isalnum() or c in " _/,.()?×→…" else f"#{ord(c)};" for c in text)


def code(text: str) -> str:
    """A code span that holds exactly this text."""
    text = shown(text, _TEXT) or " "
    fence = "`"
    while fence in text:
        fence += "`"
    if len(fence) > 1 or text.startswith(" ") or text.endswith(" "):
        return f"{fence} {text} {fence}"
    return f"{fence}{text}{fence}"


def html(text: str) -> str:
    """A text that is not markup, neither in an HTML block nor in a line of Markdown: entities are text in both."""
    return _MARKUP.sub(lambda match: f"&#{ord(match[0])};{_separator(match[0])}", shown(text, _TEXT))


def change_item(line: str) -> str:
    """A line of a list of changes as an item of a Markdown list: its `+` or `-` would begin a list of its own."""
    sign = _SIGNS.get(line[:1])
    return f"{sign} {prose(line[1:].strip())}" if sign else prose(line.strip())


def rows_table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of labels and texts, without a header; empty for no rows."""
    lines = "".join(f"| {prose(label)} | {prose(text)} |\n" for label, text in rows)
    return f"| | |\n| --- | --- |\n{lines}\n" if lines else ""


def folded(title: str, body: str) -> str:
    """A section that begins folded: its title is text, its body Markdown."""
    return f"<details>\n<summary>{html(title)}</summary>\n\n{body}\n</details>\n\n"


def prose(text: str) -> str:
    """A text without markup, readable in the file too: no emphasis, link, mention or element can come of it."""
    return _MARKUP.sub(lambda match: f"\\{match[0]}{_separator(match[0])}", shown(text, _TEXT))


def _separator(char: str) -> str:
    # Mentions and issue numbers are found in the text that is shown, where backslashes and entities are gone.
    return "<!-- -->" if char in "@#" else ""
