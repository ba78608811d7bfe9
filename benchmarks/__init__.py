"""Programs that measure onnxlint against other tools; each runs by itself and prints a table."""
