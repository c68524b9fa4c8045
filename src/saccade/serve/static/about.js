// What the page says of its models in words.

import { element } from "./cards.js";

const MOST_NAMED = 20;

/** Return what a percentage means, and when there is no verdict. */
export function about(models, knowsDigits) {
  const least = Math.min(...models.map((model) => model.min_confidence));
  const what = knowsDigits ? "These models know handwritten digits and nothing else: they look for digits in everything they see. " : "";
  const those = knowsDigits ? "these digits" : models.every(({ exclusive }) => exclusive) ? "this class" : "these classes";
  const unsure = models.every(({ exclusive }) => exclusive)
    ? `below ${Math.round(100 * least)} % there is no verdict`
    : `there is no verdict while any class is between ${Math.round(50 * (1 - least))} and ${Math.round(50 * (1 + least))} %`;
  const percent = `The percentage under a verdict is the probability of exactly ${those}`;
  return `${what}${percent}${least ? `; ${unsure}` : ""}.`;
}

/** Return nodes with the models and their classes. Most models share their classes; those are listed once. */
export function introduction(cards) {
  const groups = new Map();
  for (const { title, model } of cards) {
    const key = JSON.stringify([model.task, model.classes]);
    groups.set(key, { ...model, titles: [...(groups.get(key)?.titles ?? []), title] });
  }
  return [...groups.values()].flatMap(({ titles, task, classes }, i) => [
    ...(i ? [element("br")] : []),
    element("strong", { textContent: titles.join(", ") }),
    element("br"),
    task.replace(/\.$/, ": "),
    ...classes.slice(0, MOST_NAMED).flatMap((name, i) => [i ? ", " : "", element("span", { textContent: name })]),
    classes.length > MOST_NAMED ? ", …" : "",
  ]);
}
