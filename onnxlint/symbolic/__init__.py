"""Sizes as exact expressions of the symbols of the inputs, and proofs about them."""
