"""The command ``flip-sklearn``: fit, keywords, find, compare, evaluate, report and explore.

Results are written to standard output; progress, warnings and errors to standard error.

    exit code  0    success
               1    failure; a line on standard error names the reason
               2    invalid command line
             130    interrupted with Ctrl-C (``fit`` has saved its best pass, if there was one; ``explore``
                    ends in this way)
             141    the reader of standard output has closed it (``| head``)

Only typer and the standard library are imported until a valid command runs, so that help, completion and
usage errors load neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib.metadata
import io
import shlex
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
    Column,
    Device,
    Embeddings,
    Encoder,
    EncoderOptionPairs,
    Entities,
    ForceEncoder,
    InputFiles,
    Json,
    MaxIter,
    MinCount,
    Model,
    OptionalEmbeddings,
    Quiet,
    Revision,
    Seed,
    Subfolder,
    TopK,
    TrustEncoder,
    TwoEmbeddings,
    ViewEmbeddings,
    check_standard_input,
    parse_encoder_options,
    parse_named_files,
    parse_query,
    parse_rank,
)
from flip_sklearn.cli.output import (
    abandon_output,
    format_comparison,
    format_keywords,
    format_metrics,
    format_rows,
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


@app.command("fit", short_help="Train a model on a text file and save it.", no_args_is_help=True)
def _fit(
    text: Annotated[
        str, typer.Option("--text", "-t", metavar="FILE|-", help="One sentence per line, UTF-8.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model.")],
    column: Column = None,
    encoder: Encoder = None,
    embeddings: OptionalEmbeddings = None,
    encoder_option: EncoderOptionPairs = None,
    cache: Cache = None,
    word_features: Annotated[
        bool,
        typer.Option(
            "--word-features",
            help="Encode the words, too: what they mean helps to read rare ones. With --embeddings, name "
            "their --encoder.",
        ),
    ] = False,
    rank: Annotated[
        str,
        typer.Option(
            metavar="N|auto|full", help="A number up to d; auto is min(512, d); full is LiP, not factorized."
        ),
    ] = "auto",
    l1_strength: Annotated[
        float,
        typer.Option(min=0, metavar="NUMBER", help="A larger value gives more zeros in the word embeddings."),
    ] = 1e-2,
    max_iter: MaxIter = 20,
    max_words: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Maximum number of words; the most frequent ones are used."),
    ] = 6500,
    min_count: MinCount = None,
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
        float,
        typer.Option(
            min=0, max=0.9, metavar="SHARE", help="Share of sentences held out for evaluation; 0 for none."
        ),
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
    flip-sklearn fit --text t.parquet --column text --embeddings t.parquet::embedding --out model
    zcat corpus.gz | flip-sklearn fit --text - --out model --cache ~/.cache/vectors
    """
    out = out.expanduser()
    check_standard_input(text, embeddings)
    if words not in (None, "latin", "indic", "whitespace"):
        raise typer.BadParameter(f"--words {words!r} is not known; use latin, indic or whitespace.")
    if word_features and embeddings is not None and encoder is None:
        raise typer.BadParameter(
            "--word-features encodes the words; name the encoder of the embeddings with --encoder."
        )
    encoded_before = None if word_features else embeddings
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, encoded_before)
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
        InputFiles(text, embeddings, column),
        out,
        encoder_params,
        flip_params,
        vectorizer_params,
        test_share,
        word_features=word_features,
    )
    write(format_summary(summary, as_json))
    if not as_json:
        write_message(f"next: flip-sklearn keywords --model {shlex.quote(str(out))} --text FILE")
    if interrupted:
        write_message(f"interrupted; the best pass so far is saved in {out}")
        raise typer.Exit(130)


@app.command("keywords", short_help="Print the words of each sentence, best first.", no_args_is_help=True)
def _keywords(
    model: Model,
    text: Annotated[
        str | None, typer.Option("--text", "-t", metavar="FILE|-", help="One sentence per line.")
    ] = None,
    column: Column = None,
    embeddings: OptionalEmbeddings = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", "-k", min=1, metavar="N", help="Words per line; 10, or no limit with a minimum."
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Only words that occur in the sentence with at least this probability."
        ),
    ] = None,
    bias: Annotated[
        bool,
        typer.Option(
            "--bias/--no-bias",
            help="Without bias words that are specific to the sentence; with, the most likely words.",
        ),
    ] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Print the score of each word, in nats.")] = False,
    add_words: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="One word per line: words that training never saw, which the encoder reads for the model.",
        ),
    ] = None,
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
    each field is the word, a blank and its score, or with --min-probability its probability. With --json each
    line is {"line": 1, "keywords": [...]}, and "scores" with --scores. Files of any length are processed in
    bounded memory.

    \b
    flip-sklearn keywords --model model --text sentences.txt
    flip-sklearn keywords --model model --text sentences.txt --add-words names.txt
    echo "a dog runs on the beach" | flip-sklearn keywords -m model -t - -k 5
    flip-sklearn keywords -m BUT-FIT/FLiP-en-sonar --subfolder mcv15/rank-512 --embeddings speech.npy
    flip-sklearn keywords --model model --embeddings table.parquet::embedding
    """
    if (text is None) == (embeddings is None):
        raise typer.BadParameter("pass either --text or --embeddings.")
    if column is not None and text is None:
        raise typer.BadParameter("--column is for --text; leave it out with --embeddings.")
    check_standard_input(text, embeddings, add_words)
    encoded_before = None if add_words else embeddings
    # The encoder is quiet, since the command has a progress bar of its own.
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, True, encoded_before)
    from flip_sklearn.cli import commands

    flip, vectorizer, text_encoder = commands.open_model(
        *(model, subfolder, revision, encoder_params), trust_encoder=trust_encoder, force=force, device=device
    )
    if add_words is not None:
        flip = commands.add_words(flip, vectorizer, text_encoder, add_words)
    inputs = InputFiles(text, embeddings, column)
    top_k = 10 if top_k is None and min_probability is None else top_k
    mapper = commands.make_mapper(flip, top_k, bias, min_probability)
    blocks = commands.keywords(mapper, text_encoder, inputs, not quiet)
    first_line = 1
    for rows in blocks:
        write(format_keywords(rows, first_line, scores, as_json))
        first_line += len(rows)


@app.command("find", short_help="Find the embeddings whose texts have given words.", no_args_is_help=True)
def _find(
    model: Model,
    embeddings: Embeddings,
    query: Annotated[
        list[str],
        typer.Argument(metavar="QUERY", help='Words that occur and, with -, do not: "dog beach -snow".'),
    ],
    text: Annotated[
        str | None, typer.Option("--text", "-t", metavar="FILE|-", help="The sentences, to show those found.")
    ] = None,
    column: Column = None,
    any_word: Annotated[
        bool, typer.Option("--any", help="Rows with any of the words; default: all.")
    ] = False,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, metavar="N", help="Rows to find.")] = 10,
    scores: Annotated[bool, typer.Option("--scores", help="Print the probability of each row.")] = False,
    as_json: Json = False,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Find the embeddings whose texts have given words, where the texts may be unknown.

    Prints the numbers of the rows, counted from 0, best first, and with --text the sentences, separated by
    tabs. A word of several parts is written in double quotes: '"new york" -taxi'. A query that starts with a
    minus comes after --. With --scores, and always with --json, the probability that the words occur, and
    that those with a minus do not. Embeddings of any number are processed in bounded memory.

    \b
    flip-sklearn find --model model --embeddings X.npy "dog beach -snow"
    flip-sklearn find -m model --embeddings X.npy --text sentences.txt --any "dog cat"
    """
    if column is not None and text is None:
        raise typer.BadParameter("--column is for --text; leave it out.")
    check_standard_input(text, embeddings)
    words = parse_query(query)
    from flip_sklearn.cli import commands

    flip, vectorizer, _ = commands.open_model(
        *(model, subfolder, revision, None), device=device, verbose=int(not quiet)
    )
    inputs = InputFiles(text, embeddings, column)
    rows = commands.find(flip, vectorizer, inputs, words, "any" if any_word else "all", top_k)
    write(format_rows(rows, scores, as_json))


@app.command("compare", short_help="Words that one set of embeddings has more often.", no_args_is_help=True)
def _compare(
    model: Model,
    embeddings: TwoEmbeddings,
    groups: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A.txt B.txt",
            help="A label for each row, one per line: rows with the same one are not independent.",
        ),
    ] = None,
    fdr: Annotated[float, typer.Option(metavar="SHARE", help="Expected share of false discoveries.")] = 0.05,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, metavar="N", help="Words of each set to print.")
    ] = 10,
    as_json: Json = False,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Print the words that the texts behind one set of embeddings have more often, without the texts.

    For each word the expected share of the texts of both sets that have it, and the difference with its
    interval of 95 %. First the words that are more frequent in the first set, then the others, the clearest
    evidence first. Words that do not differ at the false discovery rate are left out.

    \b
    flip-sklearn compare --model model --embeddings this_month.npy last_month.npy
    flip-sklearn compare -m model --embeddings t.parquet::question t.parquet::answer
    flip-sklearn compare -m model --embeddings a.npy b.npy --groups users_a.txt users_b.txt --json
    """
    check_standard_input(*embeddings, *(groups or ()))
    from flip_sklearn.cli import commands

    flip, _, _ = commands.open_model(
        *(model, subfolder, revision, None), device=device, verbose=int(not quiet)
    )
    result = commands.compare(flip, embeddings, groups, fdr)
    words = commands.compared_words(result, top_k)
    if words or as_json:
        write(format_comparison(words, as_json))
    n_found, n_tested = int(result.discovered.sum()), int(result.tested.sum())
    write_message(f"{n_found} of {n_tested} tested words differ")


@app.command("evaluate", short_help="Measure which words of sentences a model finds.", no_args_is_help=True)
def _evaluate(
    model: Model,
    text: Annotated[
        str,
        typer.Option("--text", "-t", metavar="FILE|-", help="Sentences that the model was not trained on."),
    ],
    column: Column = None,
    embeddings: OptionalEmbeddings = None,
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
    value is printed with its standard error and the number of sentences that are skipped, since they have
    no word of the model. Precision, recall and F1 are the published ones: words that the model does not
    know count as missed, and only blank lines are skipped.

    \b
    flip-sklearn evaluate --model model --text test.txt
    flip-sklearn evaluate -m model -t test.txt --embeddings test.npy --entities names.jsonl --json
    """
    check_standard_input(text, embeddings, entities)
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, embeddings)
    from flip_sklearn.cli import commands, evaluation

    flip, vectorizer, text_encoder = commands.open_model(
        *(model, subfolder, revision, encoder_params),
        trust_encoder=trust_encoder,
        force=force,
        device=device,
        use_bias=True,
        verbose=int(not quiet),
    )
    inputs = InputFiles(text, embeddings, column)
    metrics = evaluation.evaluate(flip, vectorizer, text_encoder, inputs, entities, top_k)
    write(format_metrics(metrics, as_json))


@app.command("report", short_help="Write an HTML page about the embeddings.", no_args_is_help=True)
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
    column: Column = None,
    embeddings: ViewEmbeddings = None,
    encoder: Encoder = None,
    encoder_option: EncoderOptionPairs = None,
    cache: Cache = None,
    entities: Entities = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The title of the page.")] = None,
    ranks: Annotated[
        bool, typer.Option("--ranks/--no-ranks", help="Accuracy for several ranks, one fit for each.")
    ] = True,
    min_count: MinCount = None,
    max_iter: MaxIter = 20,
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
    out = out.expanduser()
    check_standard_input(*texts.values(), *views.values(), entities)
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, embeddings)
    diagnose_params = {
        "title": title,
        "ranks": None if ranks else False,
        "random_state": seed,
        "verbose": int(not quiet),
    }
    from flip_sklearn.cli import commands

    flip_params = {"max_iter": max_iter, "device": device}
    files = commands.ReportFiles(texts, views, column, entities)
    for finding in commands.report(files, out, encoder_params, min_count, flip_params, diagnose_params):
        write(f"{finding}\n")
    write_message(f"saved {out}")


@app.command("explore", short_help="Show in a browser what a model reads.", no_args_is_help=True)
def _explore(
    model: Model,
    text: Annotated[
        str | None,
        typer.Option("--text", "-t", metavar="FILE|-", help="Sentences, of which the nearest are shown."),
    ] = None,
    column: Column = None,
    embeddings: Annotated[
        str | None,
        typer.Option("--embeddings", metavar="FILE", help="The embeddings of --text, one row per sentence."),
    ] = None,
    encoder: Encoder = None,
    encoder_option: EncoderOptionPairs = None,
    trust_encoder: TrustEncoder = False,
    force: ForceEncoder = False,
    cache: Cache = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port of the page; 0 for a free one.")
    ] = 7860,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Show in a browser what a model reads from texts that you type.

    The page has the keywords of one text or two, what both share, the nearest of the sentences in --text,
    and a box to add words to a vector and to remove some. A model whose encoder is not at hand reads vectors,
    which are pasted or uploaded. The page is for this machine alone: it listens on 127.0.0.1, and sends
    nothing to anyone. Its address is printed; Ctrl-C ends it.

    \b
    flip-sklearn explore --model model --open
    flip-sklearn explore --model model --text corpus.txt --cache ~/.cache/vectors
    flip-sklearn explore -m model --text corpus.txt --embeddings corpus.npy --port 0
    """
    if text is None and (embeddings is not None or column is not None):
        raise typer.BadParameter("--embeddings and --column are for --text; name the sentences, too.")
    check_standard_input(text, embeddings)
    encoder_params = parse_encoder_options(encoder, encoder_option, cache, device, quiet, None) or {}
    from flip_sklearn.cli.explorer.start import make_server

    server = make_server(
        (model, subfolder, revision, encoder_params),
        InputFiles(text, embeddings, column),
        port,
        trust_encoder=trust_encoder,
        force=force,
        device=device,
        verbose=int(not quiet),
    )
    write(f"{server.url}\n")
    write_message("the page is at this address; Ctrl-C ends it")
    if open_browser:
        import webbrowser

        webbrowser.open(server.url)
    server.run()
    raise typer.Exit(130)


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
    output = sys.stdout
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            app(args=argv, prog_name="flip-sklearn")
        except SystemExit:
            if sys.stdout is output:
                raise
            sys.exit(141)  # typer replaces a stream that its reader has closed, and exits with 1
        except BrokenPipeError:
            abandon_output()
            sys.exit(141)
        except Exception as error:
            if _DEBUG.get() or not is_user_error(error):
                traceback.print_exc()
            write_message(f"error: {' '.join(str(error).split()) or type(error).__name__}")
            sys.exit(1)
