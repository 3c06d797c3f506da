"""The interface of an encoder backend, and the parts that several backends share."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.encoders.windows import long_texts, warn_of_long_texts, weighted_windows
from flip_sklearn.io import check_regular_file, read_json, use_one_thread_after_fork
from flip_sklearn.parameters import install_command

# config.json of an encoder has some kilobytes.
MAX_CONFIG_BYTES = 2**22
MAX_JSON_BYTES = 2**30  # the largest tokenizers have some tens of megabytes

Encode = Callable[[list[Any]], Any]


class EncodingError(RuntimeError):
    """Encoding failed: wrong output of a backend, a failed service, or a cache that cannot be used."""


class EncoderBackend:
    """Encodes a batch of items, which are texts or sounds: one vector per item, in the same order."""

    name = ""
    unit = "text"
    batch_size = 32  # for batch_size="auto"
    sort_by_length = False  # batches of items of similar length need less padding
    reads_windows = False  # whether long items are always read in windows

    def identity(self) -> dict[str, Any]:
        """Return JSON-serializable settings that determine an embedding: one part of the cache key."""
        raise NotImplementedError

    def is_local(self) -> bool:
        """Return whether encoding needs no service and no download, and runs no code of the model's files."""
        return False

    def check(self, texts: Sequence[str]) -> None:
        """Raise ValueError for texts that cannot be encoded, before any text is encoded."""

    def token_limit(self) -> int | None:
        """Return the number of tokens of a text that are read; None if there is no known limit."""
        return None

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, special ones included."""
        raise NotImplementedError

    def content(self, item: Any) -> bytes:
        """Return the content to encode, the other part of the cache key."""
        return bytes(item.encode())

    def length(self, item: Any) -> float:
        """Return the length that items are sorted by."""
        return len(item)

    def find_long(self, items: Sequence[Any]) -> list[int]:
        """Return the indices of the items that are longer than the backend reads."""
        return long_texts(items, self)

    def warn_of_long(self, n_long: int, n_items: int) -> None:
        """Warn of items that are longer than the backend reads."""
        warn_of_long_texts(n_long, n_items, self)

    def windows(self, item: Any) -> tuple[list[Any], np.ndarray]:
        """Split an item into windows that the backend reads whole; return them and their weights."""
        return weighted_windows(item, self)

    @contextmanager
    def session(self) -> Iterator[Encode]:
        """Open what is needed only while batches are encoded, such as a connection."""
        yield self.encode

    def encode(self, items: list[Any]) -> Any:
        """Return the vectors of one batch, array-like of shape (len(items), d)."""
        raise NotImplementedError


class CallableBackend(EncoderBackend):
    """Any callable from a list of str to an array."""

    name = "callable"
    batch_size = 100

    def __init__(self, function: Encode, revision: str | None) -> None:
        self.function = function
        self.revision = revision
        self.owner = getattr(
            function, "__self__", None
        )  # such as a SentenceTransformer, of its method encode

    def token_limit(self) -> int | None:
        """Return the limit of the model whose method the callable is."""
        return transformer_limit(self.owner)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return count_transformer_tokens(self.owner, texts)

    def identity(self) -> dict[str, Any]:
        """Return the revision that the user chose; two callables cannot be told apart otherwise."""
        if self.revision is None:
            raise ValueError(
                "cache_dir is set and model is a callable, which the cache cannot tell from another "
                "callable; set revision to a name of your choice, such as 'my-encoder-1', and change it "
                "whenever the callable returns other vectors."
            )
        return {"revision": self.revision}

    def encode(self, items: list[Any]) -> Any:
        """Return the vectors of one batch."""
        return self.function(items)


class LocalModel(EncoderBackend):
    """A model that runs on this machine; its weights are loaded on first use."""

    sort_by_length = True
    weight_suffixes: tuple[str, ...] = (".safetensors", ".bin")

    def __init__(self, model: str, revision: str | None, device: str) -> None:
        folder = os.path.expanduser(model)
        self.model = folder if os.path.isdir(folder) else model
        self.revision = revision
        self.device = device
        self._weights: Any = None
        self._version: str | None = None
        self._stamp: list[tuple[Path, int, int]] | None = None
        self._lock = threading.Lock()  # tokenizers cannot be used by two threads at once

    def load(self) -> Any:
        """Read the weights."""
        raise NotImplementedError

    def vectors(self, weights: Any, items: list[Any]) -> Any:
        """Return the vectors of one batch, given the weights that ``load`` returned."""
        raise NotImplementedError

    def weights(self) -> Any:
        """Return the result of ``load``, which is called once."""
        with self._lock:
            if self._weights is None:
                check_files(Path(self.model))
                with self._named_errors():
                    weights = self.load()
                if self._stamp is not None and self._stamp != folder_stamp(Path(self.model)):
                    raise EncodingError(
                        f"The files of {self.model!r} changed while they were loaded, so that the cache "
                        "cannot identify the model; call again."
                    )
                self._weights = weights
            return self._weights

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Name the model in errors about damaged files, which the libraries raise without a name."""
        try:
            yield
        except (ImportError, OSError, MemoryError, EncodingError, NameError, AssertionError):
            raise
        except Exception as error:
            is_damage = not isinstance(error, ValueError) or isinstance(
                error, (JSONDecodeError, UnicodeError)
            )
            if not is_damage or type(error).__name__ == "OutOfMemoryError":
                raise
            raise EncodingError(
                f"model={self.model!r} cannot be used ({type(error).__name__}: {error}); if its files are "
                "damaged, download or save it again."
            ) from error

    def is_local(self) -> bool:
        """Return whether the weights are in a folder, or in the hub's cache, without code."""
        folder: Path | None = Path(self.model)
        if not os.path.isdir(self.model):
            try:
                folder = cached_snapshot(self.model, self.revision)
            except (ImportError, ValueError):  # no client of the hub, or not a name on the hub
                return False
        return folder is not None and _has_weights_only(folder, self.weight_suffixes)

    def encode(self, items: list[Any]) -> Any:
        """Return the vectors of one batch."""
        weights = self.weights()
        with self._lock, self._named_errors():
            return self.vectors(weights, items)

    def version(self) -> str:
        """Return an identifier of the weights: a hash of the folder's files, or the commit on the hub."""
        # A changed folder does not change weights that are already loaded, only those still to be loaded.
        if self._version is not None and self._weights is not None:
            return self._version
        folder = Path(self.model)
        if os.path.isdir(folder):
            self._stamp = folder_stamp(folder)
            self._version = "files " + folder_digest(folder)
            return self._version
        commit = self.revision
        if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
            # A branch may move, so its name would mix the vectors of two models in the cache. The commit that
            # it points to is known only after the model has been loaded.
            self.weights()
            commit = cached_commit(self.model, self.revision)
        if commit is None:
            raise ValueError(
                f"cache_dir is set, and the commit of the loaded model {self.model!r} is not known; set "
                "revision to the full commit hash of 40 digits, which the model's page on the hub shows."
            )
        self._version = f"{self.model} {commit}"
        return self._version


def transformer_limit(model: Any) -> int | None:
    """Return the number of tokens that a model of sentence-transformers reads, if it has a tokenizer."""
    limit = getattr(model, "max_seq_length", None)
    is_known = isinstance(limit, int) and hasattr(getattr(model, "tokenizer", None), "convert_tokens_to_ids")
    return limit if is_known else None


def count_transformer_tokens(model: Any, texts: Sequence[str]) -> list[int]:
    """Return the number of tokens of each text for a model of sentence-transformers."""
    output = model.tokenizer(list(texts), truncation=False, padding=False, verbose=False)
    return [len(ids) for ids in output["input_ids"]]


def require(module: str, backend: str, extra: str, remedy: str | None = None) -> Any:
    """Import a module that a backend needs; the ImportError names the command that installs the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = remedy or f"Install it with: {install_command(extra)}"
        raise ImportError(f"The {backend} backend needs {module} ({error}). {remedy}") from error


def check_files(folder: Path) -> None:
    """Raise ValueError for files that a library would read without end: pipes, devices, huge JSON files."""
    for path in folder.rglob("*") if os.path.isdir(folder) else ():
        if path.exists() and not path.is_dir():
            size = check_regular_file(path)
            if path.suffix == ".json" and size > MAX_JSON_BYTES:
                raise ValueError(f"{str(path)!r} has {size} bytes; at most {MAX_JSON_BYTES} are allowed.")


def folder_digest(folder: Path) -> str:
    """Return a hash of the names and contents of the files in a folder, except hidden files."""
    digest = hashlib.sha256()
    for name in _visible_files(folder):
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(name.as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


def folder_stamp(folder: Path) -> list[tuple[Path, int, int]]:
    """Return names, sizes and modification times of the same files, to detect changes quickly."""
    stats = [(name, (folder / name).stat()) for name in _visible_files(folder)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _visible_files(folder: Path) -> list[Path]:
    """Return the sorted relative paths of the files below a folder, except hidden ones."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if not any(part.startswith(".") for part in name.parts))


def _has_weights_only(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a folder has weights and no code; modules.json can name classes of any package."""
    files = [folder / name for name in _visible_files(folder)]
    if any(file.suffix == ".py" for file in files) or not any(file.suffix in suffixes for file in files):
        return False
    modules_file = folder / "modules.json"
    if modules_file not in files:
        return True
    try:
        modules = read_json(modules_file, MAX_CONFIG_BYTES)
        return all(module["type"].startswith("sentence_transformers.") for module in modules)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def cached_commit(model: str, revision: str | None) -> str | None:
    """Return the commit at which a model of the hub was last loaded, or None if it is not known."""
    snapshot = cached_snapshot(model, revision)
    return None if snapshot is None else snapshot.name


def cached_snapshot(model: str, revision: str | None) -> Path | None:
    """Return the folder of a model in the hub's cache, as it was last loaded, or None."""
    hub = importlib.import_module("huggingface_hub")
    # sentence-transformers looks in the folder of this variable first, then in the hub's cache.
    stores = (os.environ.get("SENTENCE_TRANSFORMERS_HOME"), None)
    names = [name for name in (model, f"sentence-transformers/{model}") if name.count("/") == 1]
    # Static models have no config.json, models of transformers have no modules.json.
    for store, name, file in itertools.product(stores, names, ("modules.json", "config.json")):
        path = hub.try_to_load_from_cache(name, file, cache_dir=store, revision=revision)
        if isinstance(path, str):
            return Path(path).parent
    return None


def resolve_device(device: str) -> str:
    """Return a usable torch device; ``"auto"`` is CUDA if available, then Apple's GPU, then the CPU."""
    torch = importlib.import_module("torch")
    use_one_thread_after_fork()
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device={device!r} cannot be used ({reason}); use 'auto', 'cpu', or a GPU of this machine "
            "such as 'cuda:0'."
        ) from error
    return device
