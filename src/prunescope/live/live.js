// The live page: asks its server every two seconds what has changed, and draws it with the report's own charts.

const main = document.getElementById("main"), nav = document.getElementById("nav");
const EVERY = 2000;
const TRIALS = new Map(); // by name, as the server told them last
const now = { version: 0, run: DATA.about.created || "", status: "waiting", quiet: null, counts: {}, planes: [], plane: null, lost: false };
const view = { group: null, split: "validation", shown: "all", hidden: new Set(), plane: null, estimate: null };

async function ask() {
  try {
    const answer = await fetch(`/state?since=${now.version}${view.plane ? `&plane=${encodeURIComponent(view.plane)}` : ""}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const said = await answer.json();
    if (said.run !== now.run) { location.reload(); return; } // another experiment has begun in the folder
    for (const trial of said.trials) TRIALS.set(trial.name, trial);
    const changed = said.version !== now.version || said.status !== now.status || now.lost || said.plane?.name !== now.plane?.name;
    Object.assign(now, said, { lost: false });
    if (!view.plane && now.planes.length) { // a trial at work rather than a training that is shared
      view.plane = now.planes.find((n) => TRIALS.get(n)?.status === "running" && !TRIALS.get(n).shared) ?? now.planes[0];
      setTimeout(ask, 0);
      return;
    }
    tellState();
    if (changed) draw();
  } catch {
    now.lost = true;
    tellState();
  }
  if (document.documentElement.dataset.ready !== "all") draw();
  document.documentElement.dataset.ready = "all";
  setTimeout(ask, now.status === "finished" || now.lost ? 3 * EVERY : EVERY);
}

// --- the head -----------------------------------------------------------------------------------------------------
const head = { dot: el("span", { class: "dot" }), state: el("strong"), counts: el("span"), failed: el("span", { class: "bad" }), quiet: el("span"), bar: el("div", { class: "progress", role: "img" }) };
function tellState() {
  const c = now.counts, total = Object.values(c).reduce((a, b) => a + b, 0), busy = [...TRIALS.values()].filter((t) => t.status === "running").length;
  const words = { waiting: "Waiting for the run to begin", running: "Running", finished: "Finished", stopped: "Stopped" };
  head.dot.className = `dot ${now.lost ? "" : now.status}`;
  head.state.textContent = now.lost ? "No answer: the run has ended or its server was stopped. This is what it told last." : words[now.status];
  head.counts.textContent = total ? `${c.finished || 0} of ${total} trials finished${now.status === "running" ? `, ${busy} at work` : ""}` : "";
  head.failed.textContent = c.failed ? `${c.failed} failed` : "";
  head.quiet.textContent = now.lost || now.status !== "running" || !known(now.quiet) ? "" : now.quiet > 120
    ? `nothing new for ${duration(now.quiet)}: it may have been stopped` : `last change ${duration(Math.round(now.quiet))} ago`;
  head.bar.setAttribute("aria-label", `${c.finished || 0} finished, ${c.failed || 0} failed, ${c.running || 0} at work, of ${total} trials`);
  head.bar.replaceChildren(...["finished", "failed", "running"].map((s) => {
    const part = el("i", { class: s });
    part.style.width = `${(100 * (c[s] || 0)) / Math.max(1, total)}%`;
    return part;
  }));
}
function headNodes() {
  const about = DATA.about;
  main.append(el("h1", { text: about.title || about.name || DATA.folder }), about.question ? el("p", { class: "question", text: about.question }) : "",
    el("div", { class: "now", role: "status" }, el("span", {}, head.dot, head.state), head.counts, head.failed, head.quiet), head.bar);
}

// --- sections -----------------------------------------------------------------------------------------------------
const parts = [];
function part(id, title, build) {
  const body = el("div"), node = el("section", { id, "aria-labelledby": `${id}-title`, hidden: true }, el("h2", { id: `${id}-title`, text: title }), body);
  const link = el("a", { href: `#${id}`, text: title, hidden: true });
  main.append(node);
  nav.append(link);
  parts.push(() => {
    const found = build();
    node.hidden = link.hidden = !found;
    if (found) body.replaceChildren(...found.filter(Boolean));
  });
}
function draw() { hideTip(); parts.forEach((f) => f()); }
const again = (key) => (v) => { view[key] = v; draw(); };
const styleOf = (t) => (t.shared ? { colour: "var(--soft)", dash: "2 3", shape: 4 } : variantStyle(t.variant));
const names = (trials) => unique(trials.filter((t) => !t.shared).map((t) => t.variant));

function first() { // before there is anything to draw
  if ([...TRIALS.values()].some((t) => Object.keys(t.curves).length)) return null;
  const text = { waiting: "The page shows the run as soon as it begins.", running: "Curves appear here when the first epochs are over." }[now.status];
  return [el("p", { class: "empty", text: text || "There are no records in this run folder." })];
}
const groupNow = () => view.group ?? [...GROUPS, ""].find((g) => [...TRIALS.values()].some((t) => t.group === g && Object.keys(t.curves).length)) ?? ""; // the chosen one, else the first to have begun
const groupPicker = () => picker("Group", options(GROUPS), groupNow(), again("group"));
function curves() {
  if (![...TRIALS.values()].some((t) => Object.keys(t.curves).length)) return null;
  const all = [...TRIALS.values()].filter((t) => t.group === groupNow() && Object.keys(t.curves).length);
  if (!all.length) return [el("div", { class: "controls" }, groupPicker()), el("p", { class: "empty", text: `No trial of ${groupNow()} has begun yet.` })];
  const splits = unique(all.flatMap((t) => Object.keys(t.curves).map((k) => k.split("/")[1])));
  const split = splits.includes(view.split) ? view.split : splits[0];
  const shown = all.filter((t) => !view.hidden.has(t.variant) && (view.shown === "all" || t.status === "running"));
  const charts = ["accuracy", "loss"].filter((m) => all.some((t) => t.curves[`${m}/${split}`])).map((m) => curveChart(shown, m, split));
  return [el("div", { class: "controls" }, groupPicker(), picker("Split", options(splits), split, again("split")),
    picker("Trials", [{ value: "all", label: "all trials" }, { value: "running", label: "at work" }], view.shown, again("shown"))),
  legend(names(all).map((v) => ({ key: v, label: v, style: variantStyle(v) })), view.hidden, draw), el("div", { class: "panels wide" }, ...charts),
  el("p", { class: "note", text: `A line is one trial; finished ones are pale.${all.some((t) => t.shared) ? " Dotted: training before pruning that several trials share." : ""}` })];
}
function curveChart(trials, metric, split) {
  const lines = trials.filter((t) => t.curves[`${metric}/${split}`]).map((t) => {
    const [x, y] = t.curves[`${metric}/${split}`];
    return { label: t.label, style: styleOf(t), x, y, old: t.status !== "running", count: t.status === "running" ? "at work" : t.status };
  });
  const tell = metric === "accuracy" ? (v) => percent(v, 2) : (v) => fixed(v, 4);
  const top = extent(lines.flatMap((l) => l.x))[1], trained = unique(trials.map((t) => t.trained).filter((v) => v > 0));
  const spec = {
    title: `${split} ${metric}`, height: 290, lines, rules: trained.length === 1 && trained[0] < top ? [{ x: trained[0], label: "pruned" }] : [],
    aria: `${split} ${metric} against epochs, ${lines.length} trials: ${lines.slice(0, 6).map((l) => `${l.label} is at ${tell(l.y.at(-1))}`).join("; ")}`,
    x: { kind: "linear", domain: [0, Math.max(1, top)], label: "epoch", name: "epoch", format: short, tell: short },
    y: { kind: "linear", domain: padded(extent(lines.flatMap((l) => l.y)), 0.04), name: metric, format: metric === "accuracy" ? (v) => `${Number((100 * v).toPrecision(4))} %` : short, tell },
  };
  const holder = el("div");
  responsive(holder, (width) => {
    const chart = drawLines(spec, width);
    [...chart.querySelectorAll("path[stroke-linejoin]")].forEach((path, i) => { if (lines[i]?.old && lines.some((l) => !l.old)) path.classList.add("old"); });
    holder.replaceChildren(chart);
  });
  return el("figure", {}, el("h3", { text: spec.title }), holder);
}

const SYMBOLS = { mi_input: "I(X;T)", mi_label: "I(T;Y)" };
function information() {
  if (!now.planes.length) return null;
  const select = choice("Trial", now.planes.map((n) => ({ value: n, label: TRIALS.get(n)?.label ?? n })), view.plane, (v) => { view.plane = v; ask2(); });
  const estimates = Object.keys(now.plane?.estimates ?? {}), estimate = estimates.includes(view.estimate) ? view.estimate : estimates[0];
  if (!estimate) return [el("div", { class: "controls" }, select), el("p", { class: "empty", text: "No estimates of this trial yet." })];
  const layers = unique(Object.values(now.plane.estimates[estimate]).flatMap((q) => Object.keys(q)));
  const key = el("div", { class: "legend" }, ...layers.map((name, i) => el("span", { class: "key" }, sample({ colour: colour(i), dash: dash(i) }), el("span", { text: name }))));
  const charts = Object.entries(now.plane.estimates[estimate]).map(([quantity, found]) => {
    const lines = layers.filter((n) => found[n]).map((n) => ({ label: n, style: { colour: colour(layers.indexOf(n)), dash: dash(layers.indexOf(n)) }, x: found[n][0], y: found[n][1] }));
    return lineChart({
      title: `${SYMBOLS[quantity]} [bits]`, height: 250, lines, aria: `${SYMBOLS[quantity]} in bits against epochs: ${lines.map((l) => `${l.label} is at ${fixed(l.y.at(-1))}`).join("; ")}`,
      x: { kind: "linear", domain: [0, Math.max(1, extent(lines.flatMap((l) => l.x))[1])], label: "epoch", name: "epoch", format: short, tell: short },
      y: { kind: "linear", domain: padded(extent([0, ...lines.flatMap((l) => l.y)]), 0.04), name: SYMBOLS[quantity], format: short, tell: (v) => `${fixed(v, 3)} bits` },
    });
  });
  return [el("div", { class: "controls" }, select, picker("Estimator", options(estimates), estimate, again("estimate"))), key, el("div", { class: "panels wide" }, ...charts),
    el("p", { class: "note", text: "Estimates without their ceilings and flags: the report at the end of the run has those, and says what can be read from them." })];
}
async function ask2() { // a choice is answered at once, beside the steady questions
  const answer = await fetch(`/state?since=${now.version}&plane=${encodeURIComponent(view.plane)}`, { cache: "no-store" }).catch(() => null);
  if (answer?.ok) { now.plane = (await answer.json()).plane; draw(); }
}

function results() {
  const done = [...TRIALS.values()].filter((t) => t.group === groupNow() && known(t.final.accuracy) && !view.hidden.has(t.variant));
  if (!done.length) return null;
  const level = (t) => t.sparsity ?? 0, levels = unique(done.map(level)).sort((a, b) => a - b);
  const lines = names(done).map((variant) => {
    const mine = done.filter((t) => t.variant === variant), x = unique(mine.map(level)).sort((a, b) => a - b);
    const values = x.map((s) => mine.filter((t) => level(t) === s).map((t) => t.final.accuracy));
    return { label: variant, style: variantStyle(variant), x, values, y: values.map((v) => v.reduce((a, b) => a + b, 0) / v.length), marks: true, count: `${mine.length} trials` };
  });
  const chart = lineChart({
    height: 290, lines, aria: `test accuracy against sparsity so far: ${lines.map((l) => `${l.label} ${l.y.map((v) => percent(v)).join(", ")}`).join("; ")}`,
    x: { kind: "linear", domain: [0, Math.max(0.1, ...levels)], label: "sparsity asked for", name: "sparsity", format: sparsityName, tell: sparsityName },
    y: { kind: "linear", domain: padded(extent(lines.flatMap((l) => l.values.flat()))), name: "test accuracy", format: (v) => `${Number((100 * v).toPrecision(4))} %`, tell: (v) => percent(v, 2) },
  });
  return [el("p", { class: "lead", text: `Test accuracy of the ${done.length} finished trials${groupNow() ? ` of ${groupNow()}` : ""}: dots are trials, lines their means. Intervals and paired differences are in the report.` }),
    el("div", { class: "panels few" }, chart)];
}

const ORDER = { failed: 0, running: 1, finished: 2, waiting: 3 };
function table() {
  const rows = [...TRIALS.values()].filter((t) => t.status !== "waiting" && !(t.shared && t.status === "finished")).sort((a, b) => ORDER[a.status] - ORDER[b.status]).map((t) => ({
    status: t.status, label: t.label, epoch: t.curves["accuracy/validation"]?.[0].at(-1) ?? t.curves["accuracy/train"]?.[0].at(-1),
    accuracy: t.curves["accuracy/validation"]?.[1].at(-1), test: t.final.accuracy, reached: t.reached, seconds: t.seconds, reason: t.reason }));
  if (!rows.length) return null;
  const heads = [{ key: "status", label: "Status", text: true, show: (v) => el("span", {}, el("span", { class: `dot ${v}` }), v) }, { key: "label", label: "Trial", text: true, wide: true },
    { key: "epoch", label: "Epoch", show: short }, { key: "accuracy", label: "Validation", show: (v) => percent(v) }, { key: "test", label: "Test", show: (v) => percent(v) },
    { key: "reached", label: "Zeros", show: (v) => percent(v), title: "sparsity reached, of all prunable weights" }, { key: "seconds", label: "Time", show: duration },
    rows.some((r) => r.reason) && { key: "reason", label: "Reason", text: true, wide: true }].filter(Boolean);
  return [sortable(heads, rows, { label: "Trials" })];
}

document.body.append(tip);
theme();
headNodes();
part("first", "Nothing yet", first);
part("curves", "Training", curves);
part("results", "Results so far", results);
part("information", "Information", information);
part("trials", "Trials", table);
tellState();
ask();
