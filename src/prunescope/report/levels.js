// Quality and size against sparsity, and every single run.

const L = DATA.levels;
const POINTS = L ? L.cell.map((cell, i) => ({ cell: CELLS[cell], x: L.x[i], mean: L.mean[i], low: L.low[i], high: L.high[i], n: L.n[i], metric: L.metric[i], moment: L.moment[i], split: L.split[i], values: L.values[i] })) : [];

function runsSection() {
  const holder = el("div");
  const mine = POINTS.filter((p) => p.metric === "accuracy" && p.moment === "final");
  const groups = unique(mine.map((p) => p.cell.group));
  const draw = (group) => {
    const shown = mine.filter((p) => p.cell.group === group);
    const chance = known(L.chance) ? [{ x: L.chance, label: "chance" }] : [];
    const whole = shown.find((p) => p.cell.baseline);
    const values = shown.flatMap((p) => p.values), [low, high] = extent(values);
    const near = chance.filter((c) => c.x > low - 0.35 * (high - low)); // far from everything it would squeeze the rest: said, not drawn
    const rows = shown.map((p) => ({ label: p.cell.label, style: variantStyle(p.cell.variant), values: p.values, mean: p.mean, low: p.low, high: p.high,
      tell: [`mean ${percent(p.mean, 2)}`, known(p.low) ? `95 % interval ${percent(p.low, 2)} to ${percent(p.high, 2)}` : "one seed: no interval", `${p.n} seeds: ${p.values.map((v) => percent(v)).join(", ")}`] }));
    const domain = padded(extent([...values, ...near.map((c) => c.x)]), 0.05);
    holder.replaceChildren(dotPlot({ rows, domain, label: "test accuracy", format: tickMetric("accuracy"), rules: [...near, ...(whole && known(whole.mean) ? [{ x: whole.mean, label: whole.cell.label }] : [])],
      aria: `Test accuracy of every run: ${rows.map((r) => `${r.label} ${percent(r.mean)}`).join("; ")}` }));
    if (chance.length && !near.length) holder.append(el("p", { class: "note", text: `Chance is at ${percent(L.chance)}, left of the axis.` }));
  };
  draw(groups[0]);
  return [el("div", { class: "controls" }, picker("Group", options(groups), groups[0], draw)), holder];
}

function sparsitySweepSection() {
  const hidden = new Set(), holder = el("div", { class: "panels wide" }), moments = unique(POINTS.map((p) => p.moment));
  const groups = unique(POINTS.map((p) => p.cell.group));
  let group = groups[0], kind = "linear", moment = "final";
  const draw = () => {
    const mine = POINTS.filter((p) => p.cell.group === group && !hidden.has(p.cell.variant) && (p.moment === moment || !["accuracy", "loss"].includes(p.metric)));
    const told = unique(mine.map((p) => p.metric)).filter((m) => ["accuracy", "loss"].includes(m) || unique(mine.filter((p) => p.metric === m).map((p) => p.mean)).length > 1);
    holder.replaceChildren(...told.map((metric) => sweepChart(mine.filter((p) => p.metric === metric), metric, kind)));
  };
  draw();
  const names = { final: "at the end (test)", pruned: `right after pruning (${POINTS.find((p) => p.moment === "pruned")?.split})` };
  return [el("div", { class: "controls" }, picker("Group", options(groups), group, (v) => { group = v; draw(); }),
    picker("Moment", moments.map((m) => ({ value: m, label: names[m] })), moment, (v) => { moment = v; draw(); }),
    picker("Axis", [{ value: "linear", label: "linear" }, { value: "kept", label: "log of what is kept" }], kind, (v) => { kind = v; draw(); })),
  legend(VARIANTS.map((v) => ({ key: v, label: v, style: variantStyle(v) })), hidden, draw), holder,
  el("p", { class: "note", text: "Points: means at the sparsity reached, with 95 % intervals; small dots: single seeds. The dashed level is the baseline." })];
}
function sweepChart(points_, metric, kind) {
  const base = points_.find((p) => p.cell.baseline);
  const lines = unique(points_.filter((p) => !p.cell.baseline).map((p) => p.cell.variant)).map((variant) => {
    const mine = points_.filter((p) => p.cell.variant === variant).sort((a, b) => a.x - b.x);
    return { label: variant, style: variantStyle(variant), x: mine.map((p) => p.x), y: mine.map((p) => p.mean), low: mine.map((p) => p.low), high: mine.map((p) => p.high), values: mine.map((p) => p.values), marks: true };
  });
  const levels = points_.map((p) => p.x), spread = extent(points_.flatMap((p) => [...p.values, p.low, p.high]));
  const rules = base ? [{ y: base.mean, low: base.low, high: base.high, label: base.cell.label }] : [];
  return lineChart({
    title: `${["accuracy", "loss"].includes(metric) ? `${points_[0].split} ` : ""}${METRIC_NAMES[metric]}`, height: 310, lines, rules,
    aria: `${METRIC_NAMES[metric]} against sparsity: ${lines.map((l) => `${l.label} from ${tellMetric(metric)(l.y[0])} at ${percent(l.x[0])} to ${tellMetric(metric)(l.y.at(-1))} at ${percent(l.x.at(-1))}`).join("; ")}`,
    x: { kind, domain: kind === "kept" ? [0, Math.max(...levels)] : [-0.02 * Math.max(...levels), Math.max(...levels) > 0.9 ? 1 : 1.04 * Math.max(...levels)], label: "sparsity (fraction removed)", name: "sparsity", format: (v) => `${Number((100 * v).toPrecision(5))} %`, tell: (v) => percent(v, 2) },
    y: { kind: "linear", domain: ["accuracy", "loss"].includes(metric) ? padded(spread, 0.06) : [0, 1.08 * spread[1] || 1], name: METRIC_NAMES[metric], format: tickMetric(metric), tell: tellMetric(metric) },
  });
}
