"""The model card: training data, accuracy and use of a stored model, in Markdown."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.parameters import refusal
from flip_sklearn.persistence.model import is_factorized

_CARD = """---
library_name: flip-sklearn
license: {license}
tags:
- flip
- interpretability
- keyword-extraction
- sentence-embeddings
---

# FLiP: keywords from sentence embeddings

A low-rank log-linear model that predicts the words of a sentence from its embedding x,
`softmax(b + A B (x - mu))`, trained with flip-sklearn.

## Model

{facts}

## Use

```python
from flip_sklearn import FLiPExtractor

flip = FLiPExtractor.from_pretrained({source})
flip.extract_keywords(embeddings, top_k=10)  # embeddings (n, {d}) of the same encoder
```

With `flip.set_params(use_bias=False)` words are ranked by how much more likely the embedding makes them than
the average embedding, instead of by their probability.

## Files

`model.safetensors` ({tensors}) and `vocab.json` (word to row) have the published layout of FLiP, which
other code reads: the scores of an embedding `s` are `{formula}`; `b` contains the term of the mean embedding.
`flip_sklearn.safetensors` and `config.json` contain what flip-sklearn needs to restore the model exactly.

## Citation

```bibtex
@misc{{kesiraju2026flip,
  title         = {{{{FLiP}}: Towards understanding and interpreting multimodal multilingual
                   sentence embeddings}},
  author        = {{Kesiraju, Santosh and Yusuf, Bolaji and Sedl{{\\'a}}{{\\v{{c}}}}ek, {{\\v{{S}}}}imon and
                   Plchot, Old{{\\v{{r}}}}ich and Schwarz, Petr}},
  year          = {{2026}},
  eprint        = {{2604.18109}},
  archivePrefix = {{arXiv}},
  primaryClass  = {{cs.CL}},
}}
```
"""


def model_card(model: Any, source: str, info: dict[str, str | None]) -> str:
    """Return the card with the front matter of the hub; unknown facts are "unknown" or left out."""
    for name, text in info.items():
        if text is not None and not isinstance(text, str):
            raise refusal(name, text, "text, or None")
    license, trained_on = info["license"], info["trained_on"]
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", license):
        raise refusal("license", license, "an identifier such as 'mit' or 'cc-by-4.0'")
    facts = "\n".join(f"| {name} | {value} |" for name, value in _facts(model, info["encoder"]))
    if trained_on is not None:
        facts += f"\n\nTrained on: {trained_on.strip()}"
    factorized = is_factorized(model)
    return _CARD.format(
        license=license or "unknown",
        facts=f"| | |\n|---|---|\n{facts}",
        source=source,
        d=model.n_features_in_,
        tensors="`E1` (V, r), `E2` (r, d), `b` (V, 1)" if factorized else "`E` (V, d), `b` (V, 1)",
        formula="E1 E2 s + b" if factorized else "E s + b",
    )


def _facts(model: Any, encoder: str | None) -> list[tuple[str, str]]:
    """Return the rows of the table of facts."""
    A = model.word_embeddings_
    nonzeros = A.count_nonzero() if sp.issparse(A) else np.count_nonzero(A)
    zeros = 1 - nonzeros / (A.shape[0] * A.shape[1])
    rank = f"{model.rank_}" if is_factorized(model) else "none (LiP)"
    facts = [
        ("encoder", " ".join((encoder or "unknown").split()).replace("|", "\\|")),
        ("embedding dimensions", f"{model.n_features_in_:,}"),
        ("words", f"{len(model.vocabulary_):,}"),
        ("rank", f"{rank}; {zeros:.0%} of the word embeddings are zero"),
    ]
    moments = getattr(model, "_moments", None)
    if moments is not None:
        facts.append(("training rows", f"{moments.weight:,.0f}"))
        facts.append(("word occurrences", f"{model.word_counts_.sum():,.0f}"))
    if model.best_iter_:
        best_pass = model.best_iter_ - 1
        accuracy = model.history_["validation_accuracy"][best_pass]
        if not math.isnan(accuracy):
            nll = model.history_["validation_nll"][best_pass]
            facts.append(("keyword accuracy on held-out rows", f"{accuracy:.1%} with bias"))
            facts.append(("perplexity on held-out rows", f"{math.exp(min(nll, 700)):,.0f}"))
    return facts
