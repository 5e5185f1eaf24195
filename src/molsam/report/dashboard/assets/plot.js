// Line and point plots in SVG: robust axes, one readout for pointer and keyboard, zoom by dragging.

const PAD = { left: 60, right: 14, top: 10, bottom: 40 };
const states = new WeakMap(); // host -> {spec, zoom, whole, watch}

function plot(host, spec) {
  // spec: {label, x: {title, log}, y: {title, log, range}, lines, points, marks, diagonal, height}
  let state = states.get(host);
  if (!state) {
    state = { zoom: null, whole: false, width: 0 };
    state.watch = new ResizeObserver(() => { if (host.clientWidth !== state.width) paint(host, state); });
    states.set(host, state);
    state.watch.observe(host);
  }
  if (state.spec && (state.spec.x.title !== spec.x.title || state.spec.y.title !== spec.y.title)) Object.assign(state, { zoom: null, whole: false });
  state.spec = spec;
  paint(host, state);
}

const finite = (values) => values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));

function extent(values, log) {
  const kept = finite(values).filter((v) => !log || v > 0);
  let low = Infinity, high = -Infinity;
  for (const v of kept) { if (v < low) low = v; if (v > high) high = v; }
  return kept.length ? [low, high] : null;
}

function robust(values, log) {
  // The range without outliers: what lies three quartile ranges beyond the quartiles is cut off.
  const whole = extent(values, log);
  const sorted = finite(values).filter((v) => !log || v > 0).sort((a, b) => a - b);
  if (log || sorted.length < 5) return whole;
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [first, third] = [at(0.25), at(0.75)], room = 3 * (third - first);
  const low = sorted.find((v) => v >= first - room), high = sorted.findLast((v) => v <= third + room);
  return room === 0 || whole[1] - whole[0] < 2 * (high - low) ? whole : [low, high];
}

function settled(lines, log) {
  // The range of what curves come to: their way there may take as much room again, and is cut off beyond that.
  const late = lines.flatMap((l) => { const from = l.x[0] + 0.35 * (l.x.at(-1) - l.x[0]); return l.y.filter((_, i) => l.x[i] >= from); });
  const range = robust(late, log), whole = extent(lines.flatMap((l) => l.y), log);
  if (!range || log) return whole;
  const span = range[1] - range[0] || Math.abs(range[1]) * 0.1;
  return [Math.max(whole[0], range[0] - span), Math.min(whole[1], range[1] + span)];
}

function padded([low, high], log) {
  if (log) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

function ticks([low, high], log, most) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    }
    const inside = found.filter((v) => v >= low && v <= high), tens = inside.filter((v) => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9);
    const kept = inside.length > most && tens.length > 2 ? tens : inside;
    if (kept.length > 2) return kept.filter((_, i) => i % Math.ceil(kept.length / most) === 0);
  }
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((one) => one >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12) + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function scale(range, from, to, log) {
  const f = log ? Math.log10 : (v) => v, [a, b] = range.map(f);
  const make = (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
  make.back = (p) => { const v = a + ((p - from) / (to - from)) * (b - a); return log ? 10 ** v : v; };
  make.range = range;
  return make;
}

function axes(spec, state, width, height) {
  const lead = spec.lines.filter((l) => !l.faint), dots = spec.points.filter((p) => !p.faint);
  const shown = lead.length || dots.length ? { lines: lead, points: dots } : spec;
  const xs = [...shown.lines.flatMap((l) => l.x), ...spec.points.map((p) => p.x)];
  const ys = [...shown.lines.flatMap((l) => l.y), ...shown.points.map((p) => p.y)];
  const own = [...ys, ...spec.marks.map((m) => m.y), ...shown.points.flatMap((p) => [p.low, p.high])];
  const fit = state.whole ? extent : robust;
  const xr = spec.x.range || (spec.points.length ? fit : extent)(xs, spec.x.log), yr = spec.y.range || widened(spec.settles && !state.whole ? settled(shown.lines, spec.y.log) : fit(ys, spec.y.log), own, spec.y.log);
  if (!xr || !yr) return null;
  const zoom = state.zoom, right = PAD.right + (spec.marks.length && width > 420 ? 104 : 0);
  return {
    right,
    x: scale(zoom ? zoom.x : padded(xr, spec.x.log), PAD.left, width - right, spec.x.log),
    y: scale(zoom ? zoom.y : spec.y.range || padded(yr, spec.y.log), height - PAD.bottom, PAD.top, spec.y.log),
  };
}

function widened(range, more, log) {
  // References and whiskers are shown too, unless they lie far off.
  if (!range) return range;
  const span = range[1] - range[0] || Math.abs(range[1]) || 1;
  const near = finite(more).filter((v) => (!log || v > 0) && v > range[0] - 1.5 * span && v < range[1] + 1.5 * span);
  return extent([...range, ...near], log);
}

function paint(host, state) {
  const spec = { lines: [], points: [], marks: [], height: 300, ...state.spec };
  const width = state.width = host.clientWidth;
  if (width < 60) return;
  const height = width < 420 ? Math.min(spec.height, 250) : width > 800 ? spec.height * 1.2 : spec.height;
  const axis = axes(spec, state, width, height);
  if (!axis) { host.replaceChildren(element("p", { class: "quiet" }, "Nothing to draw.")); return; }
  const id = `clip-${host.id || Math.random().toString(36).slice(2)}`;
  const inner = { x: PAD.left, y: PAD.top, width: width - PAD.left - axis.right, height: height - PAD.top - PAD.bottom };
  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": `${spec.label}. ${spoken(spec)}` },
    shape("defs", {}, shape("clipPath", { id }, shape("rect", inner))),
    grid(spec, axis, width, height),
    shape("g", { "clip-path": `url(#${id})` }, ...references(spec, axis, inner), ...spec.lines.filter((l) => l.faint).map((l) => line(l, axis)),
      ...spec.points.filter((p) => p.faint).map((p) => point(p, axis)), ...spec.lines.filter((l) => !l.faint).map((l) => line(l, axis)), ...spec.points.filter((p) => !p.faint).map((p) => point(p, axis))),
    ...named(spec, axis, width, height), ...cut(spec, axis, inner), shape("g", { class: "cursor" }));
  const focused = document.activeElement && host.contains(document.activeElement);
  host.replaceChildren(svg, element("div", { class: "tip", "aria-live": "polite" }), note(host, state, spec, axis));
  if (focused) svg.focus({ preventScroll: true });
  listen(host, state, svg, spec, axis, inner);
}

function spoken(spec) {
  const ends = spec.lines.filter((l) => !l.faint && l.name).map((l) => `${l.name} ends at ${short(finite(l.y).at(-1))}`);
  const dots = spec.points.filter((p) => !p.faint && p.name).map((p) => `${p.name} ${short(p.y)} at ${short(p.x)}`);
  return [...ends, ...dots].slice(0, MOST).join("; ");
}

function grid(spec, axis, width, height) {
  const bottom = height - PAD.bottom, parts = [];
  for (const v of ticks(axis.x.range, spec.x.log, Math.max(2, Math.floor((width - PAD.left) / 80)))) {
    parts.push(shape("text", { x: axis.x(v), y: bottom + 16, "text-anchor": "middle" }, short(v)));
    parts.push(shape("line", { class: "tick", x1: axis.x(v), x2: axis.x(v), y1: bottom, y2: bottom + 4 }));
  }
  for (const v of ticks(axis.y.range, spec.y.log, 6)) {
    parts.push(shape("line", { class: "grid", x1: PAD.left, x2: width - axis.right, y1: axis.y(v), y2: axis.y(v) }));
    parts.push(shape("text", { x: PAD.left - 6, y: axis.y(v) + 4, "text-anchor": "end" }, short(v)));
  }
  parts.push(shape("line", { class: "axis", x1: PAD.left, x2: width - axis.right, y1: bottom, y2: bottom }));
  parts.push(shape("text", { class: "title", x: (PAD.left + width - axis.right) / 2, y: height - 5, "text-anchor": "middle" }, spec.x.title));
  const middle = (PAD.top + bottom) / 2;
  parts.push(shape("text", { class: "title", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, spec.y.title));
  return shape("g", { class: "axes" }, ...parts);
}

function path(xs, ys, axis) {
  let text = "", pen = false;
  xs.forEach((x, i) => {
    const y = ys[i], there = y !== null && y !== undefined && Number.isFinite(y) && Number.isFinite(axis.x(x)) && Number.isFinite(axis.y(y));
    if (there) text += `${pen ? "L" : "M"}${axis.x(x).toFixed(1)} ${Math.max(-2000, Math.min(4000, axis.y(y))).toFixed(1)}`;
    pen = there;
  });
  return text;
}

function line(l, axis) {
  const style = { stroke: l.color || "var(--grey)" }, single = finite(l.y).length === 1;
  const kind = l.faint ? "faint" : "curve";
  const band = l.low && !l.faint ? shape("path", { class: "band", style: { fill: l.color, opacity: l.veil || 0.13 },
    d: path([...l.x, ...l.x.slice().reverse()], [...l.high, ...l.low.slice().reverse()], axis).replace(/(?!^)M/g, "L") + "Z" }) : null;
  const dot = single ? l.x.map((x, i) => [x, l.y[i]]).find(([, y]) => finite([y]).length) : null;
  return shape("g", { class: l.key ? "series" : null, "data-key": l.key }, band,
    dot ? shape("circle", { cx: axis.x(dot[0]), cy: axis.y(dot[1]), r: l.faint ? 2 : 4, style: { fill: style.stroke } })
      : shape("path", { class: kind, d: path(l.x, l.y, axis), style, "stroke-dasharray": l.dash || null }));
}

const OUTLINES = {
  circle: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", square: "M-4.5-4.5h9v9h-9z", diamond: "M0-6L6 0L0 6L-6 0z", up: "M0-6L6 5H-6z", down: "M0 6L6-5H-6z",
  cross: "M-5-5L5 5M-5 5L5-5", plus: "M0-6V6M-6 0H6", bar: "M-6-2h12v4h-12z",
};

function symbol(name, color, at = "") {
  const open = name === "cross" || name === "plus";
  return shape("path", { class: "symbol", d: OUTLINES[name], transform: at, style: open ? { stroke: color, "stroke-width": 2.5, fill: "none" } : { fill: color } });
}

function point(p, axis) {
  const [x, y] = [axis.x(p.x), axis.y(p.y)], color = p.color || "var(--grey)";
  if (p.size) return shape("circle", { class: p.faint ? "dot faint" : "dot", cx: x, cy: y, r: p.size, style: p.open ? { stroke: color, fill: "none" } : { fill: color } });
  const whisker = p.low === null || p.low === undefined ? null : shape("path", { class: "whisker", style: { stroke: color }, d: `M${x} ${axis.y(p.low)}V${axis.y(p.high)}` });
  return shape("g", { class: "series", "data-key": p.key }, whisker, symbol(p.symbol || "circle", color, `translate(${x} ${y})`));
}

function references(spec, axis, inner) {
  const found = spec.marks.map((m) => shape("line", { class: "mark", style: { stroke: m.color || "var(--soft)" }, x1: inner.x, x2: inner.x + inner.width, y1: axis.y(m.y), y2: axis.y(m.y) }));
  if (spec.diagonal) found.push(shape("line", { class: "mark", style: { stroke: "var(--soft)" }, x1: axis.x(axis.x.range[0]), y1: axis.y(axis.x.range[0]), x2: axis.x(axis.x.range[1]), y2: axis.y(axis.x.range[1]) }));
  return found;
}

function named(spec, axis, width, height) {
  // The names of references in the right margin, moved apart so that none covers another.
  if (axis.right === PAD.right) return [];
  const lowest = height - PAD.bottom + 4, there = spec.marks.map((m) => ({ ...m, at: axis.y(m.y) + 4 })).filter((m) => m.at > PAD.top && m.at <= lowest).sort((a, b) => a.at - b.at);
  there.forEach((m, i) => { if (i) m.at = Math.max(m.at, there[i - 1].at + 13); });
  there.toReversed().forEach((m, i, all) => { m.at = Math.min(m.at, i ? all[i - 1].at - 13 : lowest); });
  return there.map((m) => shape("text", { class: "name", x: width - axis.right + 6, y: m.at, style: { fill: m.color || "var(--soft)" } }, m.name));
}

function outside(spec, axis) {
  // Where lines and points leave the axes, each once a side.
  const [low, high] = axis.y.range, found = [];
  const see = (x, y, color) => {
    if (x < axis.x.range[0] || x > axis.x.range[1] || !Number.isFinite(axis.y(y))) return;
    if (y > high) found.push({ x, y, color, up: true }); else if (y < low) found.push({ x, y, color, up: false });
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
    const top = up ? inner.y : inner.y + inner.height - 7, at = axis.x(x);
    return shape("path", { class: "beyond", style: { fill: color || "var(--soft)" }, d: up ? `M${at} ${top}l5 7h-10z` : `M${at} ${top + 7}l5-7h-10z` });
  });
}

function note(host, state, spec, axis) {
  const out = outside(spec, axis), ups = out.filter((o) => o.up), downs = out.filter((o) => !o.up), parts = [];
  if (ups.length) parts.push(`up to ${short(Math.max(...ups.map((o) => o.y)))}`);
  if (downs.length) parts.push(`down to ${short(Math.min(...downs.map((o) => o.y)))}`);
  const again = (change) => () => { Object.assign(state, change); paint(host, state); };
  const text = state.zoom ? "Zoomed. " : out.length ? `The axis is cut; ▲ marks values beyond it (${parts.join(", ")}). ` : "";
  const button = state.zoom ? element("button", { type: "button", onclick: again({ zoom: null }) }, "Reset")
    : state.whole ? element("button", { type: "button", onclick: again({ whole: false }) }, "Cut outliers off")
      : out.length ? element("button", { type: "button", onclick: again({ whole: true }) }, "Whole range") : null;
  const key = spec.key ? spec.lines.map((l) => element("span", {}, element("span", { class: "dot", style: { background: l.color } }), l.name)) : [];
  const dotted = spec.marks.length && axis.right > PAD.right ? "Dotted: the paper's values. " : "";
  return element("p", { class: "note" }, element("span", {}, text + dotted + (spec.remark || "")), key, button);
}

function listen(host, state, svg, spec, axis, inner) {
  const cursor = svg.querySelector(".cursor"), tip = host.querySelector(".tip");
  const stops = [...new Set(spec.lines.filter((l) => !l.faint).flatMap((l) => l.x))].sort((a, b) => a - b);
  let place = -1, from = null;
  const hide = () => { cursor.replaceChildren(); tip.replaceChildren(); tip.style.display = "none"; };
  const at = (event) => { const box = svg.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const show = (x, y, rows, head) => {
    tip.replaceChildren(element("strong", {}, head), ...rows.map(([color, text]) => element("div", {}, element("span", { class: "dot", style: { background: color } }), text)));
    tip.style.display = "block";
    tip.style.left = `${Math.max(0, Math.min(x + 14, svg.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(0, y - tip.offsetHeight - 12)}px`;
  };
  const stop = (i, y = inner.y + 60) => {
    place = Math.max(0, Math.min(stops.length - 1, i));
    const x = stops[place], rows = readings(spec, x);
    cursor.replaceChildren(shape("line", { x1: axis.x(x), x2: axis.x(x), y1: inner.y, y2: inner.y + inner.height }));
    show(axis.x(x), y, rows, `${spec.x.title} ${short(x)}`);
  };
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (from) { cursor.replaceChildren(shape("rect", { x: Math.min(x, from[0]), y: Math.min(y, from[1]), width: Math.abs(x - from[0]), height: Math.abs(y - from[1]) })); return; }
    const near = nearest(spec, axis, x, y);
    if (near) { cursor.replaceChildren(shape("circle", { cx: axis.x(near.x), cy: axis.y(near.y), r: 9 })); show(x, y, [[near.color || "var(--grey)", near.text || `${short(near.x)}, ${short(near.y)}`]], near.name || ""); }
    else if (stops.length && x > inner.x && x < inner.x + inner.width) stop(stops.reduce((best, v, i) => (Math.abs(axis.x(v) - x) < Math.abs(axis.x(stops[best]) - x) ? i : best), 0), y);
    else hide();
  });
  svg.addEventListener("pointerleave", () => { from = null; hide(); });
  svg.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse" && event.button === 0) from = at(event); });
  svg.addEventListener("pointerup", (event) => {
    const to = at(event), start = from;
    from = null;
    if (start && Math.abs(to[0] - start[0]) > 8 && Math.abs(to[1] - start[1]) > 8) {
      const sides = (i, s) => [s.back(start[i]), s.back(to[i])].sort((a, b) => a - b);
      state.zoom = { x: sides(0, axis.x), y: sides(1, axis.y) };
      paint(host, state);
    } else {
      const near = nearest(spec, axis, ...to);
      if (near && near.open_run) near.open_run();
    }
  });
  svg.addEventListener("dblclick", () => { state.zoom = null; paint(host, state); });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") { state.zoom = null; paint(host, state); }
    if (step === undefined) return;
    event.preventDefault();
    if (stops.length) stop(place + step);
    else if (spec.points.length) {
      const dots = spec.points.filter((p) => !p.faint);
      place = Math.max(0, Math.min(dots.length - 1, place + step));
      const p = dots[place];
      if (p) { cursor.replaceChildren(shape("circle", { cx: axis.x(p.x), cy: axis.y(p.y), r: 9 })); show(axis.x(p.x), axis.y(p.y), [[p.color || "var(--grey)", p.text || ""]], p.name || ""); }
    }
  });
  svg.addEventListener("blur", hide);
}

function readings(spec, x) {
  return spec.lines.filter((l) => !l.faint && l.name).map((l) => [l, l.y[l.x.indexOf(x)]]).filter(([, y]) => finite([y]).length)
    .sort((a, b) => b[1] - a[1]).slice(0, 12).map(([l, y]) => [l.color, `${l.name} ${short(y)}`]);
}

function nearest(spec, axis, x, y) {
  let best = null, distance = 14;
  for (const p of spec.points) {
    const away = Math.hypot(axis.x(p.x) - x, axis.y(p.y) - y) + (p.faint ? 4 : 0);
    if (away < distance) { best = p; distance = away; }
  }
  return best;
}

function saveImage(host, name) {
  // The picture as a file of its own: colours are written out, as it has no style sheet.
  const svg = host.querySelector("svg");
  if (!svg) return;
  const probe = document.body.appendChild(element("span", {})), copy = svg.cloneNode(true);
  const written = (variable) => { probe.style.color = `var(${variable})`; return getComputedStyle(probe).color; };
  const rules = "text{font:12px sans-serif;fill:var(--ink)}.grid{stroke:var(--line)}.axis,.tick{stroke:var(--soft)}.curve,.faint,.whisker{fill:none;stroke-width:2}.faint{stroke-width:1;opacity:.5}.band{opacity:.15}.mark{stroke-dasharray:2 4}";
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.prepend(shape("style", {}, rules), shape("rect", { width: "100%", height: "100%", style: { fill: "var(--paper)" } }));
  const text = copy.outerHTML.replace(/var\((--[\w-]+)\)/g, (_, variable) => written(variable));
  probe.remove();
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "image/svg+xml" })), download: `${name}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
