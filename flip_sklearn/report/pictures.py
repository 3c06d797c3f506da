"""Pictures of the page: drawn by the displays of `plots`, embedded as data URIs, with reproducible bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

# Pictures are SVG up to this number of bytes; scatter plots of thousands of points are smaller as PNG.
_LARGEST_SVG = 200_000
_PIXELS_PER_INCH = 150
# CSS pixels per inch of the figure: labels of 9 pt are then about as large as the text of the page.
_WIDTH_PER_INCH = 100


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with its width on the page, its alternative text and its caption."""

    uri: str
    width: int
    alt: str
    caption: str


def draw_picture(
    display: Any, result: Any, *, kind: str, caption: str, size: tuple[float, float], **options: Any
) -> Picture:
    """Draw a result with a display class of `plots`; ``kind`` names the plot, ``size`` is in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    # With a fixed salt, the ids in the file, and so its bytes, are reproducible.
    with matplotlib.rc_context({"svg.hashsalt": "flip-sklearn", "svg.fonttype": "path"}):
        figure = Figure(figsize=size, layout="constrained")
        display.from_result(result, ax=figure.subplots(), **options)
        file_type, data = "svg+xml", io.BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None})
        if data.tell() > _LARGEST_SVG:
            file_type, data = "png", io.BytesIO()
            figure.savefig(data, format="png", dpi=_PIXELS_PER_INCH)
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    alt = f"{kind}: {caption[0].lower()}{caption[1:]} The numbers are in the table below."
    width = round(_WIDTH_PER_INCH * size[0])
    return Picture(f"data:image/{file_type};base64,{encoded}", width, alt, caption)
