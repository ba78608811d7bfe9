"""ncnn: its files, its calibration tables, its int8 and a better one. NumPy and the `ncnn` wheel only; `pnnx` converts.

format.py `.param`, `.bin`, fp16 · table.py calibration tables and their traps · quantize.py the int8 writer ·
calibrate.py kl, aciq, eq · auto.py more accurate int8 and mixed precision, from equalize.py and reconstruct.py ·
arith.py one layer in NumPy · run.py, evaluate.py nets in the wheel · convert.py from ONNX, compared with onnxruntime ·
backend.py all of it as targets of `onnxlint convert`.
"""
