// Latency on each back-end against sparsity, and where pruned networks become faster than the dense one.

const BACKEND_DASHES = [null, "7 4", "2 4", "9 3 2 3"];

function backendSection() {
  const D = DATA.backends, hidden = new Set(), holder = el("div", { class: "panels wide" });
  const all = D.cell.map((cell, i) => ({ cell: CELLS[cell], stage: D.stage[i], backend: D.backend[i], x: D.x[i], mean: D.mean[i], low: D.low[i], high: D.high[i] }));
  const groups = unique(all.map((p) => p.cell.group)), names = unique(all.map((p) => p.backend));
  const style = (p) => ({ colour: variantStyle(p.cell.variant).colour, dash: BACKEND_DASHES[names.indexOf(p.backend) % 4], shape: PARETO_STAGES[p.stage][1] });
  const name = (p) => `${p.cell.variant}, ${PARETO_STAGES[p.stage][0]}, ${p.backend}`;
  const keys = unique(all.map(name)).map((label) => ({ key: label, label, style: style(all.find((p) => name(p) === label)) }));
  let group = groups[0];
  const draw = () => holder.replaceChildren(backendChart(all.filter((p) => p.cell.group === group && !hidden.has(name(p))), name, style));
  draw();
  return [el("div", { class: "controls" }, picker("Group", options(groups), group, (v) => { group = v; draw(); })), legend(keys, hidden, draw), holder,
    D.crossings ? crossingTable(D.crossings) : el("p", { class: "note", text: "No baseline was run, so nothing is compared with the dense network." }),
    el("p", { class: "note", text: `Median of a pass over ${D.batch} samples on one thread, processor time; means over the seeds with 95 % intervals. Sparse back-ends store every linear layer in their format, also where that is slower than dense.` })];
}
function backendChart(points, name, style) {
  const lines = unique(points.filter((p) => !p.cell.baseline).map(name)).map((label) => {
    const mine = points.filter((p) => name(p) === label).sort((a, b) => a.x - b.x);
    return { label, style: style(mine[0]), marks: true, x: mine.map((p) => p.x), y: mine.map((p) => p.mean), low: mine.map((p) => p.low), high: mine.map((p) => p.high) };
  });
  const rules = points.filter((p) => p.cell.baseline).map((p) => ({ y: p.mean, low: p.low, high: p.high, label: `${p.cell.label}, ${p.backend}` }));
  const most = Math.max(0.1, ...points.map((p) => p.x)), [low, high] = extent(points.flatMap((p) => [p.mean, p.low, p.high]));
  return lineChart({
    title: "latency by back-end", height: 360, lines, rules,
    aria: `Latency against sparsity: ${lines.map((l) => `${l.label} from ${short(l.y[0])} ms at ${percent(l.x[0])} to ${short(l.y.at(-1))} ms at ${percent(l.x.at(-1))}`).join("; ")}`,
    x: { kind: "linear", domain: [-0.02 * most, most > 0.9 ? 1 : 1.04 * most], label: "sparsity (fraction removed)", name: "sparsity", format: (v) => `${Number((100 * v).toPrecision(5))} %`, tell: (v) => percent(v, 2) },
    y: { kind: "decades", domain: [low / 1.15, high * 1.15], label: "ms a pass (log)", name: "latency", format: short, tell: (v) => `${short(v)} ms` },
  });
}
function crossingTable(rows) {
  const heads = [GROUPS.length > 1 && { key: "group", label: "Group", text: true }, { key: "variant", label: "Variant", text: true }, { key: "stage", label: "Stage", text: true, show: (v) => PARETO_STAGES[v][0] },
    { key: "backend", label: "Back-end", text: true }, { key: "sparsity", label: "5 % faster than the dense network from", show: (v, r) => (known(v) ? `${percent(v)} removed [${percent(r.first)}, ${percent(r.last)}]` : "at no level measured") },
    { key: "crossed", label: "Seeds", show: (v, r) => `${v} of ${r.seeds}` }].filter(Boolean);
  return sortable(heads, rows, { label: "Break-even with the dense network" });
}
