"""The model card: training data, accuracy and use of a stored model, in Markdown."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from typing import Any

import numpy as np
import scipy.sparse as sp

from flip_sklearn.parameters import local_folder_name, refusal
from flip_sklearn.persistence.hub import REPOSITORY_ID
from flip_sklearn.persistence.model import is_factorized
from flip_sklearn.persistence.ownership import sign_card

FOLDER_IN_CARD = "the/path/of/this/folder"
_CARD = """---
library_name: flip-sklearn
license: {license}
{base_model}tags:
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

{of_texts}On the command line:

```bash
flip-sklearn keywords {options}
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
_OF_TEXTS = """Of texts, with the encoder that the folder names:

```python
from flip_sklearn import TextKeywordExtractor

TextKeywordExtractor.from_pretrained({source}).extract_keywords(["a text", "another one"])
```

"""


def model_card(model: Any, info: dict[str, str | None], place: tuple[str, Any], reads_texts: bool) -> str:
    """Return the card with the front matter of the hub; unknown facts are "unknown" or left out.

    ``place`` is the folder or repository, and the subfolder or None, that the examples load;
    ``reads_texts`` says that the folder names the encoder.
    """
    for name, text in info.items():
        if text is not None and not isinstance(text, str):
            raise refusal(name, text, "text, or None")
    license, trained_on, encoder = info["license"], info["trained_on"], info["encoder"]
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", license):
        raise refusal("license", license, "an identifier such as 'mit' or 'cc-by-4.0'")
    is_on_hub = encoder is not None and REPOSITORY_ID.fullmatch(encoder) is not None
    facts = "\n".join(f"| {name} | {value} |" for name, value in _facts(model, encoder))
    if trained_on is not None:
        facts += f"\n\nTrained on: {trained_on.strip()}"
    factorized = is_factorized(model)
    source = ", subfolder=".join(json.dumps(str(part), ensure_ascii=False) for part in place if part)
    options = " --subfolder ".join(shlex.quote(str(part)) for part in place if part)
    embeddings = f"--encoder {encoder} --text sentences.txt" if is_on_hub else "--embeddings embeddings.npy"
    card = _CARD.format(
        license=_yaml(license or "unknown"),
        base_model=f"base_model: {_yaml(str(encoder))}\n" if is_on_hub else "",
        facts=f"| | |\n|---|---|\n{facts}",
        source=source,
        of_texts=_OF_TEXTS.format(source=source) if reads_texts else "",
        options=f"--model {options} {embeddings}",
        d=model.n_features_in_,
        tensors="`E1` (V, r), `E2` (r, d), `b` (V, 1)" if factorized else "`E` (V, d), `b` (V, 1)",
        formula="E1 E2 s + b" if factorized else "E s + b",
    )
    return sign_card(card)


def public_name(encoder: str) -> str:
    """Return the name of an encoder without the path of a folder on this machine."""
    path = encoder.removeprefix("file://")
    is_path = path != encoder or re.match(r"[~/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]", path)
    if not is_path and not os.path.isdir(encoder):
        return encoder
    return local_folder_name(re.split(r"[/\\]+", path.rstrip("/\\"))[-1])


def _yaml(text: str) -> str:
    """Return text as a YAML value, in quotes if it could be read as something else, as "no" or "1.0"."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9./_-]*", text) and not re.fullmatch(
        "y|yes|n|no|true|false|on|off|null", text, re.IGNORECASE
    )
    return text if is_plain else json.dumps(text)


def _table_cell(text: str) -> str:
    """Return text on one line, without characters that have a meaning in a Markdown table."""
    return re.sub(r"([\\|`*\[\]<>])", r"\\\1", " ".join(text.split()))


def _facts(model: Any, encoder: str | None) -> list[tuple[str, str]]:
    """Return the rows of the table of facts."""
    A = model.word_embeddings_
    nonzeros = A.count_nonzero() if sp.issparse(A) else np.count_nonzero(A)
    zeros = 1 - nonzeros / (A.shape[0] * A.shape[1])
    rank = f"{model.rank_}" if is_factorized(model) else "none (LiP)"
    facts = [
        ("encoder", _table_cell(encoder or "unknown")),
        ("embedding dimensions", f"{model.n_features_in_:,}"),
        ("words", f"{len(model.vocabulary_):,}"),
        ("rank", f"{rank}; {zeros:.0%} of the word embeddings are zero"),
    ]
    n_extended = len(getattr(model, "extended_words_", ()))
    if n_extended:
        facts.append(("words added after training", f"{n_extended:,}"))
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
