// Accuracy against bytes and latency: one point a setting and stage, and the front that nothing beats in both.

const PARETO_STAGES = { final: ["as trained", 0], compacted: ["compacted", 1], quantised: ["int8", 2] };
const PARETO_COSTS = {
  nonzero: { title: "non-zero parameters", label: "non-zero parameters (log)", name: "non-zeros", tell: grouped, tick: (v) => v.toLocaleString("en-GB") },
  bytes: { title: "size of the parameters", label: "size of the parameters (log)", name: "size", tell: bytes, tick: bytes },
  latency_ms: { title: "latency", label: "latency [ms] (log)", name: "latency", tell: (v) => `${short(v)} ms`, tick: short },
};
const PARETO_FRONT = "The dashed line is the Pareto front: for what lies on it, nothing else is at least as accurate and costs at most as much.";
const PARETO_LEAD = DATA.pareto && unique(DATA.pareto.stage).length > 1
  ? `Each point is one setting at one stage: as trained (zeros kept in place), compacted (what is masked removed), int8 (linear layers quantised). ${PARETO_FRONT}`
  : `Each point is one setting. ${PARETO_FRONT}`;

function paretoSection() {
  const D = DATA.pareto, hidden = new Set(), gone = new Set(), holder = el("div", { class: "panels wide" });
  const all = D.cell.map((cell, i) => ({ cell: CELLS[cell], cost: D.cost[i], stage: D.stage[i], x: D.x[i], y: D.mean[i], low: D.low[i], high: D.high[i], n: D.n[i], front: D.front[i] }));
  const groups = unique(all.map((p) => p.cell.group)), stages = unique(all.map((p) => p.stage));
  let group = groups[0];
  const draw = () => {
    const mine = all.filter((p) => p.cell.group === group);
    holder.replaceChildren(...unique(mine.map((p) => p.cost)).map((cost) => paretoChart(mine.filter((p) => p.cost === cost), (p) => !hidden.has(p.cell.variant) && !gone.has(p.stage))));
  };
  draw();
  return [el("div", { class: "controls" }, picker("Group", options(groups), group, (v) => { group = v; draw(); })),
    legend(VARIANTS.map((v) => ({ key: v, label: v, style: stages.length > 1 ? { ...variantStyle(v), shape: 4 } : variantStyle(v) })), hidden, draw),
    stages.length < 2 ? null : legend(stages.map((s) => ({ key: s, label: PARETO_STAGES[s][0], style: { colour: "var(--ink)", dash: "0 40", shape: PARETO_STAGES[s][1] } })), gone, draw), holder, paretoTable(all),
    el("p", { class: "note", text: "Means over the seeds with 95 % intervals. The front is of all settings of the group, shown or hidden, by their means: neighbours whose intervals overlap may change places with other seeds." })];
}
function paretoChart(points, shown) {
  const cost = PARETO_COSTS[points[0].cost], tell = cost.tell, staged = unique(DATA.pareto.stage).length > 1;
  const name = (p) => (staged ? `${p.cell.label}, ${PARETO_STAGES[p.stage][0]}` : p.cell.label);
  const lines = points.filter(shown).map((p) => ({ label: name(p), count: p.front ? "on the front" : null, marks: true, x: [p.x], y: [p.y], low: [p.low], high: [p.high],
    style: { colour: variantStyle(p.cell.variant).colour, shape: staged ? PARETO_STAGES[p.stage][1] : variantStyle(p.cell.variant).shape } }));
  const front = points.filter((p) => p.front).sort((a, b) => a.x - b.x || a.y - b.y), x = [], y = [];
  front.forEach((p, i) => { if (i) { x.push(p.x); y.push(front[i - 1].y); } x.push(p.x); y.push(p.y); });
  lines.push({ label: "Pareto front", style: { colour: "var(--ink)", dash: "5 4" }, x, y });
  const [low, high] = extent(points.map((p) => p.x));
  return lineChart({
    title: `test accuracy against ${cost.title}`, height: 330, lines,
    aria: `Test accuracy against ${cost.title}; on the Pareto front: ${front.map((p) => `${name(p)}, ${percent(p.y)} at ${tell(p.x)}`).join("; ")}`,
    x: { kind: "decades", domain: [low / 1.15, high * 1.15], label: cost.label, name: cost.name, format: cost.tick, tell },
    y: { kind: "linear", domain: padded(extent(points.flatMap((p) => [p.y, p.low, p.high])), 0.06), name: "accuracy", format: tickMetric("accuracy"), tell: tellMetric("accuracy") },
  });
}
function paretoTable(all) {
  const rows = all.filter((p) => p.front).sort((a, b) => (a.cost < b.cost ? -1 : a.cost > b.cost ? 1 : a.x - b.x))
    .map((p) => ({ group: p.cell.group, setting: p.cell.label, stage: PARETO_STAGES[p.stage][0], against: PARETO_COSTS[p.cost].name, tell: PARETO_COSTS[p.cost].tell, cost: p.x, accuracy: p.y }));
  const heads = [GROUPS.length > 1 && { key: "group", label: "Group", text: true }, { key: "against", label: "Against", text: true }, { key: "setting", label: "On the front", text: true, wide: true },
    unique(rows.map((r) => r.stage)).length > 1 && { key: "stage", label: "Stage", text: true }, { key: "cost", label: "Cost", show: (v, r) => r.tell(v) }, { key: "accuracy", label: "Accuracy", show: (v) => percent(v, 2) }].filter(Boolean);
  return sortable(heads, rows, { label: "The Pareto front" });
}
