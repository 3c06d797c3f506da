"""A training session: the rows in whitened coordinates, and passes over them that advance the state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, rows_of, to_device
from flip_sklearn.backend.fit.batches import Batch, BatchReader
from flip_sklearn.backend.fit.bias import RefittedBias, refit_bias
from flip_sklearn.backend.fit.candidates import ClassSampler
from flip_sklearn.backend.fit.checkpoint import Checkpoint
from flip_sklearn.backend.fit.data import CountDataset, Targets, WhitenedDataset, count_words
from flip_sklearn.backend.fit.initialization import (
    InitialPoint,
    add_prior,
    gradient_at_zero,
    newton_start,
    warm_start,
)
from flip_sklearn.backend.fit.likelihood import (
    Gradients,
    SoftmaxLayer,
    Workspace,
    loss_and_gradients,
    loss_and_scores,
)
from flip_sklearn.backend.fit.optimizer import Parameters
from flip_sklearn.backend.fit.penalty import l1_max
from flip_sklearn.backend.fit.row_softmax import RowSoftmax, mean_loss
from flip_sklearn.backend.fit.state import PassRecord, SolverOptions, TrainingState
from flip_sklearn.backend.fit.whitening import Moments, Whitening, shared_moments, streaming_moments
from flip_sklearn.backend.fit.word_prior import WordPrior

# The moments read rows in chunks of this many elements, since each chunk is copied to float64; on an
# accelerator each chunk is waited for.
MOMENT_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
MOMENT_CHUNK_ROWS = {"cpu": (256, 4096), "cuda": (256, 2**16)}
# J after a pass is computed on this many rows, or on all rows if there are at most this many scores; of so
# few scores b is refitted after every pass.
LOSS_ROWS = 500
SMALL_SCORES = 2**18


@dataclass(frozen=True)
class EarlierFit:
    """What a fit continues from: a point, and for a stream the statistics of the chunks before."""

    point: InitialPoint
    moments: Moments | None = None
    word_counts: np.ndarray | None = None  # (V,)


class Session:
    """The training rows in whitened coordinates, and the state of the fit on them.

    Without ``earlier``, training starts from the closed form of ``initialization.py``. ``word_features``
    (V, p) are those of ``word_prior.py``.
    """

    def __init__(
        self,
        train: CountDataset,
        options: SolverOptions,
        compute: Compute,
        earlier: EarlierFit | None = None,
        word_features: np.ndarray | None = None,
    ) -> None:
        self.options, self.compute = options, compute
        self.moments = self._compute_moments(train, earlier)
        whitening = Whitening.from_moments(self.moments)
        self.mean = torch.from_numpy(whitening.mean).to(compute.device, compute.dtype)
        self.Q = torch.from_numpy(whitening.forward).to(compute.device, compute.dtype)
        # Equal eigenvalues leave their eigenvectors free, so another processor may find other ones.
        train.group.broadcast_(self.Q)
        self.data = WhitenedDataset(train, self.mean, self.Q, compute)
        self.work = Workspace(compute)
        self._grad_A: torch.Tensor | None = None
        self.word_counts = train.word_counts()
        counts_so_far = self.word_counts
        if earlier is not None and earlier.word_counts is not None:
            counts_so_far = counts_so_far + earlier.word_counts
        self.sampler: ClassSampler | None = None
        if options.solver != "exact":
            frequency = train.document_frequency()
            sampler = ClassSampler(self.word_counts, frequency, len(train), options.batch_size)
            if options.solver == "sampled" or sampler.is_cheaper():
                self.sampler = sampler
        self._reader = BatchReader(train, compute, self.sampler)
        self.occurrences = count_words(train.counts, np.ones(len(train)))
        self.is_small = self.sampler is None and len(train) * train.n_words <= SMALL_SCORES
        loss_rows = np.flatnonzero(train.row_weight > 0)
        if not self.is_small:
            some = np.linspace(0, len(loss_rows) - 1, min(len(loss_rows), LOSS_ROWS)).astype(np.int64)
            loss_rows = loss_rows[np.unique(some)]
        self._loss_rows = loss_rows
        gradient = self.gradient_at_zero()
        # V times the strength of one entry, because the penalty is a mean over the vocabulary.
        self.l1_max = train.n_words * l1_max(gradient, options.rank is not None)

        def start_with(l2: float, gradient: torch.Tensor) -> Parameters:
            # The optimizer divides both strengths by V, but J divides l2 by the sum W of the counts.
            self.l2 = l2 * train.n_words / float(counts_so_far.sum())
            if earlier is not None:
                factorized = options.rank is not None
                return warm_start(earlier.point, counts_so_far, whitening, self.data, factorized=factorized)
            return newton_start(
                self.data,
                gradient,
                counts_so_far,
                rank=options.rank,
                l1=options.l1,
                l2=self.l2,
                work=self.work,
            )

        start = start_with(options.l2, gradient)
        self.prior: WordPrior | None = None
        if word_features is not None:
            prior = WordPrior(to_device(word_features, compute), train.group)
            completed = add_prior(start, prior, counts_so_far, options.l2, is_closed_form=earlier is None)
            if completed is None:
                self.options = replace(options, l2=options.l2_without_features)
                start = start_with(self.options.l2, gradient)
            else:
                self.prior, start = prior, completed
        del gradient
        train.group.broadcast_(*start)
        generator = torch.Generator(device="cpu").manual_seed(options.seed)
        self.state = TrainingState(start, options, options.l1, self.l2, generator, self.prior)

    def _compute_moments(self, train: CountDataset, earlier: EarlierFit | None) -> Moments:
        device = self.compute.device.type
        low, high = MOMENT_CHUNK_ROWS[device]
        chunk_rows = max(low, min(high, MOMENT_ELEMENTS[device] // train.d))
        moments = streaming_moments(train.chunks(chunk_rows, self.compute), train.d)
        moments = shared_moments(moments, train.group, self.compute.device)
        if earlier is None or earlier.moments is None:
            return moments
        return earlier.moments.merge(moments)

    @property
    def solver(self) -> str:
        """The resolved solver, "exact", "sampled" or "lbfgs"."""
        if self.options.solver == "lbfgs":
            return "lbfgs"
        return "exact" if self.sampler is None else "sampled"

    @property
    def should_stop(self) -> bool:
        """Whether the last passes made no progress."""
        return self.state.early_stopping.should_stop

    @property
    def has_converged(self) -> bool:
        """Whether the last pass made no progress."""
        return self.state.early_stopping.passes_without_progress > 0

    @property
    def parameters(self) -> Parameters:
        """The current iterate."""
        optimizer = self.state.optimizer
        return Parameters(optimizer.A, optimizer.B, optimizer.b)

    def gradient_at_zero(self) -> torch.Tensor:
        """Gradient (V, d) of the likelihood part of J at A = 0, b = log frequencies."""
        return gradient_at_zero(self.data, self.word_counts)

    def restart(self, start: Parameters, l1: float) -> None:
        """Replace the state by a new one that begins at ``start``."""
        generator = self.state.generator
        if self.prior is not None:
            self.prior.update(start.A)
        self.state = TrainingState(start, self.options, l1, self.l2, generator, self.prior)

    def run_pass(
        self, after_step: Callable[[int], None] | None = None, checkpoint: Checkpoint | None = None
    ) -> tuple[PassRecord, Parameters]:
        """Make one more pass; return its record, without held-out rows, and the averaged parameters.

        Raises
        ------
        FloatingPointError
            If the loss or a parameter is not finite.
        """
        nll = self._take_steps(after_step, checkpoint)
        state = self.state
        averaged = state.optimizer.averaged()
        if self.prior is not None:
            self.prior.update(averaged.A)
        occurrences = None if self.sampler is None else self.occurrences
        softmax = RowSoftmax(self.data, averaged, self.work, occurrences)
        current_nll = mean_loss(softmax, self.data, self._loss_rows)
        # The norm is nan if one entry is; a mask of A's size is not needed.
        largest = [torch.linalg.vector_norm(p, math.inf).double() for p in averaged if p is not None]
        n_nonzero = torch.count_nonzero(averaged.A).double()
        measured = torch.stack([state.optimizer.penalty(averaged.A), n_nonzero, current_nll, *largest])
        # Read at once, since reading waits for the device.
        penalty, n_nonzero, final_nll, *largest = measured.tolist()
        if not all(map(math.isfinite, [*largest, nll, final_nll])):
            raise FloatingPointError(
                f"the training loss or a parameter became nan or infinite in pass "
                f"{len(state.history) + 1}; lower learning_rate (now {self.options.learning_rate}), "
                "or use precision='float32' or 'float64'."
            )
        record = PassRecord(
            loss=final_nll + penalty,
            training_loss=nll + penalty,
            validation_nll=math.nan,
            validation_accuracy=math.nan,
            sparsity=1.0 - n_nonzero / max(1, averaged.A.numel()),
            seconds=time.perf_counter() - state.began,
        )
        return record, averaged

    def _take_steps(self, after_step: Callable[[int], None] | None, checkpoint: Checkpoint | None) -> float:
        """Take the steps of a shuffled pass that are left; return the mean loss per word of the pass."""
        state, n, size = self.state, len(self.data.dataset), self.options.batch_size
        order = state.begin_pass(n)
        batches = [order[first : first + size] for first in range(state.rows_done, n, size)]
        with closing(self._reader.read(batches, state.generator)) as reader:
            for batch in reader:
                state.loss += self._take_step(batch)
                state.rows_done += batch.n_rows
                state.generator.set_state(batch.generator_state)
                if after_step is not None:
                    after_step(state.rows_done)
                if checkpoint is not None and state.rows_done < n:
                    checkpoint.save_if_due(state.to_checkpoint)
        state.optimizer.flush_lazy_updates()
        self._grad_A = None
        state.rows_done = 0
        return float(state.loss) / float(self.word_counts.sum())

    def _take_step(self, batch: Batch) -> torch.Tensor:
        """Take one step on a batch of rows; return its loss."""
        optimizer, group = self.state.optimizer, self.data.group
        latent = self.data.whitened(batch.x)
        h = latent if optimizer.B is None else latent @ optimizer.B.T
        layer, rows = SoftmaxLayer(optimizer.A, optimizer.b), None
        if batch.classes is not None:
            rows = optimizer.gather(batch.classes.words)
            b = rows.b - batch.classes.log_inclusion
            layer = SoftmaxLayer(rows.A, b, batch.classes.target_log_inclusion)
        # n / m / W times the sum over a batch has the gradient of J as its mean over batches.
        scale = len(self.data.dataset) / batch.n_rows / self.word_counts.sum()
        gradients = self._gradient_buffers(layer, h)
        loss = loss_and_gradients(h, layer, batch.targets, self.work, gradients, scale=scale)
        grad_B = None if gradients.h is None else torch.mm(gradients.h.T, latent)
        group.sum_(gradients.A, gradients.b, grad_B, loss)
        optimizer.step(gradients.A, gradients.b, grad_B, rows)
        return loss

    def _gradient_buffers(self, layer: SoftmaxLayer, h: torch.Tensor) -> Gradients:
        """Memory for the gradients of a step. That of A is kept during a pass; it grows when too small."""
        A, n = self.state.optimizer.A, len(layer.A)

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=A.dtype, device=A.device)

        if self._grad_A is None or len(self._grad_A) < n:
            self._grad_A = empty(min(len(A), n * 5 // 4), A.shape[1])
        grad_h = None if self.state.optimizer.B is None else empty(*h.shape)
        return Gradients(rows_of(self._grad_A, slice(0, n)), empty(n), grad_h)

    def refit_bias(self, held_out: WhitenedDataset | None, parameters: Parameters) -> RefittedBias:
        """Refit b to the counts of the training and the held-out rows, at the A and B~ of ``parameters``."""
        return refit_bias(
            self.data,
            held_out,
            parameters,
            self.work,
            samples_rare_words=self.sampler is not None,
            is_small=self.is_small,
        )

    def whiten(self, rows: CountDataset) -> WhitenedDataset:
        """Other rows in the whitened coordinates of the session."""
        return WhitenedDataset(rows, self.mean, self.Q, self.compute)

    def score_blocks(
        self, data: WhitenedDataset, parameters: Parameters
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor, Targets]]:
        """Row numbers, loss, scores and targets of this process's rows, block by block.

        The next block overwrites the scores.
        """
        A, B, b = parameters
        layer = SoftmaxLayer(A, b)
        for rows, latent, targets in data.blocks(self.work.block_rows(len(b), len(data.dataset))):
            h = latent if B is None else latent @ B.T
            on_device = targets.flat(len(b)).to(self.compute.device)
            loss, scores = loss_and_scores(h, layer, on_device, self.work)
            yield rows, loss, scores, targets
