"""The page in a real browser, from disk and without a network. Skipped where Playwright or Chromium is missing."""

import numpy as np
import pytest
from fakerun import Made, make_run, write_run
from test_html import HOSTILE

from browsing import Opened as Page
from prunescope.report import write_report
from prunescope.results import load

DRAWN = "() => [...document.querySelectorAll('figure.plane canvas')].map(c => c.toDataURL()).join()"


class Opened(Page):
    """The report from disk, without a network."""

    def __init__(self, browser, path, width=1280, scheme="light"):
        super().__init__(browser, path.as_uri(), width, scheme, offline=True)
        self.page.wait_for_timeout(150)  # the observers of widths draw after the next frame

    def see(self, place):
        """Scroll there and wait for what is drawn only in sight."""
        self.page.evaluate("place => document.querySelector(place).scrollIntoView({block: 'center'})", place)
        self.page.wait_for_timeout(150)

    def settled(self):
        """The planes once nothing is drawn any more: those out of sight follow when the slider rests."""
        last, now = None, self.page.evaluate(DRAWN)
        while now != last:
            self.page.wait_for_timeout(300)
            last, now = now, self.page.evaluate(DRAWN)
        return now

    def quiet(self):
        return self.said == [] and len(self.asked) == 1


@pytest.fixture(scope="module")
def path(run):
    return write_report(run)


@pytest.fixture
def opened(browser, path):
    found = Opened(browser, path)
    yield found
    found.context.close()


def test_opens_without_a_word_and_without_the_network(opened):
    titles = opened.page.locator("h2").all_inner_texts()
    wanted = {"What pruning did", "Summary", "Information plane", "Every run", "Against sparsity", "Training", "Gradients", "Weights"}
    assert wanted | {"Sparsity per layer", "How it was run"} <= set(titles)
    assert opened.page.locator("figure.plane canvas").count() == 6
    assert opened.page.locator("svg.chart").count() >= 15
    assert opened.quiet()


def test_slider_moves_the_points_and_play_goes_on(opened):
    page = opened.page
    opened.see("#plane .panels")
    before = page.evaluate(DRAWN)
    page.locator("#epoch").focus()
    page.keyboard.press("Home")
    assert page.locator("#moment").inner_text() == "epoch 0"
    first = page.evaluate(DRAWN)
    assert first != before
    page.locator("#play").click()
    page.wait_for_timeout(700)
    page.locator("#play").click()
    assert page.locator("#moment").inner_text() != "epoch 0"
    assert page.evaluate(DRAWN) != first
    assert opened.quiet()


def test_choices_change_what_is_shown(opened):
    page = opened.page
    section = page.locator("#plane")
    opened.see("#plane .panels")
    before = page.evaluate(DRAWN)
    section.get_by_role("button", name="relu").click()
    relu = page.evaluate(DRAWN)
    assert relu != before
    section.get_by_role("button", name="baseline").click()
    assert page.locator("figure.plane canvas").count() == 5
    section.get_by_label("Seeds").select_option(label="seed 3")
    assert page.evaluate(DRAWN) != relu
    assert page.locator("figure.plane canvas").count() == 5
    section.get_by_label("Sparsity").select_option(label="50 %")
    assert "magnitude + fine-tuning 50 %" in section.locator("h3").all_inner_texts()
    page.locator("#sparsity").get_by_role("button", name="log of what is kept").click()
    page.locator("#training").get_by_role("button", name="train", exact=True).click()
    page.locator("#weights").locator(".switch").get_by_role("button", name="at the end").click()
    page.locator("#weights").get_by_label("Variant").select_option("magnitude + fine-tuning")
    assert opened.quiet()


def test_gradients_switch_and_layers_hide(opened):
    section = opened.page.locator("#gradients")
    names = ["norm of the mean gradient", "norm of the gradient's standard deviation", "signal-to-noise ratio of the gradient"]
    assert section.get_by_role("button", name="SNR").get_attribute("aria-pressed") == "true"
    assert section.locator("h3.row").inner_text() == names[2]
    drawn = "#gradients svg.chart path[stroke-linejoin]"
    before, count = opened.page.locator(drawn).first.get_attribute("d"), opened.page.locator(drawn).count()
    section.get_by_role("button", name="mean", exact=True).click()
    assert section.locator("h3.row").inner_text() == names[0]
    assert opened.page.locator(drawn).first.get_attribute("d") != before
    section.get_by_role("button", name="layers.0.weight").click()
    opened.page.wait_for_function(f"n => document.querySelectorAll('{drawn}').length === n", arg=count * 3 // 4)
    assert opened.quiet()


def test_table_sorts_both_ways(opened):
    table = opened.page.locator("#summary table")
    heading = table.get_by_role("columnheader", name="Non-zeros")
    column = [h.strip() for h in table.locator("th").all_inner_texts()].index("Non-zeros")

    def numbers():
        return [int(t.replace(",", "")) for t in table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()]

    heading.get_by_role("button").click()
    assert numbers() == sorted(numbers(), reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    opened.page.keyboard.press("Enter")
    assert numbers() == sorted(numbers())
    assert len(set(numbers())) > 3


def test_pointing_tells_the_value(opened):
    circle = opened.page.locator("#runs svg.chart rect").first
    circle.scroll_into_view_if_needed()
    circle.hover()
    assert "5 seeds" in opened.page.locator("#tip").inner_text()


def test_dark_is_followed_and_can_be_chosen(browser, path):
    opened = Opened(browser, path, scheme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = opened.page.evaluate(ground)
    opened.page.locator("#theme").click()
    assert opened.page.evaluate(ground) != dark
    assert opened.quiet()
    opened.context.close()


@pytest.mark.parametrize("width", [375, 768])
def test_narrow_screens_do_not_scroll_sideways(browser, path, width):
    opened = Opened(browser, path, width)
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= width
    opened.context.close()


def test_every_figure_has_a_text_and_every_control_a_name(opened):
    unnamed = opened.page.evaluate(
        "() => [...document.querySelectorAll('canvas, svg.chart')].filter(n => (n.getAttribute('aria-label') || '').length < 10).length"
    )
    assert unnamed == 0
    for button in opened.page.locator("button").all():
        assert button.text_content().strip() or button.get_attribute("aria-label")


def test_hostile_names_are_text(browser, tmp_path):
    variants = {HOSTILE: ((None,), False), "b": ((0.5, 0.9), False)}
    made = Made(variants=variants, groups=(HOSTILE, "g"), seeds=2, epochs=2, layers=(HOSTILE, "z"))
    run = make_run(tmp_path, made, title=HOSTILE, baseline=HOSTILE, question=HOSTILE, command=HOSTILE, toml=HOSTILE, notes=[HOSTILE])
    run.trials.loc[0, ["status", "reason"]] = ["failed", HOSTILE]
    opened = Opened(browser, write_report(run))
    assert opened.page.locator("main img, main b").count() == 0
    assert opened.page.locator("h1").text_content() == HOSTILE
    assert opened.page.title().startswith("</script><img")
    assert opened.quiet()
    opened.context.close()


@pytest.mark.parametrize(
    "made",
    [
        Made(seeds=1, epochs=0, finetune=0, groups=("",), variants={"alone": ((None,), False)}),
        Made(information=False, groups=("",), seeds=2, epochs=2),
        Made(groups=("",), seeds=1, epochs=150, estimators=("binning", "kde")),
        Made(groups=("",), seeds=2, epochs=8000, finetune=0, logarithmic=True, variants={"alone": ((None,), False)}),
    ],
    ids=["one of everything", "no information", "two estimators", "logarithmic epochs from zero"],
)
def test_odd_runs_draw(browser, tmp_path, made):
    opened = Opened(browser, write_report(make_run(tmp_path, made)))
    assert opened.page.locator("#summary tbody tr").count() >= 1
    assert opened.quiet()
    opened.context.close()


def test_estimates_side_by_side_and_their_settling(browser, tmp_path):
    specs = ({"name": "binning", "bins": 6}, {"name": "binning", "bins": 30}, {"name": "renyi"})
    made = Made(groups=("",), seeds=2, epochs=2, finetune=0, variants={"tanh": ((None,), False)}, specs=specs, convergence=True)
    run = make_run(tmp_path, made)
    mine = (run.records["estimator"] == "renyi") & (run.records["layer"] == "h3") & (run.records["metric"] == "mi_label")
    run.records.loc[mine, "parameters"] = '{"layer_order": 2, "flags": ["exceeds-earlier-layer"], "resolution": "r"}'
    refused = (run.records["estimator"] == "renyi") & (run.records["layer"] == "h1") & (run.records["phase"] == "train")
    told = '{"layer_order": 0, "flags": ["refused"], "why": "too many samples"}'
    run.records.loc[refused, ["value", "parameters"]] = [float("nan"), told]
    opened = Opened(browser, write_report(run))
    plane = opened.page.locator("#plane")
    assert plane.get_by_role("button", name="estimators").get_attribute("aria-pressed") == "true"
    assert plane.locator("figure.plane h3").all_inner_texts() == ["binning, 6 bins", "binning, 30 bins", "renyi"]
    assert plane.get_by_role("combobox", name="Estimator", include_hidden=True).is_hidden()
    assert "Not Shannon's" in plane.locator("figure.plane").nth(2).inner_text()
    plane.locator("summary").first.click()
    marks = plane.locator("table").first.locator("tr", has_text="renyi").filter(has_text="h3")
    assert "I(T;Y) above an earlier layer's" in marks.inner_text()
    plane.locator("#refused summary").click()
    assert "too many samples" in plane.locator("#refused").inner_text()
    plane.get_by_role("button", name="variants").click()
    assert plane.locator("figure.plane h3").all_inner_texts() == ["tanh"]
    plane.get_by_role("combobox", name="Estimator", include_hidden=True).select_option(label="renyi")
    assert "is not Shannon's" in plane.locator(".lead").inner_text()
    settling = opened.page.locator("#convergence")
    assert settling.locator("svg.chart").count() == 3
    assert "still moving" in settling.locator("tbody").inner_text()
    settling.get_by_role("button", name="I(T;Y)").click()
    assert "still moving" not in settling.locator("tbody").inner_text()
    assert opened.quiet()
    opened.context.close()


def test_stepping_back_and_forth_gives_the_same_picture(opened):
    """What is kept of earlier moments between steps is neither stale nor lost."""
    page = opened.page
    opened.see("#plane .panels")
    page.locator("#epoch").focus()
    for key in ("Home", *["ArrowRight"] * 5):
        page.keyboard.press(key)
    forward = opened.settled()
    for key in ("End", *["ArrowLeft"] * 18):
        page.keyboard.press(key)
    assert page.locator("#moment").inner_text() == "epoch 5"
    assert opened.settled() == forward
    page.locator("#theme").click()
    assert opened.settled() != forward
    page.locator("#theme").click()
    assert opened.settled() == forward


def test_the_keyboard_reaches_everything_and_the_bar_follows(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    reached = page.evaluate(
        "() => [...document.querySelectorAll('button, select, input, summary, a, .scroll, pre')].filter(n => n.tabIndex < 0).length"
    )
    assert reached == 0
    opened.see("#cite")
    assert page.locator("#nav a[aria-current]").inner_text() in ("Cite", "Notes", "Caveats")
    page.locator("#cite summary").focus()
    page.keyboard.press("Enter")
    page.locator("#cite").get_by_role("button", name="Select all").press("Enter")
    chosen = page.evaluate("getSelection().toString()")
    assert chosen.startswith("@software{prunescope,")
    assert "@misc{shwartzziv2017," in chosen
    assert opened.quiet()


def test_overview_collapsed_runs_and_front(opened):
    page = opened.page
    topics = page.locator("dl.did dt").all_inner_texts()
    assert topics == ["Compared", "Accuracy (tanh)", "Accuracy (relu)", "Size", "Information", "Chance"]
    assert page.locator("dl.did strong").count() >= 6
    assert page.locator("#collapsed tbody tr").count() >= 1
    assert "non-zero parameters" in page.locator("#pareto h3").first.inner_text()


def test_a_damaged_run_opens_and_says_what_is_missing(browser, tmp_path):
    from safetensors.numpy import save_file

    made = Made(variants={"baseline": ((None,), False), HOSTILE: ((0.5,), False)}, groups=("",), seeds=2, epochs=2, finetune=1)
    folder = write_run(tmp_path / "run", made)
    (folder / "trials" / "00001" / "records.parquet").write_bytes(b"PAR1 and no more")
    kept = np.zeros((300, 400), dtype=np.uint8)
    kept[:150] = 1
    save_file({HOSTILE: kept}, folder / "trials" / "00100" / "masks.safetensors")
    opened = Opened(browser, write_report(load(folder)), width=375)
    page = opened.page
    assert "00001/records.parquet: cannot be read" in page.locator(".box").inner_text()
    assert page.locator("#failed tbody tr").count() == 1
    assert "300 × 400, 60,000 of 120,000 kept; about 8 weights a pixel" in page.locator("#masks figure").inner_text()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert opened.quiet()
    shade = "() => { const c = document.querySelector('#masks canvas'), g = c.getContext('2d');"
    corner = page.evaluate(shade + " return [g.getImageData(2, 2, 1, 1).data[3], g.getImageData(2, c.height - 3, 1, 1).data[3]]; }")
    assert corner == [255, 0], "kept rows in full ink, removed ones blank"
    opened.context.close()
