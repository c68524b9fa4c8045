// The webcam: its middle square, shrunk to what the models know, sent as grey bytes.

const EDGE = 64;

export class Camera {
  /** video: shows the picture. send: takes a frame's bytes. fps: tells how many a second at most. */
  constructor(video, send, fps) {
    Object.assign(this, { video, send, fps });
    this.canvas = Object.assign(document.createElement("canvas"), { width: EDGE, height: EDGE });
    this.ctx = this.canvas.getContext("2d", { willReadFrequently: true });
    this.ctx.imageSmoothingQuality = "high";
  }

  get isOn() {
    return Boolean(this.stream);
  }

  /** Ask for the camera and begin to send; throws an error with a line for people. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give the camera only to pages at localhost or over HTTPS.");
    }
    this.wanted = true;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } },
      });
    } catch (error) {
      const denied = error.name === "NotAllowedError";
      throw new Error(denied ? "The camera may not be used; allow it for this page." : `No camera: ${error.message}`);
    }
    if (!this.wanted) { // another source was chosen meanwhile
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
    this.next();
  }

  stop() {
    this.wanted = false;
    clearTimeout(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
  }

  next() {
    if (!this.stream) return;
    this.timer = setTimeout(() => this.next(), 1000 / this.fps());
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || !height) return;
    const edge = Math.min(width, height);
    this.ctx.drawImage(this.video, (width - edge) / 2, (height - edge) / 2, edge, edge, 0, 0, EDGE, EDGE);
    this.send(grey(this.ctx.getImageData(0, 0, EDGE, EDGE).data));
  }
}

function grey(rgba) {
  const bytes = new Uint8Array(2 + EDGE * EDGE);
  bytes.set([EDGE, EDGE]);
  for (let i = 0, j = 2; j < bytes.length; i += 4, j++) {
    bytes[j] = Math.round(0.299 * rgba[i] + 0.587 * rgba[i + 1] + 0.114 * rgba[i + 2]);
  }
  return bytes;
}
