// Filters, and what is drawn when.

const CHARTS = { "chart-tradeoff": drawTradeoff, "chart-curves": drawCurves, "chart-cosines": drawCosines, "chart-norms": drawNorms, "chart-rho": drawRho, "chart-cost": drawCost };
const stale = new Set();
const inView = new Set();
let current = [];

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target.id); else inView.delete(target.id);
    if (isIntersecting && stale.delete(target.id)) CHARTS[target.id](current);
  }
}, { rootMargin: "200px" });

function render() {
  const runs = visible(false);
  current = summarise(runs);
  document.getElementById("counts").textContent = `${runs.length} of ${data.runs.length} runs, ${current.length} groups`;
  document.getElementById("made").textContent = `as of ${data.made.replace("T", " ").replace("+00:00", " UTC")}`;
  fillCurves(runs);
  drawOverview();
  drawLeaderboard(current);
  drawRuns(runs);
  for (const id of Object.keys(CHARTS)) if (inView.has(id)) CHARTS[id](current); else stale.add(id);
}

function fillCurves(runs) {
  const select = document.getElementById("curve"), before = select.value;
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].sort((a, b) => /loss/.test(b) - /loss/.test(a) || a.localeCompare(b));
  if (keys.join() === [...select.options].map((o) => o.value).join()) return;
  select.replaceChildren(...keys.map((key) => element("option", { value: key }, curveName(key))));
  const metric = runs.length ? `valid/${runs[0].metric}` : "";
  select.value = keys.includes(before) ? before : keys.includes(metric) ? metric : keys[0] || "";
}

function chooseDataset(name) {
  chosen.dataset = name;
  fillFilters();
  render();
}

function fillFilters() {
  for (const kind of ["dataset", "model", "optimizer"]) {
    const counts = new Map();
    for (const run of data.runs) counts.set(group(run)[kind], (counts.get(group(run)[kind]) || 0) + 1);
    const names = [...counts.keys()].sort((a, b) => label(a).localeCompare(label(b)));
    document.getElementById(`filter-${kind}`).replaceChildren(...names.map((name) => filter(kind, name, counts.get(name))));
  }
}

function filter(kind, name, count) {
  const single = kind === "dataset";
  const input = element("input", { type: single ? "radio" : "checkbox", name: kind, value: name, onchange: () => {
    if (single) chosen.dataset = name; else if (input.checked) chosen[kind].add(name); else chosen[kind].delete(name);
    render();
  } });
  input.checked = single ? chosen.dataset === name : chosen[kind].has(name);
  const dot = kind === "optimizer" ? element("span", { class: "dot", style: { background: colour(name) } }) : null;
  const key = kind === "model" && new Set(data.groups.map((g) => g.model)).size > 1 ? modelKey(name) : null;
  return element("label", {}, input, dot, label(name), key, element("span", { class: "count" }, String(count)));
}

function chooseAll() {
  for (const kind of ["model", "optimizer"]) chosen[kind] = new Set(data.groups.map((g) => g[kind]));
  chosen.search = document.getElementById("search").value = "";
}

function fullest() {
  const counts = new Map();
  for (const run of data.runs) counts.set(group(run).dataset, (counts.get(group(run).dataset) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([name]) => name)[0] || null;
}

function take(news) {
  const before = new Set(data.groups.flatMap((g) => [`m${g.model}`, `o${g.optimizer}`]));
  data = news;
  for (const g of data.groups) {
    if (!before.has(`m${g.model}`)) chosen.model.add(g.model);
    if (!before.has(`o${g.optimizer}`)) chosen.optimizer.add(g.optimizer);
  }
  chosen.dataset = chosen.dataset || fullest();
  fillFilters();
  render();
}

async function ask() {
  try {
    const answer = await fetch(`data.json?have=${encodeURIComponent(data.version || "")}`);
    if (answer.status === 200) take(await answer.json());
    document.getElementById("made").style.opacity = "";
  } catch (error) {
    document.getElementById("made").style.opacity = ".4";
  }
  setTimeout(ask, 3000);
}

for (const [id, chart] of [["curve", drawCurves], ["spread", drawCurves], ["cosine", drawCosines], ["norm", drawNorms]]) {
  document.getElementById(id).addEventListener("change", () => chart(current));
}
document.getElementById("search").addEventListener("input", (event) => { chosen.search = event.target.value.trim().toLowerCase(); render(); });
document.getElementById("reset").addEventListener("click", () => { chooseAll(); fillFilters(); render(); });
document.getElementById("more").addEventListener("click", () => { shown += 200; drawRuns(visible(false)); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeRun(); });
for (const id of Object.keys(CHARTS)) watcher.observe(document.getElementById(id));
chooseAll();
chosen.dataset = fullest();
fillFilters();
render();
document.documentElement.dataset.ready = "true";
if (document.documentElement.dataset.live === "true") ask();
