"""Sizes as exact expressions of the symbols of the inputs, and what can be proved about them."""
