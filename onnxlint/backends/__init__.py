"""Backends: what a model can be converted to, and how the result is run."""
