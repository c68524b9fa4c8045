// The settings, and the link that contains them.

export const SLIDERS = [
  { name: "num_digits", key: "n", label: "Digits", min: 1, max: 5, step: 1, unit: "" },
  { name: "max_angle_deg", key: "r", label: "Rotation", min: 0, max: 180, step: 5, unit: "°", sign: "±" },
  { name: "scale_low", key: "a", label: "Smallest", min: 0.35, max: 1.2, step: 0.05, unit: "×" },
  { name: "scale_high", key: "b", label: "Largest", min: 0.35, max: 1.2, step: 0.05, unit: "×" },
  { name: "speed_px", key: "v", label: "Speed", min: 0, max: 8, step: 0.25, unit: " px" },
  { name: "tempo", key: "t", label: "Tempo", min: 0, max: 5, step: 0.25, unit: "×" },
  { name: "clutter", key: "c", label: "Clutter", min: 0, max: 8, step: 1, unit: "" },
  { name: "noise", key: "z", label: "Noise", min: 0, max: 64, step: 2, unit: "" },
  { name: "fps", key: "f", label: "Frames/s", min: 1, max: 60, step: 1, unit: "" },
];

export const DEFAULTS = {
  num_digits: 2, max_angle_deg: 60, scale_low: 0.6, scale_high: 1, speed_px: 1.5, tempo: 1, per_digit: true, clutter: 0, noise: 0, fps: 25,
};

/** Return the settings of the stream, as the server expects them. */
export function streamSettings({ fps, ...settings }) {
  return settings;
}

/** Return a random seed that is short in a link. */
export function freshSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] % 100000;
}

/** Write seed, settings and chosen digits as the fragment of a link. */
export function toFragment({ seed, settings, digits }) {
  const fields = new URLSearchParams({ s: seed });
  for (const { name, key } of SLIDERS) {
    if (settings[name] !== DEFAULTS[name]) fields.set(key, settings[name]);
  }
  if (!settings.per_digit) fields.set("e", 0);
  for (const [slot, digit] of digits) {
    const value = digit.strokes ? `${digit.label ?? ""}~${packed(digit.strokes)}` : `${digit.digit}${digit.instance ? `.${digit.instance}` : ""}`;
    fields.append("d", `${slot}.${value}`);
  }
  return `#${fields}`;
}

/** Parse a fragment; missing or invalid values become the defaults, a missing seed a random one. */
export function fromFragment(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const seed = fields.has("s") ? bounded(fields.get("s"), 0, 2 ** 31 - 1, 1, 0) : freshSeed();
  const settings = { ...DEFAULTS };
  for (const { name, key, min, max, step } of SLIDERS) {
    if (fields.has(key)) settings[name] = bounded(fields.get(key), min, max, step, DEFAULTS[name]);
  }
  settings.per_digit = fields.get("e") !== "0";
  settings.scale_high = Math.max(settings.scale_low, settings.scale_high);
  const digits = new Map();
  for (const text of fields.getAll("d")) {
    const found = /^([0-4])\.(?:([0-9])(?:\.(\d{1,6}))?|([0-9]?)~([\w-]+))$/.exec(text);
    if (!found || Number(found[1]) >= settings.num_digits) continue;
    const [, slot, digit, instance, label, strokes] = found;
    if (digit !== undefined) digits.set(Number(slot), { digit: Number(digit), instance: Number(instance ?? 0) });
    else if (unpacked(strokes).length) {
      digits.set(Number(slot), { strokes: unpacked(strokes), label: label === "" ? null : Number(label) });
    }
  }
  return { seed, settings, digits };
}

function bounded(text, min, max, step, otherwise) {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) return otherwise;
  const rounded = min + Math.round((value - min) / step) * step;
  return Number(Math.min(max, Math.max(min, rounded)).toFixed(4));
}

// A stroke is encoded as the number of its points and their coordinates, one byte each.
function packed(strokes) {
  const bytes = strokes.flatMap((stroke) => [stroke.length, ...stroke.flat()]);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpacked(text) {
  try {
    const bytes = Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const strokes = [];
    for (let i = 0; i < bytes.length; i += 1 + 2 * bytes[i]) {
      const points = Array.from({ length: bytes[i] }, (_, k) => [bytes[i + 1 + 2 * k], bytes[i + 2 + 2 * k]]);
      if (!points.length || points.flat().includes(undefined)) return [];
      strokes.push(points);
    }
    return strokes.slice(0, 32);
  } catch {
    return [];
  }
}
