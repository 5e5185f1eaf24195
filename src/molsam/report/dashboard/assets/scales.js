// Ranges without outliers, ticks, and the way from values to pixels.

const PAD = { left: 70, right: 14, top: 10, bottom: 40 };

const finite = (values) => values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));

function extent(values, log) {
  const kept = finite(values).filter((v) => !log || v > 0);
  let low = Infinity,
    high = -Infinity;
  for (const v of kept) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return kept.length ? [low, high] : null;
}

const FEW = 20; // of fewer values, one is cut off only if the rest would have less than a tenth of the axis
const SHORT = 10; // curves of fewer points are shown whole
const goodSide = (direction) => (/^max/.test(direction) ? "high" : "low");

function robust(values, log, good) {
  // The range without outliers: what lies three quartile ranges beyond the quartiles is cut off, but never on the
  // good side ("low" or "high"), where the best values are.
  const whole = extent(values, log);
  const sorted = finite(values)
    .filter((v) => !log || v > 0)
    .sort((a, b) => a - b);
  if (log || sorted.length < 5) return whole;
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [first, third] = [at(0.25), at(0.75)],
    room = 3 * (third - first);
  const low = good === "low" ? whole[0] : sorted.find((v) => v >= first - room),
    high = good === "high" ? whole[1] : sorted.findLast((v) => v <= third + room);
  return room === 0 || whole[1] - whole[0] < (sorted.length < FEW ? 10 : 2) * (high - low) ? whole : [low, high];
}

function settled(lines, log, good) {
  // The range of what curves come to: their way there may take as much room again, and is cut off beyond that.
  const late = lines.flatMap((l) => {
    const from = l.x[0] + 0.35 * (l.x.at(-1) - l.x[0]);
    return l.y.filter((_, i) => l.x[i] >= from);
  });
  const range = robust(late, log, good),
    whole = extent(
      lines.flatMap((l) => l.y),
      log,
    );
  if (!range || log || lines.every((l) => l.x.length < SHORT)) return whole;
  const span = range[1] - range[0] || Math.abs(range[1]) * 0.1;
  return [
    good === "low" ? whole[0] : Math.max(whole[0], range[0] - span),
    good === "high" ? whole[1] : Math.min(whole[1], range[1] + span),
  ];
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
    const inside = found.filter((v) => v >= low && v <= high),
      tens = inside.filter((v) => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9);
    const kept = inside.length > most && tens.length > 2 ? tens : inside;
    if (kept.length > 2) return kept.filter((_, i) => i % Math.ceil(kept.length / most) === 0);
  }
  const raw = (high - low) / most,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((one) => one >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12) + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function scale(range, from, to, log) {
  const f = log ? Math.log10 : (v) => v,
    [a, b] = range.map(f);
  const make = (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
  make.back = (p) => {
    const v = a + ((p - from) / (to - from)) * (b - a);
    return log ? 10 ** v : v;
  };
  make.range = range;
  return make;
}

function axes(spec, state, width, height) {
  const lead = spec.lines.filter((l) => !l.faint),
    dots = spec.points.filter((p) => !p.faint);
  const shown = lead.length || dots.length ? { lines: lead, points: dots } : spec;
  const xs = [...shown.lines.flatMap((l) => l.x), ...spec.points.map((p) => p.x)];
  const ys = [...shown.lines.flatMap((l) => l.y), ...shown.points.map((p) => p.y)];
  const own = [...ys, ...spec.marks.map((m) => m.y), ...shown.points.flatMap((p) => [p.low, p.high])];
  const fit = state.whole ? extent : robust,
    good = spec.y.good;
  const xr = spec.x.range || (spec.points.length ? fit : extent)(xs, spec.x.log, spec.x.good),
    tight = spec.settles && !state.whole ? settled(shown.lines, spec.y.log, good) : fit(ys, spec.y.log, good),
    yr = spec.y.range || widened(tight, own, spec.y.log);
  if (!xr || !yr) return null;
  const zoom = state.zoom,
    right = PAD.right + (spec.marks.length && width > 420 ? 104 : 0);
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
