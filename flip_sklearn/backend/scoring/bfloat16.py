"""The k best words by bfloat16 products, certified to be those of the float32 scores.

A product of bfloat16 factors ranks a word up to a known error. Instead of the score the product here
gives an upper bound of it. The words with the largest bounds make a shortlist, whose float32 scores are
computed one by one. Where the k-th best of these exceeds every bound outside the shortlist, no other
word can be among the k best. Rows without this certificate are scored in float32 whole.

The bound. Write x^ for x rounded to bfloat16 (8 significant bits, to nearest), s for the score
h.a + b, and g for (r + 8) 2^-21. Then

    h.a - h^.a^ = (h - h^).a + h^.(a - a^),   so   |h.a - h^.a^| <= |h - h^| |a| + |h^| |a - a^|

by Cauchy and Schwarz. The four norms are known, and smaller than the worst case of rounding, in which
each term is 2^-8 |h| |a|. Products of two bfloat16 numbers are exact in float32. Adding up r + 6 of
them in any order, also by hardware that drops bits instead of rounding, errs by less than
(r + 6) 2^-22 times the sum of their magnitudes, which is at most 1.01 (|h| |a| + |b|) without the
bound's own columns; the float32 score that the user gets errs by less than (r + 2) 2^-23 of that. Both
together stay below g (|h| |a| + |b|). So

    s <= h^.a^ + b + (|h - h^| + g |h|) |a| + |h^| |a - a^| + g |b|,

and all of it is one product of longer rows: h^ with 1, 1, 1, 1, u(|h - h^| + g |h|), u(|h^|), and a^
with b in three bfloat16 parts (together exact), u(g |b|), u(|a|), u(|a - a^|). Here u rounds up:
to bfloat16 after a factor 1 + 2^-7, which leaves at least 2^-9 for the rounding of the norms and of
the sum of the columns it is used in.
"""

from __future__ import annotations

import torch

from flip_sklearn.backend.device import Compute, matmul, product_precision
from flip_sklearn.backend.ranking import largest, top_k
from flip_sklearn.backend.scoring.products import DenseWords, Product

# Places on the shortlist besides the k: this many, and a fourth of k. On captions (V = 12,128, rank 384)
# k + 2 certify 97 % of the rows for k = 10, and k + 6 all of 5,000, with and without bias.
MORE_PLACES = 8
# The detour pays while the shortlist is a small part of the vocabulary.
WORDS_PER_PLACE = 64
# Elements of the factors that are gathered for the shortlists of some rows at a time.
GATHERED_ELEMENTS = {"cpu": 2**21, "cuda": 2**27}

LOWEST = -1e30  # stands for -inf, which has no rounding error to speak of


class Shortlist:
    """Certified top-k over the words of a float32 ``DenseWords``.

    Parameters
    ----------
    words : the exact scores, for rows that get no certificate
    product : ``product(a, b, out)`` of factors that hold bfloat16 numbers, summed in float32 or better
    """

    def __init__(self, words: DenseWords, compute: Compute, product: Product | None = None) -> None:
        A = words.A
        b = (A.new_zeros(len(A)) if words.offset is None else words.offset).clamp_min(LOWEST)
        self.words, self.rescored_in_full = words, 0
        self._slack = (A.shape[1] + 8) * 2.0**-21
        rounded = _rounded(A)
        high = _rounded(b)
        middle = _rounded(b - high)
        low = _rounded(b - high - middle)
        norm, lost = _norm(A), _norm(A - rounded)
        bounds = [_up(self._slack * b.abs()), _up(norm), _up(lost)]
        factors = torch.cat([rounded, torch.stack([high, middle, low, *bounds], dim=1)], dim=1)
        # Rows whose length is a multiple of 16 are what tensor units read fastest.
        factors = torch.nn.functional.pad(factors, (0, -factors.shape[1] % 16))
        if A.device.type == "cuda":
            factors = factors.to(torch.bfloat16)
        self._bounds = DenseWords(factors, None, product or _product_in(compute))
        self.rows = self._bounds.rows

    def is_cheaper(self, k: int) -> bool:
        """Whether k is small enough against the vocabulary."""
        return WORDS_PER_PLACE * _length(k) <= len(self.words.A)

    def top(self, h: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``top_k`` of the float32 scores of the latent rows (m, r)."""
        bounds, maxima = self._bounds.scores(self._longer(h))
        best, columns = largest(bounds, _length(k) + 1, maxima)
        columns = columns[:, :-1].sort(dim=1).values  # ascending: a stable sort settles ties
        scores = self._exact(h, columns)
        values, order = scores.sort(dim=1, descending=True, stable=True)
        values, columns = values[:, :k], columns.gather(1, order[:, :k])
        doubtful = (~(values[:, -1] > best[:, -1])).nonzero().view(-1)
        if len(doubtful):
            self.rescored_in_full += len(doubtful)
            exact, maxima = self.words.scores(h[doubtful])
            values[doubtful], columns[doubtful] = top_k(exact, k, maxima)
        return values, columns

    def _longer(self, h: torch.Tensor) -> torch.Tensor:
        """Rows of h^ with what multiplies the columns of b and of the bounds."""
        longer = h.new_zeros(len(h), self._bounds.A.shape[1])
        rank = h.shape[1]
        rounded = longer[:, :rank].copy_(_rounded(h))
        longer[:, rank : rank + 4] = 1
        longer[:, rank + 4] = _up(_norm(h - rounded) + self._slack * _norm(h))
        longer[:, rank + 5] = _up(_norm(rounded))
        return longer

    def _exact(self, h: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Float32 scores of the words on the shortlists, (m, length)."""
        A, offset = self.words.A, self.words.offset
        scores = torch.empty(columns.shape, dtype=h.dtype, device=h.device)
        rows = max(1, GATHERED_ELEMENTS[h.device.type] // (columns.shape[1] * max(1, A.shape[1])))
        for first in range(0, len(h), rows):
            part = columns[first : first + rows]
            gathered = A.index_select(0, part.reshape(-1)).view(*part.shape, -1)
            torch.bmm(
                gathered,
                h[first : first + rows, :, None],
                out=scores[first : first + rows, :, None],
            )
        return scores if offset is None else scores.add_(offset[columns])


def _length(k: int) -> int:
    return k + k // 4 + MORE_PLACES


def _norm(rows: torch.Tensor) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norm


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """To the nearest bfloat16 number, kept in float32."""
    return x.to(torch.bfloat16).to(torch.float32)


def _up(x: torch.Tensor) -> torch.Tensor:
    """A bfloat16 number above x >= 0, by 2^-9 of it at least."""
    return _rounded(x * (1 + 2.0**-7))


def _product_in(compute: Compute) -> Product:
    def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        with product_precision(compute):
            matmul(a, b, compute, out=out)

    return product
