"""Rules OPS."""
