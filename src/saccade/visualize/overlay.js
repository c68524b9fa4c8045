// Drawings of where a model looked on a frame, and of class probabilities over time; for the report and the live page.
//
// Positions are (y, x) in pixels of the frame; the centre of the upper left pixel is (0, 0), as in saccade.attention.
// The unit of a context is a CSS pixel (see `prepare`); `zoom` is the number of CSS pixels per pixel of the frame.

const TAU = 2 * Math.PI;
const NAMES_FONT = "600 12px system-ui, sans-serif";
const HEAT_OPACITY = 190; // of 255: the frame stays readable below
const HEAT_FULL = 0.5; // the part of a frame's maximum from which a map is that opaque
const FAINTEST = 0.1; // the radius of the smallest point that is drawn, as a fraction of the largest
const DASHES = [[], [9, 6], [2, 6], [9, 5, 2, 5]]; // of the outlines of several glimpses, in CSS pixels
const MOST_FOR_NAMES = 0.3; // as a fraction of a chart's width
const LIGHT = {
  ink: "#1c1f24", muted: "#656b75", grid: "#dfe2e7", paper: "#ffffff",
  series: ["#0b6bb5", "#c24e00", "#00785a", "#a2418f", "#7d6600", "#b3202c", "#4b55c8", "#3f6f1f", "#0f7f93", "#5d6470"],
};
const DARK = {
  ink: "#e9ebee", muted: "#9aa1ac", grid: "#363b43", paper: "#15181c",
  series: ["#5fb3f0", "#ff9a4d", "#43cfa3", "#e79bd6", "#e6d54a", "#ff8585", "#a3adff", "#a5d86e", "#5fd4e6", "#c3c8d0"],
};

/** Return the colours for a light or a dark page; the colours on frames are the same for both. */
export function palette(dark) {
  return {
    ...(dark ? DARK : LIGHT),
    models: dark
      ? { "lenet-lstm": "#77aadd", "stn-lstm": "#ee8866", "dcn-lstm": "#5cc07a" }
      : { "lenet-lstm": "#4477aa", "stn-lstm": "#ee7733", "dcn-lstm": "#228833" },
    // Every mark on a frame has a light rim, so that it is visible on black and on white.
    accent: "#ee7733", rim: "rgba(255, 255, 255, 0.85)", glimpses: ["#0077bb", "#ee3377", "#009988"], arrow: "#1fa187", box: "#33bbee",
    units: ["#ffd23f", "#4cc9f0", "#f72585"],
    // For the smallest and the largest gradient of a frame.
    saliency: [[214, 40, 40], [255, 214, 64]], field: [[58, 80, 224], [120, 240, 255]],
  };
}

/** Fit a canvas's bitmap to the screen, for a frame with a margin in frame pixels; return its context and its zoom. */
export function prepare(canvas, [height, width], margin = 0) {
  const zoom = canvas.clientWidth / (width + 2 * margin);
  const ctx = sharpContext(canvas, canvas.clientWidth, zoom * (height + 2 * margin));
  ctx.translate(margin * zoom, margin * zoom);
  return { ctx, zoom };
}

/** Draw a frame, with one or three bytes per pixel, without smoothing. */
export function drawFrame(ctx, pixels, [height, width], zoom) {
  const channels = pixels.length / (height * width);
  drawPixels(ctx, [height, width], zoom, (data) => {
    for (let i = 0, from = 0, to = 0; i < height * width; i++, from += channels, to += 4) {
      data[to] = pixels[from];
      data[to + 1] = pixels[channels === 3 ? from + 1 : from];
      data[to + 2] = pixels[channels === 3 ? from + 2 : from];
      data[to + 3] = 255;
    }
  });
}

/**
 * Draw where a model looked.
 * look: the result of Look.frame_json. layers: {quad, points, arrows, saliency, field}, true for the layers to draw.
 * colours: colours to use instead of those of `palette`, for example `accent` for the colour of the model.
 */
export function drawLook(ctx, look, zoom, layers, colours = palette(false)) {
  const shown = { ...palette(false), ...colours };
  ctx.save();
  ctx.lineJoin = ctx.lineCap = "round";
  if (layers.field && look.field) drawHeat(ctx, look.field, zoom, shown.field);
  if (layers.saliency && look.saliency) drawHeat(ctx, look.saliency, zoom, shown.saliency);
  if (layers.arrows && look.arrows) drawArrows(ctx, look.arrows, zoom, shown);
  if (layers.quad && look.quad) drawQuadrilaterals(ctx, look.quad, zoom, shown);
  if (layers.points && look.points) drawPoints(ctx, look.points, look.units ?? [], zoom, shown);
  ctx.restore();
}

/** Draw boxes (top, left, bottom, right), bottom and right exclusive, each with its name if it has one. */
export function drawBoxes(ctx, boxes, names, zoom, colours = palette(false)) {
  ctx.save();
  ctx.font = "600 11px system-ui, sans-serif";
  boxes.forEach(([top, left, bottom, right], i) => {
    if (bottom <= top || right <= left) return;
    const sides = [left * zoom, top * zoom, (right - left) * zoom, (bottom - top) * zoom];
    rimmed(ctx, colours.box, 1.5, colours.rim, () => ctx.rect(...sides));
    if (names?.[i] === undefined) return;
    ctx.lineWidth = 3;
    ctx.strokeStyle = "#000000";
    ctx.fillStyle = colours.box;
    const at = [left * zoom + 2, top * zoom > 14 ? top * zoom - 4 : bottom * zoom + 12];
    ctx.strokeText(names[i], ...at);
    ctx.fillText(names[i], ...at);
  });
  ctx.restore();
}

/** Decode base64 to bytes. */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  // Not Uint8Array.from, which takes ten times as long; the live page does this a hundred times a second.
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function drawHeat(ctx, { size, grey }, zoom, [weak, strong]) {
  const bytes = typeof grey === "string" ? bytesOf(grey) : grey;
  drawPixels(ctx, size, zoom, (data) => {
    bytes.forEach((byte, i) => {
      const part = byte / 255;
      for (let c = 0; c < 3; c++) data[4 * i + c] = weak[c] + (strong[c] - weak[c]) * part;
      // Level at both ends: no edge shows where the map begins, nor where it becomes opaque.
      const rise = Math.min(1, part / HEAT_FULL);
      data[4 * i + 3] = HEAT_OPACITY * rise * rise * (3 - 2 * rise);
    });
  });
}

/** Draw the area of each glimpse, four corners each; several have colours, dashes and numbers of their own. */
function drawQuadrilaterals(ctx, corners, zoom, { accent, glimpses, rim }) {
  const several = corners.length > 4;
  const hues = [accent, ...glimpses];
  for (let i = 0; 4 * i < corners.length; i++) {
    ctx.setLineDash(several ? DASHES[i % DASHES.length] : []);
    drawQuadrilateral(ctx, corners.slice(4 * i, 4 * i + 4), zoom, { accent: hues[i % hues.length], rim });
  }
  ctx.setLineDash([]);
  // All numbers come last, so that no line covers them.
  for (let i = 0; several && 4 * i < corners.length; i++) {
    const at = onCanvas(corners[4 * i], zoom);
    disc(ctx, at, 8, hues[i % hues.length], rim, 1.5);
    Object.assign(ctx, { font: NAMES_FONT, fillStyle: "#ffffff", textAlign: "center", textBaseline: "middle" });
    ctx.fillText(`${i + 1}`, at[0], at[1] + 0.5);
  }
}

function drawQuadrilateral(ctx, corners, zoom, { accent, rim }) {
  const [first, ...others] = corners.map((position) => onCanvas(position, zoom));
  rimmed(ctx, accent, 3, rim, () => {
    ctx.moveTo(...first);
    others.forEach((corner) => ctx.lineTo(...corner));
    ctx.closePath();
  });
  // Marks the crop's upper left corner, so that a rotation by 90 degrees is visible.
  disc(ctx, first, 5.5, accent, rim, 2);
}

function drawPoints(ctx, points, units, zoom, { units: hues, rim }) {
  const heaviest = Math.max(...points.map(([, , weight]) => weight), 1e-12);
  const perUnit = Math.max(1, points.length / Math.max(1, units.length));
  // In proportion to the drawing, since frames of all sizes are enlarged to it.
  const side = Math.min(ctx.canvas.clientWidth, ctx.canvas.clientHeight);
  const largest = Math.min(6.5, Math.max(3, 0.02 * side));
  const arm = 1.25 * largest;
  points.forEach(([y, x, weight], i) => {
    const size = Math.sqrt(weight / heaviest);
    const hue = hues[Math.floor(i / perUnit) % hues.length];
    if (size > FAINTEST) disc(ctx, onCanvas([y, x], zoom), size * largest, hue, rim, 0.15 * largest);
  });
  units.forEach((position, i) => {
    const [x, y] = onCanvas(position, zoom);
    rimmed(ctx, hues[i % hues.length], Math.max(1.75, 0.4 * largest), "rgba(0, 0, 0, 0.7)", () => {
      ctx.moveTo(x - arm, y);
      ctx.lineTo(x + arm, y);
      ctx.moveTo(x, y - arm);
      ctx.lineTo(x, y + arm);
    });
  });
}

function drawArrows(ctx, arrows, zoom, { arrow, rim }) {
  rimmed(ctx, arrow, 1.25, rim, () => {
    for (const [y0, x0, y1, x1] of arrows) {
      const [fromX, fromY] = onCanvas([y0, x0], zoom);
      const [toX, toY] = onCanvas([y1, x1], zoom);
      const length = Math.hypot(toX - fromX, toY - fromY);
      ctx.moveTo(fromX, fromY);
      ctx.lineTo(toX, toY);
      if (length < 1.5) continue; // a head would hide the arrow
      const angle = Math.atan2(toY - fromY, toX - fromX);
      const head = Math.min(4.5, 0.45 * length);
      for (const side of [-0.5, 0.5]) {
        ctx.moveTo(toX, toY);
        ctx.lineTo(toX - head * Math.cos(angle + side), toY - head * Math.sin(angle + side));
      }
    }
  });
}

/**
 * Draw one line for each class over time: the most probable classes in colour and with names, the others pale.
 * rows: one array for each frame, with the probability of each class. options (with defaults):
 *   now, decidedAt: frames to mark; threshold: the probability that a verdict needs, drawn as a dashed line (0.5);
 *   strongest: the number of classes to name (5); length: the number of frames on the axis (start + rows);
 *   first: the number of the first frame on the axis (0); start: the position of the first row on the axis (0);
 *   dark, colours: as for `palette`.
 * Return a function that gives the frame at a horizontal position in CSS pixels.
 */
export function drawProbabilities(canvas, rows, classes, options = {}) {
  const colours = { ...palette(options.dark ?? false), ...options.colours };
  const size = [canvas.clientWidth, canvas.clientHeight];
  const ctx = sharpContext(canvas, ...size);
  ctx.font = NAMES_FONT;
  const { names, width } = fitting(ctx, classes, Math.round(MOST_FOR_NAMES * size[0]));
  ctx.font = "12px system-ui, sans-serif";
  const area = { left: 50, top: 14, right: size[0] - 10 - width, bottom: size[1] - 20 };
  const start = options.start ?? 0;
  const length = options.length ?? start + rows.length;
  const axes = {
    x: (t) => (length > 1 ? area.left + ((area.right - area.left) * t) / (length - 1) : (area.left + area.right) / 2),
    y: (p) => area.bottom - (area.bottom - area.top) * p,
  };
  drawAxes(ctx, area, axes, length, options, colours);
  const named = strongestOf(rows, options.strongest ?? 5);
  const paint = paintsOf(named, colours.series);
  for (let k = 0; k < names.length; k++) {
    // Most of hundreds of classes would lie on the axis.
    if (!paint.has(k) && rows.some((row) => row[k] >= 0.01)) drawLine(ctx, rows, k, start, axes, colours.muted, 1, 0.25);
  }
  for (const k of [...named].reverse()) drawLine(ctx, rows, k, start, axes, paint.get(k), 2, 1);
  drawNow(ctx, rows, named, area, axes, options, paint, colours);
  drawNames(ctx, rows, named, names, area, axes, paint);
  return (x) => Math.round(Math.min(1, Math.max(0, (x - area.left) / (area.right - area.left))) * (length - 1));
}

function drawAxes(ctx, area, axes, length, { first = 0, decidedAt, threshold }, colours) {
  const rule = (from, to, colour, dashes = []) => {
    ctx.beginPath();
    ctx.setLineDash(dashes);
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1;
    ctx.moveTo(...from);
    ctx.lineTo(...to);
    ctx.stroke();
    ctx.setLineDash([]);
  };
  ctx.fillStyle = colours.muted;
  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  for (const p of [0, 0.5, 1]) {
    rule([area.left, axes.y(p)], [area.right, axes.y(p)], colours.grid);
    ctx.fillText(p === 1 ? "100 %" : `${100 * p}`, area.left - 6, axes.y(p));
  }
  const limit = axes.y(threshold ?? 0.5);
  rule([area.left, limit], [area.right, limit], colours.muted, [2, 4]);
  ctx.textBaseline = "alphabetic";
  ctx.fillText("frame", area.left - 10, area.bottom + 15);
  ctx.textAlign = "center";
  const step = niceStep(length, Math.max(2, (area.right - area.left) / 56));
  for (let t = (step - (first % step)) % step; t < length; t += step) {
    const text = `${first + t}`;
    const isFree = axes.x(t) - ctx.measureText(text).width / 2 > area.left - 7; // of the word at the left
    if (isFree) ctx.fillText(text, axes.x(t), area.bottom + 15);
  }
  if (decidedAt === undefined || decidedAt === null) return;
  const x = axes.x(decidedAt);
  rule([x, area.top - 2], [x, area.bottom], colours.ink, [4, 3]);
  const toTheLeft = x > (area.left + area.right) / 2;
  ctx.textAlign = toTheLeft ? "right" : "left";
  ctx.fillText("decided", x + (toTheLeft ? -4 : 4), area.top - 4);
}

function drawNow(ctx, rows, named, area, axes, { now, start = 0 }, paint, { ink, paper }) {
  if (now === undefined || now === null) return;
  ctx.beginPath();
  ctx.strokeStyle = ink;
  ctx.lineWidth = 1.5;
  ctx.moveTo(axes.x(now), area.top);
  ctx.lineTo(axes.x(now), area.bottom);
  ctx.stroke();
  const row = rows[now - start];
  if (row) for (const k of named) disc(ctx, [axes.x(now), axes.y(row[k])], 3.5, paint.get(k), paper, 1.5);
}

function drawNames(ctx, rows, named, names, area, axes, paint) {
  if (!rows.length) return;
  const last = rows.at(-1);
  const labels = named.map((k) => ({ k, y: axes.y(last[k]) })).sort((a, b) => a.y - b.y);
  // Overlapping names move down, and then up again from the bottom of the chart.
  labels.forEach((label, i) => { if (i) label.y = Math.max(label.y, labels[i - 1].y + 14); });
  labels.reverse().forEach((label, i) => { label.y = Math.min(label.y, i ? labels[i - 1].y - 14 : area.bottom); });
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.font = NAMES_FONT;
  for (const { k, y } of labels) {
    ctx.fillStyle = paint.get(k);
    ctx.fillText(names[k], area.right + 6, y);
  }
}

function drawLine(ctx, rows, k, start, axes, colour, width, opacity) {
  ctx.save();
  ctx.beginPath();
  ctx.globalAlpha = opacity;
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = width;
  ctx.lineJoin = "round";
  rows.forEach((row, t) => ctx.lineTo(axes.x(start + t), axes.y(row[k])));
  if (rows.length > 1) ctx.stroke();
  else if (rows.length) disc(ctx, [axes.x(start), axes.y(rows[0][k])], width + 1, colour, colour, 0);
  ctx.restore();
}

/** Return the classes with the largest sum of mean probability and probability at the last frame. */
function strongestOf(rows, count) {
  if (!rows.length) return [];
  const strength = Array.from(rows.at(-1), (p) => p * rows.length);
  for (const row of rows) row.forEach((p, k) => { strength[k] += p; });
  const order = strength.map((_, k) => k).sort((a, b) => strength[b] - strength[a]);
  return order.slice(0, count);
}

/** Give each class the colour at its own index, or the next free one, so that colours stay while ranks change. */
function paintsOf(classes, series) {
  const paint = new Map();
  const taken = new Set();
  for (const k of classes) {
    let i = k % series.length;
    while (taken.has(i) && taken.size < series.length) i = (i + 1) % series.length;
    taken.add(i);
    paint.set(k, series[i]);
  }
  return paint;
}

function niceStep(length, wanted) {
  for (let size = 1; ; size *= 10) {
    for (const factor of [1, 2, 5]) if (length / (size * factor) <= wanted) return size * factor;
  }
}

const fitted = new WeakMap();

/** Shorten names to a maximum width in pixels; return them with the width that they need, cached for the next call. */
function fitting(ctx, classes, most) {
  const before = fitted.get(classes);
  if (before?.most === most) return before;
  const widthOf = (text) => ctx.measureText(text).width;
  const names = classes.map((name) => {
    let kept = name;
    while (kept && widthOf(kept === name ? name : `${kept}…`) > most) kept = [...kept].slice(0, -1).join("");
    return kept === name ? name : `${kept.trimEnd()}…`;
  });
  const width = Math.max(12, ...names.map(widthOf)) + 4;
  fitted.set(classes, { most, names, width });
  return fitted.get(classes);
}

function onCanvas([y, x], zoom) {
  return [(x + 0.5) * zoom, (y + 0.5) * zoom];
}

function rimmed(ctx, colour, width, rim, trace) {
  for (const [style, size] of [[rim, width + 2], [colour, width]]) {
    ctx.beginPath();
    trace();
    ctx.strokeStyle = style;
    ctx.lineWidth = size;
    ctx.stroke();
  }
}

function disc(ctx, [x, y], radius, colour, rim, rimWidth) {
  ctx.beginPath();
  ctx.arc(x, y, radius + rimWidth, 0, TAU);
  ctx.fillStyle = rim;
  ctx.fill();
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, TAU);
  ctx.fillStyle = colour;
  ctx.fill();
}

const scratch = new Map();

/** Fill an image of the frame's size and draw it enlarged, without smoothing; canvases are kept for the next call. */
function drawPixels(ctx, [height, width], zoom, fill) {
  const key = `${height} ${width}`;
  if (!scratch.has(key)) {
    const small = document.createElement("canvas");
    Object.assign(small, { height, width });
    scratch.set(key, small.getContext("2d"));
  }
  const small = scratch.get(key);
  const image = small.createImageData(width, height);
  fill(image.data);
  small.putImageData(image, 0, 0);
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(small.canvas, 0, 0, width * zoom, height * zoom);
}

/** Return a cleared context whose unit is a CSS pixel, and whose bitmap has the resolution of the screen. */
function sharpContext(canvas, width, height) {
  const density = window.devicePixelRatio || 1;
  const size = { width: Math.max(1, Math.round(width * density)), height: Math.max(1, Math.round(height * density)) };
  // Setting a size, even an unchanged one, allocates a new bitmap.
  for (const edge of ["width", "height"]) if (canvas[edge] !== size[edge]) canvas[edge] = size[edge];
  const ctx = canvas.getContext("2d");
  ctx.setTransform(density, 0, 0, density, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return ctx;
}
