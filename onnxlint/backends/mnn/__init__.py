"""The MNN backend: `.mnn` files in float32 and float16, and running them."""
