// What pruning left of each layer: histograms of the weights, sparsity bars, pictures of the masks.

const MOMENT_NAMES = { initial: "at initialisation", train: "after training", pruned: "after pruning", finetune: "after fine-tuning", final: "at the end" };

// A choice of one cell by group, variant and sparsity; `cells` are those that have something to show.
function cellPicker(cells, change) {
  const holder = el("span", { class: "controls" });
  const start = cells.find((i) => CELLS[i].sparsity > 0) ?? cells.find((i) => !CELLS[i].baseline) ?? cells[0];
  let now = CELLS[start];
  const pick = (wanted) => {
    const among = cells.map((i) => CELLS[i]);
    const near = (c) => (c.group === wanted.group ? 4 : 0) + (c.variant === wanted.variant ? 2 : 0) + (c.sparsity === wanted.sparsity ? 1 : 0);
    now = among.reduce((best, c) => (near(c) > near(best) ? c : best));
    render();
    change(now);
  };
  const render = () => {
    const among = cells.map((i) => CELLS[i]);
    const groups = unique(among.map((c) => c.group));
    const variants = unique(among.filter((c) => c.group === now.group).map((c) => c.variant));
    const levels = among.filter((c) => c.group === now.group && c.variant === now.variant).map((c) => c.sparsity);
    holder.replaceChildren(...[
      picker("Group", options(groups), now.group, (group) => pick({ ...now, group })),
      variants.length > 1 ? choice("Variant", options(variants), now.variant, (variant) => pick({ ...now, variant })) : null,
      levels.length > 1 ? choice("Sparsity", options(levels, sparsityName), now.sparsity, (sparsity) => pick({ ...now, sparsity })) : null,
    ].filter(Boolean));
  };
  render();
  return { node: holder, now: () => now };
}

// --- histograms ------------------------------------------------------------------------------------------------
function histogramSection() {
  const all = DATA.histograms, panels = el("div", { class: "panels" }), zero = el("div"), hidden = new Set(), keys = el("div");
  let moment = "all";
  const phases = el("span");
  const draw = () => {
    const cell = chooser.now(), mine = all.filter((h) => h.cell === cell.index), layers = unique(mine.map((h) => h.layer));
    const moments = Object.keys(MOMENT_NAMES).filter((m) => mine.some((h) => h.moment === m));
    if (moment !== "all" && !moments.includes(moment)) moment = "all";
    phases.replaceChildren(switcher("Phase", [{ value: "all", label: "side by side" }, ...moments.map((m) => ({ value: m, label: MOMENT_NAMES[m] }))], moment, (m) => { moment = m; panelsOf(); }));
    keys.replaceChildren(legend(layers.map((layer, i) => ({ key: layer, label: layer, style: { colour: colour(i), dash: dash(i) } })), hidden, () => panelsOf()));
    const panelsOf = () => {
      const shown = mine.filter((h) => !hidden.has(h.layer));
      const spec = histogramAxes(shown.length ? shown : mine);
      const now = moment === "all" ? moments : [moment];
      panels.className = now.length === 1 ? "panels few" : "panels";
      panels.replaceChildren(...now.map((m) => histogramPanel(MOMENT_NAMES[m], shown.filter((h) => h.moment === m), layers, spec)));
    };
    panelsOf();
    const heads = [{ key: "layer", label: "Layer", text: true }, ...moments.map((m) => ({ key: m, label: MOMENT_NAMES[m], show: (v) => percent(v) }))];
    const rows = layers.map((layer) => ({ layer, ...Object.fromEntries(moments.map((m) => [m, mine.find((h) => h.layer === layer && h.moment === m)?.zero])) }));
    zero.replaceChildren(el("h3", { text: "Weights that are exactly zero" }), sortable(heads, rows, { label: "Share of weights that are exactly zero" }));
  };
  const chooser = cellPicker(unique(all.map((h) => h.cell)), draw);
  draw();
  return [el("p", { class: "lead", text: `Weights that are not zero, layer by layer (seed ${unique(all.map((h) => h.seed)).join(", ")}). Exact zeros would tower over everything, so they stand in the table. Small layers are drawn in fewer bins.` }),
    el("div", { class: "controls" }, chooser.node, phases), keys, panels, zero];
}
function density(h) { // share of the layer's weights per unit of weight, so that layers of any size and bins of any width compare
  return h.counts.map((c, i) => c / (h.n || 1) / (h.edges[i + 1] - h.edges[i] || 1));
}
function histogramAxes(shown) {
  const used = shown.flatMap((h) => h.counts.flatMap((c, i) => (c > 0 ? [h.edges[i], h.edges[i + 1]] : [])));
  return { x: extent(used), y: [0, 1.05 * extent([0, ...shown.flatMap(density)])[1]] };
}
function histogramPanel(title, shown, layers, domain) {
  const lines = shown.map((h) => {
    const heights = density(h), style = { colour: colour(layers.indexOf(h.layer)), dash: dash(layers.indexOf(h.layer)) };
    const x = h.edges.flatMap((e) => [e, e]), y = [0, ...heights.flatMap((v) => [v, v]), 0];
    return { label: h.layer, style, x, y, low: y.map(() => 0), high: y, bandName: "column" };
  });
  return lineChart({
    title, height: 230, lines, aria: `Histogram of the non-zero weights ${title}: ${shown.map((h) => `${h.layer}, ${percent(h.zero)} exactly zero`).join("; ")}`,
    x: { kind: "linear", domain: domain.x, label: "weight", name: "weight", format: short, tell: short },
    y: { kind: "linear", domain: domain.y, name: "density", format: short, tell: short },
  });
}

// --- sparsity per layer ----------------------------------------------------------------------------------------
function sparsitySection() {
  const S = DATA.layers, holder = el("div"), phases = ["pruned", "finetune", "final"];
  const draw = () => {
    const cell = chooser.now();
    const rows = S.cell.map((c, i) => ({ cell: c, phase: S.phase[i], layer: S.layer[i], value: S.value[i], n: S.n[i] })).filter((r) => r.cell === cell.index);
    const found = phases.filter((p) => rows.some((r) => r.phase === p));
    const shown = found.filter((p, i) => p === "final" || !found.slice(i + 1).some((q) => sameBars(rows, p, q)));
    holder.replaceChildren(...sparsityBars(cell, rows, shown));
  };
  const chooser = cellPicker(unique(S.cell), draw);
  draw();
  return [el("div", { class: "controls" }, chooser.node), holder];
}
const sameBars = (rows, p, q) => rows.filter((r) => r.phase === p).every((r) => Math.abs(r.value - (rows.find((o) => o.phase === q && o.layer === r.layer)?.value ?? -1)) < 1e-4);
function sparsityBars(cell, rows, shown) {
  const layers = unique(rows.map((r) => r.layer));
  const styles = shown.map((p, i) => ({ phase: p, opacity: shown.length > 1 && i < shown.length - 1 ? 0.45 : 1 }));
  const full = (r) => `${percent(r.value)}${known(r.n) ? ` = ${grouped(r.value * r.n)} of ${grouped(r.n)}` : ""}`;
  const aria = `Sparsity per layer of ${cell.name}: ${rows.filter((r) => r.phase === shown.at(-1)).map((r) => `${r.layer} ${percent(r.value)}`).join(", ")}`;
  const figure = el("figure");
  responsive(figure, (width) => {
    const step = 18 + 15 * styles.length + 8, height = layers.length * step + 26, told = width > 500 ? full : (r) => percent(r.value), w = width - 14 - 6.7 * Math.max(...rows.map((r) => told(r).length));
    const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": aria });
    layers.forEach((layer, i) => {
      const top = i * step;
      root.append(svg("text", { class: "ink", x: 0, y: top + 13, text: layer.length > 48 ? `${layer.slice(0, 47)}…` : layer }));
      styles.forEach((style, k) => {
        const row = rows.find((r) => r.layer === layer && r.phase === style.phase), y = top + 19 + 15 * k;
        if (!row) return;
        root.append(svg("rect", { x: 0, y, width: w, height: 11, fill: "var(--grid)", rx: 2 }),
          svg("rect", { x: 0, y, width: Math.max(0, Math.min(1, row.value)) * w, height: 11, fill: "var(--c0)", opacity: style.opacity, rx: 2 }),
          svg("text", { x: w + 8, y: y + 10, text: told(row) }));
      });
    });
    if (known(cell.sparsity)) {
      const x = cell.sparsity * w;
      root.append(svg("line", { class: "rule", x1: x, x2: x, y1: 16, y2: height - 18 }), svg("text", { x, y: height - 5, "text-anchor": x > w / 2 ? "end" : "start", text: `asked for ${sparsityName(cell.sparsity)}` }));
    }
    figure.replaceChildren(root);
  });
  const key = styles.length > 1 ? `Pale: ${styles.slice(0, -1).map((s) => MOMENT_NAMES[s.phase]).join(", ")}; full: ${MOMENT_NAMES[styles.at(-1).phase]}. Where the two differ, pruned weights came back.` : `Share of each tensor that is exactly zero ${MOMENT_NAMES[shown[0]]}, mean over the seeds.`;
  return [el("p", { class: "note", text: key }), figure, layerTable(cell, rows, layers, shown)];
}
function layerTable(cell, rows, layers, shown) {
  const at = (layer, phase) => rows.find((r) => r.layer === layer && r.phase === phase);
  const last = shown.at(-1), heads = [{ key: "layer", label: "Layer", text: true, wide: true }, { key: "n", label: "Weights", show: grouped },
    ...shown.map((p) => ({ key: p, label: `Zero ${MOMENT_NAMES[p]}`, show: (v) => percent(v, 2) })), { key: "kept", label: "Kept", show: grouped }];
  const told = layers.map((layer) => ({ layer, n: at(layer, last)?.n, kept: known(at(layer, last)?.n) ? (1 - at(layer, last).value) * at(layer, last).n : null,
    ...Object.fromEntries(shown.map((p) => [p, at(layer, p)?.value])) }));
  return el("details", {}, el("summary", { text: "The layers as a table" }), sortable(heads, told, { label: `Layers of ${cell.name}` }));
}

// --- masks -----------------------------------------------------------------------------------------------------
function maskSection() {
  const holder = el("div", { class: "panels masks" }), coarse = DATA.masks.some((m) => m.grid);
  const paint = () => holder.replaceChildren(...DATA.masks.filter((m) => m.cell === chooser.now().index).map(maskPicture));
  const chooser = cellPicker(unique(DATA.masks.map((m) => m.cell)), paint);
  redraws.push(paint);
  paint();
  const lead = `What is kept is drawn in ink, what is removed is blank; a row is a unit's incoming weights (seed ${unique(DATA.masks.map((m) => m.seed)).join(", ")}).`;
  return [el("p", { class: "lead", text: lead + (coarse ? " Large layers are thinned: a pixel is a block of weights, its shade the share kept; blank means none of the block, full ink all of it." : "") }),
    el("div", { class: "controls" }, chooser.node), holder];
}
function maskPicture(mask) {
  const [rows, columns] = mask.grid || mask.shape, bits = atob(mask.grid ? mask.shades : mask.kept), zoom = Math.max(1, Math.min(8, Math.floor(340 / columns), Math.floor(240 / rows)));
  const canvas = el("canvas", { width: columns * zoom, height: rows * zoom, role: "img" });
  const g = canvas.getContext("2d");
  let kept = mask.count ?? 0;
  g.fillStyle = PAINT.ink;
  for (let i = 0; i < rows * columns; i++) {
    const share = mask.grid ? ((bits.charCodeAt(i >> 1) >> (i & 1 ? 0 : 4)) & 15) / 15 : (bits.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1;
    if (!share) continue;
    if (!mask.grid) kept++;
    g.globalAlpha = share;
    g.fillRect((i % columns) * zoom, Math.floor(i / columns) * zoom, zoom, zoom);
  }
  const [high, wide] = mask.shape, told = `${grouped(kept)} of ${grouped(high * wide)} kept`, block = Math.round(high / rows * wide / columns);
  canvas.setAttribute("aria-label", `Mask of ${mask.layer}, ${high} by ${wide}: ${told}`);
  return el("figure", {}, el("h3", { text: mask.layer }), canvas,
    el("p", { class: "note", text: `${high} × ${wide}, ${told}${mask.grid && block > 1 ? `; about ${block} weights a pixel` : ""}` }));
}
