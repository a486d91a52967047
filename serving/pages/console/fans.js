// The section of fans: to a fan's history with its reasons, on a page of its own.

import { element } from "../building.js";

/** Fills the section. */
export function fansSection(section) {
  const fan = element("input", { id: "fan", autocomplete: "off", autocapitalize: "off", spellcheck: "false", required: true });
  const form = element(
    "form",
    { class: "card", "aria-labelledby": "title-fans" },
    element("div", { class: "field" }, element("label", { for: "fan" }, "Fan ", element("span", { class: "soft" }, "(globalUserId)")), fan),
    element("div", { class: "buttons" }, element("button", { type: "submit" }, "Show scores and reasons")),
  );
  const note = element(
    "p",
    { class: "soft" },
    "A fan's scores over time, what each adds up from, and who was asked. It opens with this token, which needs the scope fanscore:read besides; the browser's Back comes here again.",
  );
  form.append(note);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(`fans#${encodeURIComponent(fan.value)}`); // behind the #, which no server and no log sees
  });
  section.append(form);
}
