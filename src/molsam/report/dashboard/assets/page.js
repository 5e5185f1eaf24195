// Wires the page: filters, what is drawn when, news from the server.

const stale = new Set(),
  inView = new Set();
let now = { runs: [], groups: [] },
  shown = 100;

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const name = target.id.replace("chart-", "");
      if (isIntersecting) inView.add(name);
      else inView.delete(name);
      if (isIntersecting && stale.delete(name)) CHARTS[name].draw(now.groups);
    }
  },
  { rootMargin: "300px" },
);

function render() {
  if (!benchmark) {
    byId("facts").textContent = "No runs yet.";
    return;
  }
  now = visible();
  shownByGroup = new Map();
  for (const run of now.runs) (shownByGroup.get(run.group) || shownByGroup.set(run.group, []).get(run.group)).push(run);
  fillFilters();
  fillCurves(now.runs);
  drawLegend(now.groups);
  drawBoard(now.groups);
  drawLeads(now.groups);
  drawRuns(now.runs);
  drawBenchmarks();
  // Without a run that fits there is one line, and no heads of empty tables.
  for (const name of ["section-board", "section-runs", "section-leads", "legend"]) byId(name).classList.toggle("empty", !now.runs.length);
  drawCharts();
}

function drawCharts() {
  const missing = new Map();
  for (const [name, chart] of Object.entries(CHARTS)) {
    const there = now.runs.some(chart.has),
      card = byId(`card-${name}`);
    card.hidden = !there;
    if (!there) missing.set(chart.remedy, [...(missing.get(chart.remedy) || []), chart.name]);
    else if (inView.has(name)) chart.draw(now.groups);
    else stale.add(name);
  }
  const words = now.runs.length ? [...missing].map(([remedy, names]) => `${names.join(" and ")} (${remedy})`) : [];
  byId("missing").textContent = now.runs.length
    ? words.length
      ? `Not recorded here: ${words.join("; ")}.`
      : ""
    : "No run fits the filters.";
}

function fillFilters() {
  const total = (one) =>
    data.groups
      .filter((g) => data.benchmarks[g.benchmark] === one)
      .reduce((sum, g) => sum + Object.values(g.counts).reduce((a, b) => a + b, 0), 0);
  const order = data.benchmarks.slice().sort((a, b) => a.name.localeCompare(b.name));
  options(
    byId("benchmark"),
    order.map((one) => [one.key, `${one.name} · ${one.metric_name} (${plural(total(one), "run")})`]),
    benchmark.key,
  );
  const groups = groupsHere();
  for (const kind of ["model", "optimizer"]) {
    const names = [...new Set(groups.map((g) => g[kind]))].sort((a, b) => label(a).localeCompare(label(b)));
    options(byId(`filter-${kind}`), [["", `All ${kind}s`], ...names.map((name) => [name, label(name)])], chosen[kind]);
  }
  byId("facts").textContent = `${benchmark.facts}; ${plural(now.runs.length, "run")}, ${plural(now.groups.length, "group")}`;
  byId("made").textContent = `As of ${data.made.slice(0, 16).replace("T", " ")} UTC`;
}

function runColumns(digits) {
  return [
    {
      key: "group",
      title: "Run",
      left: true,
      head: true,
      value: (run) => groupName(groupOf(run)),
      show: (run) => element("button", { type: "button", class: "plain", onclick: () => openRun(run) }, groupName(groupOf(run))),
    },
    { key: "seed", title: "Seed", value: (run) => run.seed },
    { key: "fold", title: "Fold", value: (run) => run.fold },
    {
      key: "status",
      title: "Status",
      left: true,
      value: (run) => run.status,
      show: (run) =>
        element("span", { class: `tag ${run.status}` }, run.status === "complete" ? "done" : `${run.status}, epoch ${run.epochs}`),
    },
    { key: "test", title: "Test", value: (run) => run.test, show: (run) => number(run.test, digits) },
    { key: "valid", title: "Validation", value: (run) => run.valid, show: (run) => number(run.valid, digits) },
    { key: "seconds", title: "Time", value: (run) => run.seconds, show: (run) => duration(run.seconds) },
    {
      key: "finished",
      title: "Finished",
      value: (run) => run.finished,
      show: (run) => (run.finished ? run.finished.slice(0, 16).replace("T", " ") : "–"),
    },
    { key: "name", title: "Name", left: true, value: (run) => run.name },
    {
      key: "folder",
      title: "Folder",
      left: true,
      show: (run) => (run.folder ? element("a", { href: run.folder, "aria-label": `Folder of ${run.path}` }, "open") : "packed"),
    },
  ];
}

function drawRuns(runs) {
  const made = table({
    caption: "Runs",
    columns: runColumns(scoreDigits(now.groups) + 1),
    rows: runs,
    sort: sorting.runs,
    limit: shown,
    again: (key) => {
      drawRuns(runs);
      byId("runs").querySelector(`th [data-key="${key}"]`)?.focus();
    },
  });
  byId("runs").replaceChildren(made);
  byId("runs-note").textContent = `${Math.min(shown, runs.length)} of ${runs.length}`;
  byId("more").hidden = runs.length <= shown;
}

async function ask() {
  try {
    const answer = await fetch(`data.json?have=${encodeURIComponent(data.version || "")}`);
    if (answer.status === 200) {
      take(await answer.json());
      drawSweeps();
      render();
    }
    byId("made").classList.remove("lost");
  } catch {
    byId("made").classList.add("lost");
  }
  setTimeout(ask, 3000);
}

function theme(name) {
  if (name === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("molsam-theme", name);
  } catch {
    /* a page from disk may have no storage */
  }
}

function listenToPage() {
  byId("benchmark").addEventListener("change", (event) => {
    chooseBenchmark(event.target.value);
    shown = 100;
    render();
  });
  for (const kind of ["model", "optimizer"])
    byId(`filter-${kind}`).addEventListener("change", (event) => {
      chosen[kind] = event.target.value;
      if (!chosen.touched) bestEight();
      render();
    });
  for (const [id, name] of [
    ["curve", "curves"],
    ["spread", "curves"],
    ["against", "curves"],
    ["cost", "cost"],
    ["cosine", "cosines"],
    ["norm", "norms"],
  ])
    byId(id).addEventListener("change", () => CHARTS[name].draw(now.groups));
  byId("reference").addEventListener("change", (event) => {
    chosen.reference = event.target.value;
    drawLeads(now.groups);
  });
  byId("search").addEventListener("input", (event) => {
    chosen.search = event.target.value.trim();
    clearTimeout(listenToPage.timer);
    listenToPage.timer = setTimeout(render, 120);
  });
  byId("more").addEventListener("click", () => {
    shown += 400;
    drawRuns(now.runs);
  });
  byId("board-more").addEventListener("click", () => {
    wholeBoard = !wholeBoard;
    drawBoard(now.groups);
  });
  for (const button of document.querySelectorAll("[data-save]"))
    button.addEventListener("click", () => saveImage(byId(`chart-${button.dataset.save}`), button.dataset.save));
  byId("theme").addEventListener("change", (event) => theme(event.target.value));
  byId("run").addEventListener("click", (event) => {
    if (event.target === byId("run")) byId("run").close();
  });
  for (const name of Object.keys(CHARTS)) watcher.observe(byId(`chart-${name}`));
}

try {
  byId("theme").value = localStorage.getItem("molsam-theme") || "auto";
} catch {
  /* as above */
}
theme(byId("theme").value);
listenToPage();
take(data);
render();
drawSweeps();
document.documentElement.dataset.ready = "true";
if (document.documentElement.dataset.live === "true") ask();
