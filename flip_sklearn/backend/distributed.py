"""The process group: several processes, started by others, that train one model together.

Every process gets the same rows; process k computes the loss and the gradients of the rows i with
i mod size = k, the sums are added over the processes, and each then takes the same step. Batches are those of
a single process, so the result is the same up to the order of float additions.
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
    """This process among those that train together; (0, 1) is a process alone."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> ProcessGroup:
        """The default process group of ``torch.distributed``, if its user has set it up."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_single_process(self) -> bool:
        """Whether there is only this process."""
        return self.size == 1

    def local_rows(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that this process computes."""
        return rows if self.is_single_process else rows[rows % self.size == self.rank]

    def sum_(self, *tensors: torch.Tensor | None) -> None:
        """Replace each tensor by its sum over the processes, the same bits on all of them."""
        if not self.is_single_process:
            sums = [dist.all_reduce(t, async_op=True) for t in tensors if t is not None]
            for under_way in sums:  # all at once: most of the time of a small sum is its latency
                under_way.wait()

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all processes, in their order."""
        if self.is_single_process:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return parts

    def agrees(self, value: int, device: torch.device) -> bool:
        """Whether all processes have the same whole number; the same answer on each."""
        mark = torch.tensor(value, dtype=torch.int64, device=device)
        return all(torch.equal(mark, other) for other in self.gather(mark))

    def broadcast_(self, *tensors: torch.Tensor | None) -> None:
        """Replace each tensor by the first process's."""
        if not self.is_single_process:
            for tensor in tensors:
                if tensor is not None:
                    whole = tensor.contiguous()
                    dist.broadcast(whole, src=0)
                    tensor.copy_(whole)

    def broadcast_floats(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The first process's values of some numbers."""
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        self.broadcast_(numbers)
        return [float(number) for number in numbers.tolist()]

    def broadcast_int(self, value: int, device: torch.device) -> int:
        """The first process's value of a whole number."""
        if self.is_single_process:
            return value
        tensor = torch.tensor(value, dtype=torch.int64, device=device)
        dist.broadcast(tensor, src=0)
        return int(tensor)


def count_ungrouped_processes() -> int:
    """Processes that torchrun started beside this one without a process group among them, else 0."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    joined = dist.is_available() and dist.is_initialized()
    return size if size > 1 and not joined and "TORCHELASTIC_RUN_ID" in os.environ else 0
