// Teach: clips are recorded from the camera for each class, and a model is trained on them.

import { setText } from "./cards.js";
import { Lesson } from "./lesson.js";
import { Recorder } from "./recorder.js";
import { TrainingView } from "./training.js";

const LOOK_EVERY_MS = { training: 1000, resting: 4000 };
const SHORTEST_S = 0.7; // a shorter press is a click, which records for CLICK_S
const CLICK_S = 2;
const TELL_EVERY_MS = 100;
const find = (id) => document.getElementById(id);

export class Teach {
  /** camera: returns whether the camera is on, and starts it. announce: passes a line to screen readers. */
  constructor({ isOn, start, announce }) {
    Object.assign(this, { isOn, start, announce });
    this.lessons = new Map();
    this.unsaved = [];
    this.session = sessionNow();
    this.training = new TrainingView(() => this.ask("train", {}), announce);
    find("teach-start").onclick = () => this.start();
    find("teach-add").onsubmit = (event) => this.add(event);
    find("teach-again").onclick = () => this.saveAgain();
    find("teach-discard").onclick = () => this.discard();
    find("preview").addEventListener("switched", () => this.reflect());
    document.addEventListener("visibilitychange", () => this.look());
    addEventListener("beforeunload", (event) => (this.unsaved.length || this.recording) && event.preventDefault());
  }

  /** Show the section, once the server says that it teaches. */
  begin() {
    if (!find("teach").hidden) return;
    find("teach").hidden = false;
    find("teach-view").prepend(find("preview"));
    this.reflect();
    this.look();
  }

  reflect() {
    find("teach-off").hidden = this.isOn();
    if (!this.isOn() && this.recording) this.end();
  }

  // --- What the server knows

  async look() {
    clearTimeout(this.timer);
    if (document.hidden || find("teach").hidden) return;
    try {
      const answer = await fetch("api/teach");
      if (answer.ok) this.show(await answer.json());
    } catch {
      // The connection tells that the server is away.
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), LOOK_EVERY_MS[this.training.isRunning ? "training" : "resting"]);
  }

  /** Ask the server for a change; return whether it is done. A refusal is shown, unless a function takes it. */
  async ask(what, fields, body, refused = (line) => this.say(line, true)) {
    try {
      const answer = await fetch(`api/teach/${what}?${new URLSearchParams(fields)}`, { method: "POST", body });
      const said = await answer.json();
      if (answer.ok) this.show(said);
      else refused(`${said.message}.`);
      return answer.ok;
    } catch {
      refused("The server does not answer; try again.");
      return false;
    }
  }

  show(state) {
    this.state = state;
    setText(find("teach-folder"), state.folder);
    for (const [name, lesson] of this.lessons) {
      if (state.classes.some((one) => one.name === name)) continue;
      lesson.element.remove();
      this.lessons.delete(name);
    }
    state.classes.forEach(({ name, clips }, i) => {
      const lesson = this.lessons.get(name) ?? this.lesson(name);
      lesson.show(clips, state.wanted);
      const list = find("teach-list");
      if (list.children[i] !== lesson.element) list.insertBefore(lesson.element, list.children[i] ?? null);
    });
    this.training.show(state);
    if (this.training.isRunning) this.soon();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), LOOK_EVERY_MS.training);
  }

  lesson(name) {
    const made = new Lesson(name, {
      press: () => this.press(name),
      release: () => this.release(),
      remove: (...what) => this.remove(...what),
    });
    this.lessons.set(name, made);
    return made;
  }

  async add(event) {
    event.preventDefault();
    const name = find("teach-name").value.trim();
    if (!name) return;
    if (!(await this.ask("classes", { name }))) return;
    find("teach-name").value = "";
    this.say(`The class ${name} is there; record it.`);
  }

  /** Ask before something is deleted. */
  remove(name, clip, number) {
    const clips = this.state.classes.find((one) => one.name === name)?.clips.length ?? 0;
    const what = clip ? `clip ${number} of ${name}` : `the class ${name} with its ${clips} clip${clips === 1 ? "" : "s"}`;
    setText(find("teach-question"), `Delete ${what}?`);
    const dialog = find("teach-ask");
    dialog.returnValue = "";
    dialog.onclose = async () => {
      if (dialog.returnValue !== "delete") return;
      if (await this.ask("delete", clip ? { name, clip } : { name })) this.say(`Deleted ${what}.`);
    };
    dialog.showModal();
  }

  // --- Recording

  async press(name) {
    if (this.recording) return;
    if (!this.isOn()) {
      await this.start();
      if (this.isOn()) this.say("The webcam is on; press again to record.");
      return;
    }
    if (!find("preview").videoWidth) return;
    this.recorder ??= new Recorder(find("preview"), this.state.recording);
    this.recording = { name, isHeld: true };
    this.recorder.begin(() => this.end());
    find("teach-view").classList.add("on");
    this.announce(`Recording ${name}`);
    this.teller = setInterval(() => this.tell(), TELL_EVERY_MS);
    this.tell();
  }

  tell() {
    const { name, isHeld } = this.recording;
    this.lessons.get(name)?.tell(this.recorder.seconds);
    if (!isHeld && this.recorder.seconds >= CLICK_S) this.end();
  }

  release() {
    if (!this.recording?.isHeld) return;
    this.recording.isHeld = false;
    if (this.recorder.seconds >= SHORTEST_S) this.end();
  }

  end() {
    const { name } = this.recording;
    this.recording = null;
    clearInterval(this.teller);
    find("teach-view").classList.remove("on");
    this.lessons.get(name)?.tell(null);
    this.save({ name, body: this.recorder.end() });
  }

  /** Send a recording; keep it if the server refuses it. */
  async save(clip) {
    this.unsaved.push(clip);
    this.say("Saving …");
    const { name, body } = clip;
    const refused = (line) => (clip.refusal = line);
    if (await this.ask("clips", { name, session: this.session }, body, refused)) {
      this.unsaved = this.unsaved.filter((other) => other !== clip);
      this.say(`Saved: ${name}, clip ${this.state.classes.find((one) => one.name === name)?.clips.length ?? ""}.`);
    }
    this.tellUnsaved();
  }

  tellUnsaved() {
    const refused = this.unsaved.filter(({ refusal }) => refusal);
    find("teach-unsaved").hidden = !refused.length;
    if (!refused.length) return;
    const names = refused.map(({ name }) => name).join(", ");
    this.say(`Not saved yet: ${names}. ${refused.at(-1).refusal} This page keeps the recording.`, true);
  }

  saveAgain() {
    const refused = this.unsaved.filter(({ refusal }) => refusal);
    this.unsaved = this.unsaved.filter(({ refusal }) => !refusal);
    for (const { name, body } of refused) this.save({ name, body });
  }

  discard() {
    this.unsaved = this.unsaved.filter(({ refusal }) => !refusal);
    this.tellUnsaved();
    this.say("Discarded.");
  }

  say(text, isBad = false) {
    find("teach-said").classList.toggle("bad", isBad);
    setText(find("teach-said"), text);
  }
}

/** The time now in UTC, as in 20261129-180500: clips with the same time are of one recording session. */
function sessionNow() {
  return new Date().toISOString().slice(0, 19).replaceAll("-", "").replaceAll(":", "").replace("T", "-");
}
