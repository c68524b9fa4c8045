// The page: sends the settings to the server, and shows the frames from the server.

import { about, introduction } from "./about.js";
import { Card, element, setText } from "./cards.js";
import { Connection } from "./connection.js";
import { Controls, asMessage } from "./controls.js";
import { Events } from "./events.js";
import { bytesOf } from "./overlay.js";
import { Player } from "./player.js";
import { Rate } from "./rate.js";
import { fromFragment, streamSettings, toFragment } from "./settings.js";
import { Sources } from "./sources.js";
import { Teach } from "./teach.js";

const find = (id) => document.getElementById(id);
const darkness = matchMedia("(prefers-color-scheme: dark)");

const DEFAULT_FPS = 25;
const FPS_WITHOUT_MODEL = 1;
const SILENT_MS = 2000;

const state = fromFragment(location.hash);
let knowsDigits = false;
let wantedFps = null;
let cards = [];
let linkTimer;
let wasReplaced = false;
let silenceTimer;

const connection = new Connection(take, connectionChanged);
const player = new Player(
  { pause: find("pause"), back: find("back"), step: find("step"), scrub: find("scrub") },
  (type, fields) => {
    connection.send(type, fields);
    if (type === "pause" && !fields.paused) sources.played();
  },
  show,
);
const rate = new Rate(find("rate"));
const controls = new Controls(state, { send: change, begin, announce });
const sources = new Sources({
  send: change,
  sendBytes: (bytes) => player.paused || !cards.length || connection.sendBytes(bytes),
  fps: cameraFps,
  play: () => player.paused && player.setPaused(false),
  notice,
  opens: () => rate.restart("opening the stream …"),
});
const events = new Events();
const teach = new Teach({ isOn: () => sources.camera.isOn, start: () => sources.useCamera(), announce });

// --- Messages from the server

function take(message) {
  const takers = { loading, hello, frame, digit, told, ended, busy, replaced, error: complain, closed: complain };
  takers[message.type]?.(message);
}

function loading() {
  if (!cards.length) announce("Loading models");
}

function hello(message) {
  const { models } = message;
  if (message.teaches) teach.begin();
  document.body.classList.toggle("untaught", !models.length);
  if (!models.length) return helloWithoutModel(message);
  knowsDigits = message.knows_digits;
  find("layer-arrows").parentElement.hidden = !message.models.some(({ attention }) => attention === "dcn");
  wantedFps = message.frame_format.fps;
  cards = models.map((model, i) => new Card(model, i, showWanted));
  find("models").replaceChildren(...cards.map((card) => card.element));
  find("models").style.setProperty("--columns", Math.min(3, cards.length));
  find("models").classList.toggle("alone", cards.length === 1);
  find("models").removeAttribute("aria-busy");
  events.begin(cards);
  setText(find("about"), about(models, knowsDigits));
  find("idle-told").replaceChildren(...introduction(cards));
  find("link").hidden = !knowsDigits;
  find("controls").hidden = false;
  player.clear();
  rate.restart("ready");
  showTruth({ digits: [] });
  sources.connected(message);
  showIdle(!knowsDigits);
  find("idle-stream").hidden = !message.stream;
  find("idle-camera").classList.toggle("primary", !message.stream);
  begin();
  announce(knowsDigits ? "The models are running" : "The models are ready");
  if (wasReplaced && !teach.recording) find("models").parentElement.scrollIntoView();
  wasReplaced = false;
}

/** Show only what teaches: there is no model yet. */
function helloWithoutModel(message) {
  knowsDigits = false;
  cards = [];
  find("models").removeAttribute("aria-busy");
  rate.restart("no model yet");
  sources.connected({ ...message, frame_format: { channels: 3, size: null, fps: null } });
  announce("There is no model yet; teach one");
}

/** The server has other models now. It closes the connection; the next one shows them. */
function replaced() {
  wasReplaced = true;
  connection.reopenAtOnce();
}

/** Return the rate of frames for the models; without models, frames only show the size of the picture. */
function cameraFps() {
  if (!cards.length) return FPS_WITHOUT_MODEL;
  return wantedFps ?? (knowsDigits ? state.settings.fps : DEFAULT_FPS); // time is part of a model
}

/** Show what the user can do, instead of cards without a picture. */
function showIdle(isIdle) {
  find("idle").hidden = !isIdle;
  find("models").hidden = find("player").hidden = isIdle;
  if (isIdle) find("events").hidden = true;
}

function frame(message) {
  message.bytes = bytesOf(message.pixels);
  delete message.pixels;
  requestAnimationFrame(() => {
    showIdle(false);
    events.take(message);
    player.take(message);
    watchForSilence(message);
    // The server waits for this message, so it never sends frames that the screen cannot show.
    connection.send("seen", { number: message.number });
    rate.count(message);
  });
}

function digit({ image }) {
  const ctx = find("drawn").getContext("2d");
  const pixels = ctx.createImageData(28, 28);
  bytesOf(image).forEach((grey, i) => pixels.data.set([grey, grey, grey, 255], 4 * i));
  ctx.putImageData(pixels, 0, 0);
}

/** A line about the stream, such as that it is lost or connected again. */
function told({ line }) {
  sources.tellStream(line);
}

function ended(message) {
  // After the last frame, which waits for the screen too.
  requestAnimationFrame(() => {
    clearTimeout(silenceTimer);
    events.take(message);
    player.setPaused(true);
    const { problem } = message;
    if (sources.kind === "stream") sources.tellStream(problem ?? "The stream has ended.", true);
    if (problem) {
      notice(problem);
      rate.restart("no stream");
    } else announce(`The ${sources.kind} has ended`);
  });
}

/** Say instead of a rate that no frames come, while a stream that was lost is tried again. */
function watchForSilence({ source }) {
  clearTimeout(silenceTimer);
  if (source !== "stream") return;
  sources.streams();
  silenceTimer = setTimeout(() => {
    if (sources.kind === "stream" && !player.paused) rate.restart("no frames from the stream, waiting …");
  }, SILENT_MS);
}

function complain({ message }) {
  notice(message);
}

function busy({ limit }) {
  notice(`The server is busy: ${limit === 1 ? "its only place is" : `all ${limit} places are`} taken. This page tries again automatically.`);
}

function connectionChanged(to) {
  if (to === "open") return;
  sources.disconnected();
  const states = { busy: "waiting for a place …", replaced: "the new model comes …", lost: "no connection, trying again …" };
  rate.restart(states[to]);
  if (to === "lost") announce("The connection is lost; the page tries again");
}

// --- Display

function show(shown, isNew) {
  const isOn = (layer) => find(`layer-${layer}`).checked;
  const layers = {
    quad: isOn("attention"), points: isOn("attention"), saliency: true, arrows: isOn("arrows"), boxes: isOn("boxes"),
  };
  cards.forEach((card, i) => {
    card.draw(shown, layers, darkness.matches);
    // Drawing a chart takes as long as drawing a frame, so each new frame redraws one chart.
    if (!isNew || player.paused || shown.number % cards.length === i) {
      card.drawTime(player.frames, player.at, darkness.matches);
    }
  });
  cards.forEach((card) => card.tell(shown));
  if (shown.source === "video") sources.showPosition(shown.position, isNew);
  showTruth(shown);
  if (player.paused) describe(shown);
}

function showTruth({ digits, source, position, time_s: time }) {
  const shown = digits.map((digit) => digit ?? "?").join(" ");
  const text = source === "video" ? `frame ${position + 1}` : source === "stream" ? `${time.toFixed(1)} s` : shown;
  const { dataset } = find("truth");
  if (dataset.text === text) return;
  dataset.text = text;
  const told = [element("span", { textContent: "shown: " }), element("strong", { textContent: shown })];
  find("truth").replaceChildren(...(shown ? told : [text]));
}

function describe(shown) {
  cards.forEach((card) => card.describe(shown));
  const said = cards.filter((card) => card.isOn).map((card) => `${card.title}: ${card.words ?? "nothing yet"}`);
  announce(`Frame ${shown.number}. ${said.join(". ")}`);
}

function notice(text) {
  find("notice").hidden = !text;
  setText(find("notice"), text);
}

function announce(text) {
  setText(find("announce"), text);
}

// --- Messages to the server

/** Send the whole state: at the start, for a new stream, and to a restarted server. */
function begin() {
  notice("");
  if (knowsDigits) connection.send("pace", { fps: state.settings.fps });
  connection.send("pause", { paused: player.paused });
  connection.send("show", wanted());
  connection.send("source", { kind: sources.kind });
  if (!knowsDigits) return;
  const digits = [...state.digits].map(([slot, digit]) => {
    const [type, fields] = asMessage(slot, digit);
    return { type, ...fields };
  });
  change("start", { seed: state.seed, settings: streamSettings(state.settings), digits });
}

/** Return the models to run, and the results that the page shows. */
function wanted() {
  const names = (some) => some.map((card) => card.model.name);
  const wantsPixels = (card) => find(card.model.attention ? "layer-saliency" : "layer-attention").checked;
  return {
    models: names(cards.filter((card) => card.isOn)),
    saliency: names(cards.filter(wantsPixels)),
    clean: find("clean").checked,
  };
}

function showWanted() {
  change("show", wanted());
}

/** Send a change; if paused, request a frame that shows it; update the link. */
function change(type, fields) {
  connection.send(type, fields);
  if (player.paused) connection.send("step");
  if (!knowsDigits) return; // a link holds only settings of digits
  clearTimeout(linkTimer);
  linkTimer = setTimeout(() => history.replaceState(null, "", toFragment(state)), 300);
}

// --- The rest

async function copyLink() {
  history.replaceState(null, "", toFragment(state));
  try {
    await navigator.clipboard.writeText(location.href);
    announce("Link copied");
    setText(find("link"), "Copied");
    setTimeout(() => setText(find("link"), "Copy link"), 1500);
  } catch {
    notice(`Copy this link: ${location.href}`);
  }
}

function redraw() {
  if (player.now) show(player.now, false);
}

find("link").onclick = copyLink;
find("idle-camera").onclick = () => sources.useCamera();
find("idle-stream").onclick = () => sources.choose("stream");
find("idle-video").onclick = () => {
  sources.choose("video");
  find("file").click();
};
find("forget").onclick = () => {
  change("forget");
  announce("The models have forgotten what they saw");
};
for (const id of ["layer-attention", "layer-saliency", "layer-arrows", "layer-boxes", "clean"]) {
  find(id).onchange = () => {
    showWanted();
    redraw();
  };
}
addEventListener("hashchange", () => {
  if (!knowsDigits) return;
  Object.assign(state, fromFragment(location.hash));
  controls.pad.clear();
  controls.reflect();
  begin();
});
addEventListener("keydown", (event) => {
  if (event.target !== document.body || find("player").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = { " ": () => player.setPaused(!player.paused), ArrowLeft: () => player.move(-1), ArrowRight: () => player.move(1) };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
darkness.onchange = redraw;
// For users who prefer reduced motion, the page starts paused.
if (matchMedia("(prefers-reduced-motion: reduce)").matches) player.setPaused(true);
