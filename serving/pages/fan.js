// The fan page: whom to ask about stands behind the # of the address, which no server sees; the token in this tab.

import { Refused, askForFan } from "./asking.js";
import { cut, element, moment } from "./building.js";
import { askedTable, historyTable, tiles } from "./figures.js";
import { scorePlot } from "./plot.js";
import { reasonList } from "./reasons.js";

const TOKEN = "fan-identity-token"; // GraphiQL's page reads it too
// Scores asked for: few at first, since writing 200 with their reasons keeps the server busy for a while; then all it shows.
const FEW = 100;
const MOST = 200;
const byId = (id) => document.getElementById(id);
const [form, fan, token, main, status, problems, shown] = ["ask", "fan", "token", "main", "status", "problems", "shown"].map(byId);
let asking = new AbortController();
let wanted = ""; // the id: an input leaves out line breaks, which an id may have

function idOfAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1); // a lone %: taken as it is
  }
}

async function show(most = FEW) {
  asking.abort();
  const mine = (asking = new AbortController());
  const id = wanted;
  const secret = token.value.trim();
  problems.replaceChildren();
  shown.replaceChildren();
  if (!id.trim() || !secret) {
    status.textContent = "Give a fan's id and a token.";
    return;
  }
  if (!/^[\x21-\x7e]+$/.test(secret)) {
    // No header can carry it; the browser's own words for that would help nobody.
    status.textContent = "";
    tell(["This is no token: it has characters that tokens never have."]);
    return;
  }
  status.textContent = "Asking …";
  main.setAttribute("aria-busy", "true");
  try {
    const found = await askForFan(id, secret, most, mine.signal);
    status.textContent = "";
    present(id, found, most);
  } catch (error) {
    if (mine.signal.aborted) return; // asked anew meanwhile
    status.textContent = "";
    if (!(error instanceof Refused)) throw error;
    tell([error.message]);
  } finally {
    if (asking === mine) main.setAttribute("aria-busy", "false");
  }
}

function tell(messages) {
  problems.replaceChildren(...messages.map((message) => element("p", { class: "problem" }, message)));
}

function present(id, found, most) {
  const answers = [found.arm, found.fanscore, found.history];
  const failures = new Set(answers.flatMap(({ problem }) => problem ?? []));
  if (answers.every(({ problem }) => problem !== null)) {
    tell([...failures]);
    return;
  }
  const nothing = !failures.size && !found.history.value?.length && found.arm.value === null && found.fanscore.value === null;
  if (nothing) {
    shown.append(
      element("h2", {}, "Unknown fan"),
      element("p", {}, "Nobody has scored a fan with the id ", element("bdi", { class: "id" }, cut(id)), "."),
      element("p", { class: "soft" }, "Ids are compared as they stand: check upper and lower case, and spaces."),
    );
    shown.append(asked(found));
    status.textContent = "Unknown fan.";
    return;
  }
  shown.append(element("h2", {}, "Fan ", element("bdi", { class: "id" }, cut(id))), tiles(found), ...scores(found.history, most), asked(found));
  const count = found.history.value?.length ?? 0;
  status.textContent = `Shown: ${count} ${count === 1 ? "score" : "scores"}.`;
}

function scores({ value, problem }, most) {
  if (problem !== null) return [card("Scores over time", element("p", { class: "problem" }, problem))];
  if (!value?.length) return [card("Scores over time", element("p", {}, "No scores are stored for this fan."))];
  const placed = value
    .map((record) => ({ ...record, time: Date.parse(record.occurredAt) }))
    .filter((record) => Number.isFinite(record.time))
    .sort((one, other) => one.time - other.time); // stable: the API's order, turned round, within one millisecond
  const why = element("div", { class: "why" });
  const explain = (record) => {
    const which = record === newest ? "the newest score" : "the score you chose";
    const activity = cut(record.activityType ?? "unknown activity", 60);
    why.replaceChildren(
      element("p", { class: "soft" }, `Of ${which}: ${moment(record.occurredAt)} UTC, after `, element("bdi", {}, activity), "."),
      reasonList(record),
    );
  };
  const newest = placed.at(-1) ?? value[0];
  explain(newest);
  const plotted = placed.length
    ? [element("p", { class: "soft" }, "Choose a score with the mouse, or with Tab and the arrow keys, to see its reasons."), scorePlot(placed, explain)]
    : [element("p", { class: "soft" }, "None of the scores has a time to plot.")];
  const many = value.length >= most ? `the newest ${value.length}` : String(value.length);
  if (value.length >= most && most < MOST) {
    const more = element("button", { type: "button", class: "quiet" }, `Show up to ${MOST}`);
    more.addEventListener("click", () => show(MOST));
    plotted.push(element("p", {}, `These are the newest ${value.length}. `, more));
  }
  const details = element("details", {}, element("summary", {}, `As a table (${many})`), historyTable(value));
  return [card("Scores over time", ...plotted, details), card("Why this score", why)];
}

function asked(found) {
  const took = `The whole request took ${found.tookMs.toFixed(0)} ms as this browser saw it. What does not depend on one another is asked side by side.`;
  return card("What was asked for this page", element("p", { class: "soft" }, took), askedTable(found));
}

function card(title, ...children) {
  const id = `card-${title.toLowerCase().replaceAll(" ", "-")}`;
  return element("section", { class: "card", "aria-labelledby": id }, element("h3", { id }, title), ...children);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, token.value.trim());
  const address = `#${encodeURIComponent(wanted)}`;
  if (location.hash === address) show();
  else location.hash = address; // hashchange shows it
});
byId("forget").addEventListener("click", () => {
  asking.abort();
  sessionStorage.removeItem(TOKEN);
  token.value = "";
  problems.replaceChildren();
  shown.replaceChildren();
  main.setAttribute("aria-busy", "false");
  status.textContent = "The token is forgotten.";
  token.focus();
});
fan.addEventListener("input", () => (wanted = fan.value));
window.addEventListener("hashchange", () => {
  fan.value = wanted = idOfAddress();
  show();
});

fan.value = wanted = idOfAddress();
token.value = sessionStorage.getItem(TOKEN) ?? "";
if (wanted && token.value) show();
