"""flip-sklearn fit | keywords | evaluate | report: words read off embeddings, from a shell.

Results go to standard output and nothing else does; progress, warnings and errors go to standard error.

    exit code  0    done
               1    the work could not be done; one line on standard error says why
               2    the command was not understood
             130    stopped with Ctrl-C (``fit`` has saved its best pass then, if there was one)
             141    nobody reads the output any more (``| head``)
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["main"]

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

_DEBUG: ContextVar[bool] = ContextVar("debug", default=False)
# What a user can mend. Anything else is an error in this package and keeps its traceback.
USER_ERRORS = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    RuntimeError,
    MemoryError,
    ArithmeticError,
)

app = typer.Typer(
    name="flip-sklearn",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        metavar="NAME",
        help="Model that makes the embeddings: name on the hub, folder, or gemini-embedding-001. For fit "
        "and report all-MiniLM-L6-v2 by default, else the one that the model was trained with.",
    ),
]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder-option",
        "-E",
        metavar="KEY=VALUE",
        help="A parameter of SentenceEncoder, such as language=deu_Latn, prompt_name=query or "
        "normalize=true; may be repeated.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keep embeddings here: an encoding that was cut off goes on, a second run starts at once.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="DIR|OWNER/NAME",
        help="Folder of a model, or its id on the Hugging Face hub.",
    ),
]
Subfolder = Annotated[
    str | None, typer.Option("--subfolder", metavar="PATH", help="Where the model is below it.")
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision", metavar="REV", help="Branch, tag or commit of the model on the hub."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same result.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        _write(f"flip-sklearn {importlib.metadata.version('flip-sklearn')}\n")
        raise typer.Exit


@app.callback(help="Read words off sentence embeddings (FLiP, arXiv 2604.18109).")
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Errors with their traceback.")] = False,
) -> None:
    _DEBUG.set(debug)


@app.command("fit", no_args_is_help=True)
def _fit(
    text: Annotated[
        str,
        typer.Option("--text", "-t", metavar="FILE|-", help="One sentence per line, UTF-8."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model.")],
    encoder: Encoder = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npy",
            help="Embeddings (n, d) of the lines, instead of an encoder. Larger than memory is fine.",
        ),
    ] = None,
    encoder_option: EncoderOption = None,
    cache: Cache = None,
    rank: Annotated[
        str, typer.Option(help="r, a number; auto is min(d, number of words); full is LiP.")
    ] = "auto",
    l1_strength: Annotated[
        float, typer.Option(min=0, help="Larger: more zeros in the word embeddings.")
    ] = 1e-2,
    max_iter: Annotated[int, typer.Option(min=1, help="Most passes over the sentences.")] = 20,
    max_words: Annotated[int, typer.Option(min=1, help="The most frequent words to learn.")] = 6500,
    min_count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Least occurrences of a word; by default 2 to 20, by the corpus' size."
        ),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help='Also learn pairs such as "new york" as one concept.')
    ] = False,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="latin|indic|whitespace",
            help="What a word is; by default latin or indic (any script with marks), by the text.",
        ),
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Sentences to judge by, not to train on; 0 for none."),
    ] = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace a model in the folder.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model on a text file and save it.

    The encoder turns each line into an embedding; the model learns to read the words of the line off it.
    A tenth of the sentences is kept back to say how well it reads. Ctrl-C in training saves the best pass
    so far.

    \b
    flip-sklearn fit --text corpus.txt --encoder sentence-transformers/LaBSE --out model
    flip-sklearn fit --text corpus.txt --embeddings corpus.npy --out model --rank 256
    zcat corpus.gz | flip-sklearn fit --text - --out model --cache ~/.cache/vectors
    """
    if embeddings is not None and (encoder or encoder_option or cache):
        raise typer.BadParameter(
            "--embeddings leaves nothing to encode; drop --encoder and --cache."
        )
    if text == embeddings == "-":
        raise typer.BadParameter("only one of --text and --embeddings can be standard input.")
    chosen = _rank(rank)
    if words not in (None, "latin", "indic", "whitespace"):
        raise typer.BadParameter(f"--words {words!r} is not known; use latin, indic or whitespace.")
    silence_progress(quiet)
    from flip_sklearn.cli import commands as work
    from flip_sklearn.extractor import FLiPExtractor

    work.check_out(out, force)
    made_by = None
    if embeddings is None:
        options = _encoder_options(encoder or DEFAULT_ENCODER, encoder_option)
        made_by = work.make_encoder(
            options, cache_dir=cache, device=device, verbose=0 if quiet else 1
        )
    estimator = FLiPExtractor(
        rank=chosen,
        l1_strength=l1_strength,
        max_iter=max_iter,
        device=device,
        verbose=0 if quiet else 1,
    )
    summary, interrupted = work.fit(
        text,
        out,
        embeddings=embeddings,
        encoder=made_by,
        words={
            "bigrams": pairs,
            "min_count": min_count,
            "max_words": max_words,
            "token_pattern": words,
            "verbose": not quiet,
        },
        estimator=estimator,
        test_share=test_share,
        seed=seed,
    )
    _write(json.dumps(summary, ensure_ascii=False) + "\n" if as_json else format_summary(summary))
    if interrupted:
        _say(f"stopped; the best of the passes done is in {out}")
        raise typer.Exit(130)


@app.command("keywords", no_args_is_help=True)
def _keywords(
    model: Model,
    text: Annotated[
        str | None, typer.Option("--text", "-t", metavar="FILE|-", help="One sentence per line.")
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option(metavar="FILE.npy|-", help="Embeddings (n, d), one row each.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Words per line.")] = 10,
    bias: Annotated[
        bool,
        typer.Option(
            "--bias/--no-bias",
            help="Likely words, or those that set the sentence apart: without bias frequent words fall back.",
        ),
    ] = True,
    scores: Annotated[
        bool, typer.Option("--scores", help="Scores in nats with the words.")
    ] = False,
    as_json: Json = False,
    encoder: Encoder = None,
    encoder_option: EncoderOption = None,
    cache: Cache = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Print the words of each sentence, best first: one line per line, in order.

    Words are separated by tabs (concepts may hold blanks); a blank line gives a blank line. With --scores
    each field is the word, a blank and its score. With --json each line is {"line": 1, "keywords": [...]},
    and "scores" with --scores. Files of any length stream through in bounded memory.

    \b
    flip-sklearn keywords --model model --text sentences.txt
    echo "a dog runs on the beach" | flip-sklearn keywords -m model -t - -k 5 --no-bias
    flip-sklearn keywords -m BUT-FIT/FLiP-en-sonar --subfolder mcv15/rank-512 --embeddings speech.npy
    """
    _check_source(text, embeddings)
    silence_progress(quiet)
    from flip_sklearn.cli import commands as work

    flip, recipe = work.open_model(model, subfolder, revision, device)
    made_by = None
    if embeddings is None:
        options = _encoder_options(encoder, encoder_option, recipe.encoder)
        made_by = work.make_encoder(options, flip, cache_dir=cache, device=device)
    number = 0
    for block in work.keywords(
        flip,
        text=text,
        embeddings=embeddings,
        encoder=made_by,
        top_k=top_k,
        use_bias=bias,
        quiet=quiet,
    ):
        first, number = number + 1, number + len(block)
        if as_json:
            rows = [_row(first + i, found, scores) for i, found in enumerate(block)]
        else:
            rows = ["\t".join(_fields(found, scores)) for found in block]
        _write("".join(f"{row}\n" for row in rows))


@app.command("evaluate", no_args_is_help=True)
def _evaluate(
    model: Model,
    text: Annotated[
        str,
        typer.Option(
            "--text", "-t", metavar="FILE|-", help="Sentences that the model was not trained on."
        ),
    ],
    embeddings: Annotated[
        str | None, typer.Option(metavar="FILE.npy", help="Their embeddings, if they are there.")
    ] = None,
    entities: Annotated[
        str | None,
        typer.Option(metavar="FILE.jsonl", help='Names in each line, such as ["New York"] or [].'),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Words per line.")] = 10,
    as_json: Json = False,
    encoder: Encoder = None,
    encoder_option: EncoderOption = None,
    cache: Cache = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure how many of the words of sentences a model finds in their embeddings.

    Keyword accuracy asks for as many words as the sentence has and counts those that are in it. Each
    figure comes with its standard error and the number of sentences without any word of the model, which
    are skipped.

    \b
    flip-sklearn evaluate --model model --text test.txt
    flip-sklearn evaluate -m model -t test.txt --embeddings test.npy --entities names.jsonl --json
    """
    if embeddings is not None and (encoder or encoder_option or cache):
        raise typer.BadParameter(
            "--embeddings leaves nothing to encode; drop --encoder and --cache."
        )
    if [text, embeddings, entities].count("-") > 1:
        raise typer.BadParameter("only one input can be standard input.")
    silence_progress(quiet)
    from flip_sklearn.cli import commands as work

    flip, recipe = work.open_model(model, subfolder, revision, device)
    flip.set_params(verbose=0 if quiet else 1)
    made_by = None
    if embeddings is None:
        options = _encoder_options(encoder, encoder_option, recipe.encoder)
        made_by = work.make_encoder(
            options, flip, cache_dir=cache, device=device, verbose=0 if quiet else 1
        )
    rows = work.evaluate(
        flip,
        recipe,
        text=text,
        embeddings=embeddings,
        encoder=made_by,
        entities=entities,
        top_k=top_k,
    )
    _write(json.dumps(rows, indent=2) + "\n" if as_json else _table(rows))


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
    encoder_option: EncoderOption = None,
    cache: Cache = None,
    entities: Annotated[
        str | None,
        typer.Option(metavar="FILE.jsonl", help='Names in each line, such as ["New York"] or [].'),
    ] = None,
    title: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    ranks: Annotated[
        bool, typer.Option("--ranks/--no-ranks", help="Accuracy against rank: one fit for each.")
    ] = True,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Write one HTML page on what the embeddings keep of the words: tables, pictures, findings.

    The findings are printed, too. A fifth of the sentences is kept back to judge by.

    \b
    flip-sklearn report --text corpus.txt --out report.html
    flip-sklearn report -t en=en.txt -t de=de.txt -e sentence-transformers/LaBSE -o report.html
    flip-sklearn report -t spoken.txt --embeddings text=t.npy --embeddings speech=s.npy -o report.html
    """
    if embeddings and (encoder or encoder_option or cache):
        raise typer.BadParameter(
            "--embeddings leaves nothing to encode; drop --encoder and --cache."
        )
    texts, views = _by_name(text, "--text"), _by_name(embeddings or [], "--embeddings")
    if [*texts.values(), *views.values(), entities].count("-") > 1:
        raise typer.BadParameter("only one input can be standard input.")
    silence_progress(quiet)
    from flip_sklearn.cli import commands as work

    work.check_page(out)
    made_by = None
    if not views:
        made_by = work.make_encoder(
            _encoder_options(encoder or DEFAULT_ENCODER, encoder_option),
            cache_dir=cache,
            device=device,
            verbose=0 if quiet else 1,
        )
    found = work.report(
        texts,
        out,
        embeddings=views,
        encoder=made_by,
        entities=entities,
        title=title,
        ranks=ranks,
        seed=seed,
        quiet=quiet,
    )
    _write("".join(f"{line}\n" for line in found))
    _say(f"saved {out}")


# ---------------------------------------------------------------------- arguments


def silence_progress(quiet: bool) -> None:
    """The bars of the hub and of transformers, too; both read this once, when they are imported."""
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _check_source(text: str | None, embeddings: str | None) -> None:
    if (text is None) == (embeddings is None):
        raise typer.BadParameter("pass either --text or --embeddings.")


def _encoder_options(
    encoder: str | None, given: Sequence[str] | None, recorded: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The recorded encoder, or another one, with the options that were given."""
    options = recorded if encoder is None else {"model": encoder}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"--encoder-option {pair!r} is not KEY=VALUE.")
        options = {**(options or {}), key: _value(value)}
    return options


def _value(text: str) -> Any:
    """true, false, null and whole numbers as such, all else as text."""
    if text in ("true", "false", "null") or text.lstrip("-").isdigit():
        return json.loads(text)
    return text


def _rank(text: str) -> int | str | None:
    if text == "auto":
        return text
    if text == "full":
        return None
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(
            f"--rank {text!r} is not allowed; use a number >= 1, auto or full."
        )
    return int(text)


def _by_name(given: Sequence[str], option: str) -> dict[str, str]:
    """NAME=FILE; a single file needs no name."""
    found: dict[str, str] = {}
    for pair in given:
        name, equals, path = pair.partition("=")
        if not equals or Path(pair).exists():
            name, path = "embeddings" if option == "--embeddings" else "text", pair
        if name in found:
            raise typer.BadParameter(
                f"{option} has two files called {name!r}; name them: {option} en=a.txt {option} de=b.txt."
            )
        found[name] = path
    return found


# ---------------------------------------------------------------------- results


def _row(number: int, found: Sequence[tuple[str, float]], scores: bool) -> str:
    row: dict[str, Any] = {"line": number, "keywords": [word for word, _ in found]}
    if scores:
        row["scores"] = [round(float(score), 4) for _, score in found]
    return json.dumps(row, ensure_ascii=False)


def _fields(found: Sequence[tuple[str, float]], scores: bool) -> list[str]:
    """Words without tabs and line ends, which would make them two."""
    return [" ".join(word.split()) + (f" {score:.4f}" if scores else "") for word, score in found]


def format_summary(summary: dict[str, Any]) -> str:
    rows = [
        ("words", f"{summary['words']:,}"),
        ("rank", f"{summary['rank']:,} of {summary['dimensions']:,} dimensions"),
        (
            "trained on",
            f"{summary['sentences_trained_on']:,} sentences, {summary['passes']} passes",
        ),
    ]
    if summary["blank_lines"]:
        rows.append(("left out", f"{summary['blank_lines']:,} blank lines"))
    if summary["keyword_accuracy"] is not None:
        rows.append(("kept back", f"{summary['sentences_held_out']:,} sentences to judge by"))
        title = "keyword accuracy"
        for name, figures in summary["keyword_accuracy"].items():
            rows.append((title, f"{_share(figures):13}  {name.replace('_', ' ')}"))
            title = ""
    rows.append(("saved in", summary["out"]))
    return "".join(f"{name:18} {value}\n" for name, value in rows)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each metric: with bias, without, and how many sentences."""
    by_metric: dict[str, dict[bool, dict[str, Any]]] = {}
    for row in rows:
        by_metric.setdefault(row["metric"], {})[row["use_bias"]] = row
    told = [f"{'':28}{'with bias':>17}{'without bias':>17}{'sentences':>11}{'skipped':>9}"]
    for metric, by_bias in by_metric.items():
        show = _number if metric.startswith("perplexity") else _share
        cells = [show(by_bias[b]) if b in by_bias else "" for b in (True, False)]
        of = by_bias[True]
        told.append(
            f"{metric:28}{cells[0]:>17}{cells[1]:>17}{of['n_rows']:>11,}{of['n_skipped']:>9,}"
        )
    return "".join(f"{line.rstrip()}\n" for line in told)


def _share(figures: dict[str, Any]) -> str:
    if figures["value"] is None:
        return "-"
    error = figures["standard_error"]
    return f"{100 * figures['value']:.1f} %" + ("" if error is None else f" ± {100 * error:.1f}")


def _number(figures: dict[str, Any]) -> str:
    return "-" if figures["value"] is None else f"{figures['value']:,.1f}"


def _write(text: str) -> None:
    """To standard output; where nobody reads it any more, the end."""
    if sys.stdout is None:
        raise ValueError("standard output is closed; send it to a file or a pipe.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None


def _say(text: str) -> None:
    sys.stderr.write(f"flip-sklearn: {text}\n")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _utf8(stream: Any) -> None:
    """Words of any language, whatever the shell's locale is."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments; those of the process when None.

    Raises
    ------
    SystemExit
        Always, with the code.
    """
    run: Callable[..., Any] = app
    _DEBUG.set(False)
    _utf8(sys.stdout)
    _utf8(sys.stderr)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            run(args=None if argv is None else list(argv), prog_name="flip-sklearn")
        except KeyboardInterrupt:
            _say("stopped")
            sys.exit(130)
        except USER_ERRORS as error:
            if _DEBUG.get():
                traceback.print_exc()
            _say(f"error: {' '.join(str(error).split()) or type(error).__name__}")
            sys.exit(1)


if __name__ == "__main__":
    main()
