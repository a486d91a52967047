// Builds elements and writes numbers. Texts become text nodes only: what the API answers may hold anything.

/** An element with properties and children; a child that is no node becomes text. */
export function element(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A number as people read it, and in `value` as the API said it. */
export function figure(number, text) {
  return element("data", { value: String(number) }, text);
}

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

export function fixed(value, digits) {
  return isNumber(value) ? minus(value.toFixed(digits)) : "–";
}

/** Points with their sign: +2.50, −12.37. */
export function signed(points) {
  return isNumber(points) ? (points < 0 ? "\u2212" : "+") + Math.abs(points).toFixed(2) : "–";
}

function minus(text) {
  return text.replace("-", "\u2212");
}

/** 2026-06-12T10:03:04.500Z as 2026-06-12 10:03:04.500; what is no time stays as it is. */
export function moment(text) {
  return String(text).replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d+)?)Z$/, "$1 $2").replace(/\.000$/, "");
}

/** Seconds as people say them: 45 s, 12 min, 3 h 5 min, 9 days. */
export function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  if (minutes < 36 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.round(minutes / 1440)} days`;
}

/** At most so many characters: an id may be 10 kB long. */
export function cut(text, most = 200) {
  const characters = [...String(text)];
  return characters.length > most ? characters.slice(0, most).join("") + "…" : String(text);
}
