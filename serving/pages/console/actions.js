// Doing something and telling what came of it, also where it takes a while.

import { element } from "../building.js";
import { Problem, act, ask } from "./asking.js";
import { button } from "./dialogs.js";
import { said } from "./words.js";

const LOOK_AGAIN_MS = 700;

/** Where a section tells what came of an action: heard by screen readers, and there until it is closed. */
export function outcomePlace() {
  const node = element("div", { class: "outcome-place", role: "status", tabindex: "-1" });
  const hold = () => {
    const { activeElement: has } = document;
    // A browser takes the focus from what was switched off or hidden a little later: that is looked at here, too.
    if (has === null || has === document.body || has.disabled || !has.checkVisibility()) node.focus();
  };
  return {
    node,
    /** Takes the focus where what had it is gone or switched off, so that a keyboard does not begin anew at the top. */
    hold,
    tell(level, ...children) {
      const close = button("Close", () => {
        node.replaceChildren();
        hold();
      }, { quiet: true, small: true });
      node.replaceChildren(element("div", { class: `told ${level}` }, element("div", {}, ...children), close));
      hold();
    },
    clear() {
      node.replaceChildren();
    },
  };
}

/**
 * POSTs, follows the job it begins to its end, and tells.
 *
 * @param begun says what is under way.
 * @param ended makes what is told of the job's summary.
 * @returns whether it was done.
 */
export async function follow(place, path, body, begun, ended) {
  place.tell("busy", begun);
  try {
    const { job } = await act(path, body);
    for (;;) {
      const found = await ask(`jobs/${encodeURIComponent(job)}`);
      if (found.state === "done") {
        place.tell("ok", ...ended(found));
        return true;
      }
      if (found.state !== "running") {
        place.tell("bad", "It failed: ", said(found.summary?.problem || textOf(found.summary) || `exit code ${found.exitCode}`, 500), ". The audit log has the line.");
        return false;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    }
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    place.tell("bad", notDone(error));
    return false;
  }
}

/** Why an action was not done; where there was no answer nobody knows whether it was. */
export function notDone(problem) {
  if (problem.kind === "offline") return `There was no answer (${problem.message}): it may or may not have been done. The audit log says.`;
  return `Not done. ${problem.message}`;
}

/** A job's summary as one line. */
export function textOf(summary) {
  if (summary === null || summary === undefined) return "";
  if (typeof summary !== "object") return String(summary);
  return Object.entries(summary)
    .filter(([, value]) => value !== null && value !== "" && typeof value !== "object")
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}
