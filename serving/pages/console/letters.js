// The section of dead letters: what there is by worker and reason, a search, and sending letters again.

import { element } from "../building.js";
import { follow, outcomePlace } from "./actions.js";
import { Problem, ask } from "./asking.js";
import { button, confirmed, renew } from "./dialogs.js";
import { openLetter } from "./letter.js";
import { bar, facts, table } from "./table.js";
import { code, counted, moment, said, when, whole } from "./words.js";

const PAGE = 50;
const MOST_NAMED = 100; // the API takes no more at a time
const FIELDS = ["state", "worker", "reason", "activity", "from", "to"];
const STATES = { waiting: "waiting", redriven: "sent again", all: "all" };

/** Fills the section; `open(query)` shows what is looked for, `update(summary, error)` the numbers by reason. */
export function lettersSection(section, { mayAct, report, changed }) {
  const title = section.querySelector("h2");
  const groups = element("div", {});
  const form = searchForm();
  const status = element("p", { class: "soft", role: "status" });
  const outcome = outcomePlace();
  const list = element("div", {});
  const selectedButton = button("Redrive selected", () => redriveSelected(), { small: true });
  const allButton = button("Redrive all that match", () => redriveAll(), { small: true, quiet: true });
  const shownButton = button("Select all shown", () => selectShown(), { small: true, quiet: true });
  const tools = element("div", { class: "tools" }, shownButton, selectedButton, allButton);
  section.append(
    card("By worker and reason", groups),
    card("Search", form, status, outcome.node, tools, list),
  );
  let summary = null;
  let looked = { state: "waiting" };
  let letters = [];
  let next = null;
  let selected = new Set();

  async function search({ more = false } = {}) {
    status.textContent = "Asking …";
    try {
      const found = await ask("dead-letters", { ...looked, limit: PAGE, after: more ? next : null });
      letters = more ? [...letters, ...found.letters] : found.letters;
      next = found.next;
      if (!more) selected = new Set();
      status.textContent = "";
      show();
    } catch (error) {
      status.textContent = "";
      list.replaceChildren(element("p", { class: "problem" }, report(error)));
    }
  }

  function show() {
    const end = next === null ? "" : " so far";
    status.textContent = letters.length ? `${counted(letters.length, "letter")}${end}, the newest first.` : "";
    if (letters.length) {
      list.replaceChildren(lettersTable());
    } else {
      list.replaceChildren(element("p", {}, looked.state === "waiting" && Object.keys(looked).length === 1 ? "No dead letter waits." : "No dead letter matches."));
    }
    if (next !== null) list.append(button("Show more", () => search({ more: true }), { quiet: true }));
    tool();
  }

  function tool() {
    const waiting = looked.state !== "redriven" && letters.some((letter) => !letter.redrivenAt);
    tools.hidden = !mayAct() || !waiting;
    selectedButton.textContent = `Redrive selected (${selected.size})`;
    selectedButton.disabled = !selected.size || selected.size > MOST_NAMED;
    const { state, ...filter } = looked;
    const number = isPlain(filter) && summary?.asOf ? ` (${whole(numberOf(summary.groups, filter))})` : "";
    allButton.textContent = `Redrive all that match${number}`;
    allButton.disabled = state !== "waiting";
  }

  function selectShown() {
    const waiting = letters.filter((letter) => !letter.redrivenAt).slice(0, MOST_NAMED);
    const all = waiting.every(({ id }) => selected.has(id));
    selected = new Set(all ? [] : waiting.map(({ id }) => id));
    for (const box of list.querySelectorAll("input[type=checkbox]")) box.checked = selected.has(box.value);
    tool();
  }

  function lettersTable() {
    const columns = [
      { name: "written (UTC)" },
      { name: "worker" },
      { name: "reason" },
      { name: "error" },
      { name: "attempts", number: true },
      { name: "look", hidden: true },
    ];
    const rows = letters.map((letter) => {
      const look = button("Look", () => openLetter(letter, { mayAct, report, redrive: redriveOne, back: title }), {
        quiet: true, small: true, label: `Look at the letter ${nameOf(letter)}`,
      });
      const written = mayAct() ? element("label", { class: "choice" }, choice(letter), when(letter.writtenAt)) : when(letter.writtenAt);
      return {
        class: letter.redrivenAt ? "asleep" : null,
        cells: [written, said(letter.worker, 60), code(letter.reason, 60), said(letter.error, 160), whole(letter.attempts), look],
      };
    });
    return table("Dead letters, the newest first", columns, rows);
  }

  function choice(letter) {
    const box = element("input", { type: "checkbox", value: letter.id, "aria-label": `Select the letter ${nameOf(letter)}` });
    box.checked = selected.has(letter.id);
    box.disabled = Boolean(letter.redrivenAt);
    box.addEventListener("change", () => {
      if (box.checked) selected.add(letter.id);
      else selected.delete(letter.id);
      tool();
    });
    return box;
  }

  async function redriveSelected() {
    await redrive(selected.size, { ids: [...selected] }, [element("p", {}, "Those selected, whatever their worker and reason.")]);
  }

  /** Of the dialog that shows one letter. */
  async function redriveOne(letter) {
    await redrive(1, { ids: [letter.id] }, [facts([["worker", said(letter.worker)], ["reason", code(letter.reason)]])]);
  }

  async function redriveAll() {
    const { state, ...filter } = looked;
    let found;
    try {
      found = await countOf(filter);
    } catch (error) {
      outcome.tell("bad", report(error));
      return;
    }
    const { number, to } = found;
    if (number === null) {
      outcome.tell("warn", "Counting what matches a search with an activity or times takes too long here: search by worker and reason alone, or use the command line.");
      return;
    }
    if (!number) {
      outcome.tell("warn", "No letter that waits matches any more.");
      return;
    }
    const which = [...Object.entries(filter).filter(([name]) => name !== "to").map(([name, value]) => [name, said(value)]), ["written before", when(to)]];
    await redrive(number, { filter: { state, ...filter, to }, expected: number }, [facts(which)]);
  }

  /** How many match, and until when those were written: letters that come later are of another number. */
  async function countOf(filter) {
    const { count, to } = await ask("dead-letters/count", { state: "waiting", ...filter });
    if (count !== null || !isPlain(filter)) return { number: count, to };
    const summed = await ask("dead-letters/summary"); // counted in the background, where counting takes long
    if (!summed.asOf) throw new Problem("refused", "The letters are still being counted: try again in a moment.");
    return { number: numberOf(summed.groups, filter), to: new Date(summed.asOf).toISOString() };
  }

  async function redrive(number, body, which) {
    const many = counted(number, "dead letter");
    const what = "Each goes back to where its worker reads, and is processed as if it came anew. One that fails again comes back as the same letter, with one attempt more.";
    if (!(await confirmed(`Redrive ${many}?`, [...which, element("p", {}, what)], `Redrive ${many}`, { back: title }))) return;
    await follow(outcome, "dead-letters/redrive", body, `Sending ${many} again …`, ended);
    changed();
    await search();
    outcome.hold();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const query = new URLSearchParams(Object.entries(form.value()));
    location.hash = `#dead-letters${query.size ? `?${query}` : ""}`;
    if (new URLSearchParams(Object.entries(looked)).toString() === new URLSearchParams(Object.entries({ state: "waiting", ...form.value() })).toString()) search();
  });

  return {
    async open(query) {
      looked = { state: "waiting", ...Object.fromEntries([...query].filter(([name, value]) => FIELDS.includes(name) && value)) };
      form.fill(looked);
      await search();
    },
    update(found, error) {
      summary = found ?? summary;
      if (error && summary === null) renew(groups, element("p", { class: "problem" }, report(error)));
      else if (summary !== null) renew(groups, groupsTable(summary));
      tool();
      if (summary !== null) form.workers([...new Set(summary.groups.map(({ worker }) => worker))]);
    },
  };
}

function nameOf({ worker, reason, writtenAt }) {
  return `of ${worker}, ${reason}, written ${moment(writtenAt)}`;
}

/** Whether the numbers by worker and reason say how many letters match. */
function isPlain(filter) {
  return Object.keys(filter).every((name) => name === "worker" || name === "reason");
}

function numberOf(groups, filter) {
  return groups
    .filter(({ worker, reason }) => [undefined, worker].includes(filter.worker) && [undefined, reason].includes(filter.reason))
    .reduce((total, { count }) => total + count, 0);
}

function ended({ summary }) {
  const numbers = summary !== null && typeof summary === "object" ? summary : {};
  const parts = [["queued", "sent again"], ["rejected", "readable now but not scorable, so done with"], ["failed", "failed again and wait"], ["of_imports", "of imports, which come again with their file"]]
    .filter(([name]) => numbers[name] > 0)
    .map(([name, words]) => `${whole(numbers[name])} ${words}`);
  if (numbers.problem) return ["It ended early: ", said(numbers.problem, 300)];
  return [parts.length ? `${parts.join(", ")}.` : "Done. Nothing was left to send."];
}

function groupsTable({ total, groups, asOf }) {
  const asOfText = element("p", { class: "soft" }, ...(asOf ? [`${counted(total, "letter waits", "letters wait")}; counted `, when(asOf), "."] : ["Being counted …"]));
  if (!asOf) return asOfText;
  if (!groups.length) return element("div", {}, element("p", {}, "No dead letter waits."), asOfText);
  const most = Math.max(...groups.map(({ count }) => count));
  const rows = groups.map(({ worker, reason, count }) => {
    const query = new URLSearchParams({ worker, reason });
    return [
      said(worker, 60),
      element("a", { href: `#dead-letters?${query}`, "data-key": query }, said(reason, 60)),
      whole(count),
      bar(count / most),
    ];
  });
  const columns = [{ name: "worker" }, { name: "reason" }, { name: "letters", number: true }, { name: "share", hidden: true }];
  return element("div", {}, asOfText, table("Dead letters by worker and reason", columns, rows));
}

function searchForm() {
  const state = element("select", { id: "letter-state" }, ...Object.entries(STATES).map(([value, name]) => element("option", { value }, name)));
  const workers = element("datalist", { id: "letter-workers" });
  const worker = element("input", { id: "letter-worker", autocomplete: "off", spellcheck: "false", list: "letter-workers" });
  const reason = element("input", { id: "letter-reason", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  const activity = element("input", { id: "letter-activity", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  const from = element("input", { id: "letter-from", type: "datetime-local", step: "1" });
  const to = element("input", { id: "letter-to", type: "datetime-local", step: "1" });
  const form = element(
    "form",
    { role: "search", class: "search" },
    field("State", state), field("Worker", worker), field("Reason", reason), field("Activity", activity, "(activityId)"),
    field("From", from, "(UTC)"), field("To", to, "(UTC)"),
    element("div", { class: "buttons" }, element("button", { type: "submit" }, "Search")),
    workers,
  );
  const inputs = { state, worker, reason, activity, from, to };
  form.value = () =>
    Object.fromEntries(
      Object.entries(inputs)
        .map(([name, { value }]) => [name, name === "from" || name === "to" ? (value ? `${value.length === 16 ? `${value}:00` : value}Z` : "") : value.trim()])
        .filter(([name, value]) => value && !(name === "state" && value === "waiting")),
    );
  form.fill = (query) => {
    for (const [name, input] of Object.entries(inputs)) {
      const given = query[name] ?? "";
      input.value = input.type === "datetime-local" ? given.replace(/Z$/, "") : given;
    }
    if (!state.value) state.value = "waiting";
  };
  form.workers = (names) => workers.replaceChildren(...names.map((value) => element("option", { value })));
  return form;
}

function field(name, input, more = "") {
  return element("div", { class: "field" }, element("label", { for: input.id }, name, more ? element("span", { class: "soft" }, ` ${more}`) : null), input);
}

function card(title, ...children) {
  const id = `card-${title.toLowerCase().replaceAll(" ", "-")}`;
  return element("section", { class: "card", "aria-labelledby": id }, element("h3", { id }, title), ...children);
}

