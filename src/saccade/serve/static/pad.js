// The drawing area: strokes by mouse, finger, pen or keys.

const SIZE = 256;
const HANDED_OVER_AFTER_MS = 700;
const KEY_STEP = 12;
const MOST_POINTS = 60; // per stroke, so that a drawing fits into a link

export class Pad {
  /** drawn: called with the strokes, [[[x, y], ...], ...] in 0 to 255, after a pause in drawing. */
  constructor(canvas, drawn) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
    this.drawn = drawn;
    this.pen = [SIZE / 2, SIZE / 2];
    this.penIsDown = false;
    this.strokes = [];
    canvas.onpointerdown = (event) => this.down(event);
    canvas.onpointermove = (event) => this.drag(event);
    canvas.onpointerup = canvas.onpointercancel = (event) => this.up(event);
    canvas.onkeydown = (event) => this.key(event);
    canvas.onfocus = canvas.onblur = () => this.paint();
    this.paint();
  }

  clear() {
    clearTimeout(this.timer);
    this.strokes = [];
    this.penIsDown = false;
    this.paint();
  }

  /** Show strokes that came with a link. */
  put(strokes) {
    this.clear();
    this.strokes = strokes;
    this.paint();
  }

  down(event) {
    clearTimeout(this.timer);
    // After a drawing was submitted, the next stroke starts a new one.
    if (this.isDone) this.strokes = [];
    this.isDone = false;
    this.canvas.setPointerCapture(event.pointerId);
    this.strokes.push([this.place(event)]);
    this.paint();
  }

  drag(event) {
    if (!this.canvas.hasPointerCapture(event.pointerId)) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) this.strokes.at(-1)?.push(this.place(each));
    this.paint();
  }

  up(event) {
    if (!this.canvas.hasPointerCapture(event.pointerId)) return;
    this.canvas.releasePointerCapture(event.pointerId);
    this.timer = setTimeout(() => this.handOver(), HANDED_OVER_AFTER_MS);
  }

  handOver() {
    clearTimeout(this.timer);
    if (!this.strokes.length) return;
    this.isDone = true;
    this.penIsDown = false;
    this.drawn(this.strokes.slice(0, 32).map(simplified));
    this.paint();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) this.walk(moves[event.key]);
    else if (event.key === " ") this.penIsDown ? (this.penIsDown = false) : this.penDown();
    else if (event.key === "Enter") this.handOver();
    else if (event.key === "Backspace" || event.key === "Delete") this.clear();
    else return;
    event.preventDefault();
    this.paint();
  }

  penDown() {
    if (this.isDone) this.strokes = [];
    this.isDone = false;
    this.penIsDown = true;
    this.strokes.push([[...this.pen]]);
  }

  walk([x, y]) {
    this.pen = [clamped(this.pen[0] + KEY_STEP * x), clamped(this.pen[1] + KEY_STEP * y)];
    if (this.penIsDown) this.strokes.at(-1).push([...this.pen]);
  }

  place({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [clamped(((clientX - left) / width) * SIZE), clamped(((clientY - top) / height) * SIZE)];
  }

  paint() {
    const { ctx } = this;
    ctx.clearRect(0, 0, SIZE, SIZE);
    ctx.lineWidth = 20;
    ctx.lineCap = ctx.lineJoin = "round";
    ctx.strokeStyle = this.isDone ? "#9aa1ac" : "#ffffff";
    for (const stroke of this.strokes) {
      ctx.beginPath();
      for (const point of [stroke[0], ...stroke]) ctx.lineTo(...point);
      ctx.stroke();
    }
    if (!this.strokes.length) {
      ctx.fillStyle = "#a3aab5";
      ctx.font = "22px system-ui, sans-serif";
      ctx.textAlign = "center";
      ctx.fillText("draw a digit", SIZE / 2, SIZE / 2);
    }
    if (document.activeElement === this.canvas && this.canvas.matches(":focus-visible")) this.paintPen();
  }

  paintPen() {
    const { ctx, pen } = this;
    ctx.lineWidth = 3;
    ctx.strokeStyle = this.penIsDown ? "#ee7733" : "#4cc9f0";
    ctx.beginPath();
    ctx.arc(...pen, 12, 0, 2 * Math.PI);
    ctx.stroke();
  }
}

function clamped(value) {
  return Math.min(255, Math.max(0, Math.round(value)));
}

/** Reduce a stroke to at most MOST_POINTS points (Ramer, Douglas and Peucker). */
function simplified(stroke) {
  for (let tolerance = 1; ; tolerance *= 1.5) {
    const kept = thinned(stroke, tolerance);
    if (kept.length <= MOST_POINTS) return kept;
  }
}

function thinned(points, tolerance) {
  if (points.length < 3) return points;
  const [[x0, y0], [x1, y1]] = [points[0], points.at(-1)];
  const length = Math.hypot(x1 - x0, y1 - y0);
  const distance = ([x, y]) =>
    length ? Math.abs((x1 - x0) * (y0 - y) - (x0 - x) * (y1 - y0)) / length : Math.hypot(x - x0, y - y0);
  let farthest = 0;
  for (let i = 1; i < points.length - 1; i++) if (distance(points[i]) > distance(points[farthest])) farthest = i;
  if (!farthest || distance(points[farthest]) <= tolerance) return [points[0], points.at(-1)];
  return [...thinned(points.slice(0, farthest + 1), tolerance).slice(0, -1), ...thinned(points.slice(farthest), tolerance)];
}
