"""What all tests share."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# The same examples on every run, however slow the machine; HYPOTHESIS_PROFILE=random looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell ignores ctrl-c in what it runs in the background, and children inherit that: the tests send it to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
