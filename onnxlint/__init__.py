"""onnxlint: find, explain and fix what will hurt an exported ONNX model in deployment."""

__version__ = "0.1.0"
