"""A small model of sentence-transformers whose embeddings are the mean of word vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def bag_of_words_model(
    folder: Path, words: Sequence[str], n_dimensions: int = 16, seed: int = 0
) -> tuple[Path, np.ndarray]:
    """Save the model; return its folder and the vectors (V, d) of the words."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    tokens = ["[UNK]", *words]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    vectors = np.random.default_rng(seed).normal(size=(len(tokens), n_dimensions)).astype(np.float32)
    model = SentenceTransformer(
        modules=[modules.StaticEmbedding(tokenizer, embedding_weights=vectors)], device="cpu"
    )
    model.save(str(folder))
    return folder, vectors[1:]
