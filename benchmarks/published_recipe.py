"""The published training loop of FLiP, written without this package, for comparisons.

z = b + A (B x) on raw embeddings, dense log-softmax over the vocabulary, loss -sum(Y log theta) / sum(Y) per
shuffled batch, AdamW with learning rate 5e-3 and default weight decay, float32. b starts at zero, as in the
published code, in which the log-unigram initialization never takes effect. The L1 term, which has the wrong
sign there, is left out. A and B start as in torch.nn.Linear, or normal with a given standard deviation; a
larger one trains faster at first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from benchmarks.data import Data
from benchmarks.measuring import Reading, ScoreRows, Stopwatch, dev_accuracy, make_reading
from flip_sklearn.metrics import RowMean

LEARNING_RATE = 5e-3


@dataclass(frozen=True)
class RecipeOptions:
    """Settings of a training run."""

    rank: int
    batch_size: int
    init: float | None  # standard deviation of A and B; None for that of torch.nn.Linear
    budget: float  # seconds of training
    eval_every: float  # seconds of training between readings
    stop_at: float  # dev accuracy
    device: torch.device
    quiet: bool = False


@dataclass(frozen=True)
class RecipeRun:
    """Curve and result of a training run."""

    curve: list[Reading]
    final: RowMean
    seconds: float


class PublishedRecipe(torch.nn.Module):
    """z = b + A (B x) on raw embeddings."""

    def __init__(
        self, d: int, rank: int, n_words: int, init: float | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.B = torch.nn.Parameter(torch.empty(rank, d))
        self.A = torch.nn.Parameter(torch.empty(n_words, rank))
        self.b = torch.nn.Parameter(torch.zeros(n_words))
        for weight in (self.B, self.A):
            if init is None:  # as in torch.nn.Linear
                torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            else:
                torch.nn.init.normal_(weight, std=init, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores (m, V) of embeddings (m, d)."""
        return torch.nn.functional.linear(x @ self.B.T, self.A, self.b)


def recipe_step(
    model: PublishedRecipe, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    """Take one step on the mean negative log-likelihood per token of a batch."""
    optimizer.zero_grad()
    loss = -(y * torch.log_softmax(model(x), dim=1)).sum() / y.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def make_optimizer(model: PublishedRecipe) -> torch.optim.Optimizer:
    """Return the optimizer of the recipe."""
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)


def recipe_scores(model: PublishedRecipe, data: Data, device: torch.device) -> ScoreRows:
    """Return a function that scores dev rows with the current parameters."""

    def score(rows: slice) -> torch.Tensor:
        with torch.inference_mode():
            x = torch.from_numpy(data.X_dev[rows]).to(device, torch.float32)
            return model.forward(x)

    return score


def train_recipe(data: Data, options: RecipeOptions) -> RecipeRun:
    """Train until the budget is used or the dev accuracy reaches ``options.stop_at``.

    The accuracy is read at the end of a pass if ``eval_every`` seconds have passed since the last reading,
    and at the end of the budget.
    """
    device = options.device
    watch = Stopwatch(device)
    generator = torch.Generator().manual_seed(0)
    n, n_words = data.Y.shape
    X = torch.from_numpy(data.X).to(device, torch.float32)
    model = PublishedRecipe(X.shape[1], options.rank, n_words, options.init, generator).to(device)
    optimizer = make_optimizer(model)
    curve: list[Reading] = []
    n_steps, steps_per_pass = 0, math.ceil(n / options.batch_size)
    order = torch.empty(0, dtype=torch.int64)
    bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
    with tqdm(total=options.budget, desc="recipe", bar_format=bar_format, disable=options.quiet) as bar:
        while True:
            step_in_pass = n_steps % steps_per_pass
            if step_in_pass == 0:
                order = torch.randperm(n, generator=generator)
            first = step_in_pass * options.batch_size
            rows = order[first : first + options.batch_size]
            y = torch.from_numpy(data.Y[rows.numpy()].toarray()).to(device)
            recipe_step(model, optimizer, X[rows.to(device)], y)
            n_steps += 1
            seconds = watch.seconds()
            bar.update(min(seconds, options.budget) - bar.n)
            out_of_time = seconds >= options.budget
            is_end_of_pass = n_steps % steps_per_pass == 0
            last_reading = curve[-1].seconds if curve else 0.0
            is_due = is_end_of_pass and seconds - last_reading >= options.eval_every
            if not (out_of_time or is_due):
                continue
            seconds = watch.pause()
            result = dev_accuracy(recipe_scores(model, data, device), data.Y_dev)
            curve.append(make_reading(n_steps / steps_per_pass, seconds, result))
            bar.set_postfix_str(f"dev accuracy {result.value:.3f}")
            if out_of_time or result.value >= options.stop_at:
                return RecipeRun(curve, result, seconds)
            watch.start()
