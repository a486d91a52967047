// The operators' page: login, the sections behind the # of the address, and asking again every few seconds.

import { element } from "./building.js";
import { Problem, ask, session } from "./console/asking.js";
import { auditSection } from "./console/audit.js";
import { fansSection } from "./console/fans.js";
import { flagsSection } from "./console/flags.js";
import { FlowHistory } from "./console/history.js";
import { importsSection } from "./console/imports.js";
import { lettersSection } from "./console/letters.js";
import { nowSection } from "./console/now.js";
import { clock, said, whole } from "./console/words.js";

const LEAST_REST_MS = 400;
const REST_MS = 15_000; // summaries and flags, which change seldom
const RECOUNTED_MS = 6_000; // by then the server has counted what an action changed, where counting is cheap
const SECTIONS = ["now", "dead-letters", "flags", "imports", "fans", "audit"];
const byId = (id) => document.getElementById(id);
const [login, token, loginProblem, who, leave, nav, connection] = ["login", "token", "login-problem", "who", "leave", "sections", "connection"].map(byId);

let me = null;
let run = 0; // which login it is: what belongs to an earlier one is dropped
let views = null;
let history = new FlowHistory();
let summary = null;
let flags = null;
let answeredAt = null;
let restAt = 0;
let shown = null;

const tools = {
  mayAct: () => me?.mayAct === true,
  report(error) {
    if (!(error instanceof Problem)) throw error;
    if (error.kind === "login") leaveFor(error.message);
    return error.kind === "offline" ? `No answer: ${error.message}.` : error.message;
  },
  changed() {
    const mine = run;
    askRest(mine, true);
    setTimeout(() => askRest(mine, true), RECOUNTED_MS);
  },
};

async function enter() {
  const mine = ++run;
  loginProblem.textContent = "";
  try {
    me = await ask("me");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.kind === "login") session.forget();
    showLogin(error.kind === "forbidden" ? "This token is good, but not an operator's: it lacks the scope console:read." : messageOf(error));
    return;
  }
  if (mine !== run) return;
  history = new FlowHistory();
  [summary, flags, restAt] = [null, null, 0];
  views ??= makeViews();
  login.hidden = true;
  for (const one of [who, leave, nav]) one.hidden = false;
  who.replaceChildren(element("span", { class: "unseen" }, "Logged in as "), said(me.subject, 60), me.mayAct ? "" : ", to look only");
  route();
  keepAsking(mine);
}

function messageOf(error) {
  return error.kind === "offline" ? `No answer: ${error.message}.` : error.message;
}

function makeViews() {
  const section = (name) => byId(`section-${name}`);
  fansSection(section("fans"));
  return {
    now: nowSection(section("now")),
    letters: lettersSection(section("dead-letters"), tools),
    flags: flagsSection(section("flags"), tools),
    imports: importsSection(section("imports"), tools),
    audit: auditSection(section("audit"), tools),
  };
}

function showLogin(problem = "") {
  for (const name of SECTIONS) byId(`section-${name}`).hidden = true;
  for (const one of [who, leave, nav]) one.hidden = true;
  connection.replaceChildren();
  login.hidden = false;
  token.value = "";
  loginProblem.textContent = problem;
  token.focus();
}

function leaveFor(problem) {
  run++;
  me = null;
  session.forget();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  showLogin(problem);
}

function route() {
  if (me === null) return;
  const [, wanted = "", query = ""] = /^#?([^?]*)\??(.*)$/s.exec(location.hash);
  const name = SECTIONS.includes(wanted) ? wanted : "now";
  shown = name;
  for (const one of SECTIONS) byId(`section-${one}`).hidden = one !== name;
  for (const link of nav.querySelectorAll("a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`title-${name}`).textContent} · Operations · fan-identity`;
  if (name === "dead-letters") views.letters.open(new URLSearchParams(query));
  if (name === "imports" || name === "audit") views[name].open();
  if (name === "dead-letters" || name === "flags") askRest(run, true);
}

/** Asks for the flow as often as the server samples it while this login lasts; at once where the tab comes to the front again. */
async function keepAsking(mine) {
  while (mine === run) {
    const began = performance.now();
    if (!document.hidden) await askAll(mine);
    await rest(Math.max(LEAST_REST_MS, history.stepMs - (performance.now() - began)));
  }
}

let wake = () => {};

function rest(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

async function askAll(mine) {
  try {
    const answer = await ask("flow", { since: history.since });
    if (mine !== run) return;
    history.add(answer);
    answeredAt = Date.now();
    connected(null);
  } catch (error) {
    if (mine !== run) return;
    if (!(error instanceof Problem)) throw error;
    if (error.kind === "login") leaveFor(error.message);
    else connected(error);
    return;
  }
  await askRest(mine, false);
  if (mine === run && history.times.length) views.now.update(history, summary, flags);
}

async function askRest(mine, now) {
  if (mine !== run) return;
  if (!now && performance.now() < restAt) return;
  restAt = performance.now() + REST_MS;
  const [letters, switches] = await Promise.allSettled([ask("dead-letters/summary"), ask("flags")]);
  if (mine !== run) return;
  summary = letters.value ?? summary;
  flags = switches.value ?? flags;
  views.letters.update(letters.value ?? null, letters.reason);
  views.flags.update(switches.value ?? null, switches.reason);
  byId("letter-count").textContent = summary?.total ? whole(summary.total) : "";
  const off = (flags?.flags ?? []).filter((flag) => flag.known && !flag.enabled).length;
  byId("flag-count").textContent = off ? `${off} off` : "";
}

function connected(problem) {
  connection.classList.toggle("problem", problem !== null);
  if (problem === null) {
    connection.replaceChildren();
    return;
  }
  const since = answeredAt === null ? "" : ` What is shown is as of ${clock(answeredAt)} UTC.`;
  connection.textContent = `${messageOf(problem)}${since} Asked again every few seconds.`;
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  session.keep(token.value.trim());
  enter();
});
leave.addEventListener("click", () => leaveFor(""));
window.addEventListener("hashchange", () => {
  const before = shown;
  route();
  if (shown !== before) byId("main").focus(); // a new search in the same section leaves the focus where it is
});
window.addEventListener("online", () => wake());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) wake();
});

if (session.token) enter();
else showLogin();
