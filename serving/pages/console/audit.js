// The section of the audit log: who did what, and whether the chain of its lines is whole.

import { element } from "../building.js";
import { ask } from "./asking.js";
import { button } from "./dialogs.js";
import { table } from "./table.js";
import { code, counted, said, when, whole } from "./words.js";

const PAGE = 50;
const SHOWN_OF_HASH = 12;

/** Fills the section; `open()` asks anew. */
export function auditSection(section, { report }) {
  const status = element("p", { role: "status" });
  const list = element("div", { class: "card" });
  section.append(status, list);
  let lines = [];
  let next = null;

  async function load(more) {
    try {
      const found = await ask("audit", { limit: PAGE, after: more ? next : null });
      lines = more ? [...lines, ...found.lines] : found.lines;
      next = found.next;
      status.replaceChildren(...verified(found));
      list.replaceChildren(...shown());
    } catch (error) {
      status.replaceChildren();
      list.replaceChildren(element("p", { class: "problem" }, report(error)));
    }
  }

  function shown() {
    if (!lines.length) return [element("p", {}, "Nothing was done yet.")];
    const rows = lines.map((line) => [
      whole(line.seq), when(line.at), said(line.subject, 100), said(line.action, 60), about(line),
      element("span", { class: outcomeClass(line.outcome) }, said(line.outcome, 60)), code(String(line.hash ?? "").slice(0, SHOWN_OF_HASH)),
    ]);
    const columns = [{ name: "line", number: true }, { name: "when (UTC)" }, { name: "who" }, { name: "did" }, { name: "to" }, { name: "outcome" }, { name: "hash" }];
    const made = [table("Audit log, the newest line first", columns, rows)];
    if (next !== null && next !== undefined) made.push(button("Show more", () => load(true), { quiet: true }));
    return made;
  }

  return { open: () => load(false) };
}

function about({ target, details }) {
  const more = Object.entries(details ?? {}).filter(([, value]) => value !== target).map(([name, value]) => `${name} ${value}`).join(", ");
  return element("span", {}, said(target, 160), more ? element("span", { class: "soft" }, " ", said(more, 300)) : null);
}

function outcomeClass(outcome) {
  return outcome === "failed" || outcome === "unknown" ? "problem" : null;
}

function verified({ verified: whole_, unkeyed, head }) {
  if (whole_ === true) {
    const end = head && typeof head === "object" ? head : { hash: head };
    const to = end.seq ? `, ${counted(end.seq, "line")}` : "";
    const hash = end.hash ? [", to the hash ", code(String(end.hash).slice(0, SHOWN_OF_HASH))] : [];
    const older = unkeyed ? [unkeyed === 1 ? " Line 1 is older than the key, which does not protect it." : ` Lines 1 to ${whole(unkeyed)} are older than the key, which does not protect them.`] : [];
    return [element("span", { class: "state ok" }, "\u25cf The chain is whole"), to, ...hash, ".", ...older];
  }
  if (whole_ === false) return [element("strong", { class: "problem" }, "\u25a0 The chain is broken: lines were changed, removed or made with no or another key. "), "fan-identity audit verify says where."];
  return [element("span", { class: "soft" }, "Whether the chain is whole is being worked out.")];
}
