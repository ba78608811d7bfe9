"""`python -m onnxlint`."""

from onnxlint.cli import main

main()
