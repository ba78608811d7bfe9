"""The OpenVINO backend: IR files (`.xml` and `.bin`) in float32, float16 and int8, and running them."""
