// The live page asks for the next answer when it has shown the last: a slow line sees fewer answers, never older ones.
// Text from the device goes into the page as text, never as markup.

import { Chart } from "./chart.js";

const id = (name) => document.getElementById(name);
const canvas = id("picture");
const chart = new Chart(id("chart"), id("readout"));
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en");

// The server answers within 3 s even without news.
const PATIENCE_MS = 12_000;
const RETRY_MS = [300, 600, 1200, 2500, 5000];
const SPEAK_EVERY_MS = 4000;
const QUIET_MS = 2500;
const LONG = 240;

const seen = { run: "", number: 0, steps: new Map(), newestMs: 0, ended: false };
let paused = false;
let wakeUp = () => {};

function sleep(ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    wakeUp = () => { clearTimeout(timer); resolve(); };
  });
}

async function ask() {
  const since = Math.max(0, ...seen.steps.keys());
  const query = new URLSearchParams({ run: seen.run, after: seen.number, since });
  const response = await fetch(`answers?${query}`, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (response.status === 401) {
    // The device was started anew with another token: the page that asks for it comes instead.
    location.reload();
    await sleep(PATIENCE_MS);
  }
  if (!response.ok) throw new Error(`status ${response.status}`);
  const bytes = await response.arrayBuffer();
  const length = new DataView(bytes).getUint32(0);
  return {
    news: JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length))),
    picture: bytes.byteLength > 4 + length ? new Blob([new Uint8Array(bytes, 4 + length)], { type: "image/jpeg" }) : null,
  };
}

async function follow() {
  let failures = 0;
  for (;;) {
    if (paused || document.hidden) {
      if (paused) state("paused", "Paused");
      await sleep(60_000);
      continue;
    }
    try {
      const { news, picture } = await ask();
      failures = 0;
      await show(news, picture);
    } catch {
      const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
      failures += 1;
      if (seen.ended) ended();
      else if (failures > 1) {
        state("lost", "Connection lost");
        cover("The connection is lost; trying again …");
      }
      await sleep(wait);
    }
  }
}

async function show(news, picture) {
  if (news.run !== seen.run) {
    Object.assign(seen, { run: news.run, number: 0, newestMs: 0 });
    seen.steps.clear();
    about();
  }
  seen.number = news.number;
  seen.ended = news.ended;
  for (const step of news.steps) seen.steps.set(step[0], step);
  for (const place of seen.steps.keys()) {
    if (place < news.now - news.kept_s / news.step_s - 2) seen.steps.delete(place);
  }
  if (picture) await paint(picture);
  if (news.answer) {
    seen.newestMs = performance.now();
    showAnswer(news.answer);
  }
  numbers(news);
  if (news.ended) {
    ended();
    await sleep(1000);
  } else if (!seen.newestMs) {
    state("waiting", "Waiting");
    cover("Waiting for the first answer …");
  } else {
    const quietMs = performance.now() - seen.newestMs;
    if (quietMs < QUIET_MS) state("live", "Live");
    else state("quiet", `No answer for ${whole.format(Math.round(quietMs / 1000))} s`);
    cover("");
  }
}

async function paint(picture) {
  const bitmap = await createImageBitmap(picture);
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

function showAnswer(answer) {
  const share = answer.probability === null ? "" : percent.format(answer.probability);
  put(id("source"), answer.source);
  put(id("caption-label"), answer.label);
  put(id("caption-share"), share);
  id("caption").hidden = false;
  id("unsure").hidden = answer.known;
  put(id("frame"), `Frame ${whole.format(answer.frame)}${answer.repeated ? ", nothing moves" : ""}`);
  put(id("age"), milliseconds(answer.age_ms));
  if (!answer.repeated) put(id("latency"), milliseconds(answer.latency_ms));
  put(id("dropped"), whole.format(answer.dropped));
  const bars = id("bars");
  while (bars.children.length > answer.top.length) bars.lastElementChild.remove();
  while (bars.children.length < answer.top.length) bars.append(newBar());
  answer.top.forEach(({ label, probability }, index) => {
    const [name, number, track] = bars.children[index].children;
    put(name, label);
    name.title = label;
    put(number, probability === null ? "–" : percent.format(probability));
    track.firstElementChild.style.width = `${100 * Math.min(1, Math.max(0, probability ?? 0))}%`;
  });
  document.title = `${answer.label} · vit-edge`;
  speak(answer.label, share);
}

function newBar() {
  const item = document.createElement("li");
  for (const name of ["name", "share", "track"]) {
    const part = item.appendChild(document.createElement(name === "track" ? "div" : "span"));
    part.className = name;
  }
  item.lastElementChild.setAttribute("aria-hidden", "true");
  item.lastElementChild.appendChild(document.createElement("div")).className = "fill";
  return item;
}

// Screen readers hear a new label, and not more often than one can listen.
let spoken = { label: "", ms: -Infinity };
function speak(label, share) {
  const now = performance.now();
  if (label === spoken.label || now - spoken.ms < SPEAK_EVERY_MS) return;
  spoken = { label, ms: now };
  put(id("spoken"), `${label}, ${share}`);
  canvas.setAttribute("aria-label", `Picture of the camera: ${label}, ${share}`);
}

let drawnPlace = -1;
function numbers(news) {
  const steps = [...seen.steps.values()].sort((a, b) => a[0] - b[0]);
  const from = news.now - news.kept_s / news.step_s;
  const counted = steps.filter((step) => step[0] >= from);
  const answers = sum(counted, 1);
  const dropped = sum(counted, 6);
  // Five whole seconds tell the rate of now; the step that still fills up does not count.
  const recent = counted.filter((step) => step[0] < Math.floor(news.now) && step[0] >= Math.floor(news.now) - 5 / news.step_s);
  const first = counted.length ? counted[0][0] : 0;
  const seconds = Math.min(5, (Math.floor(news.now) - first) * news.step_s);
  put(id("rate"), seconds > 0 ? (sum(recent, 1) / seconds).toFixed(1) : "–");
  put(id("dropped-share"), dropped ? `${percent.format(dropped / (dropped + answers))} lately` : "");
  put(id("gaps"), whole.format(news.gaps));
  put(id("gap"), news.gaps ? `longest ${news.longest_gap_s.toFixed(1)} s` : "");
  if (Math.floor(4 * news.now) === drawnPlace) return;
  drawnPlace = Math.floor(4 * news.now);
  chart.show(steps, { now: news.now, stepS: news.step_s, keptS: news.kept_s });
  if (!answers) return;
  const age = counted.reduce((total, step) => total + step[1] * step[2], 0) / answers;
  const asked = counted.filter((step) => step[4] !== null);
  const latency = asked.reduce((total, step) => total + step[4], 0) / Math.max(1, asked.length);
  id("chart").setAttribute("aria-label",
    `Chart of the last minute: frame age ${age.toFixed(0)} ms on average, ` +
    `${Math.max(...counted.map((step) => step[3])).toFixed(0)} ms at worst; latency ${latency.toFixed(0)} ms on average. ` +
    "Arrow keys read single values.");
}

async function about() {
  try {
    const response = await fetch("about", { cache: "no-store" });
    if (!response.ok) return;
    const made = render(await response.json());
    id("about").replaceChildren(made ?? "");
    id("about").parentElement.hidden = !made;
  } catch { /* the next run, or the next reload, brings it */ }
}

function render(value) {
  if (value === null || value === undefined || value === "") return null;
  if (Array.isArray(value)) {
    if (value.length === 1) return render(value[0]);
    const list = document.createElement("ul");
    for (const part of value.map(render)) {
      if (part) list.appendChild(document.createElement("li")).append(part);
    }
    return list.children.length ? list : null;
  }
  if (typeof value === "object") {
    const list = document.createElement("dl");
    for (const [title, part] of Object.entries(value)) {
      const made = render(part);
      if (!made) continue;
      list.appendChild(document.createElement("dt")).textContent = title;
      list.appendChild(document.createElement("dd")).append(made);
    }
    return list.children.length ? list : null;
  }
  const words = typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
  return words.length > LONG ? fold(words) : document.createTextNode(words);
}

// A recipe can be pages long.
function fold(words) {
  const details = document.createElement("details");
  const summary = details.appendChild(document.createElement("summary"));
  const short = `${words.slice(0, LONG / 2)} …`;
  summary.textContent = short;
  details.appendChild(document.createElement("div")).textContent = words;
  details.addEventListener("toggle", () => put(summary, details.open ? "Less" : short));
  return details;
}

function ended() {
  state("ended", "Ended");
  cover(seen.newestMs ? "The run has ended; this was its last picture." : "The run has ended.");
}

function state(name, words) {
  id("state").dataset.state = name;
  put(id("state-text"), words);
}

function cover(words) {
  put(id("cover"), words);
  id("cover").hidden = !words;
}

// Text that stays the same is not put again, so that screen readers and the layout rest.
function put(node, text) {
  const words = String(text);
  if (node.textContent !== words) node.textContent = words;
}

function milliseconds(value) {
  if (value === null) return "–";
  return value < 10 ? value.toFixed(1) : whole.format(Math.round(value));
}

function sum(steps, column) {
  return steps.reduce((total, step) => total + step[column], 0);
}

function pause() {
  paused = !paused;
  id("pause").setAttribute("aria-pressed", String(paused));
  put(id("pause"), paused ? "Go on" : "Pause");
  wakeUp();
}

function full() {
  if (document.fullscreenElement) document.exitFullscreen();
  else id("stage").requestFullscreen().catch(() => {});
}

id("pause").addEventListener("click", pause);
id("full").addEventListener("click", full);
id("full").hidden = !document.fullscreenEnabled;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "p") pause();
  if (event.key === "f" && document.fullscreenEnabled) full();
});
document.addEventListener("visibilitychange", () => wakeUp());
window.addEventListener("online", () => wakeUp());
follow();
