"""What every backend has: a name, a batch size, an identity for the cache, and vectors for a batch."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Encode = Callable[[list[str]], Any]


class Backend:
    """A batch of texts in, one vector for each out, in the same order."""

    name = ""
    batch_size = 32  # for batch_size="auto"
    by_length = False  # texts of one length in one batch waste no padding

    def identity(self) -> dict[str, Any]:
        """All but the text that decides a vector, as JSON can hold it: part of the cache key."""
        raise NotImplementedError

    def check(self, texts: Sequence[str]) -> None:
        """Refuse, before anything is computed or paid, texts that cannot be encoded."""

    def content(self, text: str) -> bytes:
        """What is to be encoded: the other part of the cache key."""
        return text.encode()

    @contextmanager
    def session(self) -> Iterator[Encode]:
        """What is open only while batches are encoded, such as a connection."""
        yield self.encode

    def encode(self, texts: list[str]) -> Any:
        """Vectors of one batch, array-like of shape (len(texts), d)."""
        raise NotImplementedError


class Function(Backend):
    """Any callable from a list of str to an array."""

    name = "callable"
    batch_size = 100

    def __init__(self, function: Encode, revision: str | None) -> None:
        self.function = function
        self.revision = revision

    def identity(self) -> dict[str, Any]:
        """The name that the user gave: two functions of one name cannot be told apart otherwise."""
        if self.revision is None:
            raise ValueError(
                "cache_dir is set and model is a callable, whose vectors the cache cannot tell from those "
                "of another; set revision to a name of yours, such as 'my-encoder-1', and change it "
                "whenever the callable gives other vectors."
            )
        return {"revision": self.revision}

    def encode(self, texts: list[str]) -> Any:
        """Call it."""
        return self.function(texts)


class LocalModel(Backend):
    """A model whose weights are loaded here, when they are first needed."""

    by_length = True

    def __init__(self, model: str, revision: str | None, device: str) -> None:
        folder = Path(model).expanduser()
        self.model = str(folder) if folder.is_dir() else model
        self.revision = revision
        self.device = device
        self._weights: Any = None
        self._version: str | None = None
        self._stamp: list[tuple[str, int, int]] | None = None
        self._lock = threading.Lock()  # tokenizers cannot be used by two threads at once

    def load(self) -> Any:
        """Read the weights."""
        raise NotImplementedError

    def vectors(self, weights: Any, texts: list[str]) -> Any:
        """Vectors of one batch from what ``load`` gave."""
        raise NotImplementedError

    def weights(self) -> Any:
        """What ``load`` gives, loaded once."""
        with self._lock:
            if self._weights is None:
                weights = self.load()
                if self._stamp is not None and self._stamp != folder_stamp(Path(self.model)):
                    raise RuntimeError(
                        f"The files of {self.model!r} changed while they were loaded, so that the cache "
                        "cannot tell which model this is; call again."
                    )
                self._weights = weights
            return self._weights

    def encode(self, texts: list[str]) -> Any:
        """Vectors of one batch."""
        weights = self.weights()
        with self._lock:
            return self.vectors(weights, texts)

    def version(self) -> str:
        """The weights in one word: a hash of the folder's files, or the hub's commit.

        A branch of the hub may move, and what it points to is known once the model is loaded; a full
        commit hash as revision needs no loading.
        """
        # Loaded weights stay what they are when their folder changes; those to come do not.
        if self._version is None or self._weights is None:
            self._version = self._find_version()
        return self._version

    def _find_version(self) -> str:
        folder = Path(self.model)
        if folder.is_dir():
            self._stamp = folder_stamp(folder)
            return "files " + folder_digest(folder)
        if self.revision is not None and re.fullmatch(r"[0-9a-f]{40}", self.revision):
            return f"{self.model} {self.revision}"
        self.weights()
        found = commit(self.model, self.revision)
        if found is None:
            # A branch may move, so its name would mix the vectors of two models in the cache.
            raise ValueError(
                f"cache_dir is set, and the commit that {self.model!r} was loaded at is not known; set "
                "revision to the commit's full hash of 40 digits, which the model's page on the hub shows."
            )
        return f"{self.model} {found}"


def require(module: str, what: str, remedy: str) -> Any:
    """Import an optional module; the message of a missing one names the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {module} ({error}). {remedy}") from error


def folder_digest(folder: Path) -> str:
    """A hash of the names and contents of the files in a folder, hidden ones left out."""
    digest = hashlib.sha256()
    for name, path in _files(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(name.as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


def folder_stamp(folder: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the same files: tells at once whether they were written to."""
    stats = [(name, path.stat()) for name, path in _files(folder)]
    return [(name.as_posix(), stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _files(folder: Path) -> list[tuple[Path, Path]]:
    paths = [(path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file()]
    return sorted(
        (name, path) for name, path in paths if not any(part.startswith(".") for part in name.parts)
    )


def commit(model: str, revision: str | None) -> str | None:
    """The commit that a model of the hub was last loaded at, or None where it is not known."""
    hub = importlib.import_module("huggingface_hub")
    # sentence-transformers looks in the folder of its own variable first, then where the hub's library does.
    stores = (os.environ.get("SENTENCE_TRANSFORMERS_HOME"), None)
    names = [name for name in (model, f"sentence-transformers/{model}") if name.count("/") == 1]
    # Not every model has both: static ones have no config.json, those of transformers no modules.json.
    for store, name, file in itertools.product(stores, names, ("modules.json", "config.json")):
        path = hub.try_to_load_from_cache(name, file, cache_dir=store, revision=revision)
        if isinstance(path, str):
            return Path(path).parent.name
    return None


def torch_device(device: str) -> str:
    """``"auto"`` is CUDA where there is one, then Apple's GPU, then the CPU."""
    if device != "auto":
        return device
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
