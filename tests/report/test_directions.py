"""What the report says of directions: words that a view adds to every sentence, and principal axes."""

from __future__ import annotations

import numpy as np
import pytest

from flip_sklearn.report import Diagnosis, diagnose
from flip_sklearn.report.sections import make_sections
from tests.report.test_content import OPTIONS, shown
from tests.report.test_report import planted

pytestmark = pytest.mark.usefixtures("only_blank_pictures")


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    """A view that adds the pattern of one word to every sentence, one that adds noise, and an equal one."""
    views, texts = planted()
    X = views["text"]
    word = max(set(" ".join(texts).split()), key=" ".join(texts).split().count)
    has_word = np.array([word in text.split() for text in texts])
    shifted = X + X[has_word].mean(axis=0) - X[~has_word].mean(axis=0)
    noisy = X + 0.5 * np.random.default_rng(0).normal(size=X.shape)
    result = diagnose({"text": X, word: shifted, "noise": noisy, "equal": X.copy()}, texts, **OPTIONS)
    return result


def test_a_view_adds_the_planted_word(found: Diagnosis) -> None:
    """The view is named like the word."""
    added, noise, equal = found.directions.changes
    assert added.words.raised[0][0] == added.view == added.named()[0][0]
    assert added.agreement.value[0] == 1
    assert noise.named() == ([], [])  # negative controls
    assert equal.words == ([], [])
    texts = [finding.text for finding in found.findings if finding.about == "directions"]
    word = added.view
    assert texts[0].startswith(
        f"Embedded as “{word}” instead of “text”, at least two thirds of the sentences say more of “{word}”"
    )
    assert texts[1] == "No word is more or less likely in “noise” than in “text” in most sentences."
    assert texts[2].startswith("No word is more or less likely in “equal”")
    assert "The largest difference among the embeddings of “text”, with " in texts[3]


def test_the_section_has_tables_of_words(found: Diagnosis) -> None:
    (section,) = (part for part in make_sections(found) if part.id == "directions")
    titles = [block.title for block in section.blocks]  # an equal view has no words to show
    assert titles == [
        f"“{found.views[1]}” instead of “text”",
        "“noise” instead of “text”",
        "Principal axes of “text”",
    ]
    change = found.directions.changes[0]
    table = section.blocks[0].table
    assert [row[0] for row in table.rows] == [word for side in change.words for word, _ in side]
    assert table.rows[0][1:] == ("more", f"{change.words.raised[0][1]:.2f}", table.rows[0][3], "yes")
    assert table.rows[-1][1] == "less"
    axes = section.blocks[-1].table
    variance = found.directions.variance
    assert len(axes.rows) == len(variance) == 3
    assert variance.tolist() == sorted(variance, reverse=True)
    assert 0 < variance.sum() <= 1
    assert "In which directions do embeddings differ?" in shown(found)
