"""`keywords --min-probability`, and KeywordMapper with a minimum."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor, KeywordMapper
from tests.helpers.command_line import run

WORDS = ["red", "green", "blue", "dog", "cat"]


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    Y = rng.poisson(0.4, size=(n, 5))
    return (Y > 0) @ np.eye(5, 7) + 0.2 * rng.normal(size=(n, 7)), Y


@pytest.fixture(scope="module")
def flip() -> FLiPExtractor:
    return FLiPExtractor(vocabulary=WORDS, max_iter=3, tol=0.1, early_stopping=True, random_state=0).fit(
        *rows(400, 0)
    )


def test_mapper(flip: FLiPExtractor) -> None:
    X = rows(30, 1)[0]
    expected = flip.extract_keywords(X.astype(np.float32), min_probability=0.5, return_scores=True)
    mapper = pickle.loads(pickle.dumps(KeywordMapper(flip, min_probability=0.5, return_scores=True)))
    for pairs, of_mapper in zip(expected, mapper(X), strict=True):
        assert [word for word, _ in of_mapper] == [word for word, _ in pairs]
        np.testing.assert_allclose([p for _, p in of_mapper], [p for _, p in pairs], atol=1e-5)
    limited = KeywordMapper(flip, min_probability=0.5, top_k=1)(X)
    assert max(map(len, limited)) == 1
    with pytest.raises(ValueError, match="min_probability=2"):
        KeywordMapper(flip, min_probability=2)
    plain = FLiPExtractor(vocabulary=WORDS, max_iter=1, early_stopping=False).fit(*rows(50, 2))
    with pytest.raises(ValueError, match="no presence_ attributes"):
        KeywordMapper(plain, min_probability=0.5)


def test_command(flip: FLiPExtractor, tmp_path: Path) -> None:
    X = rows(20, 3)[0].astype(np.float32)
    flip.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    arguments = ["--model", str(tmp_path / "model"), "--embeddings", str(tmp_path / "X.npy"), "--json"]
    code, out, err = run("keywords", *arguments, "--min-probability", "0.6", "--scores")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    expected = flip.extract_keywords(X, min_probability=0.6)
    assert [line["keywords"] for line in lines] == expected
    assert all(score >= 0.6 - 1e-4 for line in lines for score in line["scores"])
    code, _, err = run("keywords", *arguments, "--min-probability", "60")
    assert code != 0
    assert "min_probability=60.0" in err
