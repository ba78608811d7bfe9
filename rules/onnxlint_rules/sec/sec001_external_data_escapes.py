"""SEC001: external data that lies outside the model's folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Severity, Silent, printable
from onnxlint.rulekit import External, locate_external
from onnxlint_rules._tensors import Stored, stored_tensors


class ExternalDataEscapes(Rule):
    """The model reads weights from a file outside its own folder.

    ## What it does

    Reports locations of external data that are absolute, lead out of the model's folder by `..` or by a symbolic link; once
    for each location. Links that stay inside, and files with several hard links, are reported as `info`:
    onnx 1.21 and later refuse these too, onnxruntime reads them. Nothing outside the folder is opened.

    ## Why it hurts

    - Whoever made the file chooses what is read, and the content comes out as a weight: that is how a model from the
      internet reads keys and passwords of the machine that loads it, or overwrites files where a tool saves it
      again (CVE-2022-25882, CVE-2024-27318, CVE-2024-5187, CVE-2025-51480, CVE-2026-27489, CVE-2026-34446).
    - Where no harm is meant, the model works on the machine of its author only. onnx and onnxruntime refuse to load it.

    ## Fix it at the source

    ```python
    # before
    onnx.save(model, "out/model.onnx", save_as_external_data=True, location="/data/weights.bin")
    # after: a name in the folder of the model
    onnx.save(model, "out/model.onnx", save_as_external_data=True, location="model.onnx.data")
    ```

    ## Fix safety

    There is no fix: only the author can say whether the file that the location names is the right one.

    ## References

    - [External data](https://onnx.ai/onnx/repo-docs/ExternalData.html) in the ONNX documentation
    - [onnx #3991](https://github.com/onnx/onnx/issues/3991) (CVE-2022-25882),
      [GHSA-whh8-fjgc-qp73](https://github.com/advisories/GHSA-whh8-fjgc-qp73) (CVE-2024-27318),
      [GHSA-6rq9-53c3-f7vj](https://github.com/advisories/GHSA-6rq9-53c3-f7vj) (CVE-2024-5187, CVE-2025-51480)
    - [GHSA-3r9x-f23j-gc73](https://github.com/onnx/onnx/security/advisories/GHSA-3r9x-f23j-gc73) (CVE-2026-27489, links),
      [GHSA-cmw6-hcpp-c6jp](https://github.com/onnx/onnx/security/advisories/GHSA-cmw6-hcpp-c6jp) (CVE-2026-34446, hard
      links), [onnx #7717](https://github.com/onnx/onnx/pull/7717): what onnx refuses since 1.21
    """

    code = "SEC001"
    name = "external-data-escapes"
    apart = True
    severity = Severity.ERROR
    help = "do not load a model like this from a source that you do not trust; save it with the weights in its folder"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y)
            <float[4] w = ["location": "../../etc/passwd"], float[4] v = ["location": "/etc/shadow", "length": "16"],
             float[4] u = ["location": "/etc/shadow", "offset": "16", "length": "16"]> {
                a = Add (x, w)
                b = Add (a, u)
                y = Add (b, v)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y)
            <float[4] w = ["location": "model.onnx.data"], float[4] v = ["location": "weights/v.bin", "length": "16"],
             float[4] u = ["location": "weights/../u.bin", "length": "16"]> {
                a = Add (x, w)
                b = Add (a, u)
                y = Add (b, v)
            }
            """,
            findings=2,
            says="'../../etc/passwd' leaves the model's folder",
            equal=False,
        ),
        Example(
            bad=r"""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float[4] w = ["location": "C:/Users/me/w.bin"]> { y = Add (x, w) }
            """,
            says="absolute path",
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float[4] w = ["location": "missing.bin"]> { y = Add (x, w) }
            """,
            why="a missing file is SEC002's",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        seen: dict[str, list[Stored]] = {}
        for stored in stored_tensors(view):
            if not stored.inline:
                seen.setdefault(_location(stored), []).append(stored)
        for location, group in seen.items():
            place = locate_external(view.model, group[0].tensor)
            if place.kind == "escapes":
                yield self.found(
                    group[0].at(view),
                    f"{_tensors(group)}: {place.problem}",
                    file=printable(location),
                    count=len(group),
                )
            elif place.kind not in ("missing", "remote"):
                problem = _linked(view, place)
                if problem:
                    yield self.found(
                        group[0].at(view),
                        f"external data file {printable(location)!r} {problem}: onnx 1.21 and later refuse to load it",
                        help="put a copy of the file in its place",
                        severity=Severity.INFO,
                        file=printable(location),
                        count=len(group),
                    )


def _location(stored: Stored) -> str:
    return next((entry.value for entry in stored.tensor.external_data if entry.key == "location"), "")


def _tensors(group: list[Stored]) -> str:
    """`tensor 'w'`, `tensor 'w' and 3 others`."""
    more = len(group) - 1
    others = f" and {more} other{'s' if more > 1 else ''}" if more else ""
    return f"tensor {printable(group[0].name)!r}{others}"


def _linked(view: GraphView, place: External) -> str:
    """Whether a file inside the folder is a link, in words; empty if it is not."""
    try:
        status = os.lstat(place.path)
    except (OSError, ValueError):
        return ""
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        return f"has {status.st_nlink} hard links"
    return ""
