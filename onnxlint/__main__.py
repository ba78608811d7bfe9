"""`python -m onnxlint`."""

from onnxlint.cli.app import main

if __name__ == "__main__":
    main()
