// Tables and the panel of one run. Text reaches the page as text only, never as markup.

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(node.style, value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function table(columns, rows, options) {
  const o = options || {};
  const sorted = o.sort && o.sort.key ? rows.slice().sort((a, b) => {
    const [x, y] = [a, b].map((row) => columns.find((c) => c.key === o.sort.key).value(row));
    const missing = (x === null) - (y === null);
    return missing || o.sort.sign * (x < y ? -1 : x > y ? 1 : 0);
  }) : rows;
  const heads = columns.map((c) => element("th", {
    class: c.left ? "left" : null, "data-key": o.sort ? c.key : null,
    "aria-sort": o.sort && o.sort.key === c.key ? (o.sort.sign > 0 ? "ascending" : "descending") : null,
    onclick: () => { if (o.sort) { o.sort.sign = o.sort.key === c.key ? -o.sort.sign : 1; o.sort.key = c.key; o.again(); } },
  }, c.title));
  const body = sorted.map((row) => element("tr", o.row ? o.row(row) : {}, ...columns.map((c) => element("td", { class: c.left ? "left" : null }, c.show ? c.show(row) : String(c.value(row) ?? "–")))));
  return element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body));
}

const sorting = { leaderboard: { key: null, sign: 1 }, runs: { key: null, sign: 1 } };
let shown = 100;

function named(g, shade) {
  return element("span", {}, element("span", { class: "dot", style: { background: shade || colour(g.optimizer), marginRight: ".45rem" } }), `${label(g.model)} · ${label(g.optimizer)} `, element("span", { class: "variant" }, g.variant));
}

function drawLeaderboard(rows) {
  const metric = rows.length ? label(rows[0].metric) : "", up = rows.length && rows[0].direction === "max";
  const look = looks(rows), most = Math.max(...rows.map((row) => row.speed.mean || 0), 1);
  const columns = [
    { key: "place", title: "#", value: (row) => rows.indexOf(row) + 1 },
    { key: "name", title: "group", left: true, value: (row) => groupName(row.g), show: (row) => named(row.g, look.get(row.id).color) },
    { key: "test", title: `test ${metric}`, value: (row) => row.test.mean, show: (row) => spread(row.test) },
    { key: "n", title: "n", value: (row) => row.test.n, show: (row) => element("span", {}, String(row.test.n), row.running ? element("span", { class: "tag", style: { marginLeft: ".4rem" } }, `${row.running} running`) : null) },
    { key: "paper", title: "paper", value: (row) => row.g.paper, show: (row) => number(row.g.paper) },
    { key: "difference", title: "difference", value: (row) => (row.g.paper === null || row.test.mean === null ? null : row.test.mean - row.g.paper), show: (row) => difference(row, up) },
    { key: "valid", title: `valid ${metric}`, value: (row) => row.valid.mean, show: (row) => spread(row.valid) },
    { key: "speed", title: "graphs/s", value: (row) => row.speed.mean, show: (row) => element("span", {}, spread(row.speed, 0), element("span", { class: "bar", style: { width: `${50 * (row.speed.mean || 0) / most}px`, background: look.get(row.id).color } })) },
    { key: "passes", title: "passes a step", value: (row) => row.passes.mean, show: (row) => number(row.passes.mean) },
  ];
  const place = document.getElementById("leaderboard");
  place.replaceChildren(table(columns, rows, { sort: sorting.leaderboard, again: () => drawLeaderboard(rows), row: (row) => ({ class: row === rows[0] ? "best" : null }) }));
  document.getElementById("leaderboard-note").textContent = rows.length ? `${label(rows[0].g.dataset)}: ${rows.length} groups, ${up ? "higher" : "lower"} is better; mean ± std over seeds and folds${rows.length > MOST_GROUPS ? `; the charts show the first ${MOST_GROUPS}` : ""}` : "no run fits the filters";
}

function difference(row, up) {
  if (row.g.paper === null || row.test.mean === null) return "–";
  const value = row.test.mean - row.g.paper;
  return element("span", { class: (up ? value >= 0 : value <= 0) ? "good" : "bad" }, (value > 0 ? "+" : "") + number(value));
}

function drawOverview() {
  const rows = summarise(visible(true)), datasets = [...new Set(data.groups.map((g) => g.dataset))].sort();
  document.getElementById("card-overview").hidden = datasets.length < 2;
  if (datasets.length < 2) return;
  const best = new Map(), cells = new Map();
  for (const row of rows) {
    const key = `${row.g.model}/${row.g.optimizer}`;
    if (!cells.has(key)) cells.set(key, { g: row.g, own: new Map() });
    const own = cells.get(key).own, rival = own.get(row.g.dataset);
    if (!rival || better(row, rival, "valid")) own.set(row.g.dataset, row);
  }
  for (const { own } of cells.values()) for (const [name, row] of own) if (!best.has(name) || better(row, best.get(name), "test")) best.set(name, row);
  const columns = [{ title: "model · optimizer", left: true, show: (cell) => named({ ...cell.g, variant: "" }) }, ...datasets.map((name) => ({ title: label(name), show: (cell) => overviewCell(cell.own.get(name), best.get(name)) }))];
  const made = table(columns, [...cells.values()].sort((a, b) => groupName(a.g).localeCompare(groupName(b.g))));
  made.querySelectorAll("thead th").forEach((head, i) => {
    if (!i) return;
    head.style.cursor = "pointer";
    if (datasets[i - 1] === chosen.dataset) head.className = "chosen";
    head.addEventListener("click", () => chooseDataset(datasets[i - 1]));
  });
  document.getElementById("overview").replaceChildren(made);
}

function better(row, rival, part) {
  const [a, b] = [row[part].mean, rival[part].mean];
  return a !== null && (b === null || (row.direction === "max" ? a > b : a < b));
}

function overviewCell(row, best) {
  if (!row || row.test.mean === null) return "–";
  const text = `${spread(row.test)} (${row.test.n})`;
  return element("span", {}, row === best ? element("strong", {}, text) : text, row.g.paper === null ? null : element("div", {}, number(row.g.paper)));
}

function drawRuns(runs) {
  const columns = [
    { key: "name", title: "run", left: true, value: (run) => run.name },
    { key: "group", title: "group", left: true, value: (run) => groupName(group(run)), show: (run) => named(group(run)) },
    { key: "seed", title: "seed", value: (run) => run.seed },
    { key: "fold", title: "fold", value: (run) => run.fold },
    { key: "test", title: "test", value: (run) => run.test, show: (run) => (run.status === "complete" ? number(run.test, 4) : element("span", { class: "tag" }, `${run.status}, epoch ${run.epochs}`)) },
    { key: "valid", title: "valid", value: (run) => run.valid, show: (run) => number(run.valid, 4) },
    { key: "speed", title: "graphs/s", value: (run) => run.graphs_per_s, show: (run) => number(run.graphs_per_s, 0) },
    { key: "epochs", title: "epochs", value: (run) => run.epochs },
    { key: "folder", title: "folder", value: (run) => run.folder, show: (run) => element("a", { href: run.folder, onclick: (event) => event.stopPropagation() }, "open") },
  ];
  const kept = sorting.runs.key ? runs : runs.slice(0, shown);
  const options = { sort: sorting.runs, again: () => drawRuns(runs), row: (run) => ({ class: "link", onclick: () => openRun(run) }) };
  const made = table(columns, kept, options);
  [...made.tBodies[0].rows].slice(shown).forEach((row) => row.remove());
  document.getElementById("runs").replaceChildren(made);
  document.getElementById("runs-note").textContent = `${Math.min(shown, runs.length)} of ${runs.length}; click one for its settings and what tells it from another`;
  document.getElementById("more").hidden = runs.length <= shown;
}

function openRun(run, other) {
  const panel = document.getElementById("detail"), own = settings(run);
  const facts = { group: groupName(group(run)), dataset: label(group(run).dataset), seed: run.seed, fold: run.fold, [`test ${label(run.metric)}`]: number(run.test, 4), [`valid ${label(run.metric)}`]: number(run.valid, 4),
    "best epoch": run.best_epoch === null ? "–" : run.best_epoch + 1, "graphs/s": number(run.graphs_per_s, 1), "passes a step": number(run.passes_per_step), seconds: number(run.seconds, 0), finished: run.finished || run.status };
  const rivals = data.runs.filter((r) => r !== run).map((r) => [r, `${label(group(r).dataset)}: ${groupName(group(r))} s${r.seed} f${r.fold}`]);
  const choice = element("select", { id: "compare", "aria-label": "Compare with", onchange: (event) => openRun(run, event.target.value === "" ? undefined : rivals[Number(event.target.value)][0]) },
    element("option", { value: "" }, "compare with ..."), ...rivals.map(([r, text], i) => element("option", { value: i, ...(r === other ? { selected: "" } : {}) }, text)));
  panel.replaceChildren(
    element("button", { class: "close", type: "button", onclick: closeRun }, "close"), element("h3", {}, run.name), element("a", { href: run.folder }, "open its folder"),
    element("dl", {}, ...Object.entries(facts).flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, String(value))])), choice, other ? differing(own, settings(other)) : listed(own));
  panel.hidden = false;
}

function listed(own) {
  return table([{ title: "setting", show: (row) => row[0] }, { title: "value", show: (row) => row[1] }], Object.entries(own));
}

function differing(own, others) {
  const keys = [...new Set([...Object.keys(own), ...Object.keys(others)])].filter((key) => own[key] !== others[key]).sort();
  if (!keys.length) return element("p", { class: "quiet" }, "equal settings");
  return table([{ title: "setting", show: (key) => key }, { title: "this run", show: (key) => own[key] ?? "–" }, { title: "the other", show: (key) => others[key] ?? "–" }], keys);
}

function closeRun() {
  document.getElementById("detail").hidden = true;
}
