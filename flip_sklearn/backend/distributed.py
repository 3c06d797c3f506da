"""Training of one model by several processes, which a launcher such as torchrun has started.

Every process gets the same rows. Process k computes the loss and the gradients of the rows i with
i mod size = k, these are summed over the processes, and each process takes the same step. Batches are
those of a single process, so the result is the same up to the order of float additions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class ProcessGroup:
    """Rank of this process and number of the processes that train together; (0, 1) without a group."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> ProcessGroup:
        """Return the default process group of ``torch.distributed`` if it is initialized."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_single_process(self) -> bool:
        """Whether there is only this process."""
        return self.size == 1

    def local_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the subset of ``rows`` that this process computes."""
        return rows if self.is_single_process else rows[rows % self.size == self.rank]

    def sum_(self, *tensors: torch.Tensor | None) -> None:
        """Replace each tensor by its sum over the processes, which is bitwise the same on all of them."""
        if not self.is_single_process:
            # All at once, because the time of a small sum is mostly latency.
            pending = [dist.all_reduce(t, async_op=True) for t in tensors if t is not None]
            for reduction in pending:
                reduction.wait()

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all processes, ordered by rank."""
        if self.is_single_process:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return parts

    def agrees(self, value: int | list[int], device: torch.device) -> bool:
        """Whether all processes have the same integers; the result is the same on each."""
        tensor = torch.tensor(value, dtype=torch.int64, device=device)
        return all(torch.equal(tensor, other) for other in self.gather(tensor))

    def broadcast_(self, *tensors: torch.Tensor | None) -> None:
        """Replace each tensor by that of process 0."""
        if not self.is_single_process:
            for tensor in tensors:
                if tensor is not None:
                    contiguous = tensor.contiguous()
                    dist.broadcast(contiguous, src=0)
                    tensor.copy_(contiguous)

    def broadcast_floats(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Return the numbers of process 0."""
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        self.broadcast_(numbers)
        return [float(number) for number in numbers.tolist()]

    def broadcast_int(self, value: int, device: torch.device) -> int:
        """Return the integer of process 0."""
        if self.is_single_process:
            return value
        tensor = torch.tensor(value, dtype=torch.int64, device=device)
        dist.broadcast(tensor, src=0)
        return int(tensor)


def count_ungrouped_processes() -> int:
    """Return the number of processes that torchrun started if they have not formed a group, else 0."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    started_by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    has_group = dist.is_available() and dist.is_initialized()
    return size if size > 1 and started_by_torchrun and not has_group else 0
