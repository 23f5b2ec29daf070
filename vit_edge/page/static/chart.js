// A chart of frame age and latency over the last minute, drawn as SVG.

const NAMESPACE = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 8, TOP = 10, BOTTOM = 24;
// Steps without answers that are no gap yet: a slow model, or one that rests while the scene does.
const MISSING = 4;

export class Chart {
  #box; #readout; #svg; #steps = []; #now = 0; #stepS = 0.5; #keptS = 60; #cursor = null;

  constructor(box, readout) {
    this.#box = box;
    this.#readout = readout;
    this.#svg = box.appendChild(element("svg", { "aria-hidden": "true" }));
    new ResizeObserver(() => this.#draw()).observe(box);
    box.addEventListener("pointermove", (event) => this.#point(event));
    box.addEventListener("pointerdown", (event) => this.#point(event));
    box.addEventListener("pointerleave", () => this.#choose(null));
    box.addEventListener("blur", () => this.#choose(null));
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  // Each step is [place, answers, mean age, worst age, mean latency, worst latency, dropped frames], in ms; the
  // latencies are null where the model was not asked.
  show(steps, { now, stepS, keptS }) {
    this.#steps = steps;
    this.#now = now;
    this.#stepS = stepS;
    this.#keptS = keptS;
    this.#draw();
  }

  #point(event) {
    const box = this.#box.getBoundingClientRect();
    const ratio = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    const place = this.#now - (1 - ratio) * this.#keptS / this.#stepS;
    let best = null;
    for (const step of this.#steps) {
      if (best === null || Math.abs(step[0] + 0.5 - place) < Math.abs(best + 0.5 - place)) best = step[0];
    }
    this.#choose(best);
  }

  #key(event) {
    const places = this.#steps.map((step) => step[0]);
    if (!places.length) return;
    const at = places.indexOf(this.#cursor);
    const last = places.length - 1;
    const next = {
      ArrowLeft: at < 0 ? last : Math.max(0, at - 1),
      ArrowRight: at < 0 ? last : Math.min(last, at + 1),
      Home: 0, End: last, Escape: -1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    // What the keys have chosen is read aloud; what a mouse passes over is not.
    this.#readout.setAttribute("aria-live", "polite");
    this.#choose(next < 0 ? null : places[next]);
  }

  #choose(place) {
    if (place === null) this.#readout.setAttribute("aria-live", "off");
    this.#cursor = place;
    this.#draw();
  }

  #draw() {
    const width = this.#box.clientWidth, height = this.#box.clientHeight;
    if (!width || !height) return;
    const { top, ticks } = scale(Math.max(10, ...this.#steps.map((step) => Math.max(step[3], step[5]))));
    const span = this.#keptS / this.#stepS;
    const x = (place) => LEFT + (width - LEFT - RIGHT) * Math.min(1, 1 - (this.#now - place) / span);
    const y = (ms) => height - BOTTOM - (height - TOP - BOTTOM) * ms / top;
    const steps = this.#steps.filter((step) => step[0] + 0.5 >= this.#now - span);
    const parts = [];
    for (const tick of ticks) {
      parts.push(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
      parts.push(text(tick === top ? `${tick} ms` : `${tick}`, { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }));
    }
    for (const second of [60, 45, 30, 15, 0].filter((value) => value <= this.#keptS)) {
      const anchor = second === 0 ? "end" : second === this.#keptS ? "start" : "middle";
      const label = second === 0 ? "now" : `${second} s ago`;
      if (width > 480 || second % 30 === 0) {
        parts.push(text(label, { x: x(this.#now - second / this.#stepS), y: height - 6, "text-anchor": anchor }));
      }
    }
    const runs = unbroken(steps);
    for (let index = 1; index < runs.length; index += 1) {
      const from = x(runs[index - 1].at(-1)[0] + 1), to = x(runs[index][0][0]);
      parts.push(element("rect", { class: "gap", x: from, width: Math.max(1, to - from), y: TOP, height: height - TOP - BOTTOM }));
    }
    for (const run of runs) {
      const at = (column) => run.filter((step) => step[column] !== null).map((step) => `${x(step[0] + 0.5).toFixed(1)},${y(step[column]).toFixed(1)}`);
      parts.push(element("polygon", { class: "band", points: [...at(3), ...at(2).reverse()].join(" ") }));
      parts.push(line(at(4), "latency"), line(at(2), "age"));
    }
    for (const step of steps) {
      if (step[6] > 0) {
        const place = x(step[0] + 0.5);
        parts.push(element("line", { class: "drop", x1: place, x2: place, y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
      }
    }
    const chosen = steps.find((step) => step[0] === this.#cursor);
    if (chosen) {
      const place = x(chosen[0] + 0.5);
      parts.push(element("line", { class: "cursor", x1: place, x2: place, y1: TOP, y2: height - BOTTOM }));
    }
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#svg.replaceChildren(...parts);
    const hint = steps.length ? "The band reaches up to the oldest frame of each half second; marks below are dropped frames." : "";
    this.#readout.textContent = chosen ? this.#words(chosen) : hint;
  }

  #words([place, answers, age, worstAge, latency, worstLatency, dropped]) {
    const ago = Math.max(0, (this.#now - place - 0.5) * this.#stepS).toFixed(0);
    return `${ago} s ago: frame age ${age.toFixed(1)} ms (worst ${worstAge.toFixed(1)}), ` +
      (latency === null ? "" : `latency ${latency.toFixed(1)} ms (worst ${worstLatency.toFixed(1)}), `) +
      `${answers} ${answers === 1 ? "answer" : "answers"}, ${dropped} dropped`;
  }
}

function unbroken(steps) {
  const runs = [];
  for (const step of steps) {
    const run = runs.at(-1);
    if (run && step[0] - run.at(-1)[0] <= MISSING) run.push(step);
    else runs.push([step]);
  }
  return runs;
}

function line(points, name) {
  if (!points.length) return "";
  // A run of one step is a dot: a line of no length with round ends.
  const list = points.length === 1 ? [points[0], points[0]] : points;
  return element("polyline", { class: `line ${name}`, points: list.join(" ") });
}

function scale(worst) {
  const rough = worst * 1.05 / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 2.5, 5, 10].find((value) => value * power >= rough) * power;
  const count = Math.ceil(worst * 1.05 / unit);
  const ticks = Array.from({ length: count + 1 }, (_, index) => Number((index * unit).toPrecision(6)));
  return { top: ticks.at(-1), ticks };
}

function element(name, attributes) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(content, attributes) {
  const made = element("text", attributes);
  made.textContent = content;
  return made;
}
