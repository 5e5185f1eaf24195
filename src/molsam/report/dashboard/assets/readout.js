// What a plot says under the pointer or the keyboard's cursor; zoom; the picture as a file.

class Readout {
  constructor(host, state, svg, spec, axis, inner) {
    Object.assign(this, { host, state, svg, spec, axis, inner, place: -1, from: null });
    this.cursor = svg.querySelector(".cursor");
    this.tip = host.querySelector(".tip");
    this.stops = [...new Set(spec.lines.filter((l) => !l.faint).flatMap((l) => l.x))].sort((a, b) => a - b);
    svg.addEventListener("pointermove", (event) => this.move(...this.at(event)));
    svg.addEventListener("pointerleave", () => {
      this.from = null;
      this.hide();
    });
    svg.addEventListener("pointerdown", (event) => {
      // A finger scrolls the page, a mouse draws the part to zoom to.
      if (event.pointerType === "mouse" && event.button === 0) this.from = this.at(event);
    });
    svg.addEventListener("pointerup", (event) => this.release(this.at(event)));
    svg.addEventListener("dblclick", () => this.zoom(null));
    svg.addEventListener("keydown", (event) => this.key(event));
    svg.addEventListener("blur", () => this.hide());
  }

  at(event) {
    const box = this.svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  hide() {
    this.cursor.replaceChildren();
    this.tip.replaceChildren();
    this.tip.style.display = "none";
  }

  show(x, y, rows, head) {
    const row = ([color, text]) => element("div", {}, element("span", { class: "dot", style: { background: color } }), text);
    this.tip.replaceChildren(element("strong", {}, head), ...rows.map(row));
    this.tip.style.display = "block";
    this.tip.style.left = `${Math.max(0, Math.min(x + 14, this.svg.clientWidth - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${Math.max(0, y - this.tip.offsetHeight - 12)}px`;
  }

  showStop(place, y = this.inner.y + 60) {
    // The values of all lines at one x.
    this.place = Math.max(0, Math.min(this.stops.length - 1, place));
    const x = this.stops[this.place],
      at = this.axis.x(x);
    this.cursor.replaceChildren(shape("line", { x1: at, x2: at, y1: this.inner.y, y2: this.inner.y + this.inner.height }));
    this.show(at, y, readings(this.spec, x), `${this.spec.x.title} ${short(x)}`);
  }

  showPoint(p, x = this.axis.x(p.x), y = this.axis.y(p.y)) {
    this.cursor.replaceChildren(shape("circle", { cx: this.axis.x(p.x), cy: this.axis.y(p.y), r: 9 }));
    this.show(x, y, [[p.color || "var(--grey)", p.text || `${short(p.x)}, ${short(p.y)}`]], p.name || "");
  }

  move(x, y) {
    if (this.from) {
      const [a, b] = this.from;
      const box = { x: Math.min(x, a), y: Math.min(y, b), width: Math.abs(x - a), height: Math.abs(y - b) };
      this.cursor.replaceChildren(shape("rect", box));
      return;
    }
    const near = nearest(this.spec, this.axis, x, y);
    if (near) this.showPoint(near, x, y);
    else if (this.stops.length && x > this.inner.x && x < this.inner.x + this.inner.width) this.showStop(this.closest(x), y);
    else this.hide();
  }

  closest(x) {
    const away = (place) => Math.abs(this.axis.x(this.stops[place]) - x);
    return this.stops.reduce((best, _, place) => (away(place) < away(best) ? place : best), 0);
  }

  release(to) {
    const from = this.from;
    this.from = null;
    if (from && Math.abs(to[0] - from[0]) > 8 && Math.abs(to[1] - from[1]) > 8) {
      const sides = (i, s) => [s.back(from[i]), s.back(to[i])].sort((a, b) => a - b);
      this.zoom({ x: sides(0, this.axis.x), y: sides(1, this.axis.y) });
    } else nearest(this.spec, this.axis, ...to)?.openRun?.();
  }

  zoom(box) {
    this.state.zoom = box;
    paint(this.host, this.state);
  }

  key(event) {
    if (event.key === "Escape" && this.state.zoom) this.zoom(null);
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const dots = this.spec.points.filter((p) => !p.faint);
    if (this.stops.length) this.showStop(this.place + step);
    else if (dots.length) {
      this.place = Math.max(0, Math.min(dots.length - 1, this.place + step));
      this.showPoint(dots[this.place]);
    }
  }
}

function readings(spec, x) {
  return spec.lines
    .filter((l) => !l.faint && l.name)
    .map((l) => [l, l.y[l.x.indexOf(x)]])
    .filter(([, y]) => finite([y]).length)
    .sort((a, b) => b[1] - a[1])
    .slice(0, 12)
    .map(([l, y]) => [l.color, `${l.name} ${short(y)}`]);
}

function nearest(spec, axis, x, y) {
  let best = null,
    distance = 14;
  for (const p of spec.points) {
    const away = Math.hypot(axis.x(p.x) - x, axis.y(p.y) - y) + (p.faint ? 4 : 0);
    if (away < distance) {
      best = p;
      distance = away;
    }
  }
  return best;
}

function saveImage(host, name) {
  // The picture as a file of its own: colours are written out, as it has no style sheet.
  const svg = host.querySelector("svg");
  if (!svg) return;
  const probe = document.body.appendChild(element("span", {})),
    copy = svg.cloneNode(true);
  const written = (variable) => {
    probe.style.color = `var(${variable})`;
    return getComputedStyle(probe).color;
  };
  const rules =
    "text{font:12px sans-serif;fill:var(--ink)}.grid{stroke:var(--line)}.axis,.tick{stroke:var(--soft)}.curve,.faint,.whisker{fill:none;stroke-width:2}.faint{stroke-width:1;opacity:.5}.band{opacity:.15}.mark{stroke-dasharray:2 4}";
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.prepend(shape("style", {}, rules), shape("rect", { width: "100%", height: "100%", style: { fill: "var(--paper)" } }));
  const text = copy.outerHTML.replace(/var\((--[\w-]+)\)/g, (_, variable) => written(variable));
  probe.remove();
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "image/svg+xml" })), download: `${name}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
