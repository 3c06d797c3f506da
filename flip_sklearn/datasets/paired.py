"""Paired text and speech embeddings with their transcripts, in the layout of the published data."""

from __future__ import annotations

import math
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flip_sklearn.parameters import check_choice, check_integer, is_real, refusal

VIEWS = ("text", "speech")

_BLOCK_ELEMENTS = 2**22  # numbers of a file that are read at a time
# The characters that the published code deletes.
_DELETED = str.maketrans("", "", string.punctuation + "\u2018\u2019\u201c\u201d\u2014\u200b\u200c\u2060")


@dataclass(frozen=True, eq=False)
class PairedEmbeddings:
    """Result of :func:`load_paired_embeddings`: m row-aligned sentences.

    Attributes
    ----------
    views : dict of str to ndarray of shape (m, d)
        The embeddings "text" and "speech", in the dtype of the files: read-only memory maps of the files if
        every row is kept, else arrays in memory.
    texts : list of m str
        The transcripts without punctuation; "" where the file has an empty line.
    sim_scores : ndarray of shape (m,)
        Similarity of the two embeddings of each pair.
    rows : ndarray of shape (m,) of int
        Row of each pair in the files, ascending.
    n_dropped : int
        Number of pairs dropped because of their score or a value that is not finite.
    """

    views: dict[str, np.ndarray]
    texts: list[str]
    sim_scores: np.ndarray
    rows: np.ndarray
    n_dropped: int

    def __repr__(self) -> str:
        m, d = self.views[VIEWS[0]].shape
        return f"PairedEmbeddings({m:,} sentences, {d} dimensions, {self.n_dropped:,} dropped)"


def load_paired_embeddings(
    folder: str | os.PathLike[str],
    split: str = "train",
    *,
    sim_threshold: float = 0.0,
    max_sentences: int | None = None,
    verbose: bool = False,
) -> PairedEmbeddings:
    """Load text and speech embeddings of the same sentences with their transcripts.

    The layout is that of the data set BUT-FIT/FLiP-data of Kesiraju et al. (2026, arXiv 2604.18109): four
    files for each split, whose row (or line) i is sentence i::

        {split}_text_embs.npy     (n, d)       {split}_transcript.txt     n lines, UTF-8
        {split}_speech_embs.npy   (n, d)       {split}_sim_scores.npy     (n,)

    A pair is kept if its score is above ``sim_threshold`` and both embeddings are finite, as in the
    published code.

    Parameters
    ----------
    folder : path-like
        The folder with the files.
    split : {"train", "dev", "test"}, default="train"
        Prefix of the files.
    sim_threshold : float, default=0.0
        Pairs with a score above it (not equal to it) are kept; pairs without a score (NaN) never are.
        ``-numpy.inf`` keeps every pair with a score.
    max_sentences : int, default=None
        Maximum number of pairs above the threshold to use, >= 1, spread evenly over the file; None for all.
    verbose : bool, default=False
        Whether to show progress bars on standard error after two seconds.

    Returns
    -------
    PairedEmbeddings
        ``views``, ready for :func:`flip_sklearn.stack_views` and the diagnostics, with ``texts`` for a
        vectorizer, and ``sim_scores``, ``rows`` and ``n_dropped``.

    Raises
    ------
    ValueError
        If an argument is not allowed, a file is missing, damaged or has other content than expected, the
        files do not have one row for each sentence, or no pair is left.

    Notes
    -----
    Punctuation is deleted from the transcripts as in the published code (ASCII punctuation, curly quotes,
    the em dash, zero-width characters), and white space is collapsed to single blanks. An empty line stays,
    as "", so that the rows of the files keep their numbers; ``fit`` gives such a row no weight, and
    accuracies skip it.

    Memory: if rows are dropped, the others are copied, m d numbers for each view. To train on data that is
    larger than memory, keep every row and select rows by weight:
    ``load_paired_embeddings(folder, sim_threshold=-numpy.inf)`` returns memory maps (if all values are
    finite), and ``fit(data.views["text"], Y, sample_weight=data.sim_scores > 0)`` copies one batch at a
    time.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flip_sklearn.datasets import load_paired_embeddings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "dev_text_embs.npy"), np.eye(3, 8, dtype=np.float16))
    ...     np.save(Path(folder, "dev_speech_embs.npy"), np.eye(3, 8, dtype=np.float16))
    ...     np.save(Path(folder, "dev_sim_scores.npy"), np.array([0.9, -0.1, 0.8]))
    ...     _ = Path(folder, "dev_transcript.txt").write_text("Hello, world!\\nWhat?\\nIt's me.\\n")
    ...     data = load_paired_embeddings(folder, "dev")
    >>> data
    PairedEmbeddings(2 sentences, 8 dimensions, 1 dropped)
    >>> data.texts, data.rows.tolist(), data.views["speech"].dtype.name
    (['Hello world', 'Its me'], [0, 2], 'float16')
    """
    check_choice("split", split, ("train", "dev", "test"))
    if not is_real(sim_threshold) or math.isnan(sim_threshold):
        allowed = "a number, such as 0.0 (cosines are from -1 to 1), or -numpy.inf for all scored pairs"
        raise refusal("sim_threshold", sim_threshold, allowed)
    if max_sentences is not None:
        max_sentences = check_integer("max_sentences", max_sentences, 1, or_else="None for all")
    paths = _find_files(Path(folder), split)
    embeddings = {name: _open_array(paths[name]) for name in VIEWS}
    first = embeddings[VIEWS[0]]
    for name, array in embeddings.items():
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
            raise ValueError(
                f"{paths[name]} has shape {array.shape} and type {array.dtype}; expected floats of shape "
                "(n, d), one row for each sentence."
            )
        if array.shape != first.shape:
            raise ValueError(
                f"{paths[name]} has shape {array.shape}, {paths[VIEWS[0]].name} has {first.shape}; both must "
                "embed the same sentences, row by row, in one space."
            )
    n = len(first)
    scores = _open_array(paths["scores"])
    if scores.shape != (n,) or scores.dtype.kind != "f":
        raise ValueError(
            f"{paths['scores']} has shape {scores.shape} and type {scores.dtype}; expected one float for "
            f"each of the {n} rows of {paths[VIEWS[0]].name}, shape ({n},)."
        )
    candidates = above = np.flatnonzero(scores > sim_threshold)
    if max_sentences is not None and max_sentences < len(above):
        candidates = above[np.arange(max_sentences) * len(above) // max_sentences]
    rows = candidates[_is_finite(embeddings, candidates, verbose)]
    if len(rows) == 0:
        best = np.max(scores, initial=-np.inf, where=~np.isnan(scores))
        raise ValueError(
            f"no pair of {paths['scores'].parent} is left for split={split!r}: of {n}, {len(above)} have a "
            f"score above sim_threshold={sim_threshold!r} (the highest is {best:.4g}), none of them with "
            "finite embeddings. Lower the threshold or check the files."
        )
    if len(rows) < n:
        embeddings = {name: np.asarray(array[rows]) for name, array in embeddings.items()}
    return PairedEmbeddings(
        views=embeddings,
        texts=_read_transcript(paths["transcript"], n, rows),
        sim_scores=np.array(scores[rows]),
        rows=rows,
        n_dropped=(n - len(above)) + (len(candidates) - len(rows)),
    )


def _find_files(folder: Path, split: str) -> dict[str, Path]:
    """Return the paths of the four files of a split."""
    names = {name: f"{split}_{name}_embs.npy" for name in VIEWS}
    names |= {"transcript": f"{split}_transcript.txt", "scores": f"{split}_sim_scores.npy"}
    if not folder.is_dir():
        raise ValueError(f"folder={str(folder)!r} is not a folder; pass the one with {names['text']}.")
    missing = [name for name in names.values() if not (folder / name).is_file()]
    if missing:
        existing = ", ".join(sorted(path.name for path in folder.iterdir())) or "no files"
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}; it has {existing:.500}. Pass the folder with the "
            f"four files of split={split!r}, or another split."
        )
    return {key: folder / name for key, name in names.items()}


def _open_array(path: Path) -> np.ndarray:
    """Return the array in a file as a read-only memory map. Pickled objects are refused, never loaded."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, SyntaxError) as error:
        raise ValueError(
            f"{path} cannot be read as an array of numbers ({error}); expected a complete .npy file, as "
            "numpy.save writes it, without Python objects. Download or write it again."
        ) from error


def _is_finite(embeddings: Mapping[str, np.ndarray], rows: np.ndarray, verbose: bool) -> np.ndarray:
    """Return whether each of the rows is finite in every view."""
    is_finite = np.ones(len(rows), dtype=bool)
    step = max(1, _BLOCK_ELEMENTS // embeddings[VIEWS[0]].shape[1])
    total = len(rows) * len(embeddings)
    with tqdm(total=total, unit="row", desc="embeddings", delay=2, disable=not verbose) as bar:
        for array in embeddings.values():
            for start in range(0, len(rows), step):
                block = slice(start, start + step)
                is_finite[block] &= np.isfinite(array[rows[block]]).all(axis=1)
                bar.update(len(rows[block]))
    return is_finite


def _read_transcript(path: Path, n: int, rows: np.ndarray) -> list[str]:
    """Return the lines of these rows without punctuation; the file must have n lines."""
    try:
        # Iterating over a file splits at line ends only; str.splitlines splits at U+2028, too.
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); convert it, for example with iconv.") from error
    n_lines = len(lines)
    while len(lines) > n and not lines[-1]:
        lines.pop()
    if len(lines) != n:
        raise ValueError(
            f"{path} has {n_lines} lines, the embeddings have {n} rows; expected one line for each row "
            "(an empty one where nothing was said)."
        )
    return [delete_punctuation(lines[row]) for row in rows]


def delete_punctuation(text: str) -> str:
    """Delete punctuation as the published code does, and collapse white space to single blanks."""
    return " ".join(text.translate(_DELETED).split())
