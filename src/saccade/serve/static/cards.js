// One card per model: the frame and where the model looks, its verdict, its probabilities now and over time.

import { bytesOf, drawBoxes, drawFrame, drawLook, drawProbabilities, palette, prepare } from "./overlay.js";

const TITLES = { "lenet-lstm": "LeNet-LSTM", "stn-lstm": "STN-LSTM", "dcn-lstm": "DCN-LSTM", "multi-stn-lstm": "Multi-STN-LSTM" };
const ATTENTION = {
  none: "No attention layers. The bright places are those that its verdict depends on most.",
  stn: "Spatial transformer: one window on the whole frame.",
  "multi-stn": "Spatial transformer of several glimpses: numbered windows, each with a crop.",
  dcn: "Deformable convolution: each unit chooses its own points.",
};
const MARGIN = 0.025; // around the frame for marks on its border, as a fraction of its longer side
const MIN_MARGIN_PX = 4;
const MOST_BARS = 10; // side by side, if no name has more than SHORT_NAME characters
const SHORT_NAME = 2;
const MOST_ROWS = 5; // below each other: the most probable classes
const LENGTHS = [8, 16]; // the longest verdict in large letters, and in small letters on one line

export class Card {
  /** model: from the server's hello. index: the card's position. switched: called when the card is switched on or off. */
  constructor(model, index, switched) {
    this.model = model;
    this.minConfidence = model.min_confidence;
    this.title = (TITLES[model.kind] ?? model.kind) + model.name.slice(model.kind.length);
    const attention = model.attention ?? "none";
    const { classes } = model;
    this.inRows = classes.length > MOST_BARS || classes.some((name) => name.length > SHORT_NAME);
    this.kinds = Array.from(classes.keys()).slice(0, this.inRows ? MOST_ROWS : MOST_BARS);
    this.element = element("article", { className: "card" }, [
      element("header", {}, [
        element("h2", { textContent: this.title }),
        (this.ms = element("span", { className: "ms" })),
        element("label", { className: "switch" }, [
          (this.switch = element("input", { type: "checkbox", checked: true, onchange: switched })),
          "on",
          element("span", { className: "unseen", textContent: `, ${this.title}` }),
        ]),
        this.about(),
      ]),
      element("figure", { className: "view" }, [(this.view = picture(`What ${this.title} sees, and where it looks`))]),
      element("div", { className: "say" }, [
        element("div", {}, [
          (this.verdict = element("p", { className: "verdict unsure", textContent: "…" })),
          (this.judged = element("p", { className: "judged" })),
        ]),
        (this.cropFigure = element("figure", { className: "crop", hidden: true }, [
          (this.crop = picture(`What the encoder of ${this.title} receives`)),
          attention === "multi-stn" ? "its crops" : "its crop",
        ])),
      ]),
      (this.bars = element("div", { className: `bars ${this.inRows ? "rows" : ""}` }, this.kinds.map((k) => bar(classes[k])))),
      (this.time = picture(`Probabilities of ${this.title} over time`, "time")),
    ]);
    this.bars.style.setProperty("--longest", Math.max(...classes.map((name) => name.length)));
    this.element.dataset.attention = attention;
    // For phones, where cards are laid out in bands of three.
    this.element.style.setProperty("--column", (index % 3) + 1);
    this.element.style.setProperty("--band", Math.floor(index / 3));
    this.bars.setAttribute("role", "img");
    this.describe(null);
  }

  get isOn() {
    return this.switch.checked;
  }

  /** Draw a frame (a message of the server) and where the model looks. */
  draw(frame, layers, dark) {
    const look = frame.models[this.model.name]?.look ?? {};
    this.shape(frame.size);
    const { ctx, zoom } = prepare(this.view, frame.size, marginOf(frame.size));
    drawFrame(ctx, frame.bytes, frame.size, zoom);
    drawLook(ctx, look, zoom, layers, palette(dark));
    if (layers.boxes) drawBoxes(ctx, frame.boxes, frame.digits.map((digit) => digit ?? "?"), zoom, palette(dark));
    this.cropFigure.hidden = !look.crop;
    if (!look.crop) return;
    const { ctx: small, zoom: smaller } = prepare(this.crop, look.crop.size);
    drawFrame(small, bytesOf(look.crop.pixels), look.crop.size, smaller);
  }

  /** Say what the drawing shows and what the model names; in between is room to say that attention changes nothing. */
  about() {
    const nothing = element("strong", { textContent: "attention changes nothing." });
    this.idle = element("span", { className: "idle-attention", hidden: true }, [(this.reason = element("span")), nothing]);
    return element("p", { className: "what" }, [
      element("span", { textContent: ATTENTION[this.model.attention ?? "none"] }), " ", this.idle, " ",
      element("span", { textContent: this.model.task }),
    ]);
  }

  /** Say whether attention changes anything in this frame, given where the model looks. */
  tellIdle({ quad, arrows }, size) {
    const reason = this.isOn ? whyIdle(quad, arrows, size) : null;
    this.idle.hidden = !reason;
    setText(this.reason, reason ?? "");
  }

  /** Give the picture the aspect ratio of the frame if it has changed. */
  shape([height, width]) {
    const margin = marginOf([height, width]);
    const aspect = `${width + 2 * margin} / ${height + 2 * margin}`;
    if (this.aspect === aspect) return;
    this.aspect = aspect;
    this.view.style.setProperty("--aspect", aspect);
  }

  /** Show the verdict and the probabilities. `draw` reads widths: calls in turn would cost a layout each. */
  tell(frame) {
    const seen = frame.models[this.model.name];
    this.element.classList.toggle("off", !seen);
    if (!seen) return;
    setText(this.ms, `${seen.ms.toFixed(0)} ms`);
    this.say(seen);
    this.tellIdle(seen.look, frame.size);
    if (this.kinds.length < seen.probabilities.length) this.kinds = strongest(seen.probabilities, this.kinds.length);
    [...this.bars.children].forEach((bar, i) => {
      const k = this.kinds[i];
      const [name, part, percent] = bar.children;
      setText(name, this.model.classes[k]);
      part.style.setProperty("--part", `${(100 * seen.probabilities[k]).toFixed(1)}%`);
      setText(percent, `${Math.round(100 * seen.probabilities[k])} %`);
      bar.classList.toggle("on", seen.verdict.classes.includes(k));
    });
  }

  say({ verdict, right }) {
    const words = verdict.name;
    const percent = Math.round(100 * verdict.confidence);
    setText(this.verdict, verdict.sure ? words : "not sure");
    this.verdict.classList.toggle("unsure", !verdict.sure || !verdict.classes.length);
    this.verdict.dataset.length = verdict.sure ? LENGTHS.filter((length) => words.length > length).length : 0;
    const judged = verdict.sure && right !== null;
    this.judged.className = `judged ${judged ? (right ? "right" : "wrong") : ""}`;
    const sign = judged ? (right ? "✓ right, " : "✗ wrong, ") : "";
    setText(this.judged, verdict.sure ? `${sign}${percent} %` : `below ${Math.round(100 * this.minConfidence)} %`);
    this.words = verdict.sure ? `${words}, ${judged ? (right ? "right, " : "wrong, ") : ""}${percent} percent` : "not sure";
  }

  /** Draw the probabilities of the stored frames; `now` is the index of the frame shown. */
  drawTime(frames, now, dark) {
    const rows = frames.map((frame) => frame.models[this.model.name]?.probabilities ?? null);
    const known = rows.findIndex((row) => row);
    if (known < 0) return;
    const blank = this.model.classes.map(() => 0);
    // A class needs this probability to be the verdict; classes that can be present together are present above one half.
    const threshold = this.model.exclusive ? this.minConfidence : 0.5;
    drawProbabilities(this.time, rows.map((row) => row ?? blank), this.model.classes, {
      now, dark, threshold, strongest: 3, first: frames[0].number,
    });
  }

  /** Describe the charts in words, for screen readers. */
  describe(frame) {
    const seen = frame?.models[this.model.name];
    const likely = (seen?.probabilities ?? [])
      .map((p, k) => [p, this.model.classes[k]])
      .sort(([a], [b]) => b - a)
      .slice(0, 3)
      .map(([p, name]) => `${name} ${Math.round(100 * p)} percent`);
    const text = likely.length ? `Most probable: ${likely.join(", ")}` : "Probabilities";
    for (const part of [this.bars, this.time]) part.setAttribute("aria-label", `${this.title}. ${text}`);
  }
}

function bar(name) {
  return element("div", { className: "bar" }, [
    element("span", { textContent: name }), element("i"), element("span", { className: "percent" }),
  ]);
}

function strongest(probabilities, count) {
  return Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]).slice(0, count);
}

function marginOf(size) {
  return Math.max(MIN_MARGIN_PX, MARGIN * Math.max(...size));
}

/** Return why attention changes nothing: a window within a pixel of the whole frame, or offsets below a tenth of one. */
function whyIdle(quad, arrows, [height, width]) {
  const corners = [[0, 0], [0, width], [height, width], [height, 0]];
  const isNear = ([y, x], [top, left]) => Math.max(Math.abs(y + 0.5 - top), Math.abs(x + 0.5 - left)) <= 1;
  if (quad?.every((corner, i) => isNear(corner, corners[i % 4]))) return "Here it is the whole frame: ";
  const isShort = ([y0, x0, y1, x1]) => Math.hypot(y1 - y0, x1 - x0) < 0.1;
  if (arrows?.every(isShort)) return "Here they are where they would be without offsets: ";
  return null;
}

function picture(label, className = "") {
  const canvas = element("canvas", { className });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

export function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Set a text only if it differs, since every change costs a layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
