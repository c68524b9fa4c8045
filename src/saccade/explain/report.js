import { bytesOf, drawBoxes, drawFrame, drawLook, drawProbabilities, palette, prepare } from "./overlay.js";

const element = (id) => document.getElementById(id);
const darkness = matchMedia("(prefers-color-scheme: dark)");
const MAX_MARGIN = 0.2; // as a fraction of the frame, for quadrilaterals that extend beyond it
const RIM = 0.02; // as a fraction of the frame, for marks on its border

/** Decompress the data of the page and parse it as JSON. */
async function unpacked() {
  const packed = new Blob([bytesOf(element("data").textContent)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** Return how far marks extend beyond the frame, as a fraction of it; one value for all models. */
function marginOf(columns) {
  let reach = 0;
  for (const { size: [height, width], looks } of columns) {
    for (const [y, x] of looks.flatMap(({ quad, units }) => [...(quad ?? []), ...(units ?? [])])) {
      reach = Math.max(reach, RIM + Math.max(-y / height, -x / width, y / height - 1, x / width - 1));
    }
  }
  return Math.min(MAX_MARGIN, Math.ceil(100 * reach) / 100);
}

/** The part of the page for one model: draws its canvases and its current verdict. */
class Column {
  constructor(root, data, report) {
    this.data = data;
    this.frames = bytesOf(report.strips[data.strip]);
    this.margin = report.margin * Math.max(...data.size);
    for (const name of ["frame", "crop", "chart"]) this[name] = root.querySelector(`canvas.${name}`);
    this.now = root.querySelector(".now");
    root.querySelector(".swatch").style.background = data.colour;
    this.start = report.numFrames - data.probabilities.length;
  }

  draw(t, layers, truth) {
    const { size, looks, boxes, colour } = this.data;
    const perFrame = this.frames.length / looks.length;
    const { ctx, zoom } = prepare(this.frame, size, this.margin);
    drawFrame(ctx, this.frames.subarray(t * perFrame, (t + 1) * perFrame), size, zoom);
    drawLook(ctx, looks[t], zoom, layers, { ...palette(false), accent: colour });
    if (layers.boxes && boxes) drawBoxes(ctx, boxes[t], truth, zoom);
    this.frame.setAttribute("aria-label", this.describe(t, layers));
    if (this.crop && looks[t].crop) {
      const { size: cropSize, pixels } = looks[t].crop;
      const small = prepare(this.crop, cropSize);
      drawFrame(small.ctx, bytesOf(pixels), cropSize, small.zoom);
    }
    this.now.replaceChildren(...this.said(t));
    this.drawChart(t);
  }

  drawChart(t) {
    const { probabilities, names, decidedAt, threshold } = this.data;
    const options = { now: t, decidedAt, threshold, start: this.start, first: 1, dark: darkness.matches };
    this.frameAt = drawProbabilities(this.chart, probabilities, names, options);
  }

  said(t) {
    const row = t - this.start;
    const verdict = document.createElement("b");
    if (row < 0) return ["no verdict yet"];
    const { verdicts, sure, verdictProbabilities } = this.data;
    verdict.textContent = verdicts[row];
    return [`frame ${t + 1}: ${sure[row] ? "" : "unsure: "}`, verdict, ` ${percent(verdictProbabilities[row])}`];
  }

  describe(t, layers) {
    const { looks, name } = this.data;
    const corners = layers.quad && looks[t].quad;
    const areas = [];
    for (let i = 0; corners && i < corners.length; i += 4) {
      areas.push(corners.slice(i, i + 4).map((c) => `(${c.map(Math.round).join(", ")})`).join(" "));
    }
    const where = areas.map((area, i) => `${i ? " and " : "; samples "}the quadrilateral with corners (y, x) ${area}`);
    return `Input frame ${t + 1} of ${name}${where.join("")}`;
  }
}

function percent(p) {
  return `${(100 * p).toFixed(1)} %`;
}

/** The player: keeps the current frame, plays and steps, and makes all columns draw. */
class Player {
  constructor(report, columns) {
    Object.assign(this, { report, columns, t: 0, playing: false, spent: 0, before: 0 });
    this.layers = Object.fromEntries(checkboxes().map((box) => [box.name, box.checked]));
  }

  show(t) {
    this.t = Math.min(this.report.numFrames - 1, Math.max(0, t));
    const seconds = this.report.fps ? ` · ${(this.t / this.report.fps).toFixed(1)} s` : "";
    const words = `frame ${this.t + 1} of ${this.report.numFrames}${seconds}`;
    this.draw();
    element("position").textContent = words;
    const said = this.columns.map((column) => `${column.data.name} ${column.now.textContent}`);
    element("scrubber").value = this.t;
    element("scrubber").setAttribute("aria-valuetext", [words, ...said].join("; "));
  }

  draw() {
    for (const column of this.columns) column.draw(this.t, this.layers, this.report.truth);
  }

  step(by) {
    this.pause();
    this.show(this.t + by);
  }

  play() {
    if (this.playing) return;
    this.playing = true;
    this.before = performance.now();
    this.spent = 0;
    this.mark();
    if (this.t === this.report.numFrames - 1) this.show(0);
    requestAnimationFrame((now) => this.tick(now));
  }

  pause() {
    this.playing = false;
    this.mark();
  }

  mark() {
    element("play").classList.toggle("playing", this.playing);
    element("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
  }

  tick(now) {
    if (!this.playing) return;
    this.spent += now - this.before;
    this.before = now;
    const frames = Math.floor((this.spent * this.report.shownFps) / 1000);
    if (frames > 0) {
      this.spent -= (1000 * frames) / this.report.shownFps;
      this.show((this.t + frames) % this.report.numFrames);
    }
    requestAnimationFrame((later) => this.tick(later));
  }
}

function checkboxes() {
  return [...element("layers").querySelectorAll("input")];
}

function listen(player) {
  element("play").addEventListener("click", () => (player.playing ? player.pause() : player.play()));
  element("back").addEventListener("click", () => player.step(-1));
  element("step").addEventListener("click", () => player.step(1));
  element("scrubber").addEventListener("input", (event) => {
    player.pause();
    player.show(Number(event.target.value));
  });
  for (const box of checkboxes()) {
    box.addEventListener("change", () => {
      player.layers[box.name] = box.checked;
      player.draw();
    });
  }
  for (const column of player.columns) {
    const follow = (event) => {
      if (!event.buttons) return;
      player.pause();
      player.show(column.frameAt(event.offsetX));
    };
    column.chart.addEventListener("pointerdown", follow);
    column.chart.addEventListener("pointermove", follow);
  }
  document.addEventListener("keydown", (event) => onKey(event, player));
  darkness.addEventListener("change", () => player.draw());
  new ResizeObserver(() => player.draw()).observe(document.querySelector(".columns"));
}

// The keys of video players, unless a control that needs them has the focus.
function onKey(event, player) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, summary, pre, .scroll")) return;
  const actions = {
    " ": () => (player.playing ? player.pause() : player.play()),
    ArrowLeft: () => player.step(-1),
    ArrowRight: () => player.step(1),
    Home: () => player.step(-Infinity),
    End: () => player.step(Infinity),
  };
  if (!(event.key in actions) || (event.key === " " && target.closest("button"))) return;
  event.preventDefault();
  actions[event.key]();
}

async function start() {
  const report = await unpacked();
  report.margin = marginOf(report.columns);
  const roots = [...document.querySelectorAll(".column")];
  const columns = report.columns.map((data, i) => new Column(roots[i], data, report));
  const player = new Player(report, columns);
  listen(player);
  const asked = /^#frame=(\d+)$/.exec(location.hash);
  player.show(asked ? Number(asked[1]) - 1 : 0);
  if (!asked && report.numFrames > 1 && !matchMedia("(prefers-reduced-motion: reduce)").matches) player.play();
}

start().catch((error) => {
  element("trouble").hidden = false;
  element("trouble").textContent = `The clip cannot be played here (${error.message}); use the figures below.`;
});
