// Sweeps: how far they are, and what a search has found.

function drawSweeps() {
  byId("section-sweeps").hidden = !data.sweeps.length;
  byId("sweeps").replaceChildren(
    ...data.sweeps.map((one) => {
      const card = element(
        "article",
        { class: "sweep" },
        element("h3", {}, one.name, " ", element("a", { href: one.folder }, "open folder")),
        progress(one),
        failed(one),
      );
      if (one.search) card.append(found(one));
      return card;
    }),
  );
  data.sweeps.forEach((one, i) => {
    if (one.search) drawSearch(one, byId("sweeps").children[i]);
  });
}

function progress(one) {
  const { done, pruned, failed, running, interrupted } = one.counts,
    noun = one.search ? "trial" : "cell";
  const parts = [
    ["done", done],
    ["pruned", pruned],
    ["failed", failed],
    ["running", running],
  ];
  const words = [
    one.known ? `${done + pruned} of ${plural(one.total, noun)}` : `${plural(done + pruned, noun)} so far`,
    pruned ? `${pruned} pruned` : null,
    failed ? `${failed} failed` : null,
    running ? `${running} running` : null,
    interrupted ? `${interrupted} interrupted` : null,
    one.left ? (one.workers ? `about ${duration(one.left)} left` : `about ${duration(one.left)} of computing left`) : null,
  ]
    .filter(Boolean)
    .join(", ");
  const bar = element(
    "div",
    { class: "progress", role: "img", "aria-label": words },
    ...parts
      .filter(([, count]) => count)
      .map(([name, count]) => element("span", { class: name, style: { width: `${(100 * count) / Math.max(1, one.total)}%` } })),
  );
  return element("div", {}, bar, element("p", {}, words));
}

function failed(one) {
  if (!one.failures.length) return null;
  return element(
    "details",
    {},
    element("summary", {}, `Why ${plural(one.counts.failed, "run")} failed`),
    element("ul", {}, ...one.failures.map((f) => element("li", {}, element("b", {}, f.name), `: ${f.error || "no reason recorded"}`))),
  );
}

function scoreOf(one) {
  // The metric that a search improves, as its runs record it.
  const run = one.trials.map((t) => trialRun(one, t.number)).find(Boolean);
  return run ? `validation ${data.benchmarks[groupOf(run).benchmark].metric_name}` : "validation score";
}

const brief = (name, names) => {
  const last = name.split(".").at(-1);
  return names.filter((other) => other.split(".").at(-1) === last).length > 1 ? name : last.replaceAll("_", " ");
};

function found(one) {
  const names = Object.keys(one.space);
  const best = one.trials.find((trial) => trial.number === one.best);
  if (!best) return element("p", { class: "quiet" }, "No trial is complete yet.");
  const values = names
    .filter((name) => best.params[name] !== undefined)
    .map((name) => `${brief(name, names)} ${typeof best.params[name] === "number" ? short(best.params[name]) : best.params[name]}`);
  const run = trialRun(one, best.number);
  const open = run ? element("button", { type: "button", onclick: () => openRun(run) }, one.best_folder ? "show its run" : "Show its run") : null;
  return element(
    "div",
    {},
    element(
      "p",
      {},
      `Best: trial ${best.number}, ${one.direction === "minimize" ? "lowest" : "highest"} ${scoreOf(one)} ${short(best.value)} with ${values.join(", ")}. `,
      one.best_folder ? element("a", { href: one.best_folder }, "Open its folder") : null,
      one.best_folder && open ? " or " : null,
      open,
    ),
    ...(one.best_folder
      ? [
          command(`${data.program} predict ${quoted(one.best_path)} molecules.csv -o predicted.csv`),
          command(`${data.program} rerun ${quoted(one.best_path)}`),
        ]
      : []),
    element(
      "div",
      { class: "pictures" },
      element("figure", {}, element("figcaption", {}, "History"), element("div", { class: "plot history" })),
      element("figure", {}, element("figcaption", {}, "Importance of each setting"), importances(one, names)),
    ),
    element(
      "figure",
      {},
      element("figcaption", {}, `Settings and ${scoreOf(one)} of every trial; the best tenth in colour`),
      element("div", { class: "parallel" }),
    ),
    element(
      "details",
      {},
      element("summary", {}, "The best trials as a table"),
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Trials" }, trialTable(one, names)),
    ),
  );
}

const trialRun = (one, trial) =>
  data.runs.find((run) => run.path.startsWith(`${one.path}/trial-${String(trial).padStart(5, "0")}`)) || null;

function importances(one, names) {
  const rows = Object.entries(one.importances);
  if (!rows.length) return element("p", { class: "quiet" }, "Too few complete trials.");
  return element(
    "dl",
    { class: "bars" },
    ...rows.flatMap(([name, share]) => [
      element("dt", {}, brief(name, names)),
      element("dd", {}, element("span", { style: { width: `${Math.round(70 * share)}%` } }), ` ${number(share, 2)}`),
    ]),
  );
}

function ordered(one) {
  const sign = one.direction === "minimize" ? 1 : -1;
  return one.trials.filter((trial) => trial.value !== null && trial.state === "done").sort((a, b) => sign * (a.value - b.value));
}

function trialTable(one, names) {
  return table({
    caption: `Best trials of ${one.name}`,
    rows: ordered(one).slice(0, 20),
    columns: [
      { title: "Trial", head: true, show: (t) => String(t.number) },
      { title: scoreOf(one).replace("validation", "Validation"), show: (t) => short(t.value) },
      ...names.map((name) => ({
        title: brief(name, names),
        show: (t) => (typeof t.params[name] === "number" ? short(t.params[name]) : String(t.params[name] ?? "–")),
      })),
    ],
  });
}

function drawSearch(one, card) {
  const host = card.querySelector(".history");
  if (!host) return;
  const dots = one.trials.filter((t) => t.value !== null),
    better = (a, b) => (one.direction === "minimize" ? a < b : a > b),
    x = [],
    y = [];
  let best = null;
  for (const t of dots.filter((own) => own.state === "done")) {
    const before = best;
    if (best === null || better(t.value, best)) best = t.value;
    if (before !== null && before !== best) {
      x.push(t.number);
      y.push(before);
    }
    x.push(t.number);
    y.push(best);
  }
  const points = dots.map((t) => ({
    x: t.number,
    y: t.value,
    size: 4,
    color: t.state === "done" ? "var(--s4)" : "var(--grey)",
    open: t.state !== "done",
    name: `Trial ${t.number}`,
    text: `${short(t.value)} ${t.state}`,
    openRun: trialRun(one, t.number) ? () => openRun(trialRun(one, t.number)) : null,
  }));
  plot(host, {
    label: `Score of each trial of ${one.name}`,
    height: 220,
    points,
    lines: [{ x, y, color: "var(--s2)", name: "best so far" }],
    x: { title: "trial" },
    y: { title: scoreOf(one), good: goodSide(one.direction) },
  });
  const wide = card.querySelector(".parallel");
  const paintWide = () => parallel(wide, one);
  paintWide();
  new ResizeObserver(paintWide).observe(wide);
}

function parallel(host, one) {
  // An axis for each setting and one for the score; a line for each trial.
  const width = host.clientWidth,
    names = Object.keys(one.space).filter((name) => one.trials.some((t) => t.params[name] !== undefined));
  if (width < 60 || host.dataset.width === String(width) || !names.length) return;
  host.dataset.width = String(width);
  const height = 230,
    top = 40,
    bottom = height - 24,
    ranked = ordered(one),
    x = (i) => 45 + (i * (width - 90)) / names.length;
  const scales = [...names.map((name) => axisOf(one, name, bottom, top)), valueAxis(ranked, one, bottom, top)];
  const good = new Set(ranked.slice(0, Math.max(1, Math.ceil(ranked.length / 10))).map((t) => t.number));
  const trials = one.trials.slice().sort((a, b) => good.has(a.number) - good.has(b.number));
  const lines = trials.map((t) => trialLine(t, [...names.map((name) => t.params[name]), t.value], scales, x, good.has(t.number)));
  const heads = [...names.map((name) => brief(name, names)), scoreOf(one)],
    label = `Parallel coordinates of ${plural(one.trials.length, "trial")}; the best are in the table below`;
  const axes = parallelAxes(heads, scales, x, { width, top, bottom });
  host.replaceChildren(shape("svg", { width, height, role: "img", "aria-label": label }, ...lines, ...axes));
}

function trialLine(t, values, scales, x, good) {
  const points = values
    .map((v, i) => (v === null || v === undefined ? null : [x(i), scales[i].at(v)]))
    .filter((p) => p && Number.isFinite(p[1]));
  const d = `M${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`,
    style = { stroke: good ? "var(--s2)" : "var(--grey)" };
  const dash = t.state === "done" ? null : "2 3";
  return shape(
    "path",
    { class: good ? "curve" : "faint", style, "stroke-dasharray": dash, d },
    shape("title", {}, `Trial ${t.number}: ${short(t.value)}`),
  );
}

function parallelAxes(heads, scales, x, { width, top, bottom }) {
  // Heads that would touch stand in two rows; the outer ones stay inside.
  const last = heads.length - 1,
    tight = heads.some((head) => head.length * 7 > x(1) - x(0));
  return heads.map((head, i) => {
    const anchor = i === 0 ? "start" : i === last ? "end" : "middle",
      at = i === 0 ? 2 : i === last ? width - 2 : x(i);
    const tick = ([y, text]) => {
      const left = i === last && text.length > 6; // a longer one has no room at the right
      return shape("text", { class: "halo", x: x(i) + (left ? -5 : 5), y: y + 4, "text-anchor": left ? "end" : "start" }, text);
    };
    return shape(
      "g",
      {},
      shape("line", { class: "axis", x1: x(i), x2: x(i), y1: top, y2: bottom }),
      shape("text", { class: "title", x: at, y: tight && i % 2 ? 12 : 27, "text-anchor": anchor }, head),
      ...scales[i].ticks.map(tick),
    );
  });
}

function axisOf(one, name, bottom, top) {
  const { log, choices } = one.space[name],
    values = one.trials.map((t) => t.params[name]);
  if (choices) {
    const at = (v) => bottom - ((choices.indexOf(String(v)) + 0.5) / choices.length) * (bottom - top);
    return { at, ticks: choices.slice(0, 8).map((choice) => [at(choice), choice]) };
  }
  const range = extent(values, log) || [0, 1],
    at = scale(range[0] === range[1] ? padded(range, log) : range, bottom, top, log);
  return {
    at,
    ticks: [
      [bottom, short(range[0])],
      [top, short(range[1])],
    ],
  };
}

function valueAxis(ranked, one, bottom, top) {
  const fit = robust(
      ranked.map((t) => t.value),
      false,
      goodSide(one.direction),
    ) || [0, 1],
    at = scale(fit[0] === fit[1] ? padded(fit, false) : fit, bottom, top, false);
  return {
    at: (v) => Math.max(top - 6, Math.min(bottom + 6, at(v))),
    ticks: [
      [bottom, short(fit[0])],
      [top, short(fit[1])],
    ],
  };
}
