// The first minute of a sale day, in words: whether scores flow, where they wait, what fails, what is switched off.
//
// Everything here is said of the last minute, from what the servers know; what they do not know is said to be unknown.

import { age, isNumber } from "../building.js";
import { mean, newest, sum } from "./history.js";
import { counted, rate, span, whole } from "./words.js";

const SCORING = "scoreUsers";
const MINUTE_MS = 60_000;
const LATELY_MS = 20_000;
const LONG_MS = 60_000;
const VERY_LONG_MS = 300_000;
const FORGOTTEN_MS = 600_000;

/**
 * What there is to say.
 *
 * @param history a FlowHistory with at least one moment.
 * @param letters the answer of `dead-letters/summary`, or null while it is not known.
 * @param flags the answer of `flags`, or null.
 * @returns `{level, headline, waits, fails, off}`: level is ok, idle, warn, bad or unknown; the others are lists of
 *   `{level, text, href}`, empty where there is nothing to say.
 */
export function verdict(history, letters, flags) {
  const off = (flags?.flags ?? []).filter((flag) => flag.known && flag.enabled === false).map((flag) => flag.worker);
  const waits = [...queueFindings(history), ...lagFindings(history)];
  const fails = [...outageFindings(history), ...failureFindings(history), ...processFindings(history), ...letterFindings(letters)];
  return {
    ...headline(history, off),
    waits,
    fails,
    off: off.map((worker) => ({ level: "warn", text: `${worker} is switched off by its flag`, href: "#flags" })),
  };
}

function headline(history, off) {
  if (history.problems.some((problem) => problem.includes("reports"))) {
    return { level: "unknown", headline: `Whether scores flow cannot be said: ${history.problems[0]}.` };
  }
  const moments = history.within(MINUTE_MS);
  const own = history.processes.filter((one) => one.worker === SCORING);
  const alive = own.filter((one) => one.alive);
  const depth = waitingColumn(history, own);
  const waiting = newest(depth);
  const many = isNumber(waiting) ? counted(waiting, "message waits", "messages wait") : null;
  if (off.includes(SCORING)) {
    return { level: "bad", headline: `Scores do not flow: ${SCORING} is switched off by its flag${many && waiting ? `, and ${many}` : ""}.` };
  }
  if (!alive.length) {
    if (waiting) return { level: "bad", headline: `Scores do not flow: no ${SCORING} process runs, and ${many}.` };
    return { level: "warn", headline: `No ${SCORING} process runs${waiting === 0 ? "; nothing waits for one" : ""}.` };
  }
  const scored = mean(history.workers[SCORING]?.scored, moments);
  if (scored === null) return { level: "unknown", headline: `${SCORING} runs; its rate is known in some seconds.` };
  const lately = mean(history.workers[SCORING]?.scored, history.within(LATELY_MS));
  if (scored > 0 && lately === 0 && waiting) {
    return { level: "bad", headline: `Scores do not flow any more: none in the last ${span(LATELY_MS)}, while ${many}.` };
  }
  if (scored > 0) {
    const flows = `Scores flow: ${rate(scored)} a second over the last minute`;
    const growth = growthOf(depth, moments, history.stepMs);
    if (growth > 0 && growth > scored * 0.05 && waiting > scored * 10) {
      return { level: "warn", headline: `${flows}, and more comes than is scored: the queue grows by ${rate(growth)} a second.` };
    }
    const oldest = oldestOf(history, own);
    if (waiting && oldest >= LONG_MS) return { level: "warn", headline: `${flows}, but the oldest message has waited for ${span(oldest)}.` };
    return { level: "ok", headline: `${flows}.` };
  }
  if (waiting) return { level: "bad", headline: `Scores do not flow: none in the last minute, while ${many}.` };
  return { level: "idle", headline: waiting === 0 ? "Nothing to score: the queue is empty." : "Nothing was scored in the last minute." };
}

/** The queues that wait for scoring: those its processes read, else those of that name. */
function queuesOf(history, processes) {
  const read = new Set(processes.map((one) => one.reads));
  const all = Object.keys(history.queues);
  const known = all.filter((name) => read.has(name));
  return (known.length ? known : all.filter((name) => /(^|:)accountActivityQueue/.test(name))).map((name) => history.queues[name]);
}

function waitingColumn(history, processes) {
  return sum(queuesOf(history, processes).map(({ depth }) => depth), history.times.length);
}

function oldestOf(history, processes) {
  return Math.max(...queuesOf(history, processes).map(({ oldestMs }) => newest(oldestMs) ?? 0), 0);
}

/** By how much a column grew a second over its last moments; 0 where that is not known. */
function growthOf(column, moments, stepMs) {
  const known = column.slice(-moments).filter(isNumber);
  return known.length > 2 ? ((known.at(-1) - known[0]) * 1_000) / ((known.length - 1) * stepMs) : 0;
}

function queueFindings(history) {
  const moments = history.within(MINUTE_MS);
  const found = Object.entries(history.queues).flatMap(([name, { depth, oldestMs }]) => {
    const waiting = newest(depth);
    if (!waiting) return [];
    const oldest = newest(oldestMs);
    const growth = growthOf(depth, moments, history.stepMs);
    const level = oldest >= VERY_LONG_MS ? "bad" : oldest >= LONG_MS ? "warn" : "ok";
    const since = oldest === null ? "" : `, the oldest for ${oldest === VERY_LONG_MS ? `${span(oldest)} or more` : span(oldest)}`;
    const trend = Math.abs(growth) < 0.5 ? "" : growth > 0 ? `, growing by ${rate(growth)} a second` : `, falling by ${rate(-growth)} a second`;
    return [{ level, text: `${name}: ${whole(waiting)} waiting${since}${trend}`, weight: oldest ?? 0 }];
  });
  const silent = history.problems.filter((problem) => problem.startsWith("queue ")).map((text) => ({ level: "unknown", text, weight: Infinity }));
  return [...silent, ...found].sort((one, other) => other.weight - one.weight);
}

function lagFindings(history) {
  return Object.entries(history.lag).flatMap(([worker, { source, records }]) => {
    const behind = newest(records);
    return behind ? [{ level: "ok", text: `${worker}: ${counted(behind, "record")} behind ${source}` }] : [];
  });
}

function outageFindings(history) {
  return history.outages.map(({ part, since }) => ({ level: "bad", text: `${part} does not answer, since ${age((history.now - since) / 1_000)}` }));
}

function failureFindings(history) {
  const moments = history.within(MINUTE_MS);
  return Object.entries(history.workers).flatMap(([worker, columns]) => {
    const minute = (series) => (mean(columns[series], moments) ?? 0) * 60;
    const found = [];
    if (minute("failed") > 0) {
      found.push({ level: "bad", text: `${worker}: ${rate(minute("failed"))} batches failed in the last minute and are read again` });
    }
    if (minute("deadLettered") > 0) {
      found.push({ level: "bad", text: `${worker}: ${rate(minute("deadLettered"))} dead letters in the last minute`, href: `#dead-letters?${new URLSearchParams({ worker })}` });
    }
    if (minute("returned") > 0) {
      found.push({ level: "warn", text: `${worker}: ${rate(minute("returned"))} messages given back in the last minute, to be tried again` });
    }
    return found;
  });
}

function processFindings(history) {
  const silent = history.processes.filter((one) => !one.alive && !one.ended && history.now - one.updatedAt < FORGOTTEN_MS);
  const byWorker = Map.groupBy ? Map.groupBy(silent, (one) => one.worker) : grouped(silent);
  const found = [...byWorker].map(([worker, ones]) => {
    const since = Math.max(...ones.map((one) => one.updatedAt));
    const many = counted(ones.length, "process", "processes");
    return { level: "bad", text: `${worker}: ${many} fell silent, last heard of ${age((history.now - since) / 1_000)} ago` };
  });
  const versions = new Set(history.processes.filter((one) => one.alive).map((one) => one.version));
  if (versions.size > 1) found.push({ level: "warn", text: `Processes run ${versions.size} versions of the program side by side` });
  return found;
}

function grouped(ones) {
  const found = new Map();
  for (const one of ones) found.set(one.worker, [...(found.get(one.worker) ?? []), one]);
  return found;
}

function letterFindings(letters) {
  if (!letters?.total) return [];
  const [most] = [...letters.groups].sort((one, other) => other.count - one.count);
  const which = most ? `, most of ${most.worker}: ${most.reason}` : "";
  return [{ level: "warn", text: `${counted(letters.total, "dead letter waits", "dead letters wait")}${which}`, href: "#dead-letters" }];
}
