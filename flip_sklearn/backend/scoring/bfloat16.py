"""The k best words by bfloat16 products, certified to be those of the float32 scores.

A product of bfloat16 factors ranks words up to a known error. Instead of scores, the product here
computes upper bounds of them. The words with the largest bounds form a shortlist, whose float32 scores
are computed one by one. If the k-th best of these exceeds every bound outside the shortlist, no other
word can be among the k best: the row is certified. Other rows are scored in float32 completely.

The bound. Write x^ for x rounded to bfloat16 (8 significant bits, to nearest), s for the score
h.a + b, and g for (r + 8) 2^-21. Then

    h.a - h^.a^ = (h - h^).a + h^.(a - a^),   so   |h.a - h^.a^| <= |h - h^| |a| + |h^| |a - a^|

by Cauchy and Schwarz. The four norms are computed; the products are smaller than the worst case of
rounding, 2^-8 |h| |a| for each term. Products of two bfloat16 numbers are exact in float32. A sum of
r + 6 of them in any order, also by hardware that truncates, has an error below (r + 6) 2^-22 times the
sum of their magnitudes, which is at most 1.01 (|h| |a| + |b|) without the columns of the bound. The error
of the float32 score that the user gets is below (r + 2) 2^-23 of that sum. Both errors together are below
g (|h| |a| + |b|). So

    s <= h^.a^ + b + (|h - h^| + g |h|) |a| + |h^| |a - a^| + g |b|,

and the right side is one product of augmented rows: h^ with 1, 1, 1, 1, u(|h - h^| + g |h|), u(|h^|),
and a^ with b in three bfloat16 parts (together exact), u(g |b|), u(|a|), u(|a - a^|). Here u rounds up:
to bfloat16 after multiplication by 1 + 2^-7, which leaves at least 2^-9 for the rounding of the norms
and of the sum over the columns in which it is used.
"""

from __future__ import annotations

import torch

from flip_sklearn.backend.device import Compute, matmul, product_precision, slices
from flip_sklearn.backend.ranking import largest
from flip_sklearn.backend.scoring.products import DenseProduct, Multiply

# The shortlist has k + k // 4 + EXTRA_WORDS words. On captions (V = 12,128, rank 384) k + 2 words certify
# 97 % of the rows for k = 10, and k + 6 all of 5,000, with and without bias.
EXTRA_WORDS = 8
# A shortlist is faster while it is at most this fraction (1 / 64) of the vocabulary.
MIN_VOCABULARY_RATIO = 64
# Elements of the factors that are gathered at one time for the shortlists of some rows.
GATHERED_ELEMENTS = {"cpu": 2**21, "cuda": 2**27}

LOWEST = -1e30  # replaces -inf, for which the rounding error would not be defined


class Shortlist:
    """Certified top-k over the words of a float32 ``DenseProduct``.

    ``multiply`` gets factors that are bfloat16 numbers, and sums in float32 or better.
    """

    def __init__(self, exact: DenseProduct, compute: Compute, multiply: Multiply | None = None) -> None:
        A = exact.A
        b = (A.new_zeros(len(A)) if exact.offset is None else exact.offset).clamp_min(LOWEST)
        self.exact = exact
        self._sum_error = (A.shape[1] + 8) * 2.0**-21  # g in the module's docstring
        rounded = _round(A)
        b_high = _round(b)
        b_middle = _round(b - b_high)
        b_low = _round(b - b_high - b_middle)
        bounds = [
            _round_up(self._sum_error * b.abs()),
            _round_up(_row_norms(A)),
            _round_up(_row_norms(A - rounded)),
        ]
        columns = torch.stack([b_high, b_middle, b_low, *bounds], dim=1)
        factors = torch.cat([rounded, columns], dim=1)
        # Tensor cores read rows fastest whose length is a multiple of 16.
        factors = torch.nn.functional.pad(factors, (0, -factors.shape[1] % 16))
        if A.device.type == "cuda":
            factors = factors.to(torch.bfloat16)
        self._bounds = DenseProduct(factors, None, multiply or _multiply_with(compute))
        self.block_rows = self._bounds.block_rows

    def is_cheaper(self, k: int) -> bool:
        """Whether k is small enough in comparison with the vocabulary."""
        return MIN_VOCABULARY_RATIO * _shortlist_length(k) <= len(self.exact.A)

    def top(self, h: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``top_k`` of the float32 scores of the latent rows (m, r), and which rows are certified.

        The words of the other rows may be wrong. The host does not wait for the device.
        """
        bounds, maxima = self._bounds.scores(self._augment(h))
        largest_bounds, columns = largest(bounds, _shortlist_length(k) + 1, maxima)
        columns = columns[:, :-1].sort(dim=1).values  # ascending, so that the stable sort breaks ties
        scores = self._exact_scores(h, columns)
        values, order = scores.sort(dim=1, descending=True, stable=True)
        values, columns = values[:, :k], columns.gather(1, order[:, :k])
        return values, columns, values[:, -1] > largest_bounds[:, -1]

    def _augment(self, h: torch.Tensor) -> torch.Tensor:
        """Return the rows h^ with the factors of the columns of b and of the bounds."""
        augmented = h.new_zeros(len(h), self._bounds.A.shape[1])
        rank = h.shape[1]
        rounded = augmented[:, :rank].copy_(_round(h))
        augmented[:, rank : rank + 4] = 1
        augmented[:, rank + 4] = _round_up(_row_norms(h - rounded) + self._sum_error * _row_norms(h))
        augmented[:, rank + 5] = _round_up(_row_norms(rounded))
        return augmented

    def _exact_scores(self, h: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Compute the float32 scores of the words on the shortlists, (m, length)."""
        A, offset = self.exact.A, self.exact.offset
        scores = torch.empty(columns.shape, dtype=h.dtype, device=h.device)
        elements_per_row = columns.shape[1] * max(1, A.shape[1])
        n_rows = max(1, GATHERED_ELEMENTS[h.device.type] // elements_per_row)
        for rows in slices(len(h), n_rows):
            words = columns[rows]
            gathered = A.index_select(0, words.reshape(-1)).view(*words.shape, -1)
            torch.bmm(gathered, h[rows, :, None], out=scores[rows, :, None])
        return scores if offset is None else scores.add_(offset[columns])


def _shortlist_length(k: int) -> int:
    return k + k // 4 + EXTRA_WORDS


def _row_norms(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _round(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest bfloat16 number, stored in float32."""
    return x.to(torch.bfloat16).to(torch.float32)


def _round_up(x: torch.Tensor) -> torch.Tensor:
    """Return bfloat16 numbers that exceed x >= 0 by at least 2^-9 x."""
    return _round(x * (1 + 2.0**-7))


def _multiply_with(compute: Compute) -> Multiply:
    """Return the product of bfloat16 factors on the device."""

    def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        with product_precision(compute):
            matmul(a, b, compute, out=out)

    return multiply
