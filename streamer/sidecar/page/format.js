// Values as text, with their units. Pure.

export const UNKNOWN = "–";

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
// what changes how the text around it is read, or cannot be seen: C0, C1, soft hyphen, bidi and zero-width characters, line separators
const INVISIBLE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu;
const LONGEST = 400;

/** A text that somebody else chose, such that what is seen is what is there. */
export function shown(text) {
  const whole = String(text ?? "").slice(0, LONGEST);
  return whole.replace(/\p{Surrogate}/gu, "\ufffd").replace(INVISIBLE, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const digits = (n) => n.toFixed(n >= 99.95 || n === 0 ? 0 : n >= 9.995 ? 1 : 2);
const isKnown = (n) => Number.isFinite(n);

export function bytes(n) {
  if (!isKnown(n)) return UNKNOWN;
  let unit = 0;
  for (; n >= 1024 && unit < BINARY.length - 1; unit++) n /= 1024;
  return `${unit ? digits(n) : Math.round(n)} ${BINARY[unit]}`;
}

/** The same of a limit or a capacity, which is seldom crooked: `0.5 cores`, `1 core`, `8 cores`. */
export function coresOf(n) {
  if (!isKnown(n)) return UNKNOWN;
  return `${Number(n.toFixed(2))} ${n === 1 ? "core" : "cores"}`;
}

export const bytesPerSecond = (n) => (isKnown(n) ? `${bytes(n)}/s` : UNKNOWN);

export function cores(n) {
  return isKnown(n) ? `${digits(n)} cores` : UNKNOWN;
}

export const percent = (n) => (isKnown(n) ? `${n >= 9.95 || n === 0 ? Math.round(n) : n.toFixed(1)} %` : UNKNOWN);
export const count = (n) => (isKnown(n) ? n.toLocaleString("en") : UNKNOWN);

/** Milliseconds as the two largest units: `3 d 4 h`, `5 min 2 s`, `850 ms`. */
export function duration(ms) {
  if (!isKnown(ms)) return UNKNOWN;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = Math.floor(ms / 1000);
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = parts.findIndex(([n]) => n);
  return parts.slice(first, first + 2).filter(([n]) => n).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

const two = (n) => String(n).padStart(2, "0");

/** Local time of day; the day before it when that is not today. */
export function clock(ms) {
  if (!isKnown(ms)) return UNKNOWN;
  const at = new Date(ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return at.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

/** RFC 3339 -> milliseconds since 1970, NaN for none. */
export const moment = (text) => (text ? Date.parse(text) : NaN);

/** `3f2a91c04b7d` of a hexadecimal id; a path as it is. */
export const shortId = (id) => (/^[0-9a-f]{32,}$/.test(id ?? "") ? id.slice(0, 12) : shown(id));
