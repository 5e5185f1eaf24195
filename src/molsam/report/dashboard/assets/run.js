// The panel of one run: results, curves, predictions, settings, and what tells it from another run.

let opened = null;

function openRun(run) {
  opened = run;
  const g = groupOf(run),
    panel = byId("run"),
    one = data.benchmarks[g.benchmark];
  const where = run.folder ? element("a", { href: run.folder }, run.path) : element("span", { class: "quiet" }, `packed in ${run.path}`);
  panel.replaceChildren();
  fill(panel, {}, [
    element(
      "header",
      {},
      element("h2", { id: "run-title" }, groupName(g)),
      element("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => panel.close() }, "✕"),
    ),
    element(
      "p",
      {},
      `${one.name} · ${one.metric_name}, seed ${run.seed}, fold ${run.fold} `,
      element("span", { class: `tag ${run.status}` }, run.status),
    ),
    element("p", { class: "path" }, where),
    results(run, one),
    ...curvesOf(run, one),
    ...predictionsOf(run),
    ...commandsOf(run),
    ...settingsOf(run),
    compareWith(run),
  ]);
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
  drawRunPlots(run, one);
}

function results(run, one) {
  const facts = [
    [`Test ${one.metric_name}`, short(run.test)],
    [`Validation ${one.metric_name}`, short(run.valid)],
    ...Object.entries(run.tests)
      .filter(([name]) => name !== one.metric)
      .map(([name, value]) => [`Test ${name}`, short(value)]),
    ["Best epoch", run.best_epoch === null ? "–" : run.epochs ? `${run.best_epoch + 1} of ${run.epochs}` : run.best_epoch + 1],
    ["Time", duration(run.seconds)],
    ["Speed", run.graphs_per_s === null ? "–" : `${number(run.graphs_per_s, 0)} graphs/s`],
    ["Passes per step", short(run.passes_per_step)],
    ["Parameters", run.parameters === null ? "–" : run.parameters.toLocaleString("en")],
    ["Memory", run.peak_memory_mb === null ? "–" : `${number(run.peak_memory_mb, 0)} MB`],
    ["Finished", run.finished ? run.finished.slice(0, 16).replace("T", " ") : "–"],
  ].filter(([, value]) => value !== "–");
  const tasks = Object.entries(run.tasks),
    most = Math.max(...tasks.map(([, v]) => Math.abs(v || 0)), 1e-12);
  const perTask =
    tasks.length < 2
      ? null
      : element(
          "details",
          { open: tasks.length <= 15 ? "" : null },
          element("summary", {}, `Result by task (${tasks.length})`),
          element(
            "dl",
            { class: "bars" },
            ...tasks.flatMap(([name, value]) => [
              element("dt", {}, name),
              element(
                "dd",
                {},
                element("span", { style: { width: `${Math.round((70 * Math.abs(value || 0)) / most)}%` } }),
                ` ${short(value)}`,
              ),
            ]),
          ),
        );
  return element(
    "div",
    {},
    element(
      "dl",
      { class: "facts" },
      ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
    ),
    perTask,
  );
}

function curvesOf(run) {
  if (run.x.length < 2) return [];
  return [
    element("h3", {}, "Curves"),
    element(
      "div",
      { class: "pictures" },
      element("div", { id: "run-loss", class: "plot" }),
      element("div", { id: "run-metric", class: "plot" }),
    ),
  ];
}

function predictionsOf(run) {
  const tasks = Object.keys(run.predictions || {});
  if (!tasks.length)
    return run.status === "complete"
      ? [element("p", { class: "quiet" }, "No test_predictions.csv lies in its folder, so there is no picture of its predictions.")]
      : [];
  const select = element(
    "select",
    { id: "task", "aria-label": "Task", onchange: () => drawPredictions(run) },
    ...tasks.map((task) => element("option", { value: task }, task)),
  );
  return [
    element("h3", {}, "Predictions on the test part ", tasks.length > 1 ? select : null),
    element("div", { id: "run-predictions", class: "plot" }),
    element("p", { id: "run-predictions-note", class: "quiet" }),
  ];
}

function drawRunPlots(run, one) {
  if (run.x.length > 1) {
    const line = (key, color, dash) => (run.curves[key] ? [{ x: run.x, y: run.curves[key], name: curveName(key), color, dash }] : []);
    const parts = (what) => [
      ...line(`train/${what}`, "var(--s4)", ""),
      ...line(`valid/${what}`, "var(--s2)", "7 3"),
      ...line(`test/${what}`, "var(--s5)", "2 3"),
    ];
    for (const [id, what, title] of [
      ["run-loss", "loss", "loss"],
      ["run-metric", one.metric, one.metric_name],
    ]) {
      const good = what === "loss" ? "low" : goodSide(one.direction);
      plot(byId(id), { label: title, height: 210, settles: true, key: true, lines: parts(what), x: { title: "epoch" }, y: { title, good } });
    }
  }
  if (byId("run-predictions")) drawPredictions(run);
}

function drawPredictions(run) {
  const task = byId("task") ? byId("task").value : Object.keys(run.predictions)[0],
    own = run.predictions[task];
  const draw = { parity: drawParity, roc: drawRoc, classes: drawClasses }[own.kind];
  byId("run-predictions-note").textContent = draw(byId("run-predictions"), own, task);
}

function drawParity(host, own, task) {
  const range = padded(extent([...own.x, ...own.y], false), false);
  const point = (x, i) => ({
    x,
    y: own.y[i],
    size: 3.5,
    color: "var(--s4)",
    name: `row ${own.row[i]}`,
    text: `measured ${short(x)}, predicted ${short(own.y[i])}`,
  });
  const x = { title: `measured ${task}`, range },
    y = { title: `predicted ${task}`, range };
  plot(host, { label: `Predicted against measured ${task}`, height: 320, diagonal: true, x, y, points: own.x.map(point) });
  const count = own.of > own.x.length ? `${own.x.length} of ${own.of} molecules, the worst among them` : plural(own.of, "molecule");
  return `${count}. Point at one for its row in the data file.`;
}

function drawRoc(host, own, task) {
  const counts = `${own.positive} of ${own.of} molecules are positive`;
  if (own.area === null) {
    host.replaceChildren();
    return `${task}: ${counts}, so there is no curve.`;
  }
  const x = { title: "false positive rate", range: [0, 1] },
    y = { title: "true positive rate", range: [0, 1.02] };
  const lines = [{ x: own.x, y: own.y, name: "true positive rate", color: "var(--s4)" }];
  plot(host, { label: `ROC curve of ${task}, area ${own.area}`, height: 320, diagonal: true, x, y, lines });
  return `Area ${number(own.area, 3)}; ${counts}.`;
}

function drawClasses(host, own) {
  const rows = own.counts.map((row, i) => ({ row, i })),
    first = { title: "true \\ predicted", head: true, show: (r) => String(r.i) };
  const columns = [first, ...own.counts.map((_, i) => ({ title: String(i), show: (r) => String(r.row[i]) }))];
  host.replaceChildren(element("div", { class: "scroll" }, table({ caption: "Confusion matrix", rows, columns })));
  return plural(own.of, "row");
}

function commandsOf(run) {
  if (run.status !== "complete" || !run.folder || !run.weights) return [];
  const predict = command(`${data.program} predict ${quoted(run.path)} molecules.csv -o predicted.csv`);
  return [element("h3", {}, "Use it"), predict, command(`${data.program} rerun ${quoted(run.path)}`)];
}

function settingsOf(run) {
  const own = settings(run),
    given = run.given.filter(([key]) => !key.startsWith("hydra"));
  const unusual = unusualOf(run, own);
  const first = given.length
    ? [element("h3", {}, "Settings given for this run"), pairs("Given settings", given)]
    : [
        element("h3", {}, "Settings that most runs on this benchmark do not have"),
        unusual.length
          ? pairs(
              "Unusual settings",
              unusual.map((key) => [key, own[key]]),
            )
          : element("p", { class: "quiet" }, "None."),
      ];
  const sections = Map.groupBy ? Map.groupBy(Object.entries(own), ([key]) => key.split(".")[0]) : new Map([["all", Object.entries(own)]]);
  return [
    ...first,
    element("h3", {}, "All settings"),
    ...[...sections].map(([name, rows]) => element("details", {}, element("summary", {}, `${name} (${rows.length})`), pairs(name, rows))),
  ];
}

// Places, names and layouts of data: they tell nothing about how a run was trained.
const BULK = /^(name|seed|split\.fold|dataset\.(display|layouts|published|url|sha256|file|path|folder)\b.*)$/;

function unusualOf(run, own) {
  // The settings whose most frequent value on the same benchmark is another one.
  const rivals = data.groups.flatMap((g, i) => (g.benchmark === groupOf(run).benchmark ? runsOf[i] : [])).map(settings);
  return Object.keys(own).filter((key) => !BULK.test(key) && !/^[[{]/.test(own[key]) && usual(rivals, key) !== own[key]);
}

function usual(rivals, key) {
  const counts = new Map();
  for (const other of rivals) counts.set(other[key], (counts.get(other[key]) || 0) + 1);
  return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

function pairs(caption, rows) {
  return table({
    caption,
    rows,
    columns: [
      { title: "Setting", left: true, head: true, show: (row) => row[0] },
      { title: "Value", left: true, show: (row) => row[1] },
    ],
  });
}

function compareWith(run) {
  const rivals = runsOf
    .flatMap((own, i) => (data.groups[i].benchmark === groupOf(run).benchmark ? own : []))
    .filter((other) => other !== run)
    .slice(0, 2000);
  const place = element("div", {});
  const show = (event) => place.replaceChildren(event.target.value === "" ? "" : differing(run, rivals[Number(event.target.value)]));
  return element(
    "div",
    {},
    element("h3", {}, "Compare with"),
    element(
      "select",
      { id: "rival", "aria-label": "Compare with", onchange: show },
      element("option", { value: "" }, "another run …"),
      ...rivals.map((other, i) =>
        element("option", { value: i }, `${groupName(groupOf(other), true)}, seed ${other.seed}, fold ${other.fold}`),
      ),
    ),
    place,
  );
}

function differing(run, other) {
  const [own, others] = [settings(run), settings(other)],
    keys = [...new Set([...Object.keys(own), ...Object.keys(others)])].filter((key) => own[key] !== others[key]).sort();
  const rows = [...keys.map((key) => [key, own[key] ?? "–", others[key] ?? "–"]), ["test score", short(run.test), short(other.test)]];
  return element(
    "div",
    { class: "scroll" },
    table({
      caption: "Differences",
      rows,
      columns: ["Setting", "This run", "The other"].map((title, i) => ({ title, left: true, head: i === 0, show: (row) => row[i] })),
    }),
  );
}
