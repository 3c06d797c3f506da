"""Results of SpLiCEExtractor: quality of decompositions, and mean weights of groups of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.estimation.frames import data_frame
from flip_sklearn.splice.concepts import ranked_entries


@dataclass(frozen=True)
class DecompositionQuality:
    """Sparsity and accuracy of the decompositions of rows.

    Attributes
    ----------
    l0 : ndarray of shape (n,), int64
        Number of words with weight > 0.
    cosine : ndarray of shape (n,)
        Cosine of the centred direction v and C^T w; 0 for rows without words.
    gap : ndarray of shape (n,)
        Duality gap, an upper bound of the distance of the objective from its minimum, where ``|v| = 1``.
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
        """Return a table with one row for each embedding.

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
        Labels, sorted; "all" if no groups were given.
    n_rows : ndarray of shape (G,), int64
        Number of rows of each group.
    weights : csr_array of shape (G, V), float64
        Mean weight of each concept over the rows of the group.
    vocabulary : ndarray of shape (V,) of str
        Names of the concepts.
    """

    groups: np.ndarray
    n_rows: np.ndarray
    weights: sp.csr_array
    vocabulary: np.ndarray

    def __repr__(self) -> str:
        order, group, rank = ranked_entries(self.weights)
        words = self.vocabulary[self.weights.indices[order]]
        texts = []
        for i, label in enumerate(self.groups[:5]):
            top_words = words[(group == i) & (rank < 5)]
            texts.append(f"{label}: {' '.join(top_words)}")
        if len(self.groups) > 5:
            texts.append("...")
        return f"ConceptMeans({'; '.join(texts)})"

    def to_frame(self) -> Any:
        """Return a table with one row for each group and concept, largest weight first.

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
