// The frames of the last seconds, and which of them shows: pause, step, scrub.

const KEPT = 300;

export class Player {
  /** parts: the elements. send: to the server. show: draws a frame, told whether it just came. */
  constructor(parts, send, show) {
    Object.assign(this, { parts, send, show });
    this.frames = [];
    this.paused = false;
    this.at = -1;
    parts.pause.onclick = () => this.setPaused(!this.paused);
    parts.back.onclick = () => this.move(-1);
    parts.step.onclick = () => this.move(1);
    parts.scrub.oninput = () => {
      if (!this.paused) this.setPaused(true);
      this.go(this.frames.findIndex(({ number }) => number >= Number(parts.scrub.value)));
    };
    this.reflect();
  }

  get now() {
    return this.frames[this.at];
  }

  /** Forget everything: another server numbers anew. */
  clear() {
    this.frames = [];
    this.at = -1;
    this.reflect();
  }

  /** Take a frame from the server and show it, unless an earlier one is looked at. */
  take(frame) {
    this.frames.push(frame);
    if (this.frames.length > KEPT) {
      this.frames.shift();
      this.at = Math.max(0, this.at - 1);
    }
    // What was under way when the pause came is kept for later.
    const shows = !this.paused || frame.stepped || this.at < 0;
    if (shows) this.at = this.frames.length - 1;
    this.reflect();
    if (shows) this.show(frame, true);
  }

  setPaused(paused) {
    this.paused = paused;
    this.send("pause", { paused });
    if (!paused && this.frames.length) this.at = this.frames.length - 1;
    this.reflect();
    if (paused && this.now) this.show(this.now, false);
  }

  /** One frame on or back; behind the last one kept comes one from the server. */
  move(by) {
    if (!this.paused) this.setPaused(true);
    if (by > 0 && this.at === this.frames.length - 1) this.send("step");
    else this.go(this.at + by);
  }

  go(index) {
    if (index < 0 || index >= this.frames.length) return;
    this.at = index;
    this.reflect();
    this.show(this.now, false);
  }

  /** Let the buttons and the slider say how it stands. */
  reflect() {
    const { pause, back, step, scrub } = this.parts;
    const label = this.paused ? "Play" : "Pause";
    if (pause.textContent !== label) pause.textContent = label;
    back.disabled = this.at <= 0;
    step.disabled = !this.frames.length;
    // Under the hand of someone who moves it, or hears it, the slider stays where it is.
    if (!this.paused && document.activeElement === scrub) return;
    scrub.min = this.frames[0]?.number ?? 1;
    scrub.max = this.frames.at(-1)?.number ?? 1;
    scrub.value = this.now?.number ?? 1;
  }
}
