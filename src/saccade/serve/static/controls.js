// The sliders, and the digits that the user chose or drew.

import { element, setText } from "./cards.js";
import { Pad } from "./pad.js";
import { SLIDERS, freshSeed, streamSettings } from "./settings.js";

const PLACES = ["1st", "2nd", "3rd", "4th", "5th"];
const SLIDER_RESTS_MS = 40; // it sends changes faster than anyone can see
const find = (id) => document.getElementById(id);

export class Controls {
  /**
   * state: seed, settings and chosen digits; changed here. send: sends a message, given its type and fields.
   * begin: starts a new stream. announce: passes a line to screen readers.
   */
  constructor(state, { send, begin, announce }) {
    Object.assign(this, { state, send, begin, announce });
    this.sliders = SLIDERS.map((slider) => this.makeSlider(slider));
    this.pad = new Pad(find("pad"), (strokes) => this.draw(strokes));
    this.makeChoices();
    this.reflect();
  }

  /** Set all controls to the state, including a drawing from a link. */
  reflect() {
    const { settings, digits } = this.state;
    for (const { name, input, output, unit, sign, step } of this.sliders) {
      input.value = settings[name];
      const text = `${sign ?? ""}${step < 1 ? settings[name].toFixed(2) : settings[name]}${unit}`;
      setText(output, text);
      input.setAttribute("aria-valuetext", text);
    }
    find("per-digit").checked = settings.per_digit;
    this.reflectPlaces();
    const [slot, own] = [...digits].find(([, { strokes }]) => strokes) ?? [];
    if (!own || this.pad.strokes.length) return;
    this.pad.put(own.strokes);
    find("meaning").value = own.label ?? "";
    find("places").querySelector(`[value="${slot}"]`).checked = true;
  }

  reflectPlaces() {
    const num = this.state.settings.num_digits;
    if (find("places").childElementCount === num) return;
    const chosen = Math.min(this.place, num - 1);
    find("places").replaceChildren(...PLACES.slice(0, num).map((name, slot) => element("label", {}, [
      element("input", { type: "radio", name: "place", value: slot, checked: slot === chosen }), name,
    ])));
  }

  get place() {
    return Number(document.querySelector("#places input:checked")?.value ?? 0);
  }

  makeSlider(slider) {
    const id = `set-${slider.name}`;
    const { min, max, step } = slider;
    const input = element("input", { type: "range", id, min, max, step });
    const output = element("output");
    output.setAttribute("for", id);
    input.oninput = () => this.set(slider.name, Number(input.value));
    const label = element("label", { htmlFor: id, textContent: slider.label });
    find("sliders").append(element("div", { className: "slider" }, [label, input, output]));
    return { ...slider, input, output };
  }

  set(name, value) {
    const { settings, digits } = this.state;
    settings[name] = value;
    // One end of the range pushes the other.
    if (name === "scale_low") settings.scale_high = Math.max(settings.scale_high, value);
    if (name === "scale_high") settings.scale_low = Math.min(settings.scale_low, value);
    for (const slot of digits.keys()) if (slot >= settings.num_digits) digits.delete(slot);
    this.reflect();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (name === "fps") this.send("pace", { fps: value });
      else this.send("settings", { settings: streamSettings(settings) });
    }, SLIDER_RESTS_MS);
  }

  makeChoices() {
    for (let digit = 0; digit < 10; digit++) {
      find("meaning").append(element("option", { value: digit, textContent: digit }));
      const button = element("button", { type: "button", textContent: digit, onclick: () => this.pick(digit) });
      button.setAttribute("aria-label", `a ${digit} from the data`);
      find("picks").append(button);
    }
    find("per-digit").onchange = () => this.set("per_digit", find("per-digit").checked);
    find("meaning").onchange = () => this.pad.strokes.length && this.pad.handOver();
    find("clear").onclick = () => this.pad.clear();
    find("others").onclick = () => {
      Object.assign(this.state, { seed: freshSeed(), digits: new Map() });
      this.pad.clear();
      this.begin();
    };
  }

  /** Put a digit in the chosen place. */
  choose(digit) {
    this.state.digits.set(this.place, digit);
    this.send(...asMessage(this.place, digit));
    this.announce(`Your digit is now the ${PLACES[this.place]} one`);
  }

  draw(strokes) {
    const meaning = find("meaning").value;
    this.choose({ strokes, label: meaning === "" ? null : Number(meaning) });
  }

  /** Take the next image of a class from the data. */
  pick(digit) {
    const before = this.state.digits.get(this.place);
    this.choose({ digit, instance: before?.digit === digit ? before.instance + 1 : 0 });
  }
}

/** Return the type and fields of the message that puts a chosen digit in a place. */
export function asMessage(slot, digit) {
  return [digit.strokes ? "draw" : "pick", { slot, ...digit }];
}
