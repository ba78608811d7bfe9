"""Rules SEC."""
