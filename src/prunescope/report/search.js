// What a search found: the ranking, and the objective against each searched key.

const SEARCH_LEAD = DATA.search && `The objective is ${DATA.search.text}. Test samples took no part in the choice, so the best one's test accuracy in the summary is an honest one; the highest there of many is not.`;

function searchSection() {
  const S = DATA.search, tell = tellMetric(S.metric) || short;
  const all = S.value.map((y, i) => ({ y, low: S.low[i], high: S.high[i], n: S.n[i], rung: S.rung[i], level: S.level[i], rank: S.rank[i], last: S.last[i], reason: S.reason[i], candidate: S.candidate[i], values: S.keys.map((k) => k.values[i]) }));
  const level = (v) => (S.over === "sparsity" ? sparsityName(v) : short(v));
  const name = (p) => S.keys.map((k, j) => `${k.name} ${typeof p.values[j] === "number" ? short(p.values[j]) : p.values[j]}`).join(", ");
  const rungs = unique(all.map((p) => p.rung)).sort((a, b) => a - b), hidden = new Set(), holder = el("div", { class: "panels wide" });
  const style = (rung) => ({ colour: colour(rungs.indexOf(rung)), dash: "0 40", shape: 0 });
  const draw = () => holder.replaceChildren(...S.keys.map((key, j) => searchChart(key, all.filter((p) => known(p.y) && !hidden.has(p.rung)).map((p) => ({
    x: p.values[j], y: p.y, low: p.low, high: p.high, label: S.over ? `${name(p)} at ${S.over} ${level(p.level)}` : name(p), rank: p.last ? p.rank : null, style: { ...style(p.rung), shape: p.last && p.rank === 1 ? 3 : 0 } })), S.metric)));
  draw();
  const rows = all.filter((p) => p.last).map((p) => ({ ...p, ...Object.fromEntries(S.keys.map((k, j) => [`key${j}`, p.values[j]])) }));
  const heads = [{ key: "rank", label: "Rank" }, ...S.keys.map((k, j) => ({ key: `key${j}`, label: k.name, text: typeof k.values[0] !== "number", show: (v) => (typeof v === "number" ? short(v) : v) })),
    S.over && { key: "level", label: S.over, show: level }, { key: "y", label: "Objective", show: (v, r) => withInterval(tell(v), r.low, r.high, tell), title: S.text }, { key: "n", label: "Seeds" },
    rows.some((r) => r.reason) && { key: "reason", label: "Reason", text: true, wide: true }].filter(Boolean);
  return [S.finished ? null : el("p", { class: "note", text: "The search is not over: these are the candidates so far." }), sortable(heads, rows, { label: "Candidates, best first" }),
    rungs.length < 2 ? null : legend(rungs.map((r) => ({ key: r, label: `${S.over} ${level(all.find((p) => p.rung === r).level)}`, style: style(r) })), hidden, draw), holder,
    el("p", { class: "note", text: `Means over the seeds with 95 % intervals; the best is the diamond. ${S.over ? "Candidates of different rungs are compared with their own rung alone. " : ""}The objective of the best of many candidates is too good by as much as luck chose it: its intervals do not know of the choice.` })];
}
function searchChart(key, points, metric) {
  const tell = tellMetric(metric) || short, numeric = typeof key.values[0] === "number", names = numeric ? [] : unique(key.values);
  const at = (v) => (numeric ? v : names.indexOf(v)), show = (v) => (numeric ? short(v) : names[Math.round(v)] ?? "");
  const inside = numeric ? extent(key.values) : [-0.5, names.length - 0.5], log = numeric && key.log && inside[0] > 0;
  const lines = points.map((p) => ({ label: p.label, count: p.rank ? `rank ${p.rank}` : null, marks: true, style: p.style, x: [at(p.x)], y: [p.y], low: [p.low], high: [p.high] }));
  return lineChart({
    title: `objective against ${key.name}`, height: 290, lines,
    aria: `The objective against ${key.name}: ${points.slice(0, 5).map((p) => `${numeric ? short(p.x) : p.x}, ${tell(p.y)}`).join("; ")}`,
    x: { kind: log ? "decades" : "linear", domain: log ? [inside[0] / 1.2, inside[1] * 1.2] : numeric ? padded(inside) : inside, ...(numeric ? {} : { ticks: names.map((_, i) => i) }), label: `${key.name}${log ? " (log)" : ""}`, name: key.name, format: show, tell: show },
    y: { kind: "linear", domain: padded(extent(points.flatMap((p) => [p.y, p.low, p.high])), 0.06), name: "objective", format: tickMetric(metric), tell },
  });
}
