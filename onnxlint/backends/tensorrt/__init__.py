"""The TensorRT backend: ONNX files with explicit Q/DQ and float16 types, which its builder takes as they are."""
