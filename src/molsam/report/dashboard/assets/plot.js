// Line and point plots in SVG.

const states = new WeakMap(); // host -> { spec, zoom, whole, width, watch }

function plot(host, spec) {
  // spec: {label, x: {title, log}, y: {title, log, range}, lines, points, marks, diagonal, height}
  let state = states.get(host);
  if (!state) {
    state = { zoom: null, whole: false, width: 0 };
    state.watch = new ResizeObserver(() => {
      if (host.clientWidth !== state.width) paint(host, state);
    });
    states.set(host, state);
    state.watch.observe(host);
  }
  if (state.spec && (state.spec.x.title !== spec.x.title || state.spec.y.title !== spec.y.title))
    Object.assign(state, { zoom: null, whole: false });
  state.spec = spec;
  paint(host, state);
}

function paint(host, state) {
  const spec = { lines: [], points: [], marks: [], height: 300, ...state.spec };
  const width = (state.width = host.clientWidth);
  if (width < 60) return;
  const height = width < 420 ? Math.min(spec.height, 250) : width > 800 ? spec.height * 1.2 : spec.height;
  const axis = axes(spec, state, width, height);
  if (!axis) {
    host.replaceChildren(element("p", { class: "quiet" }, "Nothing to draw."));
    return;
  }
  const id = `clip-${host.id || Math.random().toString(36).slice(2)}`;
  const inner = { x: PAD.left, y: PAD.top, width: width - PAD.left - axis.right, height: height - PAD.top - PAD.bottom };
  const svg = shape(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": `${spec.label}. ${spoken(spec)}` },
    shape("defs", {}, shape("clipPath", { id }, shape("rect", inner))),
    grid(spec, axis, width, height),
    shape(
      "g",
      { "clip-path": `url(#${id})` },
      ...references(spec, axis, inner),
      ...spec.lines.filter((l) => l.faint).map((l) => line(l, axis)),
      ...spec.points.filter((p) => p.faint).map((p) => point(p, axis)),
      ...spec.lines.filter((l) => !l.faint).map((l) => line(l, axis)),
      ...spec.points.filter((p) => !p.faint).map((p) => point(p, axis)),
    ),
    ...named(spec, axis, width, height),
    ...cut(spec, axis, inner),
    shape("g", { class: "cursor" }),
  );
  const focused = document.activeElement && host.contains(document.activeElement);
  host.replaceChildren(svg, element("div", { class: "tip", "aria-live": "polite" }), note(host, state, spec, axis));
  if (focused) svg.focus({ preventScroll: true });
  new Readout(host, state, svg, spec, axis, inner);
}

function spoken(spec) {
  const ends = spec.lines.filter((l) => !l.faint && l.name).map((l) => `${l.name} ends at ${short(finite(l.y).at(-1))}`);
  const dots = spec.points.filter((p) => !p.faint && p.name).map((p) => `${p.name} ${short(p.y)} at ${short(p.x)}`);
  return [...ends, ...dots].slice(0, MOST).join("; ");
}

function grid(spec, axis, width, height) {
  const bottom = height - PAD.bottom,
    parts = [];
  for (const v of ticks(axis.x.range, spec.x.log, Math.max(2, Math.floor((width - PAD.left) / 80)))) {
    parts.push(shape("text", { x: axis.x(v), y: bottom + 16, "text-anchor": "middle" }, short(v)));
    parts.push(shape("line", { class: "tick", x1: axis.x(v), x2: axis.x(v), y1: bottom, y2: bottom + 4 }));
  }
  for (const v of ticks(axis.y.range, spec.y.log, 6)) {
    parts.push(shape("line", { class: "grid", x1: PAD.left, x2: width - axis.right, y1: axis.y(v), y2: axis.y(v) }));
    parts.push(shape("text", { x: PAD.left - 6, y: axis.y(v) + 4, "text-anchor": "end" }, short(v)));
  }
  parts.push(shape("line", { class: "axis", x1: PAD.left, x2: width - axis.right, y1: bottom, y2: bottom }));
  parts.push(
    shape("text", { class: "title", x: (PAD.left + width - axis.right) / 2, y: height - 5, "text-anchor": "middle" }, spec.x.title),
  );
  const middle = (PAD.top + bottom) / 2;
  parts.push(
    shape("text", { class: "title", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, spec.y.title),
  );
  return shape("g", { class: "axes" }, ...parts);
}

function path(xs, ys, axis) {
  let text = "",
    pen = false;
  xs.forEach((x, i) => {
    const y = ys[i],
      there = y !== null && y !== undefined && Number.isFinite(y) && Number.isFinite(axis.x(x)) && Number.isFinite(axis.y(y));
    if (there) text += `${pen ? "L" : "M"}${axis.x(x).toFixed(1)} ${Math.max(-2000, Math.min(4000, axis.y(y))).toFixed(1)}`;
    pen = there;
  });
  return text;
}

function line(l, axis) {
  const style = { stroke: l.color || "var(--grey)" },
    single = finite(l.y).length === 1;
  const kind = l.faint ? "faint" : "curve";
  const band =
    l.low && !l.faint
      ? shape("path", {
          class: "band",
          style: { fill: l.color, opacity: l.veil || 0.13 },
          d: path([...l.x, ...l.x.slice().reverse()], [...l.high, ...l.low.slice().reverse()], axis).replace(/(?!^)M/g, "L") + "Z",
        })
      : null;
  const dot = single ? l.x.map((x, i) => [x, l.y[i]]).find(([, y]) => finite([y]).length) : null;
  return shape(
    "g",
    { class: l.key ? "series" : null, "data-key": l.key },
    band,
    dot
      ? shape("circle", { cx: axis.x(dot[0]), cy: axis.y(dot[1]), r: l.faint ? 2 : 4, style: { fill: style.stroke } })
      : shape("path", { class: kind, d: path(l.x, l.y, axis), style, "stroke-dasharray": l.dash || null }),
  );
}

const OUTLINES = {
  circle: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
  square: "M-4.5-4.5h9v9h-9z",
  diamond: "M0-6L6 0L0 6L-6 0z",
  up: "M0-6L6 5H-6z",
  down: "M0 6L6-5H-6z",
  cross: "M-5-5L5 5M-5 5L5-5",
  plus: "M0-6V6M-6 0H6",
  bar: "M-6-2h12v4h-12z",
};

function symbol(name, color, at = "") {
  const open = name === "cross" || name === "plus";
  return shape("path", {
    class: "symbol",
    d: OUTLINES[name],
    transform: at,
    style: open ? { stroke: color, "stroke-width": 2.5, fill: "none" } : { fill: color },
  });
}

function point(p, axis) {
  const [x, y] = [axis.x(p.x), axis.y(p.y)],
    color = p.color || "var(--grey)";
  if (p.size)
    return shape("circle", {
      class: p.faint ? "dot faint" : "dot",
      cx: x,
      cy: y,
      r: p.size,
      style: p.open ? { stroke: color, fill: "none" } : { fill: color },
    });
  const whisker =
    p.low === null || p.low === undefined
      ? null
      : shape("path", { class: "whisker", style: { stroke: color }, d: `M${x} ${axis.y(p.low)}V${axis.y(p.high)}` });
  return shape("g", { class: "series", "data-key": p.key }, whisker, symbol(p.symbol || "circle", color, `translate(${x} ${y})`));
}

function references(spec, axis, inner) {
  const found = spec.marks.map((m) =>
    shape("line", {
      class: "mark",
      style: { stroke: m.color || "var(--soft)" },
      x1: inner.x,
      x2: inner.x + inner.width,
      y1: axis.y(m.y),
      y2: axis.y(m.y),
    }),
  );
  if (spec.diagonal)
    found.push(
      shape("line", {
        class: "mark",
        style: { stroke: "var(--soft)" },
        x1: axis.x(axis.x.range[0]),
        y1: axis.y(axis.x.range[0]),
        x2: axis.x(axis.x.range[1]),
        y2: axis.y(axis.x.range[1]),
      }),
    );
  return found;
}

function named(spec, axis, width, height) {
  // The names of references in the right margin, moved apart so that none covers another.
  if (axis.right === PAD.right) return [];
  const lowest = height - PAD.bottom + 4,
    there = spec.marks
      .map((m) => ({ ...m, at: axis.y(m.y) + 4 }))
      .filter((m) => m.at > PAD.top && m.at <= lowest)
      .sort((a, b) => a.at - b.at);
  there.forEach((m, i) => {
    if (i) m.at = Math.max(m.at, there[i - 1].at + 13);
  });
  there.toReversed().forEach((m, i, all) => {
    m.at = Math.min(m.at, i ? all[i - 1].at - 13 : lowest);
  });
  return there.map((m) =>
    shape("text", { class: "name", x: width - axis.right + 6, y: m.at, style: { fill: m.color || "var(--soft)" } }, m.name),
  );
}

function outside(spec, axis) {
  // Where lines and points leave the axes, each once a side.
  const [low, high] = axis.y.range,
    found = [];
  const see = (x, y, color) => {
    if (x < axis.x.range[0] || x > axis.x.range[1] || !Number.isFinite(axis.y(y))) return;
    if (y > high) found.push({ x, y, color, up: true });
    else if (y < low) found.push({ x, y, color, up: false });
  };
  for (const l of spec.lines.filter((one) => !one.faint)) {
    const most = l.y.reduce((best, y, i) => (finite([y]).length && (best === null || y > l.y[best]) ? i : best), null);
    const least = l.y.reduce((best, y, i) => (finite([y]).length && (best === null || y < l.y[best]) ? i : best), null);
    for (const i of new Set([most, least])) if (i !== null) see(l.x[i], l.y[i], l.color);
  }
  for (const p of spec.points) if (!p.faint) see(p.x, p.y, p.color);
  return found;
}

function cut(spec, axis, inner) {
  return outside(spec, axis).map(({ x, color, up }) => {
    const top = up ? inner.y : inner.y + inner.height - 7,
      at = axis.x(x);
    return shape("path", {
      class: "beyond",
      style: { fill: color || "var(--soft)" },
      d: up ? `M${at} ${top}l5 7h-10z` : `M${at} ${top + 7}l5-7h-10z`,
    });
  });
}

function note(host, state, spec, axis) {
  const out = outside(spec, axis),
    ups = out.filter((o) => o.up),
    downs = out.filter((o) => !o.up),
    parts = [];
  if (ups.length) parts.push(`up to ${short(Math.max(...ups.map((o) => o.y)))}`);
  if (downs.length) parts.push(`down to ${short(Math.min(...downs.map((o) => o.y)))}`);
  const again = (change) => () => {
    Object.assign(state, change);
    paint(host, state);
  };
  const text = state.zoom ? "Zoomed. " : out.length ? `The axis is cut; triangles mark values beyond it (${parts.join(", ")}). ` : "";
  const button = state.zoom
    ? element("button", { type: "button", onclick: again({ zoom: null }) }, "Reset")
    : state.whole
      ? element("button", { type: "button", onclick: again({ whole: false }) }, "Cut outliers off")
      : out.length
        ? element("button", { type: "button", onclick: again({ whole: true }) }, "Whole range")
        : null;
  const key = spec.key
    ? spec.lines.map((l) => element("span", {}, element("span", { class: "dot", style: { background: l.color } }), l.name))
    : [];
  const dotted = spec.marks.length && axis.right > PAD.right ? "Dotted: the paper's values. " : "";
  return element("p", { class: "note" }, element("span", {}, text + dotted + (spec.remark || "")), key, button);
}
