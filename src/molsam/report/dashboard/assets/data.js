// The data, what is chosen, and which groups are drawn in colour.

const MOST = 8;
const SLOTS = { adam: 0, sam: 1, graphsam: 2, sam_one: 3, sam_k: 4, looksam: 5, aesam: 6, rst: 7 };
const DASHES = ["", "7 3", "", "2 3", "7 3 2 3", "", "11 4", "4 2"];
const SYMBOLS = ["circle", "square", "diamond", "up", "down", "cross", "plus", "bar"];

let data = JSON.parse(byId("data").textContent);
const chosen = { benchmark: null, model: "", optimizer: "", search: "", reference: null, touched: false };
const slots = new Map(); // key of a group drawn in colour -> its slot
const remembered = new Map(); // key -> the slot that it had last
let runsOf = [],
  placeOf = new Map(),
  benchmark = null;

const label = (name) => data.labels[name] || name;
const groupOf = (run) => data.groups[run.group];
const colour = (slot) => `var(--s${slot})`;
const look = (g) =>
  slots.has(g.key) ? { color: colour(slots.get(g.key)), dash: DASHES[slots.get(g.key)], symbol: SYMBOLS[slots.get(g.key)] } : null;

function take(news) {
  // New data: what was chosen stays as far as it is still there.
  data = news;
  runsOf = data.groups.map(() => []);
  placeOf = new Map(data.groups.map((g, place) => [g.key, place]));
  for (const run of data.runs) runsOf[run.group].push(run);
  chooseBenchmark(data.benchmarks.some((one) => one.key === chosen.benchmark) ? chosen.benchmark : fullest(), true);
}

function fullest() {
  const counts = data.benchmarks.map(() => 0);
  for (const run of data.runs) counts[groupOf(run).benchmark] += 1;
  const place = counts.indexOf(Math.max(...counts, 0));
  return place < 0 ? null : data.benchmarks[place].key;
}

function chooseBenchmark(key, keep) {
  const same = chosen.benchmark === key;
  chosen.benchmark = key;
  benchmark = data.benchmarks.find((one) => one.key === key) || null;
  if (!same) {
    chosen.model = chosen.optimizer = "";
    chosen.reference = sorting.board.key = sorting.runs.key = null;
  }
  if (!keep || !same || !chosen.touched) bestEight();
}

const better = (a, b) => (benchmark.direction === "max" ? a > b : a < b);
const ranking = (a, b) => compared(a.score && a.score.mean, b.score && b.score.mean, benchmark.direction === "max" ? -1 : 1);

function groupsHere() {
  const place = data.benchmarks.indexOf(benchmark);
  return data.groups.filter((g) => g.benchmark === place);
}

const wanted = (g) => (!chosen.model || g.model === chosen.model) && (!chosen.optimizer || g.optimizer === chosen.optimizer);

function bestEight() {
  // The best group of each model and optimizer that the filters leave, then the next best.
  slots.clear();
  chosen.touched = false;
  if (!benchmark) return;
  const ranked = groupsHere().filter(wanted).sort(ranking),
    kinds = new Set(),
    first = [],
    rest = [];
  for (const g of ranked) {
    const kind = `${g.model}/${g.optimizer}`;
    (kinds.has(kind) ? rest : first).push(g);
    kinds.add(kind);
  }
  const eight = [...first, ...rest].slice(0, MOST).sort(ranking),
    usual = new Set();
  // The first group of an optimizer has that optimizer's colour, whatever stands before it.
  const leads = eight.filter((g) => g.optimizer in SLOTS && !usual.has(g.optimizer) && usual.add(g.optimizer));
  for (const g of new Set([...leads, ...eight])) colourIn(g);
}

function colourIn(g) {
  const used = new Set(slots.values());
  if (used.size >= MOST) return false;
  const wanted = [remembered.get(g.key), SLOTS[g.optimizer], ...Array(MOST).keys()];
  const slot = wanted.find((one) => one !== undefined && !used.has(one));
  slots.set(g.key, slot);
  remembered.set(g.key, slot);
  return true;
}

function toggle(g) {
  // Into colour or back to grey. False if there are eight already.
  chosen.touched = true;
  return slots.has(g.key) ? slots.delete(g.key) : colourIn(g);
}

// A baseline has no optimizer.
const kindName = (g, between = " · ") => (g.optimizer === "none" ? label(g.model) : `${label(g.model)}${between}${label(g.optimizer)}`);

function groupName(g, brief) {
  const alone = brief && new Set(groupsHere().map((other) => other.model)).size === 1;
  const name = alone && g.optimizer !== "none" ? label(g.optimizer) : kindName(g);
  return g.variant ? `${name}, ${g.variant}` : name;
}

function settings(run) {
  const own = {};
  for (const key of Object.keys(data.base).sort()) {
    const value = Object.hasOwn(run.config, key) ? run.config[key] : data.base[key];
    if (value !== null) own[key] = value;
  }
  return own;
}

function matches(run, words) {
  const g = groupOf(run);
  const text = [
    run.name,
    g.model,
    g.optimizer,
    label(g.model),
    label(g.optimizer),
    g.full,
    run.status,
    run.sweep,
    `seed=${run.seed}`,
    `fold=${run.fold}`,
  ]
    .join(" ")
    .toLowerCase();
  let own = null;
  return words.every((word) => {
    if (text.includes(word)) return true;
    if (!word.includes("=")) return false;
    own = own || Object.entries(settings(run)).map(([key, value]) => `${key}=${value}`.toLowerCase());
    return own.some((one) => one.includes(word));
  });
}

function visible() {
  // The runs that the filters leave, and their groups, best first.
  const words = chosen.search.toLowerCase().split(/\s+/).filter(Boolean);
  const groups = groupsHere().filter(wanted);
  const runs = groups.flatMap((g) => runsOf[placeOf.get(g.key)]).filter((run) => !words.length || matches(run, words));
  const left = new Set(runs.map((run) => run.group));
  return { runs, groups: groups.filter((g) => left.has(placeOf.get(g.key))).sort(ranking) };
}
