"""What conversion costs RetinaFace in accuracy, bytes and seconds: `python benchmarks/convert.py DESIGN --held-back FOLDER`.

Photos that methods were designed by judge them kindly: those of `--held-back` are measured apart, and should be looked at
once.

Each row is one run of `onnxlint.convert`. The result is compared with the ONNX model in onnxruntime on the photos: SNR of
the three heads (boxes, classes, landmarks: the mean of all photos), faces found, missed and extra (against those of the
ONNX model, IoU ≥ 0.5), how face scores change, bytes of the weights, CPU seconds of the whole conversion. Then the speed of
calibration, in units of what plain ncnn inference over the images costs. Model and calibration images are those of
../shared/data unless others are given.

`--save FILE.json` keeps each row when it is measured, and a later call with the same file goes on with the others;
`python -m benchmarks.int8_page FILE.json NETS.json --markdown docs/quantizing.md` writes the page's tables.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.exact import outputs_of
from benchmarks.nncf_onnx import by_nncf
from benchmarks.results import Results
from onnxlint.api import convert
from onnxlint.backends import backend_for
from onnxlint.backends.ncnn.calibrate import make_table
from onnxlint.backends.ncnn.format import load
from onnxlint.backends.ncnn.run import Runner
from onnxlint.images.recipe import PRESETS, find_images, tensors

Floats = npt.NDArray[np.float32]
DATA = Path(__file__).parents[1].parent / "shared" / "data"
HEADS = {"boxes": slice(0, 4), "classes": slice(4, 6), "landmarks": slice(6, 16)}
RECIPE = PRESETS["retinaface"]

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "ncnn": ("ncnn", {}),
    "ncnn-fp16": ("ncnn-fp16", {}),
    "ncnn-int8 kl": ("ncnn-int8", {"method": "kl"}),
    "ncnn-int8 aciq": ("ncnn-int8", {"method": "aciq"}),
    "ncnn-int8 eq": ("ncnn-int8", {"method": "eq"}),
    "ncnn-int8 auto": ("ncnn-int8", {}),
    "ncnn-int8 mixed 0.1 %": ("ncnn-int8", {"mixed": True, "budget": 0.001}),
    "ncnn-int8 mixed 2 %": ("ncnn-int8", {"mixed": True, "budget": 0.02}),
    "ncnn-int8 mixed": ("ncnn-int8", {"mixed": True, "budget": 0.08}),
    "onnx-fp16": ("onnx-fp16", {}),
    "onnx-int8-dynamic": ("onnx-int8-dynamic", {}),
    "onnx-int8-static percentile": ("onnx-int8-static", {"method": "percentile"}),
    "onnx-int8-static auto": ("onnx-int8-static", {}),
    "onnx-int8-static learned": ("onnx-int8-static", {"method": "learned"}),
    "onnx-int8-static mixed": ("onnx-int8-static", {"mixed": True, "budget": 0.1}),
    "openvino": ("openvino", {}),
    "openvino-fp16": ("openvino-fp16", {}),
    "openvino-int8 auto": ("openvino-int8", {}),
    "openvino-int8 nncf": ("openvino-int8", {"method": "nncf"}),
    "openvino-int8 mixed": ("openvino-int8", {"mixed": True, "budget": 0.1}),
}
"""What is measured: target, and how `convert` is called."""

SLOW = ("ncnn-int8 eq",)
NNCF = "NNCF default"
HELD_BACK = "  held back"


def priors(size: int) -> Floats:
    """Prior boxes (P, 4) as centre x, centre y, width, height in fractions of a square input."""
    rows = []
    for step, sides in zip((8, 16, 32), ((16, 32), (64, 128), (256, 512)), strict=True):
        cells = -(-size // step)
        for y, x in itertools.product(range(cells), range(cells)):
            rows += [((x + 0.5) * step / size, (y + 0.5) * step / size, s / size, s / size) for s in sides]
    return np.asarray(rows, np.float32)


def faces(output: Floats, size: int = 640, threshold: float = 0.5, overlap: float = 0.4) -> Floats:
    """Decode (P, 16) boxes, class logits, landmarks → faces (F, 5): x0, y0, x1, y1 in pixels, score."""
    logits = output[:, 4:6].astype(np.float64)
    score = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    keep = score > threshold
    prior, score, raw = priors(size)[keep], score[keep], output[keep, :4]
    centre = prior[:, :2] + raw[:, :2] * 0.1 * prior[:, 2:]
    extent = prior[:, 2:] * np.exp(raw[:, 2:] * 0.2)
    found = np.column_stack([(centre - extent / 2) * size, (centre + extent / 2) * size, score])
    found = found[np.argsort(-score, kind="stable")]
    out: list[npt.NDArray[np.float64]] = []
    for face in found:
        if not out or iou(face, np.asarray(out)).max() <= overlap:
            out.append(face)
    return np.asarray(out, np.float32).reshape(-1, 5)


def iou(one: npt.NDArray[np.floating], many: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Intersection over union of one box with many."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:4], many[:, 2:4])
    inner = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(one[2:4] - one[:2])
    return np.asarray(inner / (area + np.prod(many[:, 2:4] - many[:, :2], axis=1) - inner))


def match(truth: Floats, found: Floats) -> tuple[int, int, int]:
    """(found, missed, extra): each true face takes the best free one with IoU ≥ 0.5."""
    free = list(range(len(found)))
    hits = 0
    for face in truth:
        overlaps = [float(iou(face, found[[i]])[0]) for i in free]
        if overlaps and max(overlaps) >= 0.5:
            free.pop(int(np.argmax(overlaps)))
            hits += 1
    return hits, len(truth) - hits, len(free)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method: How the model was made.
        snr: Of each head, dB: the mean over photos of each photo's own.
        found, missed, extra: Faces, beside those that the float model finds.
        shift: Mean change of face logit minus background logit where the float model sees a face.
        size: Bytes of the .bin or .onnx.
        seconds: CPU time to make it, children included.
    """

    method: str
    snr: tuple[float, ...]
    found: int
    missed: int
    extra: int
    shift: float
    size: int
    seconds: float

    @property
    def mean(self) -> float:
        """Mean SNR of the heads, dB."""
        return float(np.mean(self.snr))

    def __str__(self) -> str:
        snr = "  ".join(f"{v:6.2f}" for v in self.snr)
        return (
            f"{self.method:<34} {snr}   {self.mean:6.2f}   {self.found:4d} {self.missed:3d} {self.extra:3d}"
            f"  {self.shift:+6.3f}   {self.size:9,d}  {self.seconds:6.1f}"
        )


HEADER = (
    f"{'method':<34} {'boxes':>6}  {'class':>6}  {'landm':>6}   {'mean':>6}   {'fnd':>4} {'mis':>3} {'ext':>3}"
    f"  {'shift':>6}   {'bytes':>9}  {'s':>6}"
)


class Judge:
    """Compares converted models with the ONNX model on photos, inputs (3, 640, 640)."""

    def __init__(self, model: str, photos: Sequence[Floats]) -> None:
        self.photos = list(photos)
        self.truth = self._run(model)
        self.faces = [faces(t) for t in self.truth]

    def _run(self, path: str) -> list[Floats]:
        return [np.asarray(one[0][0], np.float32) for one in outputs_of(path, self.photos)]

    def row(self, method: str, path: str, seconds: float) -> Row:
        """Measure one model."""
        outputs = self._run(path)
        pairs = list(zip(self.truth, outputs, strict=True))
        snr = [float(np.mean([_snr(t[:, part], o[:, part]) for t, o in pairs])) for part in HEADS.values()]
        margins = [(t[:, 5] - t[:, 4], o[:, 5] - o[:, 4]) for t, o in pairs]
        shift = float(np.mean(np.concatenate([(o - t)[t > 0] for t, o in margins])))
        counts = np.sum([match(t, faces(o)) for t, o in zip(self.faces, outputs, strict=True)], axis=0)
        found, missed, extra = (int(c) for c in counts)
        files = backend_for(path).files(path)
        size = sum(os.path.getsize(file) for file in files if not file.endswith((".param", ".xml")))
        return Row(method, tuple(snr), found, missed, extra, shift, size, seconds)


def _snr(truth: Floats, found: Floats) -> float:
    """dB."""
    a, b = truth.astype(np.float64), found.astype(np.float64)
    return float(10 * np.log10((a**2).sum() / max(float(((a - b) ** 2).sum()), 1e-30)))


def inputs(sources: Sequence[str]) -> list[Floats]:
    """The inputs (3, 640, 640) for photos or folders of them."""
    return [x for source in sources for _, x in tensors(find_images(source), RECIPE)]


def cpu_seconds() -> float:
    """CPU time of this process and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def least(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """The least wall and CPU seconds of each, run in turns: on a busy machine they suffer alike."""
    best = {name: (float("inf"), float("inf")) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
    return best


def speed(param: str, images: Sequence[Floats], threads: int, rounds: int) -> None:
    """Print what calibration costs beside plain inference over the images."""
    net = load(param)
    output = net.outputs()

    def plain(within: int, across: int) -> Callable[[], Any]:
        runner = Runner(net, within, light=True)
        return lambda: list(runner.map(images, output, across))

    def table(method: Literal["kl", "aciq"]) -> Callable[[], Any]:
        return lambda: make_table(net, images, method, threads=threads)

    works = {
        "plain, threads inside an image": plain(threads, 1),
        "plain, an image a thread": plain(1, threads),
        "aciq": table("aciq"),
        "kl": table("kl"),
    }
    best = least(works, rounds)
    print(f"\n{len(images)} images, {threads} threads: {'':<10} wall s   CPU s   passes (wall)   passes (CPU)")
    base = best["plain, an image a thread"]
    for name, (wall, cpu) in best.items():
        print(f"{name:<34} {wall:8.2f} {cpu:7.2f} {wall / base[0]:12.2f} {cpu / base[1]:14.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="photos, or folders or lists of them, to judge on")
    parser.add_argument("--held-back", metavar="FOLDER", help="photos that nothing was designed by")
    parser.add_argument("--nncf", metavar="PYTHON", help="an interpreter that has nncf: a row of its default for ONNX")
    parser.add_argument("--model", default=str(DATA / "retinaface" / "hand_fixed_released.onnx"))
    parser.add_argument("--images", default=str(DATA / "calibration"), help="calibration images")
    parser.add_argument("--rows", help="only rows that begin with one of these, separated by commas")
    parser.add_argument("--slow", action="store_true", help=f"with what takes minutes ({', '.join(SLOW)})")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of measuring speed; 0: none")
    parser.add_argument("--save", metavar="FILE", help="rows that were measured, and where to go on")
    args = parser.parse_args()
    judges = {"": Judge(args.model, inputs(args.photos))}
    if args.held_back:
        judges[HELD_BACK] = Judge(args.model, inputs([args.held_back]))
    for label, judge in judges.items():
        print(f"{len(judge.photos)} photos, {sum(map(len, judge.faces))} faces{label.replace('  ', ' ')}")
    print(f"\n{HEADER}")
    begins = tuple(args.rows.split(",")) if args.rows else ("",)
    wanted = [name for name in ROWS if name.startswith(begins) and (args.slow or name not in SLOW)]
    wanted += [NNCF] if args.nncf else []
    results = Results(args.save)
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            found = results.get(name, measure, name, args, judges, folder)
            print("\n".join(shown(name, found)), flush=True)
        if args.rounds:
            plain = convert(args.model, ["ncnn"], recipe=RECIPE, out_dir=folder)
            speed(plain.artifacts[0].files[0], inputs([args.images]), args.threads, args.rounds)


def measure(name: str, args: argparse.Namespace, judges: dict[str, Judge], folder: str) -> dict[str, Any]:
    """Make one model and compare it: {"failure": why}, or label of the photos → how many these are, and the row."""
    start = cpu_seconds()
    if name == NNCF:
        made = by_nncf(args.nncf, args.model, inputs([args.images]), folder)
    else:
        target, how = ROWS[name]
        done = convert(
            args.model, [target], images=args.images, recipe=RECIPE, threads=args.threads, out_dir=folder, **how
        )
        if done.failures:
            return {"failure": done.failures[0].message}
        made = done.artifacts[0].files[0]
    seconds = cpu_seconds() - start
    return {
        label: {"photos": len(judge.photos), **asdict(judge.row(name + label, made, seconds))}
        for label, judge in judges.items()
    }


def shown(name: str, found: dict[str, Any]) -> list[str]:
    """The lines of the table for what `measure` gave."""
    if "failure" in found:
        return [f"{name:<34} {found['failure']}"]
    return [str(Row(**{key: value for key, value in one.items() if key != "photos"})) for one in found.values()]


if __name__ == "__main__":
    main()
