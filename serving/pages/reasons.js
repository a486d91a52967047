// Why one score is what it is: an average account's score, what each feature added, the sum.

import { element, figure, fixed, isNumber, signed } from "./building.js";

// The reasons of the embedded model, of imports and of identity checks by code: its feature, a sentence, how to write the
// value. As domain/scorecard.py has them: a test holds that both say the same.
const TEXTS = {
  ACTIVITY_VOLUME: ["activityCount", "activities on record: {}", "count"],
  ACTIVITY_RATE: ["activitiesPerMinute", "activities a minute while active, asset loads aside: {}", "number"],
  BURST_IN_LAST_MINUTE: ["lastMinuteCount", "activities in the last minute, asset loads aside: {}", "count"],
  BURST_IN_LAST_TEN_MINUTES: ["lastTenMinutesCount", "activities in the last ten minutes, asset loads aside: {}", "count"],
  REGULAR_INTERVALS: ["gapRegularity", "{} of pauses are of like length", "share"],
  FASTER_THAN_A_PERSON: ["fastGapShare", "{} of activities follow the one before within a second", "share"],
  SESSION_BREAKS: ["sessionBreakShare", "{} of pauses are longer than 30 minutes", "share"],
  ADDRESS_COUNT: ["distinctAddresses", "network addresses: {}", "count"],
  DEVICE_COUNT: ["distinctDevices", "devices: {}", "count"],
  EVENT_COUNT: ["distinctEvents", "events looked at: {}", "count"],
  FAILED_ATTEMPTS: ["failureShare", "{} of activities failed", "share"],
  LOGIN_SHARE: ["loginShare", "{} of activities are logins", "share"],
  SEARCH_SHARE: ["searchShare", "{} of activities are searches", "share"],
  PURCHASE_SHARE: ["purchaseShare", "{} of activities are steps of a purchase", "share"],
  ASSET_LOADS: ["assetShare", "{} of activities are images and scripts a browser loads by itself", "share"],
  ACTIVITY_VARIETY: ["typeVariety", "kinds of activity: {}", "count"],
  HOURS_OF_DAY: ["distinctHoursOfDay", "active in {} of the day's 24 hours", "count"],
  REPEATS_ITSELF: ["sameTypeRepeatShare", "{} of activities are of the same kind as the one before", "share"],
  NIGHT_ACTIVITY: ["nightShare", "{} of activities are between midnight and 6:00 UTC", "share"],
  BOT_OR_NOT_IMPORT: ["importedBonScore", "an import says: a bot with a probability of {}", "share"],
  CLUSTER_SIZE: ["clusterSize", "accounts in the same cluster: {}", "count"],
  IDENTITY_VERIFIED: ["daysSinceVerified", "days since the identity was verified: {}", "count"],
  IDENTITY_CHECK_FAILED: ["daysSinceFailedCheck", "days since a check of the identity failed: {}", "count"],
};

/** A reason in one sentence; one of another model by its code. */
export function sentence({ code, value }) {
  const known = Object.hasOwn(TEXTS, code) ? TEXTS[code] : null;
  if (known === null) return `${code} = ${isNumber(value) ? short(value) : "unknown"}`;
  const [feature, text, unit] = known;
  if (!isNumber(value)) return `not known yet: ${feature}`;
  return text.replace("{}", () => (unit === "share" ? `${short(value * 100)} %` : short(value, unit === "count")));
}

function short(value, whole = false) {
  const rounded = whole ? Math.round(value) : Number(value.toPrecision(3));
  return rounded.toLocaleString("en-US", { maximumFractionDigits: 20 }).replace("-", "\u2212");
}

/** A score's parts as a list of bars that adds up to it. */
export function reasonList(record) {
  const parts = record.reasons.map((reason) => ({ ...reason, text: sentence(reason) }));
  if (isNumber(record.otherPoints)) parts.push({ code: null, text: "everything else", points: record.otherPoints });
  const longest = Math.max(...parts.map((part) => Math.abs(part.points)), 0.01);
  const known = isNumber(record.baseScore);
  const list = element("ul", { class: "reasons" });
  if (known) list.append(row("an average account", figure(record.baseScore, fixed(record.baseScore, 2)), "edge"));
  for (const part of parts) list.append(partRow(part, longest));
  list.append(row("account score", figure(record.accountScore, fixed(record.accountScore, 2)), "edge total"));
  return element("div", {}, list, note(record, parts, known));
}

function row(text, number, kind) {
  return element("li", { class: kind }, element("span", { class: "what" }, text), element("span", { class: "points" }, number));
}

function partRow(part, longest) {
  const bar = element("span", { class: part.points < 0 ? "bar minus" : "bar plus" });
  bar.style.width = `${(Math.abs(part.points) / longest) * 50}%`;
  const what = element("span", { class: "what" }, part.text);
  if (part.code !== null) what.append(" ", element("code", {}, part.code));
  return element(
    "li",
    {},
    what,
    element("span", { class: "points" }, figure(part.points, signed(part.points))),
    element("span", { class: "track", "aria-hidden": "true" }, bar),
  );
}

function note(record, parts, known) {
  if (!known) {
    const text = record.reasons.length
      ? "The model said what weighed most, not what it started from: the points need not add up to the score."
      : "The model gave no reasons.";
    return element("p", { class: "soft" }, text);
  }
  // Points are whole hundredths; fractions of them are only how computers write decimals.
  const hundredths = (value) => Math.round(value * 100);
  const sum = parts.reduce((total, part) => total + hundredths(part.points), hundredths(record.baseScore));
  if (sum === hundredths(record.accountScore)) return null;
  return element("p", { class: "problem" }, `These parts add up to ${fixed(sum / 100, 2)}, which is not the score.`);
}
