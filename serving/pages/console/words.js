// How numbers, times and texts are written. A text of a record may hold anything: it is shown, never obeyed.

import { age, cut, element, isNumber } from "../building.js";

// Characters that are not seen and change how others are read: marks of direction, of joining, and of line ends.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

/** A text with what cannot be seen made visible, by its number: ⟨U+202E⟩. */
export function visible(text) {
  return String(text).replace(UNSEEN, (one) => `\u27e8U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
}

/** A text from a record, on its own: what is written from right to left stays within it. */
export function said(text, most = 200) {
  if (text === null || text === undefined || text === "") return element("span", { class: "soft" }, "–");
  return element("bdi", {}, cut(visible(text), most));
}

export function code(text, most = 120) {
  return element("code", {}, said(text, most));
}

/** 1,234 */
export function whole(number) {
  return isNumber(number) ? Math.round(number).toLocaleString("en-US").replace("-", "\u2212") : "–";
}

/** A rate: 0, 0.04, 3.2, 412, 12,400; – where it is not known. */
export function rate(number) {
  if (!isNumber(number)) return "–";
  if (number === 0) return "0";
  if (number < 0.01) return "<0.01";
  return number < 10 ? String(Number(number.toPrecision(2))) : whole(number);
}

/** 1 letter, 12 letters. */
export function counted(number, one, more = `${one}s`) {
  return `${whole(number)} ${number === 1 ? one : more}`;
}

/** A time of the API (epoch milliseconds, or ISO 8601) in epoch milliseconds; NaN for none. */
export function millis(value) {
  return isNumber(value) ? value : typeof value === "string" ? Date.parse(value) : NaN;
}

/** 2026-11-27 10:03:04 */
export function moment(value) {
  const at = millis(value);
  return Number.isFinite(at) ? new Date(at).toISOString().slice(0, 19).replace("T", " ") : "–";
}

/** 10:03:04 */
export function clock(value) {
  return moment(value).slice(11) || "–";
}

/** A time as an element: when (without the date where that is today's), and how long ago. */
export function when(value, now = Date.now()) {
  const at = millis(value);
  if (!Number.isFinite(at)) return element("span", { class: "soft" }, "–");
  const text = moment(at).slice(0, 10) === moment(now).slice(0, 10) ? clock(at) : moment(at);
  const past = element("span", { class: "soft nowrap" }, ago(at, now));
  return element("time", { datetime: new Date(at).toISOString(), title: `${moment(at)} UTC` }, element("span", { class: "nowrap" }, text), " ", past);
}

export function ago(at, now = Date.now()) {
  return `${age(Math.max(0, (now - at) / 1_000))} ago`;
}

/** Milliseconds: 350 ms, 12 s, 4 min. */
export function span(milliseconds) {
  if (!isNumber(milliseconds)) return "–";
  return milliseconds < 1_000 ? `${Math.round(milliseconds)} ms` : age(milliseconds / 1_000);
}
