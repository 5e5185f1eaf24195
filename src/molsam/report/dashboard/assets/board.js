// The groups of a benchmark: their table, which is also the legend, and the short legend that stays in view.

const ROWS = 20;
const sorting = { board: { key: null, sign: 1 }, runs: { key: null, sign: 1 }, trials: { key: null, sign: 1 } };
let wholeBoard = false;

function swatch(g) {
  // The dash and symbol of a group's lines; grey while it is not drawn in colour.
  const own = look(g) || { color: "var(--grey)", dash: "", symbol: null };
  return shape(
    "svg",
    { class: "swatch", width: 34, height: 14, viewBox: "-17 -7 34 14", "aria-hidden": "true" },
    shape("line", { x1: -16, x2: 16, y1: 0, y2: 0, style: { stroke: own.color }, "stroke-dasharray": own.dash || null }),
    own.symbol ? symbol(own.symbol, own.color) : null,
  );
}

function choose(g) {
  if (!toggle(g)) say(`${MOST} groups are in colour; click one of them to make room for another.`);
  render();
}

function say(text) {
  byId("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    byId("said").textContent = "";
  }, 6000);
}

function drawLegend(groups) {
  const coloured = groups.filter((g) => slots.has(g.key)),
    grey = groups.length - coloured.length;
  const chips = coloured.map((g) =>
    element(
      "button",
      {
        type: "button",
        class: "chip",
        "data-key": g.key,
        "aria-pressed": "true",
        title: `${groupName(g)}: click to grey it`,
        onclick: () => {
          choose(g);
        },
        onpointerenter: () => emphasise(g.key),
        onpointerleave: () => emphasise(null),
        onfocus: () => emphasise(g.key),
        onblur: () => emphasise(null),
      },
      swatch(g),
      element("span", {}, groupName(g, true)),
    ),
  );
  byId("legend").replaceChildren();
  fill(byId("legend"), {}, [
    ...chips,
    grey ? element("span", { class: "quiet" }, `${grey} more in grey`) : null,
    chosen.touched
      ? element(
          "button",
          {
            type: "button",
            id: "eight",
            onclick: () => {
              bestEight();
              render();
            },
          },
          "Best eight",
        )
      : null,
  ]);
  byId("legend").hidden = !groups.length;
}

function emphasise(key) {
  // The lines of one group stand out in all charts.
  for (const node of document.querySelectorAll(".series")) node.classList.toggle("dimmed", key !== null && node.dataset.key !== key);
}

function intervalRange(values, halves, always) {
  // The range of most values with their intervals: what lies far off is marked at the edge.
  const sorted = finite(values).sort((a, b) => a - b),
    wide = finite(halves).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const at = (list, share) => list[Math.round(share * (list.length - 1))],
    half = wide.length ? at(wide, 0.5) : 0;
  const [first, third] = [at(sorted, 0.25), at(sorted, 0.75)],
    room = 2 * (third - first) + half;
  return padded(
    [Math.min(...always, Math.max(sorted[0] - half, first - room)), Math.max(...always, Math.min(sorted.at(-1) + half, third + room))],
    false,
  );
}

const half = (s) => (s && s.low !== null && s.low !== undefined ? (s.high - s.low) / 2 : null);

function whisker(value, low, high, paper, range, color, zero) {
  // A value with its interval in a cell; the paper's as an open diamond. What lies outside is a mark at the edge.
  const width = 120,
    s = scale(range, 6, width - 6, false),
    inside = (v) => Math.max(6, Math.min(width - 6, s(v)));
  const parts = [];
  if (zero) parts.push(shape("line", { class: "grid", x1: s(0), x2: s(0), y1: 0, y2: 18 }));
  if (low !== null && low !== undefined)
    parts.push(shape("path", { class: "whisker", style: { stroke: color }, d: `M${inside(low)} 9H${inside(high)}` }));
  if (paper !== null && paper !== undefined) parts.push(shape("path", { class: "open", d: `M${inside(paper)} 4l5 5l-5 5l-5-5z` }));
  const beyond = value < range[0] ? "M1 9l6-4v8z" : value > range[1] ? `M${width - 1} 9l-6-4v8z` : null;
  parts.push(
    beyond
      ? shape("path", { class: "beyond", style: { fill: color }, d: beyond })
      : shape("circle", { cx: s(value), cy: 9, r: 4, style: { fill: color } }),
  );
  return shape("svg", { class: "cell", width, height: 18, "aria-hidden": "true" }, ...parts);
}

const spread = (s, digits) => (s ? number(s.mean, digits) + (s.std === null ? "" : ` ± ${number(s.std, digits)}`) : "–");
const place = (g) => placeOf.get(g.key);

function state(g) {
  // What else a group has than finished runs.
  const others = Object.entries(g.counts).filter(([name]) => name !== "complete");
  return others.map(([name, count]) => element("span", { class: `tag ${name}` }, `${count} ${name}`));
}

function scoreDigits(groups) {
  // By the usual size: one score that is far off takes no digits from the others.
  const sizes = groups
      .filter((g) => g.score)
      .map((g) => Math.abs(g.score.mean))
      .sort((a, b) => a - b),
    size = sizes[sizes.length >> 1] || 0;
  return size >= 100 ? 1 : size >= 10 ? 2 : 3;
}

function boardColumns(groups, range, digits) {
  const colour = (g) => (look(g) || { color: "var(--grey)" }).color,
    first = benchmark.direction === "max" ? -1 : 1;
  return [
    { key: "name", title: "Group", left: true, head: true, value: (g) => groupName(g), show: (g) => nameCell(g) },
    {
      key: "plot",
      title: "95 % interval",
      hint: "Corrected for overlapping splits; an open diamond is the paper's value",
      left: true,
      show: (g) => (g.score && range ? whisker(g.score.mean, g.score.low, g.score.high, g.paper, range, colour(g)) : "–"),
    },
    {
      key: "score",
      title: `Test ${benchmark.metric_name}`,
      hint: "Mean ± standard deviation over splits, at the epoch best on validation",
      first,
      value: (g) => g.score && g.score.mean,
      show: (g) => spread(g.score, digits),
    },
    {
      key: "n",
      title: "n",
      hint: "Splits (with one fixed test set: trainings)",
      value: (g) => (g.score ? g.score.n : 0),
      show: (g) => element("span", {}, String(g.score ? g.score.n : 0), state(g)),
    },
    { key: "paper", title: "Paper", value: (g) => g.paper, show: groups.some((g) => g.paper !== null) ? (g) => number(g.paper, 3) : null },
    {
      key: "difference",
      title: "− paper",
      hint: "In colour where our interval excludes the paper's value",
      value: (g) => difference(g),
      show: groups.some((g) => difference(g) !== null) ? (g) => differenceCell(g, digits) : null,
    },
    {
      key: "late",
      title: "Late score",
      hint: "Mean over the last fifth of the epochs: no epoch is selected",
      value: (g) => g.late && g.late.mean,
      show: groups.some((g) => g.late) ? (g) => spread(g.late, digits) : null,
    },
    { key: "valid", title: "Validation", value: (g) => g.valid, show: (g) => number(g.valid, digits) },
    { key: "seconds", title: "Time per run", value: (g) => g.seconds, show: (g) => duration(g.seconds) },
    { key: "speed", title: "Graphs/s", value: (g) => g.speed, show: (g) => number(g.speed, 0) },
    { key: "passes", title: "Passes per step", hint: "Gradient passes per step", value: (g) => g.passes, show: (g) => number(g.passes, 2) },
  ].filter((c) => c.show !== null);
}

function drawBoard(groups) {
  const digits = scoreDigits(groups),
    most = wholeBoard ? Infinity : ROWS,
    near = groups.slice(0, most);
  const range = intervalRange(
    near.map((g) => g.score && g.score.mean),
    near.map((g) => half(g.score)),
    [],
  );
  const made = table({
    caption: `Groups on ${benchmark.name}`,
    columns: boardColumns(groups, range, digits),
    rows: groups,
    sort: sorting.board,
    again: (key) => {
      drawBoard(groups);
      byId("board").querySelector(`[data-key="${key}"]`)?.focus();
    },
    limit: most,
    row: (g) => ({ class: slots.has(g.key) ? "coloured" : null }),
  });
  byId("board").replaceChildren(made);
  const more = byId("board-more");
  more.hidden = groups.length <= ROWS;
  more.textContent = wholeBoard ? `Show ${ROWS}` : `Show all ${groups.length}`;
  byId("board-note").textContent = `${benchmark.direction === "max" ? "Higher" : "Lower"} is better. Click a group to draw it in colour.`;
}

function nameCell(g) {
  const on = slots.has(g.key),
    name = groupName(g);
  return element(
    "button",
    {
      type: "button",
      class: "group",
      "aria-pressed": String(on),
      title: `${name}${g.full && g.full !== g.variant ? ` (${g.full})` : ""}: click to ${on ? "grey it" : "draw it in colour"}`,
      "data-key": g.key,
      onclick: () => {
        choose(g);
        byId("board").querySelector(`.group[data-key="${g.key}"]`)?.focus({ preventScroll: true });
      },
    },
    swatch(g),
    twoLines(g),
  );
}

const twoLines = (g) => element("span", {}, kindName(g), g.variant ? element("small", {}, g.variant) : null);

const difference = (g) => (g.paper === null || !g.score ? null : g.score.mean - g.paper);

function differenceCell(g, digits) {
  const value = difference(g);
  if (value === null) return "–";
  const clear = g.score.low !== null && (g.paper < g.score.low || g.paper > g.score.high),
    good = benchmark.direction === "max" ? value > 0 : value < 0;
  return element("span", { class: clear ? (good ? "good" : "bad") : null }, signed(value, digits));
}

function drawBenchmarks() {
  // Every dataset and metric there is, with the best group of each.
  const section = byId("section-benchmarks");
  section.hidden = data.benchmarks.length < 2;
  if (section.hidden) return;
  const rows = data.benchmarks.map((one, i) => {
    const own = data.groups.filter((g) => g.benchmark === i),
      sign = one.direction === "max" ? -1 : 1;
    const best = own.filter((g) => g.score).sort((a, b) => sign * (a.score.mean - b.score.mean))[0] || null;
    return { one, own, best, runs: own.reduce((sum, g) => sum + Object.values(g.counts).reduce((a, b) => a + b, 0), 0) };
  });
  const open = (one) =>
    element(
      "button",
      {
        type: "button",
        class: "plain",
        onclick: () => {
          chooseBenchmark(one.key);
          scrollTo(0, 0);
          render();
        },
      },
      `${one.name} · ${one.metric_name}`,
    );
  byId("benchmarks").replaceChildren(
    table({
      caption: "All datasets and metrics",
      rows,
      row: (row) => ({ class: row.one === benchmark ? "coloured" : null }),
      columns: [
        { title: "Dataset and metric", left: true, head: true, show: (row) => open(row.one) },
        { title: "Made with", left: true, show: (row) => row.one.facts },
        { title: "Runs", show: (row) => String(row.runs) },
        { title: "Groups", show: (row) => String(row.own.length) },
        { title: "Best on test", left: true, show: (row) => (row.best ? groupName(row.best) : "–") },
        { title: "Score", show: (row) => (row.best ? spread(row.best.score, scoreDigits(row.own)) : "–") },
        { title: "n", show: (row) => (row.best ? String(row.best.score.n) : "–") },
      ],
    }),
  );
}
