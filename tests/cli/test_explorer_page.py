"""The page of `flip-sklearn explore` in a browser: one process serves, one browser reads."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.helpers.explorer import IMAGE, MODEL_NAME, SCRIPT, Pages, encode
from tests.helpers.processes import PATIENCE

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytest.importorskip("gradio", reason="needs the extra explore")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

HOSTILE_TEXTS = [
    f"{SCRIPT} {IMAGE}",
    "${window.hacked=1} {{value}}{{#if </td></table>",
    "שלום \u202eevil \U0001f415 \x1b[31mred $x^2$ **bold** <b>bold</b>",
    "<iframe src='javascript:window.top.hacked=1'></iframe><style>*{display:none}</style>",
    "dog \u0000 cat",
]
# None has the message of the one before: the page would not change.
REFUSED_TEXTS = {
    "": "The text is empty; type some words.",
    "a\ud800": "is half of a pair of surrogates, not valid Unicode",
    " \n\t ": "The text is empty; type some words.",
    "x" * 1_000_000: "The text has 1,000,000 characters, and at most 10,000 are allowed",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    pages = Pages(tmp_path_factory.mktemp("explorer"))
    with pages.child:
        yield pages


class Browser:
    """A headless Chromium that notes its requests."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for name in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-first-run"):
            options.add_argument(f"--{name}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))

    def script(self, code: str, *arguments: Any) -> Any:
        """What JavaScript returns; the arguments are JSON, which may hold half a pair of surrogates."""
        given = [json.dumps(argument) for argument in arguments]
        return self.driver.execute_script(f"const given = [...arguments].map(JSON.parse); {code}", *given)

    def count(self, selector: str) -> int:
        return int(self.script("return document.querySelectorAll(given[0]).length", selector))

    def text(self, selector: str) -> str:
        return str(self.script("return document.querySelector(given[0]).innerText", selector))

    def errors(self, part: str) -> str:
        """The message of an error, if there is one; Gradio adds to a part what its progress is."""
        code = "return [...document.querySelectorAll(given[0] + ' .flip-error')].map(e => e.innerText).join()"
        return str(self.script(code, part))

    def words(self, part: str) -> list[str]:
        """The words in the first column of the tables of a part, as the page has them."""
        code = "return [...document.querySelectorAll(given[0] + ' tbody th bdi')].map(e => e.textContent)"
        return list(self.script(code, part))

    def wait(self, selector: str) -> None:
        """Wait for an element."""
        deadline = time.monotonic() + PATIENCE
        while not self.count(selector):
            assert time.monotonic() < deadline, self.text("body")
            time.sleep(0.02)

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.wait("#flip-edit-button")
        time.sleep(0.5)  # Gradio sets the values of the boxes once more when all of them are there

    def fill(self, box: str, text: str) -> None:
        """Put text into a box, as pasting it does."""
        code = (
            "const box = document.querySelector(`#${given[0]} :is(textarea, input)`);"
            "box.value = given[1]; box.dispatchEvent(new Event('input'))"
        )
        self.script(code, box, text)

    def act(self, button: str, *parts: str, **boxes: str) -> None:
        """Fill boxes, click a button, and wait for another table or error in one of the parts."""
        for box, text in boxes.items():
            self.fill(f"flip-{box}", text)
        new = [
            f"{part} {result}:not([data-old])" for part in parts for result in (".flip-table", ".flip-error")
        ]
        self.script("document.querySelectorAll(given[0]).forEach(e => e.dataset.old = 1)", ", ".join(new))
        self.script("document.querySelector(given[0]).click()", f"#flip-{button}")
        self.wait(", ".join(new))

    def read(self, first: str, second: str = "") -> str:
        """Read two texts and return the error, if there is one."""
        self.act("read-text", "#flip-message", "#flip-words", text1=first, text2=second)
        return self.errors("#flip-message")

    def read_vectors(self, first: str, second: str = "") -> str:
        """Read two vectors and return the error, if there is one."""
        self.act("read-vector", "#flip-message", "#flip-words", vector1=first, vector2=second)
        return self.errors("#flip-message")

    def edit(self, add: str, remove: str) -> None:
        self.act("edit-button", "#flip-edited", add=add, remove=remove)


@pytest.fixture(scope="module")
def browser(pages: Pages) -> Iterator[Browser]:
    browser = Browser()
    try:
        browser.open(pages.url)
        yield browser
    finally:
        browser.driver.quit()


def shown(text: str) -> str:
    """A text as the page shows it, without control characters."""
    return text.replace("\x1b", "\ufffd")


def best(pages: Pages, x: np.ndarray, use_bias: bool) -> list[str]:
    words = pages.model.flip.set_params(use_bias=use_bias).extract_keywords(x[None], 10)[0]
    return [shown(word) for word in words]


# --- The page of texts -----------------------------------------------------------------------


def test_the_page_opens_with_an_example(pages: Pages, browser: Browser) -> None:
    browser.wait("#flip-words table")
    assert browser.driver.title.startswith(MODEL_NAME)
    assert MODEL_NAME in browser.text("h1")
    assert (
        browser.script("return document.querySelector('#flip-text1 textarea').value") == pages.model.texts[0]
    )
    code = "return [...document.querySelectorAll('textarea')].map(e => e.labels[0]?.innerText ?? '')"
    assert [text.split("\n")[0] for text in browser.script(code)][:2] == ["First text", "Second text"]


def test_words_of_a_text(pages: Pages, browser: Browser) -> None:
    assert browser.read("dog beach red") == ""
    x = encode(["dog beach red"])[0]
    assert browser.words("#flip-words") == best(pages, x, False) + best(pages, x, True)
    assert {*browser.words("#flip-words")[:3]} == {"dog", "beach", "red"}
    assert "> 99 %" in browser.text("#flip-words")
    assert browser.count("#flip-shared table") == 0


def test_what_two_texts_share(browser: Browser) -> None:
    assert browser.read("dog beach red", "dog river") == ""
    a, b = encode(["dog beach red", "dog river"])
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert f"Cosine {cosine:.3f}" in browser.text("#flip-shared")
    assert browser.words("#flip-shared")[0] == "dog"
    assert browser.text("#flip-shared tbody tr").split() == [
        "dog",
        *browser.text("#flip-shared .flip-value").split(),
        "both",
    ]


def neighbours(browser: Browser, part: str) -> list[str]:
    code = "return [...document.querySelectorAll(given[0] + ' > li > bdi')].map(e => e.textContent)"
    return list(browser.script(code, part))


def nearest(pages: Pages, x: np.ndarray) -> list[str]:
    X = pages.model.X
    order = np.argsort(-(X @ x) / np.linalg.norm(X, axis=1), kind="stable")[:5]
    return [shown(pages.model.texts[row]) for row in order]


def test_an_edit_changes_the_neighbours(pages: Pages, browser: Browser) -> None:
    assert browser.read("dog beach red") == ""
    before = nearest(pages, encode(["dog beach red"])[0])
    assert neighbours(browser, "#flip-near .flip-sentences") == before
    browser.edit("cat", "dog")
    assert browser.words("#flip-edited")[:2] == ["cat", "dog"]
    assert neighbours(browser, "#flip-edited div:first-child > .flip-sentences") == before
    after = neighbours(browser, "#flip-edited div:last-child > .flip-sentences")
    assert sum("cat" in text.split() for text in after) > sum("cat" in text.split() for text in before)
    assert sum("dog" in text.split() for text in after) < sum("dog" in text.split() for text in before)
    assert browser.count("#flip-edited .flip-new") == len({*after} - {*before})
    browser.edit("dogg", "")
    assert "similar words: 'dog'" in browser.text("#flip-edited .flip-error")
    assert browser.read("cat") == ""
    assert browser.count("#flip-edited table") == 0


def elements(browser: Browser) -> tuple[int, ...]:
    return tuple(browser.count(name) for name in ("script", "img", "iframe", "style", "b", "[onerror]"))


def test_hostile_texts_change_nothing_but_words(browser: Browser) -> None:
    browser.read("dog")
    before = elements(browser)
    for text in HOSTILE_TEXTS:
        assert browser.read(text, text) == ""
        assert elements(browser) == before
        assert browser.count("#flip-words table") == 4
    browser.read(f"{SCRIPT} {IMAGE}")
    assert {SCRIPT, IMAGE} == {*browser.words("#flip-words")[:2]}
    browser.edit(f"{SCRIPT}, $x^2$", "{{value}}{{#if, שלום")
    assert browser.words("#flip-edited")[:3] == [SCRIPT, "$x^2$", "{{value}}{{#if"]
    for text, message in REFUSED_TEXTS.items():
        assert message in browser.read(text)
        assert browser.count("#flip-words table") == 0
    browser.edit("dog", "")
    assert "there is no vector to edit yet" in browser.text("#flip-edited").lower()
    assert elements(browser) == before
    assert browser.script("return window.hacked ?? null") is None
    assert browser.script("return window.top.hacked ?? null") is None
    assert browser.read("dog cat") == ""
    assert {*browser.words("#flip-words")[:2]} == {"dog", "cat"}


# --- The page of vectors ---------------------------------------------------------------------


def test_vectors_instead_of_texts(pages: Pages, browser: Browser, tmp_path: Path) -> None:
    browser.open(pages.vectors_url)
    assert browser.count("#flip-text1") == 0
    x, y = encode([f"dog {SCRIPT}", "dog"])
    assert browser.read_vectors(json.dumps(x.tolist()), " ".join(map(str, y))) == ""
    assert browser.words("#flip-words")[:20] == best(pages, x, False) + best(pages, x, True)
    assert browser.words("#flip-shared")[0] == "dog"
    for text, message in (
        ("", "The vector is empty; paste 24 numbers"),
        ("1, 2, 3", "vector of 3 numbers, and the model reads vectors of 24"),
        ("nan " * 24, "Entry 0 of the vector (counted from 0) is nan"),
        (SCRIPT, "is '<script>window.hacked=1</script>', not a number"),
    ):
        assert message in browser.read_vectors(text)
    np.save(tmp_path / "rows.npy", pages.model.X)
    browser.driver.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / "rows.npy"))
    browser.wait("#flip-file .flip-note")
    assert browser.text("#flip-file .flip-note") == "rows.npy: 60 vectors."
    browser.wait("#flip-vector1")
    deadline = time.monotonic() + PATIENCE
    value = "return document.querySelector('#flip-vector1 textarea').value"
    while (
        json.loads(browser.script(value) or "[0]") != pages.model.X[0].tolist()
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    np.testing.assert_array_equal(np.float32(json.loads(browser.script(value))), pages.model.X[0])
    name = f"{IMAGE.replace('/', '')}.npy"
    np.save(tmp_path / name, np.array([{}]), allow_pickle=True)
    browser.driver.find_element("css selector", "input[type=file]").send_keys(str(tmp_path / name))
    browser.wait("#flip-file .flip-error")
    assert "contains object, not numbers" in browser.text("#flip-file")
    assert [path for path in pages.temporary.rglob("*.npy")] == []
    assert browser.script("return window.hacked ?? null") is None


# --- All of it -------------------------------------------------------------------------------


def test_no_request_leaves_the_machine(browser: Browser) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(requests) > 10
    assert {urlsplit(url).hostname for url in requests if not url.startswith(("data:", "blob:"))} == {
        "127.0.0.1"
    }
    assert [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Host": "evil.example"}, 403),
        ("/config", {"Origin": "https://evil.example"}, 403),
        ("/gradio_api/file=/etc/passwd", {}, 404),
        ("/gradio_api/info", {}, 404),
    ],
)
def test_answers_to_others(pages: Pages, path: str, headers: dict[str, str], status: int) -> None:
    connection = http.client.HTTPConnection(urlsplit(pages.url).netloc, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    assert answer.status == status
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert b"root:" not in answer.read()
    connection.close()


def test_settings_of_gradio_open_nothing(pages: Pages) -> None:
    """GRADIO_SERVER_NAME and others are set in the process that serves."""
    port = urlsplit(pages.url).port
    addresses = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    assert {address.split(":")[0] for address in addresses if address.endswith(f":{port:04X}")} == {
        "0100007F"
    }
    assert "gradio.live" not in pages.out.read_text() + pages.err.read_text()


def test_control_c_ends_it(pages: Pages) -> None:
    pages.child.interrupt()
    pages.child.process.join(PATIENCE)
    assert pages.child.process.exitcode == 130
    assert "Traceback" not in pages.err.read_text()
    assert "Ctrl-C ends it" in pages.err.read_text()
