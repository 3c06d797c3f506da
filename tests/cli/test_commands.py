"""The commands give the results of the library, in order and in bounded memory."""

from __future__ import annotations

import json
import re
import shlex
import tracemalloc
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest

from flip_sklearn import FLiPExtractor, keyword_accuracy
from flip_sklearn.cli import commands, evaluation, files, main
from flip_sklearn.cli.output import format_keywords
from flip_sklearn.encoders import SentenceEncoder
from flip_sklearn.persistence.encoding import EncodingConfig
from flip_sklearn.vocabulary import ConceptVectorizer
from tests.helpers.command_line import WORDS, Corpus, Forked, N, error_line, run
from tests.helpers.paths import ROOT
from tests.helpers.processes import in_process, run_python

# --- fit -------------------------------------------------------------------------------------


def test_fit_equals_the_library_call(corpus: Corpus) -> None:
    model = FLiPExtractor.from_pretrained(corpus.model)
    assert sorted(model.vocabulary_) == sorted(WORDS)
    # The same with the library: held-out rows have weight 0.
    labels = np.unique([line.casefold() for line in corpus.lines], return_inverse=True)[1]
    test = commands.draw_test_rows(labels, 0.1, 0)
    train = np.setdiff1d(np.arange(N), test)
    vectorizer = ConceptVectorizer(bigrams=False, min_count=2).fit([corpus.lines[i] for i in train])
    weight = np.isin(np.arange(N), train).astype(float)
    expected = FLiPExtractor(vocabulary=vectorizer.get_feature_names_out().tolist(), random_state=0)
    expected.fit(corpus.X, vectorizer.transform(corpus.lines), sample_weight=weight, groups=labels)
    np.testing.assert_array_equal(model.word_embeddings_, expected.word_embeddings_)
    np.testing.assert_array_equal(model.bias_, expected.bias_)


def test_fit_evaluates_on_held_out_sentences(corpus: Corpus, tmp_path: Path) -> None:
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


def test_equal_sentences_are_held_out_together() -> None:
    labels = np.repeat(np.arange(30), 10)
    test = commands.draw_test_rows(labels, 0.2, 0)
    assert len(test) == 60
    assert not set(labels[test]) & set(np.delete(labels, test))
    assert len(commands.draw_test_rows(labels, 0, 0)) == 0


def test_fit_stores_the_encoder_settings(corpus: Corpus, tmp_path: Path) -> None:
    blank = corpus.text.read_text().replace("\n", "\n\n", 3)
    code, out, err = run(
        *("fit", "-t", "-", "-e", corpus.encoder, "-o", tmp_path / "m", "-q"),
        *("-E", "normalize=true"),
        *("--cache", tmp_path / "cache"),
        stdin=blank.encode(),
    )
    assert code == 0, err
    assert "3 blank lines" in out
    assert re.search(r"keyword accuracy +\d+\.\d % ± \d\.\d +with bias", out)
    assert (tmp_path / "cache" / "embeddings.sqlite3").exists()
    config = EncodingConfig.read(tmp_path / "m")
    assert config.encoder is not None
    assert config.encoder["normalize"] is True
    code, out, err = run(
        *("keywords", "-m", tmp_path / "m", "-t", "-", "-k", 4, "-e", corpus.encoder),
        stdin=b"Red dog RUNS day",
    )
    assert code == 0, err
    assert set(out.rstrip("\n").split("\t")) == {"red", "dog", "runs", "day"}
    X = SentenceEncoder(corpus.encoder, normalize=True).transform(["Red dog RUNS day"])
    model = FLiPExtractor.from_pretrained(tmp_path / "m").set_params(use_bias=False)
    assert out.rstrip("\n").split("\t") == model.extract_keywords(X, top_k=4)[0]


def test_pairs_and_rank(corpus: Corpus, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("".join(f"new york {line}\n" for line in corpus.lines))
    code, out, err = run(
        *("fit", "-t", text, "--embeddings", corpus.embeddings, "-o", tmp_path / "m"),
        *("--pairs", "--rank"),
        *(3, "--max-iter", 2, "--min-count", 5, "--test-share", 0, "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["rank"] == 3
    assert json.loads(out)["keyword_accuracy"] is None
    assert "new york" in FLiPExtractor.from_pretrained(tmp_path / "m").vocabulary_
    full = run(
        *("fit", "-t", text, "--embeddings", corpus.embeddings, "-o", tmp_path / "lip"),
        *("--rank", "full"),
        *("--max-iter", 1, "-q"),
    )
    assert full[0] == 0
    assert FLiPExtractor.from_pretrained(tmp_path / "lip").rank is None


def test_existing_model_is_replaced_only_with_force(corpus: Corpus, tmp_path: Path) -> None:
    arguments = ["fit", "-t", corpus.text, "--embeddings", corpus.embeddings, "--max-iter", 1, "-q"]
    folder = tmp_path / "m"
    assert run(*arguments, "-o", folder)[0] == 0
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "--force" in error_line(*run(*arguments, "-o", folder, "--seed", 1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run(*arguments, "-o", folder, "--seed", 1, "--force")[0] == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert EncodingConfig.read(folder).words  # the config is the new model's


def test_failed_fit_writes_nothing(corpus: Corpus, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", corpus.X[:7])
    err = error_line(
        *run("fit", "-t", corpus.text, "--embeddings", tmp_path / "short.npy", "-o", tmp_path / "m")
    )
    assert "7 embeddings" in err
    assert "400 lines" in err
    assert not (tmp_path / "m").exists()
    (tmp_path / "empty.txt").write_text("")
    assert "is empty" in error_line(*run("fit", "-t", tmp_path / "empty.txt", "-o", tmp_path / "m"))
    (tmp_path / "blank.txt").write_text("\n  \n")
    err = error_line(*run("fit", "-t", tmp_path / "blank.txt", "-o", tmp_path / "m", "-e", corpus.encoder))
    assert "only blank lines" in err
    assert "is a file" in error_line(*run("fit", "-t", corpus.text, "-o", corpus.text))
    assert not (tmp_path / "m").exists()


def test_ctrl_c_saves_the_best_pass(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"{line}\n" for line in corpus.lines) * 500)
    np.save(tmp_path / "x.npy", np.tile(corpus.X, (500, 1)))
    arguments = ("-t", tmp_path / "t.txt", "--embeddings", tmp_path / "x.npy", "-o", tmp_path / "m")
    with Forked("fit", *arguments, terminal=True) as process:
        seen = b""
        while b"FLiP pass 2/" not in seen:  # training ends after two passes without progress, at the earliest
            seen += process.stderr.read1()
            assert process.process.is_alive(), seen.decode()
        process.interrupt()
        assert process.wait() == 130, seen.decode()
        assert b"saved in" in process.stdout.read()
        assert b"interrupted; the best pass so far is saved in" in process.stderr.read1()
    assert len(FLiPExtractor.from_pretrained(tmp_path / "m").vocabulary_) == len(WORDS)


def test_keywords_equal_the_library_call(corpus: Corpus) -> None:
    model = FLiPExtractor.from_pretrained(corpus.model)
    code, out, err = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "--bias")
    assert (code, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == model.extract_keywords(corpus.X)
    code, out, _ = run(
        *("keywords", "-m", corpus.model, "--embeddings", "-", "-k", 3),
        *("--json", "--scores"),
        stdin=corpus.embeddings.read_bytes(),
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in rows] == list(range(1, N + 1))
    wanted = model.set_params(use_bias=False).extract_keywords(corpus.X, 3, return_scores=True)
    assert [row["keywords"] for row in rows] == [[word for word, _ in found] for found in wanted]
    np.testing.assert_allclose(
        [row["scores"] for row in rows], [[s for _, s in found] for found in wanted], atol=6e-5
    )


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_output_lines_match_input_lines(corpus: Corpus, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINES_PER_BLOCK", block)
    lines = ["\ufeffdog runs", "", "   ", "cat sleeps\r", "nothing known here", "bird\u2028sings", "red"]
    code, out, err = run(
        *("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder, "-k", 2),
        stdin="\n".join(lines).encode(),
    )
    assert code == 0, err
    found = [set(line.split("\t")) for line in out.split("\n")[:-1]]
    assert len(found) == len(lines)
    assert found[0] == {"dog", "runs"}
    assert found[1] == found[2] == {""}
    assert found[3] == {"cat", "sleeps"}
    assert found[5] == {"bird", "sings"}
    assert "red" in found[6]


def test_scores_follow_the_words(corpus: Corpus) -> None:
    _, plain, _ = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "-k", 4)
    _, scored, _ = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "-k", 4, "--scores")
    fields = [[cell.rpartition(" ") for cell in line.split("\t")] for line in scored.splitlines()]
    assert [[word for word, _, _ in row] for row in fields] == [
        line.split("\t") for line in plain.splitlines()
    ]
    assert all(np.diff([float(score) for _, _, score in row]).max() <= 0 for row in fields)


def test_words_with_tabs_are_one_field(corpus: Corpus) -> None:
    row = [("a\tb\nc", 1.0), ("new york", 0.5)]
    assert format_keywords([row], 1, scores=False, as_json=False) == "a b c\tnew york\n"


def test_closed_pipe_exits_with_141(corpus: Corpus) -> None:
    np.save(corpus.folder / "many.npy", np.tile(corpus.X, (200, 1)))
    with Forked("keywords", "-m", corpus.model, "--embeddings", corpus.folder / "many.npy") as process:
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait() == 141
    assert b"Traceback" not in err
    assert b"Broken" not in err


def test_lines_of_a_pipe_are_answered_as_they_come(corpus: Corpus) -> None:
    with Forked("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder, "-k", 2) as process:
        for line, words in (
            (b"dog runs\n", {b"dog", b"runs"}),
            (b"\ncat sle", None),
            (b"eps\n", {b"cat", b"sleeps"}),
        ):
            process.stdin.write(line)
            process.stdin.flush()
            if words:
                assert set(process.stdout.readline().split()) == words
            else:
                assert process.stdout.readline() == b"\n"
        process.stdin.write(b"red")  # the last line has no end
        process.stdin.close()
        assert process.stdout.readline().startswith(b"red\t")
        assert process.wait() == 0


def test_keywords_rank_without_bias_by_default(corpus: Corpus) -> None:
    model = FLiPExtractor.from_pretrained(corpus.model)
    for options, use_bias in (((), False), (("--no-bias",), False), (("--bias",), True)):
        _, out, _ = run("keywords", "-m", corpus.model, "--embeddings", corpus.embeddings, "-k", 7, *options)
        expected = model.set_params(use_bias=use_bias).extract_keywords(corpus.X, 7)
        assert [line.split("\t") for line in out.splitlines()] == expected


def outputs(commands: list[list[str]]) -> None:
    """Run commands one after the other with the standard streams of this process."""
    for command in commands:
        with pytest.raises(SystemExit, match="0"):
            main(command)


def test_no_progress_bars_without_a_terminal(corpus: Corpus, tmp_path: Path) -> None:
    commands = [
        ("fit", "-t", corpus.text, "-e", corpus.encoder, "-o", tmp_path / "m", "--max-iter", 50),
        ("keywords", "-m", corpus.model, "-t", corpus.text, "-e", corpus.encoder),
        ("evaluate", "-m", corpus.model, "-t", corpus.text, "-e", corpus.encoder),
    ]
    code = "import json, sys; from tests.cli.test_commands import outputs; outputs(json.load(sys.stdin))"
    done = run_python("-c", code, stdin=json.dumps([[*map(str, command)] for command in commands]), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("flip-sklearn: ")] == []
    assert "\r" not in done.stderr


def test_fit_names_the_next_command(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    arguments = ("fit", "-t", corpus.text, "--embeddings", corpus.embeddings, "--max-iter", 50, "-o", folder)
    code, _, err = run(*arguments)
    assert code == 0
    command = shlex.split(err.splitlines()[-1].partition("next: ")[2])
    assert command[0] == "flip-sklearn"
    command = [str(corpus.text) if word == "FILE" else word for word in command[1:]]
    assert run(*command, "-e", corpus.encoder)[0] == 0
    assert "next" not in run(*arguments, "--force", "--json")[2]


def test_ctrl_c_in_keywords(corpus: Corpus) -> None:
    with Forked("keywords", "-m", corpus.model, "-t", "-", "-e", corpus.encoder) as process:
        process.stdin.write(b"dog runs\n" * 1024)
        process.stdin.flush()
        assert process.stdout.readline()  # printed before the input ends
        process.interrupt()
        _, err = process.communicate()
        assert process.wait() == 130
    assert b"Traceback" not in err


def peaks(model: Path, inputs: list[Path], folder: Path) -> list[float]:
    """Peak memory of this process in MiB after the keywords of each input; they are written to the folder."""
    found = []
    for path in inputs:
        with (folder / f"{path.name}.txt").open("w") as out, redirect_stdout(out), suppress(SystemExit):
            main(["keywords", "-q", "-k", "3", "-m", str(model), "--embeddings", str(path)])
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        found.append(int(status["VmHWM"].split()[0]) / 1024)
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_rows(corpus: Corpus, tmp_path: Path) -> None:
    """Six times as many rows take no more memory, since only one block is in memory."""
    inputs = {tmp_path / f"x{times}.npy": times * N for times in (100, 600)}
    for path, n in inputs.items():
        np.save(path, np.tile(corpus.X.astype(np.float32), (n // N, 1)))
    few, many = in_process(peaks, corpus.model, list(inputs), tmp_path)
    for path, n in inputs.items():
        assert sum(1 for _ in (tmp_path / f"{path.name}.txt").open("rb")) == n
    # All of the 200,000 additional rows would be 18 MiB of embeddings and 60 MiB of lists.
    assert many - few < 25, (few, many)


def test_evaluate_equals_the_library_call(corpus: Corpus, tmp_path: Path) -> None:
    names = tmp_path / "names.jsonl"
    names.write_text("".join(json.dumps([line.split()[0]]) + "\n" for line in corpus.lines))
    code, out, err = run(
        *("evaluate", "-m", corpus.model, "-t", corpus.text, "--embeddings", corpus.embeddings),
        *("--entities", names, "-k", 4, "--json"),
    )
    assert code == 0, err
    rows = {(row["metric"], row["use_bias"]): row for row in json.loads(out)}
    model = FLiPExtractor.from_pretrained(corpus.model)
    Y = ConceptVectorizer(vocabulary=list(model.vocabulary_)).transform(corpus.lines)
    for bias in (True, False):
        accuracy = keyword_accuracy(Y, model.set_params(use_bias=bias).decision_function(corpus.X))
        row = rows["keyword accuracy", bias]
        assert (row["value"], row["n_rows"]) == (accuracy.value, accuracy.n_rows)
        # Every sentence has four different words, so recall at 4 equals the accuracy.
        assert rows["recall at 4", bias]["value"] == pytest.approx(accuracy.value)
        assert rows["names found whole at 4", bias]["value"] > 0.8
    assert 1 < rows["perplexity per word", True]["value"] < len(WORDS)
    code, table, _ = run("evaluate", "-m", corpus.model, "-t", corpus.text, "-e", corpus.encoder, "-k", 4)
    assert code == 0
    share = 100 * rows["keyword accuracy", True]["value"]
    assert re.search(rf"keyword accuracy +{share:.1f} % ± ", table)


def test_evaluate_prints_the_published_precision_and_recall(corpus: Corpus, tmp_path: Path) -> None:
    """The published evaluation: sets of the lower-case words of a text and of its k best keywords."""
    lines = ["Dog runs, a zebra!", "", "Cat cat SLEEPS.", "a zebra walks"]
    (tmp_path / "t.txt").write_text("".join(f"{line}\n" for line in lines))
    np.save(tmp_path / "t.npy", corpus.X[:4])
    for k in (1, 3):
        code, out, err = run(
            *("evaluate", "-m", corpus.model, "-t", tmp_path / "t.txt"),
            *("--embeddings", tmp_path / "t.npy", "-k", k, "--json"),
        )
        assert code == 0, err
        rows = {(row["metric"], row["use_bias"]): row for row in json.loads(out)}
        for bias in (True, False):
            model = FLiPExtractor.from_pretrained(corpus.model).set_params(use_bias=bias)
            expected = []
            for line, keywords in zip(lines, model.extract_keywords(corpus.X[:4], top_k=k), strict=True):
                if line:
                    words = set(re.sub(r"[^\w\s]", "", line).lower().split())
                    overlap = len(words & set(keywords))
                    p, r = overlap / k, overlap / len(words)
                    expected.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
            for name, mean in zip(("precision", "recall", "F1"), np.mean(expected, axis=0), strict=True):
                row = rows[f"{name} at {k}", bias]
                assert (row["n_rows"], row["n_skipped"]) == (3, 1)  # the blank line
                assert row["value"] == pytest.approx(mean)
        assert rows["keyword accuracy", True]["n_rows"] == 2


def test_a_phrase_counts_as_one_word_in_evaluate() -> None:
    vectorizer = ConceptVectorizer(vocabulary=["new york", "york", "fly"])
    texts = ["Fly to New York, a new city", "York is York", "New York or York", ""]
    counts = evaluation._count_distinct_words(texts, vectorizer.transform(texts), vectorizer)
    assert counts.tolist() == [5, 2, 3, 0]  # fly, new york, to, a, city; york, is; new york, york, or


def test_blank_lines_do_not_shift_names(corpus: Corpus, tmp_path: Path) -> None:
    text, names = tmp_path / "t.txt", tmp_path / "n.jsonl"
    text.write_text("dog runs\n\ncat sleeps\n")
    names.write_text('["Dog"]\n[]\n["cat"]\n')
    code, out, err = run(
        *("evaluate", "-m", corpus.model, "-t", text, "-e", corpus.encoder, "--entities", names),
        *("-k", 2),
        *("--json",),
    )
    assert code == 0, err
    rows = {(row["metric"], row["use_bias"]): row for row in json.loads(out)}
    assert rows["names found whole at 2", True]["value"] == 1
    names.write_text('["Dog"]\n["cat"]\n')
    err = error_line(
        *run("evaluate", "-m", corpus.model, "-t", text, "-e", corpus.encoder, "--entities", names)
    )
    assert "2 lines, and there are 3 sentences" in err


def test_report(corpus: Corpus, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    noisy = tmp_path / "noisy.npy"
    np.save(noisy, corpus.X + 0.3 * np.random.default_rng(0).normal(size=corpus.X.shape))
    code, out, err = run(
        *("report", "-t", corpus.text, "--embeddings", f"text={corpus.embeddings}", "--embeddings"),
        *(f"speech={noisy}", "-o", page, "--no-ranks", "-q", "--title", "Two views"),
    )
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
        *("report", "-t", f"en={corpus.text}", "-t", f"de={other}", "-e", corpus.encoder, "-o"),
        *(tmp_path / "page.html", "--no-ranks", "-q"),
    )
    assert code == 0, err
    assert "“de”" in out
    other.write_text("too short\n")
    arguments = ["-t", f"en={corpus.text}", "-t", f"de={other}", "-e", corpus.encoder]
    assert "1 lines" in error_line(*run("report", *arguments, "-o", tmp_path / "page.html"))


def test_report_takes_the_options_that_its_errors_name(corpus: Corpus, tmp_path: Path) -> None:
    lines = corpus.text.read_text().splitlines()
    (tmp_path / "t.txt").write_text("\n".join(["same text", *["Same  text"] * 9, *lines[:3]]))
    arguments = ("report", "-e", corpus.encoder, "-o", tmp_path / "page.html", "--no-ranks", "-q")
    assert "4 different sentences; a report needs at least 5" in error_line(
        *run(*arguments, "-t", tmp_path / "t.txt")
    )
    (tmp_path / "t.txt").write_text("\n".join(lines[:12]))
    assert "Lower min_count" in error_line(*run(*arguments, "-t", tmp_path / "t.txt", "--min-count", 12))
    code, out, err = run(*arguments, "-t", tmp_path / "t.txt", "--min-count", 1, "--max-iter", 40)
    assert code == 0, err
    assert "Tested on" in out


def test_report_refuses_before_any_work(corpus: Corpus, tmp_path: Path) -> None:
    assert ".html" in error_line(*run("report", "-t", corpus.text, "-o", tmp_path / "page.txt"))
    code, _, err = run("report", "-t", corpus.text, "-t", corpus.text, "-o", tmp_path / "p.html")
    assert code == 2
    assert "name them" in " ".join(err.split())


def test_one_long_line_takes_little_memory(tmp_path: Path) -> None:
    """An array of strings would take 4 bytes for each line and each character of the longest: 1.2 GB."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, 6)) for _ in range(600)]
    (tmp_path / "t.txt").write_text("\n".join([*lines, "dog " * 125_000]))
    np.save(tmp_path / "x.npy", rng.normal(size=(601, 8)).astype(np.float32))
    tracemalloc.start()
    code, _, err = run(
        *(
            "fit",
            "--text",
            tmp_path / "t.txt",
            "--embeddings",
            tmp_path / "x.npy",
            "--out",
            tmp_path / "model",
        ),
        *("--max-iter", 1, "-q"),
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code == 0, err
    assert peak < 300e6
