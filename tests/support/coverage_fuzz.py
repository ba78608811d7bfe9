"""Coverage-guided fuzzing of one reader: `python -m tests.support.coverage_fuzz READER SECONDS [SEED…]`.

Whatever the bytes: the reader returns, or raises its one documented error, within a second. It needs atheris
(`pip install 'onnxlint[fuzz]'`); a failing input is written to the working directory as libFuzzer does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["onnxlint"]):
    import onnx

    from onnxlint.backends.ncnn import format as ncnn_format
    from onnxlint.backends.ncnn import table as ncnn_table
    from onnxlint.lint import globs
    from onnxlint.model import assumptions, wire
    from onnxlint.symbolic import expressions  # noqa: F401 - instrumented

from onnxlint.errors import OnnxlintError

SLOWEST = 2.0
"""Seconds of CPU that one input may take."""


def skeleton(data: bytes) -> None:
    """The skeleton of whatever these bytes are; what was left out is put back as it was."""
    from onnxlint.model.save import splice

    try:
        slim = wire.slim(data)
    except wire.WireError:
        return
    whole = b"".join(
        chunk if isinstance(chunk, bytes) else data[chunk.offset : chunk.offset + chunk.length]
        for chunk in splice(slim, data)
    )
    assert _normal(whole) == _normal(data)


def _normal(data: bytes) -> bytes:
    """What protobuf reads; lengths and tags may be written in several ways."""
    try:
        return bytes(onnx.ModelProto.FromString(data).SerializeToString(deterministic=True))
    except Exception:  # noqa: BLE001 - not a model: there is nothing to compare
        return b""


def conditions(data: bytes) -> None:
    """Conditions in the metadata of a model."""
    half = len(data) // 2
    proto = onnx.ModelProto()
    proto.graph.input.add(name="x").type.tensor_type.shape.dim.add(dim_param="H")
    for key, part in (("onnxlint.assumes", data[:half]), ("onnxlint.symbols", data[half:])):
        proto.metadata_props.add(key=key, value=part.decode("utf-8", "replace"))
    list(assumptions.assumptions(proto))
    assumptions.unusable_assumptions(proto)
    assumptions.note_assumptions(proto, ["H % 32 == 0"])
    list(assumptions.assumptions(proto))


def param(data: bytes) -> None:
    """An ncnn .param file; what is read is written and read again as the same."""
    try:
        net = ncnn_format.parse_param(data)
    except OnnxlintError:
        return
    again = ncnn_format.parse_param(ncnn_format.dump_param(net))
    assert ncnn_format.dump_param(again) == ncnn_format.dump_param(net)


def table(data: bytes) -> None:
    """A calibration table."""
    try:
        parsed = ncnn_table.parse_table(data.decode("utf-8", "replace"))
    except OnnxlintError:
        return
    ncnn_table.dump_table(parsed)


def glob(data: bytes) -> None:
    """A glob of a configuration, against a path."""
    pattern, _, path = data.decode("utf-8", "replace").partition("\n")
    globs.matches_any([pattern[: globs.LONGEST]], path[:4096].replace("\0", "") or "x", ".")


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader for reader in (skeleton, conditions, param, table, glob)
}

SEEDS: dict[str, list[bytes]] = {
    "skeleton": [
        onnx.helper.make_model(
            onnx.helper.make_graph(
                [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
                "g",
                [],
                [],
                [onnx.helper.make_tensor("w", 1, [2000], b"\1" * 8000, raw=True)],
            )
        ).SerializeToString()
    ],
    "conditions": [b'H % 32 == 0 and W % 8 == 0{"H": [["x", 2]], "W": [["x", 3]]}'],
    "param": [b"7767517\n2 2\nInput in 0 1 in 0=4 1=4 2=3\nConvolution c 1 1 in out 0=8 1=3 -23301=2,1,1 6=216\n"],
    "table": [b"conv_param_0 1.5 2.5\nconv 3.25\n"],
    "glob": [b"**/a*[b-c]?/x\na/b/cabc/x"],
}


def main() -> None:
    """Fuzz one reader for some seconds."""
    name, seconds = sys.argv[1], sys.argv[2]
    corpus = Path(sys.argv[3])
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(SEEDS[name]):
        (corpus / f"seed{i}").write_bytes(seed)
    reader = READERS[name]

    def once(data: bytes) -> None:
        started = time.process_time()
        reader(data)
        assert time.process_time() - started < SLOWEST, f"{len(data)} bytes took more than {SLOWEST} s"

    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=20000", "-rss_limit_mb=2048", str(corpus)], once
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
