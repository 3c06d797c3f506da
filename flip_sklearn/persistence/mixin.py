"""PretrainedMixin: save_pretrained, from_pretrained and push_to_hub."""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path
from typing import Any, Self

from sklearn.utils.validation import check_is_fitted

from flip_sklearn.parameters import check_folder, refusal
from flip_sklearn.persistence.card import FOLDER_IN_CARD, model_card, public_name
from flip_sklearn.persistence.hub import REPOSITORY_ID, check_subfolder, locate, upload
from flip_sklearn.persistence.model import INFO, read_model, write_model


class PretrainedMixin:
    """Methods that store an extractor in a folder or on the Hugging Face hub, and load it."""

    def save_pretrained(
        self,
        folder: str | PathLike[str],
        *,
        trained_on: str | None = None,
        encoder: str | None = None,
        license: str | None = None,
    ) -> Path:
        """Write the fitted model into a folder, in the published layout of FLiP.

        ``from_pretrained`` restores the model exactly. Other code for the published layout reads
        ``model.safetensors`` and ``vocab.json`` and computes the same scores with bias, up to rounding. If
        the process is killed, the folder holds the old model or the new one.

        Parameters
        ----------
        folder : path-like
            Created if it does not exist. A model in it is replaced, and so is the README.md of that model
            unless it was edited. Files of others with the names of a model's files are refused.
        trained_on : str, default=None
            Description of the training texts, in Markdown. Like ``encoder`` and ``license`` it is written
            into the model card and ``pretrained_info_``; None keeps the value that a loaded model has.
        encoder : str, default=None
            Name of the encoder of the embeddings, such as "sentence-transformers/LaBSE". Of the path of a
            local folder only the folder's name is written.
        license : str, default=None
            Identifier such as "mit"; the card says "unknown" without one.

        Returns
        -------
        folder : Path
            The folder.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If an argument is not allowed, the folder has files of others, a parameter of the model is not
            finite, a word is not valid text, or words or names are too long to be read back.
        OSError
            If the folder cannot be written; an existing model is left unchanged.

        Notes
        -----
        Without bias, other code computes E1 E2 x where this package computes A B (x - mu): the scores of all
        rows differ by the vector A B mu, and a word that training never saw scores 0 there and -1e4 here
        (docs/models.md).

        The moments of the rows are not stored, so ``partial_fit`` cannot continue (pickle keeps them);
        neither are ``checkpoint_dir``, a ``device`` other than "auto" and "cpu", and a ``random_state``
        that is not a number.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from flip_sklearn import FLiPExtractor
        >>> Y = np.eye(4, dtype=int)[np.arange(40) % 4]
        >>> X = Y + 0.01 * np.random.default_rng(0).normal(size=(40, 4))
        >>> flip = FLiPExtractor(vocabulary=["red", "green", "dog", "cat"], max_iter=50, tol=0.1,
        ...                      random_state=0).fit(X, Y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = FLiPExtractor.from_pretrained(flip.save_pretrained(folder))
        >>> again.extract_keywords(X[:1], top_k=1)
        [['red']]
        """
        path = check_folder("folder", folder)
        if path is None:
            raise refusal("folder", folder, "the path of a folder")
        self._write(path, {"trained_on": trained_on, "encoder": encoder, "license": license})
        return path

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | PathLike[str],
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> Self:
        """Read a model from a folder or from the Hugging Face hub.

        Models of the published code are supported, such as ``"BUT-FIT/FLiP-en-sonar"`` with the subfolder
        ``"mcv15/rank-512"``, and folders that the published training has left: vocab.json beside
        ``checkpoints/``, of which the best checkpoint is read. Files are checked before they are used;
        nothing in them is executed.

        Parameters
        ----------
        folder_or_id : path-like
            An existing folder, or ``"owner/name"`` on the hub (needs the extra ``hub``).
        subfolder : str, default=None
            Folder of the model inside it, such as ``"mcv15/rank-512"``.
        revision : str, default=None
            Branch, tag or commit of a repository; its main branch when None.
        token : str or bool, default=None
            Access token for private repositories, passed to the hub's client. It is not stored or logged.

        Returns
        -------
        model : FLiPExtractor
            A model of ``save_pretrained`` is restored exactly. One of other code has the scores
            z(x) = b + E1 E2 x: ``embedding_mean_`` is 0, ``word_counts_`` is 1 for every word (0 for
            words without parameters), ``solver_`` and ``device_`` are "unknown", and ``history_`` is
            empty. Neither can continue with ``partial_fit``; both can with ``fit`` and ``warm_start``.
            ``pretrained_info_`` is a dict with the ``"encoder"``, ``"trained_on"`` and ``"license"`` that
            ``save_pretrained`` was given, each text or None. They are the author's words: to pass the
            encoder to ``SentenceEncoder`` is your decision to download it, or to send your texts to the
            service that it names. For a folder of the published training, ``"checkpoint"`` names the file
            that was read. The next ``fit`` removes ``pretrained_info_``.

        Raises
        ------
        ValueError
            If there is no such model, or a file is missing, damaged or in another format.
        OSError
            If the hub cannot be reached.
        ImportError
            If the model is on the hub and huggingface_hub is not installed.
        """
        model: Self = read_model(cls, locate(folder_or_id, subfolder, revision, token))
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        trained_on: str | None = None,
        encoder: str | None = None,
        license: str | None = None,
    ) -> str:
        """Upload the fitted model with a model card, in one commit.

        Parameters
        ----------
        repo_id : str
            ``"owner/name"``; created if it does not exist. Files in it are treated like those in the folder
            of ``save_pretrained``; a model of other code is not replaced.
        subfolder : str, default=None
            Folder of the model in the repository; its root when None.
        revision : str, default=None
            Branch; the main branch when None.
        token : str or bool, default=None
            Access token with write permission, passed to the hub's client; that of ``hf auth login`` when
            None.
        private : bool, default=None
            Whether a new repository is private; the owner's default when None.
        trained_on, encoder, license : str, default=None
            As in ``save_pretrained``.

        Returns
        -------
        url : str
            URL of the commit.

        Raises
        ------
        NotFittedError, ValueError
            As ``save_pretrained``; also if the token has no write permission.
        OSError
            If the hub cannot be reached.
        ImportError
            If huggingface_hub is not installed.
        """
        if not isinstance(repo_id, str) or not REPOSITORY_ID.fullmatch(repo_id):
            raise refusal("repo_id", repo_id, "'owner/name'")
        subpath = check_subfolder(subfolder)
        with tempfile.TemporaryDirectory() as folder:
            info = {"trained_on": trained_on, "encoder": encoder, "license": license}
            self._write(Path(folder), info, place=(repo_id, subfolder))
            return upload(Path(folder), repo_id, subpath, revision=revision, token=token, private=private)

    def _write(
        self,
        folder: Path,
        info: dict[str, str | None],
        text: dict[str, Any] | None = None,
        place: tuple[str, str | PathLike[str] | None] = (FOLDER_IN_CARD, None),
    ) -> None:
        """Write the model, its card and ``text``, the content of text.json.

        ``place`` is the folder or repository, and the subfolder, that the examples of the card load.
        """
        check_is_fitted(self)
        loaded = getattr(self, "pretrained_info_", {})
        info = {name: loaded.get(name) if info[name] is None else info[name] for name in INFO}
        if isinstance(info["encoder"], str):
            info["encoder"] = public_name(info["encoder"])
        reads_texts = text is not None and text["encoder"] is not None
        write_model(self, folder, model_card(self, info, place, reads_texts), info, text)
