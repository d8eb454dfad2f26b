"""The report of 100 trials x 400 epochs x 7 layers: time to write, size, first picture, slider step, memory; beside Plotly and TensorBoard.

Run: python benchmarks/report.py [--out docs/science/report_speed.md] [--seeds 5] [--epochs 400] (needs Playwright for Python and Chromium;
plotly and tensorboard are measured where they are installed and named where not). The run is made up by tests/report/fakerun.py.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

STEPS = """(move) => new Promise(done => {
  const times = [];
  const step = async i => {
    const start = performance.now();
    await MOVE
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => { times.push(performance.now() - start); if (i < 19) step(i + 1); else done(times); };
      channel.port2.postMessage(0);  // after the frame was painted
    });
  };
  step(0);
})"""
OURS = """(() => { const r = document.getElementById('epoch');
  r.value = (5 * i) % (Number(r.max) + 1); r.dispatchEvent(new Event('input')); })();"""
PLOTLY = """(() => { const g = document.querySelector('.plotly-graph-div'), f = g._transitionData._frames, at_once = {duration: 0};
  const how = {mode: 'immediate', transition: at_once, frame: {duration: 0, redraw: true}};
  return Plotly.animate(g, [f[(5 * i) % f.length].name], how); })();"""
COLUMNS = ("what", "written in s", "MB", "first paint s", "all drawn s", "slider ms", "worst ms", "memory MB", "notes")


def main() -> None:
    options = arguments()
    from fakerun import Made, make_run

    from prunescope.report import write_report

    variants = {f"variant {i}": ((0.04 * i,), True) for i in range(20)}
    layers = tuple(f"layer {i}" for i in range(7))
    made = Made(variants=variants, groups=("",), seeds=options.seeds, epochs=options.epochs, finetune=0, layers=layers)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), made, baseline="variant 0")
        points = planes_of(run)
        print(f"{len(run.records):,} records, {len(points):,} points of the plane", flush=True)
        start = time.perf_counter()
        path = write_report(run)
        spent = time.perf_counter() - start
        rows.append({"what": "prunescope report", "written in s": spent, "MB": path.stat().st_size / 1e6})
        rows[-1] |= opened(path, OURS, "html[data-ready=all]")
        rows[-1]["notes"] = f"the whole report; {shown(path)} of {options.epochs + 1} epochs shown, medians and single seeds"
        report(rows[-1])
        for measured in (plotly(points, Path(folder), thin=shown(path)), plotly(points, Path(folder)), tensorboard(points, Path(folder))):
            rows.append(measured)
            report(measured)
    if options.out:
        options.out.write_text(page(rows, len(points), options), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a Markdown page for the table")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=400)
    return parser.parse_args()


def planes_of(run: Any) -> Any:
    """One point of the information plane a row: variant, seed, epoch, layer, x, y."""
    rows = run.records[run.records["metric"].isin(["mi_input", "mi_label"])]
    wide = rows.pivot_table(index=["variant", "seed", "epoch", "layer"], columns="metric", values="value", sort=False).reset_index()
    return wide.rename(columns={"mi_input": "I(X;T)", "mi_label": "I(T;Y)"})


def shown(path: Path) -> int:
    """How many moments of training the report holds."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1])  # type: ignore[index]
    return len(data["plane"]["epoch"])


def opened(path: Path, move: str, ready: str, timeout: float = 180.0) -> dict[str, float]:
    """First paint, everything drawn, a slider step to its painted frame (median and worst of 20), memory beyond a blank page's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True, offline=True).new_page()
        page.goto("about:blank")
        blank = memory_of_children()
        start = time.perf_counter()
        page.goto(path.as_uri(), timeout=1000 * timeout)
        page.wait_for_selector(ready, state="attached", timeout=1000 * timeout)
        drawn = time.perf_counter() - start
        paint = page.evaluate("(performance.getEntriesByName('first-contentful-paint')[0] || {}).startTime")
        page.locator("#epoch").scroll_into_view_if_needed() if "epoch" in move else None
        held = memory_of_children() - blank
        steps = sorted(page.evaluate(STEPS.replace("MOVE", move)))
        browser.close()
    times = {"first paint s": paint / 1e3, "all drawn s": drawn, "slider ms": steps[len(steps) // 2], "worst ms": steps[-1]}
    return times | {"memory MB": held}


def memory_of_children() -> float:
    """Proportional set size (MB) of all processes below this one: the browser with its helpers."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    below = {int(Path("/proc/self").resolve().name)}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    total = 0.0
    for pid in below - {int(Path("/proc/self").resolve().name)}:
        with contextlib.suppress(OSError, AttributeError):
            total += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) / 1e3  # type: ignore[index]
    return total


def plotly(points: Any, folder: Path, thin: int | None = None) -> dict[str, Any]:
    """The plane as Plotly draws it with a slider: a frame an epoch, a panel a variant, one trace each, colour by layer.

    (plotly.express makes a trace of each layer and epoch, which at 56,140 traces took longer than anybody waits.)
    """
    what = f"plotly, {f'medians at {thin} epochs' if thin else 'every point'}"
    if importlib.util.find_spec("plotly") is None:
        return {"what": what, "notes": "skipped: plotly is not installed (pip install plotly)"}
    import numpy as np
    import plotly as installed
    from plotly import graph_objects, subplots

    if thin:
        epochs = np.sort(points["epoch"].unique())
        kept = epochs[np.unique(np.linspace(0, len(epochs) - 1, thin).round().astype(int))]
        points = points[points["epoch"].isin(kept)].groupby(["variant", "epoch", "layer"], sort=False)
        points = points.median(numeric_only=True).reset_index()
    start = time.perf_counter()
    variants, layers = points["variant"].unique(), {name: i for i, name in enumerate(points["layer"].unique())}
    mode = "lines+markers" if thin else "markers"

    def traces(of: Any) -> list[Any]:
        parts = dict(list(of.groupby("variant", sort=False)))
        colours = {v: part["layer"].map(layers) for v, part in parts.items()}
        return [
            graph_objects.Scatter(x=parts[v]["I(X;T)"], y=parts[v]["I(T;Y)"], mode=mode, marker={"color": colours[v]}, showlegend=False)
            for v in variants
        ]

    figure = subplots.make_subplots(4, 5, subplot_titles=list(variants), shared_xaxes="all", shared_yaxes="all")
    by_epoch = list(points.groupby("epoch", sort=True))
    for place, trace in enumerate(traces(by_epoch[-1][1])):
        figure.add_trace(trace, place // 5 + 1, place % 5 + 1)
    everything = list(range(len(variants)))
    figure.frames = [graph_objects.Frame(data=traces(part), name=f"{epoch:g}", traces=everything) for epoch, part in by_epoch]
    steps = [{"method": "animate", "label": f"{epoch:g}", "args": [[f"{epoch:g}"], {"mode": "immediate"}]} for epoch, _ in by_epoch]
    figure.update_layout(height=1100, sliders=[{"steps": steps}])
    path = folder / f"plotly-{thin}.html"
    figure.write_html(path, include_plotlyjs=True)
    row = {"what": what, "written in s": time.perf_counter() - start, "MB": path.stat().st_size / 1e6}
    try:
        found = opened(path, PLOTLY, ".plotly-graph-div .slider-group")
    except Exception as error:  # too large for the browser is a result too
        return row | {"notes": f"did not open: {str(error).splitlines()[0]}"}
    return row | found | {"notes": f"the plane alone, plotly {installed.__version__}"}


def tensorboard(points: Any, folder: Path) -> dict[str, Any]:
    """I(X;T) and I(T;Y) of each layer as scalars, a run a trial; its page needs a server, which draws curves but no plane."""
    if importlib.util.find_spec("tensorboard") is None:
        return {"what": "tensorboard", "notes": "skipped: tensorboard is not installed (pip install tensorboard)"}
    import tensorboard as installed
    from torch.utils.tensorboard import SummaryWriter

    logs, start = folder / "events", time.perf_counter()
    for (variant, seed), part in points.groupby(["variant", "seed"], sort=False):
        with SummaryWriter(str(logs / f"{variant} seed {seed}".replace(" ", "_"))) as writer:
            for epoch, layer, x, y in part[["epoch", "layer", "I(X;T)", "I(T;Y)"]].itertuples(index=False):
                writer.add_scalar(f"mi_input/{layer}", x, int(epoch))
                writer.add_scalar(f"mi_label/{layer}", y, int(epoch))
    written = time.perf_counter() - start
    size = sum(f.stat().st_size for f in logs.rglob("*") if f.is_file()) / 1e6
    row: dict[str, Any] = {"what": "tensorboard", "written in s": written, "MB": size}
    row["notes"] = f"scalars, no plane; tensorboard {installed.__version__}, its server's memory"
    wanted, start = points.groupby(["variant", "seed"]).ngroups, time.perf_counter()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--load_fast", "false"]
    server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", "16017"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - start < 300:
            with contextlib.suppress(OSError, ValueError):
                tags = json.load(urllib.request.urlopen("http://127.0.0.1:16017/data/plugin/scalars/tags", timeout=10))
                if len(tags) >= wanted and all(len(t) == 14 for t in tags.values()):
                    return row | {"all drawn s": time.perf_counter() - start, "memory MB": memory_of_children()}
            time.sleep(0.2)
        return row | {"notes": "its server did not read all runs within five minutes"}
    finally:
        server.terminate()
        server.wait()


def report(row: dict[str, Any]) -> None:
    print("  ".join(f"{name} {told(row.get(name))}" for name in COLUMNS if told(row.get(name))), flush=True)


def told(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def page(rows: list[dict[str, Any]], points: int, options: argparse.Namespace) -> str:
    table = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 2) + " --- |"]
    table += ["| " + " | ".join(told(row.get(name)) for name in COLUMNS) + " |" for row in rows]
    return "\n".join(
        [
            "# How fast the report is",
            "",
            f"{20 * options.seeds} trials, {options.epochs} epochs, 7 layers: {points:,} points of the information plane. Made by",
            "`python benchmarks/report.py --out docs/science/report_speed.md`; one table, one machine, one go:",
            f"{platform.machine()}, headless Chromium, other work beside it, so read ratios rather than seconds.",
            "",
            *table,
            "",
            "First paint is Chromium's first contentful paint. A slider step is the time from moving the slider to the painted frame,",
            "median and worst of 20. Memory is the proportional set size of all browser processes beyond those of a blank page.",
            "TensorBoard has no slider and no plane: its row is the time until its server has read all runs, and that server's memory.",
            "",
            "The report holds everything (curves, tables, histograms, what the estimates cannot say), not the plane alone. It is",
            "thinned: more than 120 moments are shown as first, last and evenly between, fewer where there are many trials, and the page",
            "says how many of how many. While the slider moves it draws the panels that are in sight, the others when the slider rests;",
            "Plotly redraws all twenty. The second row gives Plotly the same moments and only the medians; the third every point.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
