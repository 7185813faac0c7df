"use strict";
// --- curves ----------------------------------------------------------------------------------------------------
// Of one run, or of several over each other. What a reader chooses (smoothing, scale, part of the run) holds for all.

const CURVES = [
  ["Reward, held-out accuracy", [["reward_mean", "--accent"]], "evaluations"],
  ["Entropy (nats a token)", [["entropy", "--accent"]]],
  ["KL sampler to learner; scored by both at equal weights", [["kl_rollout", "--accent"], ["kl_canary", "--second"]]],
  ["Gradient norm", [["grad_norm", "--accent"]]],
  ["Tokens a completion", [["completion_tokens_mean", "--accent"]]],
  ["Length bias: trained against begun", [["length_bias", "--accent"]]],
  ["Share cut off", [["truncated_share", "--accent"]]],
  ["Share of uniform groups", [["uniform_group_share", "--accent"]]],
  ["Seconds: waits, update, sync", [["wait_s", "--odd"], ["update_s", "--accent"], ["sync_s", "--second"]]],
];
const SHARES = ["Share cut off", "Share of uniform groups"]; // from 0 to 1: noise near 0 must not look like a rise
const RUN_COLORS = ["--accent", "--odd", "--second", "--good", "--bad"];
const WIDTH = 300, HEIGHT = 120, LEFT = 34, BOTTOM = 14;
const chosen = { smoothing: 0, log: false, from: null, to: null };
let drawn = [];

/** The curves of `runs`, each `{run, rows, evaluations}`; the first is the page's own. */
function drawCurves(runs) {
  drawn = runs;
  if (!$("curve-tools").childElementCount) showCurveTools();
  const legend = runs.length > 1 ? runs.map((each, i) => el("li", {}, el("span", { class: `run-${i % RUN_COLORS.length}` }, "▬ "), each.run)) : [];
  $("legend").replaceChildren(...legend);
  const kept = document.activeElement?.closest?.("figure")?.dataset.title; // a redraw does not take the keyboard away
  $("curves").replaceChildren(...CURVES.map(([title, lines, extra]) => curve(title, lines, runs, Boolean(extra))));
  if (kept) document.querySelector(`figure[data-title="${CSS.escape(kept)}"] svg`)?.focus();
  $("whole").hidden = chosen.from === null;
}

function showCurveTools() {
  const smoothing = el("input", { type: "range", id: "smoothing", min: 0, max: 0.98, step: 0.02, value: chosen.smoothing,
    on: { input: (event) => { chosen.smoothing = Number(event.target.value); drawCurves(drawn); } } });
  const log = el("input", { type: "checkbox", id: "log", on: { change: (event) => { chosen.log = event.target.checked; drawCurves(drawn); } } });
  const whole = el("button", { type: "button", id: "whole", hidden: true, on: { click: () => zoom(null, null) } }, "whole run");
  $("curve-tools").replaceChildren(el("label", {}, "smoothing", smoothing), el("label", { class: "tick" }, log, "log scale"), whole,
    el("span", { class: "soft hint" }, "drag over a curve to zoom in; arrow keys read its values"));
  $("curve-tools").onsubmit = (event) => event.preventDefault();
}

function zoom(from, to) {
  [chosen.from, chosen.to] = [from, to];
  drawCurves(drawn);
}

/** Exponential moving average, corrected for its start. */
function smoothed(points) {
  let sum = 0, weight = 0;
  return points.map(([x, y]) => {
    sum = chosen.smoothing * sum + (1 - chosen.smoothing) * y;
    weight = chosen.smoothing * weight + (1 - chosen.smoothing);
    return [x, sum / weight];
  });
}

function seriesOf(lines, runs, withEvaluations) {
  const inPart = ([x, y]) => (chosen.from === null || (x >= chosen.from && x <= chosen.to)) && (!chosen.log || y > 0);
  const several = runs.length > 1;
  return runs.flatMap(({ run, rows, evaluations }, i) => {
    const named = (name) => (several ? `${run}: ${name}` : name);
    const color = (own) => (several ? RUN_COLORS[i % RUN_COLORS.length] : own);
    const all = (several ? lines.slice(0, 1) : lines).map(([name, own]) => ({ name: named(name), color: color(own), smooth: true,
      points: rows.filter((row) => Number.isFinite(row[name])).map((row) => [row.update, row[name]]) }));
    const scored = withEvaluations ? evaluations : [];
    all.push({ name: named("held-out accuracy"), color: color("--good"), dots: true, points: scored.map((e) => [e.update, e.accuracy]) });
    const likeliest = several ? [] : scored.filter((e) => Number.isFinite(e.greedy_accuracy));
    all.push({ name: "greedy", color: "--odd", dots: true, points: likeliest.map((e) => [e.update, e.greedy_accuracy]) });
    return all.map((line) => {
      const raw = line.points.filter(inPart);
      const shown = line.smooth && chosen.smoothing > 0 ? smoothed(line.points).filter(inPart) : raw;
      return { ...line, points: thin(shown), faint: shown === raw ? [] : thin(raw) };
    });
  }).filter((line) => line.points.length);
}

function curve(title, lines, runs, withEvaluations) {
  const series = seriesOf(lines, runs, withEvaluations);
  const all = series.flatMap((line) => [...line.points, ...line.faint]);
  const caption = el("figcaption", {}, title, runs.length > 1 ? lastOfEach(runs, lines[0][0]) : el("span", {}, ...latest(series)));
  if (!all.length) return el("figure", { "data-title": title }, caption, el("p", { class: "soft" }, "nothing yet"));
  const scale = chosen.log ? Math.log10 : (value) => value;
  const [x0, x1] = extent(all.map((p) => p[0]));
  let [low, high] = extent(all.map((p) => scale(p[1])));
  if (SHARES.includes(title) && !chosen.log) [low, high] = [0, 1];
  if (high - low <= 1e-9 * Math.abs(high)) { low -= Math.abs(low) * 0.1 || 0.5; high += Math.abs(high) * 0.1 || 0.5; }
  const x = (value) => LEFT + ((value - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - 4);
  const y = (value) => 6 + (1 - (scale(value) - low) / (high - low)) * (HEIGHT - BOTTOM - 8);
  const image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: 0, "aria-label": spoken(title, series) });
  for (const value of [low, high].map((v) => (chosen.log ? 10 ** v : v))) {
    image.append(svg("line", { class: "axis", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }), label(0, y(value) + 3, onAxis(value)));
  }
  image.append(label(LEFT, HEIGHT - 2, x0), label(WIDTH - 20, HEIGHT - 2, x1));
  const trace = (points) => points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  for (const line of series) {
    const color = `var(${line.color})`;
    if (line.faint.length) image.append(svg("polyline", { points: trace(line.faint), stroke: color, "stroke-opacity": 0.3 }));
    image.append(svg("polyline", { points: trace(line.points), stroke: color, ...(line.dots && runs.length > 1 ? { "stroke-dasharray": "3 3" } : {}) }));
    if (line.dots || line.points.length === 1) for (const [a, b] of line.points) image.append(svg("circle", { cx: x(a), cy: y(b), r: 2.5, fill: color }));
  }
  letRead(image, series, { x, x0, x1 });
  return el("figure", { "data-title": title }, caption, image);
}

/** Values under the pointer or the arrow keys; a drag zooms in, Escape or a double click goes back. */
// No digit behind the point of 5e-14: it would run into the curve.
const onAxis = (value) => (value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(0) : figure(value, 2));

function letRead(image, series, { x, x0, x1 }) {
  const mark = svg("line", { class: "mark", y1: 0, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const band = svg("rect", { class: "band", y: 0, height: HEIGHT - BOTTOM, visibility: "hidden" });
  image.append(band, mark);
  const updates = [...new Set(series.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
  const updateAt = (event) => {
    const box = image.getBoundingClientRect();
    return Math.min(x1, Math.max(x0, x0 + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - 4)) * (x1 - x0)));
  };
  const near = (at) => series.map((line) => [line.name, line.points.reduce((best, p) => (Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best))]);
  const read = (at, where) => {
    mark.setAttribute("x1", x(at)); mark.setAttribute("x2", x(at)); mark.setAttribute("visibility", "visible");
    showTip(where, near(at).map(([name, p]) => `${name} at ${p[0]}: ${figure(p[1])}`).join("\n"));
  };
  const stop = () => { mark.setAttribute("visibility", "hidden"); hideTip(); };
  let begun = null, cursor = updates.length - 1;
  image.addEventListener("pointerdown", (event) => { begun = updateAt(event); image.setPointerCapture(event.pointerId); });
  image.addEventListener("pointermove", (event) => {
    const at = updateAt(event);
    read(at, event);
    if (begun === null) return;
    band.setAttribute("x", Math.min(x(begun), x(at))); band.setAttribute("width", Math.abs(x(at) - x(begun))); band.setAttribute("visibility", "visible");
  });
  image.addEventListener("pointerup", (event) => {
    const [from, to] = [begun, updateAt(event)].sort((a, b) => a - b);
    begun = null;
    band.setAttribute("visibility", "hidden");
    if (x(to) - x(from) > 8) { stop(); zoom(from, to); }
  });
  image.addEventListener("pointerleave", stop);
  image.addEventListener("dblclick", () => zoom(null, null));
  image.addEventListener("blur", stop);
  image.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -updates.length, End: updates.length }[event.key];
    if (event.key === "Escape") { stop(); return zoom(null, null); }
    if (by === undefined) return;
    event.preventDefault();
    cursor = Math.min(updates.length - 1, Math.max(0, cursor + by));
    const box = image.getBoundingClientRect();
    read(updates[cursor], { clientX: box.left + (x(updates[cursor]) / WIDTH) * box.width, clientY: box.top + box.height / 2 });
  });
}

function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function spoken(title, series) {
  const told = series.map((line) => {
    const [low, high] = extent(line.points.map((p) => p[1]));
    return `${line.name} from ${figure(line.points[0][1])} to ${figure(line.points.at(-1)[1])}, between ${figure(low)} and ${figure(high)}`;
  });
  return `${title}. ${told.join("; ")}. Arrow keys read single values.`;
}

/** The last value of each line; of several lines with the name, in its colour: the legend. */
function latest(series) {
  if (series.length === 1) return [figure(series[0].points.at(-1)[1])];
  return series.flatMap((line, i) => [i ? " · " : "", el("span", { class: `run-${RUN_COLORS.indexOf(line.color)}` },
    `${line.name.replace(/_s$|_mean$|held-out /, "")} ${figure(line.points.at(-1)[1])}`)]);
}

/** Of several runs the last value of each, in the colour of its run. */
function lastOfEach(runs, name) {
  const values = runs.map(({ rows }, i) => [i, rows.findLast((row) => Number.isFinite(row[name]))?.[name]]);
  return el("span", {}, ...values.flatMap(([i, value]) => [el("span", { class: `run-${i % RUN_COLORS.length}` }, figure(value)), " "]));
}

function label(x, y, text) {
  const node = svg("text", { x, y });
  node.textContent = text;
  return node;
}

function thin(points, most = 400) {
  if (points.length <= most) return points;
  const step = points.length / most;
  return [...Array.from({ length: most - 1 }, (_, i) => points[Math.floor(i * step)]), points.at(-1)];
}
