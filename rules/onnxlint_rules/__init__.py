"""The built-in rules, one file a rule, found through the `onnxlint.rules` entry point."""
