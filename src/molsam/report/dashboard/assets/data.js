"use strict";
// The data, what is chosen, and the small arithmetic of groups.

let data = JSON.parse(document.getElementById("data").textContent);
const chosen = { dataset: null, model: new Set(), optimizer: new Set(), search: "" };
const LABELS = {
  adam: "Adam", adamw: "AdamW", sgd: "SGD", sam: "SAM", graphsam: "GraphSAM", sam_one: "SAM-One", sam_k: "SAM-k",
  looksam: "LookSAM", aesam: "AE-SAM", rst: "RST", graphsam_release: "GraphSAM (release)", asam: "ASAM", gsam: "GSAM",
  esam: "ESAM", grover: "GROVER", compt: "CoMPT", cmpnn: "CMPNN", dmpnn: "DMPNN", mpnn: "MPNN", gcn: "GCN", bbbp: "BBBP",
  tox21: "Tox21", sider: "Sider", clintox: "ClinTox", esol: "ESOL", lipophilicity: "Lipophilicity", freesolv: "FreeSolv",
  bace: "BACE", qm7: "QM7", qm8: "QM8", roc_auc: "ROC-AUC", rmse: "RMSE", mae: "MAE",
};
// Okabe and Ito's palette; yellow is darkened to be seen on white.
const COLOURS = {
  adam: "#e69f00", sam: "#cc79a7", graphsam: "#009e73", sam_one: "#56b4e9", sam_k: "#0072b2", looksam: "#d55e00",
  aesam: "#b5a400", rst: "#888888", graphsam_release: "#222222",
};
const SPARE = ["#7b5ea7", "#8c564b", "#3b7d23", "#a6761d", "#5d6d7e"];
const label = (name) => (Object.hasOwn(LABELS, name) ? LABELS[name] : String(name));
const group = (run) => data.groups[run.group];

function colour(optimizer) {
  if (Object.hasOwn(COLOURS, optimizer)) return COLOURS[optimizer];
  const others = [...new Set(data.groups.map((g) => g.optimizer))].filter((o) => !Object.hasOwn(COLOURS, o)).sort();
  return SPARE[others.indexOf(optimizer) % SPARE.length];
}

function groupName(g, short) {
  const models = new Set(data.groups.map((other) => other.model));
  const name = (short && models.size === 1 ? "" : label(g.model) + " · ") + label(g.optimizer);
  return g.variant ? `${name} (${g.variant})` : name;
}

function settings(run) {
  const own = {};
  for (const key of Object.keys(data.base).sort()) {
    const value = Object.hasOwn(run.config, key) ? run.config[key] : data.base[key];
    if (value !== null) own[key] = value;
  }
  return own;
}

function matches(run) {
  if (!chosen.search) return true;
  const g = group(run);
  const text = [run.name, g.model, g.optimizer, g.dataset, g.variant, `seed=${run.seed}`, `fold=${run.fold}`].join(" ").toLowerCase();
  return chosen.search.split(/\s+/).every((word) =>
    text.includes(word) || (word.includes("=") && Object.entries(settings(run)).some(([k, v]) => `${k}=${v}`.toLowerCase().includes(word))));
}

function visible(anyDataset) {
  return data.runs.filter((run) => {
    const g = group(run);
    return (anyDataset || g.dataset === chosen.dataset) && chosen.model.has(g.model) && chosen.optimizer.has(g.optimizer) && matches(run);
  });
}

function stats(values) {
  const there = values.filter((v) => v !== null && v !== undefined);
  const n = there.length;
  if (!n) return { mean: null, std: null, n };
  const mean = there.reduce((a, b) => a + b, 0) / n;
  const std = n > 1 ? Math.sqrt(there.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1)) : null;
  return { mean, std, n };
}

function summarise(runs) {
  const found = new Map();
  for (const run of runs) {
    if (!found.has(run.group)) found.set(run.group, []);
    found.get(run.group).push(run);
  }
  const rows = [...found].map(([id, own]) => {
    const done = own.filter((run) => run.status === "complete");
    return {
      id, g: data.groups[id], runs: own, metric: own[0].metric, direction: own[0].direction, running: own.filter((run) => run.status === "running").length,
      test: stats(done.map((r) => r.test)), valid: stats(done.map((r) => r.valid)), speed: stats(done.map((r) => r.graphs_per_s)),
      epoch: stats(done.map((r) => r.seconds_per_epoch)), passes: stats(done.map((r) => r.passes_per_step)),
    };
  });
  const sign = (row) => (row.direction === "max" ? -1 : 1);
  return rows.sort((a, b) => (a.test.mean === null) - (b.test.mean === null) || sign(a) * (a.test.mean - b.test.mean));
}

function number(value, digits) {
  if (value === null || value === undefined) return "–";
  return value.toFixed(digits === undefined ? 3 : digits);
}

function spread(s, digits) {
  return s.mean === null ? "–" : number(s.mean, digits) + (s.std === null ? "" : ` ± ${number(s.std, digits)}`);
}
