// Line charts with bands, and the plot of every single run.

// spec: {title, aria, height, x: {kind, domain, label, format}, y: {...}, lines: [{label, style, x, y, low, high, values, ends}], rules: [{x|y, label}]}
function lineChart(spec) {
  const holder = el("div");
  const figure = el("figure", {}, spec.title ? el("h3", { text: spec.title }) : null, holder);
  responsive(holder, (width) => holder.replaceChildren(drawLines(spec, width)));
  return figure;
}
function drawLines(spec, width) {
  const ticks = Math.max(3, Math.min(8, Math.floor(width / 75)));
  const x = { ...spec.x, scale: { ...scale(spec.x.kind, spec.x.domain, ticks), ...(spec.x.ticks ? { ticks: spec.x.ticks } : {}) } };
  const y = { ...spec.y, scale: scale(spec.y.kind, spec.y.domain, 5) };
  const { root, px, py, box } = chartFrame(width, spec.height || 250, x, y, spec.aria);
  for (const rule of spec.rules || []) drawRule(root, rule, px, py, box);
  for (const line of spec.lines) {
    if (line.low) root.append(svg("path", { d: bandPath(line.x, line.low, line.high, px, py), fill: line.style.colour, opacity: 0.16 }));
  }
  for (const line of spec.lines) {
    const path = linePath(line.x, line.y, px, py);
    root.append(svg("path", { d: path, fill: "none", stroke: line.style.colour, "stroke-width": 2, "stroke-dasharray": line.style.dash,
      "stroke-linejoin": "round", "stroke-linecap": "round" }));
    if (line.marks) drawMarks(root, line, px, py);
  }
  pointAt(root, spec, px, py);
  return root;
}
function drawRule(root, rule, px, py, box) {
  const level = rule.y !== undefined;
  const at = level ? py(rule.y) : px(rule.x);
  if (!(at > -1)) return;
  if (rule.low !== undefined && known(rule.low)) {
    root.append(svg("rect", { x: box.left, width: box.w, y: py(rule.high), height: Math.max(0, py(rule.low) - py(rule.high)), fill: "var(--base)", opacity: 0.08 }));
  }
  root.append(level ? svg("line", { class: "rule", x1: box.left, x2: box.left + box.w, y1: at, y2: at })
    : svg("line", { class: "rule", x1: at, x2: at, y1: box.top, y2: box.top + box.h }));
  if (!rule.label) return;
  const right = !level && at > box.left + 0.8 * box.w;
  root.append(level ? svg("text", { class: "halo", x: box.left + 4, y: at - 4, text: rule.label })
    : svg("text", { class: "halo", x: right ? at - 4 : at + 4, y: box.top + box.h - 6, "text-anchor": right ? "end" : "start", text: rule.label }));
}
function drawMarks(root, line, px, py) {
  line.x.forEach((v, i) => {
    for (const single of line.values ? line.values[i] : []) {
      if (known(single)) root.append(svg("circle", { cx: px(v), cy: py(single), r: 1.9, fill: line.style.colour, opacity: 0.4 }));
    }
    if (line.x.length < 2 && known(line.low?.[i])) root.append(svg("line", { x1: px(v), x2: px(v), y1: py(line.low[i]), y2: py(line.high[i]), stroke: line.style.colour, "stroke-width": 1.4 }));
    if (known(line.y[i])) root.append(svg("path", { d: shapePath(line.style.shape, px(v), py(line.y[i]), 3.9), fill: line.style.colour, stroke: "var(--bg)", "stroke-width": 1.2 }));
  });
}
function pointAt(root, spec, px, py) {
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const [mx, my] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, near = 30 * 30;
    for (const line of spec.lines) line.x.forEach((v, i) => {
      if (!known(line.y[i])) return;
      const d = (px(v) - mx) ** 2 + (py(line.y[i]) - my) ** 2;
      if (d < near) { near = d; best = { line, i }; }
    });
    if (!best) { hideTip(); return; }
    const { line, i } = best;
    const lines = [`${spec.x.name} ${spec.x.tell(line.x[i])}`, `${spec.y.name} ${spec.y.tell(line.y[i])}`];
    if (known(line.low?.[i])) lines.push(`${line.bandName || "95 % interval"} ${spec.y.tell(line.low[i])} to ${spec.y.tell(line.high[i])}`);
    if (line.count) lines.push(line.count);
    showTip(event, line.label, lines);
  });
  root.addEventListener("pointerleave", hideTip);
}

// --- every single run: one row a setting, one dot a seed, the mean and its interval -------------------------------
// rows: [{label, style, values, mean, low, high}]
function dotPlot({ rows, domain, label, format, rules, aria }) {
  const holder = el("div");
  responsive(holder, (width) => holder.replaceChildren(drawDots(width, rows, domain, label, format, rules, aria)));
  return el("figure", {}, holder);
}
function drawDots(width, rows, domain, label, format, rules, aria) {
  const narrow = width < 560, step = narrow ? 38 : 24, left = narrow ? 8 : Math.min(300, 14 + 6.4 * Math.max(...rows.map((r) => r.label.length)));
  const height = 26 + rows.length * step + 40, w = width - left - 16;
  const axis = scale("linear", domain, narrow ? 4 : 7);
  const px = (v) => left + axis.at(v) * w;
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": aria });
  for (const t of axis.ticks) {
    root.append(svg("line", { class: "grid", x1: px(t), x2: px(t), y1: 18, y2: height - 38 }),
      svg("text", { x: px(t), y: height - 22, "text-anchor": "middle", text: format(t) }));
  }
  for (const rule of rules) {
    root.append(svg("line", { class: "rule", x1: px(rule.x), x2: px(rule.x), y1: 16, y2: height - 38 }),
      svg("text", { x: px(rule.x), y: 11, "text-anchor": axis.at(rule.x) > 0.7 ? "end" : axis.at(rule.x) < 0.2 ? "start" : "middle", text: rule.label }));
  }
  rows.forEach((row, i) => {
    const y = 26 + i * step + (narrow ? 26 : 12);
    const name = row.label.length > 44 ? `${row.label.slice(0, 43)}…` : row.label;
    root.append(svg("text", { class: "ink", x: narrow ? left : left - 10, y: narrow ? y - 12 : y + 4, "text-anchor": narrow ? "start" : "end", text: name }));
    if (known(row.low)) root.append(svg("line", { x1: px(row.low), x2: px(row.high), y1: y, y2: y, stroke: row.style.colour, "stroke-width": 5, opacity: 0.3, "stroke-linecap": "round" }));
    for (const v of row.values) if (known(v)) root.append(svg("circle", { cx: px(v), cy: y, r: 3, fill: "none", stroke: row.style.colour, "stroke-width": 1.3 }));
    if (known(row.mean)) root.append(svg("line", { x1: px(row.mean), x2: px(row.mean), y1: y - 7, y2: y + 7, stroke: row.style.colour, "stroke-width": 2.6 }));
    const area = svg("rect", { x: 0, width, y: y - step / 2, height: step, fill: "transparent" });
    area.addEventListener("pointermove", (event) => showTip(event, row.label, row.tell));
    area.addEventListener("pointerleave", hideTip);
    root.append(area);
  });
  root.append(svg("text", { x: left + w / 2, y: height - 5, "text-anchor": "middle", text: label }));
  return root;
}
