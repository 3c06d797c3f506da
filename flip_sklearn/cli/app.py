"""The command ``flip-sklearn``: fit, keywords, evaluate and report.

Results are written to standard output; progress, warnings and errors to standard error.

    exit code  0    success
               1    failure; a line on standard error names the reason
               2    invalid command line
             130    interrupted with Ctrl-C (``fit`` has saved its best pass, if there was one)
             141    the reader of standard output has closed it (``| head``)

Only typer and the standard library are imported until a valid command runs, so that help, completion and
usage errors load neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib.metadata
import io
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

from flip_sklearn.cli.options import (
    Cache,
    Device,
    Encoder,
    EncoderOptionPairs,
    Entities,
    ForceEncoder,
    Json,
    Model,
    Quiet,
    Revision,
    Seed,
    Subfolder,
    TopK,
    TrustEncoder,
    check_standard_input,
    parse_encoder_options,
    parse_named_files,
    parse_rank,
)
from flip_sklearn.cli.output import (
    format_keywords,
    format_metrics,
    format_summary,
    is_user_error,
    show_warning,
    write,
    write_message,
)

_DEBUG: ContextVar[bool] = ContextVar("debug", default=False)

app = typer.Typer(
    name="flip-sklearn",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        write(f"flip-sklearn {importlib.metadata.version('flip-sklearn')}\n")
        raise typer.Exit


@app.callback(help="Read words off sentence embeddings (FLiP, arXiv 2604.18109).")
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
) -> None:
    _DEBUG.set(debug)


@app.command("fit", no_args_is_help=True)
def _fit(
    text: Annotated[
        str, typer.Option("--text", "-t", metavar="FILE|-", help="One sentence per line, UTF-8.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model.")],
    encoder: Encoder = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npy",
            help="Embeddings (n, d) of the lines, instead of an encoder; may be larger than memory.",
        ),
    ] = None,
    encoder_option: EncoderOptionPairs = None,
    cache: Cache = None,
    rank: Annotated[
        str, typer.Option(help="A number up to d; auto is min(512, d); full is LiP, not factorized.")
    ] = "auto",
    l1_strength: Annotated[
        float, typer.Option(min=0, help="A larger value gives more zeros in the word embeddings.")
    ] = 1e-2,
    max_iter: Annotated[int, typer.Option(min=1, help="Maximum number of passes over the sentences.")] = 20,
    max_words: Annotated[
        int, typer.Option(min=1, help="Maximum number of words; the most frequent ones are used.")
    ] = 6500,
    min_count: Annotated[
        int | None,
        typer.Option(min=1, help="Minimum count of a word; the default, 2 to 20, grows with the corpus."),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help='Also learn pairs such as "new york" as one concept.')
    ] = False,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="latin|indic|whitespace",
            help="How text is split into words; the default is latin or indic (any script with "
            "combining marks), depending on the text.",
        ),
    ] = None,
    test_share: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of sentences held out for evaluation; 0 for none.")
    ] = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model in the folder.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on a text file and save it.

    The encoder computes an embedding of each line; the model learns to read the words of the line off it.
    A tenth of the sentences is held out to measure the accuracy. Ctrl-C during training saves the best
    pass so far.

    \b
    flip-sklearn fit --text corpus.txt --encoder sentence-transformers/LaBSE --out model
    flip-sklearn fit --text corpus.txt --embeddings corpus.npy --out model --rank 256
    zcat corpus.gz | flip-sklearn fit --text - --out model --cache ~/.cache/vectors
    """
    check_standard_input(text, embeddings)
    if words not in (None, "latin", "indic", "whitespace"):
        raise typer.BadParameter(f"--words {words!r} is not known; use latin, indic or whitespace.")
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, embeddings)
    flip_params = {
        "rank": parse_rank(rank),
        "l1_strength": l1_strength,
        "max_iter": max_iter,
        "random_state": seed,
        "device": device,
        "verbose": int(not quiet),
    }
    vectorizer_params = {
        "max_words": max_words,
        "min_count": min_count,
        "bigrams": pairs,
        "token_pattern": words,
        "verbose": not quiet,
    }
    from flip_sklearn.cli import commands

    commands.check_output_folder(out, force)
    summary, interrupted = commands.fit(
        text, embeddings, out, encoder_params, flip_params, vectorizer_params, test_share
    )
    write(format_summary(summary, as_json))
    if interrupted:
        write_message(f"interrupted; the best pass so far is saved in {out}")
        raise typer.Exit(130)


@app.command("keywords", no_args_is_help=True)
def _keywords(
    model: Model,
    text: Annotated[
        str | None, typer.Option("--text", "-t", metavar="FILE|-", help="One sentence per line.")
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option(metavar="FILE.npy|-", help="Embeddings (n, d), one row per sentence.")
    ] = None,
    top_k: TopK = 10,
    bias: Annotated[
        bool,
        typer.Option(
            "--bias/--no-bias",
            help="With bias the most likely words; without, words that are specific to the sentence.",
        ),
    ] = True,
    scores: Annotated[bool, typer.Option("--scores", help="Print the score of each word, in nats.")] = False,
    as_json: Json = False,
    encoder: Encoder = None,
    encoder_option: EncoderOptionPairs = None,
    trust_encoder: TrustEncoder = False,
    force: ForceEncoder = False,
    cache: Cache = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Print the words of each sentence, best first: one line per line, in order.

    Words are separated by tabs (concepts may contain blanks); a blank line gives a blank line. With --scores
    each field is the word, a blank and its score. With --json each line is {"line": 1, "keywords": [...]},
    and "scores" with --scores. Files of any length are processed in bounded memory.

    \b
    flip-sklearn keywords --model model --text sentences.txt
    echo "a dog runs on the beach" | flip-sklearn keywords -m model -t - -k 5 --no-bias
    flip-sklearn keywords -m BUT-FIT/FLiP-en-sonar --subfolder mcv15/rank-512 --embeddings speech.npy
    """
    if (text is None) == (embeddings is None):
        raise typer.BadParameter("pass either --text or --embeddings.")
    # The encoder is quiet, since the command has a progress bar of its own.
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, True, embeddings)
    from flip_sklearn.cli import commands

    flip, _, text_encoder = commands.open_model(
        *(model, subfolder, revision, encoder_params), trust_encoder=trust_encoder, force=force, device=device
    )
    blocks = commands.keywords(flip, text_encoder, text, embeddings, top_k, bias, not quiet)
    first_line = 1
    for rows in blocks:
        write(format_keywords(rows, first_line, scores, as_json))
        first_line += len(rows)


@app.command("evaluate", no_args_is_help=True)
def _evaluate(
    model: Model,
    text: Annotated[
        str,
        typer.Option("--text", "-t", metavar="FILE|-", help="Sentences that the model was not trained on."),
    ],
    embeddings: Annotated[
        str | None,
        typer.Option(metavar="FILE.npy", help="Embeddings (n, d) of the lines, instead of encoding."),
    ] = None,
    entities: Entities = None,
    top_k: TopK = 10,
    as_json: Json = False,
    encoder: Encoder = None,
    encoder_option: EncoderOptionPairs = None,
    trust_encoder: TrustEncoder = False,
    force: ForceEncoder = False,
    cache: Cache = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure how many of the words of sentences a model finds in their embeddings.

    Keyword accuracy extracts as many words as the sentence has and counts those that are in it. Each
    value is printed with its standard error and the number of sentences without any word of the model,
    which are skipped.

    \b
    flip-sklearn evaluate --model model --text test.txt
    flip-sklearn evaluate -m model -t test.txt --embeddings test.npy --entities names.jsonl --json
    """
    check_standard_input(text, embeddings, entities)
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, embeddings)
    from flip_sklearn.cli import commands

    flip, vectorizer, text_encoder = commands.open_model(
        *(model, subfolder, revision, encoder_params),
        trust_encoder=trust_encoder,
        force=force,
        device=device,
        use_bias=True,
        verbose=int(not quiet),
    )
    metrics = commands.evaluate(flip, vectorizer, text_encoder, text, embeddings, entities, top_k)
    write(format_metrics(metrics, as_json))


@app.command("report", no_args_is_help=True)
def _report(
    text: Annotated[
        list[str],
        typer.Option(
            "--text",
            "-t",
            metavar="[NAME=]FILE",
            help="One sentence per line; repeated with names (en=en.txt de=de.txt) for translations.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.html", help="The page.")],
    embeddings: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE.npy",
            help="Embeddings of the lines; repeated for views such as text=a.npy speech=b.npy.",
        ),
    ] = None,
    encoder: Encoder = None,
    encoder_option: EncoderOptionPairs = None,
    cache: Cache = None,
    entities: Entities = None,
    title: Annotated[str | None, typer.Option(help="The title of the page.")] = None,
    ranks: Annotated[
        bool, typer.Option("--ranks/--no-ranks", help="Accuracy for several ranks, one fit for each.")
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Write an HTML page that shows which words the embeddings contain: tables, pictures and findings.

    The findings are also printed. A fifth of the sentences is held out for evaluation.

    \b
    flip-sklearn report --text corpus.txt --out report.html
    flip-sklearn report -t en=en.txt -t de=de.txt -e sentence-transformers/LaBSE -o report.html
    flip-sklearn report -t spoken.txt --embeddings text=t.npy --embeddings speech=s.npy -o report.html
    """
    texts = parse_named_files(text, "--text")
    views = parse_named_files(embeddings or [], "--embeddings")
    check_standard_input(*texts.values(), *views.values(), entities)
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, embeddings)
    diagnose_params = {
        "title": title,
        "ranks": None if ranks else False,
        "random_state": seed,
        "verbose": int(not quiet),
    }
    from flip_sklearn.cli import commands

    for finding in commands.report(texts, views, out, encoder_params, entities, diagnose_params):
        write(f"{finding}\n")
    write_message(f"saved {out}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and exit with its exit code.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments; those of the process when None.

    Raises
    ------
    SystemExit
        Always, with the exit code.
    """
    _DEBUG.set(False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # accept words of any language, whatever the locale is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            app(args=argv, prog_name="flip-sklearn")
        except KeyboardInterrupt:
            write_message("interrupted")
            sys.exit(130)
        except Exception as error:
            if _DEBUG.get() or not is_user_error(error):
                traceback.print_exc()
            write_message(f"error: {' '.join(str(error).split()) or type(error).__name__}")
            sys.exit(1)
