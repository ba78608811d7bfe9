"""SEC004: external data with entries that the specification does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxlint import Example, Finding, GraphView, Options, Rule, Silent, printable
from onnxlint_rules._tensors import Stored, stored_tensors

# What the specification names, what onnx itself writes (basepath), and onnxruntime's packed copies of weights.
_KNOWN = re.compile(r"location|offset|length|checksum|basepath|prepacked_\d+")


class ExternalDataUnknownKey(Rule):
    """An external tensor has entries that are not part of the format.

    ## What it does

    Reports keys of `external_data` other than `location`, `offset`, `length`, `checksum`, `basepath` (which onnx writes)
    and `prepacked_…` (which onnxruntime writes); one finding for each key.

    ## Why it hurts

    - onnx before 1.21 takes each key for the name of a Python attribute and sets it, whatever it is: a file can overwrite
      methods and fields of the object that reads it, and make the reader ask for any amount of memory (CVE-2026-34445).
    - Newer versions ignore them and warn; what whoever wrote the file meant by them is lost.

    ## Fix it at the source

    ```python
    # writes location, offset and length, and nothing else
    onnx.save(model, "model.onnx", save_as_external_data=True, location="model.onnx.data")
    ```

    ## Fix safety

    Taking the entries away is exact for every reader that keeps to the specification.

    ## References

    - [External data](https://onnx.ai/onnx/repo-docs/ExternalData.html) in the ONNX documentation: the keys
    - [GHSA-538c-55jv-c5g9](https://github.com/onnx/onnx/security/advisories/GHSA-538c-55jv-c5g9) (CVE-2026-34445)
    """

    code = "SEC004"
    name = "external-data-unknown-key"
    apart = True
    help = "save the model again with onnx; do not load the file with onnx before 1.21"
    examples = (
        Example(
            bad="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y)
            <float[4] w = ["location": "w.bin", "__class__": "str"],
             float[4] v = ["location": "w.bin", "__class__": "int"]> {
                a = Add (x, w)
                y = Add (a, v)
            }
            """,
            good="""
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float[4] w = ["location": "w.bin"], float[4] v = ["location": "w.bin"]> {
                a = Add (x, w)
                y = Add (a, v)
            }
            """,
            says="external data of tensor 'w' and 1 more has the key '__class__'",
            equal=False,
        ),
    )
    silent = (
        Silent(
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y)
            <float[4] w = ["location": "w.bin", "offset": "0", "length": "16", "checksum": "ab", "prepacked_0": "x|1;2;1"]> {
                y = Add (x, w)
            }
            """,
            why="these keys are known",
        ),
    )

    def check(self, view: GraphView, options: Options) -> Iterator[Finding]:
        found: dict[str, list[Stored]] = {}
        for stored in stored_tensors(view):
            if not stored.inline:
                for entry in stored.tensor.external_data:
                    if not _KNOWN.fullmatch(entry.key):
                        found.setdefault(entry.key, []).append(stored)
        for key, tensors in found.items():
            more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
            yield self.found(
                tensors[0].at(view),
                f"external data of tensor {printable(tensors[0].name)!r}{more} has the key {printable(key[:60])!r}, which "
                "the format does not know",
                count=len(tensors),
            )
