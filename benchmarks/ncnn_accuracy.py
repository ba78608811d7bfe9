"""What int8 costs RetinaFace in ncnn, for every way to quantize it: `python benchmarks/ncnn_accuracy.py PHOTO…`.

Everything is measured through the `ncnn` wheel against the float net: SNR of the three heads (boxes, classes,
landmarks: over all priors and photos), faces found, missed and extra (against the float net's, IoU ≥ 0.5),
bytes of the `.bin` and seconds of calibration. The models and calibration images are those of ../shared/data.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxlint.accuracy.recipe import PRESETS, find_images, tensors
from onnxlint.backends.ncnn.auto import auto
from onnxlint.backends.ncnn.calibrate import make_table
from onnxlint.backends.ncnn.format import Network, dump_bin, load, to_fp16
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.run import Runner

Floats = npt.NDArray[np.float32]
DATA = Path(__file__).parents[1].parent / "shared" / "data"
HEADS = {"boxes": slice(0, 4), "classes": slice(4, 6), "landmarks": slice(6, 16)}


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
    """One line of the table: SNR of each head in dB, faces, bytes of the .bin, seconds to make it."""

    method: str
    snr: tuple[float, ...]
    found: int
    missed: int
    extra: int
    size: int
    seconds: float

    @property
    def mean(self) -> float:
        """Mean SNR of the heads, dB."""
        return float(np.mean(self.snr))

    def __str__(self) -> str:
        snr = "  ".join(f"{v:6.2f}" for v in self.snr)
        return (
            f"{self.method:<34} {snr}   {self.mean:6.2f}   {self.found:3d} {self.missed:3d} {self.extra:3d}"
            f"   {self.size:9,d}  {self.seconds:6.1f}"
        )


HEADER = (
    f"{'method':<34} {'boxes':>6}  {'class':>6}  {'landm':>6}   {'mean':>6}   {'fnd':>3} {'mis':>3} {'ext':>3}"
    f"   {'bytes':>9}  {'s':>6}"
)


class Judge:
    """Compares candidate nets with the float net on photos."""

    def __init__(self, net: Network, photos: Sequence[Floats]) -> None:
        self.photos = list(photos)
        self.output = net.outputs()[0]
        self.truth = self._run(net)
        self.faces = [faces(t) for t in self.truth]

    def _run(self, net: Network) -> list[Floats]:
        runner = Runner(net, threads=1)
        return [y[0].copy() for y in runner.map(self.photos, [self.output], threads=2)]

    def row(self, method: str, net: Network, seconds: float) -> Row:
        """Measure one net."""
        outputs = self._run(net)
        snr = []
        for part in HEADS.values():
            signal = sum(float((t[:, part].astype(np.float64) ** 2).sum()) for t in self.truth)
            noise = sum(
                float(((o[:, part] - t[:, part]).astype(np.float64) ** 2).sum())
                for o, t in zip(outputs, self.truth, strict=True)
            )
            snr.append(float(10 * np.log10(signal / max(noise, 1e-30))))
        counts = np.sum([match(t, faces(o)) for t, o in zip(self.faces, outputs, strict=True)], axis=0)
        found, missed, extra = (int(c) for c in counts)
        return Row(method, tuple(snr), found, missed, extra, len(dump_bin(net)), seconds)


def photos(sources: Sequence[str]) -> list[Floats]:
    """The inputs (3, 640, 640) for photos or folders of them, letterboxed."""
    recipe = PRESETS["retinaface"]
    return [x for source in sources for _, x in tensors(find_images(source), recipe)]


def make(method: str, net: Network, images: Sequence[Floats], threads: int) -> Network:
    """Quantize `net` by one of METHODS."""
    if method == "fp32":
        return net
    if method == "fp16":
        return to_fp16(net)
    if method in ("kl", "aciq", "eq"):
        table = make_table(net, images, method, threads=threads)  # type: ignore[arg-type]
        return quantize(net, table).net
    budget = {"auto": 0.0, "mixed 0.1 %": 0.001, "mixed": 0.08}[method]
    return auto(net, images, mixed=budget > 0, budget=budget, threads=threads).quantized.net


METHODS = ("fp32", "fp16", "kl", "aciq", "eq", "auto", "mixed 0.1 %", "mixed")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="photos, or folders or lists of them, to judge on")
    parser.add_argument("--model", default=str(DATA / "ncnn_reference" / "fp32.param"))
    parser.add_argument("--images", default=str(DATA / "calibration"), help="calibration images")
    parser.add_argument("--methods", default=",".join(METHODS), help="some of: %(default)s")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    net = load(args.model)
    judge = Judge(net, photos(args.photos))
    print(f"{len(judge.photos)} photos, {sum(map(len, judge.faces))} faces\n\n{HEADER}")
    images = photos([args.images])
    for method in args.methods.split(","):
        start = time.perf_counter()
        made = make(method, net, images, args.threads)
        print(judge.row(method, made, time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
