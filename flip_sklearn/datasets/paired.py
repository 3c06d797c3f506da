"""Pairs of text and speech embeddings with their transcripts, in the layout of the published data."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flip_sklearn.vocabulary.tokenizer import Tokenizer

VIEWS = ("text", "speech")
SPLITS = ("train", "dev", "test")

_BLOCK_ELEMENTS = 2**22  # of a file that are looked at in one go
_CLEANED = Tokenizer(lowercase=False, strip_punctuation=True, fold=None, split=str.split)


@dataclass(frozen=True, eq=False)
class PairedEmbeddings:
    """Result of :func:`load_paired_embeddings`: m sentences, row by row.

    Attributes
    ----------
    views : dict of str to ndarray of shape (m, d)
        The embeddings "text" and "speech", in the files' type. Read-only memory maps of the files where
        every row is kept, else arrays in memory.
    texts : list of m str
        The transcripts without punctuation; "" where the file has an empty line.
    sim_scores : ndarray of shape (m,)
        Similarity of the two embeddings of each pair.
    rows : ndarray of shape (m,) of int
        Row of each pair in the files, ascending.
    n_dropped : int
        Pairs left out for their score or for a value that is not finite.
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
    """Load text and speech embeddings of the same sentences, and what was said.

    Reads the layout of the data set BUT-FIT/FLiP-data of Kesiraju et al. (2026, arXiv 2604.18109), four
    files for each split, whose row (or line) i is sentence i:

        {split}_text_embs.npy     (n, d)       {split}_transcript.txt     n lines, UTF-8
        {split}_speech_embs.npy   (n, d)       {split}_sim_scores.npy     (n,)

    Pairs are kept where the score is above ``sim_threshold`` and both embeddings are finite: the pairs
    that the published code evaluates on.

    Parameters
    ----------
    folder : path-like
        Where the files are.
    split : {"train", "dev", "test"}, default="train"
        Which of the published parts.
    sim_threshold : float, default=0.0
        Pairs with a score above it (not equal to it) are kept; those without a score (NaN) never are.
        ``-numpy.inf`` keeps every pair that has one.
    max_sentences : int, default=None
        At most so many of the pairs above the threshold, >= 1, spread evenly over the file; None for all.
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
        If an argument is not allowed, a file is missing, damaged or not what its name says, the files do
        not have one row for each sentence, or no pair is left.

    Notes
    -----
    From the transcripts goes what the published code deletes (ASCII punctuation, curly quotes, the em
    dash, characters without width), and white space is made single blanks. An empty line stays, as "":
    the rows of the files keep their numbers, ``fit`` gives such a row no weight, and accuracies skip it.

    Memory: where rows are left out, the others are copied, m d numbers for each view. To train on data
    that is larger than memory, keep every row and let the weights choose:
    ``load_paired_embeddings(folder, sim_threshold=-numpy.inf)`` gives memory maps (if all values are
    finite), and ``fit(data.views["text"], Y, sample_weight=data.sim_scores > 0)`` copies no more than a
    batch of them.

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
    if split not in SPLITS:
        raise ValueError(
            f"split={split!r} is not allowed; use one of {', '.join(map(repr, SPLITS))}."
        )
    if not _is_number(sim_threshold):
        raise ValueError(
            f"sim_threshold={sim_threshold!r} is not allowed; use a number, such as 0.0 (cosines are "
            "from -1 to 1), or -numpy.inf for every pair that has a score."
        )
    whole = isinstance(max_sentences, numbers.Integral) and not isinstance(max_sentences, bool)
    if max_sentences is not None and not (whole and max_sentences >= 1):
        raise ValueError(
            f"max_sentences={max_sentences!r} is not allowed; use an int >= 1, or None for all."
        )
    paths = _find(Path(folder), split)
    maps = {name: _embeddings(paths[name]) for name in VIEWS}
    n, d = maps[VIEWS[0]].shape
    for name, array in maps.items():
        if array.shape != (n, d):
            raise ValueError(
                f"{paths[name]} has shape {array.shape}, {paths[VIEWS[0]].name} has {(n, d)}; both must "
                "embed the same sentences, row by row, in one space."
            )
    scores = _open(paths["scores"])
    if scores.shape != (n,) or scores.dtype.kind != "f":
        raise ValueError(
            f"{paths['scores']} has shape {scores.shape} and type {scores.dtype}; wanted are the scores "
            f"of the {n} rows of {paths[VIEWS[0]].name} as floats, shape ({n},)."
        )
    above = np.flatnonzero(scores > sim_threshold)
    rows = above
    if max_sentences is not None and max_sentences < len(above):
        rows = above[np.arange(max_sentences) * len(above) // max_sentences]
    rows = rows[_finite(maps, rows, verbose)]
    if len(rows) == 0:
        best = np.max(scores, initial=-np.inf, where=~np.isnan(scores))
        raise ValueError(
            f"no pair of {paths['scores'].parent} is left for split={split!r}: of {n}, {len(above)} have a "
            f"score above sim_threshold={sim_threshold!r} (the highest is {best:.4g}), none of them with "
            "finite embeddings. Lower the threshold or look at the files."
        )
    drawn = len(above) if max_sentences is None else min(len(above), max_sentences)
    every = len(rows) == n
    return PairedEmbeddings(
        views={name: a if every else np.asarray(a[rows]) for name, a in maps.items()},
        texts=_texts(paths["transcript"], n, rows),
        sim_scores=np.array(scores[rows]),
        rows=rows,
        n_dropped=n - len(above) + drawn - len(rows),
    )


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and not math.isnan(value)


def _find(folder: Path, split: str) -> dict[str, Path]:
    """The four files of a split."""
    names = {name: f"{split}_{name}_embs.npy" for name in VIEWS}
    names |= {"transcript": f"{split}_transcript.txt", "scores": f"{split}_sim_scores.npy"}
    if not folder.is_dir():
        raise ValueError(f"folder={str(folder)!r} is no folder; pass the one with {names['text']}.")
    missing = [name for name in names.values() if not (folder / name).is_file()]
    if missing:
        there = sorted(path.name for path in folder.iterdir())
        listed = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        raise ValueError(
            f"{folder} has no {' and no '.join(missing)}; it has {listed or 'no file at all'}. Pass the "
            f"folder that has the four files of split={split!r}, or another split."
        )
    return {key: folder / name for key, name in names.items()}


def _open(path: Path) -> np.ndarray:
    """The array in a file as a read-only memory map; nothing in the file is ever executed."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, SyntaxError) as error:
        raise ValueError(
            f"{path} cannot be read as an array of numbers ({error}); wanted is a whole .npy file, as "
            "numpy.save writes it, without Python objects. Download or write it again."
        ) from error


def _embeddings(path: Path) -> np.ndarray:
    array = _open(path)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise ValueError(
            f"{path} has shape {array.shape} and type {array.dtype}; wanted are floats of shape (n, d), "
            "one row for each sentence."
        )
    return array


def _finite(maps: Mapping[str, np.ndarray], rows: np.ndarray, verbose: bool) -> np.ndarray:
    """Which of the rows are finite in every view."""
    finite = np.ones(len(rows), dtype=bool)
    step = max(1, _BLOCK_ELEMENTS // maps[VIEWS[0]].shape[1])
    with tqdm(
        total=len(rows) * len(maps), unit="row", desc="embeddings", delay=2, disable=not verbose
    ) as bar:
        for array in maps.values():
            for first in range(0, len(rows), step):
                block = slice(first, first + step)
                finite[block] &= np.isfinite(array[rows[block]]).all(axis=1)
                bar.update(len(rows[block]))
    return finite


def _texts(path: Path, n: int, rows: np.ndarray) -> list[str]:
    """The lines of these rows without punctuation; the file must have n lines."""
    try:
        # Iterating ends lines at line ends alone; str.splitlines would also cut at U+2028 and the like.
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 ({error}); convert it, for example with iconv."
        ) from error
    n_lines = len(lines)
    while len(lines) > n and not lines[-1]:
        lines.pop()
    if len(lines) != n:
        raise ValueError(
            f"{path} has {n_lines} lines, the embeddings have {n} rows; wanted is one line for each row "
            "(an empty one where nothing was said)."
        )
    return [" ".join(_CLEANED(lines[row])) for row in rows]
