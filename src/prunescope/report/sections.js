// The page from top to bottom. Each section is drawn after the one above it, so that the first screen does not wait for the last.

const main = document.getElementById("main"), nav = document.getElementById("nav");
function section(id, title, lead, build, inNav = title) {
  const node = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title`, text: title }), lead ? el("p", { class: "lead", text: lead }) : null);
  main.append(node);
  nav.append(el("a", { href: `#${id}`, text: inNav }));
  waiting.push(() => node.append(...build().filter(Boolean)));
}
const waiting = [];
function drawWaiting() {
  const next = waiting.shift();
  if (!next) { document.documentElement.dataset.ready = "all"; return; }
  next();
  setTimeout(drawWaiting, 0);
}

function head() {
  const A = DATA.about;
  main.append(el("h1", { text: A.title || A.name || "A run" }));
  if (A.question) main.append(el("p", { class: "question", text: A.question }));
  if (A.faults?.length) main.append(box("Settings of the published study that are known to be faulty, kept on purpose", A.faults));
  if (DATA.problems.length) main.append(box("What this run folder lacks", DATA.problems));
  const lines = DATA.overview.map(([topic, text], i, all) => el("div", {}, el("dt", { text: i && all[i - 1][0] === topic ? "" : topic }), el("dd", { text })));
  main.append(el("h2", { id: "did", text: DATA.pruned ? "What pruning did" : "In short" }), el("dl", { class: "did", "aria-labelledby": "did" }, ...lines));
}
const box = (title, items) => el("div", { class: "box", role: "note" }, el("h2", { text: title }), el("ul", {}, ...items.map((text) => el("li", { text }))));

// --- information -----------------------------------------------------------------------------------------------
function informationSections() {
  const state = { group: GROUPS[0], estimate: 0, seed: null, level: null, hidden: new Set(), listeners: [] };
  const withPlane = new Set(P.trials.cell), cells = CELLS.filter((c) => withPlane.has(c.index));
  const groups = unique(cells.map((c) => c.group)), seeds = unique(P.trials.seed).sort((a, b) => a - b);
  const levels = levelsOf(cells);
  state.group = groups[0];
  state.seed = seeds.length > 1 ? null : seeds[0];
  state.level = commonLevel(cells);
  const changed = () => state.listeners.forEach((f) => f());
  const variants = unique(cells.map((c) => c.variant));
  const controls = el("div", { class: "controls" },
    picker("Group", options(groups), state.group, (v) => { state.group = v; changed(); }),
    levels.length > 1 ? choice("Sparsity", options(levels, sparsityName), state.level, (v) => { state.level = v; changed(); }) : null,
    seeds.length > 1 ? choice("Seeds", [{ value: "", label: `median of ${seeds.length} seeds` }, ...options(seeds, (s) => `seed ${s}`)], "", (v) => { state.seed = v === "" ? null : v; changed(); }) : null,
    P.estimates.length > 1 ? choice("Estimator", P.estimates.map((e, i) => ({ value: i, label: e.label })), 0, (v) => { state.estimate = v; changed(); }) : null);
  const keys = legend(variants.map((v) => ({ key: v, label: v })), state.hidden, changed);
  const chosen = () => atLevel(cells.filter((c) => c.group === state.group && !state.hidden.has(c.variant)), state.level);
  state.panels = () => chosen().map((cell) => ({ cell, data: gather(state.estimate, cell.index, state.seed) })).filter((p) => p.data);
  state.about = () => P.estimates[state.estimate];
  section("plane", "Information plane", null, () => planeSection(state, controls, variants.length > 1 ? keys : null));
  if (MOMENTS.length > 1) section("information", "Information against epochs", "The choices made above hold here too.", () => informationCurves(state));
}
function planeSection(state, controls, keys) {
  const holder = el("div", { class: "panels" }), lead = el("p", { class: "lead" }), values = el("div");
  let panels = [];
  const bar = timeline((m) => { panels.forEach((p) => { p.now = m; p.draw(); }); tell(m); });
  const details = el("details", { ontoggle: () => tell(bar.value()) }, el("summary", { text: "The values at this moment as a table" }), values);
  const tell = (m) => { if (details.open) values.replaceChildren(planeValues(panels, m)); };
  const build = () => {
    const found = state.panels(), about = state.about(), domain = planeDomain(found, about.ceilings);
    panels.forEach((p) => widths.unobserve(p.node));
    panels = found.map(({ cell, data }) => new PlanePanel(cell.label, data, domain, about.ceilings, describe(data)));
    const m = bar.value();
    panels.forEach((p) => { p.now = m; });
    holder.className = panels.length < 3 ? "panels wide" : "panels";
    holder.replaceChildren(...panels.map((p) => p.node));
    lead.textContent = `${about.label}${about.resolution ? ` (${about.resolution})` : ""}, ${about.n.map(grouped).join(" to ")} samples. A line joins the layers of one epoch, its colour is the epoch; hollow points are saturated.${
      P.recorded > MOMENTS.length ? ` ${MOMENTS.length} of ${P.recorded} recorded moments are shown.` : ""}`;
    tell(m);
  };
  state.listeners.push(build);
  redraws.push(() => panels.forEach((p) => p.draw()));
  build();
  bar.set(MOMENTS.length - 1);
  return [lead, controls, keys, MOMENTS.length > 1 ? bar.node : null, holder, details];
}
function describe(data) {
  const m = MOMENTS.length - 1;
  return `At ${momentName(MOMENTS[m])}: ${data.layers.map(({ name, l }) => `${name} I(X;T) ${fixed(data.x[l][m])}, I(T;Y) ${fixed(data.y[l][m])} ${P.unit}`).join("; ")}.`;
}
function planeValues(panels, m) {
  const heads = [{ key: "variant", label: "Variant", text: true, wide: true }, { key: "layer", label: "Layer", text: true },
    { key: "x", label: `I(X;T) ${P.unit}`, show: (v) => fixed(v, 3) }, { key: "y", label: `I(T;Y) ${P.unit}`, show: (v) => fixed(v, 3) }, { key: "saturated", label: "Saturated", text: true }];
  const rows = panels.flatMap((p) => p.data.layers.map(({ name, l }) => ({ variant: p.title, layer: name, x: p.data.x[l][m], y: p.data.y[l][m], saturated: p.data.hollow[l][m] ? "yes" : "" })));
  return sortable(heads, rows, { label: `Values at ${momentName(MOMENTS[m])}` });
}
function informationCurves(state) {
  const holder = el("div"), steps = MOMENTS.map((m, i) => ({ ...m, i }));
  const trained = Math.max(0, ...steps.filter((s) => s.phase === "train").map((s) => s.epoch));
  const x = steps.map((s) => (s.phase === "finetune" ? trained + s.epoch : s.epoch));
  const build = () => {
    const found = state.panels(), about = state.about();
    const layers = unique(found.flatMap((p) => p.data.layers.map((l) => l.name)));
    const key = el("div", { class: "legend" }, ...layers.map((name, i) => el("span", { class: "key" }, sample({ colour: colour(i), dash: dash(i) }), el("span", { text: name }))));
    const rows = [["x", `I(X;T) [${P.unit}]`, about.ceilings["H(X)"], "H(X)"], ["y", `I(T;Y) [${P.unit}]`, about.ceilings["H(Y)"], "H(Y)"], ["h", `H(T) [${P.unit}]`, null, ""]];
    holder.replaceChildren(key, ...rows.filter(([k]) => found.some((p) => p.data[k])).map(([k, name, top, label]) => {
      const domain = padded(extent([0, top, ...found.flatMap((p) => [0, 1].flatMap((end) => p.data.layers.flatMap(({ l }) => p.data.range(k, l)[end])))]), 0.04);
      return el("div", {}, el("h3", { text: name, class: "row" }), el("div", { class: "panels" }, ...found.map((p) => informationChart(p, k, name, domain, top, label, layers, x, trained))));
    }));
  };
  state.listeners.push(build);
  build();
  return [holder, el("p", { class: "note", text: "Lines: medians over the seeds (or the seed chosen). Bands: from the smallest to the largest seed." })];
}
function informationChart(panel, key, name, domain, top, label, layers, x, trained) {
  const lines = panel.data.layers.map(({ name: layer, l }) => {
    const i = layers.indexOf(layer), [low, high] = panel.data.count > 1 ? panel.data.range(key, l) : [null, null];
    return { label: layer, style: { colour: colour(i), dash: dash(i) }, x, y: panel.data[key][l], low, high, bandName: "seeds" };
  });
  return lineChart({
    title: panel.cell.label, height: 220, lines, rules: [...(known(top) ? [{ y: top, label }] : []), ...pruningRule(x, trained)], aria: `${name} against epochs, ${panel.cell.name}`,
    x: { ...epochAxis(x, trained) }, y: { kind: "linear", domain, name, format: short, tell: (v) => fixed(v, 3) },
  });
}
const pruningRule = (x, trained) => (Math.max(...x) > trained && trained > 0 ? [{ x: trained, label: "fine-tuning" }] : []);
function epochAxis(x, trained) { // recorded at ever larger steps = meant for a logarithmic axis
  const inside = unique(x.filter((v) => v > 0)), wide = inside.length > 8 && inside[Math.floor(inside.length / 2)] < 0.15 * inside[inside.length - 1] && Math.max(...x) <= trained;
  return { kind: !wide ? "linear" : x.includes(0) ? "log" : "decades", domain: wide ? [inside[0], Math.max(...x)] : [Math.min(...x), Math.max(...x)], label: wide ? "epoch (log)" : "epoch", name: "epoch", format: short, tell: short };
}

// --- accuracy and loss -----------------------------------------------------------------------------------------
const METRIC_NAMES = { accuracy: "accuracy", loss: "loss", nonzero: "non-zero parameters", bytes: "size", latency_ms: "latency [ms]" };
const tellMetric = (metric) => ({ accuracy: (v) => percent(v, 2), loss: (v) => fixed(v, 4), bytes, latency_ms: short, nonzero: grouped }[metric]);
const tickMetric = (metric) => ({ accuracy: (v) => `${Number((100 * v).toPrecision(4))} %`, bytes, nonzero: (v) => v.toLocaleString("en-GB") }[metric] || short);

function epochSection() {
  const E = DATA.epochs, splits = unique(E.curves.map((c) => c.split)), hidden = new Set(), holder = el("div", { class: "panels wide" });
  let split = splits.includes("validation") ? "validation" : splits[0], group = GROUPS[0], level = "all";
  const cells = unique(E.curves.map((c) => c.cell)).map((i) => CELLS[i]);
  const levels = levelsOf(cells);
  if (levels.length > 1) level = commonLevel(cells);
  const draw = () => {
    const among = cells.filter((c) => c.group === group && !hidden.has(c.variant));
    const shown = new Set((level === "all" ? among : atLevel(among, level)).map((c) => c.index));
    const mine = E.curves.filter((c) => c.split === split && shown.has(c.cell));
    holder.replaceChildren(...["accuracy", "loss"].filter((m) => mine.some((c) => c.metric === m)).map((m) => epochChart(mine.filter((c) => c.metric === m), m, split, E)));
  };
  draw();
  const seedless = E.curves.every((c) => c.seeds < 2) ? "One seed: no band." : "Bands: 95 % interval of the mean over seeds.";
  return [el("div", { class: "controls" }, picker("Group", options(GROUPS), group, (v) => { group = v; draw(); }), picker("Split", options(splits), split, (v) => { split = v; draw(); }),
    levels.length > 1 ? choice("Sparsity", [{ value: "all", label: "all" }, ...options(levels, sparsityName)], level, (v) => { level = v; draw(); }) : null),
  legend(VARIANTS.map((v) => ({ key: v, label: v, style: variantStyle(v) })), hidden, draw), holder,
  el("p", { class: "note", text: `${seedless}${E.shown < E.recorded ? ` ${E.shown} of ${E.recorded} recorded epochs are shown.` : ""}${E.finetuned ? " The drop at the dashed line is pruning; fine-tuning follows." : ""}` })];
}
function epochChart(curves, metric, split, E) {
  const lines = curves.map((c) => ({ label: CELLS[c.cell].name, style: variantStyle(CELLS[c.cell].variant), x: c.x, y: c.mean, low: c.low, high: c.high, count: `${c.seeds} seed${c.seeds > 1 ? "s" : ""}` }));
  const [low, high] = extent(lines.flatMap((l) => [...l.y, ...l.low, ...l.high])), x = curves.flatMap((c) => c.x);
  return lineChart({
    title: `${split} ${METRIC_NAMES[metric]}`, height: 290, lines, rules: E.finetuned ? pruningRule(x, E.trained) : [], aria: `${split} ${metric} against epochs: ${lines.map((l) => `${l.label} ends at ${tellMetric(metric)(l.y.at(-1))}`).join("; ")}`,
    x: epochAxis(curves[0].x.length > 1 ? unique(x).sort((a, b) => a - b) : [0, 1], E.trained), y: { kind: "linear", domain: padded([low, high], 0.04), name: metric, format: tickMetric(metric), tell: tellMetric(metric) },
  });
}
