"""The layout of the page, and what its buttons do."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import numpy as np

from flip_sklearn.cli.explorer import markup
from flip_sklearn.cli.explorer.readings import MAX_CHARACTERS, Explorer, write_vector
from flip_sklearn.parameters import install_command

# Of texts without a corpus.
EXAMPLES = (
    ("A brown dog runs along the beach.", "A puppy plays with a ball in the sand."),
    ("Two women drink coffee at a small table.", "The price of coffee rises again."),
    ("The old train crosses a bridge over the river.", ""),
)
_EXAMPLE_CHARACTERS = 60
_FILE_TYPES = [".npy", ".npz", ".parquet", ".safetensors"]
_ENCODED = 64  # texts whose vectors are kept


def import_gradio() -> Any:
    """Return Gradio.

    Raises
    ------
    ImportError
        If the extra is not installed; the message names it.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"the page needs Gradio; run {install_command('explore')}") from error
    return gradio


def make_page(explorer: Explorer, model_name: str) -> Any:
    """Return the Gradio Blocks of a model's page."""
    gr = import_gradio()
    actions = Actions(explorer)
    title = f"{model_name} - flip-sklearn explore"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.HTML(_introduction(explorer, model_name))
        vector = gr.State(None)
        file_rows = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                inputs: dict[str, tuple[list[Any], list[Any]]] = {}
                if explorer.encoder is not None:
                    with gr.Tab("Texts"):
                        inputs["text"] = _text_inputs(gr, "text")
                    with gr.Tab("Vectors"):
                        inputs["vector"] = _vector_inputs(gr, explorer, actions, file_rows)
                else:
                    inputs["vector"] = _vector_inputs(gr, explorer, actions, file_rows)
                kind = next(iter(inputs))
                examples = actions.examples(kind)
                if examples:
                    gr.HTML(markup.heading("Examples"))
                buttons = [gr.Button(label, size="sm") for label, _, _ in examples]
            with gr.Column(scale=3, min_width=320):
                results = [gr.HTML(elem_id=f"flip-{part}") for part in ("message", "words", "shared", "near")]
                with gr.Column(elem_id="flip-edit"):
                    gr.HTML(
                        markup.heading("Edit the first vector")
                        + markup.note(
                            "Add words to the vector, or remove some, and see what else changes. Use words "
                            "of the model, with commas between them."
                        )
                    )
                    with gr.Row():
                        add = gr.Textbox(label="Words to add", max_lines=1, elem_id="flip-add")
                        remove = gr.Textbox(label="Words to remove", max_lines=1, elem_id="flip-remove")
                    edit_button = gr.Button("Edit", variant="primary", elem_id="flip-edit-button")
                    edited = gr.HTML(elem_id="flip-edited")
        outputs = [*results, edited, vector]
        options = {"api_visibility": "private", "show_progress": "minimal", "concurrency_id": "model"}
        reads = {"text": actions.read_texts, "vector": actions.read_vectors}
        for name, (boxes, triggers) in inputs.items():
            gr.on(triggers, reads[name], boxes, outputs, **options)
        boxes = inputs[kind][0]
        if examples:
            for box, text in zip(boxes, examples[0][1:], strict=True):
                box.value = text
            page.load(reads[kind], boxes, outputs, **options)
        for button, (_, first, second) in zip(buttons, examples, strict=True):
            button.click(
                lambda first=first, second=second: (first, second), None, boxes, api_visibility="private"
            ).then(reads[kind], boxes, outputs, **options)
        gr.on(
            [edit_button.click, add.submit, remove.submit],
            actions.edit,
            [vector, add, remove],
            [edited],
            **options,
        )
    page.queue(max_size=32, default_concurrency_limit=1, api_open=False)
    return page


def _introduction(explorer: Explorer, model_name: str) -> str:
    flip = explorer.flip
    what = "a text or a vector" if explorer.encoder is not None else "a vector"
    return (
        f"<h1>What the model {markup.word(model_name)} reads</h1>"
        f"<p>Give {what}, or two, and see the words that the model reads from "
        f"{'the vector' if explorer.encoder is None else 'the vector of the text'}. It knows "
        f"{len(flip.vocabulary_):,} words and reads vectors of {explorer.n_dimensions:,} numbers.</p>"
    )


def _text_inputs(gr: Any, name: str) -> tuple[list[Any], list[Any]]:
    """Return the boxes for two texts, and the events that read them."""
    boxes = [
        gr.Textbox(label=label, info=info, lines=1, max_lines=6, elem_id=f"flip-{name}{number + 1}")
        for number, (label, info) in enumerate(
            [
                ("First text", f"At most {MAX_CHARACTERS:,} characters."),
                ("Second text", "Optional: to see what both share."),
            ]
        )
    ]
    button = gr.Button("Read the words", variant="primary", elem_id=f"flip-read-{name}")
    return boxes, [button.click, *(box.submit for box in boxes)]


def _vector_inputs(
    gr: Any, explorer: Explorer, actions: Actions, file_rows: Any
) -> tuple[list[Any], list[Any]]:
    """Return the boxes for two vectors, which a file can fill, and the events that read them."""
    boxes = [
        gr.Textbox(label=label, info=info, lines=2, max_lines=4, elem_id=f"flip-vector{number + 1}")
        for number, (label, info) in enumerate(
            [
                ("First vector", f"{explorer.n_dimensions:,} numbers, or a JSON array of them."),
                ("Second vector", "Optional: to see what both share."),
            ]
        )
    ]
    button = gr.Button("Read the words", variant="primary", elem_id="flip-read-vector")
    upload = gr.UploadButton(
        f"Take vectors from a file ({', '.join(_FILE_TYPES)})",
        file_types=_FILE_TYPES,
        size="sm",
        elem_id="flip-upload",
    )
    status = gr.HTML(elem_id="flip-file")
    with gr.Row():
        rows = [
            gr.Number(label=label, value=value, precision=0, minimum=0, elem_id=f"flip-row{number + 1}")
            for number, (label, value) in enumerate(
                [("Row of the first vector, from 0", 0), ("Row of the second vector", None)]
            )
        ]
    options = {"api_visibility": "private", "show_progress": "hidden"}
    upload.upload(actions.read_file, upload, [file_rows, status], **options).then(
        actions.take_rows, [file_rows, *rows], [*boxes, status], **options
    )
    gr.on([row.change for row in rows], actions.take_rows, [file_rows, *rows], [*boxes, status], **options)
    return boxes, [button.click]


def _shows_errors(n_outputs: int, place: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show the message of an error in the output ``place``, and empty the others."""

    def decorate(action: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(action)
        def run(*arguments: Any) -> Any:
            try:
                return action(*arguments)
            except (ValueError, FloatingPointError, ImportError) as error:
                text = str(error)
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                text = f"this did not work ({type(error).__name__}); the terminal of the command says more."
            shown: list[Any] = [""] * n_outputs
            shown[place] = markup.message(text)
            if n_outputs > 1 and place == 0:
                shown[-1] = None  # the vector
            return shown if n_outputs > 1 else shown[0]

        return run

    return decorate


class Actions:
    """What the events of the page compute: values of its components."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        # A text is encoded once when it is read, and not again when the other one changes.
        self._encode = lru_cache(_ENCODED)(explorer.encode)

    @_shows_errors(6)
    def read_texts(self, first: str, second: str) -> list[Any]:
        """Return the parts of the page about one or two texts, and the first vector."""
        return self._read(self._encode, "text", first, second)

    @_shows_errors(6)
    def read_vectors(self, first: str, second: str) -> list[Any]:
        """Return the parts of the page about one or two vectors, and the first vector."""
        return self._read(self._explorer.parse_vector, "vector", first, second)

    def _read(self, read: Callable[[str], np.ndarray], kind: str, first: str, second: str) -> list[Any]:
        explorer = self._explorer
        texts = [first or "", second or ""]
        if not texts[1].strip():
            del texts[1]
        rows = []
        titles = [f"First {kind}", f"Second {kind}"][: len(texts)]
        for title, text in zip(titles, texts, strict=True):
            try:
                rows.append(read(text))
            except ValueError as error:
                raise ValueError(f"{title}: {error}" if len(texts) > 1 else str(error)) from None
        words = [(explorer.keywords(x, use_bias=False), explorer.keywords(x, use_bias=True)) for x in rows]
        shared = near = ""
        if len(rows) > 1:
            shared = markup.similarity_section(explorer.explain(*rows))
        if explorer.corpus is not None:
            near = markup.neighbour_section(explorer.neighbours(rows[0]), len(explorer.corpus.texts))
        return ["", markup.keyword_section(titles, words, explorer.has_presence), shared, near, "", rows[0]]

    @_shows_errors(1)
    def edit(self, vector: np.ndarray | None, add: str, remove: str) -> str:
        """Return what adding and removing words changes."""
        if vector is None:
            raise ValueError("there is no vector to edit yet; read a text or a vector first.")
        result = self._explorer.edit(vector, add or "", remove or "")
        near = self._explorer.neighbours
        return markup.edit_section(result, near(vector), near(result.X[0]))

    @_shows_errors(2, place=1)
    def read_file(self, path: str) -> list[Any]:
        """Return the vectors of an uploaded file, which is deleted, with a remark, and the remark."""
        try:
            X = self._explorer.read_file(path)
        finally:
            with suppress(OSError):
                Path(path).unlink()
        note = markup.note(f"{Path(path).name}: {len(X):,} vectors.")
        return [(X, note), note]

    @_shows_errors(3, place=2)
    def take_rows(self, file: tuple[np.ndarray, str] | None, first: Any, second: Any) -> list[Any]:
        """Return vectors of the file as text, for the two boxes, and the remark about it."""
        gr = import_gradio()
        if not file:
            return [gr.skip()] * 3
        X, note = file
        texts = []
        for row in (first, second):
            if row is not None and not 0 <= row < len(X):
                raise ValueError(f"row {row} is not in the file; use a row from 0 to {len(X) - 1}.")
            texts.append("" if row is None else write_vector(X[int(row)]))
        return [*texts, note]

    def examples(self, kind: str) -> list[tuple[str, str, str]]:
        """Return a label and the content of both boxes for each example."""
        corpus = self._explorer.corpus
        if corpus is None:
            pairs = EXAMPLES if kind == "text" else ()
            return [(_shorten(" / ".join(filter(None, pair))), *pair) for pair in pairs]
        found = []
        n = len(corpus.texts)
        for row in dict.fromkeys((0, n // 3, 2 * n // 3)):
            near = [i for i, _ in corpus.nearest(np.asarray(corpus.X[row]), 2) if i != row]
            rows = [row, *near[:1]]
            content = [corpus.texts[i] if kind == "text" else write_vector(corpus.X[i]) for i in rows]
            found.append((_shorten(corpus.texts[row]), content[0], content[1] if near else ""))
        return found


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _EXAMPLE_CHARACTERS else f"{text[: _EXAMPLE_CHARACTERS - 3]}..."
