"""load_paired_embeddings: selection of rows, their alignment, and errors for bad files."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn import FLiPExtractor, stack_views
from flip_sklearn.datasets import load_paired_embeddings

N, D = 12, 5
SCORES = np.linspace(-0.5, 0.6, N).astype(np.float32)


def write(folder: Path, split: str = "train", n: int = N, **changed: Any) -> Path:
    """Write a folder in the published layout: row i is i in text, -i in speech, with transcript "line i"."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.repeat(np.arange(n, dtype=np.float16)[:, None], D, axis=1)
    arrays = {"text_embs": rows, "speech_embs": -rows, "sim_scores": SCORES[:n]} | changed
    lines = arrays.pop("lines", [f"line {i}" for i in range(n)])
    for name, array in arrays.items():
        np.save(folder / f"{split}_{name}.npy", array, allow_pickle=True)
    text = "".join(f"{line}\n" for line in lines)
    (folder / f"{split}_transcript.txt").write_text(text, encoding="utf-8")
    return folder


def aligned(data: Any) -> bool:
    """Whether both views, the texts and the scores belong to ``data.rows``."""
    return (
        np.array_equal(data.views["text"][:, 0], data.rows)
        and np.array_equal(data.views["speech"][:, 0], -data.rows)
        and data.texts == [f"line {row}" for row in data.rows]
        and np.array_equal(data.sim_scores, SCORES[data.rows])
    )


# --- Selection of rows -----------------------------------------------------------------------


def test_all_rows_are_memory_maps_of_the_files(tmp_path: Path) -> None:
    data = load_paired_embeddings(write(tmp_path), sim_threshold=-np.inf)
    assert aligned(data)
    assert data.n_dropped == 0
    for view in data.views.values():
        assert isinstance(view, np.memmap)
        assert view.dtype == np.float16
        assert not view.flags.writeable


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_rows_with_scores_above_the_threshold_are_kept(tmp_path: Path, split: str) -> None:
    data = load_paired_embeddings(write(tmp_path, split), split)
    assert data.rows.tolist() == np.flatnonzero(SCORES > 0).tolist()
    assert aligned(data)
    assert data.n_dropped == N - len(data.rows)
    assert not isinstance(data.views["text"], np.memmap)


def test_score_equal_to_the_threshold_is_not_above_it(tmp_path: Path) -> None:
    folder = write(tmp_path, sim_scores=np.array([0.0, 0.5, 0.75, np.nan], np.float32), n=4)
    assert load_paired_embeddings(folder).rows.tolist() == [1, 2]
    assert load_paired_embeddings(folder, sim_threshold=0.5).rows.tolist() == [2]
    assert load_paired_embeddings(folder, sim_threshold=-np.inf).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("view", ["text_embs", "speech_embs"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_row_that_is_not_finite_in_one_view_is_dropped(tmp_path: Path, view: str, bad: float) -> None:
    folder = write(tmp_path)
    array = np.load(folder / f"train_{view}.npy")
    array[N - 2, 3] = bad
    np.save(folder / f"train_{view}.npy", array)
    data = load_paired_embeddings(folder, sim_threshold=-np.inf)
    assert data.rows.tolist() == [i for i in range(N) if i != N - 2]
    assert aligned(data)
    assert data.n_dropped == 1


@settings(max_examples=25, deadline=None)
@given(threshold=st.floats(-1, 0.55), limit=st.integers(1, 2 * N))
def test_max_sentences(tmp_path_factory, threshold: float, limit: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "some"
    if not folder.exists():
        write(folder)
    data = load_paired_embeddings(folder, sim_threshold=threshold, max_sentences=limit)
    above = np.flatnonzero(threshold < SCORES)
    assert aligned(data)
    assert len(data.rows) == min(limit, len(above))
    assert set(data.rows) <= set(above)
    assert (np.diff(data.rows) > 0).all()
    assert data.n_dropped == N - len(above)  # those beyond max_sentences do not count


# --- The texts -------------------------------------------------------------------------------


def test_punctuation_is_deleted_as_published(tmp_path: Path) -> None:
    lines = [
        "  Don't — stop,\tnow! ",
        "“New‐York”’s [best]",
        "a\u200bb\u200cc\u2060d",
        "...",
        "",
        "one\u2028two\x85three",
    ]
    # The published rule, written independently of the code.
    deleted = string.punctuation + "’“”‘\u200c\u200b\u2060—"
    expected = [re.sub(r"\s+", " ", "".join(c for c in line if c not in deleted)).strip() for line in lines]
    folder = write(tmp_path, n=6, lines=lines, sim_scores=np.ones(6))
    assert load_paired_embeddings(folder).texts == expected
    assert expected[0] == "Dont stop now"
    assert expected[3:5] == ["", ""]


def test_empty_line_keeps_the_rows_aligned(tmp_path: Path) -> None:
    lines = ["", *[f"line {i}" for i in range(1, N)]]
    data = load_paired_embeddings(write(tmp_path, lines=lines), sim_threshold=-np.inf)
    assert data.texts == lines
    assert data.rows.tolist() == list(range(N))


def test_blank_lines_at_the_end_are_ignored(tmp_path: Path) -> None:
    lines = [*[f"line {i}" for i in range(N)], "", " "]
    assert aligned(load_paired_embeddings(write(tmp_path, lines=lines)))


# --- Training --------------------------------------------------------------------------------


def test_fit_with_weights_is_fit_on_the_selected_rows(tmp_path: Path) -> None:
    """As the notes of the docstring say, for memory maps: rows of weight 0 are as good as absent."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, size=(200, 6))
    names = ["red", "green", "blue", "dog", "cat", "tree"]
    lines = [" ".join(np.repeat(names, row)) for row in counts]
    text = (counts @ rng.normal(size=(6, D))).astype(np.float32)
    folder = write(
        tmp_path, n=200, lines=lines, text_embs=text, speech_embs=text + 1,
        sim_scores=rng.uniform(-1, 1, size=200),
    )  # fmt: skip
    kept = load_paired_embeddings(folder)
    every = load_paired_embeddings(folder, sim_threshold=-np.inf)
    words = CountVectorizer(vocabulary=names)
    stacked = stack_views(kept.views, words.transform(kept.texts))
    assert stacked.X.shape == (2 * len(kept.rows), D)
    flip = FLiPExtractor(
        rank=None, solver="exact", max_iter=300, tol=0, precision="float64", random_state=0,
        early_stopping=False, batch_size=200,
    )  # fmt: skip
    few = flip.fit(kept.views["text"], words.transform(kept.texts)).predict_proba(text[:20])
    weighted = flip.fit(
        every.views["text"], words.transform(every.texts), sample_weight=every.sim_scores > 0
    ).predict_proba(text[:20])
    np.testing.assert_allclose(weighted, few, atol=2e-3)
    unweighted = flip.fit(every.views["text"], words.transform(every.texts))
    assert np.abs(unweighted.predict_proba(text[:20]) - few).max() > 0.01


# --- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"speech_embs": np.zeros((N - 1, D))}, r"train_speech_embs.npy has shape \(11, 5\).*\(12, 5\)"),
        ({"speech_embs": np.zeros((N, D + 1))}, r"train_speech_embs.npy has shape \(12, 6\)"),
        ({"text_embs": np.zeros(N)}, r"train_text_embs.npy has shape \(12,\).*expected.*\(n, d\)"),
        ({"text_embs": np.zeros((N, D), int)}, r"type int64; expected floats"),
        ({"text_embs": np.full((N, D), None)}, r"train_text_embs.npy cannot be read.*without Python"),
        ({"sim_scores": np.ones((N, 1))}, r"train_sim_scores.npy has shape \(12, 1\).*shape \(12,\)"),
        ({"sim_scores": np.ones(N + 1)}, r"train_sim_scores.npy has shape \(13,\)"),
        ({"sim_scores": np.full(N, -0.5)}, r"no pair.*0 have a score above.*highest is -0.5"),
        ({"lines": ["one"] * (N - 1)}, r"train_transcript.txt has 11 lines.*12 rows"),
        ({"lines": ["one"] * (N + 1)}, r"train_transcript.txt has 13 lines.*12 rows"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_paired_embeddings(write(tmp_path, **changed))


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x80\x04N."])
def test_file_that_is_not_an_array(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path)
    (folder / "train_speech_embs.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"train_speech_embs.npy cannot be read"):
        load_paired_embeddings(folder)


def test_incomplete_file(tmp_path: Path) -> None:
    path = write(tmp_path) / "train_text_embs.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"train_text_embs.npy cannot be read"):
        load_paired_embeddings(tmp_path)


def test_transcript_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path) / "train_transcript.txt"
    path.write_bytes(b"caf\xe9\n" * N)
    with pytest.raises(ValueError, match=r"train_transcript.txt is not UTF-8"):
        load_paired_embeddings(tmp_path)


def test_message_lists_missing_and_existing_files(tmp_path: Path) -> None:
    (write(tmp_path) / "train_sim_scores.npy").unlink()
    with pytest.raises(ValueError, match=r"no train_sim_scores.npy; it has train_speech_embs.npy"):
        load_paired_embeddings(tmp_path)
    with pytest.raises(ValueError, match=r"no dev_text_embs.npy and no dev_speech_embs.npy"):
        load_paired_embeddings(tmp_path, "dev")
    with pytest.raises(ValueError, match="is not a folder"):
        load_paired_embeddings(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("split", "validation"),
        ("sim_threshold", "0"),
        ("sim_threshold", np.nan),
        ("sim_threshold", True),
        ("max_sentences", 0),
        ("max_sentences", 1.5),
        ("max_sentences", True),
    ],
)
def test_bad_arguments(tmp_path: Path, argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{argument}={re.escape(repr(value))} is not allowed; use"):
        load_paired_embeddings(write(tmp_path), **{argument: value})
