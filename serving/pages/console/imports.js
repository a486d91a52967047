// The section of imports: versions of bot-or-not scores and clusters, what each changed, and going back to the one before.

import { element, isNumber } from "../building.js";
import { follow, outcomePlace } from "./actions.js";
import { ask } from "./asking.js";
import { comparison } from "./comparison.js";
import { button, confirmed } from "./dialogs.js";
import { facts, table } from "./table.js";
import { code, counted, said, when, whole } from "./words.js";

const KINDS = { botOrNot: "bot-or-not scores", cluster: "clusters" };
const STATES = {
  staging: "being read",
  staged: "read, not active",
  active: "active",
  replaced: "replaced",
  rolledBack: "rolled back",
  deleting: "being deleted",
};

/** Fills the section; `open()` asks anew. */
export function importsSection(section, { mayAct, report }) {
  const title = section.querySelector("h2");
  const outcome = outcomePlace();
  const list = element("div", { class: "card" }, element("p", { class: "soft" }, "Asking …"));
  const compared = element("div", {});
  section.append(outcome.node, list, compared);

  async function load() {
    try {
      const { imports } = await ask("imports");
      list.replaceChildren(...shown(imports));
    } catch (error) {
      list.replaceChildren(element("p", { class: "problem" }, report(error)));
    }
  }

  function shown(imports) {
    if (!imports.length) return [element("p", {}, "Nothing was imported yet.")];
    const rows = imports.map((one) => {
      const name = `${KINDS[one.kind] ?? one.kind}, ${one.version}`;
      const look = button("Compare", () => show(one), { quiet: true, small: true, label: `What ${name} changed` });
      const back = one.active && mayAct() ? button("Roll back …", () => rollBack(one), { quiet: true, small: true, label: `Roll back ${name}` }) : "";
      return [
        code(one.version, 60), KINDS[one.kind] ?? said(one.kind), stateOf(one), when(one.startedAt), whole(one.rows),
        said(summaryOf(one.summary), 200), element("span", { class: "pair" }, look, back),
      ];
    });
    const columns = [
      { name: "version" }, { name: "of" }, { name: "state" }, { name: "began (UTC)" }, { name: "rows", number: true },
      { name: "changed" }, { name: "do", hidden: true },
    ];
    return [table("Imports, the newest first", columns, rows)];
  }

  async function show(one) {
    compared.replaceChildren(element("p", { class: "soft", role: "status" }, "Asking …"));
    try {
      const record = await ask(`imports/${encodeURIComponent(one.kind)}/${encodeURIComponent(one.version)}`);
      const heading = element("h3", { tabindex: "-1" }, "What ", code(one.version, 60), " changed");
      compared.replaceChildren(element("div", { class: "card" }, heading, ...comparison(record)));
      heading.focus();
    } catch (error) {
      compared.replaceChildren(element("p", { class: "problem", role: "alert" }, report(error)));
    }
  }

  async function rollBack(one) {
    let record;
    try {
      record = await ask(`imports/${encodeURIComponent(one.kind)}/${encodeURIComponent(one.version)}`);
    } catch (error) {
      outcome.tell("bad", report(error));
      return;
    }
    const what = KINDS[one.kind] ?? one.kind;
    const before = record.replaced;
    const fans = record.comparison ?? {};
    const touched = ["added", "removed", "changed"].reduce((total, name) => total + (fans[name] ?? 0), 0);
    const known = isNumber(fans.fans) && !record.headline?.[0]?.startsWith("the files have no");
    const children = [
      facts([
        ["taken back", code(one.version, 60)],
        ["comes back", before ? code(before, 60) : element("strong", {}, `nothing: no fan has an imported value of ${what} any more`)],
        ...(known ? [["fans it touches", whole(touched)], ["of them change ARM", whole(fans.armChanges)]] : []),
      ]),
      element("p", {}, "Readers see the earlier values at once; scores and the ARM cache follow within the job, which you can watch here."),
    ];
    const doing = before ? `Roll back to ${before}` : "Roll back to nothing";
    if (!(await confirmed(`Roll back ${what}?`, children, doing, { danger: true, back: title }))) return;
    await follow(outcome, `imports/${encodeURIComponent(one.kind)}/rollback`, { active: one.version }, `Rolling back ${what} …`, ({ summary }) => {
      const active = summary?.active ?? before;
      const followed = isNumber(summary?.followed) ? `; ${counted(summary.followed, "fan's score was", "fans' scores were")} written anew` : "";
      return active ? ["Rolled back: ", code(active, 60), ` is active again${followed}.`] : [`Rolled back: no version of ${what} is active${followed}.`];
    });
    compared.replaceChildren();
    await load();
    outcome.hold();
  }

  return { open: load };
}

function stateOf({ state, active }) {
  const name = STATES[state] ?? said(state);
  return active ? element("span", { class: "state ok" }, "\u25cf ", name) : element("span", {}, name);
}

function summaryOf(summary) {
  return Array.isArray(summary) ? summary.join("; ") : summary;
}
