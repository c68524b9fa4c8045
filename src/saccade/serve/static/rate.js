// The frame rate that the page shows, with the number of frames left out and the reason.

import { element, setText } from "./cards.js";

const OVER_MS = 2000;
const EVERY_MS = 500;

export class Rate {
  /** place: the element to write to. */
  constructor(place) {
    Object.assign(this, { place, arrivals: [], toldAt: 0 });
  }

  /** Forget the frames before, and show a text until the next frame. */
  restart(text) {
    this.arrivals = [];
    setText(this.place, text);
  }

  /** Count a frame that arrived now, given how many the server dropped and the page skipped so far. */
  count({ dropped, skipped }) {
    const now = performance.now();
    this.arrivals.push({ now, dropped, skipped });
    while (now - this.arrivals[0].now > OVER_MS) this.arrivals.shift();
    if (now - this.toldAt < EVERY_MS) return;
    this.toldAt = now;
    const [first] = this.arrivals;
    const rate = (number) => Math.round((1000 * number) / Math.max(100, now - first.now));
    const faults = [];
    if (dropped > first.dropped) faults.push(`server too slow: ${rate(dropped - first.dropped)}/s`);
    if (skipped > first.skipped) faults.push(`browser too slow: ${rate(skipped - first.skipped)}/s`);
    const leftOut = dropped + skipped ? `, ${dropped + skipped} left out` : "";
    this.place.replaceChildren(
      `${rate(this.arrivals.length - 1)} frames/s${leftOut}`,
      ...(faults.length ? [element("br"), element("strong", { textContent: faults.join(" · ") })] : []),
    );
  }
}
