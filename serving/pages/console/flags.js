// The section of flags: which workers run, and switching one off or on.

import { element } from "../building.js";
import { notDone, outcomePlace } from "./actions.js";
import { Problem, act } from "./asking.js";
import { button, confirmed, renew } from "./dialogs.js";
import { table } from "./table.js";
import { code, said } from "./words.js";

const OFF = "Its processes stay, and stop taking in records within two seconds. What they read waits where it is: in its log or queue, in order, up to its retention.";
const LOOKS = 12;
const LOOK_AGAIN_MS = 500;
const ON = "Its processes take in records again within two seconds, and work off what has waited.";

/** Fills the section; `update(flags, error)` shows what is known. */
export function flagsSection(section, { mayAct, report, changed }) {
  const title = section.querySelector("h2");
  const outcome = outcomePlace();
  const place = element("div", { class: "card" }, element("p", { class: "soft" }, "Asking …"));
  section.append(outcome.node, place);
  let known = null;

  async function turn(flag, enabled) {
    const doing = enabled ? `Switch ${flag.worker} on` : `Switch ${flag.worker} off`;
    const what = element("p", {}, enabled ? ON : OFF);
    const share = enabled || flag.everyone !== false ? null : element("p", {}, "It is on for a share of users now. Switched on again, it is so for the same share.");
    if (!(await confirmed(`${doing}?`, [what, share].filter(Boolean), doing, { danger: !enabled, back: title }))) return;
    outcome.tell("busy", `${doing} …`);
    try {
      await act(`flags/${encodeURIComponent(flag.worker)}`, { enabled });
      outcome.tell("ok", `${flag.worker} is switched ${enabled ? "on" : "off"}.`);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      outcome.tell("bad", notDone(error));
    }
    // This server asks the flag server every second or so, as workers do.
    for (let look = 0; look < LOOKS; look++) {
      await changed();
      if (known?.flags.find(({ worker }) => worker === flag.worker)?.enabled === enabled) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    }
  }

  function shown({ server, canToggle, flags }) {
    if (!server) {
      return [element("p", {}, "No flag server is set up here, so every worker is on. ", element("code", {}, "FAN_IDENTITY_FLAGS"), " names one.")];
    }
    const acts = mayAct() && canToggle;
    const rows = flags.map((flag) => [
      element("strong", {}, said(flag.worker, 60)),
      stateOf(flag),
      code(flag.toggle),
      acts && flag.known ? button(flag.enabled ? "Switch off" : "Switch on", () => turn(flag, !flag.enabled), { quiet: true, small: true, key: flag.worker, label: `Switch ${flag.worker} ${flag.enabled ? "off" : "on"}` }) : "",
    ]);
    const columns = [{ name: "worker" }, { name: "state" }, { name: "toggle" }, { name: "switch", hidden: true }];
    const why = !mayAct() ? "Your token may look, not switch (scope console:act)." : "This server has no token to switch flags with (FAN_IDENTITY_UNLEASH_ADMIN_TOKEN).";
    return [acts ? null : element("p", { class: "soft" }, why), table("Flags of workers", columns, rows)].filter(Boolean);
  }

  return {
    update(found, error) {
      known = found ?? known;
      if (error) renew(place, element("p", { class: "problem" }, report(error)));
      else if (found) renew(place, ...shown(found));
    },
  };
}

function stateOf({ known, enabled, everyone }) {
  if (!known) return element("span", { class: "soft" }, "not a toggle there: on by default");
  if (!enabled) return element("span", { class: "state bad" }, "\u25a0 off");
  return element("span", { class: "state ok" }, everyone === false ? "\u25cf on for a share of users" : "\u25cf on");
}
