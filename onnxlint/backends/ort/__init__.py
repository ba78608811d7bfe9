"""The onnxruntime backend: fp16, dynamic and static int8 files, and running any .onnx file."""

from onnxlint.backends.ort.backend import OrtBackend

BACKEND = OrtBackend()

__all__ = ["BACKEND"]
