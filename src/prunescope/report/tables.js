// Sortable tables.

// heads: [{key, label, text, show, title}]; rows: objects; `markup(row, head)` may give a node of its own for a cell.
function sortable(heads, rows, { label, rowClass = () => null }) {
  const body = el("tbody");
  let by = null, down = false;
  const cells = (row) => heads.map((h) => {
    const value = h.show ? h.show(row[h.key], row) : row[h.key];
    const cell = el("td", { class: h.text ? `text${h.wide ? " name" : ""}` : null });
    cell.append(value === null || value === undefined ? "–" : value);
    return cell;
  });
  const fillBody = () => {
    const sorted = by === null ? rows : [...rows].sort((a, b) => compare(a[by.key], b[by.key], down));
    body.replaceChildren(...sorted.map((row) => el("tr", { class: rowClass(row) }, ...cells(row))));
  };
  const titles = heads.map((h) => {
    const th = el("th", { scope: "col", class: h.text ? "text" : null, title: h.title });
    th.append(el("button", { type: "button", text: h.label, onclick: () => {
      down = by === h ? !down : !h.text;
      by = h;
      titles.forEach((t) => t.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      fillBody();
    } }));
    return th;
  });
  fillBody();
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, ...titles)), body));
}
function compare(a, b, down) { // what is missing stays at the end either way
  const [missingA, missingB] = [a, b].map((v) => v === null || v === undefined || v === "");
  if (missingA || missingB) return missingA - missingB;
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

function withInterval(text, low, high, show) {
  const span = el("span", { text });
  if (known(low)) span.append(el("small", { text: ` [${show(low)}, ${show(high)}]` }));
  return span;
}
const points = (v) => (known(v) ? `${v > 0 ? "+" : ""}${fixed(100 * v, 1)}` : "–");

// Sizes that are the same in every row need no column; they are told once.
const ALIKE = ["bytes", "flops"].filter((key) => key in DATA.summary && unique(DATA.summary[key]).length === 1);
const alike = () => (ALIKE.length ? el("p", { class: "note", text: `The same in every row: ${ALIKE.map((key) => (key === "bytes" ? `${bytes(DATA.summary.bytes[0])} of dense parameters` : `${grouped(DATA.summary.flops[0])} FLOPs`)).join(", ")}.` }) : null);
function summaryTable() {
  const S = DATA.summary, has = (key) => key in S && !ALIKE.includes(key);
  const rows = CELLS.map((c) => ({ ...c, ...Object.fromEntries(Object.keys(S).map((key) => [key, S[key][c.index]])) }));
  const bare = (v) => fixed(100 * v, 1);
  const heads = [
    GROUPS.length > 1 && { key: "group", label: "Group", text: true },
    { key: "variant", label: "Variant", text: true, wide: true },
    { key: "sparsity", label: "Asked", show: (v) => (known(v) ? sparsityName(v) : "–"), title: "sparsity asked for, of the layers that are pruned" },
    has("reached") && { key: "reached", label: "Reached", show: (v) => percent(v), title: "sparsity reached: exact zeros among all prunable weights, exempt layers included" },
    has("accuracy") && { key: "accuracy", label: "Test accuracy %", show: (v, r) => withInterval(known(v) ? bare(v) : "–", r.accuracy_low, r.accuracy_high, bare), title: "mean over seeds [95 % interval]" },
    has("difference") && { key: "difference", label: "Δ points", show: (v, r) => withInterval(points(v), r.difference_low, r.difference_high, points), title: "difference of accuracy to the reference of the same seed, in percentage points [95 % interval]" },
    has("loss") && { key: "loss", label: "Test loss", show: (v, r) => withInterval(fixed(v, 3), r.loss_low, r.loss_high, (x) => fixed(x, 3)), title: "mean over seeds [95 % interval]" },
    has("nonzero") && { key: "nonzero", label: "Non-zeros", show: grouped },
    has("bytes") && { key: "bytes", label: "Size", show: bytes, title: "bytes of the parameters as they are stored" },
    has("flops") && { key: "flops", label: "FLOPs", show: grouped },
    has("latency_ms") && { key: "latency_ms", label: "Latency ms", show: (v) => (known(v) ? minus(String(Number(v.toPrecision(3)))) : "–") },
    has("collapsed") && { key: "collapsed", label: "Collapsed", show: (v, r) => (known(v) ? `${v} of ${r.judged}` : "–"), title: "trials whose test accuracy is at most one standard deviation above chance" },
    { key: "seeds", label: "Seeds", show: (v, r) => (r.failed ? `${v ?? 0} (+${r.failed} failed)` : `${v ?? 0}`) },
    has("seconds") && { key: "seconds", label: "Time", show: duration, title: "median time of a trial" },
  ].filter(Boolean);
  return sortable(heads, rows, { label: "Summary", rowClass: (r) => (r.baseline ? "base" : null) });
}
