// Ground of the page: the data, building nodes, formatting, colours, theme, controls, tooltip.
// Text from the run reaches the page through textContent or setAttribute alone.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg"; // a name of SVG's, nothing is loaded from it

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "text") node.textContent = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// --- numbers ---------------------------------------------------------------------------------------------------
const known = (v) => v !== null && v !== undefined && Number.isFinite(v);
const minus = (text) => text.replace("-", "−");
const fixed = (v, digits = 2) => (known(v) ? minus(v.toFixed(digits)) : "–");
const percent = (v, digits = 1) => (known(v) ? `${minus((100 * v).toFixed(digits))} %` : "–");
const grouped = (v) => (known(v) ? Math.round(v).toLocaleString("en-GB") : "–");
const short = (v) => (known(v) ? minus(String(Number(v.toPrecision(4)))) : "–");
const sparsityName = (s) => (known(s) ? `${Number((100 * s).toPrecision(5))} %` : "not asked for");
const unique = (values) => [...new Set(values)];
function bytes(v) {
  if (!known(v)) return "–";
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (v >= scale) return `${Number((v / scale).toPrecision(3))} ${unit}`;
  return `${Math.round(v)} B`;
}
function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 5400) return `${Number((seconds / 60).toPrecision(3))} min`;
  return `${Number((seconds / 3600).toPrecision(3))} h`;
}
function median(values) {
  const sorted = values.filter(known).sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return !sorted.length ? null : sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
const extent = (values) => {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (known(v)) { if (v < low) low = v; if (v > high) high = v; }
  return low <= high ? [low, high] : [0, 1];
};

// --- colours: Okabe-Ito for names, viridis for epochs (cut where it would vanish into the background) -----------------
const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"].map((h) =>
  [0, 2, 4].map((i) => parseInt(h.slice(i, i + 2), 16)));
const dark = () => document.documentElement.dataset.theme === "dark";
function ramp(t) {
  const at = (dark() ? 0.2 + 0.8 * t : 0.9 * t) * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(at));
  const mix = VIRIDIS[i].map((c, k) => Math.round(c + (VIRIDIS[i + 1][k] - c) * (at - i)));
  return `rgb(${mix.join(",")})`;
}
const PAINT = {}; // what canvases need of the style sheet, read once a theme
function readPaint() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "bg", "soft", "grid"]) PAINT[name] = style.getPropertyValue(`--${name}`).trim();
  PAINT.font = getComputedStyle(document.body).fontFamily;
}
const colour = (i) => `var(--c${i % 8})`;
const DASHES = [null, "7 4", "2 3", "9 3 2 3"];
const dash = (i) => DASHES[Math.floor(i / 8) % DASHES.length];

const C = DATA.cells;
const CELLS = C.label.map((label, i) => ({
  index: i, label, group: C.group[i], variant: C.variant[i], sparsity: C.sparsity[i], baseline: C.baseline[i],
  name: C.group[i] ? `${C.group[i]}: ${label}` : label,
}));
const GROUPS = unique(C.group);
const VARIANTS = unique(C.variant);
const BASELINES = new Set(CELLS.filter((c) => c.baseline).map((c) => c.variant));
const OTHERS = VARIANTS.filter((v) => !BASELINES.has(v));
function variantStyle(name) {
  if (BASELINES.has(name)) return { colour: "var(--base)", dash: "5 4", shape: 4 };
  const i = OTHERS.indexOf(name);
  return { colour: colour(i), dash: dash(i), shape: i % 4 };
}

// --- theme -----------------------------------------------------------------------------------------------------
const redraws = []; // what has to be painted anew when colours change (canvases; SVG follows its variables)
function theme() {
  const button = document.getElementById("theme");
  const wish = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("prunescope-theme"); } catch { /* storage is closed for files in some browsers */ }
  const apply = () => {
    const now = chosen || (wish.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now;
    button.textContent = now === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${now === "dark" ? "light" : "dark"} colours`);
    readPaint();
    redraws.forEach((draw) => draw());
  };
  button.addEventListener("click", () => {
    chosen = dark() ? "light" : "dark";
    try { localStorage.setItem("prunescope-theme", chosen); } catch { /* as above */ }
    apply();
  });
  wish.addEventListener("change", apply);
  apply();
}

// --- controls --------------------------------------------------------------------------------------------------
function choice(label, options, value, change) {
  const select = el("select", { onchange: () => change(options[select.selectedIndex].value) },
    ...options.map((o) => el("option", { text: o.label, selected: o.value === value })));
  return el("label", {}, label, select);
}
function switcher(label, options, value, change) {
  const buttons = options.map((o) => el("button", { type: "button", text: o.label, "aria-pressed": String(o.value === value), onclick: () => {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(options[i].value === o.value)));
    change(o.value);
  } }));
  return el("span", { class: "switch", role: "group", "aria-label": label }, ...buttons);
}
const picker = (label, options, value, change) =>
  options.length < 2 ? null : (options.length < 5 && options.every((o) => o.label.length < 22) ? switcher : choice)(label, options, value, change);
const options = (values, name = String) => values.map((value) => ({ value, label: name(value) }));


// Of cells that differ in sparsity one a variant: the level asked for, or the nearest that the variant has.
const levelsOf = (cells) => unique(cells.filter((c) => cells.some((o) => o.variant === c.variant && o.sparsity !== c.sparsity)).map((c) => c.sparsity)).sort((a, b) => a - b);
const commonLevel = (cells) => { // the middle of those there are
  const levels = levelsOf(cells).filter((l) => l > 0);
  return levels.length ? levels[levels.length >> 1] : null;
};
function atLevel(cells, level) {
  const off = (c) => Math.abs((c.sparsity ?? 2) - (level ?? 0));
  return cells.filter((c) => cells.every((o) => o === c || o.variant !== c.variant || off(c) < off(o) || (off(c) === off(o) && c.index < o.index)));
}

function shapePath(shape, x, y, r) {
  if (shape === 1) return `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (shape === 2) return `M${x} ${y - 1.25 * r}L${x + 1.2 * r} ${y + r}H${x - 1.2 * r}z`;
  if (shape === 3) return `M${x} ${y - 1.35 * r}L${x + 1.35 * r} ${y}L${x} ${y + 1.35 * r}L${x - 1.35 * r} ${y}z`;
  return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
}
function sample(style) {
  return svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, stroke: style.colour, "stroke-width": 2.2, "stroke-dasharray": style.dash }),
    style.shape === undefined || style.shape === 4 ? null : svg("path", { d: shapePath(style.shape, 13, 6, 3.6), fill: style.colour }));
}
function legend(items, hidden, change) {
  return el("div", { class: items.some((i) => i.style) ? "legend" : "legend chips", role: "group", "aria-label": "Show or hide" }, ...items.map((item) => {
    const button = el("button", { type: "button", "aria-pressed": String(!hidden.has(item.key)), onclick: () => {
      if (!hidden.delete(item.key)) hidden.add(item.key);
      button.setAttribute("aria-pressed", String(!hidden.has(item.key)));
      change();
    } }, item.style ? sample(item.style) : null, el("span", { text: item.label }));
    return button;
  }));
}

// --- tooltip, and drawing at the width there is ------------------------------------------------------------------------
const tip = el("div", { id: "tip", role: "status", hidden: true });
function showTip(event, head, lines) {
  tip.replaceChildren(el("b", { text: head }), ...lines.map((text) => el("div", { text })));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(innerWidth - box.width - 6, event.clientX + 14))}px`;
  tip.style.top = `${event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16}px`;
}
const hideTip = () => { tip.hidden = true; };

const widths = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const width = Math.floor(contentRect.width);
    if (width > 0 && width !== target.drawnWidth) { target.drawnWidth = width; target.draw(width); }
  }
});
function responsive(node, draw) {
  node.draw = draw;
  widths.observe(node);
  return node;
}
