"""TextKeywordExtractor: texts in, words out; encoder, vectorizer and extractor in one estimator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.encoders.batching import check_texts
from flip_sklearn.estimation import scoring
from flip_sklearn.estimation.validation import check_weights
from flip_sklearn.extractor import FLiPExtractor
from flip_sklearn.parameters import DocumentationLink, check_bool, check_folder, number_groups, refusal
from flip_sklearn.persistence.encoding import TOKEN_PATTERNS, EncodingConfig, read_with_encoding
from flip_sklearn.persistence.hub import locate
from flip_sklearn.vocabulary import ConceptVectorizer
from flip_sklearn.vocabulary.defaults import default_vectorizer, normalized_texts

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


class TextKeywordExtractor(DocumentationLink, TransformerMixin, BaseEstimator):
    """Read words off the embeddings of texts: encode, count, fit, and extract keywords.

    ``fit`` encodes the texts, counts their words and fits a :class:`FLiPExtractor`, which learns to read the
    words of a text off its embedding. New texts are then read through their embeddings alone, and so are
    embeddings without a text. Embeddings that exist already are given beside the texts, ``embeddings=X``,
    and nothing is encoded.

    Parameters
    ----------
    encoder : str, path, callable, transformer or None, default="sentence-transformers/all-MiniLM-L6-v2"
        A model that :class:`~flip_sklearn.encoders.SentenceEncoder` knows, or a transformer from a list of n
        texts to an array (n, d). A transformer without a state, such as ``SentenceEncoder``, is used as it
        is, and any other is cloned and fitted to the texts of ``fit``. With None, every call needs
        ``embeddings``.
    vectorizer : vectorizer or None, default=None
        Counts the words: a :class:`~flip_sklearn.vocabulary.ConceptVectorizer`, or a vectorizer of
        scikit-learn that counts. It is cloned. None counts words without pairs, at most 6,500, with a
        minimum of occurrences that grows with the number of texts (2 for a few, 20 for 160,000).
    extractor : FLiPExtractor or None, default=None
        The model and its settings; it is cloned, and its ``vocabulary`` is set to the words of the
        vectorizer. None is ``FLiPExtractor()``.

    Attributes
    ----------
    encoder_ : transformer or None
        The encoder of new texts.
    vectorizer_ : vectorizer
        The fitted vectorizer.
    extractor_ : FLiPExtractor
        The fitted model, for everything that needs embeddings: ``extractor_.find_rows``,
        :func:`flip_sklearn.diagnostics.explain_similarity` and so on.

    See Also
    --------
    FLiPExtractor : The model itself, over embeddings and counts.
    flip_sklearn.encoders.SentenceEncoder : The encoders, and their cache.

    Notes
    -----
    Texts that differ only in case, white space and invisible characters are kept together when rows are held
    out for early stopping. Rows of zero weight and blank texts are not encoded by ``fit``.

    A search over parameters encodes the texts again for every fit. ``encoder=SentenceEncoder(name,
    cache_dir=folder)`` encodes each text once.

    References
    ----------
    Kesiraju et al. (2026), arXiv 2604.18109.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from flip_sklearn import FLiPExtractor, TextKeywordExtractor
    >>> def letters(texts):  # in place of the name of an encoder
    ...     return [[text.count(letter) for letter in "dgrnt"] for text in texts]
    >>> texts = ["red dog", "green cat", "red cat", "green dog"] * 20
    >>> model = TextKeywordExtractor(letters, CountVectorizer(), FLiPExtractor(max_iter=50, random_state=0))
    >>> model.fit(texts).extract_keywords(["a green dog"], top_k=2)
    [['green', 'dog']]
    """

    def __init__(self, encoder: Any = DEFAULT_ENCODER, vectorizer: Any = None, extractor: Any = None) -> None:
        self.encoder = encoder
        self.vectorizer = vectorizer
        self.extractor = extractor

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator and, as ``extractor__rank``, of its parts.

        Parameters
        ----------
        **params : dict
            Parameters of an ``extractor`` of None are those of the default, ``FLiPExtractor()``.

        Returns
        -------
        self : TextKeywordExtractor
            This estimator.
        """
        is_nested = any(name.startswith("extractor__") for name in params)
        if is_nested and params.get("extractor", self.extractor) is None:
            self.extractor = FLiPExtractor()
            params.pop("extractor", None)
        super().set_params(**params)
        return self

    def fit(self, X: Any, y: Any = None, *, embeddings: Any = None, sample_weight: Any = None) -> Self:
        """Learn the words of the texts, and to read them off their embeddings.

        Parameters
        ----------
        X : list, array or Series of n str
            The texts.
        y : ignored
            Exists for pipelines.
        embeddings : array-like of shape (n, d), default=None
            The embeddings of the texts, which are then not encoded.
        sample_weight : array-like of shape (n,), default=None
            Weights of the texts, >= 0. A text of weight zero is ignored, also for the vocabulary.

        Returns
        -------
        self : TextKeywordExtractor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter, a text or a weight is not allowed, or the texts have no words.
        """
        texts = _check_texts(X)
        extractor = self._new_extractor()
        weight = check_weights(sample_weight, texts)
        if embeddings is None and self.encoder is None:
            raise ValueError("encoder is None, so that fit needs the embeddings of the texts: embeddings=X.")
        _check_rows(embeddings, len(texts))
        encoder = _new_encoder(self.encoder)
        is_used = (weight > 0) & [bool(text.strip()) for text in texts]
        used = [text for text, use in zip(texts, is_used, strict=True) if use]
        if not used:
            raise ValueError("no text of positive weight has a word; pass at least one that is not blank.")
        # The vocabulary comes first: texts without words fail before minutes of encoding.
        vectorizer = self._new_vectorizer(used)
        vectorizer.fit(used)
        words = vectorizer.get_feature_names_out().tolist()
        if hasattr(encoder, "__sklearn_tags__") and get_tags(encoder).requires_fit:
            encoder = clone(encoder).fit(used)
        if embeddings is None:
            texts, weight = used, weight[is_used]
            vectors = encoder.transform(texts)
        else:
            vectors = embeddings  # a memory map is not copied: rows that are not used have weight zero
            weight = weight * is_used
        extractor.set_params(vocabulary=words, **self._word_features(encoder, words))
        groups = number_groups(normalized_texts(texts), len(texts))[1]
        extractor.fit(vectors, vectorizer.transform(texts), sample_weight=weight, groups=groups)
        self.encoder_, self.vectorizer_, self.extractor_ = encoder, vectorizer, extractor
        return self

    def fit_transform(
        self, X: Any, y: Any = None, *, embeddings: Any = None, sample_weight: Any = None
    ) -> Any:
        """Fit to the texts, and compute the probabilities of their best words.

        Parameters
        ----------
        X : list, array or Series of n str
            The texts.
        y : ignored
            Exists for pipelines.
        embeddings : array-like of shape (n, d), default=None
            The embeddings of the texts, which are then not encoded.
        sample_weight : array-like of shape (n,), default=None
            Weights of the texts, >= 0.

        Returns
        -------
        theta : csr_array of shape (n, V)
            As :meth:`transform` gives them.
        """
        return self.fit(X, embeddings=embeddings, sample_weight=sample_weight).transform(X, embeddings)

    def extract_keywords(
        self,
        X: Any = None,
        *,
        embeddings: Any = None,
        top_k: int | None = None,
        use_bias: bool = False,
        min_probability: float | None = None,
        return_scores: bool = False,
    ) -> Any:
        """Extract the best words of each text, best first.

        Parameters
        ----------
        X : list, array or Series of n str, default=None
            Texts, which are encoded; their words are not looked at.
        embeddings : array-like of shape (n, d), default=None
            Embeddings, with or without their texts.
        top_k : int, default=None
            Number of words per text, >= 1. If None, that of the extractor, or with ``min_probability`` no
            limit.
        use_bias : bool, default=False
            False ranks words by how much more likely they are in this text than in the average text: those
            that are specific to it. True ranks them by how likely they are.
        min_probability : float, default=None
            Return the words that occur in the text with at least this probability, in (0, 1], as many as
            there are (:meth:`FLiPExtractor.predict_presence`).
        return_scores : bool, default=False
            Whether to return (word, score) pairs, with the score in nats, or with ``min_probability`` the
            probability.

        Returns
        -------
        keywords : list of n lists of str
            With ``return_scores`` lists of (word, score) pairs.

        Raises
        ------
        ValueError
            If a parameter, a text or an embedding is not allowed.
        """
        check_is_fitted(self)
        model = scoring.snapshot(self.extractor_)
        model.use_bias = check_bool("use_bias", use_bias)
        vectors = self._vectors(X, embeddings)
        return model.extract_keywords(vectors, top_k, return_scores, min_probability=min_probability)

    def transform(self, X: Any, embeddings: Any = None) -> Any:
        """Compute the probabilities of the best words of each text, all others zero.

        Parameters
        ----------
        X : list, array or Series of n str
            The texts.
        embeddings : array-like of shape (n, d), default=None
            Their embeddings, which are then not encoded.

        Returns
        -------
        theta : csr_array of shape (n, V)
            See :meth:`FLiPExtractor.transform`; an array with ``FLiPExtractor(sparse_output=False)``, as
            ``set_output(transform="pandas")`` needs.
        """
        check_is_fitted(self)
        # The index of a Series is that of the result, which the container of a part would not know.
        with config_context(transform_output="default"):
            return self.extractor_.transform(self._vectors(X, embeddings))

    def score(
        self,
        X: Any,
        y: Any = None,
        *,
        embeddings: Any = None,
        sample_weight: Any = None,
        use_bias: bool | None = None,
    ) -> float:
        """Compute the keyword accuracy: the share of a text's words among as many extracted words.

        Parameters
        ----------
        X : list, array or Series of n str
            The texts: their embeddings are read, and their words are what should be found.
        y : ignored
            Exists for pipelines.
        embeddings : array-like of shape (n, d), default=None
            The embeddings of the texts, which are then not encoded.
        sample_weight : array-like of shape (n,), default=None
            Weights of the texts, >= 0.
        use_bias : bool, default=None
            Whether the words are ranked with the bias; ``use_bias`` of the extractor, True by default, if
            None.

        Returns
        -------
        float
            See :meth:`FLiPExtractor.score`.
        """
        check_is_fitted(self)
        texts = _check_texts(X)
        counts = self.vectorizer_.transform(texts)
        vectors = self._vectors(texts, embeddings)
        return float(self.extractor_.score(vectors, counts, sample_weight, use_bias=use_bias))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the words, one per column of ``transform``.

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of shape (V,) of str objects
            The words.
        """
        check_is_fitted(self)
        return np.asarray(self.extractor_.get_feature_names_out())

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, trained_on: str | None = None, license: str | None = None
    ) -> Path:
        """Write the model, the name of its encoder and how it splits texts into a folder.

        It is the folder of the command ``flip-sklearn fit``, and a folder of
        :meth:`FLiPExtractor.save_pretrained` with one file more: ``text.json``. Weights of the encoder are
        not stored.

        Parameters
        ----------
        folder : path-like
            As in :meth:`FLiPExtractor.save_pretrained`.
        trained_on : str, default=None
            Description of the training texts, in Markdown, for the model card.
        license : str, default=None
            Identifier such as "mit".

        Returns
        -------
        folder : Path
            The folder.

        Raises
        ------
        ValueError
            As :meth:`FLiPExtractor.save_pretrained`; also if the encoder is no ``SentenceEncoder`` with a
            name, or the vectorizer no ``ConceptVectorizer`` with a named ``token_pattern``: nothing but
            names is stored.
        OSError
            If the folder cannot be written.
        """
        check_is_fitted(self)
        path = check_folder("folder", folder)
        if path is None:
            raise refusal("folder", folder, "the path of a folder")
        has_name = isinstance(self.encoder_, SentenceEncoder) and self.encoder_._model_name() is not None
        if self.encoder_ is not None and not has_name:
            raise ValueError(
                f"the encoder is a {type(self.encoder_).__name__} without a name of a model, which a folder "
                "cannot hold; save the model alone with extractor_.save_pretrained(folder), or use pickle."
            )
        is_known = isinstance(self.vectorizer_, ConceptVectorizer)
        if not is_known or self.vectorizer_.token_pattern not in TOKEN_PATTERNS:
            raise ValueError(
                f"the vectorizer is {self.vectorizer_!r:.60}, which a folder cannot hold; pass a "
                f"ConceptVectorizer whose token_pattern is one of {', '.join(map(repr, TOKEN_PATTERNS))}, or "
                "use pickle."
            )
        config = EncodingConfig.from_fit(self.encoder_, self.vectorizer_)
        info = {"trained_on": trained_on, "encoder": config.encoder_name, "license": license}
        self.extractor_._write(path, info, config.content())
        return path

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | os.PathLike[str],
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        *,
        encoder: Any = None,
        trust_encoder: bool = False,
    ) -> Self:
        """Read a model from a folder or from the Hugging Face hub, with its encoder.

        Parameters
        ----------
        folder_or_id : path-like
            An existing folder, or ``"owner/name"`` on the hub (needs the extra ``hub``).
        subfolder : str, default=None
            Folder of the model inside it.
        revision : str, default=None
            Branch, tag or commit of a repository; its main branch when None.
        token : str or bool, default=None
            Access token for private repositories, passed to the hub's client.
        encoder : str, path, transformer, False or None, default=None
            None is the encoder that the model names. A name must be that of the model's encoder, whose other
            settings are stored; a transformer is taken as it is. False reads embeddings only.
        trust_encoder : bool, default=False
            Accept any encoder that the model names. Without it, only an encoder is taken that is on this
            machine and has no code: the author of a model may be anyone, and another encoder would be
            downloaded, or would be a service that receives your texts.

        Returns
        -------
        model : TextKeywordExtractor

        Raises
        ------
        ValueError
            As :meth:`FLiPExtractor.from_pretrained`; also if the encoder is not stored, is another one, or
            is not accepted.
        OSError, ImportError
            As :meth:`FLiPExtractor.from_pretrained`.
        """
        check_bool("trust_encoder", trust_encoder)
        flip, config = read_with_encoding(FLiPExtractor, locate(folder_or_id, subfolder, revision, token))
        if encoder is None or isinstance(encoder, (str, os.PathLike)):
            named = {} if encoder is None else {"model": os.fspath(encoder)}
            note = flip.pretrained_info_["encoder"]
            encoder = SentenceEncoder(**config.encoder_settings(named, note, trusted=trust_encoder))
        elif encoder is False:
            encoder = None
        return cls._from_parts(_new_encoder(encoder), config.vectorizer(flip.vocabulary_), flip)

    @classmethod
    def _from_parts(cls, encoder: Any, vectorizer: ConceptVectorizer, flip: FLiPExtractor) -> Self:
        """Return a fitted model with a fitted extractor."""
        model = cls(encoder, vectorizer, clone(flip))
        model.encoder_, model.vectorizer_, model.extractor_ = encoder, vectorizer, flip
        return model

    def _new_extractor(self) -> FLiPExtractor:
        if self.extractor is None:
            return FLiPExtractor()
        if not isinstance(self.extractor, FLiPExtractor):
            raise refusal("extractor", self.extractor, "a FLiPExtractor or None")
        extractor: FLiPExtractor = clone(self.extractor)
        return extractor

    def _new_vectorizer(self, texts: list[str]) -> Any:
        if self.vectorizer is None:
            return default_vectorizer(texts, len(texts))
        methods = ("fit", "transform", "get_feature_names_out")
        if isinstance(self.vectorizer, type) or not all(hasattr(self.vectorizer, name) for name in methods):
            raise refusal("vectorizer", self.vectorizer, "a ConceptVectorizer, a CountVectorizer or None")
        return clone(self.vectorizer)

    def _word_features(self, encoder: Any, words: list[str]) -> dict[str, Any]:
        """Return the embeddings of the words if the encoder of the texts is to make them.

        ``fit`` of the extractor would clone the encoder, and the clone would load its weights again.
        """
        features = None if self.extractor is None else self.extractor.word_features
        if not isinstance(features, SentenceEncoder) or not isinstance(encoder, SentenceEncoder):
            return {}
        is_same = features.get_params() == encoder.get_params()
        return {"word_features": encoder.transform(words)} if is_same else {}

    def _vectors(self, X: Any, embeddings: Any) -> Any:
        """Return the embeddings, or those of the texts."""
        if embeddings is not None:
            if X is not None:
                _check_rows(embeddings, len(_check_texts(X)))
            return embeddings
        if X is None:
            raise ValueError("neither texts nor embeddings are given; pass texts, or embeddings=X.")
        if self.encoder_ is None:
            raise ValueError("the model has no encoder; pass the embeddings of the texts: embeddings=X.")
        return self.encoder_.transform(_check_texts(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _new_encoder(encoder: Any) -> Any:
    """Return a transformer for a name, path or callable; a transformer or None is returned as it is."""
    if encoder is None or (hasattr(encoder, "transform") and not isinstance(encoder, type)):
        return encoder
    return SentenceEncoder(encoder).fit()


def _check_texts(X: Any) -> list[str]:
    """Return texts as a list of str; numbers are most likely embeddings in the place of texts."""
    if getattr(X, "ndim", 1) == 2 and getattr(getattr(X, "dtype", None), "kind", "") in tuple("fiu"):
        raise ValueError(f"X holds numbers, {X.shape}, not texts; pass embeddings by name: embeddings=X.")
    return check_texts(X)


def _check_rows(embeddings: Any, n_texts: int) -> None:
    """Raise ValueError for another number of rows; anything without rows is refused by the extractor."""
    shape = getattr(embeddings, "shape", None)  # a sparse matrix has no length
    n_rows = shape[0] if shape else len(embeddings) if hasattr(embeddings, "__len__") else n_texts
    if n_rows != n_texts:
        raise ValueError(
            f"there are {n_texts} texts and {n_rows} embeddings; row i of embeddings must belong to text i."
        )
