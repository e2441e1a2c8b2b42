"use strict";
const $ = (id) => document.getElementById(id);
const svgNS = "http://www.w3.org/2000/svg";
const svg = (tag, attrs, text) => {
  const e = document.createElementNS(svgNS, tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  if (text !== undefined) e.textContent = text;
  return e;
};
const html = (tag, cls, ...kids) => {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  e.append(...kids);
  return e;
};

// How numbers are written.
const grouped = (n) => Math.round(n).toLocaleString("en");
const loss = (x) => x.toFixed(4);
const few = (x) => (x === 0 ? "0" : x >= 1000 ? grouped(x) : Number(x.toPrecision(3)).toString());
const rate = (x) => (x === 0 ? "0" : x.toExponential(2));
const percent = (x) => (100 * x).toFixed(x < 0.0995 ? 1 : 0) + " %";
const sizeUnits = ["bytes", "KiB", "MiB", "GiB", "TiB"];
const sizeUnit = (n) => Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, n)) / 10)));
const size = (n) => (n / 1024 ** sizeUnit(n)).toFixed(sizeUnit(n) ? 1 : 0) + " " + sizeUnits[sizeUnit(n)];
const duration = (s) => {
  s = Math.round(s);
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? h + " h " + m + " min" : m ? m + " min " + (s % 60) + " s" : s + " s";
};

// state is all there is to be seen: run, points, evals, samples, notes, step, left, status.
let state = null;
let at = -1; // the step that the reader looks at, -1 is none

// indexOf returns which of the rows, which are in order, is nearest to a step.
const indexOf = (rows, step) => {
  let low = 0, high = rows.length - 1;
  while (high - low > 1) {
    const mid = (low + high) >> 1;
    if (rows[mid].s < step) low = mid;
    else high = mid;
  }
  return high > low && Math.abs(rows[high].s - step) < Math.abs(rows[low].s - step) ? high : low;
};
const bestEval = () => state.evals.findLast((e) => e.best);
const planned = () => state.run.planned;

// What is drawn: of each chart its series, each with a value y of a row. A band reaches from
// low to high; a level is one value for all steps.
const charts = [
  {
    name: "Loss", unit: "nats per token", wide: true, write: loss,
    series: [
      { name: "each step", color: "c0", pale: true, rows: () => state.points, y: (p) => p.l, low: (p) => p.lo, high: (p) => p.hi },
      { name: "smoothed", color: "c0", smooth: true, rows: () => state.points, y: (p) => p.m },
      { name: "validation", color: "c1", dots: true, rows: () => state.evals, y: (e) => e.l },
    ],
    best: true,
  },
  { name: "Learning rate", unit: "", write: rate, tick: (x) => (x === 0 ? "0" : Number(x.toPrecision(3)).toExponential().replace("e+0", "")), zero: true, series: [{ name: "learning rate", color: "c0", rows: () => state.points, y: (p) => p.r }] },
  { name: "Gradient norm", unit: "before clipping", write: few, zero: true, series: [{ name: "norm", color: "c3", rows: () => state.points, y: (p) => p.g }] },
  { name: "Speed", unit: "tokens per second", write: grouped, zero: true, series: [{ name: "tokens/s", color: "c2", rows: () => state.points, y: (p) => p.t }] },
  {
    name: "Memory", write: size, bytes: true, zero: true,
    series: [
      { name: "resident", color: "c0", rows: () => state.points, y: (p) => p.b },
      { name: "peak", color: "c5", rows: () => state.points, y: (p) => p.p },
      { name: "planned", color: "c4", level: () => planned() },
    ],
  },
  { name: "Waiting for the disk", unit: "of the time", write: percent, tick: (x) => Number((100 * x).toPrecision(3)) + " %", zero: true, series: [{ name: "disk wait", color: "c4", rows: () => state.points, y: (p) => p.w }] },
];

// ticks are round numbers of an axis, n of them or a few more or less.
const ticks = (low, high, n, whole) => {
  const raw = (high - low) / Math.max(1, n), p = 10 ** Math.floor(Math.log10(raw));
  let step = p * ([1, 2, 5].find((f) => p * f >= raw * 0.999) || 10);
  if (whole) step = Math.max(1, Math.round(step));
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && out.length < 50; i++) out.push(i * step + 0); // no -0
  return [out, step];
};

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.off = new Set();
    this.unit = html("small");
    const head = html("h2", "", spec.name, this.unit);
    const caption = html("figcaption", "", head);
    if (spec.series.length > 1) {
      this.keys = html("div", "keys");
      for (const s of spec.series) {
        const b = html("button", s.pale ? "pale" : "", html("i", s.color), s.name);
        b.type = "button";
        b.setAttribute("aria-pressed", "true");
        b.title = "show or hide";
        b.addEventListener("click", () => {
          this.off.has(s) ? this.off.delete(s) : this.off.add(s);
          b.setAttribute("aria-pressed", String(!this.off.has(s)));
          this.draw();
        });
        s.key = b;
        this.keys.append(b);
      }
      caption.append(this.keys);
    }
    this.plot = html("div", "plot");
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "slider");
    this.plot.setAttribute("aria-label", spec.name + " by step");
    this.figure = html("figure", spec.wide ? "wide" : "", caption, this.plot);
    this.plot.addEventListener("pointermove", (e) => this.point(e));
    this.plot.addEventListener("pointerdown", (e) => this.point(e));
    this.plot.addEventListener("pointerleave", (e) => e.pointerType === "mouse" && look(-1));
    this.plot.addEventListener("keydown", (e) => this.key(e));
    this.plot.addEventListener("blur", () => look(-1));
    new ResizeObserver(() => state && this.draw()).observe(this.plot);
  }

  // has reports whether there is anything to draw.
  has() {
    return this.spec.series.some((s) => s.rows && s.rows().some((r) => s.y(r) > 0));
  }

  point(e) {
    if (!this.scale) return;
    const box = this.plot.getBoundingClientRect();
    look(this.scale.step(e.clientX - box.left), this, e.clientX, e.clientY);
  }

  key(e) {
    const rows = state.points.length ? state.points : state.evals;
    if (!rows.length || !this.scale) return;
    const now = at < 0 ? rows.length - 1 : indexOf(rows, at);
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -rows.length, End: rows.length }[e.key];
    if (e.key === "Escape") return look(-1);
    if (by === undefined) return;
    e.preventDefault();
    const i = at < 0 && Math.abs(by) === 1 ? now : Math.max(0, Math.min(rows.length - 1, now + by));
    const box = this.plot.getBoundingClientRect();
    look(rows[i].s, this, box.left + this.scale.x(rows[i].s), box.top + 30);
  }

  // shown are the series with something to draw that the reader has not hidden.
  shown() {
    return this.spec.series.filter((s) => !this.off.has(s) && (s.level ? s.level() > 0 : s.rows().some((r) => s.y(r) !== null)));
  }

  draw() {
    const spec = this.spec, width = this.plot.clientWidth, height = spec.wide ? Math.max(220, Math.min(380, width * 0.42)) : 170;
    this.figure.hidden = !this.has();
    if (this.figure.hidden || width < 40) return;
    for (const s of spec.series) if (s.key) s.key.hidden = !(s.level ? s.level() > 0 : s.rows().length > 0);
    const shown = this.shown();
    let low = Infinity, high = -Infinity, from = Infinity, to = -Infinity;
    const take = (y) => {
      if (y !== null && y !== undefined) {
        low = Math.min(low, y);
        high = Math.max(high, y);
      }
    };
    for (const s of shown) {
      if (s.level) take(s.level());
      else for (const r of s.rows()) {
        take(s.low ? s.low(r) : s.y(r));
        take(s.high ? s.high(r) : s.y(r));
      }
    }
    for (const r of [state.points[0], state.points.at(-1), state.evals[0], state.evals.at(-1)]) {
      if (r) {
        from = Math.min(from, r.s);
        to = Math.max(to, r.s);
      }
    }
    if (!(to > from)) to = from + 1;
    if (!(high >= low)) low = 0, high = 1;
    if (spec.zero) low = Math.min(0, low);
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    high += room;
    if (!spec.zero) low = low >= 0 ? Math.max(0, low - room) : low - room;

    // Sizes are written in the unit of the largest.
    const div = spec.bytes ? 1024 ** sizeUnit(high) : 1;
    this.unit.textContent = spec.bytes ? sizeUnits[sizeUnit(high)] : spec.unit;
    const [marks, step] = ticks(low / div, high / div, height / (spec.wide ? 55 : 42));
    const write = spec.tick || ((v) => (Math.abs(v) >= 10000 ? grouped(v) : v.toFixed(Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9))))));
    const names = marks.map(write);
    const left = 16 + 6.6 * Math.max(...names.map((n) => n.length)), right = width - 12, top = 8, bottom = height - (spec.wide ? 40 : 24);
    const x = (s) => left + ((s - from) / (to - from)) * (right - left);
    const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
    this.scale = { x, y, step: (px) => from + (Math.min(Math.max(px, left), right) - left) / (right - left) * (to - from), top, bottom, width };

    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    marks.forEach((m, i) => {
      root.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(m * div), y2: y(m * div) }));
      root.append(svg("text", { class: "dim", x: left - 6, y: y(m * div) + 4, "text-anchor": "end" }, names[i]));
    });
    for (const m of ticks(from, to, Math.max(2, (right - left) / 110), true)[0]) {
      const name = grouped(m), half = name.length * 3.3;
      root.append(svg("line", { class: "grid", x1: x(m), x2: x(m), y1: bottom, y2: bottom + 4 }));
      root.append(svg("text", { class: "dim", x: Math.min(x(m), width - half), y: bottom + 17, "text-anchor": "middle" }, name));
    }
    if (spec.wide) root.append(svg("text", { class: "dim", x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }, "step"));
    const f = (v) => v.toFixed(1);
    for (const s of shown) {
      if (s.level) {
        root.append(svg("path", { class: "line dash " + s.color, d: `M${f(left)},${f(y(s.level()))}H${f(right)}` }));
        continue;
      }
      const rows = s.rows().filter((r) => s.y(r) !== null);
      if (s.low && rows.some((r) => r.n > 1)) {
        root.append(svg("path", { class: "band " + s.color, d: "M" + [...rows.map((r) => f(x(r.s)) + "," + f(y(s.high(r)))), ...rows.toReversed().map((r) => f(x(r.s)) + "," + f(y(s.low(r))))].join("L") + "Z" }));
      }
      if (rows.length > 1) root.append(svg("path", { class: "line " + s.color + (s.pale ? " pale" : "") + (rows.length > 300 && !s.smooth ? " thin" : ""), d: "M" + rows.map((r) => f(x(r.s)) + "," + f(y(s.y(r)))).join("L") }));
      if (s.dots ? rows.length <= 100 : rows.length === 1) for (const r of rows) root.append(svg("circle", { class: "dot " + s.color, cx: f(x(r.s)), cy: f(y(s.y(r))), r: 4.5 }));
    }
    const best = spec.best && bestEval();
    if (best && !this.off.has(spec.series[2])) {
      root.append(svg("circle", { class: "best", cx: f(x(best.s)), cy: f(y(best.l)), r: 8 }));
    }
    if (spec.best) {
      this.best ??= this.keys.appendChild(html("span", "key", html("i", "ring"), html("span")));
      this.best.hidden = !best;
      if (best) this.best.lastChild.textContent = `best, ${loss(best.l)} at step ${grouped(best.s)}`;
    }
    this.cross = svg("line", { class: "cross", y1: top, y2: bottom, visibility: "hidden" });
    root.append(this.cross);
    this.plot.replaceChildren(root);
    this.mark();
  }

  // mark draws the line at the step that is looked at, and says its values.
  mark() {
    if (!this.scale || this.figure.hidden) return;
    const on = at >= 0;
    this.cross.setAttribute("visibility", on ? "visible" : "hidden");
    if (on) {
      this.cross.setAttribute("x1", this.scale.x(at));
      this.cross.setAttribute("x2", this.scale.x(at));
    }
    const last = state.points.at(-1) || state.evals.at(-1);
    const step = on ? at : last.s;
    this.plot.setAttribute("aria-valuemin", Math.min(state.points[0]?.s ?? 0, state.evals[0]?.s ?? Infinity));
    this.plot.setAttribute("aria-valuemax", last.s);
    this.plot.setAttribute("aria-valuenow", step);
    this.plot.setAttribute("aria-valuetext", `step ${step}: ` + this.values(step).map(([s, v]) => `${s.name} ${v}`).join(", "));
  }

  values(step) {
    const out = [];
    for (const s of this.shown()) {
      if (s.level) {
        out.push([s, this.spec.write(s.level())]);
        continue;
      }
      const rows = s.rows(), r = rows[indexOf(rows, step)];
      const v = r && s.y(r);
      if (v === null || v === undefined) continue;
      let text = this.spec.write(v);
      if (s.low && r.n > 1) text += ` (${this.spec.write(s.low(r))} to ${this.spec.write(s.high(r))} in ${r.n} steps)`;
      if (s.dots && r.s !== step) text += ` at step ${grouped(r.s)}`;
      out.push([s, text]);
    }
    return out;
  }
}

// look marks a step in all charts, and shows the values of one beside the pointer.
function look(step, chart, px, py) {
  const tip = $("tip");
  if (step < 0 || !state) {
    at = -1;
    tip.hidden = true;
  } else {
    const rows = state.points.length ? state.points : state.evals;
    if (!rows.length) return;
    let near = rows[indexOf(rows, step)].s;
    if (state.evals.length) {
      const e = state.evals[indexOf(state.evals, step)].s;
      if (Math.abs(e - step) < Math.abs(near - step)) near = e;
    }
    at = near;
    tip.replaceChildren(html("b", "", "step " + grouped(at)));
    for (const [s, v] of chart.values(at)) tip.append(html("div", "", html("span", "", html("i", s.color), s.name), v));
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight;
    tip.style.transform = `translate(${Math.max(4, px + 16 + w > innerWidth ? px - w - 16 : px + 16)}px, ${Math.max(4, Math.min(py + 14, innerHeight - h - 4))}px)`;
  }
  for (const c of drawn) c.mark();
}

const drawn = charts.map((c) => new Chart(c));
$("charts").append(...drawn.map((c) => c.figure));

const cards = {};
for (const name of ["loss", "eval", "speed", "rate", "memory", "wait"]) {
  cards[name] = html("div", "card", html("b"), html("span"));
  cards[name].hidden = true;
  $("cards").append(cards[name]);
}
function card(name, value, say) {
  const c = cards[name];
  c.hidden = false;
  c.firstChild.textContent = value;
  c.lastChild.textContent = say;
}

const statuses = { running: "running", finished: "finished", stopped: "stopped", failed: "failed", lost: "no connection" };
let lost = false;
function showStatus() {
  const s = lost ? "lost" : state ? state.status : "waiting";
  const e = $("status"), text = statuses[s] || "waiting for the run";
  if (e.textContent !== text) e.textContent = text;
  e.className = s;
}

// show writes everything that is not a curve, and the curves.
function show() {
  const { run, points, evals } = state, p = points.at(-1), best = bestEval(), last = evals.at(-1);
  showStatus();
  const total = Math.max(run.steps, state.step);
  $("where").textContent = `step ${grouped(state.step)} of ${grouped(total)}` + (state.status === "running" && state.left > 0 ? `, about ${duration(state.left)} left` : "");
  $("progress").hidden = false;
  $("progress").max = total || 1;
  $("progress").value = state.step;
  $("title").textContent = run.title;
  const part = total ? Math.floor(100 * state.step / total) + " %" : "";
  document.title = (state.status === "running" ? part + " · " : "") + (p ? "loss " + loss(p.m) + " · " : "") + run.title;
  $("sub").textContent = `${run.method} of ${run.model} on ${run.data}, into ${run.output}. ${grouped(run.trainable)} of ${grouped(run.params)} parameters are trained (${few(100 * run.trainable / Math.max(1, run.params))}\u00a0%).`;
  $("command").replaceChildren(...run.command.split(/ (?=-)/).flatMap((part) => [html("span", "", part), " "]));
  $("command").hidden = !run.command;
  $("why").textContent = state.why || "";
  $("why").hidden = !state.why;
  if (p) {
    card("loss", loss(p.m), `training loss, smoothed; ${loss(points[0].l)} at the start`);
  }
  if (last) card("eval", loss(best ? best.l : last.l), best ? `best validation loss, at step ${grouped(best.s)}; ${loss(last.l)} now` : `validation loss at step ${grouped(last.s)}; ${loss(evals[0].l)} first`);
  if (p) {
    card("speed", grouped(p.t), "tokens per second" + (p.n > 1 ? `, over ${p.n} steps` : ""));
    card("rate", rate(p.r), "learning rate");
    if (p.p > 0) card("memory", size(p.p), "most memory so far" + (run.planned ? `; ${size(run.planned)} planned` : ""));
    card("wait", percent(points.reduce((a, q) => a + q.w * q.n, 0) / points.reduce((a, q) => a + q.n, 0)), "of the time spent waiting for the disk");
  }
  $("evals").hidden = !evals.length;
  $("evals").querySelector("tbody").replaceChildren(...evals.toReversed().map((e) => {
    const row = html("tr", e === best ? "best" : "", html("td", "", grouped(e.s)), html("td", "", loss(e.l)), html("td", "", Number(Math.exp(e.l).toPrecision(4)).toLocaleString("en")), html("td", "l", e === best ? "best" : ""));
    return row;
  }));
  showSamples();
  $("notes").hidden = !state.notes.length;
  $("notes").querySelector("ul").replaceChildren(...state.notes.toReversed().map((n) => html("li", "", `step ${grouped(n.s)}: ${n.text}`)));
  $("footer").textContent = `Written by ${run.program}; the run began ${new Date(run.began).toLocaleString()}.` +
    (inlined ? " This page needs no network; trainer_log.jsonl has the figures of every step for programs." : ` When the run has ended, report.html in ${run.output} is this page.`);
  for (const c of drawn) c.draw();
}

// showSamples writes the samples, if there are new ones: what is open stays so.
let samplesSeen;
function showSamples() {
  const sign = state.samples.map((x) => x.s).join();
  if (sign === samplesSeen) return;
  samplesSeen = sign;
  $("samples").hidden = !state.samples.length;
  const article = (x) => html("article", "", html("h3", "", "step " + grouped(x.s)), ...x.list.map((s) => html("p", "", html("em", "", s.prompt), s.text)));
  const newest = state.samples.toReversed(), list = $("samples").querySelector(".list");
  const open = list.querySelector("details")?.open;
  list.replaceChildren(...newest.slice(0, 2).map(article));
  if (newest.length > 2) {
    const d = html("details", "", html("summary", "", `${newest.length - 2} earlier`), ...newest.slice(2).map(article));
    d.open = open;
    list.append(d);
  }
}

// later calls show soon, once for all that has come meanwhile.
let waiting = false;
function later() {
  if (waiting) return;
  waiting = true;
  setTimeout(() => requestAnimationFrame(() => {
    waiting = false;
    show();
  }), 150);
}

function apply(c) {
  if (c.point) state.points[c.at] = c.point;
  if (c.eval) state.evals.push(c.eval);
  if (c.samples) state.samples.push(c.samples);
  if (c.notes) state.notes.push(...c.notes);
  if (state.samples.length > 24) state.samples.splice(1, 1);
  if (state.notes.length > 200) state.notes.splice(0, state.notes.length - 200);
  state.step = c.step;
  state.left = c.left;
}

// listen takes what the server sends. The browser connects anew by itself, saying what it
// has seen last, unless it was turned away.
function listen() {
  const source = new EventSource("events");
  const found = () => {
    lost = false;
    showStatus();
  };
  source.addEventListener("open", found);
  source.addEventListener("whole", (e) => {
    found();
    state = JSON.parse(e.data);
    if (state.status !== "running") source.close(); // nothing more will come
    later();
  });
  source.addEventListener("change", (e) => {
    if (!state) return;
    apply(JSON.parse(e.data));
    later();
  });
  source.addEventListener("error", () => {
    if (state && state.status !== "running") return;
    lost = true;
    showStatus();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

const inlined = $("data");
if (inlined) {
  state = JSON.parse(inlined.textContent);
  show();
} else {
  showStatus();
  listen();
}
