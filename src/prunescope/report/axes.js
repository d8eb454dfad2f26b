// Scales, ticks and the frame of an SVG chart.

function niceTicks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}
function logTicks(low, high) {
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
    for (const m of [1, 2, 5]) if (m * 10 ** p >= low * 0.999 && m * 10 ** p <= high * 1.001) ticks.push(m * 10 ** p);
  }
  if (ticks.length < 2) return niceTicks(low, high, 3);
  if (ticks.length < 8) return ticks;
  const powers = ticks.filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9);
  const step = Math.ceil(powers.length / 8); // over many decades every second, third, ...
  return powers.filter((t) => Math.round(Math.log10(t)) % step === 0);
}
const SPARSE_TICKS = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999];

// A scale knows how to turn a value into 0..1 and which ticks to draw.
function scale(kind, [low, high], count = 5) {
  if ((kind === "log" || kind === "decades") && low > 0) { // decades: without a place for zero
    const [a, b] = [Math.log10(low), Math.log10(high > low ? high : low * 10)];
    const gap = kind === "log" ? 0.05 : 0; // zero (before training) stands at the left edge, apart from the first logarithmic value
    return { at: (v) => (v > 0 ? gap + (1 - gap) * (Math.log10(v) - a) / (b - a) : 0), ticks: [...(gap ? [0] : []), ...logTicks(low, high)] };
  }
  if (kind === "kept") { // sparsity by the logarithm of what is kept: 90 % and 99 % are as far apart as 0 % and 90 %
    const top = -Math.log10(Math.max(1e-6, 1 - high)) || 1;
    const all = SPARSE_TICKS.filter((t) => t <= high + 1e-9);
    return { at: (v) => -Math.log10(Math.max(1e-6, 1 - v)) / top, ticks: all };
  }
  const span = high - low || 1;
  return { at: (v) => (v - low) / span, ticks: niceTicks(low, high, count) };
}
function padded([low, high], part = 0.05) {
  const pad = (high - low || Math.abs(high) || 1) * part;
  return [low - pad, high + pad];
}
function spaced(ticks, at, least) { // leave out ticks whose labels would touch
  const kept = [];
  for (const t of ticks) if (!kept.length || at(t) - at(kept[kept.length - 1]) >= least) kept.push(t);
  return kept;
}

// The frame: grid, ticks, axis names. `x` and `y` are {scale, label, format}; gives the plot's box and the two pixel functions.
function chartFrame(width, height, x, y, aria) {
  const labels = y.scale.ticks.map((t) => y.format(t));
  const box = { left: 16 + 6.6 * Math.max(2, ...labels.map((t) => t.length)), right: 20, top: 12, bottom: 40 };
  if (!x.label) box.bottom = 24;
  const w = width - box.left - box.right, h = height - box.top - box.bottom;
  const px = (v) => box.left + x.scale.at(v) * w, py = (v) => box.top + (1 - y.scale.at(v)) * h;
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": aria });
  for (const [i, t] of y.scale.ticks.entries()) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.left + w, y1: py(t), y2: py(t) }),
      svg("text", { x: box.left - 7, y: py(t) + 4, "text-anchor": "end", text: labels[i] }));
  }
  const room = 9 + 6.6 * Math.max(...x.scale.ticks.map((t) => x.format(t).length), 1);
  for (const t of spaced(x.scale.ticks, px, room)) {
    root.append(svg("line", { class: "axis", x1: px(t), x2: px(t), y1: box.top + h, y2: box.top + h + 4 }),
      svg("text", { x: px(t), y: box.top + h + 17, "text-anchor": "middle", text: x.format(t) }));
  }
  root.append(svg("line", { class: "axis", x1: box.left, x2: box.left + w, y1: box.top + h, y2: box.top + h }));
  if (x.label) root.append(svg("text", { x: box.left + w / 2, y: height - 5, "text-anchor": "middle", text: x.label }));
  return { root, px, py, box: { ...box, w, h } };
}

// Path of the stretches where every value is known.
function linePath(xs, ys, px, py) {
  let path = "", pen = "M";
  xs.forEach((x, i) => {
    if (!known(ys[i]) || !known(x)) { pen = "M"; return; }
    path += `${pen}${px(x).toFixed(1)} ${py(ys[i]).toFixed(1)}`;
    pen = "L";
  });
  return path;
}
function bandPath(xs, low, high, px, py) {
  let path = "", run = [];
  const flush = () => {
    if (run.length > 1) path += `M${run.map((i) => `${px(xs[i]).toFixed(1)} ${py(high[i]).toFixed(1)}`).join("L")}L${
      run.reverse().map((i) => `${px(xs[i]).toFixed(1)} ${py(low[i]).toFixed(1)}`).join("L")}z`;
    run = [];
  };
  xs.forEach((_, i) => { if (known(low[i]) && known(high[i])) run.push(i); else flush(); });
  flush();
  return path;
}
