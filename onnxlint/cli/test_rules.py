"""`onnxlint test-rules`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from onnxlint.cli import console
from onnxlint.cli.options import argument


@dataclass(frozen=True, kw_only=True)
class Options:
    """Arguments and options of the command."""

    paths: Annotated[list[str], argument("PATH", "file or folder with rules")]


def run(options: Options) -> int:
    """Run the examples of rules and print which fail; returns the exit code."""
    from onnxlint.fixes.rule_tests import run_examples

    failed = 0
    for name, problem in run_examples(options.paths):
        details = "".join(f"    {line}\n" for line in problem.splitlines())
        console.write(f"{'FAILED' if problem else 'ok'}  {name}\n{details}")
        failed += bool(problem)
    console.write(f"{failed} failed\n" if failed else "All examples hold.\n")
    return 1 if failed else 0
