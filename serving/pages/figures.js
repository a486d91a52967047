// The page's numbers: what is known of the fan now, every score as a table, and who was asked.

import { age, cut, element, figure, fixed, isNumber, moment, signed } from "./building.js";

/** What is known now: ARM, scores, cluster. */
export function tiles(found) {
  const newest = found.history.value?.[0] ?? null;
  return element(
    "dl",
    { class: "tiles" },
    armTile(found.arm),
    tile("Account score", ...ofNewest(found.history, newest?.accountScore, 2, "0 like a bot, 100 like a fan")),
    tile("Bot-or-not", ...ofNewest(found.history, newest?.bonScore, 4, "0 a fan, 1 a bot")),
    fanscoreTile(found.fanscore),
    clusterTile(found.history, newest),
  );
}

function tile(name, number, ...more) {
  return element("div", {}, element("dt", {}, name), element("dd", { class: "figure" }, number), ...more);
}

function soft(...children) {
  return element("dd", { class: "soft" }, ...children);
}

function failed(problem) {
  return ["?", element("dd", { class: "problem" }, problem)];
}

function ofNewest({ problem }, value, digits, meaning) {
  if (problem !== null) return failed(problem);
  if (!isNumber(value)) return ["–", soft("not said")];
  return [figure(value, fixed(value, digits)), soft(meaning)];
}

function armTile({ value, problem }) {
  if (problem !== null) return tile("Account risk (ARM)", ...failed(problem));
  if (value === null) return tile("Account risk (ARM)", "–", soft("no entry in the ARM cache"));
  const levels = element("span", { class: "levels", "aria-hidden": "true" });
  for (let level = 1; level <= 5; level++) levels.append(element("span", { class: level <= value.score ? "on" : "off" }));
  const number = element("span", {}, figure(value.score, String(value.score)), element("span", { class: "of" }, " of 5"), levels);
  const since = isNumber(value.ageSeconds) ? figure(value.ageSeconds, `${age(value.ageSeconds)} old`) : "of unknown age";
  const told = [soft("1 least, 5 most risky"), soft(since, " · model ", value.modelVersion === null ? "unknown" : cut(value.modelVersion, 60))];
  if (value.stale) told.push(element("dd", { class: "stale" }, "stale: from the table, the ARM cache is away"));
  return tile("Account risk (ARM)", number, ...told);
}

function fanscoreTile({ value, problem, degraded }) {
  const name = "Account fan score";
  if (problem !== null) return tile(name, ...failed(problem));
  if (value === null) return tile(name, "–", soft("no score to boost"));
  const boosts = ["arm", "event", "model"].flatMap((of) => [
    ", ",
    element("span", { class: "nowrap" }, of === "arm" ? "ARM" : of, " ", figure(value.boosts[of], signed(value.boosts[of]))),
  ]);
  const told = [soft("raw ", figure(value.rawScore, fixed(value.rawScore, 2)), ...boosts, "; kept within 0 and 100")];
  if (degraded.length) told.push(element("dd", { class: "stale" }, `away, so counted as 0: ${degraded.map((one) => cut(one, 60)).join(", ")}`));
  return tile(name, figure(value.score, fixed(value.score, 2)), ...told);
}

function clusterTile({ problem }, newest) {
  if (problem !== null) return tile("Cluster", ...failed(problem));
  if (newest?.clusterId == null) return tile("Cluster", "none", soft("not in a cluster at the newest score"));
  return tile("Cluster", element("bdi", { class: "name" }, cut(newest.clusterId, 80)), soft("at the newest score"));
}

/** Every score, the newest first. */
export function historyTable(history) {
  const names = ["time (UTC)", "activity", "score", "ARM", "bot-or-not", "cluster", "model", "strongest reasons"];
  const rows = history.map((record) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", class: "nowrap" }, moment(record.occurredAt)),
      element("td", {}, cut(record.activityType ?? "–", 60)),
      number(record.accountScore, 2),
      number(record.armRisk, 0),
      number(record.bonScore, 4),
      element("td", {}, cut(record.clusterId ?? "–", 60)),
      element("td", {}, cut(record.modelVersion ?? "–", 60)),
      element("td", {}, record.reasons.slice(0, 2).map((reason) => cut(reason.code, 60)).join(", ") || "–"),
    ),
  );
  return scrolling("All scores", table("All scores, the newest first", names, rows, [2, 3, 4]));
}

function number(value, digits) {
  return element("td", { class: "number" }, isNumber(value) ? figure(value, fixed(value, digits)) : "–");
}

function table(caption, names, rows, numbers = []) {
  const heads = names.map((name, place) => element("th", { scope: "col", role: "columnheader", class: numbers.includes(place) && "number" }, name));
  return element(
    "table",
    { role: "table" }, // said, because a table that is laid out anew for a phone is else no table any more
    element("caption", { class: "unseen" }, caption),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)),
    rows.length ? element("tbody", {}, ...rows) : null,
  );
}

function scrolling(name, inner) {
  return element("div", { class: "scrolling", tabindex: "0", role: "region", "aria-label": name }, inner);
}

const OUTCOMES = { ok: "answered", skipped: "not needed", unavailable: "away", error: "refused" };
const QUESTIONS = { arm: "account risk (ARM)", fanscore: "account fan score", history: "scores over time" };

/** Who was asked what, and how long it took. */
export function askedTable(found) {
  const asked = Object.keys(QUESTIONS).flatMap((name) =>
    (found[name].asked ?? []).map((one) => ({ ...one, question: QUESTIONS[name] })),
  );
  if (!asked.length) {
    return element("p", { class: "soft" }, "The API tells this to services, not to fans.");
  }
  const longest = Math.max(...asked.map((one) => one.ms), 0.001);
  const made = table("Who was asked", ["function", "asked", "outcome", "ms", "time"], [], [3]);
  made.classList.add("asked");
  made.tHead.rows[0].lastChild.setAttribute("aria-hidden", "true");
  for (const question of new Set(asked.map((one) => one.question))) {
    const rows = asked.filter((one) => one.question === question).map((one) => askedRow(one, longest));
    const head = element("th", { scope: "rowgroup", colspan: 5, role: "rowheader" }, `for the ${question}`);
    made.append(element("tbody", { role: "rowgroup" }, element("tr", { class: "group", role: "row" }, head), ...rows));
  }
  return scrolling("Who was asked", made);
}

function askedRow(one, longest) {
  const bar = element("span", { class: "bar" });
  bar.style.width = `${(one.ms / longest) * 100}%`;
  const known = Object.hasOwn(OUTCOMES, one.outcome);
  return element(
    "tr",
    { role: "row" },
    element("td", { role: "cell" }, element("code", {}, one.function)),
    element("td", { role: "cell", class: "soft" }, one.source === "none" ? "nobody, it computes" : element("code", {}, one.source)),
    element("td", { role: "cell", class: `outcome ${known ? one.outcome : ""}` }, known ? OUTCOMES[one.outcome] : one.outcome),
    element("td", { role: "cell", class: "number" }, figure(one.ms, one.ms.toFixed(2))),
    element("td", { class: "time", "aria-hidden": "true" }, bar),
  );
}
