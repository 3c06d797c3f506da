"""From the arguments of the command to the server of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flip_sklearn.cli import commands
from flip_sklearn.cli.explorer.page import import_gradio
from flip_sklearn.cli.explorer.readings import Corpus, Explorer
from flip_sklearn.cli.explorer.server import Server
from flip_sklearn.cli.files import describe
from flip_sklearn.cli.inputs import read_sentences
from flip_sklearn.cli.options import InputFiles
from flip_sklearn.cli.output import write_message


def make_server(
    source: tuple[str, str | None, str | None, dict[str, Any]],
    inputs: InputFiles,
    port: int,
    *,
    trust_encoder: bool,
    force: bool,
    **flip_params: Any,
) -> Server:
    """Return the server of a model's page.

    ``source`` has the model, its folder, its revision, and the parameters of the encoder. If the model's
    encoder is unknown or may not be used, and no other is named, the page reads vectors only.
    """
    import_gradio()  # a missing extra is named before a corpus is encoded
    model, subfolder, revision, encoder_params = source
    trust = {"trust_encoder": trust_encoder, "force": force}
    try:
        opened = commands.open_model(model, subfolder, revision, encoder_params, **trust, **flip_params)
    except ValueError as error:
        if "model" in encoder_params:
            raise
        opened = commands.open_model(model, subfolder, revision, None, **flip_params)
        write_message(f"the page reads vectors, not texts: {error}")
    explorer = Explorer(*opened)
    if explorer.encoder is not None:  # an encoder that is not that of the model is refused now
        explorer.encode("one")
    if inputs.text is not None:
        if explorer.encoder is None and inputs.embeddings is None:
            raise ValueError(
                f"the sentences of {describe(inputs.text)} need an encoder; pass their --embeddings, or name "
                "the encoder with --encoder."
            )
        sentences = read_sentences(inputs)
        X = sentences.embed(explorer.encoder)
        explorer.check_length(X.shape[1], f"{describe(inputs.embeddings or inputs.text)} holds vectors")
        explorer.corpus = Corpus(sentences.texts, X)
    return Server(explorer, Path(model).expanduser().name or model, port)
