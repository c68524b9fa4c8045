// The webcam: sends the middle of its picture, resized to the frames of the models, as bytes with the time.

const SHORT_SIDE = 64;
const LONGEST_SIDE = 256;
const HEAD_BYTES = 6; // height, width and time

export class Camera {
  /**
   * video: the element that shows the picture. send: sends a frame's bytes. fps: returns the frame rate.
   * changed: called when the camera is switched on or off.
   */
  constructor(video, send, fps, changed) {
    Object.assign(this, { video, send, fps, changed });
    this.canvas = document.createElement("canvas");
    this.ctx = this.canvas.getContext("2d", { willReadFrequently: true });
    this.wants(1, [SHORT_SIDE, SHORT_SIDE]);
  }

  /** Set the format of frames: 1 channel (grey) or 3 (RGB), and a size; null keeps the picture's aspect ratio. */
  wants(channels, size) {
    Object.assign(this, { channels, size });
  }

  /** Request the camera and start to send; throws an error whose message is for the user. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers allow the camera only at localhost or over HTTPS; open this page in one of these ways.");
    }
    this.switched(true);
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } },
      });
    } catch (error) {
      this.switched(false);
      const denied = error.name === "NotAllowedError";
      throw new Error(denied ? "Access to the camera was denied; allow it for this page." : `No camera: ${error.message}`);
    }
    if (!this.isOn || this.stream) { // another source was chosen meanwhile
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
    this.due = this.begun = performance.now();
    this.next();
  }

  stop() {
    clearTimeout(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
    this.switched(false);
  }

  switched(isOn) {
    this.isOn = isOn;
    this.changed(isOn);
  }

  /**
   * Send the current frame with the time at which it was due, and the next one when it is due. A browser that is busy
   * leaves frames out; the server sees from the times how many, and repeats the one before.
   */
  next() {
    if (!this.stream) return;
    const now = performance.now();
    const period = 1000 / this.fps();
    const time = this.due + Math.max(0, Math.floor((now - this.due) / period)) * period;
    this.due = time + period;
    this.timer = setTimeout(() => this.next(), this.due - now);
    const { videoWidth: width, videoHeight: height } = this.video;
    if (width && height) this.send(this.frame(height, width, time - this.begun));
  }

  frame(height, width, time) {
    const [rows, columns] = this.size ?? fitting(height, width);
    this.shape(rows, columns);
    const zoom = Math.min(height / rows, width / columns);
    const [cutHeight, cutWidth] = [zoom * rows, zoom * columns];
    const from = [(width - cutWidth) / 2, (height - cutHeight) / 2, cutWidth, cutHeight];
    this.ctx.drawImage(this.video, ...from, 0, 0, columns, rows);
    return packed(this.ctx.getImageData(0, 0, columns, rows).data, rows, columns, this.channels, time);
  }

  shape(rows, columns) {
    if (this.canvas.height === rows && this.canvas.width === columns) return;
    Object.assign(this.canvas, { height: rows, width: columns });
    this.ctx.imageSmoothingQuality = "high";
    this.video.style.aspectRatio = `${columns} / ${rows}`;
  }
}

/** Return the frame size of a picture for models without a fixed size. */
function fitting(height, width) {
  const zoom = SHORT_SIDE / Math.min(height, width);
  return [height, width].map((edge) => Math.min(LONGEST_SIDE, Math.round(edge * zoom)));
}

function packed(rgba, rows, columns, channels, time) {
  const bytes = new Uint8Array(HEAD_BYTES + rows * columns * channels);
  bytes.set([rows % 256, columns % 256]);
  new DataView(bytes.buffer).setUint32(2, Math.round(time));
  for (let i = 0, to = HEAD_BYTES; i < rgba.length; i += 4) {
    if (channels === 1) bytes[to++] = Math.round(0.299 * rgba[i] + 0.587 * rgba[i + 1] + 0.114 * rgba[i + 2]);
    else for (let c = 0; c < 3; c++) bytes[to++] = rgba[i + c];
  }
  return bytes;
}
