// Does the estimate settle with more samples? Values of the final network at several sample counts.

function convergenceSection() {
  const V = DATA.convergence, holder = el("div", { class: "panels" }), table = el("div"), cells = unique(V.lines.map((r) => r.cell)).map((i) => CELLS[i]);
  const metrics = Object.keys(QUANTITIES).filter((m) => V.lines.some((r) => r.metric === m)), layers = unique(V.lines.map((r) => r.layer));
  let cell = cells[0].index, metric = metrics[0];
  const draw = () => {
    const mine = V.lines.filter((r) => r.cell === cell && r.metric === metric), estimates = V.estimates.filter((e) => mine.some((r) => r.estimate === e));
    const counts = extent(mine.flatMap((r) => r.n));
    holder.replaceChildren(...estimates.map((e) => convergenceChart(e, mine.filter((r) => r.estimate === e), metric, layers, counts)));
    holder.className = `panels${estimates.length < 3 ? " wide" : ""}`;
    table.replaceChildren(convergenceTable(mine, V.still));
  };
  draw();
  const seeds = Math.max(...V.lines.map((r) => r.seeds));
  return [el("div", { class: "controls" }, cells.length > 1 ? choice("Variant", cells.map((c) => ({ value: c.index, label: c.name })), cell, (v) => { cell = v; draw(); }) : null,
    picker("Quantity", options(metrics, (m) => QUANTITIES[m]), metric, (v) => { metric = v; draw(); })),
  el("div", { class: "legend" }, ...layers.map((name, i) => el("span", { class: "key" }, sample({ colour: colour(i), dash: dash(i) }), el("span", { text: name })))), holder,
  el("p", { class: "note", text: `The final network${seeds > 1 ? `, medians over ${seeds} seeds` : ", one seed"}. Moving: by more than ${V.still} bit from half of the samples to all. Each panel has its own axis.` }), table];
}
function convergenceChart(estimate, rows, metric, layers, counts) {
  const [low, high] = extent(rows.flatMap((r) => r.value)), air = Math.max(0.1 * (high - low), (0.5 - (high - low)) / 2); // at least half a bit: noise must not look like a trend
  const ticks = unique(rows.flatMap((r) => r.n)).sort((a, b) => a - b), name = `${QUANTITIES[metric]} [bits]`;
  const lines = rows.map((r) => {
    const i = layers.indexOf(r.layer); return { label: r.layer, style: { colour: colour(i), dash: dash(i), shape: i % 4 }, x: r.n, y: r.value, marks: true, count: r.moving ? "still moving" : "" };
  });
  return lineChart({
    title: estimate, height: 210, lines, aria: `${name} against the number of samples, ${estimate}: ${rows.map((r) => `${r.layer} ${r.value.map((v) => fixed(v)).join(", ")}`).join("; ")}`,
    x: { kind: "decades", domain: [counts[0] / 1.1, counts[1] * 1.1], ticks, label: "samples (log)", name: "samples", format: grouped, tell: grouped },
    y: { kind: "linear", domain: [low - air, high + air], name, format: short, tell: (v) => fixed(v, 3) },
  });
}
function convergenceTable(rows, still) {
  const counts = unique(rows.flatMap((r) => r.n)).sort((a, b) => a - b), at = (r, n) => r.value[r.n.indexOf(n)] ?? null;
  const heads = [{ key: "estimate", label: "Estimate", text: true, wide: true }, { key: "layer", label: "Layer", text: true }, ...counts.map((n) => ({ key: n, label: `${grouped(n)} samples`, show: (v) => fixed(v, 3) })),
    { key: "change", label: "Last step", show: (v) => (known(v) ? `${v > 0 ? "+" : ""}${fixed(v, 3)}` : "–"), title: `change in bits from half of the samples to all; more than ${still} is still moving` }, { key: "moving", label: "Settled?", text: true }];
  return sortable(heads, unique(rows.map((r) => r.estimate)).flatMap((e) => rows.filter((r) => r.estimate === e)).map((r) => ({ ...r, ...Object.fromEntries(counts.map((n) => [n, at(r, n)])), moving: !known(r.change) ? "" : r.moving ? "still moving" : "stands still" })), { label: "Values at several sample counts" });
}
