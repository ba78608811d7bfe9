"""The commands, by name. Only the one that runs is imported."""

from __future__ import annotations

from typing import NamedTuple

ERROR = 2
"""Exit code of errors."""

START = "to begin with"
MODELS = "models"
LOOK = "a closer look"
RULES = "rules and configuration"
TEAM = "pull requests"
NCNN = "ncnn's own files"


class Command(NamedTuple):
    """One command.

    Attributes:
        module: Has its `Options` and its `run`.
        about: What it does, in one line.
        group: The heading that `onnxlint --help` lists it under.
    """

    module: str
    about: str
    group: str


COMMANDS = {
    "demo": Command("onnxlint.cli.demo", "Check, fix, convert and compare a small detector that it brings.", START),
    "export": Command("onnxlint.cli.export", "Export a PyTorch network, run both and check the model.", MODELS),
    "check": Command("onnxlint.cli.check", "Report problems that models will have in deployment.", MODELS),
    "fix": Command("onnxlint.cli.fix", "Apply fixes that are proved, or verified by running both models.", MODELS),
    "convert": Command(
        "onnxlint.cli.convert", "Convert and quantize a model (ONNX fp16/int8, ncnn, OpenVINO).", MODELS
    ),
    "compare": Command("onnxlint.cli.compare", "Compare the accuracy of models against a reference.", MODELS),
    "deploy": Command("onnxlint.cli.deploy", "Fix, convert and compare into one folder, with sample programs.", MODELS),
    "diff": Command("onnxlint.cli.diff", "Show what changed between two models.", LOOK),
    "show": Command("onnxlint.cli.show", "Print a model as stable text, for git diff.", LOOK),
    "heads": Command("onnxlint.cli.heads", "Show the slices of a concatenated output.", LOOK),
    "view": Command("onnxlint.cli.view", "Show a model in Netron, in the browser.", LOOK),
    "rules": Command("onnxlint.cli.rules", "List all rules.", RULES),
    "rule": Command("onnxlint.cli.rule", "Explain a rule, with examples.", RULES),
    "test-rules": Command("onnxlint.cli.test_rules", "Run the examples of rules as tests.", RULES),
    "config": Command("onnxlint.cli.config", "Show the configuration for a model.", RULES),
    "debug-info": Command("onnxlint.cli.debug_info", "Print versions and the machine, for a bug report.", RULES),
    "bot": Command("onnxlint.cli.bot", "Comment on what a pull request changes in models.", TEAM),
    "ncnn table": Command("onnxlint.cli.ncnn_table", "Make a calibration table, as ncnn2table does.", NCNN),
    "ncnn quantize": Command("onnxlint.cli.ncnn_quantize", "Quantize a net with a table, as ncnn2int8 does.", NCNN),
}
"""Name (`ncnn table`: the command of a group) → description, in the order of the help."""
