// The frames of the last seconds, and which of them is shown: pause, step, scrub.

const KEPT = 300;

export class Player {
  /** parts: the elements. send: sends a message. show: draws a frame, given the frame and whether it is new. */
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

  /** Remove all frames, since a new server numbers its frames from the start. */
  clear() {
    this.frames = [];
    this.at = -1;
    this.reflect();
  }

  /** Store a frame from the server; show it unless the user looks at an earlier one. */
  take(frame) {
    this.frames.push(frame);
    if (this.frames.length > KEPT) {
      this.frames.shift();
      this.at = Math.max(0, this.at - 1);
    }
    // Frames that were in transit when the pause began are stored, not shown.
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

  /** Move by one frame; after the last stored frame, request one from the server. */
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

  /** Update the buttons and the slider. */
  reflect() {
    const { pause, back, step, scrub } = this.parts;
    const label = this.paused ? "Play" : "Pause";
    if (pause.textContent !== label) pause.textContent = label;
    back.disabled = this.at <= 0;
    step.disabled = !this.frames.length;
    // While the slider has focus it does not move, so that users can drag it or hear its value.
    if (!this.paused && document.activeElement === scrub) return;
    scrub.min = this.frames[0]?.number ?? 1;
    scrub.max = this.frames.at(-1)?.number ?? 1;
    scrub.value = this.now?.number ?? 1;
  }
}
