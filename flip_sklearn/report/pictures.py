"""Pictures inside the page: drawn by the displays of `plots`, carried as data, the same bytes each time."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from flip_sklearn import plots

# Pictures of thousands of dots are smaller as pixels; others stay sharp at any size.
_LARGEST_SVG = 200_000
_PIXELS_PER_INCH = 150
# On the page, whose pixels are 1/96 inch: letters of 9 pt are then about as large as the text around.
_WIDTH_PER_INCH = 100


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with its width on the page and what it shows in words."""

    uri: str
    width: int
    alt: str
    caption: str


def picture(
    display: str, result: Any, *, alt: str, caption: str, size: tuple[float, float]
) -> Picture:
    """One result, drawn by the display of this name, ``size`` in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    # The salt makes the ids in the file, and with them its bytes, the same each time.
    with matplotlib.rc_context({"svg.hashsalt": "flip-sklearn", "svg.fonttype": "path"}):
        figure = Figure(figsize=size, layout="constrained")
        getattr(plots, display).from_result(result, ax=figure.subplots())
        kind, data = "svg+xml", io.BytesIO()
        figure.savefig(data, format="svg", metadata={"Date": None})
        if data.tell() > _LARGEST_SVG:
            kind, data = "png", io.BytesIO()
            figure.savefig(data, format="png", dpi=_PIXELS_PER_INCH)
    encoded = base64.b64encode(data.getvalue()).decode("ascii")
    width = round(_WIDTH_PER_INCH * size[0])
    return Picture(f"data:image/{kind};base64,{encoded}", width, alt, caption)
