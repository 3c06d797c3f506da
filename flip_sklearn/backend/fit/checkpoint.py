"""Checkpoints of a running fit: one safetensors file, which is replaced atomically."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flip_sklearn.io import check_regular_file, fsync_file, staging_directory, sweep_staging
from flip_sklearn.parameters import warn_caller

# Also part of every file name. Raise the number when the same settings would give another result.
FORMAT = "flip-sklearn checkpoint 2"
# Minimum seconds between two checkpoints, also as a multiple of the seconds for writing one: a fit spends at
# most about 1/21 of its time on checkpoints.
MIN_SECONDS, WRITING_TIME_FACTOR = 30.0, 20.0

# Exceptions from reading a damaged or foreign file and from using its content.
READ_ERRORS = (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)

T = TypeVar("T")
State = tuple[dict[str, torch.Tensor], dict[str, Any]]  # tensors, and metadata for JSON


@dataclass
class Checkpoint:
    """The checkpoint file of one fit."""

    path: Path
    seed: int  # of the fit, stored in the file
    writes: bool = True  # all processes of a group read the file, one writes it
    _due: float = field(default_factory=lambda: time.monotonic() + MIN_SECONDS)

    def saved_seed(self) -> int | None:
        """Return the seed in the file, or None if there is no file; it raises errors like ``load``."""
        return self._read(lambda metadata, _: int(metadata["seed"]))

    def load(self) -> State | None:
        """Return the last saved state, on the CPU, or None if there is none with this seed.

        The tensors are views of the file, so they must be copied. A file that is not a readable checkpoint
        raises ValueError.
        """

        def read_state(metadata: dict[str, Any], file: Any) -> State | None:
            if metadata["seed"] != self.seed:
                return None  # with random_state=None, another process has started such a fit since
            tensors = {name: file.get_tensor(name) for name in metadata["checksums"]}
            if _checksums(tensors) != metadata["checksums"]:
                raise ValueError("its content is damaged")
            return tensors, metadata

        if self.writes:  # writing also sweeps, but a finished fit does not write again
            sweep_staging(self.path.parent, self.path.stem)
        return self._read(read_state)

    def _read(self, reader: Callable[[dict[str, Any], Any], T]) -> T | None:
        """Return ``reader(metadata, file)`` of the open file, or None if there is no file."""
        identity = self._identity()
        while identity is not None:
            try:
                with self.translate_read_errors():
                    check_regular_file(self.path)
                    with safe_open(self.path, "pt", "cpu") as file:
                        return reader(_read_metadata(file), file)
            except ValueError:
                # safetensors opens a file twice, and another process may replace it in between.
                previous, identity = identity, self._identity()
                if identity == previous:
                    raise
        return None

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    @contextmanager
    def translate_read_errors(self) -> Iterator[None]:
        """Turn READ_ERRORS inside the context into a ValueError that names the file and the remedy."""
        try:
            yield
        except READ_ERRORS as error:
            raise ValueError(
                f"checkpoint {self.path} cannot be read ({error}); delete it to start this fit again, "
                "or pass another checkpoint_dir."
            ) from error

    def save_if_due(self, make_state: Callable[[], State], *, now: bool = False) -> None:
        """Write ``make_state()`` if the last checkpoint is old enough, or if ``now``.

        An error of writing, for example because the disk is full, is only a warning: the fit continues.
        """
        if not self.writes or (not now and time.monotonic() < self._due):
            return
        began = time.monotonic()
        try:
            self._write(*make_state())
        except (OSError, SafetensorError) as error:
            warn_caller(
                f"checkpoint {self.path} was not written ({error}); the fit continues, and if it is "
                "interrupted, it resumes from the previous checkpoint, if there is one.",
                RuntimeWarning,
            )
        ended = time.monotonic()
        self._due = ended + max(MIN_SECONDS, WRITING_TIME_FACTOR * (ended - began))

    def _write(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        checksums = _checksums(tensors)
        text = json.dumps(metadata | {"format": FORMAT, "seed": self.seed, "checksums": checksums})
        # safetensors may write a hidden temporary file next to its target; here it is swept as well.
        with staging_directory(folder, self.path.stem) as staging:
            new = staging / self.path.name
            save_file(tensors, new, metadata={"state": text, "checksum": _checksum(text)})
            # safetensors makes files for their owner only; others get what the umask lets them have.
            (staging / "mode").touch()
            new.chmod((staging / "mode").stat().st_mode & 0o777)
            fsync_file(new)
            os.replace(new, self.path)


def _read_metadata(file: Any) -> dict[str, Any]:
    header = file.metadata() or {}
    text = header.get("state", "{}")
    metadata: dict[str, Any] = json.loads(text)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    if header.get("checksum") != _checksum(text):
        raise ValueError("its header is damaged")
    return metadata


def _checksum(text: str) -> str:
    return str(zlib.crc32(text.encode()))


def _checksums(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: zlib.crc32(tensor.numpy().data) for name, tensor in tensors.items()}
