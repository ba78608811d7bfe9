"""The tables of docs/quantizing.md, from what convert.py and int8_nets.py saved:

python -m benchmarks.int8_page RETINAFACE.json NETS.json [--markdown docs/quantizing.md]
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.convert import HELD_BACK
from benchmarks.results import Results, write_into

TIMED = ("auto", "learned")
"""Methods whose seconds are shown, beside those of the slowest other one."""

Rows = Mapping[str, Mapping[str, Any]]


def faces(rows: Rows) -> Iterator[str]:
    """RetinaFace, by all targets."""
    yield "| | photos | dB | faces | extra | shift | bytes of weights | CPU s |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, found in rows.items():
        if "failure" in found:
            yield f"| {name} | | {found['failure'][:100]} | | | | | |"
            continue
        for label, one in found.items():
            mean = sum(one["snr"]) / len(one["snr"])
            there = one["found"] + one["missed"]
            figures = f"{mean:.1f} | {one['found']} of {there} | {one['extra']} | {one['shift']:+.3f}"
            made = f"{one['size']:,} | {one['seconds']:.0f}" if not label else " | "
            yield f"| {name if not label else ''} | {label.strip() or 'design'} | {figures} | {made} |"


def nets(rows: Rows) -> Iterator[str]:
    """Other nets: mean and worst output, a column for each method."""
    for target in dict.fromkeys(name.split("/")[1] for name in rows if not name.startswith("NNCF")):
        if target == "NNCF":
            continue
        own = {name: row for name, row in rows.items() if name.split("/")[1] == target}
        methods = list(dict.fromkeys(name.split("/")[2] for name in own))
        rival = ["NNCF"] if target == "onnx-int8-static" else []
        timed = [one for one in TIMED if one in methods]
        yield ""
        yield (
            f"| {target} | "
            + " | ".join(methods + [f"{one} default" for one in rival])
            + f" | bytes (auto) | CPU s ({' · '.join(timed)} · slowest other) |"
        )
        yield "| --- |" + " ---: |" * (len(methods) + len(rival) + 2)
        for net in dict.fromkeys(name.split("/")[0] for name in own):
            cells = [_ratio(rows.get(f"{net}/{target}/{method}")) for method in methods]
            cells += [_ratio(rows.get(f"{net}/{one}/default")) for one in rival]
            auto = rows.get(f"{net}/{target}/auto", {})
            others = [rows.get(f"{net}/{target}/{method}", {}) for method in methods if method not in TIMED]
            others += [rows.get(f"{net}/{one}/default", {}) for one in rival]
            slowest = max((row["seconds"] for row in others if "seconds" in row), default=0.0)
            seconds = [rows.get(f"{net}/{target}/{method}", {}).get("seconds") for method in timed] + [slowest]
            shown = " · ".join("not run" if one is None else f"{one:.0f}" for one in seconds)
            cells += [f"{auto['bytes']:,}", shown] if "bytes" in auto else ["", ""]
            yield f"| {net} | " + " | ".join(cells) + " |"


def _ratio(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run"
    return "fails" if "failure" in row else f"{row['mean']:.1f} · {row['worst']:.1f}"


def failures(rows: Rows) -> Iterator[str]:
    """What failed, and why."""
    for name, row in rows.items():
        if "failure" in row:
            yield f"- {name.replace('/', ', ')}: {row['failure']}"


def page(retina: Rows, others: Rows) -> str:
    """What goes between the marks."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxlint", "onnxruntime", "ncnn", "openvino"))
    lines: Iterable[str] = [
        f"Measured {datetime.date.today()} with {versions},",
        "on 2 cores that did other work as well: CPU seconds compare rows and say no more.",
        "",
        *faces(retina),
        "",
        "Other nets (mean · worst output, dB):",
        *nets(others),
        "",
        *failures(others),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("retinaface", help="what convert.py saved")
    parser.add_argument("nets", help="what int8_nets.py saved")
    parser.add_argument("--markdown", type=Path, help="the page")
    args = parser.parse_args()
    retina = Results(args.retinaface).rows
    for found in retina.values():
        assert "failure" in found or "" in found or HELD_BACK in found, "not a file of convert.py"
    text = page(retina, Results(args.nets).rows)
    print(text)
    if args.markdown is not None:
        write_into(args.markdown, text)


if __name__ == "__main__":
    main()
