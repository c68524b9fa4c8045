// The sources of frames: the webcam, a video file, the stream of the server and, for models that know digits, the generator.

import { Camera } from "./camera.js";
import { setText } from "./cards.js";

const SEEK_EVERY_MS = 40;
const SLIDER_RESTS_MS = 500;
const find = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];

export class Sources {
  /**
   * send: sends a message, given its type and fields. sendBytes: sends a frame of the camera. fps: returns the frame
   * rate. play: ends a pause. notice: shows a line. opens: called when a stream is about to be opened.
   */
  constructor({ send, sendBytes, fps, play, notice, opens }) {
    Object.assign(this, { send, play, notice, opens });
    this.kind = "digits";
    this.knowsDigits = true;
    this.hasVideo = false;
    this.stream = null;
    this.soughtAt = -SLIDER_RESTS_MS;
    this.camera = new Camera(find("preview"), sendBytes, fps, (isOn) => {
      find("preview").hidden = !isOn;
      setText(find("camera-switch"), `${isOn ? "Stop" : "Start"} webcam`);
      find("preview").dispatchEvent(new Event("switched"));
    });
    find("camera-switch").onclick = () => (this.camera.isOn ? this.camera.stop() : this.useCamera());
    for (const radio of all('[name="source"]')) radio.onchange = () => this.choose(radio.value);
    find("stream-again").onclick = () => this.watch();
    find("file").onchange = () => this.upload(find("file").files[0]);
    find("position").oninput = () => this.seek();
    const dragging = (isOver) => (event) => this.drag(event, isOver);
    Object.assign(document, { ondragover: dragging(true), ondragleave: dragging(false), ondrop: dragging(false) });
  }

  /**
   * Start with a new connection: token and size limit of uploads, the name of the server's stream if it has one,
   * whether the models know digits, and the frames that they expect.
   */
  connected({ token, limits, stream, knows_digits: knowsDigits, frame_format: { channels, size, fps } }) {
    Object.assign(this, { token, knowsDigits, stream, uploadBytes: limits.upload_bytes });
    setText(find("stream-told"), `The server reads ${stream} for all pages${fps ? `, ${told(fps)} times per second` : ""}.`);
    // The server keeps a video only as long as the connection lasts.
    this.hasVideo = false;
    find("seek").hidden = true;
    this.camera.wants(channels, size ?? (knowsDigits ? [64, 64] : null));
    const shrunk = `${size ? `${size[1]}x${size[0]}` : "64"} ${channels === 1 ? "grey" : "colour"} pixels`;
    setText(find("camera-told"), knowsDigits
      ? "Hold a thick, dark digit on white paper in front of the camera. Your browser shrinks the middle square to 64x64 grey pixels, and sends it to this server only."
      : `Your browser shrinks the ${size ? "middle of the " : ""}picture to ${shrunk}${size ? "" : " on its shorter side"}${fps ? `, ${told(fps)} times per second` : ""}, and sends it to this server only.`);
    const isWatching = this.kind === "stream" && this.stream;
    if (isWatching) this.opening();
    this.show(this.camera.isOn ? "camera" : isWatching ? "stream" : this.home);
  }

  /** The source that is shown by default; the camera starts only on request. */
  get home() {
    return this.knowsDigits ? "digits" : "camera";
  }

  disconnected() {
    this.token = null;
  }

  /** Continue from the frame of the slider; the rate of messages is limited while it moves. */
  seek() {
    this.soughtAt = performance.now();
    setText(find("position-told"), find("position").value);
    this.seekTimer ??= setTimeout(() => {
      this.seekTimer = undefined;
      if (this.kind === "video" && this.hasVideo) this.send("seek", { frame: Number(find("position").value) - 1 });
    }, SEEK_EVERY_MS);
  }

  /** Set the slider to the frame of the video that is shown, counted from 0. */
  showPosition(position, isNew) {
    // Frames that arrive just after the slider was moved were sent before.
    if (isNew && performance.now() - this.soughtAt < SLIDER_RESTS_MS) return;
    find("position").value = position + 1;
    setText(find("position-told"), `${position + 1}`);
  }

  /** Show which source is selected, and its controls. */
  show(kind) {
    this.kind = kind;
    for (const radio of all('[name="source"]')) radio.checked = radio.value === kind;
    for (const panel of all("[data-source]")) panel.hidden = panel.dataset.source !== kind;
    for (const part of all("[data-only], [data-digits], [data-stream]")) {
      const { only, digits, stream } = part.dataset;
      part.hidden = (only && !only.split(" ").includes(kind)) || (digits !== undefined && !this.knowsDigits)
        || (stream !== undefined && !this.stream);
    }
    if (kind !== "camera" && this.camera.isOn) this.camera.stop();
  }

  async choose(kind) {
    this.show(kind);
    this.notice("");
    if (kind === "digits" || (kind === "video" && this.hasVideo)) this.send("source", { kind });
    if (kind === "camera") await this.useCamera();
    if (kind === "stream") this.watch();
  }

  /** Watch the stream of the server. */
  watch() {
    this.opening();
    this.notice("");
    this.send("source", { kind: "stream" });
    this.play();
  }

  opening() {
    this.tellStream(`Opening ${this.stream} …`);
    this.isOpening = true;
    this.opens();
  }

  /** Show a line about the stream, and whether it has ended with it. */
  tellStream(line, hasEnded = false) {
    Object.assign(this, { isOpening: false, hasStreamEnded: hasEnded });
    setText(find("stream-state"), line);
    find("stream-again").hidden = !hasEnded;
  }

  /** A frame of the stream has come. */
  streams() {
    if (this.isOpening) this.tellStream("Connected.");
  }

  /** The server begins a stream that has ended anew when the page plays on. */
  played() {
    if (this.kind !== "stream" || !this.hasStreamEnded) return;
    this.notice("");
    this.opening();
  }

  async useCamera() {
    if (this.kind !== "camera") this.show("camera");
    this.notice("");
    this.send("source", { kind: "camera" });
    this.play();
    try {
      await this.camera.start();
    } catch (error) {
      if (this.knowsDigits) await this.choose("digits");
      this.notice(error.message);
    }
  }

  drag(event, isOver) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dragging", isOver);
    if (event.type === "drop") this.upload(event.dataTransfer.files[0]);
  }

  async upload(file) {
    if (!file || this.isUploading) return;
    if (this.kind !== "video") await this.choose("video");
    this.isUploading = true;
    this.say(`Sending and decoding ${file.name} …`);
    this.say(`${file.name}: ${await this.outcome(file)}`);
    this.isUploading = false;
    find("file").value = "";
  }

  /** Upload a file; return a text about the result. */
  async outcome(file) {
    if (!this.token) return "there is no connection yet; try again in a moment.";
    const most = this.uploadBytes;
    if (file.size > most) return `the file is larger than ${most >> 20} MB; choose a smaller video.`;
    try {
      const answer = await fetch(`api/video/${this.token}`, { method: "POST", body: file });
      const { message, frames, size, fps, warning } = await answer.json();
      if (!answer.ok) return `${message}.`;
      this.play();
      this.hasVideo = true;
      find("position").max = frames;
      find("seek").hidden = frames < 2;
      return `${frames} frames, seen as ${size[1]}x${size[0]} px at ${told(fps)}/s. ${warning ?? ""}`;
    } catch {
      return "the upload failed; the server may have refused it or stopped; try again.";
    }
  }

  say(text) {
    setText(find("video-state"), text);
  }
}

function told(fps) {
  return Number(fps.toFixed(1));
}
