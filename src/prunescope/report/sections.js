// The page from top to bottom. Each section is drawn after the one above it, so that the first screen does not wait for the last.

const main = document.getElementById("main"), nav = document.getElementById("nav");
function section(id, title, lead, build, inNav = title) {
  const node = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title`, text: title }), lead ? el("p", { class: "lead", text: lead }) : null);
  main.append(node);
  const link = el("a", { href: `#${id}`, text: inNav });
  nav.append(link);
  places.push({ node, link });
  waiting.push(() => node.append(...build().filter(Boolean)));
}
// The navigation shows where the reader is.
const places = [];
function follow() {
  let here = null;
  for (const place of places) if (place.node.getBoundingClientRect().top < innerHeight / 3) here = place;
  for (const { link } of places) { if (link === here?.link) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); }
  if (here && nav.scrollWidth > nav.clientWidth) nav.scrollLeft = here.link.offsetLeft - nav.offsetLeft - nav.clientWidth / 3;
}
let following = 0;
addEventListener("scroll", () => { following ||= requestAnimationFrame(() => { following = 0; follow(); }); }, { passive: true });
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
  const lines = DATA.overview.map(([topic, text], i, all) => el("div", {}, el("dt", { text: i && all[i - 1][0] === topic ? "" : topic }), el("dd", {}, ...(i ? emphasised(text) : [text]))));
  main.append(el("h2", { id: "did", text: DATA.pruned ? "What pruning did" : "In short" }), el("dl", { class: "did", "aria-labelledby": "did" }, ...lines));
}
// Names in quotes and numbers with their unit stand out, intervals step back, so that a line can be skimmed. Text nodes only.
const EMPHASIS = /(“[^”]*”)|((?<![\w.])[+−]?\d[\d,]*(?:\.\d+)?\s?(?:%|points|bits|nats|ms|kB|MB|GB|bytes|times)(?!\w))|(\[[^\]]*\])/g;
function emphasised(text) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(EMPHASIS)) {
    if (found.index > at) nodes.push(text.slice(at, found.index));
    const [all, name, figure, interval] = found;
    nodes.push(name ? el("em", { text: name }) : figure ? el("strong", { text: all }) : el("small", { text: interval }));
    at = found.index + all.length;
  }
  return [...nodes, text.slice(at)];
}
const box = (title, items) => el("div", { class: "box", role: "note" }, el("h2", { text: title }), el("ul", {}, ...items.map((text) => el("li", { text }))));

// --- axes of epochs -------------------------------------------------------------------------------------------------------
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
