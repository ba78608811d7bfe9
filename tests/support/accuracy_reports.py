"""A comparison that has one of everything that reports show."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from onnxlint.accuracy.results import (
    AccuracyReport,
    CandidateReport,
    Detection,
    ImageAccuracy,
    Latency,
    LayerAccuracy,
    OutputAccuracy,
    Suggestion,
    TaskResult,
)


def output(name: str, snr: float = 41.37) -> OutputAccuracy:
    return OutputAccuracy(
        name,
        f"out[..., {name}]",
        (1, 16800, 4),
        67200,
        snr,
        0.99987,
        1.25e-3,
        3e-4,
        0.012,
        0.0,
        0.0,
        (5, 3),
        (-2.0, 0.0, 2.0),
    )


def model(name: str, **more: Any) -> CandidateReport:
    one = CandidateReport(name, f"/models/{name}", "onnxruntime", 853632, 426608, 41.37, (output("boxes"),))
    return replace(one, **more)


REPORT = AccuracyReport(
    reference=model(
        "net.onnx",
        snr_db=math.inf,
        outputs=(output("boxes", math.inf),),
        latency=Latency(14.23, 0.31, 30, 2),
        task=TaskResult("detection", {"found": 27.0, "ap": None}, "the reference's detections"),
    ),
    candidates=(
        model(
            "net_int8.onnx",
            unmatched=("depth (1×4): the candidate has no output like it",),
            latency=Latency(17.5, 4.0, 20, 2, busy=True),
            task=TaskResult("detection", {"found": 22.0, "ap": 0.8123}, "the reference's detections"),
            layers=(
                LayerAccuracy("a", "1", "Conv", 60.0, 0.01, "body.0"),
                LayerAccuracy("b", "2", "Conv", 20.0, 0.99, "net.py:7"),
                LayerAccuracy("c", "3", "Relu", math.inf, None),
            ),
            suggestions=(Suggestion("keep convdwrelu_0 in fp16", "--keep convdwrelu_0", 4.96, 28),),
            worst=(
                ImageAccuracy(
                    "a.png", 12.5, (Detection((0, 0, 9, 9), 0.9),), (), ("1 face", "0 faces"), b"\xff\xd8 jpeg"
                ),
            ),
            notes=("out has no record of its heads",),
            failures=("net_int8.onnx: snr<50: snr is 41.37 dB",),
        ),
        model("net_fp16.onnx", snr_db=-math.inf, outputs=(replace(output("boxes", -math.inf), nan_share=0.5),)),
    ),
    inputs=5,
    source="photos",
    recipe="--shape 640,640,3 --pixel BGR",
    failures=("net_int8.onnx: snr<50: snr is 41.37 dB",),
    versions={"onnxlint": "0.1.0"},
    notes=("a.jpg: left out: truncated",),
)
