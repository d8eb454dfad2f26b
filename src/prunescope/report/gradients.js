// Gradients against epochs: norm of the mean over an epoch's batches, norm of the standard deviation, and their ratio.

const GRADIENT_METRICS = { gradient_mean: "mean", gradient_sd: "sd", gradient_snr: "SNR" };
const GRADIENT_NAMES = { gradient_mean: "norm of the mean gradient", gradient_sd: "norm of the gradient's standard deviation", gradient_snr: "signal-to-noise ratio of the gradient" };
const GRADIENT_LEAD = "For each layer and recorded epoch: the norm of the gradient's mean over the batches, the norm of its standard deviation over them, and their ratio, the signal-to-noise ratio (SNR), as in Shwartz-Ziv & Tishby (2017), who also divide both norms by that of the layer's weights, which leaves the ratio as it is.";

function gradientSection() {
  const G = DATA.gradients, hidden = new Set(), title = el("h3", { class: "row" }), holder = el("div", { class: "panels" });
  const cells = unique(G.curves.map((c) => c.cell)).map((i) => CELLS[i]), groups = unique(cells.map((c) => c.group)), levels = levelsOf(cells);
  const metrics = Object.keys(GRADIENT_METRICS).filter((m) => G.curves.some((c) => c.metric === m));
  let group = groups[0], level = commonLevel(cells), metric = metrics.at(-1);
  const draw = () => {
    const shown = atLevel(cells.filter((c) => c.group === group), level);
    const mine = G.curves.filter((c) => c.metric === metric && shown.some((s) => s.index === c.cell));
    const domain = decades(mine.flatMap((c) => [...c.median, ...(c.low || []), ...(c.high || [])]));
    title.textContent = GRADIENT_NAMES[metric];
    holder.className = shown.length < 3 ? "panels wide" : "panels";
    holder.replaceChildren(...shown.map((cell) => gradientChart(cell, mine.filter((c) => c.cell === cell.index && !hidden.has(c.layer)), metric, domain)));
  };
  draw();
  const bands = G.curves.some((c) => c.low) ? "Lines: medians over the seeds. Bands: from the smallest to the largest seed." : "One seed: no band.";
  const zeros = G.curves.some((c) => (c.low || c.median).includes(0)) ? " Zeros lie on the lower edge." : "";
  return [el("div", { class: "controls" }, picker("Group", options(groups), group, (v) => { group = v; draw(); }),
    levels.length > 1 ? choice("Sparsity", options(levels, sparsityName), level, (v) => { level = v; draw(); }) : null,
    picker("Quantity", options(metrics, (m) => GRADIENT_METRICS[m]), metric, (v) => { metric = v; draw(); })),
  legend(G.layers.map((layer, i) => ({ key: layer, label: layer, style: { colour: colour(i), dash: dash(i) } })), hidden, draw), title, holder,
  el("p", { class: "note", text: `${bands}${zeros}${G.epoch.length < G.recorded ? ` ${G.epoch.length} of ${G.recorded} recorded epochs are shown.` : ""}` })];
}
function decades(values) { // what a logarithmic axis can show, with a little air
  const [low, high] = extent(values.filter((v) => v > 0));
  return low > 0 ? [low / 1.2, high * 1.2] : [0, 1];
}
function gradientChart(cell, curves, metric, domain) {
  const G = DATA.gradients, name = GRADIENT_METRICS[metric], ends = extent(G.epoch.filter((v) => v > 0));
  const lines = curves.map((c) => {
    const i = G.layers.indexOf(c.layer);
    return { label: c.layer, style: { colour: colour(i), dash: dash(i) }, x: G.epoch, y: c.median, low: c.low, high: c.high, bandName: "seeds", count: `${c.seeds} seed${c.seeds > 1 ? "s" : ""}`, marks: G.epoch.length < 2 };
  });
  const told = (c) => { const ys = c.median.filter(known); return `${c.layer} from ${short(ys[0])} to ${short(ys.at(-1))}`; };
  return lineChart({
    title: cell.label, height: 270, lines, aria: `${GRADIENT_NAMES[metric]} against epochs, both logarithmic, ${cell.name}: ${curves.map(told).join("; ")}`,
    x: { kind: G.epoch.includes(0) ? "log" : "decades", domain: ends, label: "epoch (log)", name: "epoch", format: short, tell: short },
    y: { kind: "decades", domain, name, format: short, tell: short },
  });
}
