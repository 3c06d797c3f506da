"""SentenceEncoder: texts or speech to embeddings, as one scikit-learn transformer."""

from __future__ import annotations

import json
import numbers
import os
import re
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from flip_sklearn.encoders.base import Backend, Function
from flip_sklearn.encoders.batching import encode
from flip_sklearn.encoders.gemini import MOST_TEXTS, Gemini
from flip_sklearn.encoders.sentence_transformers import SentenceTransformers
from flip_sklearn.encoders.sonar import SonarSpeech, SonarText

__all__ = ["SentenceEncoder"]

# The model of each backend when none is named.
_MODELS = {
    "sentence-transformers": "sentence-transformers/all-MiniLM-L6-v2",
    "sonar": "cointegrated/SONAR_200_text_encoder",
    "sonar-speech": "sonar_speech_encoder_eng",
    "gemini": "gemini-embedding-001",
}
_GEMINI_DIMS = 768


@dataclass
class _Loaded:
    """A backend, the parameters that it was made from, and the dims that it last gave."""

    parameters: tuple[Any, ...]
    backend: Backend
    n_dims: int | None = None


# Weights lie beside the estimators, not on them: so they are in no pickle, clone or copy.
_LOADED: weakref.WeakKeyDictionary[SentenceEncoder, _Loaded] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


class SentenceEncoder(TransformerMixin, BaseEstimator):
    """Turn texts, or audio files, into embeddings.

    Row i of the result is the vector of text i, whatever the batches were: a backend that gives another
    count of vectors than it was given texts is an error. Needs no ``fit``. Weights are loaded when they are
    first needed and are part of no pickle and no clone, so that a pipeline travels light to other processes.
    Equal texts are encoded once.

    Parameters
    ----------
    model : str, path or callable, default=None
        Name on the hub or folder of a model, name of a Gemini model, or any callable from a list of str to
        an array (n, d). None is the default of the backend: ``sentence-transformers/all-MiniLM-L6-v2``,
        ``cointegrated/SONAR_200_text_encoder``, ``sonar_speech_encoder_eng`` or ``gemini-embedding-001``.
    backend : {"auto", "sentence-transformers", "sonar", "sonar-speech", "gemini", "callable"}, default="auto"
        ``"auto"`` goes by the model: a callable is called, names that begin with ``gemini``,
        ``sonar_speech`` or ``sonar`` (after the last ``/``, in any case) and folders with an M2M100
        encoder say what they are, all others are models of sentence-transformers.
    batch_size : int or "auto", default="auto"
        Texts encoded, and cached, at a time. ``"auto"`` is 32, for speech 4, for a callable and for Gemini
        100, which is Gemini's maximum.
    device : str, default="auto"
        Where local models run: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` takes a GPU if there is one.
    normalize : bool, default=False
        Scale the vectors to unit length, after ``truncate_dim``.
    truncate_dim : int, default=None
        Keep the first dims only, 1 to d, as Matryoshka models allow. None keeps all, but for Gemini 768 of
        3072, cut by the server; pass 3072 for all.
    prompt_name : str, default=None
        A prompt that the model of sentence-transformers declares, such as ``"query"``; for Gemini the task
        type, such as ``"SEMANTIC_SIMILARITY"``.
    language : str, default=None
        Language of the texts for SONAR, a FLORES-200 code such as ``"deu_Latn"``. None is ``"eng_Latn"``.
    revision : str, default=None
        Branch, tag or commit of a model on the hub. For Gemini, SONAR speech and callables, which have
        none, a word of yours that keeps their vectors apart in the cache.
    api_key_env : str, default="GEMINI_API_KEY"
        Name of the environment variable that holds the Gemini API key. The key itself is read when a
        request is made and kept nowhere.
    cache_dir : path-like, default=None
        Folder for a cache on a local disk; several processes may share it. Each batch is kept as soon as it
        is there, so that a call that was cut off goes on where it stopped. None keeps nothing.
    verbose : int, default=0
        1 shows a progress bar on stderr, for what takes longer than two seconds.

    See Also
    --------
    flip_sklearn.FLiPExtractor : Reads words off the embeddings.

    Notes
    -----
    A vector in the cache is found by the backend, the model, its commit (or a hash of its files), the
    prompt, the language and the text, each to the letter; the texts themselves are not stored. Without a
    full commit hash as ``revision`` a hub's model is loaded before the cache is read, since only then is its
    commit known. A callable needs a ``revision`` to be cached.

    Examples
    --------
    >>> from flip_sklearn.encoders import SentenceEncoder
    >>> def letters(texts):
    ...     return [[text.count(letter) for letter in "ado"] for text in texts]
    >>> SentenceEncoder(letters).transform(["a dog", "a cat"])
    array([[1., 1., 1.],
           [2., 0., 0.]], dtype=float32)

    With weights from the hub, ``SentenceEncoder("sentence-transformers/LaBSE")`` takes the same place, and
    ``make_pipeline(SentenceEncoder(), FLiPExtractor())`` goes from texts to words.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        backend: str = "auto",
        batch_size: int | str = "auto",
        device: str = "auto",
        normalize: bool = False,
        truncate_dim: int | None = None,
        prompt_name: str | None = None,
        language: str | None = None,
        revision: str | None = None,
        api_key_env: str = "GEMINI_API_KEY",
        cache_dir: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.backend = backend
        self.batch_size = batch_size
        self.device = device
        self.normalize = normalize
        self.truncate_dim = truncate_dim
        self.prompt_name = prompt_name
        self.language = language
        self.revision = revision
        self.api_key_env = api_key_env
        self.cache_dir = cache_dir
        self.verbose = verbose

    def fit(self, X: Any = None, y: Any = None) -> SentenceEncoder:
        """Check the parameters; there is nothing to learn.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        self : SentenceEncoder

        Raises
        ------
        ValueError
            If a parameter is not allowed.
        """
        self._check_parameters()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode texts.

        Parameters
        ----------
        X : list, array or Series of n str
            Texts, or paths of audio files for ``"sonar-speech"``. Empty texts have a vector like any other,
            but Gemini refuses them.

        Returns
        -------
        vectors : ndarray of shape (n, d), float32

        Raises
        ------
        ValueError
            If a parameter or a text is not allowed; nothing has been encoded then, or one batch where only
            the model can tell, as with ``truncate_dim``.
        ImportError
            If the package of a backend is not installed; the message has the command.
        RuntimeError
            If the backend gives anything but one finite vector a text, a service gives none, or the cache
            cannot be used.
        """
        name, batch_size = self._check_parameters()
        texts = _check_texts(X)
        loaded = self._load(name)
        loaded.backend.check(texts)
        cache = None if self.cache_dir is None else Path(self.cache_dir).expanduser()
        if batch_size is None:
            batch_size = loaded.backend.batch_size
        vectors = encode(
            texts, loaded.backend, batch_size, cache, self.truncate_dim, bool(self.verbose)
        )
        if self.truncate_dim is not None:
            vectors = np.ascontiguousarray(vectors[:, : self.truncate_dim])
        if self.normalize:
            # In float64: the square of a large or small float32 is none.
            norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
            np.divide(vectors, norms, out=vectors, where=norms > 0, casting="same_kind")
        loaded.n_dims = vectors.shape[1]
        return vectors

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the dims, ``sentenceencoder0`` and so on.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (d,) of str objects

        Raises
        ------
        ValueError
            If nothing has been encoded yet, so that d is not known.
        """
        loaded = _LOADED.get(self)
        if loaded is None or loaded.n_dims is None:
            raise ValueError(
                "The number of dims is known once something is encoded; call transform first."
            )
        return np.array([f"sentenceencoder{i}" for i in range(loaded.n_dims)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    # ------------------------------------------------------------------ parameters

    def _load(self, name: str) -> _Loaded:
        """The backend that these parameters ask for; the one of the last call where they still do."""
        parameters = (
            name, self.model, self.device, self.prompt_name, self.language, self.revision,
            self.truncate_dim if name == "gemini" else None, self.api_key_env,
            # What was loaded without a cache has no version yet, and its folder may change meanwhile.
            self.cache_dir is None,
        )  # fmt: skip
        with _LOCK:
            loaded = _LOADED.get(self)
            if loaded is None or loaded.parameters != parameters:
                loaded = _LOADED[self] = _Loaded(parameters, self._make_backend(name))
            return loaded

    def _make_backend(self, name: str) -> Backend:
        if name == "callable":
            return Function(self.model, self.revision)
        model = _MODELS[name] if self.model is None else os.fspath(self.model)
        if name == "gemini":
            dims = _GEMINI_DIMS if self.truncate_dim is None else self.truncate_dim
            return Gemini(model, self.revision, dims, self.prompt_name, self.api_key_env)
        if name == "sonar":
            return SonarText(model, self.revision, self.device, self.language or "eng_Latn")
        if name == "sonar-speech":
            return SonarSpeech(model, self.revision, self.device)
        return SentenceTransformers(model, self.revision, self.device, self.prompt_name)

    def _check_parameters(self) -> tuple[str, int | None]:
        """The backend's name, and the batch size or None for the backend's own."""
        backends = ("auto", *_MODELS, "callable")
        if self.backend not in backends:
            raise _refusal("backend", self.backend, "one of " + ", ".join(map(repr, backends)))
        name = self._backend_name()
        most = MOST_TEXTS if name == "gemini" else None
        if self.batch_size != "auto" and not _is_whole(self.batch_size, 1, most):
            limit = f"from 1 to {most}" if most else ">= 1"
            raise _refusal("batch_size", self.batch_size, f"an integer {limit}, or 'auto'")
        if self.truncate_dim is not None and not _is_whole(self.truncate_dim, 1):
            raise _refusal(
                "truncate_dim", self.truncate_dim, "an integer >= 1, or None for all dims"
            )
        if not isinstance(self.normalize, (bool, np.bool_)):
            raise _refusal("normalize", self.normalize, "True or False")
        for parameter, users in (
            ("prompt_name", ("sentence-transformers", "gemini")),
            ("language", ("sonar",)),
            ("revision", None),
        ):
            value = getattr(self, parameter)
            if value is not None and not (isinstance(value, str) and value):
                raise _refusal(parameter, value, "a str that is not empty, or None")
            if value is not None and users is not None and name not in users:
                raise ValueError(
                    f"{parameter}={value!r} means nothing to the {name} backend; use None, or backend="
                    f"{' or '.join(map(repr, users))}."
                )
        if not (isinstance(self.device, str) and self.device):
            raise _refusal("device", self.device, "'auto', or a device of torch such as 'cuda:0'")
        if not (
            self.cache_dir is None
            or (isinstance(self.cache_dir, (str, os.PathLike)) and os.fspath(self.cache_dir))
        ):
            raise _refusal("cache_dir", self.cache_dir, "the path of a folder, or None")
        # The value is not repeated: it may be a key that was put in the wrong place.
        if not (
            isinstance(self.api_key_env, str) and re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env)
        ):
            raise ValueError(
                "api_key_env must be the name of an environment variable in capitals, such as "
                "'GEMINI_API_KEY', not the key itself."
            )
        return name, None if self.batch_size == "auto" else int(self.batch_size)

    def _backend_name(self) -> str:
        model, backend = self.model, self.backend
        if hasattr(model, "encode") and not isinstance(model, str):
            raise ValueError(
                f"model is a {type(model).__name__} object; pass its name or path, or its method: "
                "model=model.encode."
            )
        if callable(model):
            if backend not in ("auto", "callable"):
                raise _refusal("backend", backend, "'auto' or 'callable' when model is a callable")
            return "callable"
        if backend == "callable" or not (
            model is None or (isinstance(model, (str, os.PathLike)) and os.fspath(model))
        ):
            wanted = "callable" if backend == "callable" else "name, path, callable or None"
            raise _refusal("model", model, f"a {wanted}")
        if backend != "auto":
            return backend
        return "sentence-transformers" if model is None else _guess(os.fspath(model))


def _guess(model: str) -> str:
    """The backend that a model's name, or its folder, asks for."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        config = folder / "config.json"
        if (folder / "modules.json").exists() or not config.exists():
            return "sentence-transformers"
        kind = json.loads(config.read_text(encoding="utf8")).get("model_type")
        return "sonar" if kind == "m2m_100" else "sentence-transformers"
    last = model.rsplit("/", 1)[-1].lower()
    for start, name in (("gemini", "gemini"), ("sonar_speech", "sonar-speech"), ("sonar", "sonar")):
        if last.startswith(start):
            return name
    return "sentence-transformers"


def _check_texts(X: Any) -> list[str]:
    """Texts as a list of plain str; the row of what is none."""
    if isinstance(X, (str, bytes, os.PathLike)):
        raise ValueError(f"X is a single {type(X).__name__}; pass a list of texts, such as [text].")
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) != 1:
        raise ValueError(f"X has shape {shape}; pass one column of texts, such as table['text'].")
    if isinstance(X, (dict, set, frozenset)) or not hasattr(X, "__iter__"):
        raise ValueError(f"X is a {type(X).__name__}; pass a list, array or Series of texts.")
    texts = list(X)
    if not texts:
        raise ValueError("X holds no texts; at least one is needed, for the number of dims.")
    for row, text in enumerate(texts):
        if type(text) is not str:
            if isinstance(text, str):
                texts[row] = str(text)  # a NumPy string
            elif isinstance(text, os.PathLike) and isinstance(os.fspath(text), str):
                texts[row] = os.fspath(text)
            else:
                raise ValueError(f"Row {row} is {_short(text)}, no text; {_remedy(text)}.")
        try:
            texts[row].encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Row {row} is no valid Unicode ({error.reason}); clean it with "
                "text.encode('utf8', 'replace').decode()."
            ) from None
    return texts


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _remedy(value: Any) -> str:
    nothing = value is None or type(value).__name__ in ("NAType", "NaTType")
    if nothing or (isinstance(value, numbers.Real) and value != value):
        return "leave such rows out or fill them"
    return "pass str"


def _is_whole(value: Any, low: int, high: int | None = None) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    return whole and value >= low and (high is None or value <= high)


def _refusal(parameter: str, value: Any, allowed: str) -> ValueError:
    return ValueError(f"{parameter}={value!r} is not allowed; use {allowed}.")
