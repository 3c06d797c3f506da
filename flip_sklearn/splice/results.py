"""Results of SpLiCEExtractor: the quality of decompositions, mean weights of groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.splice.concepts import ranked_entries


@dataclass(frozen=True)
class DecompositionQuality:
    """How sparse and how close the decompositions of some rows are.

    Attributes
    ----------
    l0 : ndarray of shape (n,), int64
        Words with weight > 0.
    cosine : ndarray of shape (n,)
        Between the centred direction v and C^T w; 0 for rows without words.
    gap : ndarray of shape (n,)
        Duality gap: the objective is at most this far above its minimum. |v|^2 = 1 is the scale.
    """

    l0: np.ndarray
    cosine: np.ndarray
    gap: np.ndarray

    def __repr__(self) -> str:
        if not len(self.l0):
            return "DecompositionQuality(n=0)"
        return (
            f"DecompositionQuality(n={len(self.l0)}, mean l0={self.l0.mean():.1f}, "
            f"mean cosine={self.cosine.mean():.3f}, largest gap={self.gap.max():.1g})"
        )

    def to_frame(self) -> Any:
        """One row for each embedding.

        Returns
        -------
        pandas.DataFrame
            Columns ``l0``, ``cosine`` and ``gap``.
        """
        return data_frame({"l0": self.l0, "cosine": self.cosine, "gap": self.gap})


@dataclass(frozen=True)
class ConceptMeans:
    """Mean concept weights of groups of rows.

    Attributes
    ----------
    groups : ndarray of shape (G,)
        Labels, sorted; "all" where no groups were given.
    n_rows : ndarray of shape (G,), int64
        Rows of each group.
    weights : csr_array of shape (G, V), float64
        Mean weight of each concept over the rows of the group.
    vocabulary : ndarray of shape (V,) of str
    """

    groups: np.ndarray
    n_rows: np.ndarray
    weights: sp.csr_array
    vocabulary: np.ndarray

    def __repr__(self) -> str:
        order, group, place = ranked_entries(self.weights)
        names = self.vocabulary[self.weights.indices[order[place < 5]]]
        of = group[place < 5]
        shown = [f"{g}: {' '.join(names[of == i])}" for i, g in enumerate(self.groups[:5])]
        more = "; ..." if len(self.groups) > 5 else ""
        return f"ConceptMeans({'; '.join(shown)}{more})"

    def to_frame(self) -> Any:
        """One row for each group and concept, largest weight first within a group.

        Returns
        -------
        pandas.DataFrame
            Columns ``group``, ``concept`` and ``weight``.
        """
        order, group, _ = ranked_entries(self.weights)
        return data_frame(
            {
                "group": self.groups[group],
                "concept": self.vocabulary[self.weights.indices[order]],
                "weight": self.weights.data[order],
            }
        )
