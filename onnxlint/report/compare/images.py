"""The images on which a candidate differs most: what reference and candidate found in them, drawn."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

from onnxlint import text as numbers
from onnxlint.accuracy.results import Detection, ImageAccuracy
from onnxlint.report.page import text


def worst_image(image: ImageAccuracy, is_detection: bool) -> Iterator[str]:
    """An image, and both models' results for it.

    Args:
        image: The comparison, with the network's input as a picture, if it is one.
        is_detection: Whether both models detected something in it: then it is shown twice, with the boxes of each.
    """
    said = ""
    if any(image.labels):
        said = f"reference: {text(image.labels[0])}; candidate: {text(image.labels[1])}"
    elif is_detection:
        said = f"reference: {len(image.reference)} found; candidate: {len(image.candidate)} found"
    yield (
        f'<p><span class="mono">{text(image.name)}</span>: {numbers.db(image.snr_db)} <span class="soft">{said}</span></p>'
    )
    picture = _picture(image.pixels)
    if picture is None:
        return
    source, size = picture
    if not is_detection:
        yield f'<div class="pair one"><figure><img alt="{text(image.name)}" src="{source}"></figure></div>'
        return
    buttons = "".join(
        f'<button type="button" value="{value}" aria-pressed="{str(value == "both").lower()}">{label}</button>'
        for value, label in (("both", "side by side"), ("reference", "reference"), ("candidate", "candidate"))
    )
    yield f'<div class="pick">{buttons}</div><div class="pair" data-show="both">'
    for title, detections, color in (
        ("reference", image.reference, "#00e5ff"),
        ("candidate", image.candidate, "#ffd400"),
    ):
        yield (
            f'<figure class="{title}"><div class="stack"><img alt="{text(image.name)}" src="{source}">'
            f"{_boxes(detections, size, color)}</div><figcaption>{title}</figcaption></figure>"
        )
    yield "</div>"


def _boxes(detections: Sequence[Detection], size: tuple[int, int], color: str) -> str:
    line = max(size) / 320
    parts = []
    for one in detections:
        x1, y1, x2, y2 = one.box
        parts.append(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{max(x2 - x1, 0):.1f}" height="{max(y2 - y1, 0):.1f}" fill="none" '
            f'stroke="{color}" stroke-width="{line:.2f}"><title>class {one.label}, score {one.score:.3f}</title></rect>'
        )
        points = zip(one.landmarks[::2], one.landmarks[1::2], strict=False)
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{line:.2f}" fill="{color}"/>' for x, y in points]
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none">{"".join(parts)}</svg>'


def _picture(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """A PNG or JPEG as a data URI, and its (width, height); None without a picture."""
    if not data:
        return None
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        kind, size = str(image.format).lower(), image.size
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", size
