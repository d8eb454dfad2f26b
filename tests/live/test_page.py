"""The live page in a real browser: curves grow without a reload. Skipped where Playwright or Chromium is missing."""

import pytest
from tinyrun import ByHand

from browsing import Opened
from prunescope.live import Watch

HOSTILE = '</script><img src=x onerror="document.title=1"><b>"\'&amp;'
POINTS = "() => [...document.querySelectorAll('#curves svg.chart path[stroke-linejoin]')].map(p => p.getAttribute('d').split('L').length)"


def test_curves_grow_until_the_end(browser, tmp_path):
    hand = ByHand(tmp_path)
    with Watch(tmp_path) as watch:
        opened = Opened(browser, watch.address)
        page = opened.page
        assert "Curves appear here" in page.locator("main").inner_text()
        hand.epoch(0)
        hand.epoch(1)
        page.wait_for_function(f"() => ({POINTS})().join() === '2,2,2,2'", timeout=20000)
        for number in range(2, 5):
            hand.epoch(number)
        page.wait_for_function(f"() => ({POINTS})().join() === '5,5,5,5'", timeout=20000)
        assert "Running" in page.locator(".now").inner_text()
        page.wait_for_selector("#information svg.chart")
        hand.finish(0)
        hand.finish(1, "it would not learn")
        hand.end()
        page.wait_for_function("() => document.querySelector('.now').innerText.includes('Finished')", timeout=20000)
        assert "1 of 2 trials finished" in page.locator(".now").inner_text()
        assert "1 failed" in page.locator(".now").inner_text()
        assert page.locator("#trials tbody tr").first.inner_text().endswith("it would not learn")
        assert page.locator("#results svg.chart").count() == 1
        page.locator("#curves").get_by_role("button", name="neurons").click()
        assert page.evaluate(POINTS) == [5, 5]
        page.locator("#curves").get_by_role("button", name="train", exact=True).click()
        assert "train accuracy" in page.locator("#curves h3").all_inner_texts()
        assert opened.said == []
        assert set(opened.asked) == {watch.address, f"{watch.address}state"}
    page.wait_for_function("() => document.querySelector('.now').innerText.includes('No answer')", timeout=20000)
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_hostile_names(browser, tmp_path, scheme):
    hand = ByHand(tmp_path, HOSTILE, (HOSTILE, "a long name of a variant that says everything about how it was pruned, and more"))
    hand.epoch(0)
    hand.epoch(1)
    hand.finish(1, HOSTILE)
    with Watch(tmp_path) as watch:
        opened = Opened(browser, watch.address, 375, scheme)
        opened.page.wait_for_selector("#information svg.chart")
        assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= 375
        assert opened.page.locator("h1").text_content() == HOSTILE
        assert opened.page.locator("main img, main b").count() == 0
        assert opened.page.title().startswith("</script>")
        ground = opened.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(19, 21, 24)") == (scheme == "dark")
        unnamed = "() => [...document.querySelectorAll('svg.chart')].filter(n => (n.getAttribute('aria-label') || '').length < 10).length"
        assert opened.page.evaluate(unnamed) == 0
        assert opened.said == []
        opened.context.close()


def test_a_group_that_begins_later_is_waited_for(browser, tmp_path):
    hand = ByHand(tmp_path, groups=("tanh", "relu"))
    hand.epoch(0, first=1)
    hand.epoch(1, first=1)
    with Watch(tmp_path) as watch:
        opened = Opened(browser, watch.address)
        curves = opened.page.locator("#curves")
        assert curves.get_by_role("button", name="relu").get_attribute("aria-pressed") == "true"
        assert opened.page.evaluate(POINTS) == [2, 2]
        curves.get_by_role("button", name="tanh").click()
        assert "No trial of tanh has begun yet" in curves.inner_text()
        assert opened.said == []
        opened.context.close()
