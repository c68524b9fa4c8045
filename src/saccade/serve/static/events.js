// The events that the server finds in the source: a short list for each model, said aloud, and a file of all of them.

import { element, setText } from "./cards.js";

const SHOWN = 5;
const KEPT = 1000; // of each model
const SAY_EVERY_MS = 1000;
const COLUMNS = ["event", "class", "start_s", "end_s", "peak_s", "peak_probability", "model"]; // as `saccade stream --events`
const find = (id) => document.getElementById(id);

export class Events {
  constructor() {
    this.lists = [];
    this.last = {};
    this.unsaid = [];
    this.saidAt = -SAY_EVERY_MS;
    find("events-save").onclick = () => this.save();
  }

  /** Start with a new connection. Events found before stay if the models are the same; none of them lasts any more. */
  begin(cards) {
    const models = JSON.stringify(cards.map(({ model }) => model));
    if (models === this.models) {
      for (const { events } of this.lists) end(events, this.last.time_s);
      this.last.run = null;
    } else {
      this.lists = cards.map((card) => new List(card));
      this.last = {};
    }
    this.models = models;
    find("events-lists").replaceChildren(...this.lists.map(({ table }) => table));
    find("events-lists").style.setProperty("--columns", Math.min(3, cards.length));
    this.show();
  }

  /** Take the events of a frame, or those with which a source ends. Digits in motion have no events. */
  take({ type, source, run, time_s: now, events }) {
    if (type === "frame") {
      find("events").hidden = source === "digits";
      const isSame = source === this.last.source && (this.last.run === null || run === this.last.run);
      if (!isSame) this.clear();
      // A video that goes back finds again what is behind this place.
      else if (source === "video" && now < this.last.time_s) this.clear(now);
      this.last = { source, run, time_s: now };
    }
    for (const list of this.lists) {
      for (const event of events[list.name] ?? []) {
        const isBehind = this.last.source === "video" && event.start_s > this.last.time_s;
        if (!isBehind && list.put(event)) this.say(list, event);
      }
    }
    this.show();
  }

  /** Forget the events that begin at a time or later. */
  clear(from = 0) {
    for (const list of this.lists) list.events = list.events.filter(({ start_s: start }) => start < from);
  }

  show() {
    for (const list of this.lists) list.show();
    find("events-save").disabled = !this.lists.some(({ events }) => events.length);
  }

  /** Tell those who do not see of a new event, at most once a second; only the newest of each model is told. */
  say({ name, title }, event) {
    this.unsaid = [...this.unsaid.filter((one) => one.name !== name), { name, title, event }];
    this.sayTimer ??= setTimeout(() => {
      this.saidAt = performance.now();
      this.sayTimer = undefined;
      const many = this.lists.length > 1;
      const said = this.unsaid.map(({ title, event }) => `${many ? `${title}: ` : ""}${event.class} at ${seconds(event.start_s)}`);
      this.unsaid = [];
      setText(find("events-said"), said.join(". "));
    }, Math.max(0, this.saidAt + SAY_EVERY_MS - performance.now()));
  }

  /** Save all events as CSV, in the order in which they began. */
  save() {
    const rows = this.lists
      .flatMap(({ name, events }) => events.map((event) => ({ ...event, model: name, event: event.end_s === null ? "begins" : "ended" })))
      .sort((a, b) => a.start_s - b.start_s);
    const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((column) => row[column] ?? ""))];
    const text = lines.map((fields) => `${fields.map(quoted).join(",")}\r\n`).join("");
    const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    element("a", { href, download: "events.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }
}

/** The events of a model, the newest last, and the table of the latest ones. */
class List {
  constructor({ model, title }) {
    Object.assign(this, { name: model.name, title, events: [] });
    const heads = ["Event", "from", "to", "peak"].map((textContent) => element("th", { scope: "col", textContent }));
    this.rows = Array.from({ length: SHOWN }, () => element("tr", { hidden: true }, heads.map(() => element("td"))));
    this.none = element("tr", {}, [element("td", { colSpan: heads.length, textContent: "no events yet" })]);
    this.table = element("div", { className: "events-list" }, [
      element("table", {}, [
        element("caption", { textContent: title }),
        element("thead", {}, [element("tr", {}, heads)]),
        element("tbody", {}, [this.none, ...this.rows]),
      ]),
    ]);
    this.table.dataset.attention = model.attention ?? "none";
  }

  /** Put an event in place of what is known of it; return whether it is new. */
  put(event) {
    const isOne = ({ class: name, start_s: start }) => name === event.class && start === event.start_s;
    const at = this.events.findLastIndex(isOne);
    if (at >= 0) this.events[at] = event;
    else this.events.push(event);
    if (this.events.length > KEPT) this.events.shift();
    return at < 0;
  }

  show() {
    const newest = this.events.slice(-SHOWN).reverse();
    this.none.hidden = newest.length > 0;
    this.rows.forEach((row, i) => {
      const event = newest[i];
      row.hidden = !event;
      if (!event) return;
      row.classList.toggle("on", event.end_s === null);
      const { class: name, start_s: start, end_s: end, peak_probability: peak } = event;
      const texts = [name, seconds(start), end === null ? "now" : seconds(end), `${Math.round(100 * peak)} %`];
      [...row.children].forEach((cell, k) => setText(cell, texts[k]));
      if (row.firstChild.title !== name) row.firstChild.title = name; // a long one is cut
    });
  }
}

function end(events, time) {
  for (const event of events) event.end_s ??= time;
}

function seconds(time) {
  return `${time.toFixed(1)} s`;
}

function quoted(field) {
  const text = String(field);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
