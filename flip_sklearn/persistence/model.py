"""Between fitted attributes and stored arrays: what a model comes to in files, and how it comes back.

    ours     z(x) = b + A B (x - mu)
    others   z(s) = E1 E2 s + b',    E1 = A, E2 = B, b' = b - A B mu

so what other code reads has the same scores with bias. For LiP E = A B, and A and B are stored beside it.
"""

from __future__ import annotations

import importlib.metadata
import math
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.backend.fit.session import PassRecord
from flip_sklearn.estimation.training import UNSEEN_SCORE
from flip_sklearn.persistence.card import is_factorized
from flip_sklearn.persistence.folder import CONFIG, SECTION, Stored, read_folder, write_folder
from flip_sklearn.persistence.tensors import check_finite

# Parameters that are no setting of the model: its words have their own file, a folder is of one machine.
NOT_STORED = ("vocabulary", "checkpoint_dir")
PORTABLE_DEVICES = ("auto", "cpu")
ARRAYS = ("bias", "embedding_mean", "word_counts")
FACTS = {"n_iter": int, "best_iter": int, "l1_max": float, "kkt_residual": float}
INFO = ("encoder", "trained_on", "license")
HISTORY = tuple(f.name for f in fields(PassRecord))
BLOCK_ELEMENTS = 2**22


def read_model(cls: Any, folder: Path) -> Any:
    """An estimator of class ``cls`` from a folder; ValueError says what is wrong with it."""
    stored = read_folder(folder)
    if stored.about is None:
        model, fitted = _of_other_code(cls, stored)
    else:
        try:
            model, fitted = _of_this_package(cls, stored, stored.about)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"section {SECTION!r} of {str(folder / CONFIG)!r} cannot be used "
                f"({type(error).__name__}: {error}); get the folder again."
            ) from error
    model.__dict__.update(fitted)
    return model


def write_model(model: Any, folder: Path, card: str, info: dict[str, str | None]) -> None:
    """Write a fitted model, its card and what it was trained on into a folder."""
    A = model.word_embeddings_
    sparse = sp.issparse(A)
    A = A.toarray() if sparse else A
    own = {name: getattr(model, f"{name}_") for name in ARRAYS}
    held_out = getattr(model, "_held_out", None)
    if held_out is not None:
        own["held_out"] = np.asarray(held_out, dtype=np.int64)
    b = _bias_for_others(A, model.projection_, model.bias_, model.embedding_mean_)[:, None]
    if not is_factorized(model):
        factors = {"E": A @ model.projection_, "b": b}
        own |= {"word_embeddings": A, "projection": model.projection_}
    else:
        factors = {"E1": A, "E2": model.projection_, "b": b}
    for name, array in (factors | own).items():
        check_finite(name, array)
    about: dict[str, Any] = {
        "version": _version("flip-sklearn"),
        "made_with": {name: _version(name) for name in ("numpy", "scikit-learn", "torch")},
        "settings": _settings(model),
        **info,
        "vocabulary_given": model.vocabulary is not None,
        "sparse": sparse,
        "solver": model.solver_,
        "device": model.device_,
        "history": {name: [_to_json(v) for v in model.history_[name]] for name in HISTORY},
        **{name: _to_json(getattr(model, f"{name}_")) for name in FACTS},
    }
    if hasattr(model, "feature_names_in_"):
        about["feature_names_in"] = model.feature_names_in_.tolist()
    config = {
        "model_type": "FactLoLM" if "E1" in factors else "LoLM",
        "vocab_size": len(b),
        "embedding_dim": int(model.n_features_in_),
        "rank": int(model.rank_) if "E1" in factors else None,
        SECTION: about,
    }
    write_folder(folder, factors, model.vocabulary_.tolist(), config, own, card)


def _bias_for_others(A: np.ndarray, B: np.ndarray, b: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """b - A B mu, summed in float64: what a formula without mean embedding needs."""
    if not mean.any():
        return b
    latent = B.astype(np.float64) @ mean
    moved = np.empty_like(b)
    rows = max(1, BLOCK_ELEMENTS // A.shape[1])
    for first in range(0, len(A), rows):
        part = slice(first, first + rows)
        moved[part] = b[part] - A[part].astype(np.float64) @ latent
    return moved


def _settings(model: Any) -> dict[str, Any]:
    """The parameters that JSON can hold and that mean the same on another machine."""
    settings: dict[str, Any] = {}
    for name, value in model.get_params(deep=False).items():
        plain = value.item() if isinstance(value, np.generic) else value
        if name == "device" and plain not in PORTABLE_DEVICES:
            continue
        finite = math.isfinite(plain) if isinstance(plain, float) else True
        if name not in NOT_STORED and isinstance(plain, str | int | float | None) and finite:
            settings[name] = plain
    return settings


def _to_json(number: float) -> Any:
    """JSON has neither NaN (null here) nor infinity (text here)."""
    if isinstance(number, int):
        return number
    return None if math.isnan(number) else float(number) if math.isfinite(number) else repr(number)


def _from_json(number: Any) -> float:
    if number is not None and type(number) not in (int, float) and number not in ("inf", "-inf"):
        raise ValueError(f"{number!r:.60} is no number")
    return math.nan if number is None else float(number)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# ---------------------------------------------------------------------- reading


def _of_this_package(cls: Any, stored: Stored, about: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The estimator and its fitted attributes, as they were."""
    words = stored.words if about["vocabulary_given"] is True else None
    model = cls(vocabulary=words, **_known_settings(cls, about))
    factors, own = stored.factors, stored.own
    A, B = own.get("word_embeddings"), own.get("projection")
    if A is None or B is None:
        A, B = factors["E1"], factors["E2"]
    fitted = {
        **_factors(sp.csr_array(A) if about["sparse"] is True else A, B, stored.words),
        **{f"{name}_": own[name] for name in ARRAYS},
        "_held_out": own.get("held_out"),
        "history_": _history(about),
        "pretrained_info_": {name: _text(name, about.get(name)) for name in INFO},
        **{f"{name}_": _from_json(about[name]) for name, kind in FACTS.items() if kind is float},
    }
    for name in (name for name, kind in FACTS.items() if kind is int):
        if type(about[name]) is not int or about[name] < 0:
            raise ValueError(f"{name} is {about[name]!r:.60}")
        fitted[f"{name}_"] = about[name]
    if fitted["best_iter_"] > len(fitted["history_"]["loss"]):
        raise ValueError(f"best_iter is {fitted['best_iter_']!r:.60}, more than history has passes")
    for name in ("solver", "device"):
        if not isinstance(about[name], str):
            raise ValueError(f"{name} is {about[name]!r:.60}")
        fitted[f"{name}_"] = about[name]
    if "feature_names_in" in about:
        names = about["feature_names_in"]
        right = isinstance(names, list) and len(names) == B.shape[1]
        if not right or not all(isinstance(name, str) for name in names):
            raise ValueError(f"feature_names_in must be {B.shape[1]} names")
        fitted["feature_names_in_"] = np.array(names, dtype=object)
    return model, fitted


def _history(about: dict[str, Any]) -> dict[str, list[float]]:
    history = {name: [_from_json(v) for v in about["history"][name]] for name in HISTORY}
    if len({len(column) for column in history.values()}) > 1:
        raise ValueError("the columns of history are not of one length")
    return history


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r:.60}; it must be text or null")
    return value


def _known_settings(cls: Any, about: dict[str, Any]) -> dict[str, Any]:
    """Parameters by name; those of a later version are left out, with a warning."""
    known = set(cls._get_param_names()) - set(NOT_STORED)
    settings: dict[str, Any] = {}
    for name, value in about["settings"].items():
        if value is not None and type(value) not in (str, int, float, bool):
            raise ValueError(f"setting {name!r:.60} is a {type(value).__name__}")
        if name == "device" and value not in PORTABLE_DEVICES:
            raise ValueError(f"device={value!r:.60} is none of {', '.join(PORTABLE_DEVICES)}")
        settings[name] = value
    unknown = sorted(set(settings) - known)
    if unknown:
        warnings.warn(
            f"the model was written by flip-sklearn {about.get('version')!r:.60} with the settings "
            f"{unknown!s:.200}, which this version does not know; they are left out.",
            stacklevel=5,
        )
    return {name: value for name, value in settings.items() if name in known}


def _of_other_code(cls: Any, stored: Stored) -> tuple[Any, dict[str, Any]]:
    """E1 E2 x + b as b + A B (x - 0); LiP's E gets the identity for B."""
    factors = stored.factors
    wide = max((array.dtype for array in factors.values()), key=lambda dtype: dtype.itemsize)
    factors = {name: array.astype(wide, copy=False) for name, array in factors.items()}
    factorized = "E1" in factors
    A = factors["E1" if factorized else "E"]
    B = factors["E2"] if factorized else np.eye(A.shape[1], dtype=wide)
    b = factors["b"].reshape(-1).copy()
    model = cls(rank=A.shape[1] if factorized else None, vocabulary=stored.words)
    # An export of ours that lost our part: words that training never saw are known by their score.
    unseen = (b <= UNSEEN_SCORE / 2) & ~A.any(axis=1)  # half of it: bfloat16 holds -9984
    return model, {
        **_factors(A, B, stored.words),
        "bias_": b,
        "embedding_mean_": np.zeros(B.shape[1], dtype=wide),
        "word_counts_": np.where(unseen, 0.0, 1.0),
        "_held_out": None,
        "history_": {name: [] for name in HISTORY},
        "pretrained_info_": dict.fromkeys(INFO),
        "n_iter_": 0,
        "best_iter_": 0,
        "l1_max_": math.nan,
        "kkt_residual_": math.nan,
        "solver_": "unknown",
        "device_": "unknown",
    }


def _factors(A: Any, B: np.ndarray, words: list[str]) -> dict[str, Any]:
    """What both kinds have."""
    return {
        "word_embeddings_": A,
        "projection_": B,
        "vocabulary_": np.array(words, dtype=object),
        "rank_": B.shape[0],
        "n_features_in_": B.shape[1],
        "_moments": None,
    }
