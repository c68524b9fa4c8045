// Records the camera's picture: frames with time stamps, packed for the server.

export class Recorder {
  /** video: the element that shows the camera. limits: fps, seconds, short_px and long_px, from the server. */
  constructor(video, limits) {
    Object.assign(this, { video, limits });
    this.canvas = document.createElement("canvas");
    this.ctx = this.canvas.getContext("2d", { willReadFrequently: true });
    this.frames = [];
  }

  /** Begin to record; ended is called when the longest time is over. */
  begin(ended) {
    this.frames = [];
    this.began = this.due = performance.now();
    this.ended = ended;
    this.shape();
    this.next();
  }

  /** The time since the beginning, in seconds. */
  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  next() {
    const now = performance.now();
    if (this.seconds >= this.limits.seconds[1]) {
      this.ended();
      return;
    }
    this.due = Math.max(this.due + 1000 / this.limits.fps, now);
    this.timer = setTimeout(() => this.next(), this.due - now);
    const { height, width } = this.canvas;
    this.ctx.drawImage(this.video, 0, 0, width, height);
    this.frames.push({ ms: Math.round(now - this.began), rgba: this.ctx.getImageData(0, 0, width, height).data });
  }

  /** Stop, and return the recording as the server expects it. */
  end() {
    clearTimeout(this.timer);
    const { height, width } = this.canvas;
    const frames = this.frames.filter(({ ms }, i) => !i || ms > this.frames[i - 1].ms);
    this.frames = [];
    return packed(frames, height, width);
  }

  /** Shrink the whole picture so that its shorter side has at most short_px, in even numbers. */
  shape() {
    const { videoHeight: height, videoWidth: width } = this.video;
    const { short_px: short, long_px: long } = this.limits;
    const zoom = Math.min(1, short / Math.min(height, width), long / Math.max(height, width));
    const [rows, columns] = [height, width].map((edge) => 2 * Math.floor((edge * zoom) / 2));
    Object.assign(this.canvas, { height: rows, width: columns });
    this.ctx.imageSmoothingQuality = "high";
  }
}

/** Little-endian: height, width (2 bytes each), the number of frames, their times in ms (4 bytes each), RGB pixels. */
function packed(frames, height, width) {
  const head = 8 + 4 * frames.length;
  const bytes = new Uint8Array(head + 3 * height * width * frames.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, height, true);
  view.setUint16(2, width, true);
  view.setUint32(4, frames.length, true);
  let to = head;
  frames.forEach(({ ms, rgba }, number) => {
    view.setUint32(8 + 4 * number, ms, true);
    for (let i = 0; i < rgba.length; i += 4) {
      bytes[to++] = rgba[i];
      bytes[to++] = rgba[i + 1];
      bytes[to++] = rgba[i + 2];
    }
  });
  return bytes;
}
