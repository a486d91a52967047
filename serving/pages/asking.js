// Asks /graphql for one fan, and says in plain words what went wrong.
//
// Three operations in one request: each answers or fails by itself, so with the table away the ARM score still shows.

const OPERATIONS = {
  arm: `query FanArm($id: ID!) { fan(globalUserId: $id) { armScore { score ageSeconds modelVersion stale } } }`,
  fanscore: `query FanScore($id: ID!) {
    fan(globalUserId: $id) { accountFanscore { score rawScore boosts { arm event model } } }
  }`,
  history: `query FanHistory($id: ID!, $most: Int!) {
    fan(globalUserId: $id) {
      history(limit: $most) {
        occurredAt activityType accountScore armRisk bonScore modelVersion clusterId
        baseScore otherPoints reasons { code value points }
      }
    }
  }`,
};
const PATIENCE_MS = 15_000;

/** What the whole request failed with; `message` is for people. */
export class Refused extends Error {}

/**
 * Asks for a fan.
 *
 * @param most scores of the past at most, the newest.
 * @returns by operation `{value, problem, asked, degraded}`: a value that is null and no problem is an unknown fan;
 *   `asked` is null where the API does not tell this caller. Beside them `tookMs`, as this browser saw it.
 * @throws Refused: nothing was answered at all.
 */
export async function askForFan(id, token, most, signal) {
  const names = Object.keys(OPERATIONS);
  const body = names.map((name) => ({
    query: OPERATIONS[name],
    variables: name === "history" ? { id, most } : { id },
    extensions: { asked: true },
  }));
  const began = performance.now();
  const answer = await post(JSON.stringify(body), token, signal);
  const found = { tookMs: performance.now() - began };
  names.forEach((name, number) => (found[name] = read(name, answer[number])));
  return found;
}

async function post(body, token, signal) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
  let response;
  try {
    response = await fetch("graphql", {
      method: "POST",
      headers,
      body,
      signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (signal.aborted) throw error;
    if (error.name === "TimeoutError") throw new Refused("The server gave no answer in 15 seconds. Try again.");
    throw new Refused("The server cannot be reached. Is it running, and are you online?");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    answer = null;
  }
  if (Array.isArray(answer) && answer.length === Object.keys(OPERATIONS).length) return answer;
  const error = answer?.errors?.[0] ?? { errorType: String(response.status) };
  throw new Refused(inPlainWords(error, response.headers.get("x-correlation-id")));
}

const FIELDS = { arm: "armScore", fanscore: "accountFanscore", history: "history" };

function read(name, answer) {
  const errors = answer?.errors ?? [];
  return {
    value: answer?.data?.fan?.[FIELDS[name]] ?? null,
    problem: errors.length ? inPlainWords(errors[0]) : null,
    asked: answer?.extensions?.asked ?? null,
    degraded: answer?.extensions?.degraded ?? [],
  };
}

/** One error of the API for people: what it means here, and what to do. */
export function inPlainWords(error, requestId = null) {
  const message = typeof error?.message === "string" ? error.message : "";
  switch (String(error?.errorType)) {
    case "401":
      return "The token is not valid here, or has expired. Paste a new one.";
    case "403":
      return (
        "This token may not see this fan. A fan's own token shows that fan; " +
        "any fan is shown to a service whose token has the scope fanscore:read."
      );
    case "429":
      return "Too many requests for now. Wait a moment, then try again.";
    case "501":
      return `Not set up on this server: ${message}.`;
    case "503":
      return `Could not be looked up: ${message || "something is not available at the moment"}. This does not say that the fan is unknown.`;
    case "400":
      return `The server does not take this question: ${message}.`;
    case "404":
      return "There is no /graphql on this server.";
    default: {
      const where = requestId ? ` as request ${requestId}` : "";
      return `Something went wrong on the server (${message || `status ${error?.errorType}`}); its log says what${where}.`;
    }
  }
}
