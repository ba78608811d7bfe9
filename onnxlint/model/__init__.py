"""An ONNX file: opened without its weights, saved, its external data and metadata. Knows no graph."""
