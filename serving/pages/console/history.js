// What the flow was over the past hour, put together from the answers that came every few seconds.

import { isNumber } from "../building.js";

const MOST = 720;
export const SERIES = ["read", "enqueued", "deduplicated", "scored", "stored", "rejected", "deadLettered", "returned", "failed"];

/** Columns of numbers (null for a gap) over `times`, and what else the newest answer said. */
export class FlowHistory {
  constructor() {
    this.times = [];
    this.workers = {}; // by name and series
    this.queues = {}; // by name: depth, oldestMs
    this.lag = {}; // by worker: source, records
    this.processes = [];
    this.problems = [];
    this.outages = []; // of parts, as checkLiveness knows them
    this.now = 0;
    this.stepMs = 5_000;
  }

  get since() {
    return this.times.at(-1) ?? 0;
  }

  /** Adds an answer of `GET flow`. */
  add(answer) {
    const before = this.times.length;
    this.times.push(...answer.times);
    const added = answer.times.length;
    for (const [kind, names] of [["workers", SERIES], ["queues", ["depth", "oldestMs"]], ["lag", ["records"]]]) {
      for (const [name, columns] of Object.entries(answer[kind])) {
        const own = (this[kind][name] ??= Object.fromEntries(names.map((one) => [one, Array(before).fill(null)])));
        if (columns.source) own.source = columns.source;
        for (const one of names) own[one].push(...(columns[one] ?? Array(added).fill(null)));
      }
    }
    this.#level();
    Object.assign(this, { processes: answer.processes, problems: answer.problems ?? [], outages: answer.outages ?? [], now: answer.now, stepMs: answer.stepMs });
  }

  /** Every column as long as the times, and none longer than an hour. */
  #level() {
    const length = this.times.length;
    const cut = Math.max(0, length - MOST);
    if (cut) this.times.splice(0, cut);
    for (const kind of [this.workers, this.queues, this.lag]) {
      for (const columns of Object.values(kind)) {
        for (const column of Object.values(columns)) {
          if (!Array.isArray(column)) continue;
          while (column.length < length) column.push(null);
          if (cut) column.splice(0, cut);
        }
      }
    }
  }

  /** How many of the newest moments lie within so many milliseconds. */
  within(milliseconds) {
    const first = this.times.findIndex((time) => time > this.since - milliseconds);
    return first < 0 ? 0 : this.times.length - first;
  }
}

/** The last number of a column that is one, not further back than `reach` moments; null where there is none. */
export function newest(column, reach = 3) {
  for (let place = (column?.length ?? 0) - 1; place >= 0 && reach-- > 0; place--) {
    if (isNumber(column[place])) return column[place];
  }
  return null;
}

/** The mean of the last `moments` of a column, gaps left out; null where all are gaps. */
export function mean(column, moments) {
  const known = (column ?? []).slice(-moments).filter(isNumber);
  return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
}

/** Columns added up moment by moment; a gap where all of them have one. */
export function sum(columns, length) {
  return Array.from({ length }, (_, place) => {
    const known = columns.map((column) => column[place]).filter(isNumber);
    return known.length ? known.reduce((total, one) => total + one, 0) : null;
  });
}
