"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples on every run, however slow the machine; HYPOTHESIS_PROFILE=random looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
