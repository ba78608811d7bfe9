"""What the site has beside the files in docs/, made while mkdocs builds it.

Pages for README.md, CHANGELOG.md, CONTRIBUTING.md and SECURITY.md; the command line from typer's own application; the
Python interface for mkdocstrings; and on each rule's page the picture that `onnxlint check --format html` draws.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "https://github.com/onnxlint/onnxlint/blob/main/"

AT_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""File in the root → its page."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not files in docs/."""
    generated = {page: _moved((ROOT / name).read_text(encoding="utf-8")) for name, page in AT_ROOT.items()}
    generated["reference/cli.md"] = command_line()
    generated["reference/python.md"] = python_interface()
    generated["assets/site.css"] = (Path(__file__).parent / "site.css").read_text(encoding="utf-8") + graph_rules()
    for page, content in generated.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_nav(nav: Navigation, config: Any, files: Files) -> Navigation:
    """List all rules below their index, by group."""
    section = next(item for item in nav.items if isinstance(item, Section) and item.title == "Rules")
    groups: dict[str, list[Page]] = {}
    for file in files.documentation_pages():
        match = re.fullmatch(r"rules/([A-Z]{3})\d+\.md", file.src_uri)
        if match:
            page = file.page or Page(None, file, config)
            groups.setdefault(match[1], []).append(page)
    for prefix, pages in groups.items():
        group = Section(prefix, sorted(pages, key=lambda page: str(page.file.src_uri)))
        group.parent = section
        for page in pages:
            page.parent = group
        section.children.append(group)
        nav.pages += [page for page in pages if page not in nav.pages]
    return nav


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Make links to files outside docs/ links to the repository, and draw what a rule is about."""
    markdown = re.sub(r"\]\(\.\./(?!\.)([^)\s]+)\)", _outside, markdown) if "/" not in page.file.src_uri else markdown
    code = re.fullmatch(r"rules/([A-Z]{3}\d+)\.md", page.file.src_uri)
    if code:
        drawn = pictures(code[1])
        markdown = (
            markdown.replace("\n## Examples\n", f"\n## In the graph\n\n{drawn}\n\n## Examples\n", 1)
            if drawn
            else markdown
        )
    return markdown


def _outside(match: re.Match[str]) -> str:
    target = match[1]
    name, _, anchor = target.partition("#")
    if name in AT_ROOT:
        return f"]({AT_ROOT[name]}{'#' + anchor if anchor else ''})"
    return f"]({SOURCE}{target})"


def _moved(text: str) -> str:
    """Text of a file in the root with its links as they are from docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for name, page in AT_ROOT.items():
        text = text.replace(f"]({name}", f"]({page}")
    return re.sub(
        r"\]\((?=[A-Z]\w*(?:\.md)?\)|\.github/|rules/onnxlint|fixtures/|tests/|benchmarks/)", f"]({SOURCE}", text
    )


# Command line


def command_line() -> str:
    """Each command with its usage and options, as its help lists them."""
    from onnxlint.cli.commands import COMMANDS
    from onnxlint.cli.parsing import help_of

    parts = [
        "# Command line",
        "Exit codes of all commands: 0 success, 1 findings at or above `--fail-on` or a condition that failed, 2 an "
        "error, 130 interrupted. `onnxlint COMMAND --help` prints what is below.",
    ]
    for name, command in COMMANDS.items():
        described = help_of(name, command)
        parts += [f"## onnxlint {name}", command.about, f"```text\n{described.usage}\n```"]
        for title, records in described.groups.items():
            head = f"| {title or 'arguments'} | |"
            rows = [f"| `{option.replace('|', chr(92) + '|')}` | {_cell(about)} |" for option, about in records]
            parts.append("\n".join([head, "| --- | --- |", *rows]))
        if described.notes:
            parts.append(_escaped(described.notes))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", text)


# Python


def python_interface() -> str:
    """The public names, for mkdocstrings."""
    import onnxlint

    functions = [name for name in onnxlint._HOMES if name[0].islower()]
    classes = [name for name in onnxlint._HOMES if not name[0].islower()]
    parts = ["# Python, in full", "What each name of [the Python interface](../api.md) takes, returns and raises."]
    for title, names in (("Functions", functions), ("Classes", classes)):
        parts.append(f"## {title}")
        parts += [f"::: {onnxlint._HOMES[name]}.{name}" for name in names]
    return "\n\n".join(parts) + "\n"


# Pictures


def graph_rules() -> str:
    """The part of the style sheet of HTML reports that is about pictures of graphs."""
    text = (ROOT / "onnxlint" / "report" / "assets" / "check.css").read_text(encoding="utf-8")
    return text[text.index(".graphs {") : text.index("@media print")]


def pictures(code: str) -> str:
    """The nodes around a finding in a rule's examples, before and after the fix, as HTML; empty where none can be drawn."""
    from onnxlint.lint.neighbourhood import Neighbourhood
    from onnxlint.report.check.html import pictures as drawn

    findings = list(_findings(code))
    fixed = (finding for finding in findings if isinstance(finding.after, Neighbourhood))
    finding = next(fixed, findings[0] if findings else None)
    return "" if finding is None else drawn(finding)


def _findings(code: str) -> Iterator[Any]:
    """The first finding in each bad example of a rule, with its pictures."""
    from onnxlint.fixes.rule_tests import parse
    from onnxlint.lint.engine import Plan, check_view
    from onnxlint.lint.excerpt import with_neighbourhoods
    from onnxlint.lint.registry import load_registry
    from onnxlint.model.skeleton import Model
    from onnxlint.symbolic.view import make_view

    rule = next(rule for rule in load_registry() if rule.code == code)
    for example in rule.examples:
        options = replace(example.options, weights=True) if rule.needs_weights else example.options
        view = make_view(Model(path="example.onnx", proto=parse(example.bad), size=0))
        findings, _, _ = check_view(view, Plan((rule,), options))
        yield from with_neighbourhoods(view, findings, {code: rule})[:1]
