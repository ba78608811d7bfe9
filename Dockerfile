# All extras but those that bring torch (export, and ncnn, which pnnx converts for).
#
#   docker build -t onnxlint .
#   docker run --rm -v "$PWD:/work:ro" onnxlint check model.onnx

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY onnxlint onnxlint
COPY rules rules
RUN python -m venv /opt/onnxlint \
 && /opt/onnxlint/bin/pip install --no-cache-dir '.[bot,charts,mnn,nncf,openvino,ray,remote,simplify,tasks,view]'

FROM python:3.12-slim
COPY --from=build /opt/onnxlint /opt/onnxlint
# git: `onnxlint bot` and `onnxlint diff` read models from commits. The user owns nothing: files come from mounts.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 onnxlint \
 && git config --system --add safe.directory '*'
ENV PATH=/opt/onnxlint/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /work
ENTRYPOINT ["onnxlint"]
CMD ["--help"]
