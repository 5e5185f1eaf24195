"use strict";
// Elements, tables and words. Text reaches the page as text only, never as markup.

const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, text] of Object.entries(value)) node.style.setProperty(name, text);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const element = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return value.toFixed(digits).replace("-", "−");
}

function short(value) {
  // Four digits of any size.
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-3 || size >= 1e6)
      ? Number(value.toPrecision(3)).toExponential().replace("e+", "e")
      : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

const signed = (value, digits = 3) => (value === null ? "–" : (value > 0 ? "+" : "") + number(value, digits));
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 59.5) return `${short(Number(seconds.toPrecision(seconds < 10 ? 2 : 3)))} s`;
  const whole = Math.round(seconds);
  if (whole < 600) return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100
    ? `${minutes} min`
    : minutes < 2880
      ? `${Math.floor(minutes / 60)} h ${minutes % 60} min`
      : `${Math.round(minutes / 1440)} days`;
}

// What a shell takes as one word.
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function command(text) {
  const button = element(
    "button",
    {
      type: "button",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text);
          button.textContent = "copied";
        } catch {
          getSelection().selectAllChildren(code);
        }
      },
    },
    "copy",
  );
  const code = element("code", {}, text);
  return element("div", { class: "command" }, code, button);
}

function options(select, pairs, value) {
  // Fills a select with [value, text] pairs; keeps what was chosen if it is still there.
  const key = JSON.stringify(pairs);
  if (select.dataset.key !== key) select.replaceChildren(...pairs.map(([own, text]) => element("option", { value: own }, text)));
  select.dataset.key = key;
  select.value = pairs.some(([own]) => own === value) ? value : pairs.length ? pairs[0][0] : "";
}

function table({ caption, columns, rows, sort, again, row: attributes, limit = Infinity }) {
  // columns: {key, title, left, value(row), show(row), hint}; sort: {key, sign}, changed by a click on a head.
  const kept = columns.filter((c) => c.always || c.show || rows.some((row) => c.value(row) !== null && c.value(row) !== undefined));
  const by = sort && kept.find((c) => c.key === sort.key);
  const ordered = by ? rows.slice().sort((a, b) => compared(by.value(a), by.value(b), sort.sign)) : rows;
  const heads = kept.map((c) => {
    const title =
      sort && c.value
        ? element(
            "button",
            {
              type: "button",
              "data-key": c.key,
              title: c.hint,
              onclick: () => {
                sort.sign = sort.key === c.key ? -sort.sign : c.first || 1;
                sort.key = c.key;
                again(c.key);
              },
            },
            c.title,
          )
        : c.title;
    const order = by === c ? (sort.sign > 0 ? "ascending" : "descending") : null;
    return element("th", { scope: "col", class: c.left ? "left" : null, "aria-sort": order, title: c.hint }, title);
  });
  const body = ordered.slice(0, limit).map((row) =>
    element(
      "tr",
      attributes ? attributes(row) : {},
      ...kept.map((c) => {
        const content = c.show ? c.show(row) : String(c.value(row) ?? "–");
        return element(c.head ? "th" : "td", { class: c.left ? "left" : null, scope: c.head ? "row" : null }, content);
      }),
    ),
  );
  return element(
    "table",
    {},
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...body),
  );
}

function compared(a, b, sign) {
  const missing = (a === null || a === undefined) - (b === null || b === undefined);
  return missing || sign * (a < b ? -1 : a > b ? 1 : 0);
}
