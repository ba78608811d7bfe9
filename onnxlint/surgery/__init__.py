"""Changes to a graph: a model carried into onnx_graphsurgeon and back, without losing anything."""
