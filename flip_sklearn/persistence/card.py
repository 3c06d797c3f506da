"""The model card: what a stored model was trained on, how good it is, how to use it."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import scipy.sparse as sp

_CARD = """---
library_name: flip-sklearn
license: {license}
tags:
- flip
- interpretability
- keyword-extraction
- sentence-embeddings
---

# FLiP: words read off sentence embeddings

A low-rank log-linear model that reads words straight off the embedding of a sentence,
`softmax(b + A B (x - mu))`, made with flip-sklearn.

## What it reads

{facts}

## How to use it

```python
from flip_sklearn import FLiPExtractor

flip = FLiPExtractor.from_pretrained({source})
flip.extract_keywords(embeddings, top_k=10)  # embeddings (n, {d}) of the same encoder
```

`flip.set_params(use_bias=False)` switches from likely words to telling ones.

## The files

`model.safetensors` ({tensors}) and `vocab.json` (word to row) are in the published layout of FLiP,
so other code reads them: the scores of an embedding `s` are `{formula}`, with the mean embedding inside `b`.
`flip_sklearn.safetensors` and `config.json` hold what flip-sklearn needs to get exactly this model back.

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


def model_card(
    model: Any,
    source: str,
    *,
    trained_on: str | None = None,
    encoder: str | None = None,
    license: str | None = None,
) -> str:
    """Markdown with the front matter of the hub; what is not known is said to be so, or left out.

    Raises
    ------
    ValueError
        If an argument is no text, or ``license`` is not an identifier such as "mit".
    """
    for name, text in (("trained_on", trained_on), ("encoder", encoder), ("license", license)):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name}={text!r} is not allowed; use text, or None.")
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", license):
        raise ValueError(
            f"license={license!r} is not allowed; use an identifier such as 'mit' or 'cc-by-4.0'."
        )
    facts = "\n".join(f"| {name} | {value} |" for name, value in _facts(model, encoder))
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


def is_factorized(model: Any) -> bool:
    """Whether A B is stored as two factors; LiP's square B is no factor but a map of its training."""
    square = model.projection_.shape[0] == model.projection_.shape[1]
    return not (model.rank is None and square)


def _cell(text: str) -> str:
    """Text on one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _facts(model: Any, encoder: str | None) -> list[tuple[str, str]]:
    A = model.word_embeddings_
    entries = A.shape[0] * A.shape[1]
    zeros = 1 - (A.count_nonzero() if sp.issparse(A) else np.count_nonzero(A)) / entries
    rank = f"{model.rank_}" if is_factorized(model) else "none (LiP)"
    facts = [
        ("embeddings of", _cell(encoder or "unknown")),
        ("embedding dimensions", f"{model.n_features_in_:,}"),
        ("words", f"{len(model.vocabulary_):,}"),
        ("rank", f"{rank}; {zeros:.0%} of the word embeddings are zero"),
    ]
    moments = getattr(model, "_moments", None)
    if moments is not None:
        facts.append(("training rows", f"{moments.weight:,.0f}"))
        facts.append(("words of text", f"{model.word_counts_.sum():,.0f}"))
    if model.best_iter_:
        at = model.best_iter_ - 1
        accuracy = model.history_["validation_accuracy"][at]
        if not math.isnan(accuracy):
            nll = model.history_["validation_nll"][at]
            found = f"{accuracy:.1%} with bias"
            facts.append(("words found in held-out rows (keyword accuracy)", found))
            facts.append(("perplexity of held-out rows", f"{math.exp(min(nll, 700)):,.0f}"))
    return facts
