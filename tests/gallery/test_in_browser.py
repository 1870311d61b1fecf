"""The page in Chromium: every control, by mouse and by keys; corrections, untrusted names, 100,000 images."""

import csv
import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.gallery.items import Gallery, Item
from beitcli.gallery.page import page
from beitcli.gallery.page_data import page_data
from beitcli.inputs.labelled import by_table
from beitcli.jobs.gallery_page import MOST_EMBEDDED
from beitcli.records import Prediction, Record, Score, Source
from tests.conftest import SAMPLES
from tests.gallery.chromium import Chromium
from tests.gallery.pages import LABELS, failed, photographs, predicted, report, write_labels, write_records

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Open = Callable[..., Chromium]
Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]

COUNT = 1000


class Album:
    """A thousand photographs with their records and true labels, two of them identical and three failed."""

    def __init__(self, folder: Path) -> None:
        paths = photographs(folder / "album", COUNT - 4)
        copy = folder / "album" / "day 0" / "copy.jpg"
        shutil.copy(paths[7], copy)
        self.records: list[Record] = predicted([str(path.relative_to(folder)) for path in [*paths, copy]])
        self.records += [
            failed(f"album/day 1/{name}.jpg", code, f"about {name}")
            for name, code in (("half", "truncated"), ("none", "empty_file"), ("odd", "truncated"))
        ]
        self.predictions = [record for record in self.records if isinstance(record, Prediction)]
        self.true_labels = {
            record.source.name: (LABELS[number % 5] if number % 3 else record.label or "")
            for number, record in enumerate(self.predictions)
        }
        results = write_records(folder / "preds.jsonl", self.records)
        labels = write_labels(
            folder / "labels.csv", {str(folder / name): label for name, label in self.true_labels.items()}
        )
        self.page = folder / "page.html"
        report(results, out=self.page, labels=labels)

    def names(self, *wanted: Callable[[Prediction], bool]) -> list[str]:
        """The names of the predictions for which all is true, the best score first."""
        chosen = (each for each in self.predictions if all(test(each) for test in wanted))
        return [os.path.basename(each.source.name) for each in sorted(chosen, key=lambda each: -(each.score or 0))]


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    return Album(tmp_path_factory.mktemp("album"))


def flat(browser: Chromium) -> Chromium:
    browser.choose("#group", "none")
    return browser


def saved(browser: Chromium) -> Path:
    """The corrections as the browser downloads them."""
    path = browser.downloads / "corrections.csv"
    path.unlink(missing_ok=True)  # another test's
    browser.click("#save")
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    return path


def test_it_opens_by_label_with_counts_and_the_best_first(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    assert browser.text("#count") == "1,000 images"
    counts = Counter(each.label or "" for each in album.predictions)
    assert browser.texts("#label-list .choice") == [f"{label.split(',')[0]}{n}" for label, n in counts.most_common()]
    first, images = counts.most_common()[0]
    assert browser.texts(".heading")[0] == f"{first}{images} imagesSelect all"
    expected = album.names(lambda each: each.label == first)
    assert browser.names()[:10] == expected[:10]
    browser.wait("[...document.querySelectorAll('.card img')].every((each) => each.naturalWidth > 0)")
    assert len(browser.all(".card")) < 100  # of a thousand


def test_it_loads_nothing_but_itself_and_the_image_that_is_opened(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    assert (
        browser.js("return performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:'))") == []
    )
    policy = browser.one("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-[\w+/=]+'; style-src 'sha256-[\w+/=]+'; "
        r"img-src 'self' data: file:; base-uri 'none'; form-action 'none'",
        policy,
    )


def test_sorts(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    by_score = album.names()
    assert browser.names()[:12] == by_score[:12]
    browser.choose("#sort", "lowest")
    assert browser.names()[:12] == by_score[::-1][:12]
    browser.choose("#sort", "name")
    names = sorted((os.path.basename(each.source.name) for each in album.records), key=str.lower)
    assert browser.names()[:12] == names[:12]
    browser.choose("#sort", "folder")
    paths = sorted(each.source.name for each in album.records)
    assert browser.names()[:12] == [os.path.basename(path) for path in paths[:12]]
    browser.choose("#sort", "mistakes")
    wrong = album.names(lambda each: each.label != album.true_labels[each.source.name])
    assert browser.names()[:12] == wrong[:12]


def test_groups(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    browser.choose("#group", "folder")
    assert browser.texts(".heading h2")[0] == "album/day 0/"
    browser.choose("#group", "identical")
    assert browser.texts(".heading h2")[0] == "identical: album/day 3/IMG_0007.jpg"
    assert sorted(browser.names()[:2]) == ["IMG_0007.jpg", "copy.jpg"]
    assert browser.texts(".copies")[:2] == ["2 identical"] * 2
    browser.choose("#group", "true-label")
    counts = Counter(album.true_labels.values())
    largest = max(counts.items(), key=lambda each: (each[1], each[0]))
    assert browser.texts(".heading")[0] == f"{largest[0]}{largest[1]} imagesSelect all"


def test_filters_by_label_and_text(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    browser.click("#label-list .choice", 0)
    browser.click("#label-list .choice", 2)
    chosen = {each[0] for each in Counter(each.label for each in album.predictions).most_common()[:3:2]}
    expected = album.names(lambda each: each.label in chosen)
    assert browser.text("#count") == f"{len(expected)} of 1,000 images"
    assert browser.names()[:12] == expected[:12]
    browser.one("#search").send_keys("DAY 2/img_00")
    browser.wait("document.querySelectorAll('.card').length === 0")  # a folder and a name are two texts
    assert browser.text("#nothing") == "No image passes these filters."
    browser.one("#search").clear()
    browser.one("#search").send_keys("IMG_00")
    named = [name for name in expected if name.startswith("IMG_00")]
    browser.wait(f"document.getElementById('count').textContent.startsWith('{len(named)} of')")
    assert browser.names()[:8] == named[:8]
    browser.click("#clear-filters")
    assert browser.text("#count") == "1,000 images"
    assert browser.one("#search").get_attribute("value") == ""


def test_filters_by_two_handles_over_the_histogram(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    bars = browser.js(
        "return [...document.querySelectorAll('#histogram rect')].filter((e) => e.getAttribute('height') > 0).length"
    )
    browser.click(".scores summary")
    numbers = [int(text) for text in browser.texts("#histogram-table td")]
    assert (len(numbers), sum(numbers)) == (bars, len(album.predictions))
    browser.js("const low = document.getElementById('lowest'); low.focus()")
    browser.keys("End")  # as far as the other handle
    assert browser.text("#score-range") == "100.0 % – 100.0 %"
    browser.keys("Home")
    browser.js(
        "for (const [id, value] of [['lowest', 400], ['highest', 600]]) { const handle = document.getElementById(id);"
        "handle.value = value; handle.dispatchEvent(new Event('input')); }"
    )
    expected = album.names(lambda each: 0.4 <= (each.score or 0) <= 0.6)
    assert browser.text("#score-range") == "40.0 % – 60.0 %"
    assert browser.text("#count") == f"{len(expected)} of 1,000 images"
    assert browser.names()[:12] == expected[:12]
    assert 0 < len(browser.all("#histogram .inside")) < len(browser.all("#histogram rect"))


def test_failures_have_their_code_and_message(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    browser.choose("#kind", "failed")
    assert browser.texts(".heading h2") == ["failed: truncated", "failed: empty_file"]
    assert browser.texts(".missing") == ["truncatedabout half", "truncatedabout odd", "empty_fileabout none"]
    browser.click(".card", 2)
    assert browser.text("#large-label") == "empty_file"
    assert browser.text("#large-note") == "about none"
    browser.keys("Escape")


def test_one_image_large_with_its_labels_and_the_keys(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    expected = album.names()
    browser.click(".card", 2)
    record = next(each for each in album.predictions if each.source.name.endswith(expected[2]))
    assert browser.texts("#bars .of") == [score.label for score in record.scores]
    assert browser.texts("#bars .value") == [f"{100 * score.score:.1f} %" for score in record.scores]
    shares = browser.js(
        "return [...document.querySelectorAll('#bars .bar')].map((e) => e.style.getPropertyValue('--share'))"
    )
    assert [float(share) for share in shares] == pytest.approx([score.score for score in record.scores])
    assert browser.text("#path") == record.source.name
    browser.wait("document.getElementById('large').src.startsWith('file:')")  # the original, not the thumbnail
    assert browser.js("return document.getElementById('large').naturalWidth") == 48
    assert browser.one("#original").get_attribute("href").endswith(record.source.name.replace(" ", "%20"))
    browser.keys("Right")
    browser.keys("Right")
    assert browser.text("#path").endswith(expected[4])
    browser.keys("Left")
    assert browser.text("#path").endswith(expected[3])
    browser.click("#copy")
    browser.wait("document.getElementById('copy').textContent === 'Copied'")
    browser.keys("Escape")
    assert not browser.js("return document.getElementById('lightbox').open")
    focused = "document.activeElement.querySelector('.name')?.textContent"
    browser.wait(f"{focused} === '{expected[3]}'")  # set when the page hears that it was closed


def test_the_keys_reach_the_last_and_the_first_image(opened: Open, album: Album) -> None:
    """The button that has the focus is off at the end, as there is no next image."""
    browser = flat(opened(album.page))
    browser.choose("#kind", "predicted")
    browser.click(".card", 1)
    browser.keys("End")
    browser.keys("1")
    assert browser.texts("#bars .chosen .of") == browser.texts("#bars .of")[:1]
    browser.keys("Left")
    browser.keys("Right")
    browser.keys("2")
    browser.keys("Home")
    browser.keys("3")
    assert browser.texts("#bars .chosen .of") == browser.texts("#bars .of")[2:3]
    browser.keys("Escape")
    assert browser.text("#corrected").startswith("2 marked, ")


def test_the_grid_by_keys(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    expected = album.names()
    browser.js("document.querySelector('.card').focus()")
    columns = browser.js("return document.querySelector('.line').children.length")
    browser.keys("Right", "Right", "Down")
    assert browser.focused() == expected[columns + 2]
    browser.keys("Up", "Left")
    assert browser.focused() == expected[1]
    browser.keys("Space")
    browser.keys("Right", "Space")
    assert browser.text("#selected") == "2 selected"
    browser.keys("Escape")
    assert not browser.one("#actions").is_displayed()
    browser.keys("PageDown", "PageDown", "PageDown")
    assert browser.focused() in expected[12 * columns // 4 :]
    browser.keys("End")
    assert browser.focused() == album.records[-1].source.name.rpartition("/")[2]
    browser.keys("Home", "Enter")
    assert browser.text("#path").endswith(expected[0])
    browser.keys("Escape")
    browser.keys("Control+a")
    assert browser.text("#selected") == "1,000 selected"


def test_a_cell_of_the_confusion_matrix_shows_its_images(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    browser.click("#show-accuracy")
    pairs = Counter((album.true_labels[each.source.name], each.label) for each in album.predictions)
    rows = browser.all(".matrix tbody tr")
    matrix = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in rows]
    short = [label.split(",")[0] for label in LABELS]
    assert matrix == [[s, *(str(pairs[a, b] or "") for b in LABELS)] for s, a in zip(short, LABELS, strict=True)]
    assert (
        browser.text(".tile b")
        == f"{100 * sum(n for (a, b), n in pairs.items() if a == b) / len(album.predictions):.1f} %"
    )
    browser.click(".matrix tbody tr:nth-child(3) td:nth-of-type(2) button")
    assert browser.text("#count") == f"{pairs['cow, moo cow', 'bee']} of 1,000 images: cow predicted as bee"
    assert set(browser.texts(".card .true-label")) == {"✗ is cow"}
    browser.click("#show-accuracy")
    browser.click(".class-bars button")
    assert "true label" in browser.text("#count")


def test_the_other_plots_have_their_numbers_beside_them(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    browser.click("#show-accuracy")
    titles = browser.texts("#accuracy h2")
    assert titles == ["Confusion matrix", "Most confident mistakes", "Accuracy of each class", "Reliability"]
    wrong = album.names(lambda each: each.label != album.true_labels[each.source.name])
    assert [os.path.basename(text) for text in browser.texts("#accuracy .beside .path")] == wrong[:24]
    bins = browser.texts("#accuracy section:last-child tbody td:nth-child(2)")
    assert sum(map(int, bins)) == len(album.predictions)
    assert len(browser.all(".reliability rect")) == len(bins)
    browser.click(".mistake")
    assert browser.text("#path").endswith(wrong[0])
    browser.keys("Escape")


def test_corrections_of_several_at_once_are_saved_as_a_table_of_labels(
    opened: Open, album: Album, tmp_path: Path
) -> None:
    browser = flat(opened(album.page))
    expected = album.names()
    browser.js("document.querySelector('.card').focus()")
    browser.keys("Space", "Right", "Space", "Right", "Space", "c")
    browser.keys("c")
    assert browser.texts("#new-label-list li") == ["new label: c", "cow, moo cow"]
    browser.keys("Down", "Enter")
    assert browser.text("#corrected").startswith("3 marked, ")
    assert not browser.one("#new-label").is_displayed()  # nothing is selected any more
    assert [text.removeprefix("✓ ") for text in browser.texts(".given")] == ["cow"] * 3
    browser.click(".card", 5)
    browser.keys("c")
    browser.keys("a new, odd “label”", "Enter")
    browser.keys("Right")
    browser.keys("2")  # its second label
    second = browser.texts("#bars .of")[1]
    assert browser.texts("#bars .chosen .of") == [second]
    browser.keys("Right", "1")
    browser.click("#large-unmark")
    browser.keys("Escape")
    browser.reload()
    assert browser.text("#corrected").startswith("5 marked, ")  # kept by the browser
    shutil.move(saved(browser), album.page.parent / "corrections.csv")
    with (album.page.parent / "corrections.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    labels = [*["cow, moo cow"] * 3, "a new, odd “label”", second]
    chosen = dict(zip([*expected[:3], *expected[5:7]], labels, strict=True))
    assert rows[0] == ["path", "label"]
    assert {os.path.basename(path): label for path, label in rows[1:]} == chosen
    labelled = by_table(str(album.page.parent / "corrections.csv"))
    assert {each.label for each in labelled} == set(labels)
    assert all(isinstance(each.found, Source) and os.path.exists(each.found.location) for each in labelled)
    browser.choose("#kind", "corrected")
    assert browser.text("#count") == "5 of 1,000 images"


def test_what_is_typed_is_the_label_unless_another_is_chosen(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))

    def offered(text: str) -> list[str]:
        browser.one("#new-label").clear()
        browser.one("#new-label").send_keys(text)
        assert browser.texts("#new-label-list [aria-selected=true]") == browser.texts("#new-label-list li")[:1]
        return browser.texts("#new-label-list li")

    browser.js("document.querySelector('.card').focus()")
    browser.keys("Space", "c")
    assert set(browser.texts("#new-label-list li")) == set(LABELS)
    assert browser.texts("#new-label-list li")[0].split(",")[0] == browser.texts(".card .label")[0]
    assert offered("D") == ["new label: D", "dog"]
    assert offered("DOG") == ["dog"]
    assert offered("moo COW") == ["cow, moo cow"]  # a synonym, in any case
    assert offered("o") == ["new label: o", "cow, moo cow", "dog"]
    assert offered("do") == ["new label: do", "dog"]
    browser.click("#mark")
    assert browser.texts(".given") == ["do"]
    browser.keys("Space", "c")
    assert offered("d") == ["new label: d", "do", "dog"]
    browser.keys("Up", "Enter")
    assert browser.texts(".given")[0].removeprefix("✓ ") == "dog"
    browser.keys("Space", "c")
    assert offered("do, big") == ["new label: do, big"]
    browser.keys("Enter")
    assert browser.texts(".given") == ["do, big"]  # a label of one's own is shown whole
    browser.keys("Space", "c")
    assert offered("do") == ["do", "do, big", "dog"]
    browser.click("#new-label-list li", 2)
    assert browser.texts(".given")[0].removeprefix("✓ ") == "dog"


def test_labels_that_are_confirmed_are_no_corrections_and_the_rest_is_still_to_do(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    expected = album.names()
    browser.keys("Control+a")  # nothing has the focus yet
    assert browser.text("#selected") == "1,000 selected"
    browser.click("#deselect")
    browser.click(".card")
    browser.keys("1", "Right", "2", "Escape")
    assert browser.text("#corrected") == "2 marked, 1 corrected"
    assert [each.startswith("✓ ") for each in browser.texts(".given")] == [True, False]
    assert len(browser.all(".confirmed")) == len(browser.all(".corrected")) == 1
    browser.choose("#group", "given")
    assert [text.split("\n")[0] for text in browser.texts(".heading h2")][-1] == "not marked"
    browser.choose("#group", "none")
    browser.choose("#kind", "unmarked")
    assert browser.text("#count") == "998 of 1,000 images"
    assert browser.names()[:5] == expected[2:7]
    browser.js("document.querySelector('.card').focus()")
    browser.keys("Space", "c", "bee", "Enter")
    assert browser.text("#count") == "997 of 1,000 images"
    assert browser.names()[:5] == expected[3:8]
    saved(browser)
    assert browser.text("#corrected").endswith(", saved as a download")


def test_the_page_stays_where_it_is_under_a_click_that_selects(opened: Open, album: Album) -> None:
    browser = flat(opened(album.page))
    browser.js("scrollTo(0, 40)")
    inside = "(each) => each.getBoundingClientRect().bottom < innerHeight - 30"
    number = browser.js(f"return [...document.querySelectorAll('.check')].filter({inside}).length - 1")
    before = browser.js("return scrollY")
    browser.js(
        f"document.querySelectorAll('.check')[{number}].dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    )
    assert browser.text("#selected") == "1 selected"
    assert browser.js("return scrollY") == before


def test_corrections_stay_while_their_images_are_not_on_the_page(opened: Open, tmp_path: Path) -> None:
    paths = [str(path) for path in photographs(tmp_path / "in", 30)]
    results, out = write_records(tmp_path / "preds.csv", predicted(paths)), tmp_path / "page.html"
    report(results, out=out)
    browser = flat(opened(out))
    browser.js("document.querySelector('.card').focus()")
    browser.keys("Control+a")
    browser.keys("c", "zebra", "Enter")
    assert browser.text("#corrected").startswith("30 marked, ")
    report(results, out=out, sample=1)
    browser.reload()
    shown = int(browser.text("#corrected").split()[0])
    assert 0 < shown < 30
    browser.click(".card")
    browser.click("#large-unmark")
    browser.keys("Escape")
    report(results, out=out)
    browser.reload()
    assert browser.text("#corrected").startswith("29 marked, ")


HOSTILE = (
    "<script>window.hacked = 1<",
    "<img src=x onerror=window.hacked=2>.jpg",
    '" onload="window.hacked=3" x=".jpg',
    "javascript:window.hacked=4.jpg",
    "</script><script>window.hacked=5</script>",
    "{{ 7 * 7 }} &amp; #hash ?query %41 'single' `tick` ${window.hacked=6}.jpg",
    "new\nline, comma.jpg",
    "\u202egpj.exe",
)


def test_untrusted_names_and_labels_do_nothing(opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / "x<"
    paths = [folder / name for name in HOSTILE] + [Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.jpg"))]
    image = photographs(tmp_path / "made", 1)[0]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, path)
    names = [os.fsencode(path.relative_to(tmp_path)).decode("utf-8", "backslashreplace") for path in paths]
    labels = [f"{each}</option></style></title><script>window.hacked=7</script>" for each in HOSTILE[:5]]
    records = [*predicted(names, labels), failed("<b>gone</b>.jpg", "not_found", "<script>window.hacked=8</script>")]
    results = write_records(tmp_path / "<img src=x onerror=window.hacked=9>.jsonl", records)
    true_labels = {str(tmp_path / names[0]): labels[0], str(tmp_path / names[2]): "<i>x"}
    report(results, out=tmp_path / "page.html", labels=write_labels(tmp_path / "labels.csv", true_labels))
    browser = opened(tmp_path / "page.html")
    for kind in ("label", "true-label", "folder", "identical", "none"):
        browser.choose("#group", kind)
    shown = browser.names()
    assert sorted(shown) == sorted(name.rpartition("/")[2] for name in [*names, "<b>gone<.b>.jpg".replace(".b", "/b")])
    browser.click(".card")
    for _ in names:
        browser.wait("document.getElementById('large').src.startsWith('file:')")  # found under its odd name
        assert browser.js("return document.getElementById('large').naturalWidth") == 48
        browser.keys("c", "<script>window.hacked=10</script>", "Enter", "Right")
    browser.keys("Escape")
    browser.click("#show-accuracy")
    assert browser.js("return window.hacked") is None
    assert len(browser.all("script")) == 1
    assert not browser.all("b:not(.about b, .missing b, .tile b), i, #grid script, option script")


def luminance(color: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


TEXTS = (
    *("h1", "#count", ".name", ".score", ".label", ".true-label", ".heading .number", ".field", ".choice .number"),
    *("#score-range", "#corrected", "#save", ".missing span", ".toolbar label", "#tabs button"),
)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_have_contrast_in_light_and_dark(opened: Open, album: Album, dark: bool) -> None:
    browser = opened(album.page, dark=dark)
    browser.js("document.querySelector('.card').focus()")
    browser.keys("Enter", "1", "Escape")
    background = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.05) == dark
    browser.choose("#group", "none")
    for kind in ("all", "failed"):
        browser.choose("#kind", kind)
        for selector in TEXTS:
            for ink, paper in browser.js(_COLORS, selector):
                lighter, darker = sorted((luminance(ink), luminance(paper)), reverse=True)
                assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (selector, ink, paper)


_COLORS = """
const shown = (each) => each.offsetParent && each.textContent;
const isClear = (each) => /, 0\\)$|transparent|^color/.test(getComputedStyle(each).backgroundColor);
return [...document.querySelectorAll(arguments[0])].filter(shown).slice(0, 5).map((each) => {
  let under = each;
  while (isClear(under)) under = under.parentElement;
  return [getComputedStyle(each).color, getComputedStyle(under).backgroundColor];
});
"""


def test_everything_has_a_name_for_those_who_cannot_see_it(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    browser.click("#show-accuracy")
    browser.click("#show-images")
    browser.click(".card")
    unnamed = """
    const words = (each) => each.getAttribute('aria-label') || each.textContent.trim() || each.title;
    const named = (each) => words(each) || each.labels?.length;
    return [...document.querySelectorAll('img, svg[role=img], button, input, select, [role=gridcell], table th')]
      .filter((each) => !(each.tagName === 'IMG' ? each.alt : named(each))).map((each) => each.outerHTML);
    """
    assert browser.js(unnamed) == []
    assert re.fullmatch(
        r"\w+, [\d.]+ %(, true label \w+)?: \w+\.jpg", browser.all(".card")[0].get_attribute("aria-label")
    )
    browser.keys("Escape")


@pytest.mark.parametrize("width", [400, 320])
def test_a_narrow_window_needs_no_scrolling_sideways(opened: Open, album: Album, width: int) -> None:
    browser = opened(album.page, width=width)
    assert not browser.one("#filters").is_displayed()
    browser.click("#toggle-filters")
    assert browser.one("#search").is_displayed()
    browser.click("#toggle-filters")
    assert browser.js("return document.querySelector('.line.cells').children.length") == 2
    for step in ("#show-accuracy", "#show-images", ".card"):
        browser.click(step)
        assert browser.js("return document.documentElement.scrollWidth") <= width
    assert browser.one("#large-label").is_displayed()
    browser.keys("Escape")


def test_it_is_printed_whole(opened: Open, album: Album) -> None:
    browser = opened(album.page)
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert len(browser.all(".card")) == COUNT
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert len(browser.all(".card")) < 100


def accuracy(beit: Beit, model: str, folder: Path) -> float:
    process = beit("eval", "val", "-m", model, "--dtype", "fp32", "--json", f"{model}.json", cwd=folder)
    assert process.returncode == 0, process.stderr
    value: float = json.loads((folder / f"{model}.json").read_text())["figures"]["top1"]["value"]
    return value


def test_corrections_make_a_better_model(opened: Open, beit: Beit, tmp_path: Path) -> None:
    """The circle of the manual: batch, report, corrections in the browser, train, eval."""
    random = np.random.default_rng(2)
    for label in ("cat", "boats", "coffee"):
        with Image.open(SAMPLES / f"{label}.jpg") as opened_image:
            whole = opened_image.convert("RGB").resize((320, 240))
        for number in range(40):
            left, top = (int(value) for value in random.integers(0, (160, 80)))
            part = "val" if number % 2 else "train"
            (tmp_path / part / label).mkdir(parents=True, exist_ok=True)
            whole.crop((left, top, left + 160, top + 160)).save(tmp_path / part / label / f"{label}_{number:02}.png")
    wrong = {f"train/coffee/coffee_{number:02}.png": "boats" for number in range(0, 30, 2)}
    right = {
        f"train/{label}/{label}_{n:02}.png": label for label in ("cat", "boats", "coffee") for n in range(0, 40, 2)
    }
    write_labels(tmp_path / "labels.csv", right | wrong)
    common = ("-m", "demo", "--dtype", "fp32")
    assert beit("train", "--labels", "labels.csv", *common, "--out", "first").returncode == 0
    assert beit("batch", "train", "-m", "first", "--dtype", "fp32", "--out", "preds.csv").returncode == 0
    assert beit("report", "preds.csv", "--labels", "labels.csv", "--out", "report.html").returncode == 0
    browser = flat(opened(tmp_path / "report.html"))
    for label in ("cat", "boats", "coffee"):
        browser.one("#search").clear()
        browser.one("#search").send_keys(f"{label}_")
        browser.wait(f"[...document.querySelectorAll('.card')].every((e) => e.ariaLabel.includes('{label}_'))")
        browser.js("document.querySelector('.card').focus()")
        browser.keys("Control+a")
        browser.keys("c", label, "Enter")
    shutil.move(saved(browser), tmp_path / "corrections.csv")
    assert beit("train", "--labels", "corrections.csv", *common, "--out", "second").returncode == 0
    first, second = (accuracy(beit, model, tmp_path) for model in ("first", "second"))
    assert second > max(first, 0.9)


def test_many_images_have_their_thumbnails_beside_the_page(opened: Open, tmp_path: Path) -> None:
    paths = photographs(tmp_path / "in", MOST_EMBEDDED + 1, side=16)
    results = write_records(tmp_path / "preds.csv", predicted([str(path) for path in paths]))
    report(results, out=tmp_path / "report.html")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(tmp_path / "report.html", moved)
    browser = flat(opened(tmp_path / "report.html"))
    browser.js("scrollTo(0, document.body.scrollHeight)")
    browser.wait("[...document.querySelectorAll('.card img')].every((each) => each.complete && each.naturalWidth)")
    assert browser.all(".card img")
    flat(opened(moved / "report.html"))  # without its folder
    browser.wait("document.querySelectorAll('.missing').length > 10")
    assert all("ERR_FILE_NOT_FOUND" in error for error in browser.errors())
    shutil.copytree(tmp_path / "report_files", moved / "report_files")
    flat(opened(moved / "report.html"))
    browser.wait("document.querySelector('.card img')?.naturalWidth")


def test_of_a_hundred_thousand_images_only_those_near_the_window_are_drawn(opened: Open, tmp_path: Path) -> None:
    count = 100_000
    labels = [f"class {number}" for number in range(1000)]
    items = []
    for number in range(count):
        source = Source(f"folder {number % 50}/IMG_{number:06}.jpg")
        scores = tuple(Score(labels[(number + rank) % 1000], 0, 0.5 ** (rank + 1)) for rank in range(5))
        items.append(Item(Prediction(source, scores), source))
    out = tmp_path / "page.html"
    data = page_data(Gallery("many", items, labels), [None] * count, {}, str(out), "page_files")
    out.write_text(page(data, {}, "many"))
    browser = flat(opened(out))
    assert browser.text("#count") == "100,000 images"
    assert len(browser.all(".card")) < 100
    browser.js("document.querySelector('.card').focus()")
    browser.keys("End")
    assert browser.focused() == "IMG_099999.jpg"
    assert len(browser.all(".card")) < 150
    assert browser.js("return document.querySelectorAll('#label-list .choice').length") == 300
    browser.one("#find-label").send_keys("class 999")
    assert browser.texts("#label-list .of") == ["class 999"]


def test_a_sample_says_what_it_leaves_out(opened: Open, album: Album, tmp_path: Path) -> None:
    results = write_records(tmp_path / "preds.jsonl", album.records)
    report(results, out=tmp_path / "page.html", sample=3)
    browser = opened(tmp_path / "page.html")
    assert browser.text("#count") == "33 images (a sample: 967 more are left out)"
