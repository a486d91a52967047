// What an import changed: in sentences, in numbers, and fan by fan as examples.

import { element, isNumber } from "../building.js";
import { bar, facts, table } from "./table.js";
import { code, said, whole } from "./words.js";

const LEVELS = 5;

/** The parts that show a stored comparison (`imports/{kind}/{version}`). */
export function comparison(record) {
  const found = record.comparison ?? {};
  const sentences = (record.headline ?? []).map((line) => element("li", {}, said(line, 300)));
  return [
    element("ul", { class: "sentences" }, ...sentences),
    counts(record, found),
    ...arm(found.arm),
    ...examples(found.examples),
    ...clusters(found.clusters),
    ...bad(found),
  ].filter(Boolean);
}

function counts(record, found) {
  const pairs = [
    ["compared with", found.comparedWith ? code(found.comparedWith, 60) : "nothing: no version was active"],
    ["fans in it", found.fans], ["new fans", found.added], ["fans without a value now", found.removed],
    ["another value", found.changed], ["the same value", found.unchanged], ["never scored", found.unknown],
    ["rows", record.books?.rows ?? found.rows], ["bad rows", found.totalBad], ["repeated rows", found.repeated],
    ["change ARM", found.armChanges],
  ].filter(([, value]) => value !== undefined);
  const files = (record.files ?? []).length ? [["files", said(record.files.join(", "), 400)]] : [];
  const made = facts([...pairs.map(([name, value]) => [name, isNumber(value) ? whole(value) : value]), ...files]);
  made.classList.add("two");
  return made;
}

function arm(matrix) {
  if (!Array.isArray(matrix) || !matrix.some((row) => row.some((value) => value > 0))) return [];
  const most = Math.max(...matrix.flatMap((row, before) => row.filter((_, after) => after !== before)), 1);
  const heads = [{ name: "ARM before" }, ...Array.from({ length: LEVELS }, (_, level) => ({ name: `now ${level + 1}`, number: true }))];
  const rows = matrix.map((row, before) => [
    String(before + 1),
    ...row.map((fans, after) => armCell(fans, before, after, most)),
  ]);
  const made = table("Fans by their ARM before and now", heads, rows);
  made.classList.remove("stack");
  made.classList.add("matrix");
  return [
    element("h4", {}, "ARM before and now"),
    element("p", { class: "soft" }, "Fans by their account's risk, 1 least and 5 most. Right of the diagonal they get riskier."),
    element("div", { class: "scrolling", tabindex: "0", role: "region", "aria-label": "ARM before and now" }, made),
  ];
}

function armCell(fans, before, after, most) {
  if (!fans) return element("span", { class: "soft" }, "0");
  if (before === after) return whole(fans);
  return element("span", { class: after > before ? "riskier" : "safer" }, element("span", { "aria-hidden": "true" }, after > before ? "\u25b2 " : "\u25bc "), whole(fans), bar(fans / most));
}

function examples(found) {
  if (!found?.length) return [];
  const rows = found.map((one, number) => [
    String(number + 1), // the API names no fan here; `fan-identity imports show` does
    `${one.armBefore} \u2192 ${one.armAfter}`,
    `${fixed(one.scoreBefore, 2)} \u2192 ${fixed(one.scoreAfter, 2)}`,
    element("span", {}, said(valueOf(one.valueBefore), 60), " \u2192 ", said(valueOf(one.valueAfter), 60)),
  ]);
  return [
    element("h4", {}, "Examples"),
    element("p", { class: "soft" }, "Fans whose ARM changes, the greatest changes first. Who they are, ", element("code", {}, "fan-identity imports show"), " says."),
    table("Fans whose ARM changes, the greatest changes first", [{ name: "example" }, { name: "ARM" }, { name: "account score" }, { name: "imported value" }], rows),
  ];
}

function valueOf(value) {
  return isNumber(value) ? fixed(value, 4) : (value ?? "none");
}

function fixed(value, digits) {
  return isNumber(value) ? value.toFixed(digits) : "–";
}

function clusters(found) {
  if (!found) return [];
  const list = (name, ones) =>
    ones?.length
      ? [element("p", {}, name), element("ul", {}, ...ones.map(([id, parts]) => element("li", {}, code(id, 60), ": ", said(parts.map(([other, fans]) => `${other} (${whole(fans)})`).join(", "), 300))))]
      : [];
  return [
    element("h4", {}, "Clusters"),
    facts([["before", whole(found.before)], ["now", whole(found.after)], ["split", whole(found.split)], ["merged", whole(found.merged)]]),
    ...list("Some that split, and into what:", found.splitExamples),
    ...list("Some that were merged, and of what:", found.mergedExamples),
  ];
}

function bad(found) {
  const reasons = Object.entries(found.bad ?? {});
  if (!reasons.length) return [];
  const rows = reasons.map(([reason, rows_]) => [said(reason, 60), whole(rows_)]);
  return [
    element("h4", {}, "Bad rows"),
    table("Bad rows by reason", [{ name: "reason" }, { name: "rows", number: true }], rows),
  ];
}
