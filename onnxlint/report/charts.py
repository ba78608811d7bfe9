"""Charts of pages: Vega-Lite, written by altair and drawn in the browser by the bundle that vl-convert brings.

Nothing is loaded: the bundle is part of the page (about 900 KB), runs under the page's content security policy (Vega's
interpreter evaluates expressions, not `eval`), and draws SVG with text of the page's own size and colours.
Without the two packages there are no charts, and the page names the extra.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from onnxlint.model.native import Limits, in_child
from onnxlint.report.page import text

if TYPE_CHECKING:
    import altair

MISSING = "Charts need altair and vl-convert-python: pip install 'onnxlint[charts]'"
"""Text of a page without charts."""

FONT = 13
"""Pixels of text in charts, as in the tables' captions."""

HEIGHT = 260
"""Pixels of a chart without its legend."""

COLORS = tuple(f"var(--c{number})" for number in range(8))
"""Of candidates, in order; the page defines them for light and dark."""


SECONDS = 60.0
"""CPU time that the bundle may take; it takes about 2 s."""

RESERVED = 1 << 40
"""Bytes of address space that the bundle may take: V8 reserves some 100 GiB, of which it uses 0.15."""


def available() -> bool:
    """Whether charts can be drawn."""
    from importlib.util import find_spec

    return find_spec("altair") is not None and find_spec("vl_convert") is not None


@cache
def bundle() -> str:
    """The JavaScript that draws charts: Vega, Vega-Lite and vega-embed.

    Raises:
        RuntimeError: vl-convert did not survive making it: V8 ends its process where it cannot reserve memory.
    """

    def made() -> bytes:
        import vl_convert

        code: str = vl_convert.javascript_bundle()  # type: ignore[call-arg] # the stub demands what is optional
        return code.encode()

    code = in_child(made, Limits(SECONDS, RESERVED)).decode()
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def color(names: list[str]) -> altair.Scale:
    """Each name's colour, the same in every chart of a page."""
    import altair

    return altair.Scale(domain=names, range=[COLORS[i % len(COLORS)] for i in range(len(names))])


def figure(chart: Any, label: str, caption: str) -> str:
    """A chart in a page.

    Args:
        chart: Made by altair.
        label: What it shows, for those who cannot see it.
        caption: Plain text below it.
    """
    axis = {
        "labelFontSize": FONT,
        "titleFontSize": FONT,
        "titleFontWeight": "normal",
        "labelColor": "var(--soft)",
        "titleColor": "var(--ink)",
        "gridColor": "var(--line)",
        "domainColor": "var(--soft)",
        "tickColor": "var(--soft)",
        "labelLimit": 160,
        "labelOverlap": "greedy",
        "labelSeparation": 6,
    }
    legend = {
        "labelFontSize": FONT,
        "labelColor": "var(--ink)",
        "titleFontSize": FONT,
        "titleColor": "var(--ink)",
        "labelLimit": 280,
        "orient": "bottom",
        "direction": "vertical",
        "title": None,
    }
    spec = chart.properties(width="container", height=HEIGHT).to_dict()
    spec["config"] = {
        "font": "system-ui, Segoe UI, Roboto, sans-serif",
        "background": "transparent",
        "view": {"stroke": "var(--line)"},
        "axis": axis,
        "legend": legend,
    }
    spec.pop("$schema", None)  # an address that nothing reads
    return (
        f'<figure><div class="chart" role="img" aria-label="{text(label)}" data-spec="{text(json.dumps(spec))}"></div>'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )
