"""Atomic checkpoints of a running fit: one safetensors file, replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flip_sklearn.io import fsync_file, staging_directory, sweep_staging

# Part of the name of every file: raise it when the same settings would come to other numbers.
FORMAT = "flip-sklearn checkpoint 1"
# Seconds between two checkpoints, and how many times longer than the writing of one they are apart:
# checkpoints take at most about 1/21 of the time of a fit.
MIN_SECONDS, TIMES_THE_WRITING = 30.0, 20.0

# What reading a damaged or foreign file, and using what it says, may raise.
NOT_A_CHECKPOINT = (
    SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
)  # fmt: skip

T = TypeVar("T")
State = tuple[dict[str, torch.Tensor], dict[str, Any]]


@dataclass
class Checkpoint:
    """The file of one fit. Only ``writes`` processes write; all may read."""

    path: Path
    seed: int  # of the fit, kept with its state
    writes: bool = True
    _due: float = field(default_factory=lambda: time.monotonic() + MIN_SECONDS)

    def saved_seed(self) -> int | None:
        """The seed of the fit in the file, or None if there is no file.

        Raises
        ------
        ValueError
            As ``load``.
        """
        return self._read(lambda about, _: int(about["seed"]))

    def load(self) -> State | None:
        """The last state written, on the CPU, or None if there is none of this seed.

        The tensors are views of the file: copy what is to be kept.

        Raises
        ------
        ValueError
            If the file is there but no checkpoint that can be read.
        """

        def state(about: dict[str, Any], file: Any) -> State | None:
            if about["seed"] != self.seed:
                return None  # random_state=None, and another process began such a fit since
            tensors = {name: file.get_tensor(name) for name in about["checksums"]}
            if _checksums(tensors) != about["checksums"]:
                raise ValueError("its content is damaged")
            return tensors, about

        if self.writes:  # a fit that was finished writes no more, so this is the time
            sweep_staging(self.path.parent, self.path.stem)
        return self._read(state)

    def _read(self, use: Callable[[dict[str, Any], Any], T]) -> T | None:
        """``use`` of the file's numbers and tensors; None if there is no file."""
        while (before := self._identity()) is not None:
            try:
                with self.reading(), safe_open(self.path, framework="pt", device="cpu") as file:
                    return use(_about(file), file)
            except ValueError:
                # safetensors opens a file twice: another process may have replaced it in between.
                if self._identity() == before:
                    raise
        return None

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Errors inside, also those of using what was read, become a ValueError with the remedy."""
        try:
            yield
        except NOT_A_CHECKPOINT as error:
            raise ValueError(
                f"checkpoint {self.path} cannot be read ({error}); delete it to start this fit over, "
                "or name another checkpoint_dir."
            ) from error

    def save_if_due(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Write ``state()`` if the last writing is long enough ago, or ``now``.

        What cannot be written, to a full disk say, is a warning: the fit is worth more than its copy.
        """
        if not self.writes or (not now and time.monotonic() < self._due):
            return
        began = time.monotonic()
        try:
            self._write(*state())
        except (OSError, SafetensorError) as error:
            warnings.warn(
                f"checkpoint {self.path} was not written ({error}); the fit goes on, and if it is cut "
                "off it starts again from the checkpoint before, if there is one.",
                RuntimeWarning,
                stacklevel=2,
            )
        ended = time.monotonic()
        self._due = ended + max(MIN_SECONDS, TIMES_THE_WRITING * (ended - began))

    def _write(self, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        about = {**about, "format": FORMAT, "seed": self.seed, "checksums": _checksums(tensors)}
        text = json.dumps(about)
        # A directory of its own: safetensors may write to a hidden file beside the one it is given.
        with staging_directory(folder, self.path.stem) as staging:
            new = staging / self.path.name
            save_file(tensors, new, metadata={"state": text, "checksum": _checksum(text)})
            fsync_file(new)
            os.replace(new, self.path)


def _about(file: Any) -> dict[str, Any]:
    metadata = file.metadata() or {}
    text = metadata.get("state", "{}")
    about: dict[str, Any] = json.loads(text)
    if about.get("format") != FORMAT:
        raise ValueError("its format is another")
    if metadata.get("checksum") != _checksum(text):
        raise ValueError("its header is damaged")
    return about


def _checksum(text: str) -> str:
    return str(zlib.crc32(text.encode()))


def _checksums(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: zlib.crc32(tensor.numpy().data) for name, tensor in tensors.items()}
