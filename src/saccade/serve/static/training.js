// The training: what is missing before it, how far it is, and how it ended.

import { setText } from "./cards.js";

const find = (id) => document.getElementById(id);

export class TrainingView {
  /** start: starts a training. announce: passes a line to screen readers. */
  constructor(start, announce) {
    this.announce = announce;
    this.isRunning = false;
    find("teach-train").onclick = async () => {
      find("teach-train").disabled = true;
      await start();
      if (this.state) this.show(this.state);
    };
  }

  /** Show the state that the server tells. */
  show(state) {
    this.state = state;
    const { training, needs, news, problem } = state;
    const was = this.isRunning;
    this.isRunning = training?.running ?? false;
    find("teach-train").disabled = this.isRunning || needs.length > 0;
    setText(find("teach-needs"), this.isRunning ? "" : needs.length ? `Before training: ${needs.join("; ")}.` : "");
    find("teach-progress").hidden = !this.isRunning;
    if (this.isRunning) this.tell(training);
    else setText(find("teach-stage"), "");
    const lines = [outcome(training), news && `${sentence(news)}.`, problem && `${sentence(problem)}.`].filter(Boolean);
    setText(find("teach-outcome"), lines.join(" "));
    if (this.isRunning && !was) this.announce("The training has begun");
    if (was && !this.isRunning) this.announce(lines[0] ?? "The training has ended");
  }

  tell({ stage, done, total, seconds }) {
    const bar = find("teach-bar");
    if (total > 0) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
    setText(find("teach-stage"), `${sentence(stage)}${total > 1 ? `, ${done} of ${total}` : ""} · ${seconds} s`);
  }
}

/** Return how a training ended, in words. */
function outcome(training) {
  if (!training || training.running) return "";
  const { name, seconds, ended, error, said } = training;
  if (error) return `No new model: ${error}.`;
  const left = said.length ? ` Some clips were not used: ${said.join("; ")}.` : "";
  const honest = ended.by_session
    ? "Each was tested by a model that had not seen its recording session."
    : "Each was tested by a model that had not seen it, but others of its session; for an honest figure, reload the page later and record a second session of every class.";
  return `${name} is trained, in ${seconds} s: ${ended.right} of ${ended.tested} clips are named rightly. ${honest}${left}`;
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1);
}
