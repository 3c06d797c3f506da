"""Conversion of a fitted model to the content of a folder, and back.

    this package      z(x) = b + A B (x - mu)
    published layout  z(x) = E1 E2 x + b',    E1 = A, E2 = B, b' = b + o - A B mu

with the ranking offset o. Other code therefore computes the scores by which this package ranks words with
bias. For LiP E = A B; A and B are stored as extra arrays.
"""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.backend.fit.state import PassRecord
from flip_sklearn.backend.scoring.scorer import UNSEEN_SCORE
from flip_sklearn.estimation import presence
from flip_sklearn.estimation.directions import lower_triangle
from flip_sklearn.estimation.scoring import ranking_offset
from flip_sklearn.parameters import warn_caller
from flip_sklearn.persistence.checkpoints import is_best
from flip_sklearn.persistence.folder import read_folder, write_folder
from flip_sklearn.persistence.format import CONFIG_FILE, SECTION, ModelFiles
from flip_sklearn.persistence.tensors import check_finite

# Parameters that are not stored: the words have a file of their own, a folder belongs to one machine.
NOT_STORED = ("vocabulary", "word_features", "checkpoint_dir")
PORTABLE_DEVICES = ("auto", "cpu")
# Fitted attributes, without their trailing underscore, by where they are stored.
EXTRA_ARRAYS = ("bias", "embedding_mean", "word_counts")
WORD_ARRAYS = ("word_map", "word_feature_mean", "lift_offset")  # of models with word_features
INTEGERS = ("n_iter", "best_iter")
FLOATS = ("l1_max", "kkt_residual")
TEXTS = ("solver", "device")
HISTORY = tuple(field.name for field in fields(PassRecord))
INFO = ("encoder", "trained_on", "license")
BLOCK_ELEMENTS = 2**22


def is_factorized(model: Any) -> bool:
    """Return whether A and B are stored as E1 and E2.

    The square B of a LiP comes from the whitening of the embeddings and is no factor of the model.
    """
    square = model.projection_.shape[0] == model.projection_.shape[1]
    return not (model.rank is None and square)


def write_model(
    model: Any, folder: Path, card: str, info: dict[str, str | None], text: dict[str, Any] | None = None
) -> None:
    """Write a fitted model into a folder; ``info`` becomes ``pretrained_info_``, ``text`` text.json."""
    A, B = model.word_embeddings_, model.projection_
    if sp.issparse(A):
        A = A.toarray()
    offset = ranking_offset(model)
    b = _absorb_mean(A, B, model.bias_ + offset, model.embedding_mean_)[:, None]
    extra_arrays = {name: getattr(model, f"{name}_") for name in EXTRA_ARRAYS} | {"ranking_offset": offset}
    held_out = getattr(model, "_held_out", None)
    if held_out is not None:
        extra_arrays["held_out"] = np.asarray(held_out, dtype=np.int64)
    if hasattr(model, "embedding_covariance_"):  # not of models that other code trained
        extra_arrays["embedding_covariance"] = lower_triangle(model.embedding_covariance_)
    if all(hasattr(model, name) for name in presence.ATTRIBUTES):
        extra_arrays |= {name.removesuffix("_"): getattr(model, name) for name in presence.ATTRIBUTES}
    if hasattr(model, "word_map_"):
        extra_arrays |= {name: getattr(model, f"{name}_") for name in WORD_ARRAYS}
    if hasattr(model, "extended_words_"):
        extra_arrays["extended_words"] = np.asarray(model.extended_words_, dtype=np.int64)
    if is_factorized(model):
        tensors = {"E1": A, "E2": B, "b": b}
    else:
        tensors = {"E": A @ B, "b": b}
        extra_arrays |= {"word_embeddings": A, "projection": B}
    for name, array in (tensors | extra_arrays).items():
        check_finite(name, array)
    words = model.vocabulary_.tolist()
    write_folder(folder, ModelFiles(tensors, words, _metadata(model, info), extra_arrays), card, text)


def _absorb_mean(A: np.ndarray, B: np.ndarray, b: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return b - A B mu, summed in float64."""
    if not mean.any():
        return b
    latent_mean = B.astype(np.float64) @ mean
    result = np.empty_like(b)
    block_rows = max(1, BLOCK_ELEMENTS // A.shape[1])
    for start in range(0, len(A), block_rows):
        rows = slice(start, start + block_rows)
        result[rows] = b[rows] - A[rows].astype(np.float64) @ latent_mean
    return result


def _metadata(model: Any, info: dict[str, str | None]) -> dict[str, Any]:
    """Return the package's section of config.json."""
    metadata: dict[str, Any] = {
        "version": _version("flip-sklearn"),
        "made_with": {name: _version(name) for name in ("numpy", "scikit-learn", "torch")},
        "settings": _settings(model),
        **info,
        "vocabulary_given": model.vocabulary is not None,
        "sparse": sp.issparse(model.word_embeddings_),
        "solver": model.solver_,
        "device": model.device_,
        "history": {name: [_to_json(x) for x in model.history_[name]] for name in HISTORY},
    }
    for name in (*INTEGERS, *FLOATS):
        metadata[name] = _to_json(getattr(model, f"{name}_"))
    if hasattr(model, "feature_names_in_"):
        metadata["feature_names_in"] = model.feature_names_in_.tolist()
    if hasattr(model, "word_map_"):
        metadata["word_map_ridge"] = model.word_map_ridge_
    return metadata


def _settings(model: Any) -> dict[str, Any]:
    """Return the parameters that JSON can hold and that mean the same on another machine."""
    settings: dict[str, Any] = {}
    for name, value in model.get_params(deep=False).items():
        if isinstance(value, np.generic):
            value = value.item()
        is_portable = name not in NOT_STORED and (name != "device" or value in PORTABLE_DEVICES)
        is_json = isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))
        if is_portable and is_json:
            settings[name] = value
    return settings


def _to_json(number: float) -> int | float | str | None:
    """Return a number as JSON can hold it: NaN as null, infinity as text."""
    if isinstance(number, int):
        return number
    if math.isnan(number):
        return None
    return float(number) if math.isfinite(number) else repr(float(number))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def read_model(cls: Any, folder: Path) -> Any:
    """Return an estimator of class ``cls`` from a folder."""
    files = read_folder(folder)
    if files.metadata is None:
        model, fitted = _from_published_layout(cls, files)
    else:
        try:
            model, fitted = _from_own_format(cls, files, files.metadata)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(
                f"section {SECTION!r} of {str(folder / CONFIG_FILE)!r} cannot be used "
                f"({type(error).__name__}: {error}); download or save the folder again."
            ) from error
    model.__dict__.update(fitted)
    return model


def _from_own_format(cls: Any, files: ModelFiles, metadata: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the estimator and its fitted attributes as they were stored."""
    words = files.words if metadata["vocabulary_given"] is True else None
    model = cls(vocabulary=words, **_read_settings(cls, metadata))
    if "E1" in files.tensors:
        A, B = files.tensors["E1"], files.tensors["E2"]
    else:
        A, B = files.extra_arrays["word_embeddings"], files.extra_arrays["projection"]
    if metadata["sparse"] is True:
        A = sp.csr_array(A)
    n_passes = len(metadata["history"]["loss"])
    columns = {"training_loss": [None] * n_passes, **metadata["history"]}  # earlier versions have none
    history = {name: [_from_json(x) for x in columns[name]] for name in HISTORY}
    if any(len(column) != n_passes for column in history.values()):
        raise ValueError("the columns of history have different lengths")
    fitted = {
        **_common_attributes(A, B, files.words),
        "_held_out": files.extra_arrays.get("held_out"),
        "_covariance": files.extra_arrays.get("embedding_covariance"),
        "history_": history,
        "pretrained_info_": {name: metadata.get(name) for name in INFO},
    }
    for name, text in fitted["pretrained_info_"].items():
        _require(text is None or isinstance(text, str), name, text, "text or null")
    fitted |= {f"{name}_": files.extra_arrays[name] for name in EXTRA_ARRAYS}
    if "presence_length" in files.extra_arrays:
        fitted |= {name: files.extra_arrays[name.removesuffix("_")] for name in presence.ATTRIBUTES}
        n = len(fitted["presence_length_"])
        _require(n == 1 + len(B), "the number of values of presence_length", n, f"{1 + len(B)}, 1 + rank")
    if "word_map" in files.extra_arrays:
        fitted |= {f"{name}_": files.extra_arrays[name] for name in WORD_ARRAYS}
        fitted["word_map_ridge_"] = _from_json(metadata["word_map_ridge"])
        _require(fitted["word_map_ridge_"] > 0, "word_map_ridge", metadata["word_map_ridge"], "above 0")
    if "extended_words" in files.extra_arrays:
        extended = fitted["extended_words_"] = files.extra_arrays["extended_words"]
        are_columns = bool(np.all((extended >= 0) & (extended < len(files.words))))
        _require(are_columns, "extended_words", extended, f"columns from 0 to {len(files.words) - 1}")
    # Models of earlier versions have none.
    fitted["ranking_offset_"] = files.extra_arrays.get("ranking_offset", np.zeros_like(fitted["bias_"]))
    fitted |= {f"{name}_": _from_json(metadata[name]) for name in FLOATS}
    for name in INTEGERS:
        value = fitted[f"{name}_"] = metadata[name]
        _require(type(value) is int and value >= 0, name, value, "an integer >= 0")
    for name in TEXTS:
        value = fitted[f"{name}_"] = metadata[name]
        _require(isinstance(value, str), name, value, "text")
    best = metadata["best_iter"]
    _require(best <= n_passes, "best_iter", best, f"at most {n_passes}, the passes in history")
    if "feature_names_in" in metadata:
        names = metadata["feature_names_in"]
        are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
        _require(
            are_names and len(names) == B.shape[1], "feature_names_in", names, f"a list of {B.shape[1]} names"
        )
        fitted["feature_names_in_"] = np.array(names, dtype=object)
    return model, fitted


def _require(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r:.60}; it must be {allowed}")


def _read_settings(cls: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters by name, without those of a later version, which are named in a warning."""
    known = set(cls._get_param_names()) - set(NOT_STORED)
    settings: dict[str, Any] = {}
    unknown = []
    for name, value in metadata["settings"].items():
        if value is not None and type(value) not in (str, int, float, bool):
            raise ValueError(f"setting {name!r:.60} is a {type(value).__name__}")
        if name == "device" and value not in PORTABLE_DEVICES:
            raise ValueError(f"device={value!r:.60} is not one of {', '.join(PORTABLE_DEVICES)}")
        if name in known:
            settings[name] = value
        else:
            unknown.append(name)
    if unknown:
        warn_caller(
            f"the model was written by flip-sklearn {metadata.get('version')!r:.60} with the settings "
            f"{sorted(unknown)!s:.200}, which this version does not know; they are ignored."
        )
    return settings


def _from_json(number: Any) -> float:
    if number is None:
        return math.nan
    if type(number) not in (int, float) and number not in ("inf", "-inf"):
        raise ValueError(f"{number!r:.60} is not a number")
    return float(number)


def _from_published_layout(cls: Any, files: ModelFiles) -> tuple[Any, dict[str, Any]]:
    """Return an estimator for E1 E2 x + b: mu is zero, and for LiP A is E and B the identity."""
    dtype = max((array.dtype for array in files.tensors.values()), key=lambda d: d.itemsize)
    tensors = {name: array.astype(dtype, copy=False) for name, array in files.tensors.items()}
    if "E1" in tensors:
        A, B = tensors["E1"], tensors["E2"]
        rank = A.shape[1]
    else:
        A = tensors["E"]
        B = np.eye(A.shape[1], dtype=dtype)
        rank = None
    b = tensors["b"].reshape(-1).copy()
    # Without config.json, words that do not occur in training are recognized by their score. The limit is
    # half of it, because bfloat16 rounds it to -9984.
    unseen = (b <= UNSEEN_SCORE / 2) & ~A.any(axis=1)
    info: dict[str, str | None] = dict.fromkeys(INFO)
    if files.checkpoint is not None:
        info["checkpoint"] = files.checkpoint
        if not is_best(files.checkpoint):
            warn_caller(
                f"the folder has no checkpoint that was selected on held-out sentences; {files.checkpoint!r} "
                "is read. To read another one, copy it beside vocab.json as model.safetensors."
            )
    return cls(rank=rank, vocabulary=files.words), {
        **_common_attributes(A, B, files.words),
        "bias_": b,
        "ranking_offset_": np.zeros_like(b),
        "embedding_mean_": np.zeros(B.shape[1], dtype=dtype),
        "word_counts_": np.where(unseen, 0.0, 1.0),
        "_held_out": None,
        "history_": {name: [] for name in HISTORY},
        "pretrained_info_": info,
        "n_iter_": 0,
        "best_iter_": 0,
        "l1_max_": math.nan,
        "kkt_residual_": math.nan,
        "solver_": "unknown",
        "device_": "unknown",
    }


def _common_attributes(A: Any, B: np.ndarray, words: list[str]) -> dict[str, Any]:
    """Return the fitted attributes that follow from A, B and the words."""
    return {
        "word_embeddings_": A,
        "projection_": B,
        "vocabulary_": np.array(words, dtype=object),
        "rank_": B.shape[0],
        "n_features_in_": B.shape[1],
        "_moments": None,
        "interrupted_": False,
    }
