// Plotly charts; each is drawn when it comes into view.

const MOST_GROUPS = 12, MOST_RUNS = 80, MOST_NAMES = 6;
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"], SYMBOLS = ["diamond", "square", "circle", "triangle-up", "cross", "star"];
const STROKES = ["", "7 4", "2 3", "7 3 2 3", "11 4"], SIGNS = ["◆", "■", "●", "▲", "✚", "★"];
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
// Plotly reads a few tags in its texts: what a user wrote must stay text.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const rgba = (hex, alpha) => `rgba(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",")},${alpha})`;

const modelPlace = (model) => [...new Set(data.groups.map((g) => g.model))].indexOf(model);

function modelKey(model) {
  // The dash and the symbol by which the charts tell a model.
  const m = modelPlace(model), make = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...(text ? [text] : []));
    return node;
  };
  const key = make("svg", { width: 46, height: 14, class: "key", "aria-hidden": "true" });
  key.append(make("line", { x1: 0, x2: 28, y1: 7, y2: 7, "stroke-dasharray": STROKES[m % STROKES.length] }), make("text", { x: 33, y: 11 }, SIGNS[m % SIGNS.length]));
  return key;
}

function looks(rows) {
  // One colour per optimizer; several groups of it differ in lightness, models in dash and symbol.
  const seen = {};
  return new Map(rows.map((row) => {
    const key = `${row.g.model}/${row.g.optimizer}`, place = (seen[key] = (seen[key] ?? -1) + 1);
    const total = rows.filter((r) => `${r.g.model}/${r.g.optimizer}` === key).length;
    const base = colour(row.g.optimizer), t = total > 1 ? 0.65 * place / (total - 1) : 0;
    const mixed = "#" + [1, 3, 5].map((i) => Math.round(parseInt(base.slice(i, i + 2), 16) * (1 - t) + 235 * t).toString(16).padStart(2, "0")).join("");
    const m = modelPlace(row.g.model);
    return [row.id, { color: mixed, dash: DASHES[m % DASHES.length], symbol: SYMBOLS[m % SYMBOLS.length], name: plain(groupName(row.g, true)) }];
  }));
}

function draw(id, traces, x, y, { yaxisMore, empty, ...extra } = {}) {
  const place = document.getElementById(id);
  if (!traces.length) {
    Plotly.purge(place);
    place.replaceChildren(element("div", { class: "empty" }, empty || "nothing was recorded for this choice"));
    return;
  }
  if (!place._fullLayout) place.replaceChildren();
  const axis = { gridcolor: "#eef1f5", zerolinecolor: "#d5dbe3", automargin: true };
  const layout = {
    margin: { l: 56, r: 12, t: 8, b: 44 }, font: { family: "system-ui, DejaVu Sans, sans-serif", size: 12, color: "#1f2933" },
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
    xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } }, ...extra,
  };
  layout.showlegend = traces.filter((trace) => trace.name && trace.showlegend !== false).length <= MOST_NAMES;
  Object.assign(layout.yaxis, yaxisMore);
  Plotly.react(place, traces, layout, CONFIG);
}

function references(rows, look) {
  // The paper's value of each group as a dotted line; groups of equal value share one.
  const values = new Map(), several = new Set(rows.map((row) => row.g.model)).size > 1;
  const whose = (g) => (several ? `${label(g.model)} · ` : "") + label(g.optimizer);
  for (const row of rows) if (row.g.paper !== null) values.set(`${row.g.model}/${row.g.optimizer}`, [row.g.paper, look.get(row.id).color, `paper, ${whose(row.g)}`]);
  const lines = [...values.values()].slice(0, MOST_NAMES).sort((a, b) => a[0] - b[0]);
  return {
    shapes: lines.map(([y, color]) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color, width: 1.2, dash: "2px 4px" } })),
    annotations: (lines.length > 4 ? [] : lines).map(([y, color, text], i) => ({ xref: "paper", x: 1 - 0.33 * (i % 3), xanchor: "right", y, yanchor: "bottom", showarrow: false, text: plain(text), font: { size: 9, color } })),
  };
}

function drawTradeoff(rows) {
  const look = looks(rows), traces = [];
  for (const row of rows.slice(0, MOST_GROUPS)) {
    const { color, symbol, name } = look.get(row.id), done = row.runs.filter((r) => r.test !== null);
    if (!done.length) continue;
    traces.push({ x: done.map((r) => r.graphs_per_s), y: done.map((r) => r.test), mode: "markers", marker: { color: rgba(color, 0.35), size: 5 }, showlegend: false,
      text: done.map((r) => plain(`${r.name} s${r.seed} f${r.fold}`)), hovertemplate: "%{text}<br>%{y:.4f} at %{x:.0f} graphs/s<extra></extra>" });
    traces.push({ x: [row.speed.mean], y: [row.test.mean], error_y: { type: "data", array: [row.test.std || 0], thickness: 1, color }, error_x: { type: "data", array: [row.speed.std || 0], thickness: 1, color },
      mode: "markers", name, marker: { color, symbol, size: 11, line: { color: "#fff", width: 1 } }, hovertemplate: `${name}<br>%{y:.4f} at %{x:.0f} graphs/s<extra></extra>` });
  }
  const metric = rows.length ? label(rows[0].metric) : "";
  draw("chart-tradeoff", traces, "graphs/s", `test ${metric}`, references(rows.slice(0, MOST_GROUPS), look));
}

function meanCurve(runs, pick) {
  // By the x that the runs have: mean and standard deviation.
  const at = new Map();
  for (const run of runs) {
    const found = pick(run);
    if (!found) continue;
    found.x.forEach((x, i) => { if (found.y[i] !== null && found.y[i] !== undefined) (at.get(x) || at.set(x, []).get(x)).push(found.y[i]); });
  }
  const x = [...at.keys()].sort((a, b) => a - b), s = x.map((key) => stats(at.get(key)));
  return { x, y: s.map((v) => v.mean), std: s.map((v) => v.std || 0) };
}

function lines(rows, pick, options) {
  const look = looks(rows), traces = [];
  const o = { band: true, ...options };
  for (const row of rows.slice(0, MOST_GROUPS)) {
    const { color, dash, name } = look.get(row.id);
    const style = { color, dash: o.dash || dash, width: 2 };
    if (o.single) {
      for (const run of row.runs.slice(0, Math.ceil(MOST_RUNS / rows.length))) {
        const found = pick(run);
        if (found) traces.push({ ...found, mode: "lines", line: { ...style, width: 1 }, opacity: 0.75, name, legendgroup: name, showlegend: run === row.runs[0], hovertemplate: `${plain(run.name)} s${run.seed} f${run.fold}<br>%{x}: %{y:.4g}<extra></extra>` });
      }
      continue;
    }
    const curve = meanCurve(row.runs, pick);
    if (!curve.x.length) continue;
    const markers = curve.x.length === 1 ? "markers" : "lines";
    if (o.band && row.runs.length > 1 && rows.length <= 12) {
      const upper = curve.y.map((v, i) => v + curve.std[i]), lower = curve.y.map((v, i) => v - curve.std[i]);
      traces.push({ x: [...curve.x, ...curve.x.slice().reverse()], y: [...upper, ...lower.reverse()], fill: "toself", fillcolor: rgba(color, 0.13), line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false, legendgroup: name });
    }
    traces.push({ x: curve.x, y: curve.y, mode: markers, name: name + (o.suffix || ""), legendgroup: name, line: style, marker: { color }, hovertemplate: `${name}${o.suffix || ""}<br>%{x}: %{y:.4g}<extra></extra>` });
  }
  return traces;
}

const byEpoch = (key) => (run) => (run.curves[key] ? { x: run.x, y: run.curves[key] } : null);
const byStep = (key) => (run) => (run.gradients && run.gradients[key] ? { x: run.gradients.step, y: run.gradients[key] } : null);

const remedy = (rows, settings) => (rows.length ? `no run here recorded this; train with ${settings}` : null);

function drawCurves(rows) {
  const key = document.getElementById("curve").value, single = document.getElementById("spread").value === "runs";
  const known = /^(valid|test)\/(?!loss)/.test(key) ? references(rows.slice(0, MOST_GROUPS), looks(rows)) : {};
  draw("chart-curves", lines(rows, byEpoch(key), { single }), "epoch", plain(curveName(key)), known);
}

function drawCosines(rows) {
  const key = document.getElementById("cosine").value;
  draw("chart-cosines", lines(rows, byStep(key), { band: false }), "step", "cosine", {
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: "#64707d", width: 1 } }], yaxisMore: { range: [-1.02, 1.02] },
    empty: remedy(rows, key === "cos_true" ? "diagnostics=gradients diagnostics.gradients.probe_every=50" : "diagnostics=gradients") });
}

function drawNorms(rows) {
  const which = document.getElementById("norm").value === "size" ? ["eps_norm", "omega_norm"] : ["eps_change", "omega_change"];
  const traces = [...lines(rows, byStep(which[0]), { band: false, dash: "solid", suffix: " ε" }), ...lines(rows, byStep(which[1]), { band: false, dash: "dot", suffix: " ω" })];
  draw("chart-norms", traces, "step", "norm", { yaxisMore: { type: "log", exponentformat: "power" }, empty: remedy(rows, "diagnostics=gradients") });
}

function drawRho(rows) {
  draw("chart-rho", lines(rows.filter((row) => row.runs.some((r) => (r.curves.rho || []).some((v) => v > 0))), byEpoch("rho"), { band: false }), "epoch", "ρ", { yaxisMore: { type: "log", exponentformat: "power" } });
}

function drawCost(rows) {
  const look = looks(rows), kept = rows.slice(0, MOST_GROUPS).filter((row) => row.epoch.mean !== null && row.passes.mean !== null);
  draw("chart-cost", kept.map((row) => ({ x: [row.passes.mean], y: [row.epoch.mean], error_y: { type: "data", array: [row.epoch.std || 0], thickness: 1 }, mode: "markers", name: look.get(row.id).name,
    marker: { color: look.get(row.id).color, symbol: look.get(row.id).symbol, size: 11, line: { color: "#fff", width: 1 } }, hovertemplate: `${look.get(row.id).name}<br>%{x:.3f} passes a step, %{y:.2f} s an epoch<extra></extra>` })), "gradient passes a step", "seconds an epoch", { yaxisMore: { rangemode: "tozero" } });
}

function curveName(key) {
  const [part, what] = key.split("/");
  return what ? `${part} ${label(what)}` : { graphs_per_s: "graphs/s", rho: "ρ", lr: "learning rate" }[key] || key;
}
