"""The page loads nothing, runs no script but its own, and works in a browser."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from ecgbyte_hf.data.local_findings import local_st_shift
from ecgbyte_hf.interpretation.attribution import Attribution
from ecgbyte_hf.interpretation.reading import Reading, Word
from ecgbyte_hf.interpretation.report_page import report_page, save_report
from ecgbyte_hf.interpretation.token_colours import neighbour_colours

LEADS = ("V1", "II")
HOSTILE = '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
NO_BROWSER = "no Chromium; install Debian's chromium, or name one by ECGBYTE_CHROMIUM"


@pytest.fixture(scope="module")
def reading():
    signal = local_st_shift(2, leads=LEADS, duration=4.0, sampling_rate=100).signal
    stops = np.cumsum(np.random.default_rng(0).integers(3, 14, 400))
    stops = np.append(stops[stops < signal.size], signal.size)
    tokens = len(stops)
    texts = [
        "<|bos|>",
        "<|ecg_start|>",
        "<|ecg_end|>",
        "Question:",
        HOSTILE,
        "Is",
        "it",
        "&amp;",
        "regular?",
        "Answer:",
    ]
    kinds = ["special", "special", "special", *["text"] * 7]
    places = [0, 1, *range(2 + tokens, 10 + tokens)]
    words = [Word(text, at, at + 1, kind) for text, at, kind in zip(texts, places, kinds, strict=True)]
    words += [Word("</script>", 10 + tokens, 11 + tokens, "answer"), Word("yes", 11 + tokens, 12 + tokens, "answer")]
    return Reading(
        signal=signal,
        leads=LEADS,
        sampling_rate=100.0,
        question=f"{HOSTILE} Is it &amp; regular?",
        answer="</script> yes",
        is_given=False,
        ids=np.arange(13 + tokens),
        ecg_start=2,
        ecg_ids=np.random.default_rng(1).integers(0, 300, tokens),
        offsets=np.stack([np.append(0, stops[:-1]), stops], axis=1),
        answer_start=10 + tokens,
        words=tuple(words),
        seconds=10.0,
    )


@pytest.fixture(scope="module")
def attributions(reading):
    rng = np.random.default_rng(2)
    share = rng.random(reading.num_tokens) ** 4
    return [
        Attribution("attention", "attention of the answer", share / share.sum(), False),
        Attribution("gradient_x_input", "gradient x input", rng.normal(size=reading.num_tokens), True),
    ]


@pytest.fixture(scope="module")
def page(reading, attributions):
    return report_page(reading, attributions, title=HOSTILE, model_name="<b>model")


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def stored(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


def test_no_text_becomes_a_part_of_the_page(page, reading):
    scripts = re.findall(r"<script[^>]*>", page)
    assert scripts == ['<script id="data" type="application/json">', "<script>"]
    assert "<img" not in page and "<b>model" not in page
    assert f'<q id="question">{html.escape(reading.question)}</q>' in page
    assert "&lt;b&gt;model" in page
    assert [word["text"] for word in stored(page)["words"]][4] == HOSTILE
    assert "Research use only" in page and 'lang="en"' in page


def test_nothing_is_loaded_and_only_its_own_script_may_run(page):
    style = re.search(r"<style>(.*?)</style>", page, re.S)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    policy = html.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', page)[1])
    for part, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{part} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert not re.search(r"https?://|@import|url\(", style + script.replace("http://www.w3.org/2000/svg", ""))
    tags = _Tags()
    tags.feed(page)
    assert {"svg", "select", "q"} <= tags.names
    assert not tags.names & {"link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
    assert not [name for name in tags.attributes if name in ("src", "href", "style") or name.startswith("on")]


def test_the_trace_is_true_to_scale(page, reading):
    traces = re.findall(r'class="trace" d="M([^"]*)"', page)
    assert len(traces) == 2
    points = np.array([[float(part) for part in pair.split()] for pair in traces[0].split("L")])
    pulses = re.findall(r'class="pulse" d="M([\d.]+) ([\d.]+)h', page)
    assert all(float(line) % 5.0 == 0.0 for _, line in pulses)  # on thick lines of the grid
    # Clinical order: II comes first. 25 mm a second, 10 mm a millivolt, upwards.
    assert points[-1, 0] - points[0, 0] == pytest.approx(25.0 * (reading.signal.shape[1] - 1) / 100.0, abs=0.02)
    signal = reading.signal[1]
    assert points[:, 1] - points[0, 1] == pytest.approx(-10.0 * (signal - signal[0]), abs=0.02)


def test_every_sample_has_its_token(page, reading, attributions):
    data = stored(page)
    assert data["leads"] == ["II", "V1"]
    ends = np.add(data["tops"], data["row_heights"])
    assert ends[0] == pytest.approx(data["tops"][1]) and min(data["row_heights"]) > 14.0
    owners = np.full(reading.signal.shape, -1)
    for row, start, stop, token in data["spans"]:
        assert (owners[LEADS.index(data["leads"][row]), start:stop] == -1).all()
        owners[LEADS.index(data["leads"][row]), start:stop] = token
    assert np.array_equal(owners, reading.token_of_sample)
    assert data["colours"] == neighbour_colours(reading.ecg_ids)  # as in the figures
    attention = data["methods"]["attention"]
    lengths = np.diff(reading.offsets, axis=1)[:, 0] / 100.0
    assert attention["density"] == pytest.approx(100 * attributions[0].values[reading.ecg] / lengths, rel=1e-3)
    assert attention["words"] == pytest.approx(100 * reading.to_words(attributions[0].values), rel=1e-3)
    assert "4.00 s of 10.00 s shown to the model" in page


def browser_path():
    return os.environ.get("ECGBYTE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
def test_in_a_browser(tmp_path, reading, attributions):
    if browser_path() is None:
        pytest.skip(NO_BROWSER)
    playwright = pytest.importorskip("playwright.sync_api")
    path = save_report(tmp_path / "report.html", reading, attributions, title=HOSTILE)
    said, asked = [], []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        try:
            tab = browser.new_page(viewport={"width": 1300, "height": 1000})
            tab.on("console", lambda message: said.append(message.text))
            tab.on("pageerror", lambda error: said.append(str(error)))
            tab.on("request", lambda request: asked.append(request.url))
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-ready]", state="attached")
            assert tab.evaluate("window.pwned") is None
            assert tab.inner_text("#question") == reading.question and tab.inner_text("h1") == HOSTILE
            fills = "[...document.querySelectorAll('#tokens rect')].map((rect) => rect.getAttribute('fill'))"
            at_first = tab.evaluate(fills)
            assert len(at_first) >= len(reading.ecg_ids) and len(set(at_first)) > 5
            tab.select_option("#method", "gradient_x_input")
            assert tab.evaluate(fills) != at_first
            assert "nats" in tab.inner_text("#unit")
            tab.select_option("#method", "nothing")
            assert set(tab.evaluate(fills)) == {"none"}
            tab.select_option("#method", "tokens")
            tokens = tab.evaluate(fills.replace("rect.getAttribute('fill')", "Number(rect.dataset.token)"))
            colours = neighbour_colours(reading.ecg_ids)
            assert tab.evaluate(fills) == [f"{colours[token]}80" for token in tokens]
            tab.select_option("#method", "attention")
            box = "document.getElementById('ecg').getAttribute('viewBox').split(' ').map(Number)"
            whole = tab.evaluate(box)
            tab.hover("#ecg")
            tab.keyboard.down("Control")
            tab.mouse.wheel(0, -300)
            tab.keyboard.up("Control")
            tab.wait_for_timeout(300)
            closer = tab.evaluate(box)
            assert closer[2] < whole[2] and closer[3] / closer[2] == pytest.approx(whole[3] / whole[2], abs=1e-3)
            tab.mouse.down()
            tab.mouse.move(300, 500)
            tab.mouse.up()
            moved = tab.evaluate(box)
            assert moved[:2] != closer[:2] and moved[2:] == closer[2:]
            tab.click("#whole")
            assert tab.evaluate(box) == pytest.approx(whole, abs=0.01)
            tab.hover("#tokens rect >> nth=3")
            assert "token <|ecg_" in tab.inner_text("#told")
            tab.screenshot(path=os.environ.get("ECGBYTE_SCREENSHOT") or str(tmp_path / "report.png"))
            # What the policy is for: a script that got into the page does not run.
            tab.evaluate(
                "document.body.append(Object.assign(document.createElement('script'), {text: 'window.pwned = 2'}))"
            )
            assert tab.evaluate("window.pwned") is None
        finally:
            browser.close()
    assert asked == [path.as_uri()]
    assert [text for text in said if "Content Security Policy" not in text] == []
