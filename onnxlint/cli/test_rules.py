"""`onnxlint test-rules`."""

from __future__ import annotations

import argparse

from onnxlint.cli import console


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="file or folder with rules")


def run(options: argparse.Namespace) -> int:
    """Do it and return the exit code."""
    from onnxlint.fixes.rule_tests import run_examples

    failed = 0
    for name, problem in run_examples(options.paths):
        details = "".join(f"    {line}\n" for line in problem.splitlines())
        console.write(f"{'FAILED' if problem else 'ok'}  {name}\n{details}")
        failed += bool(problem)
    console.write(f"{failed} failed\n" if failed else "All examples hold.\n")
    return 1 if failed else 0
