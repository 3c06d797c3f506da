"""Non-negative sparse codes of many vectors over one dictionary, by batched working sets.

For every row v of the targets, over weights w >= 0 of the words D_1 ... D_V (the rows of D),

    P(w) = |v - D^T w|^2 + l1 sum_j w_j.                                                    (1)

With l1 = 0 this is non-negative least squares: D^T w is the projection of v on the cone of the words and
v - D^T w the one on its polar cone.

Optimality. With the residual r = v - D^T w, w is a minimum if and only if D_j . r <= l1 / 2 for every
word, with equality where w_j > 0.

Dual. Every y with D_j . y <= l1 / 2 for all j bounds the minimum from below by

    Q(y) = |v|^2 - |v - y|^2 = 2 y . v - |y|^2,                                             (2)

with equality at the optimal residual. For l1 > 0 the multiple y = s r is feasible for
0 <= s <= (l1 / 2) / max_j D_j . r; s is the best such number, and the gap P(w) - Q(s r) bounds how far w
is from the optimum. For l1 = 0 no multiple of r need be feasible. With the bound
sum_j |D_j| w_j <= kappa, which changes nothing if kappa is large enough, the dual is

    Q(y) = 2 y . v - |y|^2 - 2 kappa max(0, max_j D_j . y / |D_j|)                          (3)

for any y. So for l1 = 0 the gap, again at the best multiple of r, is against every w within the bound
kappa = |v| + 2 sum_j |D_j| w_j of the w found. Gaps are divided by |v|^2. For the optimal residual r*,
|r - r*|^2 <= gap |v|^2.

Method. Each row has a small set of words. A round computes D r for a block of rows, one product, and
adds the few words that violate optimality the most. Then (1) over the set, some tens of numbers with
their Gram matrix, is solved exactly (``active_set.py``). Words at zero, well inside their bound, leave
the set. A row is finished when its gap is small enough or no word outside its set violates optimality.
The products are in the format of the data, the small problems in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import as_shared_tensor, rows_per_block, to_numpy
from flip_sklearn.backend.ranking import top_k
from flip_sklearn.backend.sparse_coding.active_set import minimize_quadratic, slope

# Of the gap. Without a penalty it is the residual that is asked for, whose error is the gap's square root.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}
PROJECTION_TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-14}

# Rows in work at one time. More of them waste less of the products of the last rounds, which few rows need.
ROWS = {"cpu": 1024, "cuda": 2**14}

# Words that join a row's set in a round, at least; and this share of the largest set. Too many make the
# small problems slow, too few the rounds many.
NEW_WORDS = 8
GROWTH = 0.25

# A word at zero leaves the set when its correlation is below its bound by this much of |D_j| |v|. It can
# only come back after the residual has moved, so no word comes and goes by rounding.
SLACK = 1e-3

# Numbers in work at one time: gathered words, and small Gram matrices. On a CPU they stay in a core's cache.
GATHERED_ELEMENTS = {"cpu": 2**19, "cuda": 2**28}
SMALL_ELEMENTS = {"cpu": 2**16, "cuda": 2**26}
MIN_SMALL_ROWS = 16


@dataclass(frozen=True)
class Decomposition:
    """Words and weights of each row, largest weight first.

    Attributes
    ----------
    indices : (n, m) int64
        Words with weight > 0, padded with -1; m is the most that a row has.
    weights : (n, m)
        In the format of the targets, 0 where padded.
    gap : (n,) float64
        Duality gap over |v|^2, 0 for zero rows.
    n_rounds : int
        Products with the whole dictionary that the slowest row needed.
    """

    indices: torch.Tensor
    weights: torch.Tensor
    gap: torch.Tensor
    n_rounds: int


class SparseCoder:
    """A dictionary on a device, ready for NumPy rows.

    Parameters
    ----------
    dictionary : ndarray of shape (V, d)
    device : torch.device
    dtype : torch.float32 or torch.float64
        Format of the products and of what comes back.
    """

    def __init__(self, dictionary: np.ndarray, device: torch.device, dtype: torch.dtype) -> None:
        self._dictionary = as_shared_tensor(dictionary).to(device, dtype)

    def decompose(
        self, targets: np.ndarray, l1: float, *, tol: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices (n, m), weights (n, m) and gap (n,) of :class:`Decomposition`, as arrays."""
        rows = as_shared_tensor(targets).to(self._dictionary.device, self._dictionary.dtype)
        found = nonnegative_lasso(self._dictionary, rows, l1, tol=tol)
        return to_numpy(found.indices), to_numpy(found.weights), to_numpy(found.gap)


@torch.inference_mode()
def nonnegative_lasso(
    dictionary: torch.Tensor,
    targets: torch.Tensor,
    l1: float,
    *,
    tol: float | None = None,
    max_rounds: int = 1000,
    after_rows: Callable[[int], object] | None = None,
) -> Decomposition:
    """Minimize |D^T w - v|^2 + l1 sum_j w_j over w >= 0 for every row v.

    Parameters
    ----------
    dictionary : (V, d) float32 or float64
        One word a row, of any length; words of length zero get no weight.
    targets : (n, d), of the same format on the same device
    l1 : float
        >= 0; from 2 max_j D_j . v on the solution is zero. 0 is non-negative least squares.
    tol : float, optional
        Largest gap, relative to |v|^2; by default 1e-6 for float32 and 1e-10 for float64, for l1 = 0
        1e-9 and 1e-14. A row also ends where violations are rounding; ``gap`` says where that was.
    max_rounds : int
        Most products with the dictionary for one row.
    after_rows : callable, optional
        Told the number of rows whenever some are finished.

    Returns
    -------
    Decomposition

    Raises
    ------
    ValueError
        If shapes, formats or devices do not match, or l1 is not a finite number >= 0.
    """
    _check(dictionary, targets, l1)
    if tol is None:
        tol = (TOLERANCE if l1 > 0 else PROJECTION_TOLERANCE)[targets.dtype]
    norms = torch.linalg.vector_norm(dictionary, dim=1, dtype=torch.float64)
    if l1 == 0:  # the cone does not depend on the lengths of the words
        dictionary = (dictionary / norms.clamp(min=torch.finfo(norms.dtype).tiny)[:, None]).to(
            targets.dtype
        )
    parts = []
    for v in torch.split(targets, ROWS[targets.device.type]):
        parts.append(_Block(dictionary, norms, v, l1, tol).solve(max_rounds))
        if after_rows is not None:
            after_rows(len(v))
    width = max((p.indices.shape[1] for p in parts), default=0)
    return Decomposition(
        torch.cat([_widen(p.indices, width, -1) for p in parts]),
        torch.cat([_widen(p.weights, width, 0) for p in parts]),
        torch.cat([p.gap for p in parts]),
        max(p.n_rounds for p in parts),
    )


def _check(dictionary: torch.Tensor, targets: torch.Tensor, l1: float) -> None:
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
        raise ValueError(
            f"dictionary is on {dictionary.device}, targets on {targets.device}; move one."
        )


def _widen(rows: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=fill)


class _Block:
    """Some rows until each of them is solved.

    Slots (m, s) of a row's set hold a word each; ``used`` says which do, they come first. All small
    problems are scaled: words and v to length one, so ``w`` is w_j |D_j| / |v|.
    """

    def __init__(
        self, D: torch.Tensor, norms: torch.Tensor, v: torch.Tensor, l1: float, tol: float
    ) -> None:
        self._D, self._v, self._l1, self._tol = D, v, l1, tol
        self._true_norms = norms  # of the caller's words
        self._norms = norms if l1 > 0 else (norms > 0).double()  # of the rows of D
        self._size: torch.Tensor = torch.linalg.vector_norm(v, dim=1, dtype=torch.float64)
        self._live = (self._size > 0).nonzero().view(-1)  # rows of v that are still in work
        k = len(self._live)
        self._words = torch.zeros((k, 0), dtype=torch.int64, device=v.device)
        self._used = torch.zeros((k, 0), dtype=torch.bool, device=v.device)
        self._w = torch.zeros((k, 0), dtype=torch.float64, device=v.device)
        self._slope = torch.zeros_like(self._w)
        self._Dv = v.new_zeros((k, 0))
        self._G = v.new_zeros((k, 0, 0))
        self._gap = torch.zeros_like(self._size)
        self._done: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def solve(self, max_rounds: int) -> Decomposition:
        n_rounds = 0
        while len(self._live) and n_rounds < max_rounds:
            n_rounds += 1
            values, columns, r = self._violations()
            rounding = 4 * torch.finfo(r.dtype).eps * self._size[self._live][:, None]
            new = (values - self._l1 / 2) > rounding * self._norms[columns]
            new &= ~self._in_set(columns)
            gap = self._gaps(r, values[:, 0])
            self._gap[self._live] = gap
            going = (gap > self._tol) & new.any(dim=1)
            if n_rounds == max_rounds:
                break
            if not going.all():
                self._keep(going)
                new, columns = new[going], columns[going]
            if len(self._live):
                self._extend(columns, new)
                self._solve_sets()
        self._keep(torch.zeros(len(self._live), dtype=torch.bool, device=self._v.device))
        return self._result(n_rounds)

    def _violations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The largest correlations D r of each row, their words, and r."""
        v = self._v[self._live]
        r = v
        if self._words.shape[1]:
            weights = (self._w * self._scale()).to(v.dtype)
            r = v - torch.nn.functional.embedding_bag(
                self._words, self._D, per_sample_weights=weights, mode="sum"
            )
        n_words = len(self._D)
        k = min(max(NEW_WORDS, int(GROWTH * self._words.shape[1])), n_words)
        found = []
        for part in torch.split(r, rows_per_block(n_words, len(r), r.device)):
            found.append(top_k(part @ self._D.T, k))
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]), r

    def _scale(self) -> torch.Tensor:
        """From scaled weights to those of the rows of D: |v| / |D_j| where a slot is used."""
        norms = self._norms[self._words].masked_fill_(~self._used, 1)
        return self._size[self._live][:, None] / norms

    def _in_set(self, columns: torch.Tensor) -> torch.Tensor:
        same = columns[:, :, None] == self._words[:, None, :]
        return torch.any(same & self._used[:, None, :], dim=2)

    def _gaps(self, r: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
        """(2) and (3) of the module's docstring at the best multiple of r."""
        size = self._size[self._live]
        unit = size.to(r.dtype)[:, None]
        r, v, highest = r / unit, self._v[self._live] / unit, highest.double() / size
        rr = r.square().sum(dim=1, dtype=size.dtype)
        rv = (r * v).sum(dim=1, dtype=size.dtype)
        tiny = torch.finfo(size.dtype).tiny
        if self._l1 > 0:
            total = (self._w * self._scale()).sum(dim=1) / size.square()
            primal = rr + self._l1 * total
            bound = (self._l1 / 2 / size) / highest.clamp(min=tiny)
            s = torch.minimum(rv / rr.clamp(min=tiny), bound).clamp(min=0)
            dual = 2 * s * rv - s.square() * rr
        else:
            kappa = 1 + 2 * self._w.sum(dim=1)
            primal = rr
            lift = (rv - kappa * highest.clamp(min=0)).clamp(min=0)
            dual = lift.square() / rr.clamp(min=tiny)
        return torch.clamp(primal - dual, min=0)

    def _extend(self, columns: torch.Tensor, new: torch.Tensor) -> None:
        """Words at zero, well inside their bound, leave the sets; the new words join them."""
        if self._words.shape[1]:
            at_zero_far_inside = (self._w == 0) & (self._slope < -SLACK)
            self._used, order = _to_front(self._used & ~at_zero_far_inside)
            self._words = self._words.gather(1, order).masked_fill_(~self._used, 0)
            self._w = self._w.gather(1, order).masked_fill_(~self._used, 0)
            self._Dv = self._Dv.gather(1, order)
            wide = order[:, :, None].expand(-1, -1, self._G.shape[2])
            G = self._G.gather(1, wide)
            self._G = G.gather(2, order[:, None, :].expand(-1, order.shape[1], -1))
        new, order = _to_front(new)
        columns = columns.gather(1, order).masked_fill_(~new, 0)
        self._words = torch.cat([self._words, columns], dim=1)
        self._used = torch.cat([self._used, new], dim=1)
        self._w = torch.cat([self._w, self._w.new_zeros(columns.shape)], dim=1)
        Dv, G = self._inner_products(columns.shape[1])
        self._Dv = torch.cat([self._Dv, Dv], dim=1)
        old = self._G.shape[1]
        self._G = torch.cat([torch.cat([self._G, G[:, :, :old].mT], dim=2), G], dim=1)

    def _inner_products(self, q: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the last q words of every set: with v and with all words of the set."""
        m, s = self._words.shape
        Dv = self._v.new_empty((m, q))
        G = self._v.new_empty((m, q, s))
        v = self._v[self._live]
        step = max(1, GATHERED_ELEMENTS[v.device.type] // (s * self._D.shape[1]))
        for first in range(0, m, step):
            part = slice(first, first + step)
            words = self._D[self._words[part]]
            G[part] = words[:, s - q :] @ words.mT
            Dv[part] = (words[:, s - q :] @ v[part][:, :, None])[:, :, 0]
        return Dv, G

    def _solve_sets(self) -> None:
        """(1) over each row's set; w and its slope, (D r - l1 / 2) / (|D_j| |v|)."""
        m, s = self._words.shape
        self._slope = torch.empty_like(self._w)
        w = torch.empty_like(self._w)
        step = max(MIN_SMALL_ROWS, SMALL_ELEMENTS[w.device.type] // s**2)
        for first in range(0, m, step):
            part = slice(first, first + step)
            used = self._used[part]
            length = torch.where(used, self._norms[self._words[part]], 1.0)
            G = self._G[part].double() / length[:, :, None] / length[:, None, :]
            size = self._size[self._live[part]][:, None]
            b = (self._Dv[part].double() - self._l1 / 2) / (length * size)
            w[part] = minimize_quadratic(G, b, self._w[part], used)
            self._slope[part] = slope(G, b, w[part])
        self._w = w

    def _keep(self, going: torch.Tensor) -> None:
        """Go on with these rows; the others are finished."""
        out = ~going
        true = torch.where(self._used, self._true_norms[self._words], 1.0)
        weights = (self._w * self._size[self._live][:, None] / true)[out]
        self._done.append((self._live[out], self._words[out], weights))
        self._live, self._words, self._used = (
            self._live[going],
            self._words[going],
            self._used[going],
        )
        self._w, self._slope = self._w[going], self._slope[going]
        self._Dv, self._G = self._Dv[going], self._G[going]

    def _result(self, n_rounds: int) -> Decomposition:
        width = max(int((w > 0).sum(dim=1).max()) if w.numel() else 0 for _, _, w in self._done)
        shape, device = (len(self._v), width), self._v.device
        indices = torch.full(shape, -1, dtype=torch.int64, device=device)
        weights = torch.zeros(shape, dtype=torch.float64, device=device)
        for rows, words, w in self._done:
            words, order = words.sort(dim=1)  # equal weights: the lower word first
            w, order = w.gather(1, order).sort(dim=1, descending=True, stable=True)
            words, w = words.gather(1, order)[:, :width], w[:, :width]
            indices[rows, : w.shape[1]] = torch.where(w > 0, words, -1)
            weights[rows, : w.shape[1]] = w
        return Decomposition(indices, weights.to(self._v.dtype), self._gap, n_rounds)


def _to_front(flags: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An order of the slots that puts the flagged ones first, cut where no row has more; and its flags."""
    most = int(flags.sum(dim=1).max())
    order = (~flags).to(torch.int8).sort(dim=1, stable=True).indices[:, :most]
    return flags.gather(1, order), order
