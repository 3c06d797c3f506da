"""save_pretrained, from_pretrained and push_to_hub: models in folders and on the hub."""

from __future__ import annotations

import json
import tempfile
from os import PathLike
from pathlib import Path
from typing import Self

from sklearn.utils.validation import check_is_fitted

from flip_sklearn.persistence.card import model_card
from flip_sklearn.persistence.hub import check_repository, check_subfolder, locate, upload
from flip_sklearn.persistence.model import read_model, write_model

__all__ = ["PretrainedMixin"]


class PretrainedMixin:
    """Gives an extractor ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``."""

    def save_pretrained(
        self,
        folder: str | PathLike[str],
        *,
        trained_on: str | None = None,
        encoder: str | None = None,
        license: str | None = None,
    ) -> Path:
        """Write the fitted model into a folder, in the published layout and exactly.

        ``from_pretrained`` gets the model back to the bit. Other code of the layout reads
        ``model.safetensors`` and ``vocab.json`` and has the same scores with bias (to rounding). A folder
        is written as a whole or cannot be loaded, whenever the process is killed.

        Parameters
        ----------
        folder : path-like
            Made if it is not there. A model in it is replaced; a README.md in it stays.
        trained_on : str, default=None
            The texts, in Markdown. Like the next two for the model card and ``pretrained_info_``; None
            keeps what a model was loaded with.
        encoder : str, default=None
            What makes the embeddings, such as "sentence-transformers/LaBSE".
        license : str, default=None
            An identifier such as "mit"; the card says "unknown" when nobody knows.

        Returns
        -------
        folder : Path

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If an argument is not allowed, a parameter of the model is not finite, a word is not text, or
            words or names are too long to be read back.
        OSError
            If the folder cannot be written; the model that was there is whole then.

        Notes
        -----
        Not stored are the moments of the rows (so ``partial_fit`` cannot go on; pickle keeps them),
        ``checkpoint_dir``, a ``device`` other than "auto" and "cpu", and a ``random_state`` that is not a
        number.

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
        if not isinstance(folder, (str, PathLike)) or not str(folder):
            raise ValueError(f"folder={folder!r} is not allowed; use the path of a folder.")
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise ValueError(f"folder={str(folder)!r} is a file; use the path of a folder.")
        check_is_fitted(self)
        info = self._info(trained_on, encoder, license)
        write_model(self, path, model_card(self, '"the/path/of/this/folder"', **info), info)
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

        Also models of the published code, such as ``"BUT-FIT/FLiP-en-sonar"`` with the subfolder
        ``"mcv15/rank-512"``. Files are checked before they are used; nothing in them is executed.

        Parameters
        ----------
        folder_or_id : path-like
            A folder that is there, else ``"owner/name"`` on the hub (needs ``flip-sklearn[hub]``).
        subfolder : str, default=None
            Where the model is below it, such as ``"mcv15/rank-512"``.
        revision : str, default=None
            Branch, tag or commit of a repository; its main branch when None.
        token : str or bool, default=None
            For private repositories, handed to the hub's client. It is neither kept nor logged.

        Returns
        -------
        model : FLiPExtractor
            Of ``save_pretrained``, the same to the bit. Of other code, z(x) = b + E1 E2 x:
            ``embedding_mean_`` is 0, ``word_counts_`` is 1 for every word (0 for those without any
            parameter), ``solver_`` and ``device_`` are "unknown", and there is no history. In both,
            ``partial_fit`` cannot go on, ``fit`` with ``warm_start`` can.
            ``pretrained_info_`` is a dict with what ``save_pretrained`` was told: ``"encoder"``,
            ``"trained_on"`` and ``"license"``, each text or None. The next ``fit`` drops it.

        Raises
        ------
        ValueError
            If there is no such model, or a file is missing, damaged or not what its name says.
        OSError
            If the hub cannot be reached.
        ImportError
            If the model is of the hub and huggingface_hub is not installed.
        """
        folder = locate(folder_or_id, subfolder, revision, token)
        model: Self = read_model(cls, folder)
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
            ``"owner/name"``; made if it is not there. A README.md in it stays.
        subfolder : str, default=None
            Where in the repository.
        revision : str, default=None
            The branch; the main one when None.
        token : str or bool, default=None
            That may write, handed to the hub's client; the one of ``hf auth login`` when None.
        private : bool, default=None
            Whether a new repository is private; the owner's default when None.
        trained_on, encoder, license : str, default=None
            As in ``save_pretrained``.

        Returns
        -------
        url : str
            Of the commit.

        Raises
        ------
        NotFittedError, ValueError
            As ``save_pretrained``; also if the token may not write there.
        OSError
            If the hub cannot be reached.
        ImportError
            If huggingface_hub is not installed.
        """
        check_is_fitted(self)
        check_repository(repo_id)
        below = check_subfolder(subfolder)
        inside = json.dumps(str(below), ensure_ascii=False)  # quoted, also with a " in it
        source = f'"{repo_id}"' + (f", subfolder={inside}" if below.parts else "")
        info = self._info(trained_on, encoder, license)
        card = model_card(self, source, **info)
        with tempfile.TemporaryDirectory() as folder:
            write_model(self, Path(folder), card, info)
            return upload(
                Path(folder), repo_id, below, revision=revision, token=token, private=private
            )

    def _info(
        self, trained_on: str | None, encoder: str | None, license: str | None
    ) -> dict[str, str | None]:
        """What is said now, else what was said when the model was stored before."""
        before = getattr(self, "pretrained_info_", {})
        now = {"encoder": encoder, "trained_on": trained_on, "license": license}
        return {name: before.get(name) if text is None else text for name, text in now.items()}
