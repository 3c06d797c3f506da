"""Sparse non-negative codes of many vectors over one dictionary, by batched working sets.

For every row v of the targets, over weights w >= 0 of the words D_1 ... D_V (the rows of D),

    P(w) = |v - D^T w|^2 + l1 sum_j w_j.                                                    (1)

With l1 = 0 this is non-negative least squares: D^T w is the projection of v on the cone of the words and
v - D^T w its projection on the polar cone.

Optimality. With the residual r = v - D^T w, w is a minimum if and only if D_j . r <= l1 / 2 for every
word, with equality where w_j > 0.

Dual. Every y with D_j . y <= l1 / 2 for all j bounds the minimum from below by

    Q(y) = |v|^2 - |v - y|^2 = 2 y . v - |y|^2,                                             (2)

with equality at the optimal residual. For l1 > 0 the multiple y = s r is feasible for
0 <= s <= (l1 / 2) / max_j D_j . r; s is the best such number, and the gap P(w) - Q(s r) bounds the
distance of P(w) from the minimum. For l1 = 0 there may be no feasible multiple of r. With the constraint
sum_j |D_j| w_j <= kappa, which does not change the solution if kappa is large enough, the dual is

    Q(y) = 2 y . v - |y|^2 - 2 kappa max(0, max_j D_j . y / |D_j|)                          (3)

for any y. So for l1 = 0 the gap, again at the best multiple of r, compares with all weights that satisfy
the constraint with kappa = |v| + 2 sum_j |D_j| w_j, where w are the current weights. Gaps are divided by
|v|^2. For the optimal residual r*, |r - r*|^2 <= gap |v|^2.

Method. Each row has a working set of words. A round computes D r for a block of rows, which is one product,
and adds the few words that violate optimality the most. Then (1) restricted to the set, which has some tens
of words, is solved exactly from their Gram matrix (``active_set.py``). Words with weight zero and a
correlation well below l1 / 2 leave the set. A row is finished when its gap is small enough or no word outside
its set violates optimality. The products are in the format of the data, the small problems in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch

from flip_sklearn.backend.device import Embeddings, as_shared_tensor, rows_per_block, slices, to_numpy, upload
from flip_sklearn.backend.ranking import top_k, top_k_without_waiting
from flip_sklearn.backend.sparse_coding.active_set import minimize_quadratic, slope
from flip_sklearn.backend.sparse_coding.projection import nonnegative_projection

# Tolerance of the gap. Without a penalty it is smaller, because the error of the residual, which is used
# there, is the square root of the gap.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}
PROJECTION_TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-14}
MAX_PROJECTION_GAP = 1e-9  # of a solution row by row, whose usual gaps are below 1e-12

# Rows of a block. In larger blocks the last rounds, which few rows need, use more of the product's capacity.
ROWS = {"cpu": 1024, "cuda": 2**14}

# Minimum number of words that join a set in a round, and their minimum share of the largest set. More new
# words make the small problems slower, fewer make the rounds more.
NEW_WORDS = 8
GROWTH = 0.25

# A word with weight zero leaves the set when its correlation is below l1 / 2 by more than this share of
# |D_j| |v|. It can return only after the residual has changed, so rounding does not move words in and out.
SLACK = 1e-3

# Elements of the gathered words and of the Gram matrices that are computed at one time. On a CPU they stay
# in the cache of a core.
GATHERED_ELEMENTS = {"cpu": 2**19, "cuda": 2**28}
SMALL_ELEMENTS = {"cpu": 2**16, "cuda": 2**26}
MIN_SMALL_ROWS = 16


@dataclass(frozen=True)
class Decomposition:
    """Words with weight > 0 of each row, largest weight first, and their weights."""

    indices: torch.Tensor  # (n, m) int64, padded with -1; m is the maximum number of words of a row
    weights: torch.Tensor  # (n, m), in the format of the targets, padded with 0
    gap: torch.Tensor  # (n,) float64, duality gap divided by |v|^2, 0 for zero rows
    n_rounds: int  # maximum number of products with the whole dictionary that a row needed


class SparseCoder:
    """Sparse coding of NumPy arrays over one dictionary (V, d), which is stored on a device.

    ``dtype`` is the format of the products and of the results.
    """

    def __init__(self, dictionary: np.ndarray, device: torch.device, dtype: torch.dtype) -> None:
        self._dictionary = as_shared_tensor(dictionary).to(device, dtype)

    def decompose(self, targets: Embeddings, l1: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return indices (n, m), weights (n, m) and gap (n,) of :class:`Decomposition` as arrays.

        Without a penalty they are computed on the host (``projection.py``), since the codes are not sparse.
        """
        if l1 == 0:
            vectors = (as_shared_tensor(rows).detach().double().cpu() for rows in (self._dictionary, targets))
            indices, weights, gap = _project(*vectors)
            return indices, weights.astype(str(self._dictionary.dtype).removeprefix("torch.")), gap
        device, dtype = self._dictionary.device, self._dictionary.dtype
        rows = upload(as_shared_tensor(targets), device).to(dtype)
        result = nonnegative_lasso(self._dictionary, rows, l1)
        width = result.indices.shape[1]
        # float64 holds all of them exactly, and one array is copied at once.
        columns = [result.indices.double(), result.weights.double(), result.gap[:, None]]
        packed = to_numpy(torch.cat(columns, dim=1))
        weights = packed[:, width : 2 * width].astype(str(dtype).removeprefix("torch."))
        return packed[:, :width].astype(np.int64), weights, packed[:, -1].copy()


def _project(dictionary: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve l1 = 0 row by row, and again by working sets where collinear words stop SciPy's solver early."""
    indices, weights, gap = nonnegative_projection(dictionary.numpy(), targets.numpy())
    hard = np.flatnonzero(gap > MAX_PROJECTION_GAP)
    if len(hard):
        result = nonnegative_lasso(dictionary, targets[hard], 0.0)
        width = max(indices.shape[1], result.indices.shape[1])
        indices, weights = (
            np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)
            for array, fill in ((indices, -1), (weights, 0))
        )
        better = result.gap.numpy() < gap[hard]
        rows = hard[better]
        indices[rows] = _pad(result.indices, width, -1).numpy()[better]
        weights[rows] = _pad(result.weights, width, 0).numpy()[better]
        gap[rows] = result.gap.numpy()[better]
    return indices, weights, gap


@torch.inference_mode()
def nonnegative_lasso(
    dictionary: torch.Tensor,
    targets: torch.Tensor,
    l1: float,
    *,
    tol: float | None = None,
    max_rounds: int = 1000,
) -> Decomposition:
    """Minimize |D^T w - v|^2 + l1 sum_j w_j over w >= 0 for every row v of the targets (n, d).

    ``dictionary`` (V, d) has one word per row, of any norm; words of norm zero get no weight. The solution is
    zero for l1 >= 2 max_j D_j . v.

    ``tol`` is the tolerance of the gap, relative to |v|^2; its default is in TOLERANCE, or for l1 = 0 in
    PROJECTION_TOLERANCE. A row also ends when violations are as small as rounding errors, or after
    ``max_rounds`` products with the dictionary; its gap is then in ``gap``.
    """
    _check_arguments(dictionary, targets, l1)
    if tol is None:
        tol = (TOLERANCE if l1 > 0 else PROJECTION_TOLERANCE)[targets.dtype]
    norms = torch.linalg.vector_norm(dictionary, dim=1, dtype=torch.float64)
    if l1 == 0:  # the cone does not depend on the norms of the words
        dictionary = (dictionary / norms.clamp(min=torch.finfo(norms.dtype).tiny)[:, None]).to(targets.dtype)
    blocks = [
        _BlockSolver(dictionary, norms, rows, l1, tol).solve(max_rounds)
        for rows in torch.split(targets, ROWS[targets.device.type])
    ]
    width = max(block.indices.shape[1] for block in blocks)
    return Decomposition(
        torch.cat([_pad(block.indices, width, -1) for block in blocks]),
        torch.cat([_pad(block.weights, width, 0) for block in blocks]),
        torch.cat([block.gap for block in blocks]),
        max(block.n_rounds for block in blocks),
    )


def _check_arguments(dictionary: torch.Tensor, targets: torch.Tensor, l1: float) -> None:
    if not (math.isfinite(l1) and l1 >= 0):
        raise ValueError(f"l1={l1!r} is not allowed; use a finite number >= 0.")
    if dictionary.ndim != 2 or targets.ndim != 2 or dictionary.shape[1] != targets.shape[1]:
        raise ValueError(
            f"dictionary {tuple(dictionary.shape)} and targets {tuple(targets.shape)} do not match; "
            "pass (V, d) and (n, d)."
        )
    if not len(dictionary):
        raise ValueError("dictionary has no rows; pass at least one word.")
    if dictionary.dtype != targets.dtype or targets.dtype not in TOLERANCE:
        raise ValueError(
            f"dictionary is {dictionary.dtype}, targets {targets.dtype}; pass both as float32 or both "
            "as float64."
        )
    if dictionary.device != targets.device:
        raise ValueError(f"dictionary is on {dictionary.device}, targets on {targets.device}; move one.")


def _pad(rows: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=fill)


@dataclass
class _WorkingSets:
    """Working sets of the m rows of a block that are not finished, padded to s slots each.

    The small problems are scaled to words and targets of norm one: ``weights`` holds w_j |D_j| / |v| and
    ``slope`` holds (D_j . r - l1 / 2) / (|D_j| |v|).
    """

    rows: torch.Tensor  # (m,) int64, positions in the block
    words: torch.Tensor  # (m, s) int64, 0 where not used
    used: torch.Tensor  # (m, s) bool, whether a slot holds a word
    weights: torch.Tensor  # (m, s) float64
    slope: torch.Tensor  # (m, s) float64
    target_products: torch.Tensor  # (m, s), D_j . v
    gram: torch.Tensor  # (m, s, s), D_i . D_j

    def select(self, positions: torch.Tensor) -> _WorkingSets:
        """Return the sets of some of the rows."""
        return _WorkingSets(*(getattr(self, field.name)[positions] for field in fields(self)))

    def contains(self, words: torch.Tensor) -> torch.Tensor:
        """Whether the set of each row contains the words (m, k), as bool (m, k)."""
        is_same = words[:, :, None] == self.words[:, None, :]
        return torch.any(is_same & self.used[:, None, :], dim=2)

    def is_kept(self) -> torch.Tensor:
        """Whether a slot holds a word with a weight, or with a correlation close to the bound."""
        is_slack = (self.weights == 0) & (self.slope < -SLACK)
        return self.used & ~is_slack

    def drop_slack_words(self, n_slots: int) -> None:
        """Remove the other words; at most ``n_slots`` words are kept in each row."""
        self.used, order = _move_to_front(self.is_kept(), n_slots)
        self.words = self.words.gather(1, order).masked_fill_(~self.used, 0)
        self.weights = self.weights.gather(1, order).masked_fill_(~self.used, 0)
        self.target_products = self.target_products.gather(1, order)
        gram_rows = self.gram.gather(1, order[:, :, None].expand(-1, -1, self.gram.shape[2]))
        self.gram = gram_rows.gather(2, order[:, None, :].expand(-1, order.shape[1], -1))

    def add(
        self, words: torch.Tensor, used: torch.Tensor, products: torch.Tensor, gram: torch.Tensor
    ) -> None:
        """Add words (m, q) with weight zero, given their products with targets (m, q) and words (m, q, s)."""
        n_old = self.words.shape[1]
        self.words = torch.cat([self.words, words], dim=1)
        self.used = torch.cat([self.used, used], dim=1)
        self.weights = torch.cat([self.weights, self.weights.new_zeros(words.shape)], dim=1)
        self.target_products = torch.cat([self.target_products, products], dim=1)
        old_rows = torch.cat([self.gram, gram[:, :, :n_old].mT], dim=2)
        self.gram = torch.cat([old_rows, gram], dim=1)


@dataclass(frozen=True)
class _Status:
    """The state of each row in a round, on the host."""

    is_unfinished: np.ndarray
    n_new: np.ndarray  # words to add
    n_kept: np.ndarray  # words to keep in the set
    is_right: np.ndarray  # no words of equal correlation were left out


class _BlockSolver:
    """Solves (1) for a block of rows; ``norms`` are those of the caller's words.

    For l1 = 0 the rows of ``dictionary`` have norm one or zero.
    """

    def __init__(
        self, dictionary: torch.Tensor, norms: torch.Tensor, targets: torch.Tensor, l1: float, tol: float
    ) -> None:
        self._dictionary, self._targets, self._l1, self._tol = dictionary, targets, l1, tol
        self._word_norms = norms
        self._norms = norms if l1 > 0 else (norms > 0).double()  # of the rows of ``dictionary``
        size: torch.Tensor = torch.linalg.vector_norm(targets, dim=1, dtype=torch.float64)
        self._target_norms, self._gap = size, torch.zeros_like(size)
        # Rows of the block, their words and weights.
        self._finished: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        rows = (size > 0).nonzero().view(-1)
        empty = size.new_zeros((len(rows), 0))
        self._sets = _WorkingSets(
            rows=rows,
            words=empty.long(),
            used=empty.bool(),
            weights=empty,
            slope=empty,
            target_products=empty.to(targets.dtype),
            gram=targets.new_zeros((len(rows), 0, 0)),
        )

    def solve(self, max_rounds: int) -> Decomposition:
        """Run at most ``max_rounds`` rounds."""
        n_rounds = 0
        while len(self._sets.rows) and n_rounds < max_rounds:
            n_rounds += 1
            residual = self._residual()
            words, is_new, status = self._find_words(residual)
            if n_rounds == max_rounds or not status.is_unfinished.any():
                break
            if not status.is_right.all():
                words, is_new, status = self._find_words(residual, resolve_ties=True)
            if not status.is_unfinished.all():
                unfinished, finished = (
                    upload(torch.from_numpy(np.flatnonzero(mask)), words.device)
                    for mask in (status.is_unfinished, ~status.is_unfinished)
                )
                self._finish(finished)
                self._sets = self._sets.select(unfinished)
                words, is_new = words[unfinished], is_new[unfinished]
            n_kept, n_new = (int(n[status.is_unfinished].max()) for n in (status.n_kept, status.n_new))
            self._update_sets(words, is_new, n_kept, n_new)
            self._solve_sets()
        self._finish(torch.arange(len(self._sets.rows), device=self._gap.device))
        return self._result(n_rounds)

    def _find_words(
        self, residual: torch.Tensor, *, resolve_ties: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, _Status]:
        """Return the words of the largest correlations, which of them to add, and the state of each row.

        The host waits once for the device, or more often with ``resolve_ties``: then all words are right.
        """
        sets = self._sets
        correlations, words, is_right = self._largest_correlations(residual, resolve_ties=resolve_ties)
        gap = self._compute_gap(residual, correlations[:, 0])
        self._gap[sets.rows] = gap
        violates = self._violates(correlations, words)
        is_new = violates & ~sets.contains(words)
        # At a minimum many words have equal correlations; none of these is added.
        is_right = is_right | ~violates[:, -1]
        is_unfinished = (gap > self._tol) & is_new.any(dim=1)
        state = (is_unfinished, is_new.sum(dim=1), sets.is_kept().sum(dim=1), is_right)
        columns = torch.stack([column.to(torch.int32) for column in state]).cpu().numpy()
        return words, is_new, _Status(columns[0] > 0, columns[1], columns[2], columns[3] > 0)

    def _residual(self) -> torch.Tensor:
        """Compute r = v - D^T w of the unfinished rows."""
        sets = self._sets
        v = self._targets[sets.rows]
        if not sets.words.shape[1]:
            return v
        weights = (sets.weights * self._weight_scale()).to(v.dtype)
        return v - torch.nn.functional.embedding_bag(
            sets.words, self._dictionary, per_sample_weights=weights, mode="sum"
        )

    def _largest_correlations(
        self, residual: torch.Tensor, *, resolve_ties: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the largest D_j . r of each row, largest first, their words, and which rows are right."""
        n_words = len(self._dictionary)
        k = min(max(NEW_WORDS, int(GROWTH * self._sets.words.shape[1])), n_words)
        n_rows = rows_per_block(n_words, len(residual), residual.device)
        parts = []
        for part in torch.split(residual, n_rows):
            products = part @ self._dictionary.T
            if resolve_ties:
                is_right = torch.ones(len(part), dtype=torch.bool, device=part.device)
                parts.append((*top_k(products, k), is_right))
            else:
                parts.append(top_k_without_waiting(products, k))
        values, words, right = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return values, words, right

    def _violates(self, correlations: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Whether words violate optimality by more than rounding."""
        size = self._target_norms[self._sets.rows][:, None]
        rounding = 4 * torch.finfo(correlations.dtype).eps * size
        return (correlations - self._l1 / 2) > rounding * self._norms[words]

    def _weight_scale(self) -> torch.Tensor:
        """Return |v| / |D_j| of each slot, from scaled weights to weights of the dictionary's rows."""
        sets = self._sets
        norms = self._norms[sets.words].masked_fill_(~sets.used, 1)
        return self._target_norms[sets.rows][:, None] / norms

    def _compute_gap(self, residual: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
        """Compute the gap by (2) or (3) of the module's docstring at the best multiple of r.

        ``highest`` is max_j D_j . r.
        """
        sets = self._sets
        size = self._target_norms[sets.rows]
        unit = size.to(residual.dtype)[:, None]
        r, v, highest = residual / unit, self._targets[sets.rows] / unit, highest.double() / size
        rr = r.square().sum(dim=1, dtype=size.dtype)
        rv = (r * v).sum(dim=1, dtype=size.dtype)
        tiny = torch.finfo(size.dtype).tiny
        if self._l1 > 0:
            weight_sum = (sets.weights * self._weight_scale()).sum(dim=1) / size.square()
            max_multiple = (self._l1 / 2 / size) / highest.clamp(min=tiny)
            multiple = torch.minimum(rv / rr.clamp(min=tiny), max_multiple).clamp(min=0)
            primal = rr + self._l1 * weight_sum
            dual = 2 * multiple * rv - multiple.square() * rr
        else:
            kappa = 1 + 2 * sets.weights.sum(dim=1)
            half_slope = (rv - kappa * highest.clamp(min=0)).clamp(min=0)  # of Q at multiple 0
            primal, dual = rr, half_slope.square() / rr.clamp(min=tiny)
        return torch.clamp(primal - dual, min=0)

    def _update_sets(self, words: torch.Tensor, is_new: torch.Tensor, n_kept: int, n_new: int) -> None:
        """Remove slack words from the sets and add the new words, given their largest numbers in a row."""
        sets = self._sets
        if sets.words.shape[1]:
            sets.drop_slack_words(n_kept)
        is_new, order = _move_to_front(is_new, n_new)
        words = words.gather(1, order).masked_fill_(~is_new, 0)
        products, gram = self._inner_products(torch.cat([sets.words, words], dim=1), words.shape[1])
        sets.add(words, is_new, products, gram)

    def _inner_products(self, words: torch.Tensor, q: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the products of the last q of the words (m, s) with the targets and with all words."""
        m, s = words.shape
        v = self._targets[self._sets.rows]
        products, gram = v.new_empty((m, q)), v.new_empty((m, q, s))
        n_rows = max(1, GATHERED_ELEMENTS[v.device.type] // (s * self._dictionary.shape[1]))
        for part in slices(m, n_rows):
            vectors = self._dictionary[words[part]]
            new_vectors = vectors[:, s - q :]
            gram[part] = new_vectors @ vectors.mT
            products[part] = (new_vectors @ v[part][:, :, None])[:, :, 0]
        return products, gram

    def _solve_sets(self) -> None:
        """Minimize (1) over the words of each set; update the scaled weights and their slope."""
        sets = self._sets
        m, s = sets.words.shape
        new_weights, new_slope = torch.empty_like(sets.weights), torch.empty_like(sets.weights)
        n_rows = max(MIN_SMALL_ROWS, SMALL_ELEMENTS[sets.weights.device.type] // s**2)
        for part in slices(m, n_rows):
            used = sets.used[part]
            norms = torch.where(used, self._norms[sets.words[part]], 1.0)
            G = sets.gram[part].double() / norms[:, :, None] / norms[:, None, :]
            size = self._target_norms[sets.rows[part]][:, None]
            b = (sets.target_products[part].double() - self._l1 / 2) / (norms * size)
            w = minimize_quadratic(G, b, sets.weights[part], used)
            new_weights[part], new_slope[part] = w, slope(G, b, w)
        sets.weights, sets.slope = new_weights, new_slope

    def _finish(self, positions: torch.Tensor) -> None:
        """Store the solution of the rows at these positions of the sets."""
        done = self._sets.select(positions)
        norms = torch.where(done.used, self._word_norms[done.words], 1.0)
        weights = done.weights * self._target_norms[done.rows][:, None] / norms
        self._finished.append((done.rows, done.words, weights))

    def _result(self, n_rounds: int) -> Decomposition:
        """Sort the words of each row by weight."""
        counts = torch.zeros_like(self._gap, dtype=torch.int64)
        for rows, _, weights in self._finished:
            counts[rows] = (weights > 0).sum(dim=1)
        width = int(counts.max()) if len(counts) else 0
        all_weights = self._gap.new_zeros((len(counts), width))
        all_indices = torch.full_like(all_weights, -1, dtype=torch.int64)
        for rows, words, weights in self._finished:
            words, order = words.sort(dim=1)  # of equal weights the lower word comes first
            weights, order = weights.gather(1, order).sort(dim=1, descending=True, stable=True)
            words, weights = words.gather(1, order)[:, :width], weights[:, :width]
            all_indices[rows, : weights.shape[1]] = torch.where(weights > 0, words, -1)
            all_weights[rows, : weights.shape[1]] = weights
        return Decomposition(all_indices, all_weights.to(self._targets.dtype), self._gap, n_rounds)


def _move_to_front(flags: torch.Tensor, max_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return flags with the true ones of each row first, at most ``max_count``, and their order."""
    order = (~flags).to(torch.int8).sort(dim=1, stable=True).indices[:, :max_count]
    return flags.gather(1, order), order
