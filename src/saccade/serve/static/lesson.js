// One class that the page teaches: its clips as small pictures, and the buttons to record and to delete.

import { element, setText } from "./cards.js";

const MOST_STILLS = 24;
const NONE = "none";
const ABOUT_NONE = "What the camera sees when nothing happens: you at rest, moving about, coming and going.";

export class Lesson {
  /** name: the class. press, release: called with the name when its button is pressed, and when it is released. remove: asks to delete. */
  constructor(name, { press, release, remove }) {
    Object.assign(this, { name, removeClip: (clip, number) => remove(name, clip, number) });
    this.stills = new Map();
    this.element = element("li", { className: "lesson" }, [
      element("div", { className: "lesson-head" }, [
        element("h3", { textContent: name }),
        (this.count = element("span", { className: "hint" })),
        (this.record = element("button", { type: "button", className: "record" }, [
          (this.label = element("span", { textContent: "Hold to record" })),
          element("span", { className: "unseen", textContent: `, ${name}` }),
        ])),
        ...(name === NONE ? [] : [this.deletion(() => remove(name))]),
      ]),
      ...(name === NONE ? [element("p", { className: "hint", textContent: ABOUT_NONE })] : []),
      (this.list = element("ul", { className: "stills" })),
    ]);
    this.listen(press, release);
  }

  deletion(ask) {
    const button = element("button", { type: "button", className: "delete", textContent: "×", onclick: ask });
    button.setAttribute("aria-label", `Delete the class ${this.name}`);
    button.title = `Delete the class ${this.name}`;
    return button;
  }

  /** A press with a pointer or a key lasts until it is released; a screen reader's click has no end. */
  listen(press, release) {
    const { record, name } = this;
    record.onpointerdown = (event) => {
      if (event.button !== 0) return;
      record.setPointerCapture(event.pointerId); // the finger may move away
      press(name);
    };
    record.onpointerup = record.onpointercancel = record.onblur = () => release();
    record.onkeydown = (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      if (!event.repeat) press(name);
    };
    record.onkeyup = (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault(); // a click would record once more
      release();
    };
    record.oncontextmenu = (event) => event.preventDefault(); // a long touch
    record.onclick = ({ detail, pointerType }) => {
      if (detail > 0 || pointerType) return; // it was a press
      press(name);
      release();
    };
  }

  /** Show the clips; `wanted` is how many there should be. */
  show(clips, wanted) {
    setText(this.count, clips.length < wanted ? `${clips.length} of ${wanted} clips` : `${clips.length} clips`);
    this.count.classList.toggle("enough", clips.length >= wanted);
    const shown = clips.slice(-MOST_STILLS);
    for (const [clip, still] of this.stills) {
      if (shown.includes(clip)) continue;
      still.remove();
      this.stills.delete(clip);
    }
    shown.forEach((clip, i) => {
      const still = this.stills.get(clip) ?? this.still(clip);
      const number = clips.length - shown.length + i + 1;
      const button = still.firstChild;
      button.setAttribute("aria-label", `Delete clip ${number} of ${this.name}`);
      button.title = `${clip}: delete`;
      button.onclick = () => this.removeClip(clip, number);
      if (this.list.children[i] !== still) this.list.insertBefore(still, this.list.children[i] ?? null);
    });
  }

  still(clip) {
    const picture = element("img", { alt: "", src: `api/teach/still?${new URLSearchParams({ name: this.name, clip })}` });
    const made = element("li", {}, [element("button", { type: "button", className: "still" }, [picture])]);
    this.stills.set(clip, made);
    return made;
  }

  /** Show whether the class is being recorded, and for how many seconds. */
  tell(seconds) {
    this.record.classList.toggle("on", seconds !== null);
    setText(this.label, seconds === null ? "Hold to record" : `Recording ${seconds.toFixed(1)} s`);
  }
}
