"""J and its gradients at given parameters, exactly: one pass over all rows.

    J(A, B~, b) = (1/W) L(A, B~, b) + (l2 / 2W) |A|^2 + (l1 / V) |A|_1

with L of ``likelihood.py`` and W the sum of the weighted counts; with features of the words, |A|^2 is P(A) of
``word_prior.py``. ``smooth`` below is J without its L1 term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flip_sklearn.backend.device import slices
from flip_sklearn.backend.fit.data import WhitenedDataset
from flip_sklearn.backend.fit.likelihood import Gradients, SoftmaxLayer, Workspace, loss_and_gradients
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.word_prior import WordPrior

CHUNK_ROWS = 512
SUM_ELEMENTS = 2**20


@dataclass(frozen=True)
class Evaluation:
    """J without its L1 term, and its gradients."""

    smooth: float
    grad_A: torch.Tensor  # (V, r)
    grad_b: torch.Tensor  # (V,)
    grad_B: torch.Tensor | None  # (r, d), if it was asked for


@torch.no_grad()
def evaluate_smooth(
    data: WhitenedDataset,
    parameters: Parameters,
    l2: float,
    work: Workspace,
    *,
    prior: WordPrior | None = None,
    with_projection: bool = False,
    after_rows: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compute J without its L1 term and its gradients, over all rows.

    This costs 6 n V r operations (4 n V r without the gradient of B~), in the number format of the products,
    and memory for one matrix of the size of A and a block of scores. Each process of a group computes its own
    rows and gets the sum. ``after_rows`` is called with the number of rows done.
    """
    A, B, b = parameters
    grad_A, grad_b = torch.zeros_like(A), torch.zeros_like(b)
    grad_B = torch.zeros_like(B) if with_projection and B is not None else None
    loss = torch.zeros((), dtype=torch.float64, device=A.device)
    total_count = float(data.dataset.row_weight.sum())
    layer = SoftmaxLayer(A, b)
    for rows, latent, targets in data.blocks(CHUNK_ROWS * data.group.size):
        h = latent if B is None else latent @ B.T
        on_device = targets.flat(len(b)).to(h.device)
        grad_h = None if grad_B is None else torch.empty_like(h)
        gradients = Gradients(grad_A, grad_b, grad_h)
        loss += loss_and_gradients(h, layer, on_device, work, gradients, scale=1.0 / total_count, add=True)
        if grad_B is not None and grad_h is not None:
            grad_B.addmm_(grad_h.T, latent)
        if after_rows is not None:
            after_rows(int(rows[-1]) + 1)
    data.group.sum_(grad_A, grad_b, grad_B, loss)
    if prior is None:
        penalty = 0.5 * l2 * sum_of_squares(A)
        grad_A.add_(A, alpha=l2 / total_count)
    else:
        penalty = 0.5 * l2 * prior.penalty(A)
        prior.add_gradient_(grad_A, A, l2 / total_count)
    return Evaluation(float(loss + penalty) / total_count, grad_A, grad_b, grad_B)


def sum_of_squares(A: torch.Tensor) -> torch.Tensor:
    """Sum of the squared entries, as a float64 scalar tensor."""
    return _sum_by_tiles(A, lambda tile: tile.square().sum(dtype=torch.float64))


def sum_of_magnitudes(A: torch.Tensor) -> torch.Tensor:
    """Sum of the absolute entries, as a float64 scalar tensor."""
    return _sum_by_tiles(A, lambda tile: tile.abs().sum(dtype=torch.float64))


def _sum_by_tiles(A: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Sum of ``function`` over tiles, since a temporary array of the size of A would be large."""
    total = torch.zeros((), dtype=torch.float64, device=A.device)
    for tile in slices(A.numel(), SUM_ELEMENTS):
        total += function(A.reshape(-1)[tile])
    return total
