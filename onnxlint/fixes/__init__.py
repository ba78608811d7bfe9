"""Patches applied to a fixed point, each proved or verified."""
