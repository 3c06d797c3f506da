"""The command line: its results are the library's, in order, with codes that scripts can trust."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor, keyword_accuracy
from flip_sklearn.cli import commands, files, main
from flip_sklearn.cli.encoding import EncodingConfig
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.paths import ROOT
from tests.helpers.processes import ENVIRONMENT
from tests.helpers.tiny_models import bag_of_words_model

WORDS = [
    *("red", "green", "blue", "dog", "cat", "bird", "runs", "sings"),
    *("sleeps", "hill", "river", "tree", "house", "road", "night", "day"),
]
OTHERS = [f"{word}en" for word in WORDS]  # of another language
N, D = 400, 24


@dataclass(frozen=True)
class Corpus:
    """Files of one corpus, and the model that the command line makes of them."""

    folder: Path
    text: Path
    embeddings: Path
    encoder: Path
    model: Path
    lines: list[str]
    X: np.ndarray


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("cli")
    encoder, vectors = bag_of_words_model(folder / "encoder", WORDS + OTHERS, D)
    rng = np.random.default_rng(0)
    drawn = [rng.choice(len(WORDS), size=4, replace=False) for _ in range(N)]
    lines = [" ".join(WORDS[j] for j in row).capitalize() for row in drawn]
    X = np.stack([vectors[row].mean(axis=0) for row in drawn])
    (folder / "corpus.txt").write_text("".join(f"{line}\n" for line in lines))
    np.save(folder / "corpus.npy", X)
    code, out, _ = run(
        "fit", "--text", folder / "corpus.txt", "--embeddings", folder / "corpus.npy", "--out",
        folder / "model", "--json", "--quiet",
    )  # fmt: skip
    assert code == 0, out
    return Corpus(
        folder, folder / "corpus.txt", folder / "corpus.npy", encoder, folder / "model", lines, X
    )


def run(*arguments: Any, stdin: bytes = b"") -> tuple[int, str, str]:
    """A command in this process: its code, standard output and standard error."""
    streams = [io.TextIOWrapper(io.BytesIO(data), "utf-8") for data in (stdin, b"", b"")]
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = streams
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
    for stream in streams[1:]:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    return code, out, err


def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flip_sklearn", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        cwd=ROOT,
        **options,
    )


def failed(code: int, out: str, err: str) -> str:
    """The one line of a failure."""
    assert code == 1
    assert out == ""
    assert err.startswith("flip-sklearn: error: ")
    assert err.count("\n") == 1
    return err


# --- fit -------------------------------------------------------------------------------------


def test_fit_is_the_librarys_fit(corpus: Corpus) -> None:
    model = FLiPExtractor.from_pretrained(corpus.model)
    assert sorted(model.vocabulary_) == sorted(WORDS)
    # The same by hand: the rows that were kept back weigh nothing.
    labels = np.unique([line.casefold() for line in corpus.lines], return_inverse=True)[1]
    test = commands.draw_test_rows(labels, 0.1, 0)
    train = np.setdiff1d(np.arange(N), test)
    vectorizer = ConceptVectorizer(bigrams=False, min_count=2).fit([corpus.lines[i] for i in train])
    weight = np.isin(np.arange(N), train).astype(float)
    own = FLiPExtractor(vocabulary=vectorizer.get_feature_names_out().tolist(), random_state=0)
    own.fit(corpus.X, vectorizer.transform(corpus.lines), sample_weight=weight, groups=labels)
    np.testing.assert_array_equal(model.word_embeddings_, own.word_embeddings_)
    np.testing.assert_array_equal(model.bias_, own.bias_)


def test_fit_judges_by_sentences_that_it_was_not_trained_on(corpus: Corpus, tmp_path: Path) -> None:
    code, out, err = run(
        "fit", "-t", corpus.text, "--embeddings", corpus.embeddings, "-o", tmp_path / "m", "--json"
    )
    assert code == 0, err
    summary = json.loads(out)
    labels = np.unique([line.casefold() for line in corpus.lines], return_inverse=True)[1]
    test = commands.draw_test_rows(labels, 0.1, 0)
    assert summary["sentences_held_out"] == len(test)
    assert summary["sentences_trained_on"] == N - len(test)
    model = FLiPExtractor.from_pretrained(tmp_path / "m")
    Y = ConceptVectorizer(vocabulary=list(model.vocabulary_)).transform(corpus.lines)[test]
    accuracy = keyword_accuracy(Y, model.decision_function(corpus.X[test]))
    assert summary["keyword_accuracy"]["with_bias"]["value"] == accuracy.value
    assert accuracy.value > 0.9  # the embeddings are the mean of the words' vectors
    assert summary["keyword_accuracy"]["most_frequent_words"]["value"] < 0.5
    set_of = {labels[i] for i in test}
    assert not set_of & {labels[i] for i in np.setdiff1d(np.arange(N), test)}


def test_equal_sentences_are_on_one_side() -> None:
    labels = np.repeat(np.arange(30), 10)
    test = commands.draw_test_rows(labels, 0.2, 0)
    assert len(test) == 60
    assert not set(labels[test]) & set(np.delete(labels, test))
    assert len(commands.draw_test_rows(labels, 0, 0)) == 0


def test_fit_with_an_encoder_remembers_it(corpus: Corpus, tmp_path: Path) -> None:
    blank = corpus.text.read_text().replace("\n", "\n\n", 3)
    code, out, err = run(
        "fit", "-t", "-", "-e", corpus.encoder, "-o", tmp_path / "m", "-q", "-E", "normalize=true",
        "--cache", tmp_path / "cache", stdin=blank.encode(),
    )  # fmt: skip
    assert code == 0, err
    assert "3 blank lines" in out
    assert re.search(r"keyword accuracy +\d+\.\d % ± \d\.\d +with bias", out)
    assert (tmp_path / "cache" / "embeddings.sqlite3").exists()
    config = EncodingConfig.read(tmp_path / "m")
    assert config.encoder is not None
    assert config.encoder["normalize"] is True
    code, out, err = run(
        "keywords", "-m", tmp_path / "m", "-t", "-", "-k", 4, "-e", corpus.encoder,
        stdin=b"Red dog RUNS day",
    )  # fmt: skip
    assert code == 0, err
    assert set(out.rstrip("\n").split("\t")) == {"red", "dog", "runs", "day"}
    X = SentenceEncoder(corpus.encoder, normalize=True).transform(["Red dog RUNS day"])
    model = FLiPExtractor.from_pretrained(tmp_path / "m")
    assert out.rstrip("\n").split("\t") == model.extract_keywords(X, top_k=4)[0]


def test_pairs_and_rank(corpus: Corpus, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("".join(f"new york {line}\n" for line in corpus.lines))
    code, out, err = run(
        "fit", "-t", text, "--embeddings", corpus.embeddings, "-o", tmp_path / "m", "--pairs", "--rank",
        3, "--max-iter", 2, "--min-count", 5, "--test-share", 0, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["rank"] == 3
    assert json.loads(out)["keyword_accuracy"] is None
    assert "new york" in FLiPExtractor.from_pretrained(tmp_path / "m").vocabulary_
    full = run(
        "fit", "-t", text, "--embeddings", corpus.embeddings, "-o", tmp_path / "lip", "--rank", "full",
        "--max-iter", 1, "-q",
    )  # fmt: skip
    assert full[0] == 0
    assert FLiPExtractor.from_pretrained(tmp_path / "lip").rank is None


def test_a_model_is_replaced_only_when_asked(corpus: Corpus, tmp_path: Path) -> None:
    arguments = ["fit", "-t", corpus.text, "--embeddings", corpus.embeddings, "--max-iter", 1, "-q"]
    folder = tmp_path / "m"
    assert run(*arguments, "-o", folder)[0] == 0
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "--force" in failed(*run(*arguments, "-o", folder, "--seed", 1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run(*arguments, "-o", folder, "--seed", 1, "--force")[0] == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert EncodingConfig.read(folder).words  # the recipe is the new model's


def test_a_failed_fit_leaves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", corpus.X[:7])
    err = failed(
        *run("fit", "-t", corpus.text, "--embeddings", tmp_path / "short.npy", "-o", tmp_path / "m")
    )
    assert "7 embeddings" in err
    assert "400 lines" in err
    assert not (tmp_path / "m").exists()
    (tmp_path / "empty.txt").write_text("")
    assert "is empty" in failed(*run("fit", "-t", tmp_path / "empty.txt", "-o", tmp_path / "m"))
    (tmp_path / "blank.txt").write_text("\n  \n")
    err = failed(
        *run("fit", "-t", tmp_path / "blank.txt", "-o", tmp_path / "m", "-e", corpus.encoder)
    )
    assert "only blank lines" in err
    assert "is a file" in failed(*run("fit", "-t", corpus.text, "-o", corpus.text))
    assert not (tmp_path / "m").exists()


def test_ctrl_c_saves_the_best_pass(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"{line}\n" for line in corpus.lines) * 500)
    np.save(tmp_path / "x.npy", np.tile(corpus.X, (500, 1)))
    with start(
        "fit", "-t", tmp_path / "t.txt", "--embeddings", tmp_path / "x.npy", "-o", tmp_path / "m"
    ) as process:
        assert process.stderr is not None
        seen = b""
        while b"FLiP pass 2/" not in seen:  # two passes without progress end it, at the earliest
            seen += process.stderr.read1()
            assert process.poll() is None, seen.decode()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert b"interrupted; the best pass so far is saved in" in err
    assert b"saved in" in out
    assert len(FLiPExtractor.from_pretrained(tmp_path / "m").vocabulary_) == len(WORDS)


# --- keywords --------------------------------------------------------------------------------


def test_keywords_of_embeddings_are_the_librarys(corpus: Corpus) -> None:
    model = FLiPExtractor.from_pretrained(corpus.model)
    code, out, err = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings)
    assert (code, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == model.extract_keywords(corpus.X)
    code, out, _ = run(
        "keywords", "-m", corpus.model, "--embeddings", "-", "--no-bias", "-k", 3, "--json", "--scores",
        stdin=corpus.embeddings.read_bytes(),
    )  # fmt: skip
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, N + 1))
    wanted = model.set_params(use_bias=False).extract_keywords(corpus.X, 3, return_scores=True)
    assert [row["keywords"] for row in rows] == [[word for word, _ in found] for found in wanted]
    np.testing.assert_allclose(
        [row["scores"] for row in rows], [[s for _, s in found] for found in wanted], atol=6e-5
    )


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_lines_and_answers_are_in_step(
    corpus: Corpus, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "LINES_PER_BLOCK", block)
    lines = [
        "\ufeffdog runs",
        "",
        "   ",
        "cat sleeps\r",
        "nothing known here",
        "bird\u2028sings",
        "red",
    ]
    code, out, err = run(
        "keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder, "-k", 2,
        stdin="\n".join(lines).encode(),
    )  # fmt: skip
    assert code == 0, err
    found = [set(line.split("\t")) for line in out.split("\n")[:-1]]
    assert len(found) == len(lines)
    assert found[0] == {"dog", "runs"}
    assert found[1] == found[2] == {""}
    assert found[3] == {"cat", "sleeps"}
    assert found[5] == {"bird", "sings"}
    assert "red" in found[6]


def test_scores_stand_behind_the_words(corpus: Corpus) -> None:
    _, plain, _ = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "-k", 4)
    _, scored, _ = run(
        "keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "-k", 4, "--scores"
    )
    fields = [[cell.rpartition(" ") for cell in line.split("\t")] for line in scored.splitlines()]
    assert [[word for word, _, _ in row] for row in fields] == [
        line.split("\t") for line in plain.splitlines()
    ]
    assert all(np.diff([float(score) for _, _, score in row]).max() <= 0 for row in fields)


def test_words_with_tabs_are_one_field(corpus: Corpus) -> None:
    from flip_sklearn.cli.output import keyword_fields

    assert keyword_fields([("a\tb\nc", 1.0), ("new york", 0.5)], False) == ["a b c", "new york"]


def test_a_reader_that_leaves_ends_it_quietly(corpus: Corpus) -> None:
    np.save(corpus.folder / "many.npy", np.tile(corpus.X, (200, 1)))
    with start(
        "keywords", "-m", corpus.model, "--embeddings", corpus.folder / "many.npy"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(120) == 141
    assert b"Traceback" not in err
    assert b"Broken" not in err


def test_ctrl_c_in_keywords(corpus: Corpus) -> None:
    with start("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"dog runs\n" * 1024)
        process.stdin.flush()
        assert process.stdout.readline()  # it answers before the input ends
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 130
    assert b"Traceback" not in err


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_many_rows_stream_in_bounded_memory(corpus: Corpus, tmp_path: Path) -> None:
    """Ten times the rows take no more memory: what is held is a block."""
    code = (
        "import sys; from flip_sklearn.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "status = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "print(status['VmHWM'].split()[0], file=sys.stderr)"
    )
    peaks = []
    for times in (100, 600):
        path = tmp_path / "x.npy"
        np.save(path, np.tile(corpus.X.astype(np.float32), (times, 1)))
        with (tmp_path / "out.txt").open("wb") as out:
            result = subprocess.run(
                [sys.executable, "-c", code, "keywords", "-q", "-k", "3", "-m", corpus.model,
                 "--embeddings", path],
                stdout=out, stderr=subprocess.PIPE, check=True, timeout=300,
                env={**os.environ, **ENVIRONMENT},
            )  # fmt: skip
        peaks.append(int(result.stderr.split()[-1]) / 1024)
        assert sum(1 for _ in (tmp_path / "out.txt").open("rb")) == times * N
    # 200,000 rows more: 18 MiB of embeddings, and 60 of lists.
    assert peaks[1] - peaks[0] < 25, peaks


# --- evaluate --------------------------------------------------------------------------------


def test_evaluate_is_the_librarys(corpus: Corpus, tmp_path: Path) -> None:
    names = tmp_path / "names.jsonl"
    names.write_text("".join(json.dumps([line.split()[0]]) + "\n" for line in corpus.lines))
    code, out, err = run(
        "evaluate", "-m", corpus.model, "-t", corpus.text, "--embeddings", corpus.embeddings,
        "--entities", names, "-k", 4, "--json",
    )  # fmt: skip
    assert code == 0, err
    rows = {(row["metric"], row["use_bias"]): row for row in json.loads(out)}
    model = FLiPExtractor.from_pretrained(corpus.model)
    Y = ConceptVectorizer(vocabulary=list(model.vocabulary_)).transform(corpus.lines)
    for bias in (True, False):
        accuracy = keyword_accuracy(Y, model.set_params(use_bias=bias).decision_function(corpus.X))
        row = rows["keyword accuracy", bias]
        assert (row["value"], row["n_rows"]) == (accuracy.value, accuracy.n_rows)
        # Four words a sentence, none twice: recall at 4 is the accuracy.
        assert rows["recall at 4", bias]["value"] == pytest.approx(accuracy.value)
        assert rows["names found whole at 4", bias]["value"] > 0.8
    assert 1 < rows["perplexity per word", True]["value"] < len(WORDS)
    code, table, _ = run(
        "evaluate", "-m", corpus.model, "-t", corpus.text, "-e", corpus.encoder, "-k", 4
    )
    assert code == 0
    share = 100 * rows["keyword accuracy", True]["value"]
    assert re.search(rf"keyword accuracy +{share:.1f} % ± ", table)


def test_blank_lines_shift_no_name(corpus: Corpus, tmp_path: Path) -> None:
    text, names = tmp_path / "t.txt", tmp_path / "n.jsonl"
    text.write_text("dog runs\n\ncat sleeps\n")
    names.write_text('["Dog"]\n[]\n["cat"]\n')
    code, out, err = run(
        "evaluate", "-m", corpus.model, "-t", text, "-e", corpus.encoder, "--entities", names, "-k", 2,
        "--json",
    )  # fmt: skip
    assert code == 0, err
    rows = {(row["metric"], row["use_bias"]): row for row in json.loads(out)}
    assert rows["names found whole at 2", True]["value"] == 1
    names.write_text('["Dog"]\n["cat"]\n')
    err = failed(
        *run("evaluate", "-m", corpus.model, "-t", text, "-e", corpus.encoder, "--entities", names)
    )
    assert "2 lines, and there are 3 sentences" in err


# --- report ----------------------------------------------------------------------------------


def test_report(corpus: Corpus, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    noisy = tmp_path / "noisy.npy"
    np.save(noisy, corpus.X + 0.3 * np.random.default_rng(0).normal(size=corpus.X.shape))
    code, out, err = run(
        "report", "-t", corpus.text, "--embeddings", f"text={corpus.embeddings}", "--embeddings",
        f"speech={noisy}", "-o", page, "--no-ranks", "-q", "--title", "Two views",
    )  # fmt: skip
    assert code == 0, err
    assert "saved" in err
    assert "speech" in out  # the findings
    html = page.read_text()
    assert "Two views" in html
    assert all(line in html for line in ("text", "speech"))


def test_report_of_translations(corpus: Corpus, tmp_path: Path) -> None:
    other = tmp_path / "de.txt"
    other.write_text(re.sub(r"(\w+)", r"\1en", corpus.text.read_text()))
    code, out, err = run(
        "report", "-t", f"en={corpus.text}", "-t", f"de={other}", "-e", corpus.encoder, "-o",
        tmp_path / "page.html", "--no-ranks", "-q",
    )  # fmt: skip
    assert code == 0, err
    assert "“de”" in out
    other.write_text("too short\n")
    arguments = ["-t", f"en={corpus.text}", "-t", f"de={other}", "-e", corpus.encoder]
    assert "1 lines" in failed(*run("report", *arguments, "-o", tmp_path / "page.html"))


def test_report_refuses_before_any_work(corpus: Corpus, tmp_path: Path) -> None:
    assert ".html" in failed(*run("report", "-t", corpus.text, "-o", tmp_path / "page.txt"))
    code, _, err = run("report", "-t", corpus.text, "-t", corpus.text, "-o", tmp_path / "p.html")
    assert code == 2
    assert "name them" in " ".join(err.split())


# --- Codes and messages ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["keywords", "-m", "x"],
        ["keywords", "-m", "x", "-t", "a", "--embeddings", "b"],
        ["keywords", "-m", "x", "-t", "a", "-k", "0"],
        ["keywords", "-m", "x", "-t", "a", "-E", "novalue"],
        ["fit", "-t", "a"],
        ["fit", "-t", "a", "-o", "b", "--rank", "zero"],
        ["fit", "-t", "a", "-o", "b", "--words", "(a+)+b"],
        ["fit", "-t", "a", "-o", "b", "--embeddings", "c", "-e", "d"],
        ["fit", "-t", "-", "-o", "b", "--embeddings", "-"],
        ["evaluate", "-m", "x", "-t", "-", "--embeddings", "-"],
    ],
)
def test_what_is_not_understood_is_code_2(
    arguments: list[str], corpus: Corpus, tmp_path: Path
) -> None:
    arguments = [
        str(corpus.model) if a == "x" else str(tmp_path / "b") if a == "b" else a for a in arguments
    ]
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Usage: flip-sklearn" in err


def test_bad_files_have_their_line(corpus: Corpus, tmp_path: Path) -> None:
    def answer(*arguments: Any, stdin: bytes = b"") -> str:
        return failed(*run("keywords", "-q", "-m", corpus.model, *arguments, stdin=stdin))

    encoder = ("-e", corpus.encoder)
    assert "does not exist" in answer("-t", tmp_path / "none.txt", *encoder)
    assert "a folder" in answer("-t", tmp_path, *encoder)
    assert "--encoder" in answer("-t", corpus.text)
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(tmp_path / "m", encoder="LaBSE")
    assert "its author notes: LaBSE" in failed(*run("keywords", "-m", tmp_path / "m", "-t", "-"))
    wrong = answer("-t", "-", *encoder, stdin="gr\u00fcn\n".encode("latin-1"))
    assert "line 1 of standard input is not UTF-8" in wrong
    assert "0xfc" in wrong
    npy = io.BytesIO()
    np.save(npy, corpus.X)
    whole = npy.getvalue()
    for data, message in (
        (b"", "not a .npy file"),
        (b"\x93NUMPY\x09\x00", "version (9, 0)"),
        (whole[: len(whole) // 2], "truncated"),
        (whole[:40], "damaged header"),
    ):
        assert message in answer("--embeddings", "-", stdin=data)
        (tmp_path / "x.npy").write_bytes(data)
        assert message in answer("--embeddings", tmp_path / "x.npy")
    for array, message in (
        (np.array([{}]), "contains object"),
        (corpus.X[0], "shape (24,)"),
        (np.asfortranarray(corpus.X), "Fortran"),
        (corpus.X[:, :5], "24"),
        (np.where(np.arange(N)[:, None] == 7, np.nan, corpus.X), "row 7"),
    ):
        np.save(tmp_path / "x.npy", array, allow_pickle=True)
        code, _, err = run("keywords", "-q", "-m", corpus.model, "--embeddings", tmp_path / "x.npy")
        assert (code, message in err) == (1, True), err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_closed_streams_and_full_disks_are_one_line(corpus: Corpus) -> None:
    command = f"{sys.executable} -m flip_sklearn keywords -q -m {corpus.model}"
    for rest, message in (
        (f"--embeddings {corpus.embeddings} >&-", "standard output is closed"),
        (f"-t - -e {corpus.encoder} <&-", "standard input is closed"),
        (f"--embeddings {corpus.embeddings} > /dev/full", "No space left"),
    ):
        done = subprocess.run(
            ["bash", "-c", f"{command} {rest}"], capture_output=True, cwd=ROOT, timeout=300
        )
        assert done.returncode == 1
        assert message in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1, done.stderr.decode()


def test_pipes_are_files(corpus: Corpus, tmp_path: Path) -> None:
    """Embeddings through a named pipe, which cannot be mapped."""
    pipe = tmp_path / "x.npy"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(corpus.embeddings.read_bytes()))
    writer.start()
    piped = run("evaluate", "-m", corpus.model, "-t", corpus.text, "--embeddings", pipe)
    writer.join()
    assert piped[0] == 0, piped[2]
    arguments = ("evaluate", "-m", corpus.model, "-t", corpus.text, "--embeddings")
    assert piped[1] == run(*arguments, corpus.embeddings)[1]
    np.save(tmp_path / "none.npy", corpus.X[:0])
    assert "no rows" in failed(*run(*arguments, tmp_path / "none.npy"))


def test_lines_before_a_bad_one_are_answered(corpus: Corpus) -> None:
    """What is printed before a failure is right, and the code tells of the failure."""
    code, out, err = run(
        "keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder,
        stdin=b"dog runs\n" * 1024 + b"\xff\n",
    )  # fmt: skip
    assert code == 1
    assert out.count("\n") == 1024
    assert "line 1025" in err


def test_debug_shows_where(corpus: Corpus, tmp_path: Path) -> None:
    code, _, err = run("--debug", "keywords", "-m", tmp_path / "none", "-t", "-")
    assert code == 1
    assert "Traceback" in err
    assert "no folder" in err


def test_an_unknown_option_of_the_encoder_is_named(corpus: Corpus) -> None:
    err = failed(
        *run("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder, "-E", "batch=3")
    )
    assert "'batch'" in err
    assert "prompt_name" in err


# --- The recipe ------------------------------------------------------------------------------


def test_a_recipe_goes_with_its_model(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(folder)
    recipe = EncodingConfig({"model": "someone/encoder"}, {"token_pattern": "indic"})
    recipe.write(folder)
    assert EncodingConfig.read(folder) == recipe
    # Another model in the folder: the words and the encoder of the first one are not its own.
    FLiPExtractor.from_pretrained(folder).set_params(top_k=3).save_pretrained(folder)
    assert EncodingConfig.read(folder) == EncodingConfig(None, {})
    assert EncodingConfig.read(tmp_path) == EncodingConfig(None, {})


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"encoder": {"model": "m", "cache_dir": "/etc"}},
        {"encoder": {"model": "m", "api_key_env": "HOME"}},
        {"encoder": {"model": "m", "truncate_dim": "many"}},
        {"encoder": {"model": 3}},
        {"encoder": []},
        {"words": {"n_jobs": 64}},
        {"words": {"token_pattern": "(a+)+b"}},
        {"words": None},
    ],
)
def test_a_recipe_of_a_stranger(corpus: Corpus, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tmp_path / "m"
    FLiPExtractor.from_pretrained(corpus.model).save_pretrained(folder)
    EncodingConfig({"model": "m"}, {}).write(folder)
    content = json.loads((folder / "text.json").read_text()) | change
    (folder / "text.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"text\.json"):
        EncodingConfig.read(folder)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{" * 5000, b" " * 2**17, b"[" * 60_000])
def test_a_recipe_of_anything(corpus: Corpus, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "text.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"text\.json"):
        EncodingConfig.read(tmp_path)


# --- Help and entry points -------------------------------------------------------------------


def test_the_help_teaches() -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("fit", "keywords", "evaluate", "report"):
        assert command in out
        code, told, _ = run(command, "--help")
        assert code == 0
        assert f"flip-sklearn {command} -" in told  # an example
        assert "\b" not in told
        bare, _, _ = run(command)
        assert bare == 2


def test_the_examples_of_the_docs_are_commands() -> None:
    """Every command in help and docs names options that exist."""
    from typer.main import get_command

    from flip_sklearn.cli.app import app

    options = {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        for name, command in get_command(app).commands.items()
    }
    shown = "\n".join(
        [
            (ROOT / "docs" / "cli.md").read_text(),
            *(command.help or "" for command in get_command(app).commands.values()),
        ]
    )
    found = re.findall(r"flip-sklearn (fit|keywords|evaluate|report)\b((?:[^\n|`]|\\\n)*)", shown)
    assert len(found) > 10
    for command, rest in found:
        for option in re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", rest):
            assert option in options[command], (command, option)


def test_version_and_entry_points() -> None:
    from flip_sklearn import __version__

    assert run("--version") == (0, f"flip-sklearn {__version__}\n", "")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"flip-sklearn": "flip_sklearn.cli:main"}
    assert any(need.startswith("typer") for need in project["dependencies"])
    with start("--version") as process:
        out, _ = process.communicate(timeout=120)
    assert (process.returncode, out.decode()) == (0, f"flip-sklearn {__version__}\n")


def test_blocks_of_embeddings_are_the_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float16)
    np.save(tmp_path / "x.npy", X)
    for size in (1, 70, 10**6):
        monkeypatch.setattr(files, "_BLOCK_BYTES", size)
        blocks = list(files.read_embedding_blocks(str(tmp_path / "x.npy")))
        np.testing.assert_array_equal(np.concatenate(blocks), X)
    assert files.count_embeddings(str(tmp_path / "x.npy")) == 23
