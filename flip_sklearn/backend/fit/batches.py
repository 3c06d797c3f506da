"""The batches of a pass, prepared on the host: for an accelerator one batch ahead, in a second thread.

While the device computes a step, the host draws the classes of the next batch, gathers its counts and packs
them into one array of integers and one of floats in page-locked memory. They travel in two copies that
nobody waits for. On a CPU the same tensors are used where they are.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from flip_sklearn.backend.device import Compute, page_locked
from flip_sklearn.backend.fit.candidates import ClassSampler
from flip_sklearn.backend.fit.data import CountDataset, FlatTargets

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Classes:
    """The sampled classes of a batch and the corrections of the scores, on the device of the fit."""

    words: torch.Tensor  # (S,) int64, ascending
    log_inclusion: torch.Tensor  # (S,), log pi_j
    target_log_inclusion: torch.Tensor  # (nnz,), log pi_j of the targets


@dataclass(frozen=True)
class Batch:
    """What a step reads of one batch, on the device of the fit."""

    n_rows: int  # of all processes
    x: torch.Tensor  # (m, d) rows of this process, in the number format of X
    targets: FlatTargets
    classes: Classes | None  # None: all words
    generator_state: torch.Tensor  # after the classes of the batch were drawn


class BatchReader:
    """Reads the batches of a dataset. Without ``sampler``, the classes are all words."""

    def __init__(self, dataset: CountDataset, compute: Compute, sampler: ClassSampler | None) -> None:
        self.dataset, self.compute, self.sampler = dataset, compute, sampler

    def read(self, batches: list[np.ndarray], generator: torch.Generator) -> Generator[Batch]:
        """Yield the batches of these rows.

        The generator is not advanced, because batches are drawn ahead: each holds the state after it.
        """
        drawing = torch.Generator(device="cpu")
        drawing.set_state(generator.get_state())
        if self.compute.device.type == "cpu":
            for rows in batches:
                batch = self._prepare(rows, drawing)
                yield batch.assemble(batch.x, batch.tensors)
            return
        # Leaving the block ends the thread, also after an error, an interrupt or if the caller stops.
        with ThreadPoolExecutor(1, thread_name_prefix="flip_sklearn-batches") as thread:
            ahead = thread.submit(self._pack, batches[0], drawing)
            for following in [*batches[1:], None]:
                packed = ahead.result()
                if following is not None:
                    ahead = thread.submit(self._pack, following, drawing)
                yield packed.to(self.compute.device)

    def _pack(self, rows: np.ndarray, generator: torch.Generator) -> _PackedBatch:
        return _PackedBatch(self._prepare(rows, generator))

    def _prepare(self, rows: np.ndarray, generator: torch.Generator) -> _HostBatch:
        dataset = self.dataset
        local_rows = dataset.group.local_rows(rows)
        targets, n_classes = dataset.targets(local_rows, self.compute.dtype), dataset.n_words
        tensors: Tensors = {}
        if self.sampler is not None:
            # Every process of a group draws the same classes, so it needs the words of the whole batch.
            words = targets.col if dataset.group.is_single_process else dataset.words(rows)
            sampled = self.sampler.draw(len(rows), words, targets, generator)
            targets, n_classes = sampled.targets, len(sampled.words)
            tensors["words"], tensors["log_inclusion"] = sampled.words, sampled.log_inclusion
            tensors["target_log_inclusion"] = sampled.target_log_inclusion
        flat = targets.flat(n_classes)
        tensors |= {"position": flat.position, "count": flat.count, "share": flat.share, "total": flat.total}
        x, index = dataset.stored(local_rows, self.compute.device)
        if x.device.type == "cpu":
            x = x.index_select(0, index)
        else:
            tensors["index"] = index
        return _HostBatch(len(rows), flat.start, generator.get_state(), x, tensors)


@dataclass(frozen=True)
class _HostBatch:
    """A batch on the host."""

    n_rows: int
    start: np.ndarray
    generator_state: torch.Tensor
    x: (
        torch.Tensor
    )  # the embeddings of the batch, or X on the device, of which the batch has the rows "index"
    tensors: Tensors

    def assemble(self, x: torch.Tensor, tensors: Tensors) -> Batch:
        """Return the batch of these tensors, which are all on one device."""
        targets = FlatTargets(
            tensors["position"], tensors["count"], tensors["share"], tensors["total"], self.start
        )
        classes = None
        if "words" in tensors:
            classes = Classes(tensors["words"], tensors["log_inclusion"], tensors["target_log_inclusion"])
        return Batch(self.n_rows, x, targets, classes, self.generator_state)


class _PackedBatch:
    """A batch in page-locked memory, one array for each number format."""

    def __init__(self, batch: _HostBatch) -> None:
        self._batch = batch
        self._x = page_locked([batch.x]) if batch.x.device.type == "cpu" else batch.x
        by_format: dict[torch.dtype, Tensors] = {}
        for name, tensor in batch.tensors.items():
            by_format.setdefault(tensor.dtype, {})[name] = tensor
        self._arrays = [(page_locked([*part.values()]), part) for part in by_format.values()]

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to the device."""
        tensors: Tensors = {}
        for array, part in self._arrays:
            lengths = [len(tensor) for tensor in part.values()]
            moved = torch.split(array.to(device, non_blocking=True), lengths)
            tensors |= zip(part, moved, strict=True)
        x = self._x
        x = x.index_select(0, tensors["index"]) if "index" in tensors else x.to(device, non_blocking=True)
        return self._batch.assemble(x, tensors)
