// The information plane: one canvas a panel, shared axes, colour = moment of training, slider and play button.

const P = DATA.plane;
const MOMENTS = P ? P.epoch.map((epoch, i) => ({ phase: P.phase[i], epoch })) : [];
const momentName = (m) => (m.phase === "finetune" ? `fine-tuning epoch ${m.epoch}` : `epoch ${m.epoch}`);

// What one panel shows: [layer][moment] of x and y, medians over seeds or one seed; spread of the seeds for the tooltip.
function gather(estimate, cell, seed) {
  const found = P.series.filter((s) => s.estimate === estimate && P.trials.cell[s.trial] === cell && (seed === null || P.trials.seed[s.trial] === seed));
  if (!found.length) return null;
  const over = (key, pick) => P.layers.map((_, l) => MOMENTS.map((_, m) => pick(found.map((s) => s[key]?.[l]?.[m]))));
  const hollow = P.layers.map((_, l) => MOMENTS.map((_, m) => 2 * found.filter((s) => marked(s.saturated[l], m)).length >= found.length));
  const above = P.layers.map((_, l) => MOMENTS.map((_, m) => ["x", "y"].filter((_, k) => 2 * found.filter((s) => s.exceeds && marked(s.exceeds[k][l], m)).length >= found.length)));
  const layers = P.layers.map((name, l) => ({ name, l })).filter(({ l }) => found.some((s) => s.x[l].length));
  return {
    count: found.length, layers, hollow, above, x: over("x", median), y: over("y", median), h: found[0].h ? over("h", median) : null,
    spread: (l, m) => [extent(found.map((s) => s.x[l]?.[m])), extent(found.map((s) => s.y[l]?.[m]))],
    range: (key, l) => [0, 1].map((end) => MOMENTS.map((_, m) => {
      const values = found.map((s) => s[key][l]?.[m]).filter(known);
      return values.length ? (end ? Math.max : Math.min)(...values) : null;
    })),
  };
}
const aboveText = (keys) => (keys.length ? `${keys.map((key) => `I(${key === "x" ? "X;T" : "T;Y"})`).join(" and ")} above an earlier layer's` : "");
const marked = (mark, m) => mark === 1 || (Array.isArray(mark) && mark.includes(m));

// Axes that all panels share, save those of panels whose values leave every ceiling far behind: these would squeeze the others into a corner.
const BEYOND = 1.25;
function alone(panel, key) {
  const C = panel.about.ceilings, top = key === "x" ? Math.max(C["H(X)"] ?? 0, C["log2 N"] ?? 0) : C["H(Y)"] ?? 0;
  return top > 0 && extent(panel.data[key].flat())[1] > BEYOND * top;
}
function axisDomain(key, panels) {
  const tops = panels.flatMap(({ about: { ceilings: C } }) => (key === "x" ? [C["H(X)"], C["log2 N"]] : [C["H(Y)"]]));
  const [low, high] = extent([0, ...tops, ...panels.flatMap((p) => p.data[key].flat())]), span = high - low;
  return key === "x" ? [low - 0.02 * span, high + 0.06 * span] : [low - 0.03 * span, high + 0.1 * span];
}
function planeDomains(panels) { // one {x, y, own} a panel
  const several = unique(panels.map((p) => p.about)).length > 1;
  const own = panels.map((p) => (several ? ["x", "y"].filter((key) => alone(p, key)) : []));
  const shared = Object.fromEntries(["x", "y"].map((key) => [key, axisDomain(key, panels.filter((_, i) => !own[i].includes(key)))]));
  return panels.map((p, i) => ({ ...shared, ...Object.fromEntries(own[i].map((key) => [key, axisDomain(key, [p])])), own: own[i] }));
}

const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) { target.panel.visible = isIntersecting; if (isIntersecting) target.panel.draw(); }
}, { rootMargin: "200px" });
// Panels out of sight are drawn when they are scrolled to, when nothing has moved for a while, and before printing.
const stale = () => [...document.querySelectorAll("figure.plane canvas")].map((c) => c.panel).filter((p) => p.stale);
let resting = 0;
function drawLater() {
  clearTimeout(resting);
  const next = () => { const [panel] = stale(); if (panel) { panel.draw(true); resting = setTimeout(next, 0); } };
  resting = setTimeout(next, 120);
}
addEventListener("beforeprint", () => stale().forEach((p) => p.draw(true)));

class PlanePanel {
  constructor({ title, data, about, marks }, domain, described) {
    Object.assign(this, { title, data, domain, ceilings: about.ceilings, now: MOMENTS.length - 1 });
    this.canvas = el("canvas", { role: "img", "aria-label": `Information plane of ${title}. ${described}` });
    this.node = el("figure", { class: "plane" }, el("h3", { text: title }), ...(marks || []), this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", hideTip);
    this.canvas.panel = this;
    this.visible = false;
    responsive(this.node, (width) => { this.width = width; this.repaint(); });
    inView.observe(this.canvas);
  }
  repaint() { this.trail = null; this.draw(); } // size or colours changed: what was drawn before is of no use
  measure() {
    const height = Math.round(Math.max(230, Math.min(430, this.width * 0.78)));
    const sharp = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(this.width * sharp) || this.canvas.height !== Math.round(height * sharp)) {
      Object.assign(this.canvas, { width: Math.round(this.width * sharp), height: Math.round(height * sharp) });
      this.trail = null;
      this.canvas.style.height = `${height}px`;
    }
    const box = { left: 40, top: 14, w: this.width - 52, h: height - 54 };
    const sx = scale("linear", this.domain.x, Math.max(3, Math.min(7, Math.floor(this.width / 60)))), sy = scale("linear", this.domain.y, 5);
    Object.assign(this, { height, sharp, box, sx, sy, px: (v) => box.left + sx.at(v) * box.w, py: (v) => box.top + (1 - sy.at(v)) * box.h });
  }
  draw(unseen = false) {
    if (!this.width) return;
    this.measure();
    this.stale = !this.visible && !unseen;
    if (this.stale) { drawLater(); return; }
    const g = this.canvas.getContext("2d");
    g.setTransform(this.sharp, 0, 0, this.sharp, 0, 0);
    g.clearRect(0, 0, this.width, this.height);
    this.axes(g);
    this.shown = this.lastKnown();
    this.drawTrail(g);
    this.moment(g, this.shown, true);
  }
  drawTrail(g) { // the moments before the current one, on a canvas of their own: a step forward adds to it, a step back starts it anew
    if (!this.trail || this.trail.upto >= this.shown) {
      const canvas = el("canvas", { width: this.canvas.width, height: this.canvas.height });
      this.trail = { canvas, upto: -1, g: canvas.getContext("2d") };
      this.trail.g.setTransform(this.sharp, 0, 0, this.sharp, 0, 0);
    }
    while (this.trail.upto < this.shown - 1) this.moment(this.trail.g, ++this.trail.upto, false);
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.drawImage(this.trail.canvas, 0, 0);
    g.setTransform(this.sharp, 0, 0, this.sharp, 0, 0);
  }
  lastKnown() { // a panel that was not fine-tuned stays at the end of its training
    let m = this.now;
    while (m > 0 && !this.data.layers.some(({ l }) => known(this.data.x[l][m]))) m--;
    return m;
  }
  axes(g) {
    const { box, px, py } = this, ink = PAINT.soft, grid = PAINT.grid;
    g.font = `11.5px ${PAINT.font}`;
    g.lineWidth = 1;
    g.fillStyle = ink;
    const stroke = (style, dashes, ...points) => {
      g.strokeStyle = style; g.setLineDash(dashes); g.beginPath(); g.moveTo(points[0], points[1]); g.lineTo(points[2], points[3]); g.stroke(); g.setLineDash([]);
    };
    g.textAlign = "right";
    for (const t of this.sy.ticks) { stroke(grid, [], box.left, py(t), box.left + box.w, py(t)); g.fillText(short(t), box.left - 6, py(t) + 4); }
    g.textAlign = "center";
    for (const t of this.sx.ticks) { stroke(grid, [], px(t), box.top, px(t), box.top + box.h); g.fillText(short(t), px(t), box.top + box.h + 16); }
    g.fillText(`I(X;T) [${P.unit}]`, box.left + box.w / 2, this.height - 6);
    g.textAlign = "left";
    g.fillText(`I(T;Y) [${P.unit}]`, 4, 10);
    const { "H(X)": hx, "H(Y)": hy, "log2 N": n } = this.ceilings;
    if (known(hy)) { stroke(ink, [3, 4], box.left, py(hy), box.left + box.w, py(hy)); g.fillText("H(Y)", box.left + 4, py(hy) - 4); }
    const same = known(hx) && known(n) && px(n) - px(hx) < 40;
    g.textAlign = "right";
    for (const [value, name] of [[hx, same ? (n - hx < 0.005 ? "H(X) = log₂N" : "H(X), log₂N") : "H(X)"], [n, same ? "" : "log₂N"]]) {
      if (!known(value)) continue;
      stroke(ink, [3, 4], px(value), box.top, px(value), box.top + box.h);
      g.fillText(name, px(value) - 4, box.top + box.h - 6);
    }
  }
  moment(g, m, current) {
    const { data, px, py } = this;
    const points = data.layers.filter(({ l }) => known(data.x[l][m]) && known(data.y[l][m])).map(({ name, l }, i) => ({ name, l, i, x: px(data.x[l][m]), y: py(data.y[l][m]) }));
    const tint = ramp(MOMENTS.length > 1 ? m / (MOMENTS.length - 1) : 0.5);
    g.strokeStyle = current ? PAINT.ink : tint;
    g.globalAlpha = current ? 0.9 : dark() ? 0.45 : 0.3;
    g.lineWidth = current ? 1.6 : 1;
    g.beginPath();
    points.forEach((p, i) => (i ? g.lineTo(p.x, p.y) : g.moveTo(p.x, p.y)));
    g.stroke();
    g.globalAlpha = 1;
    for (const hollow of [false, true]) this.dots(g, points.filter((p) => Boolean(data.hollow[p.l][m]) === hollow), m, tint, hollow, current);
    if (current) this.names(g, points);
  }
  dots(g, points, m, tint, hollow, current) { // one path for all of a kind; a triangle points up where the value lies above that of an earlier layer
    if (!points.length) return;
    const r = current ? 6 : 3;
    g.beginPath();
    for (const p of points) {
      if (this.data.above[p.l][m].length) { g.moveTo(p.x, p.y - 1.35 * r); g.lineTo(p.x + 1.25 * r, p.y + 0.9 * r); g.lineTo(p.x - 1.25 * r, p.y + 0.9 * r); g.closePath(); }
      else { g.moveTo(p.x + r, p.y); g.arc(p.x, p.y, r, 0, 2 * Math.PI); }
    }
    g.fillStyle = hollow ? PAINT.bg : tint;
    g.strokeStyle = hollow ? tint : current ? PAINT.ink : PAINT.bg;
    g.lineWidth = hollow ? 1.8 : current ? 1.6 : 0.7;
    g.fill();
    g.stroke();
  }
  names(g, points) { // beside the points of the current moment, pushed apart where they would lie on each other
    g.font = `600 11px ${PAINT.font}`;
    g.lineJoin = "round";
    const taken = points.map((p) => [p.x - 7, p.y - 7, p.x + 7, p.y + 7]);
    for (const p of points) {
      const text = p.name.length > 16 ? `${p.name.slice(0, 15)}…` : p.name, w = g.measureText(text).width;
      const spots = [[-w / 2, -11], [-w / 2, 20], [10, 4], [-w - 10, 4], [9, -10], [9, 18], [-w - 9, -10], [-w - 9, 18], [-w / 2, -25], [-w / 2, 33]];
      const fits = ([dx, dy]) => {
        const box = [p.x + dx - 2, p.y + dy - 10, p.x + dx + w + 2, p.y + dy + 3];
        const inside = box[0] > 2 && box[2] < this.width - 2 && box[1] > 0 && box[3] < this.height - 36;
        return inside && taken.every((t) => box[2] < t[0] || box[0] > t[2] || box[3] < t[1] || box[1] > t[3]);
      };
      const spot = spots.find(fits);
      if (!spot) continue;
      taken.push([p.x + spot[0] - 2, p.y + spot[1] - 10, p.x + spot[0] + w + 2, p.y + spot[1] + 3]);
      g.lineWidth = 3.5; g.strokeStyle = PAINT.bg; g.fillStyle = PAINT.ink; g.textAlign = "left";
      g.strokeText(text, p.x + spot[0], p.y + spot[1]);
      g.fillText(text, p.x + spot[0], p.y + spot[1]);
    }
  }
  point(event) {
    const box = this.canvas.getBoundingClientRect(), [mx, my] = [event.clientX - box.left, event.clientY - box.top];
    let best = null, near = 18 * 18;
    for (const { name, l } of this.data.layers) for (let m = 0; m <= this.shown; m++) {
      const [x, y] = [this.data.x[l][m], this.data.y[l][m]];
      if (!known(x) || !known(y)) continue;
      const d = (this.px(x) - mx) ** 2 + (this.py(y) - my) ** 2 - (m === this.shown ? 20 : 0);
      if (d < near) { near = d; best = { name, l, m, x, y }; }
    }
    if (!best) { hideTip(); return; }
    const [[xa, xb], [ya, yb]] = this.data.spread(best.l, best.m), several = this.data.count > 1;
    const range = (a, b) => (several ? ` (seeds ${fixed(a)} to ${fixed(b)})` : "");
    showTip(event, `${best.name} · ${momentName(MOMENTS[best.m])}`, [
      `I(X;T) ${fixed(best.x, 3)} ${P.unit}${range(xa, xb)}`, `I(T;Y) ${fixed(best.y, 3)} ${P.unit}${range(ya, yb)}`,
      several ? `median of ${this.data.count} seeds` : "", this.data.hollow[best.l][best.m] ? "saturated: within 0.1 bit of the ceiling" : "",
      aboveText(this.data.above[best.l][best.m]),
    ].filter(Boolean));
  }
}

// The slider is the colour bar.
function timeline(change) {
  const last = MOMENTS.length - 1;
  const name = el("strong", { id: "moment" });
  const range = el("input", { type: "range", id: "epoch", min: 0, max: last, step: 1, value: last, "aria-label": "Moment of training" });
  const paint = () => range.style.setProperty("--ramp", `linear-gradient(90deg, ${Array.from({ length: 12 }, (_, i) => ramp(i / 11)).join(",")})`);
  const set = (m) => {
    range.value = m;
    name.textContent = momentName(MOMENTS[m]);
    range.setAttribute("aria-valuetext", name.textContent);
    change(m);
  };
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶ Play"; };
  const play = el("button", { type: "button", id: "play", text: "▶ Play", onclick: () => {
    if (timer) { stop(); return; }
    let m = Number(range.value) >= last ? 0 : Number(range.value);
    play.textContent = "❚❚ Pause";
    set(m);
    timer = setInterval(() => { if (m >= last) stop(); else set(++m); }, Math.max(45, 6000 / MOMENTS.length));
  } });
  range.addEventListener("input", () => { if (timer) stop(); set(Number(range.value)); });
  redraws.push(paint);
  paint();
  const ends = [0, last].map((i) => el("span", { text: momentName(MOMENTS[i]) }));
  const node = el("div", { class: "time" }, play, range, el("div", { class: "now" }, ends[0], name, ends[1]));
  return { node, set, value: () => Number(range.value) };
}
