"""Small models, other code's models, and what processes of their own do with them.

Light to import, as each such process imports it.
"""

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
from flip_sklearn.persistence import folder as _layout
from tests.helpers.planted import planted

TRUTH = planted(n=200, d=8, n_words=15, rank=3, length=5, seed=3)
X, Y = TRUTH.X.astype(np.float32), TRUTH.Y
WORDS = ["Übung", "été", "naïve", "say \"hi\"", "new york", "日本", "back\\slash", "emoji 🙂", "", " ",
         "nul\0", "tab\t", "it's", "null", "b"]  # fmt: skip
SETTINGS: dict[str, Any] = dict(
    rank=3, max_iter=2, batch_size=50, random_state=0, device="cpu", precision="float32",
    vocabulary=WORDS,
)  # fmt: skip
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
    """As the published code does; gives the words by row."""
    tensors = {prefix + n: t.to(dtype or t.dtype) for n, t in model.state_dict().items()}
    words = [f"word {row}" for row in range(len(model.b))]
    mixed = random.Random(0).sample(range(len(words)), len(words))
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps({words[row]: row for row in mixed}))
    (folder / "config.json").write_text('{"rank": 4, "best": NaN}')
    return words


def facts(model: FLiPExtractor) -> dict[str, Any]:
    """All that a fit came to but for its moments; arrays as bytes, with their formats."""

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

    names = [n for n in vars(model) if n.endswith("_") and n != "pretrained_info_"] + ["_held_out"]
    return {name: plain(getattr(model, name)) for name in sorted(names)}


def parameters(model: FLiPExtractor) -> dict[str, Any]:
    words = model.vocabulary
    return {**model.get_params(), "vocabulary": None if words is None else list(words)}


def loaded(folder: Path) -> dict[str, Any] | None:
    """The facts of the model in a folder, or None where it is said clearly that there is none."""
    try:
        return facts(FLiPExtractor.from_pretrained(folder))
    except ValueError as error:
        if "is missing in" in str(error) or "there is no folder" in str(error):
            return None
        raise


def killed_at_random(
    folder: Path, models: list[bytes], kills: int, seed: int
) -> list[dict[str, Any] | None]:
    """What a folder holds after each of some kills of a process that saves and saves again."""
    without_power_cuts()
    chance = random.Random(seed)
    found = []
    for _ in range(kills):
        saved, save = os.pipe()
        child = os.fork()
        if child == 0:
            for model in itertools.cycle(map(pickle.loads, models)):
                model.save_pretrained(folder)
                os.write(save, b".")
        os.read(saved, 1)
        began = time.monotonic()
        os.read(saved, 1)
        time.sleep(chance.uniform(0, time.monotonic() - began))  # somewhere in the saving of one
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(saved)
        os.close(save)
        found.append(loaded(folder))
    return found


def killed_at_every_step(folder: Path, model: bytes, prepared: Path | None) -> list[Any]:
    """What a folder holds before, and after a death before each step that changes a disk."""
    without_power_cuts()
    found: list[Any] = []
    for step in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if prepared is not None:
            shutil.copytree(prepared, folder)
        if step == 0:
            found.append(loaded(folder))
        child = os.fork()
        if child == 0:
            _die_before(step)
            pickle.loads(model).save_pretrained(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found.append(loaded(folder))
        if not os.WIFSIGNALED(status):
            break
    return found


def saved_on_a_full_disk(folder: Path, step: int) -> list[bool]:
    """Whether saving fails with an OSError where files may have so and so many bytes, and no more."""
    import resource

    models = [fit(random_state=7), fit(rank=None)]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    failed = []
    for model, times in itertools.product(models, (0, 1, 2)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (times * step // 2, hard))
        try:
            model.save_pretrained(folder)
            failed.append(False)
        except OSError:
            failed.append(True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return failed


def _die_before(step: int) -> None:
    steps = 0

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def with_death(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
            return function(*arguments, **named)

        return with_death

    for module, name in (
        (os, "replace"), (os, "fsync"), (Path, "unlink"), (_layout, "write_arrays"),
        (_layout, "write_bytes"), (_layout, "_fingerprint"),
    ):  # fmt: skip
        setattr(module, name, mortal(getattr(module, name)))


def without_power_cuts() -> None:
    """Waiting for the disk takes most of the time, and is against what is not played here."""
    os.fsync = lambda _: None


def with_hub(url: str, home: Path, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Results or errors of calls, with a client of the hub that reads its settings from here."""
    os.environ |= {
        "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "1",
    }  # fmt: skip
    results: list[Any] = []
    for verb, named in calls:
        try:
            if verb == "push":
                results.append(pickle.loads(named.pop("model")).push_to_hub(**named))
            elif verb == "pull":
                results.append(facts(FLiPExtractor.from_pretrained(**named)))
            else:
                results.append(urllib.request.urlopen(f"{url}/{verb}").read())
        except (ValueError, OSError) as error:
            results.append((type(error).__name__, str(error)))
    return results
