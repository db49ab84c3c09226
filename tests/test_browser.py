"""`report.html` in a real browser: it is whole, it can be sorted, filtered and read, and no text in it acts."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import Timed, five, write_run

from harness.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
REFERENCE = Path(__file__).parent.parent / "results" / "reference"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
HOSTILE = 'a"><img src=x onerror="document.title=\'hacked\'">@r'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Opened:
    """A page with what its console said."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=60_000)

    def column(self, name: str, shown: bool = True) -> list[str]:
        """The texts of a column of the first table, from above."""
        heads = [head.strip() for head in self.page.locator(".grid thead th").all_inner_texts()]
        rows = self.page.locator(".grid tbody tr" + (":not([hidden])" if shown else "")).all()
        return [row.locator("th, td").nth(heads.index(name)).inner_text() for row in rows]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three variants: b is twice as fast as the baseline a, and a stranger's is twice as slow."""
    run = write_run(
        tmp_path_factory.mktemp("made-up") / "run",
        Timed("a@r", five(1e-3, 0.001)),
        Timed("b@r", five(5e-4, 0.001)),
        Timed(HOSTILE, five(2e-3, 0.001)),
        Timed("c@r", status="failed", reason=HOSTILE),
    )
    write_report(run)
    return run / "report.html"


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial") / "tutorial"
    shutil.copytree(REFERENCE / "tutorial", folder)
    write_report(folder)
    return folder / "report.html"


def test_a_published_run_opens_with_all_its_charts_no_complaint_and_no_request(browser: Any, tutorial: Path) -> None:
    opened = Opened(browser, tutorial)
    assert opened.said == []
    assert opened.asked == [tutorial.as_uri()]
    charts = opened.page.locator(".picture").count()
    assert charts >= 4
    assert opened.page.locator(".picture .chart svg").count() == charts
    assert opened.page.locator(".chart path").count() > charts
    assert tutorial.stat().st_size < 5_000_000


def test_a_click_on_a_heading_sorts_by_its_number_and_another_turns_the_order_round(
    browser: Any, made_up: Path
) -> None:
    opened = Opened(browser, made_up)
    head = opened.page.get_by_role("button", name="single-stream", exact=True)
    head.click()
    assert opened.column("single-stream")[0].startswith("500 µs")
    assert [text.partition(" (")[0] for text in opened.column("single-stream")] == ["500 µs", "1 ms", "2 ms", "failed"]
    head.click()
    assert [text.partition(" (")[0] for text in opened.column("single-stream")] == ["2 ms", "1 ms", "500 µs", "failed"]
    assert opened.page.locator(".grid thead th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_a_column_of_names_is_sorted_as_names_whatever_digits_are_in_them(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = ["a@r", "m1@r", "lstm2@r", "gru16@r", "gru8x@r", "lstm-b@r"]
    run = write_run(tmp_path_factory.mktemp("names") / "run", *(Timed(name, five(1e-3, 0.001)) for name in names))
    write_report(run)
    opened = Opened(browser, run / "report.html")
    opened.page.locator(".grid thead button").first.click()
    assert opened.column("variant") == ["a@r", "gru8x@r", "gru16@r", "lstm-b@r", "lstm2@r", "m1@r"]


def test_what_is_chosen_in_a_chart_stays_chosen_in_another_theme(browser: Any, tutorial: Path) -> None:
    page = Opened(browser, tutorial).page
    choice = page.locator(".picture select").first
    choice.select_option("offline")
    page.locator("#theme").click()
    page.wait_for_selector("html[data-drawn=yes]", state="attached")
    assert page.locator(".picture select").first.input_value() == "offline"


def test_the_numbers_of_a_chart_can_be_read_without_seeing_it(browser: Any, made_up: Path) -> None:
    page = Opened(browser, made_up).page
    numbers = page.locator(".numbers").first
    assert numbers.locator("table").count() == 0
    numbers.locator("summary").click()
    numbers.locator("table").wait_for()
    assert numbers.locator("tbody tr").count() == 2
    assert "b@r" in numbers.inner_text()
    assert page.locator(".chart").first.get_attribute("aria-describedby") == page.locator(
        "figcaption p"
    ).first.get_attribute("id")


def test_the_name_of_a_column_stays_above_it_when_the_table_is_moved(browser: Any, tutorial: Path) -> None:
    page = Opened(browser, tutorial, viewport={"width": 390, "height": 844}).page
    page.locator(".grid .scroll").evaluate("scroll => { scroll.scrollLeft = 300; }")
    lefts = page.locator(".grid thead th:first-child, .grid tbody tr:first-child th").evaluate_all(
        "all => all.map(cell => cell.getBoundingClientRect().left)"
    )
    assert lefts[0] == lefts[1] >= 0


def test_the_keyboard_alone_sorts_too(browser: Any, made_up: Path) -> None:
    opened = Opened(browser, made_up)
    opened.page.get_by_role("button", name="single-stream", exact=True).focus()
    opened.page.keyboard.press("Enter")
    assert opened.column("single-stream")[0].startswith("500 µs")


def test_a_filter_leaves_the_rows_with_all_its_words_and_counts_them(browser: Any, made_up: Path) -> None:
    opened = Opened(browser, made_up)
    opened.page.get_by_label("Filter rows").fill("FASTER b@")
    assert opened.column("variant") == ["b@r"]
    assert opened.page.locator(".grid .count").inner_text() == "1 of 4 rows"


def test_another_baseline_gives_the_ratios_to_it_and_warns_and_the_first_gives_back_what_was(
    browser: Any, made_up: Path
) -> None:
    opened = Opened(browser, made_up)
    before = opened.column("vs baseline"), opened.column("verdict")
    opened.page.get_by_label("Baseline of lstm").select_option("b@r")
    ratios = dict(zip(opened.column("variant"), opened.column("vs baseline"), strict=True))
    verdicts = dict(zip(opened.column("variant"), opened.column("verdict"), strict=True))
    assert ratios["a@r"].startswith("2.00× (")
    assert ratios["b@r"] == "baseline"
    assert ratios[HOSTILE].startswith("4.00× (")
    assert verdicts == {"a@r": "slower", "b@r": "–", HOSTILE: "slower", "c@r": "–"}
    assert opened.page.locator(".grid .warning").is_visible()
    opened.page.get_by_label("Baseline of lstm").select_option("a@r")
    assert (opened.column("vs baseline"), opened.column("verdict")) == before
    assert not opened.page.locator(".grid .warning").is_visible()


def test_verdicts_colour_cells_and_a_failure_is_no_verdict(browser: Any, made_up: Path) -> None:
    page = Opened(browser, made_up).page
    verdict = page.locator(".grid tbody tr").filter(has_text="b@r").locator("td.faster").first
    failed = page.locator(".grid tbody tr").filter(has_text="failed").locator("td.bad").first
    colours = {cell.evaluate("cell => getComputedStyle(cell).backgroundColor") for cell in (verdict, failed)}
    assert len(colours) == 2
    assert "rgba(0, 0, 0, 0)" not in colours


def test_a_hostile_name_stays_text(browser: Any, made_up: Path) -> None:
    opened = Opened(browser, made_up)
    assert HOSTILE in opened.column("variant")
    assert opened.page.title() == "run"
    assert opened.page.locator("img").count() == 0
    assert [text for text in opened.page.locator(".chart svg text").all_text_contents() if "<img src" in text]
    assert opened.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_themes_and_the_button_changes_between_them(
    browser: Any, made_up: Path, scheme: str
) -> None:
    page = Opened(browser, made_up, color_scheme=scheme).page
    brightness = (
        "e => (getComputedStyle(e).getPropertyValue('{}').match(/\\d+/g) ?? []).slice(0, 3).reduce((a, b) => a + +b, 0)"
    )

    def contrast() -> float:
        body = page.locator("body")
        text, ground = (body.evaluate(brightness.format(name)) for name in ("color", "background-color"))
        return float(text - ground)

    assert (contrast() > 500) if scheme == "dark" else (contrast() < -500)
    for expected in (-1, 1):  # light, then dark
        page.locator("#theme").click()
        page.wait_for_selector("html[data-drawn=yes]", state="attached")
        assert expected * contrast() > 500
        fill = page.locator(".chart svg text").first.evaluate("e => getComputedStyle(e).fill")
        assert (sum(map(int, fill.strip("rgb()").split(",")[:3])) > 380) == (expected == 1)


def test_on_a_phone_nothing_is_wider_than_the_page_but_what_scrolls(browser: Any, tutorial: Path) -> None:
    page = Opened(browser, tutorial, viewport={"width": 390, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    widths = page.locator(".chart svg").evaluate_all("all => all.map(svg => svg.getBoundingClientRect().right)")
    assert widths
    assert max(widths) <= 390


def test_a_command_can_be_copied_that_narrows_the_run_to_a_row_and_its_baseline(browser: Any, tutorial: Path) -> None:
    page = Opened(browser, tutorial).page
    page.locator("#reproduce > summary").click()
    commands = page.locator("#reproduce code").all_inner_texts()
    wanted = "harness run tutorial --models torch-lstm,hand-lstm --runtimes eager,onnxruntime --tasks mnist-rows"
    assert f"{wanted} --baselines torch-lstm@eager" in commands


def test_a_link_opens_what_is_folded(browser: Any, tutorial: Path) -> None:
    page = Opened(browser, tutorial).page
    assert not page.locator("#environment table").is_visible()
    page.get_by_role("link", name="Environment", exact=True).click()
    page.wait_for_selector("#environment table", state="visible")


def test_charts_and_tables_have_names_for_those_who_cannot_see_them(browser: Any, tutorial: Path) -> None:
    page = Opened(browser, tutorial).page
    unnamed = page.locator(".scroll, .chart").evaluate_all(
        "all => all.filter(e => !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    assert page.locator("table.sortable caption").first.inner_text() != ""
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
