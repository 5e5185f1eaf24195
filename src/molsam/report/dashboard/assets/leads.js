// Groups against a reference: leads with intervals, verdicts, and how many splits would decide.

function defaultReference(groups) {
  const there = groups.filter((g) => data.leads[place(g)]);
  return there.find((g) => g.optimizer === "adam") || there[0] || null;
}

function whyNoLeads(groups, lines) {
  if (groups.length < 2) return "needs two groups.";
  if (!lines.length) return "needs two groups with a finished run on the same split.";
  if (lines.some((one) => one.n > 1)) return null;
  return "needs several splits, and here each group has one: train with split.folds=5, for example.";
}

function drawLeads(groups) {
  const there = groups.filter((g) => data.leads[place(g)]);
  const reference = there.find((g) => g.key === chosen.reference) || defaultReference(groups);
  const lines = reference ? data.leads[place(reference)].filter((one) => groups.some((g) => place(g) === one.group)) : [];
  const empty = whyNoLeads(groups, lines);
  byId("section-leads").classList.toggle("one-line", empty !== null);
  byId("reference-choice").hidden = empty !== null;
  byId("leads-note").textContent = empty || basis(lines[0]);
  byId("leads").replaceChildren();
  if (empty) return;
  options(
    byId("reference"),
    there.map((g) => [g.key, groupName(g)]),
    reference.key,
  );
  const rows = lines.slice().sort((a, b) => b.mean - a.mean);
  byId("leads").append(
    table({ caption: `Leads over ${groupName(reference)}`, columns: leadColumns(lines, scoreDigits(groups) + 1), rows }),
  );
}

function leadColumns(lines, digits) {
  const group = (one) => data.groups[one.group],
    colour = (one) => (look(group(one)) || { color: "var(--grey)" }).color;
  const range = intervalRange(
    lines.map((one) => one.mean),
    lines.map(half),
    [-lines[0].margin, lines[0].margin],
  );
  const timed = (show) => (one) => (one.time ? show(one.time, one) : "–");
  const untested = () =>
    element(
      "span",
      { class: "quiet", title: "An epoch that counts was not tested: train with training.test_each_epoch=true" },
      "not tested",
    );
  const named = (one) => element("span", { class: "group" }, swatch(group(one)), twoLines(group(one)));
  const columns = [
    { title: "Group", left: true, head: true, show: named },
    { title: "Equal epochs", left: true, show: (one) => whisker(one.mean, one.low, one.high, one.paper, range, colour(one), true) },
    { title: "Lead [95 %]", show: (one) => leadText(one, digits) },
    { title: "n", show: (one) => String(one.n) },
    { title: "Verdict", left: true, show: verdict },
  ];
  if (lines.some((one) => one.time))
    columns.push(
      { title: "Equal time", left: true, show: timed((own, one) => whisker(own.mean, own.low, own.high, null, range, colour(one), true)) },
      { title: "Lead [95 %]", show: timed((own) => leadText(own, digits)) },
      { title: "Verdict", left: true, show: (one) => (one.time ? verdict(one.time) : untested()) },
    );
  const claim = (one) => (one.stated ? element("span", { class: `verdict ${one.stated}` }, one.stated) : "–");
  if (lines.some((one) => one.paper !== null))
    columns.push({ title: "Paper's lead", show: (one) => signed(one.paper, 3) }, { title: "Paper's claim", left: true, show: claim });
  return columns;
}

function basis(one) {
  const unit = one.fixed
    ? "one test set, so the intervals speak of training noise alone"
    : "intervals are corrected for overlapping splits, verdicts by Holm";
  return `Positive: better than the reference on the same splits and seeds; ${unit}. Equal: within ±${short(one.margin)}. Equal time: each has the time that the faster one takes.`;
}

const leadText = (one, digits) =>
  element(
    "span",
    {},
    signed(one.mean, digits),
    one.low === null ? null : element("small", {}, `[${signed(one.low, digits)}, ${signed(one.high, digits)}]`),
  );

function verdict(one) {
  const why =
    one.n < 2
      ? "one split says nothing"
      : one.verdict !== "undecided" || one.needed === null
        ? null
        : one.needed
          ? `${one.needed} splits would show ${short(Number(one.effect.toPrecision(2)))}`
          : `no number of splits would show ${short(Number(one.effect.toPrecision(2)))}`;
  return element("span", {}, element("span", { class: `verdict ${one.verdict}` }, one.verdict), why ? element("small", {}, why) : null);
}
