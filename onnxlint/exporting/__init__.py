"""From a PyTorch network to an ONNX file that is known to compute the same: build, load weights, export, run both, check.

The user's code runs in a child process (see `worker`); torch is imported there alone, or where a Python program hands
over a module.
"""
