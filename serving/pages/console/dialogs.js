// Dialogs. The browser's own: modal, with the focus kept inside, Escape to leave; the focus goes back to where it was.

import { element } from "../building.js";

let number = 0;

/**
 * Opens a dialog.
 *
 * @param title its heading.
 * @param children what it shows.
 * @param back where the focus goes at the end where what had it is gone.
 * @returns `{node, close, closed}`: `closed` is a promise of what `close` was given; undefined for Escape.
 */
export function openDialog(title, children, { back = null, wide = false } = {}) {
  const id = `dialog-${++number}`;
  const opener = document.activeElement;
  const node = element("dialog", { "aria-labelledby": id, class: wide && "wide" }, element("h2", { id }, title), ...children);
  let outcome;
  const closed = new Promise((resolve) => {
    node.addEventListener("close", () => {
      node.remove();
      const place = opener?.isConnected && !opener.disabled ? opener : back;
      place?.focus();
      resolve(outcome);
    });
  });
  document.body.append(node);
  node.showModal();
  return {
    node,
    closed,
    close(value) {
      outcome = value;
      node.close();
    },
  };
}

/**
 * Replaces what a place shows; the focus stays where it was, on what has the same `data-key` now.
 */
export function renew(place, ...children) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...children);
  if (key !== undefined) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

export function button(text, onClick, { quiet = false, danger = false, small = false, label = null, key = null } = {}) {
  const classes = [quiet && "quiet", danger && "danger", small && "small"].filter(Boolean).join(" ");
  const made = element("button", { type: "button", class: classes || null, "aria-label": label, "data-key": key }, text);
  made.addEventListener("click", onClick);
  return made;
}

/**
 * Asks whether to do something; what it does is said in full on the button.
 *
 * @returns a promise of true or false. Enter on opening does nothing harmful: the focus is on Cancel.
 */
export async function confirmed(title, children, doing, options = {}) {
  const cancel = button("Cancel", () => dialog.close(false), { quiet: true });
  const go = button(doing, () => dialog.close(true), { danger: options.danger });
  const dialog = openDialog(title, [...children, element("div", { class: "buttons end" }, cancel, go)], options);
  cancel.focus();
  return (await dialog.closed) === true;
}
