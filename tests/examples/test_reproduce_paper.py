"""examples/reproduce_paper.py runs as a script, on a small folder in the layout of the published data."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from flip_sklearn.datasets import load_paired_embeddings
from flip_sklearn.diagnostics import rank_analysis, split_sentences
from tests.helpers.paths import ROOT
from tests.helpers.processes import run_python

WORDS = [a + b for a in ("ba", "de", "ki", "lo", "mu", "ra") for b in ("ne", "so", "ti", "va", "zu")]
D = 16
RECURRING = 7


def write(folder: Path, *, parts: dict[str, int]) -> np.ndarray:
    """Write sentences whose text embedding is the sum of word vectors, and speech with more noise."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(len(WORDS), D))
    folder.mkdir(parents=True)
    first: list[str] = []
    for part, n in parts.items():
        chosen = [rng.choice(len(WORDS), size=4, replace=False) for _ in range(n)]
        lines = [" ".join(WORDS[j] for j in row).capitalize() + "." for row in chosen]
        text = np.stack([words[row].sum(axis=0) for row in chosen])
        if part == "train":
            first, first_text = lines[:RECURRING], text[:RECURRING]
        else:  # the first training sentences again, in other case and with other noise
            lines[:RECURRING] = [line.upper() for line in first]
            text[:RECURRING] = first_text
        text = text + 0.05 * rng.normal(size=text.shape)
        speech = text + 1.2 * rng.normal(size=text.shape)
        scores = np.full(n, 0.8)
        scores[-3:] = (-0.1, 0.0, np.nan)  # not above the threshold
        np.save(folder / f"{part}_text_embs.npy", text.astype(np.float32))
        np.save(folder / f"{part}_speech_embs.npy", speech.astype(np.float32))
        np.save(folder / f"{part}_sim_scores.npy", scores)
        (folder / f"{part}_transcript.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return words


def write_entities(path: Path, transcript: Path) -> None:
    """Every second sentence has two names, of two words and of one; some texts do not match."""
    records = []
    for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), 1):
        first, second, third, _ = line.split()
        names = [f"{first} {second}", f"{third}?"] if number % 2 else []
        text = "another text" if number % 3 == 0 else line.upper()
        records.append({"line_number": number, "text": text, "entity_names": names})
    path.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = ROOT / "examples/reproduce_paper.py"
    return run_python(script, *arguments, cwd=ROOT)


def tables(text: str) -> dict[str, list[list[str]]]:
    """Return the rows of every table, by its number."""
    rows = {}
    for number, section in re.findall(r"## Table (\d):(.*?)(?=\n## |\Z)", text, re.DOTALL):
        lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
        rows[number] = [[cell.strip() for cell in line] for line in lines[2:]]
    return rows


def value(cell: str) -> float:
    return float(cell.split()[0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """One run with all options: the data, the output folder and standard output."""
    base = tmp_path_factory.mktemp("paper")
    folder, out = base / "data/cv_15/en/sonar_embeddings", base / "out"
    words = write(folder, parts={"train": 600, "dev": 60, "test": 160})
    write_entities(folder / "test_entities_by_hand.jsonl", folder / "test_transcript.txt")
    order = np.random.default_rng(1).permutation(len(WORDS))  # rows are rows_of by name
    np.savez(base / "concepts.npz", names=np.array(WORDS)[order], embeddings=words[order])
    data = ("--data", base / "data", "--concepts", base / "concepts.npz", "--rows", "all")
    process = run(*data, "--ranks", 4, 12, "--out", out)
    assert process.returncode == 0, process.stderr
    return folder, out, process.stdout


def test_all_tables_are_printed_and_saved(finished: tuple[Path, Path, str]) -> None:
    _, out, printed = finished
    saved = (out / "reproduce_paper.md").read_text(encoding="utf-8")
    assert saved.split() == printed.split()
    assert "with its bias" in printed
    rows_of = tables(printed)
    assert [row[0] for row in rows_of["1"]] == ["rank 4", "rank 12", "LiP"]
    views = ("text", "speech")
    assert [row[:2] for row in rows_of["2"]] == [[a, b] for a in views for b in views]
    assert [row[0] for row in rows_of["6"]] == ["FLiP", "LiP", "SpLiCE", "most frequent words"]
    assert (out / "concepts.txt").read_text(encoding="utf-8").split() == sorted(WORDS)


def test_figures_of_the_paper_are_in_the_rows_of_their_models(finished: tuple[Path, Path, str]) -> None:
    rows_of = tables(finished[2])
    paper = {row[0]: (row[2], row[5]) for row in rows_of["1"] + rows_of["6"][:1] + rows_of["6"][2:]}
    assert paper["LiP"] == ("59.45", "57.27")
    assert paper["SpLiCE"] == ("29.58", "28.21")
    assert paper["FLiP"] == ("61.45", "58.83")
    assert paper["rank 4"] == ("—", "—")
    assert {row[3] for row in rows_of["2"]} == {"—"}


def test_accuracy_is_lower_on_speech_than_on_text(finished: tuple[Path, Path, str]) -> None:
    rows_of = tables(finished[2])
    for row in [*rows_of["1"], *rows_of["6"][:-1]]:
        assert value(row[1]) > value(row[4]) + 2
    assert value(rows_of["1"][1][1]) > value(rows_of["1"][0][1])  # rank 12 over rank 4
    assert all(value(row[1]) > value(rows_of["6"][-1][1]) + 5 for row in rows_of["6"][:-1])


def test_figures_are_those_of_the_library(finished: tuple[Path, Path, str]) -> None:
    folder, _, printed = finished
    train, test = (load_paired_embeddings(folder, part) for part in ("train", "test"))
    views = {v: np.concatenate([train.views[v], test.views[v]]) for v in ("text", "speech")}
    texts = train.texts + test.texts
    rows = np.arange(len(train.texts), len(texts))
    split = split_sentences(views, groups=[t.lower() for t in texts], test=rows)
    Y = CountVectorizer().fit_transform(texts)
    result = rank_analysis(views, Y, [12], split=split, random_state=0, verbose=0)
    cells = tables(printed)["1"][1]
    for view, cell in ((0, cells[1]), (1, cells[4])):
        accuracy = result.accuracy
        expected = [100 * a[0, view] for a in (accuracy.value, accuracy.low, accuracy.high)]
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", cell)]
        # The script may run with another number of threads.
        np.testing.assert_allclose(numbers, expected, atol=0.3)


def test_names_are_found_by_text_or_line(finished: tuple[Path, Path, str]) -> None:
    """79 of the sentences have two names; almost all words are read from the embedding of the text."""
    section = finished[2].split("## Figure 1")[1].split("## Not computed")[0]
    assert re.search(r"158 names in 157 test sentences; 0 names", section)
    rows = [
        [c.strip() for c in line.strip("| ").split(" | ")] for line in section.splitlines() if "k =" in line
    ]
    assert [row[0] for row in rows[:3]] == ["k = 1", "k = 2", "k = 5"]
    assert value(rows[0][1]) < 40
    assert value(rows[2][1]) > 90
    assert value(rows[2][1]) > value(rows[2][4])  # speech has more noise


def test_what_is_not_computed_is_listed_with_its_reason(finished: tuple[Path, Path, str]) -> None:
    missing = finished[2].split("## Not computed")[1].split("## Settings")[0]
    assert re.findall(r"^- \*\*(.*?)\*\*", missing, re.MULTILINE) == [
        "Tables 3 and 4",
        "The paper's own figures",
        "rank 512, rank 1024 of table 1",
    ]
    assert "at most 16" in missing


@pytest.mark.parametrize("line", ['{"text": "a"}', "[1]", '{"text": "a", "entity_names": 3}', "{"])
def test_a_damaged_file_of_names_is_named_with_its_line(
    finished: tuple[Path, Path, str], tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    load_entities = importlib.import_module("paper_entities").load_entities
    data = load_paired_embeddings(finished[0], "test")
    path = tmp_path / "test_entities.jsonl"
    path.write_text('{"text": "", "entity_names": []}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2 of .*test_entities.jsonl"):
        load_entities(tmp_path, "test", data)
    assert load_entities(tmp_path, "dev", data) is None
    (tmp_path / "test_entities_2.jsonl").touch()
    with pytest.raises(ValueError, match=r"keep one of them"):
        load_entities(tmp_path, "test", data)


def test_training_sentences_that_are_in_the_test_part_are_dropped(finished: tuple[Path, Path, str]) -> None:
    folder, _, stdout = finished
    printed = " ".join(stdout.split())
    train, test = (load_paired_embeddings(folder, part).texts for part in ("train", "test"))
    recurring = len([text for text in train if text.lower() in {t.lower() for t in test}])
    assert recurring >= RECURRING
    assert f"{recurring} of 597 training sentences dropped" in printed
    assert f"{597 - recurring} training and 157 test sentences" in printed
    assert "3 pairs of train, 3 of test" in printed


def test_without_a_test_part_dev_is_used_and_without_concepts_splice_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "data", parts={"train": 500, "dev": 60})
    data = ("--data", tmp_path / "data", "--rows", 300)
    process = run(*data, "--ranks", 8, "--out", tmp_path / "out", "--no-bias")
    assert process.returncode == 0, process.stderr
    assert "57 dev sentences" in process.stdout
    assert "without its bias" in process.stdout
    assert re.search(r"\b(29\d|300) training", process.stdout)
    assert [row[0] for row in tables(process.stdout)["6"]] == ["FLiP", "LiP", "most frequent words"]
    assert "SpLiCE is left out" in process.stdout
    missing = process.stdout.split("## Not computed")[1]
    assert "**SpLiCE in table 6**" in missing
    assert "dev_entities*.jsonl" in missing
    assert "GiB" in process.stderr
    assert "GiB" not in process.stdout


def test_a_folder_without_the_files_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here\n", encoding="utf-8")
    process = run("--data", tmp_path, "--out", tmp_path / "out")
    assert process.returncode == 1
    assert process.stdout == ""
    assert "train_text_embs.npy" in process.stderr
    assert "notes.txt" in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_missing_concepts_give_a_one_line_error_before_training(
    finished: tuple[Path, Path, str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "few.npz", names=np.array(WORDS[1:]), embeddings=np.ones((len(WORDS) - 1, D)))
    process = run("--data", finished[0], "--concepts", tmp_path / "few.npz", "--ranks", 4, "--out", tmp_path)
    assert process.returncode == 1
    assert process.stdout == ""
    assert f"lacks 1 of the {len(WORDS)} concepts, such as '{WORDS[0]}'" in process.stderr
    assert "Table" not in process.stderr
    assert len((tmp_path / "concepts.txt").read_text(encoding="utf-8").split()) == len(WORDS)
