"""Small models of this package and of other code, and functions that separate processes run on them."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from safetensors.torch import save_file

from flip_sklearn import FLiPExtractor
from flip_sklearn.persistence import folder as model_folder
from flip_sklearn.persistence.encoding import read_with_encoding
from tests.helpers.planted import planted

TRUTH = planted(n=200, d=8, n_words=15, rank=3, length=5, seed=3)
X, Y = TRUTH.X.astype(np.float32), TRUTH.Y
WORDS = [
    "Übung",
    "été",
    "naïve",
    'say "hi"',
    "new york",
    "日本",
    "back\\slash",
    "emoji 🙂",
    "",
    " ",
    "nul\0",
    "tab\t",
    "it's",
    "null",
    "b",
]
SETTINGS: dict[str, Any] = {
    "rank": 3,
    "max_iter": 2,
    "batch_size": 50,
    "random_state": 0,
    "device": "cpu",
    "precision": "float32",
    "vocabulary": WORDS,
}
FILES = ["README.md", "config.json", "flip_sklearn.safetensors", "model.safetensors", "vocab.json"]


def fit(**changed: Any) -> FLiPExtractor:
    return FLiPExtractor(**{**SETTINGS, **changed}).fit(X, Y)


class FactLoLM(torch.nn.Module):
    """The tensors of the published code's models under their names."""

    def __init__(self, V: int, d: int, r: int | None, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        shapes = {"b": (V, 1)} | ({"E": (V, d)} if r is None else {"E1": (V, r), "E2": (r, d)})
        for name, shape in shapes.items():
            value = torch.randn(shape, generator=random)
            self.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))

    def scores(self, s: torch.Tensor, use_bias: bool) -> torch.Tensor:
        E = self.E if hasattr(self, "E") else self.E1 @ self.E2
        return (E @ s.T + (self.b if use_bias else 0)).T


def write_foreign(folder: Path, model: FactLoLM, prefix: str = "", dtype: Any = None) -> list[str]:
    """Write a model as the published code does; return the words in row order."""
    tensors = {prefix + n: t.to(dtype or t.dtype) for n, t in model.state_dict().items()}
    words = [f"word {row}" for row in range(len(model.b))]
    shuffled = random.Random(0).sample(range(len(words)), len(words))
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps({words[row]: row for row in shuffled}))
    (folder / "config.json").write_text('{"rank": 4, "best": NaN}')
    return words


def fitted_state(model: FLiPExtractor) -> dict[str, Any]:
    """All fitted attributes except the moments; arrays as bytes, with dtype and shape."""

    def plain(value: Any) -> Any:
        if sp.issparse(value):
            return "csr", plain(value.data), plain(value.indices), plain(value.indptr), value.shape
        if isinstance(value, np.ndarray):
            content = value.tolist() if value.dtype == object else value.tobytes()
            return str(value.dtype), value.shape, content
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return np.float64(value).tobytes() if isinstance(value, float) else value

    not_stored = {"pretrained_info_", "interrupted_"}
    names = [n for n in vars(model) if n.endswith("_") and n not in not_stored] + ["_held_out"]
    return {name: plain(getattr(model, name)) for name in sorted(names)}


def parameters(model: FLiPExtractor) -> dict[str, Any]:
    words = model.vocabulary
    return {**model.get_params(), "vocabulary": None if words is None else list(words)}


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state of the model in a folder, or None if an error says that a file or the folder is missing."""
    try:
        return fitted_state(FLiPExtractor.from_pretrained(folder))
    except ValueError as error:
        if "is missing in" in str(error) or "there is no folder" in str(error):
            return None
        raise


def states_after_random_kills(
    folder: Path, models: list[bytes], kills: int, seed: int
) -> list[dict[str, Any] | None]:
    """States of a folder after each kill of a process that saves models over and over."""
    skip_fsync()
    generator = random.Random(seed)
    states = []
    for _ in range(kills):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            for model in itertools.cycle(map(pickle.loads, models)):
                model.save_pretrained(folder)
                os.write(write_end, b".")
        os.read(read_end, 1)
        start = time.monotonic()
        os.read(read_end, 1)
        duration = time.monotonic() - start  # of one save_pretrained
        time.sleep(generator.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read_end)
        os.close(write_end)
        states.append(load_state(folder))
    return states


def states_after_kill_at_every_step(
    folder: Path, model: bytes, prepared: Path | None
) -> tuple[list[dict[str, Any] | None], list[bytes | None]]:
    """State of a folder at first, then after a kill before each step of saving that changes the disk.

    The second list has what other code finds.
    """
    skip_fsync()
    states: list[dict[str, Any] | None] = []
    pairs: list[bytes | None] = []
    for step in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if prepared is not None:
            shutil.copytree(prepared, folder)
        if step == 0:
            states.append(load_state(folder))
            pairs.append(_published_files(folder))
        child = os.fork()
        if child == 0:
            _kill_before(step)
            pickle.loads(model).save_pretrained(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        states.append(load_state(folder))
        pairs.append(_published_files(folder))
        if not os.WIFSIGNALED(status):
            break
    return states, pairs


def _published_files(folder: Path) -> bytes | None:
    """The files that other code reads, or None if one is missing."""
    paths = [folder / name for name in ("model.safetensors", "vocab.json")]
    return b"".join(path.read_bytes() for path in paths) if all(p.exists() for p in paths) else None


def texts_after_kill_at_every_step(
    folder: Path, model: bytes, text: dict[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """State and encoder of a model after kills at each step of replacing it and its text.json."""
    skip_fsync()
    found = []
    shutil.copytree(folder, folder.parent / "before")
    for step in range(100):
        shutil.rmtree(folder)
        shutil.copytree(folder.parent / "before", folder)
        child = os.fork()
        if child == 0:
            _kill_before(step)
            info = dict.fromkeys(("encoder", "trained_on", "license"))
            pickle.loads(model)._write(folder, info, text)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        flip, config = read_with_encoding(FLiPExtractor, folder)
        found.append((fitted_state(flip), config.encoder))
        if not os.WIFSIGNALED(status):
            break
    return found


def save_with_file_size_limits(folder: Path, max_bytes: int) -> list[bool]:
    """Whether saving fails with an OSError when files may have 0, half and all of ``max_bytes``."""
    import resource

    models = [fit(random_state=7), fit(rank=None)]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    failed = []
    for model, limit in itertools.product(models, (0, max_bytes // 2, max_bytes)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            model.save_pretrained(folder)
            failed.append(False)
        except OSError:
            failed.append(True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return failed


def _kill_before(step: int) -> None:
    """Make this process kill itself before the given step."""
    steps_done = 0

    def count_steps(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps_done
            if steps_done == step:
                os.kill(os.getpid(), signal.SIGKILL)
            steps_done += 1
            return function(*args, **kwargs)

        return wrapper

    for module, name in (
        (os, "replace"),
        (os, "fsync"),
        (Path, "unlink"),
        (model_folder, "write_arrays"),
        (model_folder, "write_bytes"),
        (model_folder, "compute_digest"),
    ):
        setattr(module, name, count_steps(getattr(module, name)))


def skip_fsync() -> None:
    """Waiting for the disk takes most of the time, and guards against power cuts, which are not tested."""
    os.fsync = lambda _: None


def with_hub(url: str, home: Path, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Results or errors of calls; the client of the hub reads its settings when it is imported."""
    os.environ |= {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
    }
    results: list[Any] = []
    for action, kwargs in calls:
        try:
            if action == "push":
                results.append(pickle.loads(kwargs.pop("model")).push_to_hub(**kwargs))
            elif action == "pull":
                results.append(fitted_state(FLiPExtractor.from_pretrained(**kwargs)))
            else:
                results.append(urllib.request.urlopen(f"{url}/{action}").read())
        except (ValueError, OSError) as error:
            results.append((type(error).__name__, str(error)))
    return results
