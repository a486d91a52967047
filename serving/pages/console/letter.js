// One dead letter: what is known of it, its attempts, and on request its payload, which is an action of its own.

import { element } from "../building.js";
import { act, ask } from "./asking.js";
import { button, openDialog } from "./dialogs.js";
import { facts, table } from "./table.js";
import { code, said, visible, when, whole } from "./words.js";

const SHOWN_OF_STACK = 20_000;
const SHOWN_OF_PAYLOAD = 200_000;

/**
 * Opens a letter in a dialog.
 *
 * @param letter as the list has it.
 * @param redrive is told the letter where it is to be sent again.
 */
export async function openLetter(letter, { mayAct, report, redrive, back }) {
  const body = element("div", { class: "letter" }, element("p", { class: "soft", role: "status" }, "Asking …"));
  const close = button("Close", () => dialog.close(), { quiet: true });
  const buttons = element("div", { class: "buttons end" }, close);
  const dialog = openDialog("Dead letter", [body, buttons], { back, wide: true });
  close.focus();
  let found;
  try {
    found = await ask(`dead-letters/${encodeURIComponent(letter.id)}`);
  } catch (error) {
    body.replaceChildren(element("p", { class: "problem", role: "alert" }, report(error)));
    return;
  }
  body.replaceChildren(about(found), attempts(found.history ?? []), stack(found.stack), payload(found, mayAct, report));
  if (mayAct() && !found.redrivenAt) {
    const again = button("Redrive this letter …", async () => {
      dialog.close("redrive");
    });
    buttons.append(again);
  }
  if ((await dialog.closed) === "redrive") await redrive(found);
}

function about(found) {
  return facts([
    ["worker", said(found.worker)],
    ["reason", code(found.reason)],
    ["error", said(found.error, 2_000)],
    ["attempts", whole(found.attempts)],
    ["written", when(found.writtenAt)],
    ["sent again", found.redrivenAt ? when(found.redrivenAt) : "not yet: it waits"],
    ["read from", said(found.source, 500)],
    ["at", said(found.position, 500)],
    ["written by version", said(found.codeVersion)],
    ["id", code(found.id)],
  ]);
}

function attempts(history) {
  const title = element("h3", {}, "Sent again before");
  if (!history.length) return element("section", {}, title, element("p", { class: "soft" }, "Never."));
  const rows = history.map((one) => [when(one.at), said(one.outcome), said(one.error, 500), said(one.codeVersion)]);
  return element("section", {}, title, table("Attempts", [{ name: "when (UTC)" }, { name: "outcome" }, { name: "error" }, { name: "version" }], rows));
}

function stack(text) {
  if (!text) return element("p", { class: "soft" }, "No stack: the error is the record's own.");
  return element("details", {}, element("summary", {}, "Stack"), pre(text, SHOWN_OF_STACK, "Stack"));
}

function payload(found, mayAct, report) {
  const title = element("h3", {}, "Payload");
  const place = element("div", { role: "status" });
  if (!mayAct()) return element("section", {}, title, element("p", { class: "soft" }, "To see it needs the scope console:act: it may hold personal data."));
  const reveal = button("Reveal the payload", async () => {
    reveal.disabled = true;
    try {
      const { payload: text, encoding, bytes, truncated } = await act(`dead-letters/${encodeURIComponent(found.id)}/reveal`);
      const how = encoding === "base64" ? "Not text, so in Base64" : "As it was read";
      const part = truncated ? `, the beginning of ${whole(bytes)} bytes` : "";
      place.replaceChildren(element("p", { class: "soft" }, `${how}${part}:`), pre(text, SHOWN_OF_PAYLOAD, "Payload"));
      reveal.remove();
    } catch (error) {
      reveal.disabled = false;
      place.replaceChildren(element("p", { class: "problem" }, report(error)));
    }
  }, { quiet: true, small: true });
  return element("section", {}, title, element("p", { class: "soft" }, "It may hold personal data; who reveals it stands in the audit log. "), reveal, place);
}

function pre(text, most, name) {
  const shown = String(text).slice(0, most);
  const more = text.length > most ? `\n… ${whole(text.length - most)} characters more` : "";
  return element("pre", { tabindex: "0", role: "region", "aria-label": name, dir: "ltr" }, visible(shown) + more);
}
