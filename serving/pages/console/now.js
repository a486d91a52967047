// The section Now: the verdict, every worker's figures, and the plots of the past hour.

import { age, element, isNumber } from "../building.js";
import { button } from "./dialogs.js";
import { charts, seconds } from "./charts.js";
import { mean, sum } from "./history.js";
import { table } from "./table.js";
import { verdict } from "./verdict.js";
import { clock, rate, said, whole } from "./words.js";

const LEVELS = {
  ok: ["\u25cf", "Good"],
  idle: ["\u25cb", "Idle"],
  warn: ["\u25b2", "Look here"],
  bad: ["\u25a0", "Wrong"],
  unknown: ["?", "Not known"],
};
const WORST = ["unknown", "bad", "warn", "ok", "idle"];
const RANGES = [["5 minutes", 300_000], ["15 minutes", 900_000], ["1 hour", 3_600_000]];
const RATES_OF_WORKERS_MS = 60_000;
const ROWS_OF_TABLE = 120;

/** Fills the section; `update(history, letters, flags)` shows what is known now. */
export function nowSection(section) {
  const headline = element("p", { class: "headline", role: "status" });
  const findings = element("dl", { class: "findings" });
  const asOf = element("p", { class: "soft as-of" });
  const told = element("div", { class: "card verdict" }, headline, findings, asOf);
  const workers = element("div", {});
  const flow = charts("the flow");
  const range = element("select", { id: "range" }, ...RANGES.map(([name, value]) => element("option", { value }, name)));
  range.value = String(RANGES[1][1]);
  const numbers = element("details", {}, element("summary", {}, "The plots as a table"));
  let paused = false;
  const pause = button("Pause", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    if (!paused) plot();
  }, { quiet: true, small: true });
  pause.setAttribute("aria-pressed", "false");
  const choices = element("div", { class: "choices" }, element("label", { for: "range" }, "Last"), range, pause);
  section.append(
    told,
    card("Workers", workers),
    card("Flow", choices, flow.node, numbers),
  );
  let history = null;

  function plot() {
    if (history === null || paused) return;
    const moments = Math.max(history.within(Number(range.value)), 1);
    const times = history.times.slice(-moments);
    const panels = panelsOf(history).map((panel) => ({
      ...panel,
      lines: panel.lines.map((line) => ({ ...line, values: line.values.slice(-moments) })),
    }));
    flow.update(times, panels, history.stepMs);
    if (numbers.open) fillTable(times, panels);
  }

  function fillTable(times, panels) {
    const region = numbers.querySelector(".scrolling");
    if (region?.contains(document.activeElement) || region?.matches(":hover")) return; // nothing moves under who reads
    region?.remove();
    numbers.append(momentsTable(times, panels));
  }

  range.addEventListener("change", plot);
  numbers.addEventListener("toggle", plot);

  return {
    update(newHistory, letters, flags) {
      history = newHistory;
      const found = verdict(history, letters, flags);
      say(headline, found);
      findings.replaceChildren(
        ...listed("Where it waits", found.waits, "Nothing waits."),
        ...listed("What fails", found.fails, "Nothing failed in the last minute."),
        ...(found.off.length ? listed("Switched off", found.off, "") : []),
      );
      asOf.textContent = `As of ${clock(history.now)} UTC.`;
      if (!workers.contains(document.activeElement)) workers.replaceChildren(workersTable(history));
      plot();
    },
  };
}

function card(title, ...children) {
  const id = `card-${title.toLowerCase()}`;
  return element("section", { class: "card", "aria-labelledby": id }, element("h3", { id }, title), ...children);
}

// Told anew only where the words differ: a screen reader need not hear every rate, only that what holds has changed.
function say(node, { level, headline }) {
  const [sign, word] = LEVELS[level];
  if (node.dataset.level === level && node.dataset.kind === headline.split(":")[0]) {
    node.lastChild.textContent = headline;
    return;
  }
  node.dataset.level = level;
  node.dataset.kind = headline.split(":")[0];
  node.replaceChildren(signOf(level, sign, word), element("span", { class: "words" }, headline));
}

function signOf(level, sign, word) {
  return element("span", { class: `sign ${level}` }, element("span", { "aria-hidden": "true" }, sign), element("span", { class: "unseen" }, `${word}: `));
}

function listed(name, findings, nothing) {
  const lines = [...findings].sort((one, other) => WORST.indexOf(one.level) - WORST.indexOf(other.level)).map(({ level, text, href }) =>
    element("dd", { class: level }, signOf(level, ...LEVELS[level]), href ? element("a", { href }, said(text, 300)) : said(text, 300)),
  );
  return [element("dt", {}, name), ...(lines.length ? lines : [element("dd", { class: "soft" }, nothing)])];
}

function workersTable(history) {
  const names = [...new Set([...Object.keys(history.workers), ...history.processes.map((one) => one.worker)])].sort();
  if (!names.length) {
    return element(
      "p",
      { class: "soft" },
      "No worker has reported in the past day. Workers report where they are given an operations table: ",
      element("code", {}, "--store"), " or ", element("code", {}, "FAN_IDENTITY_OPERATIONS"), ".",
    );
  }
  const moments = history.within(RATES_OF_WORKERS_MS);
  const rows = names.map((name) => workerRow(history, name, moments));
  return element(
    "div",
    {},
    element("p", { class: "soft" }, "A second, over the last minute."),
    compact("Workers now", [
      { name: "worker" },
      { name: "in", number: true },
      { name: "done", number: true },
      { name: "rejected", number: true },
      { name: "dead letters", number: true },
      { name: "failed batches", number: true },
      { name: "reads" },
      { name: "processes" },
      { name: "version" },
    ], rows),
  );
}

function compact(...parts) {
  const made = table(...parts);
  made.classList.add("compact");
  return made;
}

function workerRow(history, name, moments) {
  const columns = history.workers[name] ?? {};
  const per = (series) => mean(columns[series], moments);
  const done = sumKnown([per("enqueued"), per("scored"), per("stored")]);
  const own = history.processes.filter((one) => one.worker === name);
  const alive = own.filter((one) => one.alive);
  const silent = own.filter((one) => !one.alive && !one.ended);
  const reads = [...new Set((alive.length ? alive : own).map((one) => one.reads).filter(Boolean))];
  const versions = [...new Set(alive.map((one) => one.version))];
  return {
    class: alive.length ? null : "asleep",
    cells: [
      element("strong", {}, said(name, 60)),
      rate(per("read")),
      rate(done),
      rate(per("rejected")),
      trouble(per("deadLettered")),
      trouble(per("failed")),
      reads.length ? said(reads.join(", "), 80) : "–",
      processesOf(alive, silent, own, history.now),
      versions.length ? said(versions.join(", "), 60) : "–",
    ],
  };
}

function sumKnown(values) {
  const known = values.filter(isNumber);
  return known.length ? known.reduce((total, one) => total + one, 0) : null;
}

function trouble(value) {
  return value > 0 ? element("strong", { class: "problem" }, rate(value)) : rate(value);
}

function processesOf(alive, silent, own, now) {
  const parts = [];
  if (alive.length) {
    const runners = [...new Set(alive.map((one) => one.runner).filter(Boolean))];
    parts.push(whole(alive.length), runners.length ? element("span", { class: "soft" }, " on ", said(runners.join(", "), 60)) : "");
  }
  if (silent.length) {
    const since = Math.max(...silent.map((one) => one.updatedAt));
    parts.push(element("span", { class: "problem" }, `${alive.length ? "; " : ""}${whole(silent.length)} silent for ${age((now - since) / 1_000)}`));
  }
  if (!parts.length) {
    const ended = Math.max(...own.map((one) => one.updatedAt));
    parts.push(Number.isFinite(ended) ? `none; the last ended ${age((now - ended) / 1_000)} ago` : "none");
  }
  return element("span", {}, ...parts);
}

// Always the same line style for the same name, also when another line comes or goes.
const STYLES = { enqueued: 1, scored: 0, stored: 3, rejected: 2, deadLettered: 1, returned: 3, failed: 4 };

function panelsOf(history) {
  const length = history.times.length;
  const workers = Object.entries(history.workers).filter(([name]) => !name.startsWith("staging"));
  const total = (series) => sum(workers.map(([, columns]) => columns[series]), length);
  const lines = (names, always) =>
    Object.entries(names)
      .map(([series, name]) => ({ name, values: total(series), style: STYLES[series], series }))
      .filter(({ values, series }) => always.includes(series) || values.some((value) => value > 0));
  const panels = [
    {
      title: "Flow",
      unit: "records a second",
      format: rate,
      lines: lines({ enqueued: "enqueued", scored: "scored", stored: "verifications stored", rejected: "rejected" }, ["enqueued", "scored"]),
    },
    {
      title: "Fails",
      unit: "a second",
      format: rate,
      lines: lines({ deadLettered: "dead letters", returned: "given back", failed: "failed batches" }, ["deadLettered", "failed"]),
    },
  ];
  const queues = Object.entries(history.queues)
    .filter(([name, { depth }]) => depth.some((value) => value > 0) || /(^|:)accountActivityQueue/.test(name))
    .map(([name, columns], number) => ({ name, columns, style: number }));
  const queueLines = (field, scale) => queues.map(({ name, columns, style }) => ({ name, style, values: columns[field].map((value) => (isNumber(value) ? value * scale : value)) }));
  if (queues.length) {
    panels.push({ title: "Waiting in queues", unit: "messages", format: rate, lines: queueLines("depth", 1) });
    panels.push({ title: "Oldest message waits", unit: "seconds", format: seconds, lines: queueLines("oldestMs", 0.001) });
  }
  const behind = Object.entries(history.lag).map(([worker, { records }], style) => ({ name: worker, values: records, style }));
  if (behind.length) panels.push({ title: "Behind the log", unit: "records", format: rate, lines: behind });
  return panels;
}

function momentsTable(times, panels) {
  const lines = panels.flatMap(({ title, unit, format, lines }) => lines.map((line) => ({ ...line, format, head: `${title}: ${line.name} (${unit})` })));
  const shown = Math.min(times.length, ROWS_OF_TABLE);
  const rows = Array.from({ length: shown }, (_, number) => {
    const place = times.length - 1 - number;
    return [clock(times[place]), ...lines.map(({ values, format }) => format(values[place]))];
  });
  const made = table("Flow, the newest moment first", [{ name: "time (UTC)" }, ...lines.map(({ head }) => ({ name: head, number: true }))], rows);
  made.classList.remove("stack");
  return element("div", { class: "scrolling", tabindex: "0", role: "region", "aria-label": "The plots as a table" }, made);
}
