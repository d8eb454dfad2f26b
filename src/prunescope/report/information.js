// The information plane and information against epochs: variants side by side, or the estimates of one network side by side.

const SEVERAL = P && P.estimates.length > 1;
function informationSections() {
  const withPlane = new Set(P.trials.cell), cells = CELLS.filter((c) => withPlane.has(c.index));
  const groups = unique(cells.map((c) => c.group)), variants = unique(cells.map((c) => c.variant)), seeds = unique(P.trials.seed).sort((a, b) => a - b);
  const state = { group: groups[0], estimate: 0, seed: seeds.length > 1 ? null : seeds[0], level: commonLevel(cells), hidden: new Set(), listeners: [],
    variant: variants[0], mode: SEVERAL && variants.length < 2 ? "estimators" : "variants" };
  const chosen = () => atLevel(cells.filter((c) => c.group === state.group), state.level);
  state.panels = () => (state.mode === "estimators"
    ? chosen().filter((c) => c.variant === state.variant).flatMap((cell) => P.estimates.map((about, i) => ({ title: about.label, cell, about, data: gather(i, cell.index, state.seed) })))
    : chosen().filter((c) => !state.hidden.has(c.variant)).map((cell) => ({ title: cell.label, cell, about: P.estimates[state.estimate], data: gather(state.estimate, cell.index, state.seed) }))
  ).filter((p) => p.data);
  section("plane", "Information plane", null, () => planeSection(state, ...planeControls(state, cells, groups, variants, seeds)));
  if (MOMENTS.length > 1) section("information", "Information against epochs", "The choices made above hold here too.", () => informationCurves(state));
}
function planeControls(state, cells, groups, variants, seeds) {
  const changed = () => state.listeners.forEach((f) => f()), set = (key) => (v) => { state[key] = v; changed(); };
  const levels = levelsOf(cells);
  const variant = variants.length > 1 ? choice("Variant", options(variants), state.variant, set("variant")) : null;
  const estimator = SEVERAL ? choice("Estimator", P.estimates.map((e, i) => ({ value: i, label: e.label })), 0, set("estimate")) : null;
  const keys = variants.length > 1 ? legend(variants.map((v) => ({ key: v, label: v })), state.hidden, changed) : null;
  const fit = () => { // what the other mode needs is put away
    const side = state.mode === "estimators";
    for (const [node, shown] of [[variant, side], [estimator, !side], [keys, !side]]) if (node) node.hidden = !shown;
  };
  fit();
  const mode = SEVERAL ? el("span", { class: "named" }, "compare", switcher("Compare", options(["variants", "estimators"]), state.mode, (v) => { state.mode = v; fit(); changed(); })) : null;
  return [el("div", { class: "controls" }, mode, picker("Group", options(groups), state.group, set("group")), variant,
    levels.length > 1 ? choice("Sparsity", options(levels, sparsityName), state.level, set("level")) : null,
    seeds.length > 1 ? choice("Seeds", [{ value: "", label: `median of ${seeds.length} seeds` }, ...options(seeds, (s) => `seed ${s}`)], "", (v) => set("seed")(v === "" ? null : v)) : null,
    estimator), keys];
}
function planeSection(state, controls, keys) {
  const holder = el("div", { class: "panels" }), lead = el("p", { class: "lead" }), values = el("div");
  let panels = [];
  const bar = timeline((m) => { panels.forEach((p) => { p.now = m; p.draw(); }); tell(m); });
  const details = el("details", { ontoggle: () => tell(bar.value()) }, el("summary", { text: "The values at this moment as a table" }), values);
  const tell = (m) => { if (details.open) values.replaceChildren(planeValues(panels, m, state.mode)); };
  const build = () => {
    const found = state.panels(), side = state.mode === "estimators";
    panels.forEach((p) => { widths.unobserve(p.node); inView.unobserve(p.canvas); });
    const domains = planeDomains(found);
    panels = found.map((p, i) => new PlanePanel({ ...p, marks: side ? estimateMarks(p.about, domains[i].own) : [] }, domains[i], describe(p.data)));
    panels.forEach((p) => { p.now = bar.value(); });
    holder.className = `panels${panels.length < 3 ? " wide" : ""}${side ? " estimates" : ""}`;
    holder.replaceChildren(...panels.map((p) => p.node));
    lead.textContent = planeLead(state, found);
    tell(bar.value());
  };
  state.listeners.push(build);
  redraws.push(() => panels.forEach((p) => p.repaint()));
  build();
  bar.set(MOMENTS.length - 1);
  return [lead, controls, keys, MOMENTS.length > 1 ? bar.node : null, holder, details, refusedTable()];
}
const samplesOf = (about) => `${about.n.map(grouped).join(" to ")} samples`;
function planeLead(state, found) {
  const about = P.estimates[state.estimate];
  const what = state.mode === "estimators" ? `One network under every estimate: “${found[0]?.cell.name ?? state.variant}”. Where the planes differ, the estimates do: the network is the same.`
    : `${about.label}${about.resolution ? ` (${about.resolution})` : ""}, ${samplesOf(about)}.${about.not_shannon ? ` Mark: ${about.not_shannon}.` : ""}`;
  const above = found.some((p) => p.data.above.some((row) => row.some((keys) => keys.length)));
  return `${what} A line joins the layers of one epoch, its colour is the epoch; hollow points are saturated${above ? "; triangles lie above the value of an earlier layer, which true information never does" : ""}.${
    P.recorded > MOMENTS.length ? ` ${MOMENTS.length} of ${P.recorded} recorded moments are shown.` : ""}`;
}
function estimateMarks(about, own) { // what has to be known of an estimate before its panel is compared with the next
  const tops = Object.entries(about.ceilings).map(([name, v]) => `${name.replace("log2 ", "log₂")} ${fixed(v)}`).join(", ");
  const axes = own.map((key) => (key === "x" ? "I(X;T)" : "I(T;Y)")).join(" and ");
  return [el("p", { class: "mark", text: `${about.resolution ? `${about.resolution}; ` : ""}${samplesOf(about)}${tops ? `; ${tops} ${P.unit}` : ""}` }),
    about.not_shannon ? el("p", { class: "mark warn", text: `Not Shannon's: ${about.not_shannon}.` }) : null,
    about.flags.length ? el("p", { class: "mark warn", text: `Flagged: ${about.flags.join(", ")}.` }) : null,
    own.length ? el("p", { class: "mark warn", text: `Far above its ceiling: ${axes} on ${own.length > 1 ? "axes" : "an axis"} of its own.` }) : null].filter(Boolean);
}
function describe(data) {
  const m = MOMENTS.length - 1;
  return `At ${momentName(MOMENTS[m])}: ${data.layers.map(({ name, l }) => `${name} I(X;T) ${fixed(data.x[l][m])}, I(T;Y) ${fixed(data.y[l][m])} ${P.unit}`).join("; ")}.`;
}
function planeValues(panels, m, mode) {
  const heads = [{ key: "panel", label: mode === "estimators" ? "Estimate" : "Variant", text: true, wide: true }, { key: "layer", label: "Layer", text: true },
    { key: "x", label: `I(X;T) ${P.unit}`, show: (v) => fixed(v, 3) }, { key: "y", label: `I(T;Y) ${P.unit}`, show: (v) => fixed(v, 3) },
    { key: "marks", label: "Marks", text: true, wide: true }];
  const rows = panels.flatMap((p) => p.data.layers.map(({ name, l }) => ({ panel: p.title, layer: name, x: p.data.x[l][m], y: p.data.y[l][m],
    marks: [p.data.hollow[l][m] ? "saturated" : "", aboveText(p.data.above[l][m])].filter(Boolean).join("; ") })));
  const above = rows.some((r) => r.marks.includes("above"));
  return el("div", {}, sortable(heads, rows, { label: `Values at ${momentName(MOMENTS[m])}` }), above ? el("p", { class: "note",
    text: "Above an earlier layer's: a layer is computed from the one before it and cannot know more (data-processing inequality), so the estimator is wrong by at least the difference, or does not measure Shannon's information at one resolution." }) : null);
}
const QUANTITIES = { mi_input: "I(X;T)", mi_label: "I(T;Y)", entropy: "H(T)" };
function refusedTable() {
  if (!P.refused.length) return null;
  const when = (r) => `${r.phase === "finetune" ? "fine-tuning epoch" : "epoch"} ${short(r.first)}${r.last > r.first ? ` to ${short(r.last)}` : ""}`;
  const rows = P.refused.map((r) => ({ ...r, estimate: P.estimates[r.estimate].label, cell: CELLS[r.cell].name, metric: QUANTITIES[r.metric], when: when(r) }));
  const heads = [SEVERAL && { key: "estimate", label: "Estimate", text: true, wide: true }, { key: "cell", label: "Variant", text: true, wide: true }, { key: "layer", label: "Layer", text: true },
    { key: "metric", label: "Quantity", text: true }, { key: "when", label: "When", text: true }, { key: "count", label: "Values" }, { key: "why", label: "Reason", text: true, wide: true }].filter(Boolean);
  const total = P.refused.reduce((sum, r) => sum + r.count, 0);
  return el("details", { id: "refused" }, el("summary", { text: `${grouped(total)} values that could not be had, and why` }), sortable(heads, rows, { label: "Values that could not be had" }));
}
function informationCurves(state) {
  const holder = el("div"), steps = MOMENTS.map((m, i) => ({ ...m, i }));
  const trained = Math.max(0, ...steps.filter((s) => s.phase === "train").map((s) => s.epoch));
  const x = steps.map((s) => (s.phase === "finetune" ? trained + s.epoch : s.epoch));
  const build = () => {
    const found = state.panels(), domains = planeDomains(found), layers = unique(found.flatMap((p) => p.data.layers.map((l) => l.name)));
    const key = el("div", { class: "legend" }, ...layers.map((name, i) => el("span", { class: "key" }, sample({ colour: colour(i), dash: dash(i) }), el("span", { text: name }))));
    const rows = [["x", "I(X;T)", "H(X)"], ["y", "I(T;Y)", "H(Y)"], ["h", "H(T)", ""]].filter(([k]) => found.some((p) => p.data[k]));
    holder.replaceChildren(key, ...rows.map(([k, symbol, top]) => {
      const with_ = found.map((panel, i) => ({ panel, own: domains[i].own.includes(k) })).filter(({ panel }) => panel.data[k]?.some((row) => row.some(known)));
      const domain = (panels) => padded(extent([0, ...panels.flatMap(({ panel: p }) => [p.about.ceilings[top], ...[0, 1].flatMap((end) => p.data.layers.flatMap(({ l }) => p.data.range(k, l)[end]))])]), 0.04);
      const shared = domain(with_.filter((p) => !p.own)), name = `${symbol} [${P.unit}]`;
      return el("div", {}, el("h3", { text: name, class: "row" }), el("div", { class: "panels" }, ...with_.map((p) =>
        informationChart(p.panel, k, name, p.own ? domain([p]) : shared, p.panel.about.ceilings[top], top, layers, x, trained, p.own))));
    }));
  };
  state.listeners.push(build);
  build();
  return [holder, el("p", { class: "note", text: "Lines: medians over the seeds (or the seed chosen). Bands: from the smallest to the largest seed." })];
}
function informationChart(panel, key, name, domain, top, label, layers, x, trained, own) {
  const lines = panel.data.layers.map(({ name: layer, l }) => {
    const i = layers.indexOf(layer), [low, high] = panel.data.count > 1 ? panel.data.range(key, l) : [null, null];
    return { label: layer, style: { colour: colour(i), dash: dash(i) }, x, y: panel.data[key][l], low, high, bandName: "seeds" };
  });
  return lineChart({
    title: `${panel.title}${panel.about.not_shannon ? " (not Shannon's)" : ""}${own ? " (axis of its own)" : ""}`, height: 220, lines,
    rules: [...(known(top) ? [{ y: top, label }] : []), ...(panel.data.layers.some(({ l }) => x.some((v, i) => v > trained && known(panel.data.x[l][i]))) ? pruningRule(x, trained) : [])], aria: `${name} against epochs, ${panel.title}, ${panel.cell.name}`,
    x: { ...epochAxis(x, trained) }, y: { kind: "linear", domain, name, format: short, tell: (v) => fixed(v, 3) },
  });
}
