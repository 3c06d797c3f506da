"""Sentences of the report on what separates the first view from the others."""

from __future__ import annotations

import numpy as np

from flip_sklearn.diagnostics import ViewGap
from flip_sklearn.report.wording import listed, percent, points, quoted, size

# With more pairs, only the one with the largest loss is in the summary.
_MAX_PAIRS = 2
# What removes each part.
_REMEDIES = {
    "shift": "a shift of all embeddings, which subtracting the mean of each view removes (ViewCenterer)",
    "rotation": "a rotation, which an orthogonal map fitted to pairs of sentences removes",
    "shear": "removed by a free linear map fitted to pairs of sentences, and not by a rotation",
    "content": "lost to any linear map",
}


def view_gap_texts(result: ViewGap) -> list[tuple[str, bool]]:
    """A sentence for each pair with a significant loss, and whether it belongs to the summary."""
    source = result.readings.index("source")
    lossy = [
        p
        for p in range(len(result.pairs))
        if result.loss.significant[p]
        and result.loss.value[p] > 0
        and result.accuracy.low[p, source] > result.baseline.high
    ]
    main = sorted(lossy, key=lambda p: -float(result.loss.value[p]))[: 1 if len(lossy) > _MAX_PAIRS else None]
    return [(_loss_text(result, p), p in main) for p in lossy]


def _loss_text(result: ViewGap, p: int) -> str:
    source, target = map(quoted, result.pairs[p])
    found = [
        f"{size(result.difference, p, i)} are {_REMEDIES[part]}"
        for i, part in enumerate(result.parts)
        if result.difference.significant[p, i] and result.difference.value[p, i] > 0
    ]
    text = (
        f"Of the {points(result.loss.value[p])} that the model trained on {source} loses on {target}, "
        f"{listed(found) if found else 'no part is significant by itself'}."
    )
    linear, own = (result.readings.index(reading) for reading in ("linear", "own"))
    if result.retraining.significant[p] and result.retraining.value[p] > 0:
        text += (
            f" A model trained on {target} finds {percent(result.accuracy.value[p, own])} of the words, "
            f"{size(result.retraining, p)} more than the linear map."
        )
    elif not np.isnan(result.accuracy.value[p, linear]):
        text += f" A model trained on {target} finds no more than the linear map."
    return text
