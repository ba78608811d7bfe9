"""SEC002: external data that is not there, or not as long as it should be."""

from __future__ import annotations

from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import External, locate_external
from onnxlint_rules._tensors import Stored, stored_tensors


class ExternalDataBroken(Rule):
    """Weights that the model keeps in another file are missing, cut short, or overlap.

    ## What it does

    Looks up each file of external data, without reading it: that it exists, is a regular file, and holds every range that
    the model names; that each range is as long as the tensor's dims and type say; that no two tensors share a part of
    their bytes (sharing all of them is how tied weights are stored). One finding for each file and kind of
    problem.

    ## Why it hurts

    - A model copied or uploaded without its `.data` file does not load: onnxruntime says `External data path does not
      exist`.
    - A file cut short by an interrupted download loads in tools that do not check, with what happens to follow.
    - Overlapping ranges are weights of one layer read as those of another: wrong numbers, and no error.

    ## Fix it at the source

    ```python
    # one file for graph and weights, up to 2 GB
    onnx.save(onnx.load("model.onnx"), "single.onnx")
    ```

    Or copy the file that the finding names beside the model, under the same name, and check its size.

    ## Fix safety

    There is no fix: the bytes are not there.

    ## References

    - [External data](https://onnx.ai/onnx/repo-docs/ExternalData.html) in the ONNX documentation: location, offset, length
    - [GHSA-538c-55jv-c5g9](https://github.com/onnx/onnx/security/advisories/GHSA-538c-55jv-c5g9) (CVE-2026-34445): offsets
      and lengths that onnx did not check against the file
    """

    code = "SEC002"
    name = "external-data-broken"
    apart = True
    severity = Severity.ERROR
    help = "put the complete file beside the model, under the name that the model gives it"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y)
            <float[4] w = ["location": "no-such-file.bin", "length": "16"],
             float[4] v = ["location": "no-such-file.bin", "offset": "16", "length": "16"]> {
                a = Add (x, w)
                y = Add (a, v)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}, float[4] v = {1, 2, 3, 4}> {
                a = Add (x, w)
                y = Add (a, v)
            }
            """,
            says="external data file 'no-such-file.bin' is missing (2 tensors, 'w' first)",
            equal=False,
        ),
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float[4] w = ["location": "w.bin", "offset": "-8"]> { y = Add (x, w) }
            """,
            says="negative",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float[4] w = ["location": "../w.bin"]> { y = Add (x, w) }
            """,
            why="a location outside the folder is SEC001's, and is not looked up",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        broken: dict[tuple[str, str], list[tuple[Stored, External]]] = {}
        ranges: dict[str, list[tuple[int, int, Stored]]] = {}
        for stored in stored_tensors(view):
            if stored.inline:
                continue
            place = locate_external(view.model, stored.tensor)
            if place.kind in ("escapes", "remote"):
                continue
            if place.kind:
                broken.setdefault((place.location, place.kind), []).append((stored, place))
            if place.length and place.kind != "numbers":
                ranges.setdefault(place.path, []).append((place.offset, place.offset + place.length, stored))
        for (location, kind), group in broken.items():
            stored, place = group[0]
            if kind == "short":
                # The tensor that reaches furthest says how much is missing.
                stored, place = max(group, key=lambda entry: entry[1].offset + entry[1].length)
            yield self.found(
                stored.at(view),
                f"{place.problem} ({_count(group, stored)})",
                file=printable(location),
                count=len(group),
            )
        for path in ranges:
            yield from self._overlaps(view, sorted(ranges[path], key=lambda entry: entry[:2]))

    def _overlaps(self, view: GraphView, ranges: list[tuple[int, int, Stored]]) -> Iterator[Finding]:
        """Report where ranges share a part: the first such pair, and how many more there are."""
        pairs = []
        previous = ranges[0]
        for current in ranges[1:]:
            # One inside the other may be a view of it; only what crosses a border is surely wrong.
            if current[0] < previous[1] < current[1] and previous[0] < current[0]:
                pairs.append((previous, current))
            if current[1] > previous[1]:
                previous = current
        if pairs:
            (_, end, one), (begin, _, other) = pairs[0]
            location = next(entry.value for entry in one.tensor.external_data if entry.key == "location")
            more = f"; {len(pairs) - 1} more such pairs" if len(pairs) > 1 else ""
            yield self.found(
                other.at(view),
                f"tensors {printable(one.name)!r} and {printable(other.name)!r} share {end - begin} bytes of "
                f"{printable(location)!r}, and neither holds the other{more}",
                help="export the model again: the offsets are wrong",
                count=len(pairs),
            )


def _count(group: list[tuple[Stored, External]], first: Stored) -> str:
    name = repr(printable(first.name))
    return f"{len(group)} tensors, {name} first" if len(group) > 1 else f"tensor {name}"
