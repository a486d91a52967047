// Tables with headers that lie down on a wide screen and stand up, a row a card, on a phone.

import { element } from "../building.js";

/**
 * A table.
 *
 * @param caption says what it is, for who does not see it.
 * @param columns `{name, number, hidden}`: hidden names are said and not shown.
 * @param rows arrays of cells, a node or a text each; the first is the row's header. A row may be `{cells, class}`.
 */
export function table(caption, columns, rows) {
  const heads = columns.map(({ name, number, hidden }) =>
    element("th", { scope: "col", role: "columnheader", class: number && "number" }, hidden ? element("span", { class: "unseen" }, name) : name),
  );
  return element(
    "table",
    { role: "table", class: "stack" }, // roles are said, because a table laid out anew for a phone is else none any more
    element("caption", { class: "unseen" }, caption),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)),
    element("tbody", { role: "rowgroup" }, ...rows.map((row) => tableRow(columns, row))),
  );
}

function tableRow(columns, row) {
  const { cells, ...attributes } = Array.isArray(row) ? { cells: row } : row;
  return element("tr", { role: "row", ...attributes }, ...cells.map((cell, place) => tableCell(columns[place], cell, place)));
}

function tableCell({ name, number, hidden }, cell, place) {
  const shared = { class: number && "number", "data-label": hidden ? null : name };
  if (place === 0) return element("th", { scope: "row", role: "rowheader", ...shared }, cell);
  return element("td", { role: "cell", ...shared }, cell);
}

/** A share of the largest as a bar; decoration beside its number. */
export function bar(share) {
  const inner = element("span", { class: "fill" });
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return element("span", { class: "measure", "aria-hidden": "true" }, inner);
}

/** Pairs of name and value. */
export function facts(pairs) {
  return element("dl", { class: "facts" }, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
