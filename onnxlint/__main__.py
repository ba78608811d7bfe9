"""`python -m onnxlint`."""

import sys

from onnxlint.cli import main

sys.exit(main())
