// What the charts show: curves by epoch or time, score and cost, gradients.

const MANY = 160; // single runs, or grey groups, in one chart
const CURVE_NAMES = {
  "train/loss": "training loss",
  "valid/loss": "validation loss",
  "test/loss": "test loss",
  rho: "ρ",
  lr: "learning rate",
};
const COSTS = {
  seconds: ["seconds per run", "seconds"],
  epoch: ["seconds per epoch", "seconds_per_epoch"],
  speed: ["graphs/s", "graphs_per_s"],
  passes: ["gradient passes per step", "passes_per_step"],
  parameters: ["parameters", "parameters"],
};

function curveName(key) {
  const [part, what] = key.split("/");
  return CURVE_NAMES[key] || `${part === "valid" ? "validation" : part} ${what === benchmark.metric ? benchmark.metric_name : what}`;
}

// The side of a curve's axis where the best values are: a loss has them below, a learning rate nowhere.
const goodOf = (key) => (/loss$/.test(key) ? "low" : key.includes("/") ? goodSide(benchmark.direction) : null);

function meanCurve(runs, pick) {
  // By x: mean and standard deviation over the runs that have a value there.
  const at = new Map();
  for (const run of runs) {
    const found = pick(run);
    if (!found) continue;
    found.x.forEach((x, i) => {
      const y = found.y[i];
      if (y === null || y === undefined) return;
      const s = at.get(x) || at.set(x, [0, 0, 0]).get(x);
      s[0] += 1;
      s[1] += y;
      s[2] += y * y;
    });
  }
  const most = Math.max(0, ...[...at.values()].map((s) => s[0]));
  const x = [...at.keys()].filter((key) => at.get(key)[0] * 2 >= most).sort((a, b) => a - b),
    s = x.map((key) => at.get(key));
  const y = s.map(([n, sum]) => sum / n);
  const std = s.map(([n, sum, squares]) => (n > 1 ? Math.sqrt(Math.max(0, (squares - (sum * sum) / n) / (n - 1))) : 0));
  return { x, y, low: y.map((v, i) => v - std[i]), high: y.map((v, i) => v + std[i]), n: most };
}

function groupLines(groups, pick, { single = false, band = true, suffix = "", dash } = {}) {
  // Groups in colour; the others grey behind them.
  const found = [],
    coloured = groups.filter((g) => slots.has(g.key)),
    grey = groups.filter((g) => !slots.has(g.key)).slice(0, MANY);
  for (const g of [...grey, ...coloured]) {
    const own = look(g),
      runs = shownRuns(g),
      style = own ? { color: own.color, dash: dash === undefined ? own.dash : dash, key: g.key } : { faint: true };
    if (single && own) {
      runs.slice(0, Math.ceil(MANY / coloured.length)).forEach((run) => {
        const c = pick(run);
        if (c) found.push({ ...c, ...style, name: `${groupName(g, true)} seed ${run.seed} fold ${run.fold}` });
      });
      continue;
    }
    const curve = meanCurve(runs, pick);
    if (!curve.x.length) continue;
    const bands = band && own && curve.n > 1 ? { low: curve.low, high: curve.high, veil: Math.min(0.13, 0.3 / coloured.length) } : {};
    found.push({ x: curve.x, y: curve.y, ...bands, ...style, name: own ? groupName(g, true) + suffix : null });
  }
  return found;
}

let shownByGroup = new Map(); // group -> its runs that the filters leave
const shownRuns = (g) => shownByGroup.get(place(g)) || [];

const byEpoch = (key) => (run) => (run.curves[key] ? { x: run.x, y: run.curves[key] } : null);
const byTime = (key, pace) => (run) =>
  run.curves[key] && pace.get(run.group) ? { x: run.x.map((x) => x * pace.get(run.group)), y: run.curves[key] } : null;
const byStep = (key) => (run) => (run.gradients && run.gradients[key] ? { x: run.gradients.step, y: run.gradients[key] } : null);

function paperMarks(groups) {
  const found = new Map(),
    several = new Set(groups.map((g) => g.model)).size > 1;
  for (const g of groups.filter((one) => slots.has(one.key) && one.paper !== null)) {
    const names = found.get(g.paper) || found.set(g.paper, { y: g.paper, color: look(g).color, names: new Set() }).get(g.paper);
    names.names.add(several ? kindName(g, " ") : label(g.optimizer));
  }
  return [...found.values()].map((m) => ({ y: m.y, color: m.color, name: `${[...m.names][0]}${m.names.size > 1 ? " …" : ""}` }));
}

function drawCurves(groups) {
  const host = byId("chart-curves"),
    key = byId("curve").value,
    single = byId("spread").value === "runs",
    time = byId("against").value === "time";
  // One pace for a group, so that the means of its runs fall on the same times.
  const pace = new Map(groups.map((g) => [place(g), g.epoch]));
  const lines = groupLines(groups, time ? byTime(key, pace) : byEpoch(key), { single });
  const marks = /^(valid|test)\/(?!loss)/.test(key) ? paperMarks(groups) : [];
  const log = /^(rho|lr)$/.test(key) && lines.some((l) => l.y.some((v) => v > 0));
  const silent = groups.filter((g) => slots.has(g.key) && !lines.some((l) => l.key === g.key)).map((g) => groupName(g, true));
  const remark = silent.length
    ? `Not recorded by ${silent.slice(0, 3).join("; ")}${silent.length > 3 ? ` and ${silent.length - 3} more` : ""}.`
    : "";
  plot(host, {
    label: `${curveName(key)} by ${time ? "time" : "epoch"}`,
    remark,
    lines,
    marks,
    settles: true,
    x: { title: time ? "seconds" : "epoch" },
    y: { title: curveName(key), log, good: goodOf(key) },
  });
}

function drawCost(groups) {
  const kind = byId("cost").value,
    [title, field] = COSTS[kind],
    points = [];
  const visibleGroups = groups.filter((g) => g.score && g[kind] !== null);
  for (const g of visibleGroups) {
    const own = look(g);
    for (const run of shownRuns(g)) {
      if (run.test === null || run[field] === null || run.status !== "complete") continue;
      points.push({
        x: run[field],
        y: run.test,
        size: own ? 3 : 2.5,
        color: own ? own.color : null,
        faint: true,
        name: `${groupName(g, true)}, seed ${run.seed}, fold ${run.fold}`,
        text: `${short(run.test)} at ${short(run[field])} ${title}`,
        openRun: () => openRun(run),
      });
    }
  }
  for (const g of visibleGroups.filter((one) => slots.has(one.key))) {
    points.push({
      x: g[kind],
      y: g.score.mean,
      low: g.score.low,
      high: g.score.high,
      ...look(g),
      key: g.key,
      name: groupName(g, true),
      text: `${spread(g.score, 3)} at ${short(g[kind])} ${title}`,
    });
  }
  plot(byId("chart-cost"), {
    label: `Test ${benchmark.metric_name} against ${title}`,
    points,
    marks: paperMarks(groups),
    x: { title, good: kind === "speed" ? "high" : "low" },
    y: { title: `test ${benchmark.metric_name}`, good: goodSide(benchmark.direction) },
  });
}

function drawCosines(groups) {
  const lines = groupLines(groups, byStep(byId("cosine").value), { band: false });
  plot(byId("chart-cosines"), {
    label: "Cosines of gradients by step",
    lines,
    x: { title: "step" },
    y: { title: "cosine", range: [-1.02, 1.02] },
  });
}

function drawNorms(groups) {
  const [eps, omega] = byId("norm").value === "size" ? ["eps_norm", "omega_norm"] : ["eps_change", "omega_change"];
  const lines = [
    ...groupLines(groups, byStep(eps), { band: false, dash: "", suffix: " ε" }),
    ...groupLines(groups, byStep(omega), { band: false, dash: "2 3", suffix: " ω" }),
  ];
  plot(byId("chart-norms"), { label: "Norms of gradients by step", lines, x: { title: "step" }, y: { title: "norm", log: true } });
}

function drawRho(groups) {
  plot(byId("chart-rho"), {
    label: "Radius by epoch",
    lines: groupLines(groups, (run) => (CHARTS.rho.has(run) ? byEpoch("rho")(run) : null), { band: false }),
    x: { title: "epoch" },
    y: { title: "ρ", log: true },
  });
}

// What each chart needs of a run, and what to say where no run has it.
const CHARTS = {
  curves: {
    draw: drawCurves,
    has: (run) => Object.keys(run.curves).length > 0,
    name: "learning curves",
    remedy: "wait for the first epoch",
  },
  cost: { draw: drawCost, has: (run) => run.test !== null, name: "score and cost", remedy: "wait for the first finished run" },
  cosines: {
    draw: drawCosines,
    has: (run) => run.gradients && (run.gradients.cos_next || run.gradients.cos_true),
    name: "gradient cosines",
    remedy: "train with diagnostics=gradients",
  },
  norms: {
    draw: drawNorms,
    has: (run) => run.gradients && run.gradients.eps_norm,
    name: "gradient norms",
    remedy: "train with diagnostics=gradients",
  },
  rho: {
    draw: drawRho,
    has: (run) => (run.curves.rho || []).some((v) => v > 0),
    name: "radius ρ",
    remedy: "train with an optimizer that has one",
  },
};

function fillCurves(runs) {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].filter((key) => key !== "rho");
  const order = [`valid/${benchmark.metric}`, `test/${benchmark.metric}`, "valid/loss", "train/loss", "test/loss", "lr"];
  keys.sort((a, b) => order.indexOf(a) - order.indexOf(b));
  options(
    byId("curve"),
    keys.map((key) => [key, curveName(key)]),
    byId("curve").value,
  );
  const costs = Object.keys(COSTS).filter((kind) => groupsHere().some((g) => g[kind] !== null));
  options(
    byId("cost"),
    costs.map((kind) => [kind, COSTS[kind][0]]),
    byId("cost").value,
  );
  const cosines = [
    ["cos_next", "cos(ε t+1, ω t)"],
    ["cos_true", "cos(ε, true ε)"],
  ].filter(([key]) => runs.some((run) => run.gradients && run.gradients[key]));
  options(byId("cosine"), cosines, byId("cosine").value);
}
