"""load_translations: catalogues are read as data, cleaned, and aligned."""

from __future__ import annotations

import gettext
import io
import logging
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flip_sklearn.datasets import Translations, load_translations
from flip_sklearn.datasets import catalogues as catalogues_module
from flip_sklearn.datasets.catalogues import (
    default_folders,
    find_catalogues,
    read_catalogue,
    resolve_language,
)
from flip_sklearn.datasets.translations import INSTALL_COMMAND, clean_message
from tests.helpers.catalogues import catalogue_bytes, write_catalogue

GERMAN = {
    "The file could not be opened.": "Die Datei konnte nicht geöffnet werden.",
    "The text is longer than a page.": "Der Text ist länger als eine Seite.",
    "Please choose a colour for the page.": "Bitte wählen Sie eine Farbe für die Seite.",
}
CHINESE = {
    "The file could not be opened.": "无法打开这个文件。",
    "The text is longer than a page.": "文字比一页还要长。",
    "Please choose a colour for the page.": "请选择页面的颜色。",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Catalogues of two packages in two languages."""
    write_catalogue(tmp_path, "de", "editor", GERMAN)
    write_catalogue(tmp_path, "zh_CN", "editor", CHINESE)
    other = {"The house has many old windows.": "Das Haus hat viele alte Fenster."}
    write_catalogue(tmp_path / "viewer" / "locale", "de_DE", "django", other)
    write_catalogue(
        tmp_path / "viewer" / "locale", "zh_Hans", "django", dict.fromkeys(other, "房子有许多旧窗户。")
    )
    return tmp_path


def load(folder: Path, languages: object = ("de", "zh"), **options: object) -> Translations:
    return load_translations(languages, folders=[folder], **options)  # type: ignore[arg-type]


# --- Reading ---------------------------------------------------------------------------------
_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\0\4"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(_TEXT, _TEXT, max_size=8), st.sampled_from(["utf-8", "latin-1"]), st.sampled_from("<>")
)
def test_catalogues_are_read_as_by_gettext(
    tmp_path_factory: pytest.TempPathFactory, messages: dict[str, str], charset: str, order: str
) -> None:
    data = catalogue_bytes(messages, charset=charset, order=order)
    expected = gettext.GNUTranslations(io.BytesIO(data))._catalog  # type: ignore[attr-defined]
    expected.pop("")
    path = tmp_path_factory.getbasetemp() / "read.mo"
    path.write_bytes(data)
    assert read_catalogue(path) == expected == messages


def test_the_plural_and_the_context_of_a_message(tmp_path: Path) -> None:
    messages = {"menu\4one file\0%d files": "eine Datei\0%d Dateien", "verb\4Open": "Öffnen"}
    read = read_catalogue(write_catalogue(tmp_path, "de", "x", messages))
    assert read == {"menu\4%d files": "%d Dateien", "verb\4Open": "Öffnen"}
    one_form = write_catalogue(tmp_path, "zh", "x", {"one file\0%d files": "%d 个文件"})
    assert read_catalogue(one_form) == {"%d files": "%d 个文件"}


def test_messages_in_another_encoding_than_declared_are_left_out(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, "de", "x", {"yes": "ja", "open": "öffnen"}, charset="latin-1")
    path.write_bytes(path.read_bytes().replace(b"charset=latin-1", b"charset=utf-8  "))
    assert read_catalogue(path) == {"yes": "ja"}


GOOD = catalogue_bytes(GERMAN)
N = len(GERMAN) + 1
HOSTILE = {
    "empty": b"",
    "magic": b"GIF89a" + GOOD[6:],
    "header": GOOD[:16],
    "tables": GOOD[:60],
    "strings": GOOD[:-40],
    "revision": GOOD[:4] + struct.pack("<I", 5 << 16) + GOOD[8:],
    "number": GOOD[:8] + struct.pack("<I", 2**32 - 1) + GOOD[12:],
    "offset": GOOD[:12] + struct.pack("<I", 2**32 - 1) + GOOD[16:],
    "charset": GOOD.replace(b"charset=utf-8", b"charset=rot13"),
    "unknown charset": GOOD.replace(b"charset=utf-8", b"charset=qqq-8"),
    # Each message is the whole file: a megabyte of such messages would take terabytes.
    "overlap": GOOD[:28] + struct.pack("<2I", len(GOOD), 0) * 2 * N + GOOD[28 + 16 * N :],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_catalogues_are_skipped_and_named(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load(folder)
    for language in ("de", "zh"):
        path = write_catalogue(folder, language, "bad", GERMAN)
        path.write_bytes(HOSTILE[kind])
    with caplog.at_level(logging.WARNING):
        after = load(folder)
    assert after.texts == before.texts
    assert "bad.mo" in caplog.text


@pytest.mark.parametrize("size", range(0, len(GOOD), 7))
def test_no_truncated_catalogue_raises(size: int, tmp_path: Path) -> None:
    path = tmp_path / "x.mo"
    path.write_bytes(GOOD[:size])
    assert read_catalogue(path) == {}


def test_only_files_of_a_reasonable_size_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(catalogues_module, "MAX_FILE_BYTES", len(GOOD) - 1)
    path = write_catalogue(tmp_path, "de", "x", GERMAN)
    assert read_catalogue(path) == {}
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mo")  # would block
        assert read_catalogue(tmp_path / "pipe.mo") == {}
        assert "pipe.mo" in caplog.text
    assert read_catalogue(tmp_path / "missing.mo") == {}


def test_plural_rules_are_not_run(tmp_path: Path) -> None:
    """gettext refuses this rule, and the whole catalogue with it."""
    messages = {"": "Content-Type: text/plain; charset=utf-8\nPlural-Forms: nplurals=2; plural=exit(1);\n"}
    path = write_catalogue(tmp_path, "de", "x", {**GERMAN, **messages})
    with path.open("rb") as file, pytest.raises(ValueError, match="plural"):
        gettext.GNUTranslations(file)
    assert read_catalogue(path) == GERMAN


# --- Languages and folders -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("language", "available", "expected"),
    [
        ("de", "de de_at de_de", "de"),
        ("de", "de_at de_de", "de_de"),
        ("de", "de_ch de_at", "de_at"),
        ("de-DE", "de fr", "de"),
        ("de_AT", "de_at de", "de_at"),
        ("pt", "pt_br pt_pt", "pt_pt"),
        ("pt", "pt_br", "pt_br"),
        ("zh", "zh_cn zh_tw", "zh_cn"),
        ("zh", "zh_hans zh_hant", "zh_hans"),
        ("zh-hans", "zh_cn", "zh_cn"),
        ("zh_CN.UTF-8", "zh_tw zh", "zh"),
        ("zh", "zh_tw zh_hant", None),
        ("zh_TW", "zh_cn zh_hant", "zh_hant"),
        ("zh_TW", "zh", None),
        ("no", "nb", "nb"),
        ("sr", "sr@latin", None),
        ("sr@latin", "sr sr@latin", "sr@latin"),
        ("de", "deu ded", None),
    ],
)
def test_names_of_languages(language: str, available: str, expected: str | None) -> None:
    assert resolve_language(language, available.split()) == expected


def test_packages_are_named_by_folder_or_by_catalogue(folder: Path) -> None:
    names = [catalogue.package for catalogue in find_catalogues([folder])]
    assert names == ["editor", "viewer"]
    assert [c.package for c in find_catalogues([folder, folder / "viewer"])] == names, "counted once"
    assert [c.package for c in find_catalogues([folder / "viewer"])] == ["django"]
    assert [c.package for c in find_catalogues([folder / "de"])] == ["editor"], "a folder of one language"
    write_catalogue(folder / "viewer" / "tests" / "locale", "de", "test", GERMAN)
    assert [c.package for c in find_catalogues([folder])] == names


def test_default_folders_have_the_python_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "share" / "locale").mkdir(parents=True)
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    folders = default_folders()
    assert (tmp_path / "share" / "locale").resolve() in folders
    assert any(path.name in ("site-packages", "dist-packages") for path in folders)
    assert len(set(folders)) == len(folders)


def test_installed_catalogues() -> None:
    """The package that the extra "languages" installs."""
    pytest.importorskip("gramps", reason="gramps is not installed")
    data = load_translations(["de", "fr", "zh"], packages=["gramps"], max_sentences=500, random_state=0)
    assert len(data) == 500
    assert set(data.packages) == {"gramps"}
    chinese = sum(any("\u4e00" <= c <= "\u9fff" for c in text) for text in data.texts["zh"])
    assert chinese > 490
    assert not any("%" in text for texts in data.texts.values() for text in texts)


# --- Cleaning --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("message", "expected", "n_placeholders"),
    [
        ('could not open file "%s": %m', "could not open file", 2),
        ("%(count)d of %(total)s files", "of files", 2),
        ("{user} has joined the room {0}.", "has joined the room.", 2),
        ("Dear ${name}, you have %5.2f%% left", "Dear, you have % left", 2),
        ("’%1$s’ und »%2$s« sind gleich", "und sind gleich", 2),
        ("100% of the files, 50 % done", "100% of the files, 50 % done", 0),
        ("_File", "File", 0),
        ("Save _as…", "Save as…", 0),
        ("Save &as &amp; quit", "Save as & quit", 0),
        ("文件(_F)", "文件", 0),
        ("打开（&O）...", "打开...", 0),
        ("<b>Bold</b> and<br/>plain &lt;text&gt;", "Bold and plain text", 0),
        ("show <mode> of <a href='x'>links</a>", "show mode of links", 0),
        ("use --force=yes or -f (see '--help')", "use or (see)", 3),
        ("»numeric«-Werte und E-Mail - nicht alle", "»numeric«-Werte und E-Mail - nicht alle", 0),
        ("%s: can't read\n", "can't read", 1),
        ("读取 %s 时出错：%m", "读取 时出错", 2),
        ("Le fichier\u00a0: « %s »", "Le fichier", 1),
        ("a\u200eb\u00adc", "abc", 0),
        ("in %(date)s%(place)s.", "in.", 2),
    ],
)
def test_clean_message(message: str, expected: str, n_placeholders: int) -> None:
    assert clean_message(message) == (expected, n_placeholders)


_PIECES = [
    "%s",
    "%(name)s",
    "{0}",
    "_File",
    "&Open",
    "<b>x</b>",
    "&amp;",
    "word",
    "größer",
    "文件",
    ": ",
    " ",
    '"%s"',
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_cleaned_text_has_no_placeholder_and_stays_as_it_is(message: str) -> None:
    text, _ = clean_message(message)
    assert clean_message(text)[1] == 0
    assert text == text.strip()
    assert "  " not in text
    assert "%s" not in text
    assert "{" not in text
    assert "\ue000" not in text


# --- Alignment -------------------------------------------------------------------------------
def test_sentences_are_aligned_in_the_order_of_the_catalogues(folder: Path) -> None:
    data = load(folder)
    assert list(data.texts) == ["en", "de", "zh"]
    assert data.texts["en"] == [*sorted(GERMAN), "The house has many old windows."]
    assert data.texts["de"][:3] == [GERMAN[text] for text in sorted(GERMAN)]
    assert data.texts["zh"][:3] == [CHINESE[text] for text in sorted(GERMAN)]
    assert data.packages == ["editor"] * 3 + ["viewer"]
    assert len(data) == 4
    assert repr(data) == "Translations(4 sentences, en, de, zh, 2 packages)"


def test_a_message_that_one_language_lacks_is_left_out(folder: Path) -> None:
    missing = "The file could not be opened."
    write_catalogue(folder, "zh_CN", "editor", {k: v for k, v in CHINESE.items() if k != missing})
    assert missing not in load(folder).texts["en"]
    assert missing in load(folder, ["de"]).texts["en"]
    assert list(load(folder, ["zh", "en"]).texts) == ["en", "zh"], "English is always there, and first"


@pytest.mark.parametrize(
    ("message", "translation"),
    [
        ("The door could not be closed.", "The door could not be closed."),  # not translated
        ("The door could not be closed.", "the door could nicht be closed"),  # mostly not
        (
            "The door %s could not be closed.",
            "Die Tür konnte nicht geschlossen werden.",
        ),  # a placeholder less
        ("The door could not be closed.", "Tür"),  # far too short
        ("The door could not be closed.", "Die Tür konnte nicht geschlossen werden. " * 4),
        ("The door could not be closed.", "%"),
        ("Too few words", "Zu wenige Wörter"),
        ("Usage: close the door with care", "Aufruf: schließe die Tür mit Vorsicht"),
        ("  -d, --door  close the door with care", "  -d, --door  schließe die Tür mit Vorsicht"),
        ("set door = closed in the file", "setze door = closed in der Datei"),
        ("%s was born in %s in the year %s in a house", "%s wurde in %s im Jahr %s in einem Haus geboren"),
        ("ABC DEF GHI JKL MNO", "abc def ghi jkl mno ist gleich"),
        ("one two three four five " * 9, "eins zwei drei vier fünf " * 9),  # a page
    ],
)
def test_what_is_not_a_translated_sentence_is_left_out(
    message: str, translation: str, tmp_path: Path
) -> None:
    write_catalogue(tmp_path, "de", "x", GERMAN | {message: translation})
    assert load(tmp_path, ["de"]).texts["en"] == sorted(GERMAN)


def test_a_sentence_occurs_once(folder: Path) -> None:
    again = {"THE FILE could not be opened: %s": "Die Datei %s konnte nicht geöffnet werden."}
    write_catalogue(folder / "viewer" / "locale", "de", "more", again)
    data = load(folder, ["de"])
    assert len(data) == 4
    assert data.texts["en"].count("The file could not be opened.") == 1


def test_min_words_and_packages(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_catalogue(folder, "de", "short", {"Open the file": "Öffne die Datei"})
    assert "Open the file" in load(folder, ["de"], min_words=3).texts["en"]
    assert set(load(folder, packages=["viewer", "absent"]).packages) == {"viewer"}
    assert "'absent' has no catalogues" in caplog.text


def test_samples(folder: Path) -> None:
    everything = load(folder)
    rows = list(zip(*everything.texts.values(), everything.packages, strict=True))
    for seed in (0, 1):
        sample = load(folder, max_sentences=3, random_state=seed)
        drawn = list(zip(*sample.texts.values(), sample.packages, strict=True))
        expected = np.random.RandomState(seed).permutation(4)[:3]
        assert drawn == [rows[i] for i in expected], "all languages and packages with the same rows"
    assert load(folder, max_sentences=2).texts["en"] == [rows[0][0], rows[2][0]], "spread evenly"
    assert len(load(folder, max_sentences=99)) == 4


# --- Errors ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": "de"}, r"languages='de' is not allowed; use a list of languages besides English"),
        ({"languages": []}, "languages="),
        ({"languages": ["en"]}, "languages="),
        ({"languages": [3]}, "languages="),
        ({"languages": ["../de"]}, "languages="),
        ({"languages": None}, "languages=None"),
        ({"max_sentences": 0}, "max_sentences=0 .* integer >= 1 or None"),
        ({"min_words": 0}, "min_words=0 .* from 1 to"),
        ({"min_words": True}, "min_words=True"),
        ({"random_state": "a"}, "random_state='a'"),
        ({"packages": ["absent"]}, r"packages=\['absent'\] .*'editor', 'viewer'"),
        ({"packages": "editor"}, "packages='editor'"),
        ({"folders": ["/no/such/folder"]}, "folders=.*no/such/folder"),
        ({"folders": []}, "folders="),
        ({"folders": "locale"}, "folders='locale'"),
        ({"folders": 3}, "folders=3"),
        ({"packages": 3}, "packages=3"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_translations(**{"languages": ["de"], "folders": [folder], **options})  # type: ignore[arg-type]


def test_too_few_catalogues_name_the_command(folder: Path, tmp_path: Path) -> None:
    for languages in (["sw"], ["de", "sw"]):
        with pytest.raises(ValueError, match=rf"'sw' has no catalogue.*de \(.*{INSTALL_COMMAND}"):
            load(folder, languages)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=f"none. Install .*{INSTALL_COMMAND}.*apt install"):
        load(tmp_path / "none")
    write_catalogue(tmp_path / "short", "de", "x", {"Open": "Öffnen"})
    with pytest.raises(ValueError, match=f"no catalogue has a sentence in all of them.*{INSTALL_COMMAND}"):
        load(tmp_path / "short", ["de"])
