// What the page holds, in order; parts without records are left out.

function unfinishedTable() {
  const heads = [GROUPS.length > 1 && { key: "group", label: "Group", text: true }, { key: "variant", label: "Variant", text: true, wide: true }, { key: "sparsity", label: "Sparsity", show: sparsityName },
    { key: "seed", label: "Seed" }, { key: "status", label: "Status", text: true }, { key: "reason", label: "Reason", text: true, wide: true }].filter(Boolean);
  return sortable(heads, DATA.unfinished, { label: "Trials without results" });
}
function collapsedTable() {
  const rows = DATA.collapsed.map((r) => ({ ...r, group: CELLS[r.cell].group, setting: CELLS[r.cell].label }));
  const heads = [GROUPS.length > 1 && { key: "group", label: "Group", text: true }, { key: "setting", label: "Setting", text: true, wide: true }, { key: "seed", label: "Seed" },
    { key: "accuracy", label: "Test accuracy", show: (v) => percent(v, 2) }, { key: "chance", label: "Chance", show: (v) => percent(v, 2) }, { key: "trial", label: "Trial", text: true }].filter(Boolean);
  return sortable(heads, rows, { label: "Trials that collapsed to chance" });
}
function citationSection() {
  const { papers, without, bibtex } = DATA.citation, text = el("pre", { text: bibtex, tabindex: 0, "aria-label": "BibTeX" });
  const select = () => { const range = document.createRange(); range.selectNodeContents(text); getSelection().removeAllRanges(); getSelection().addRange(range); };
  return [el("ul", { class: "papers" }, ...papers.map((p) => el("li", {}, el("span", { text: p.text }), el("small", { text: p.of })))),
    without.length ? el("p", { class: "note", text: `No paper is named for: ${without.join(", ")}.` }) : null,
    el("details", {}, el("summary", { text: "BibTeX of these and of prunescope" }), el("button", { type: "button", text: "Select all", onclick: select }), text)];
}
function paragraphs(texts) { return texts.map((text) => el("p", { text })); }
function how() {
  const A = DATA.about, versions = Object.entries(A.versions || {}).map(([name, version]) => `${name} ${version}`).join(" · ");
  const nodes = [el("p", { text: `Training time of all finished trials together: ${duration(DATA.seconds)}${A.machine ? ` (${A.machine})` : ""}.${A.created ? ` Made ${A.created}.` : ""}` })];
  if (A.command) nodes.push(el("p", { class: "lead", text: "This command reproduces it:" }), el("pre", { text: A.command, tabindex: 0 }));
  if (A.toml) nodes.push(el("details", {}, el("summary", { text: "The whole configuration" }), el("pre", { text: A.toml, tabindex: 0 })));
  if (versions) nodes.push(el("p", { class: "note", text: versions }));
  return nodes;
}
function boot() {
  document.body.append(tip);
  theme();
  head();
  section("summary", "Summary", CELLS.length < 2 ? null : DATA.about.baseline ? `Each row is compared with ${DATA.about.baseline} of the same seed. Square brackets: 95 % intervals over the seeds. Click a heading to sort.`
    : "Each row is compared with the same variant at sparsity 0. Square brackets: 95 % intervals over the seeds. Click a heading to sort.", () => [summaryTable(), alike()]);
  if (DATA.unfinished.length) section("failed", "Trials without results", null, () => [unfinishedTable()]);
  if (DATA.search) section("search", "What the search found", SEARCH_LEAD, searchSection, "Search");
  if (P) informationSections();
  if (DATA.convergence) section("convergence", "Does the estimate settle with more samples?", DATA.convergence.meaning, convergenceSection, "Samples");
  if (POINTS.some((p) => p.metric === "accuracy" && p.moment === "final")) section("runs", "Every run", "One ring a seed, a bar for the mean, a pale band for its 95 % interval.", runsSection);
  if (DATA.collapsed.length) section("collapsed", "Runs that collapsed to chance", "Test accuracy at most one standard deviation above that of always naming the most frequent class. Means include them.", () => [collapsedTable()], "Collapsed");
  if (unique(POINTS.filter((p) => !p.cell.baseline && p.moment === "final").map((p) => p.x)).length > 1) section("sparsity", "Against sparsity", null, sparsitySweepSection);
  if (DATA.pareto) section("pareto", unique(DATA.pareto.stage).length > 1 ? "Accuracy against size and speed" : "Accuracy against size", PARETO_LEAD, paretoSection, "Pareto front");
  if (DATA.backends) section("backends", "Latency by back-end", "Zeros in a sparse format and removed units against the dense network at its fastest: from which sparsity on does pruning pay?", backendSection, "Back-ends");
  if (DATA.epochs) section("training", "Training", null, epochSection);
  if (DATA.gradients) section("gradients", "Gradients", GRADIENT_LEAD, gradientSection);
  if (DATA.histograms) section("weights", "Weights", null, histogramSection);
  if (DATA.layers) section("layers", "Sparsity per layer", null, sparsitySection);
  if (DATA.masks) section("masks", "Masks", null, maskSection);
  section("caveats", P ? "What these estimates can and cannot say" : "What these numbers can and cannot say", null, () => paragraphs(DATA.caveats), "Caveats");
  const notes = [...(DATA.about.data_notes || []), ...(DATA.about.notes || [])];
  if (notes.length) section("notes", "Notes on data and settings", null, () => [el("ul", {}, ...notes.map((text) => el("li", { text })))], "Notes");
  section("cite", "What to cite", "The papers behind exactly what this run used, beside what each is cited for.", citationSection, "Cite");
  section("how", "How it was run", null, how, "How");
  requestAnimationFrame(() => { document.documentElement.dataset.ready = "first"; drawWaiting(); });
}
boot();
