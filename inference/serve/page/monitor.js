// The page of `separator monitor`: a table of runs, their curves, pictures and sounds.
import { $, api, clock } from "./common.js";

const EVERY_MS = 5000;
const COLOURS = 8; // in style.css
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [600, 200, 60, 20, 8];
const FIRST = [ // title, and the curves: kind of row, name, dashed or not
  ["Score of the validation", [["validation", "score", false]]],
  ["Loss (dashed: validation)", [["train", "loss", false], ["validation", "valid/loss", true]]],
  ["Learning rate", [["train", "optim/lr", false]]],
];
const runs = new Map(); // by name: { summary, curves, media, colour, shown }

const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(4))));
const query = (path, values) => `${path}?${new URLSearchParams(values)}`;
const shown = () => [...runs.values()].filter((run) => run.shown);

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
function drawing(tag, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

// --- the table ---

function row(run) {
  const { name, step, steps, score, best, left, validation, age } = run.summary;
  const box = make("input", { type: "checkbox", checked: run.shown });
  box.addEventListener("change", () => {
    run.shown = box.checked;
    draw();
  });
  const swatch = make("span", { className: `swatch c${run.colour}` });
  const next = validation && `step ${validation.step} in ${clock(validation.wait)}`;
  const cost = validation?.seconds ? `, takes ${clock(validation.seconds)}` : "";
  const done = steps && step >= steps;
  const cells = [
    make("label", {}, box, swatch, make("bdi", { textContent: name })),
    steps ? `${step} of ${steps}` : String(step),
    number(score),
    best ? `${number(best[0])} at ${best[1]}` : "–",
    done ? "done" : left === null ? "–" : clock(left),
    next ? next + cost : "–",
    step ? `${clock(age)} ago` : "no log yet",
  ];
  return make("tr", {}, ...cells.map((cell) => make("td", {}, cell)));
}

// --- curves ---

function lines(curves) {
  return shown().flatMap((run) => curves.map(([kind, name, dashed]) => {
    return { run, dashed, points: run.curves?.[kind]?.[name] ?? [] };
  })).filter((line) => line.points.some(([, value]) => value !== null));
}

function chart(title, curves) {
  const found = lines(curves);
  if (!found.length) return [];
  const figure = $("#chart").content.cloneNode(true).firstElementChild;
  const points = found.flatMap((line) => line.points.filter(([, value]) => value !== null));
  const range = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [, last] = range(points.map(([step]) => step));
  const [low, high] = range(points.map(([, value]) => value));
  const x = (step) => LEFT + ((WIDTH - LEFT - 10) * step) / Math.max(last, 1);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * (value - low)) / (high - low || 1);
  const svg = $("svg", figure);
  for (const value of low === high ? [low] : [low, (low + high) / 2, high]) {
    svg.append(drawing("line", { class: "grid", x1: LEFT, x2: WIDTH - 10, y1: y(value), y2: y(value) }));
    svg.append(drawing("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  for (const step of [0, last]) {
    svg.append(drawing("text", { x: x(step), y: HEIGHT - 4, "text-anchor": step ? "end" : "start" }, step));
  }
  for (const { run, dashed, points } of found) {
    let path = "", pen = "M";
    for (const [step, value] of points) {
      if (value !== null) path += `${pen}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = value === null ? "M" : "L";
    }
    const kind = points.length < 2 ? " dot" : dashed ? " dashed" : "";
    svg.append(drawing("path", { class: `c${run.colour}${kind}`, d: kind === " dot" ? `${path}h0.1` : path }));
  }
  const said = found.map(({ run, points }) => `${run.summary.name} ${number(points.at(-1)[1])}`);
  svg.setAttribute("aria-label", `${title}; latest: ${said.join(", ")}`);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const step = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (x(1) - x(0) || 1);
    const near = (points) => points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
    const values = found.map((line) => near(line.points)).map(([at, value]) => `${number(value)} (${at})`);
    $("output", figure).textContent = values.join(" · ");
  });
  $(".name", figure).textContent = title;
  return [figure];
}

function others() {
  const names = new Map();
  const first = new Set(FIRST.flatMap(([, curves]) => curves.map(([kind, name]) => `${kind} ${name}`)));
  for (const run of shown()) {
    for (const kind of Object.keys(run.curves ?? {})) {
      for (const name of Object.keys(run.curves[kind])) names.set(`${kind} ${name}`, [[kind, name, false]]);
    }
  }
  return [...names].filter(([title]) => !first.has(title));
}

// --- pictures and sounds ---

function medium(run, { kind, tag, steps }) {
  const part = tag.slice(tag.lastIndexOf("/") + 1);
  const holder = make("figure", { className: "song" });
  const show = (step) => {
    const src = query("api/medium", { run: run.summary.name, kind, tag, step });
    const node = kind === "images"
      ? make("img", { src, alt: `${tag} of ${run.summary.name} after step ${step}`, loading: "lazy" })
      : make("audio", { src, controls: true, preload: "none", ariaLabel: `${tag} of ${run.summary.name}` });
    holder.querySelector("img, audio")?.remove();
    holder.append(node);
  };
  const choice = make("select", { ariaLabel: `Step of ${tag}` }, ...steps.map((step) => {
    return make("option", { value: step, textContent: `step ${step}` });
  }));
  choice.value = steps.at(-1);
  choice.addEventListener("change", () => show(choice.value));
  const swatch = make("span", { className: `swatch c${run.colour}` });
  const name = make("bdi", { textContent: shown().length > 1 ? `${part}, ${run.summary.name}` : part });
  holder.append(make("figcaption", { className: "row" }, swatch, name, choice));
  show(steps.at(-1));
  return holder;
}

function drawMedia() {
  const groups = new Map(); // of a song: mixture, estimate and target
  const all = shown().flatMap((run) => (run.media ?? []).map((one) => ({ run, one })));
  const order = [...new Set(all.map(({ one }) => one.tag))];
  all.sort((a, b) => order.indexOf(a.one.tag) - order.indexOf(b.one.tag)); // runs side by side
  for (const { run, one } of all) {
    const key = one.tag.slice(0, one.tag.lastIndexOf("/"));
    groups.set(key, [...(groups.get(key) ?? []), medium(run, one)]);
  }
  const sections = [...groups].map(([key, nodes]) => {
    return [make("h3", { textContent: key }), make("div", { className: "charts" }, ...nodes)];
  });
  $("#media").replaceChildren(...sections.flat());
}

// --- refreshing ---

function draw(media = true) {
  $("#charts").replaceChildren(...FIRST.flatMap(([title, curves]) => chart(title, curves)));
  const rest = $("#more").open ? others().flatMap(([title, curves]) => chart(title, curves)) : [];
  $("#more .charts").replaceChildren(...rest);
  if (media) drawMedia();
}

async function refresh() {
  for (const summary of await api("GET", "runs")) {
    const run = runs.get(summary.name) ?? { colour: runs.size % COLOURS, shown: runs.size < COLOURS };
    run.summary = summary;
    runs.set(summary.name, run);
  }
  $("#runs").replaceChildren(...[...runs.values()].map(row)); // first: curves and sounds take longer
  let changed = false, media = false, problem = null;
  for (const run of runs.values()) {
    const { name, version } = run.summary;
    if (run.read === version) continue;
    try {
      run.curves = await api("GET", query("curves", { run: name }));
      const found = await api("GET", query("media", { run: name }));
      media ||= JSON.stringify(found) !== JSON.stringify(run.media);
      run.media = found;
      run.read = version;
      changed = true;
    } catch (error) {
      problem = error; // the other runs are shown all the same
    }
  }
  const plays = [...document.querySelectorAll("audio")].some((audio) => !audio.paused);
  if (changed) draw(media && !plays);
  if (problem) throw problem;
}

async function update() {
  try {
    await refresh();
    $("#message").hidden = true;
  } catch (error) {
    $("#message").textContent = error.message;
    $("#message").hidden = false;
  }
  $("#reading").hidden = true;
  document.body.dataset.refreshed = Number(document.body.dataset.refreshed ?? 0) + 1;
}

async function follow() {
  await update();
  setTimeout(follow, EVERY_MS);
}

window.addEventListener("focus", update);
$("#more").addEventListener("toggle", () => draw(false));
follow();
