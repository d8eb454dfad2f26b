"""The report of 100 trials x 400 epochs x 7 layers: seconds to write, megabytes, seconds to the first picture, ms a slider step.

Run: python benchmarks/report.py (needs Playwright for Python and Chromium). The run is made up by tests/report/fakerun.py.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

STEPS = """() => new Promise(done => {
  const range = document.getElementById('epoch'), times = [];
  const step = i => {
    const start = performance.now();
    range.value = 3 * i;
    range.dispatchEvent(new Event('input'));
    times.push(performance.now() - start);
    if (i < 39) requestAnimationFrame(() => step(i + 1)); else done(times);
  };
  step(0);
})"""


def main() -> None:
    from fakerun import Made, make_run
    from playwright.sync_api import sync_playwright

    from prunescope.report import write_report

    variants = {f"variant {i}": ((0.04 * i,), True) for i in range(20)}
    layers = tuple(f"layer {i}" for i in range(7))
    made = Made(variants=variants, groups=("",), seeds=5, epochs=400, finetune=0, layers=layers)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        run = make_run(Path(folder), made, baseline="variant 0")
        start = time.perf_counter()
        path = write_report(run)
        print(f"{len(run.records):,} records: written in {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e6:.2f} MB")
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True).new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=all]", state="attached")
        last = time.perf_counter() - start
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        steps = page.evaluate(STEPS)
        mean, worst = sum(steps) / len(steps), max(steps)
        print(f"first picture {paint / 1e3:.2f} s, last {last:.2f} s, slider {mean:.0f} ms a step (worst {worst:.0f})")
        browser.close()


if __name__ == "__main__":
    main()
