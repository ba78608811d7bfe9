"""ncnn: its files, its calibration tables, its int8 and a better one. NumPy and the `ncnn` wheel only."""
