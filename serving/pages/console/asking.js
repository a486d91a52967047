// Asks the console's API with the token of this tab, and says in plain words what went wrong.

const TOKEN = "fan-identity-token"; // the fan page reads it too
const PATIENCE_MS = 15_000;

/** Why there is no answer. `kind`: login (the token is no good), forbidden, offline (no answer at all), refused. */
export class Problem extends Error {
  constructor(kind, message, status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

export const session = {
  get token() {
    return sessionStorage.getItem(TOKEN) ?? "";
  },
  keep(token) {
    sessionStorage.setItem(TOKEN, token);
  },
  forget() {
    sessionStorage.removeItem(TOKEN);
  },
};

/** GET of `path` below the API, with a query of what in `query` is neither empty nor null. */
export function ask(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return send("GET", text ? `${path}?${text}` : path);
}

/** POST: something is done, and stands in the audit log. */
export function act(path, body = {}) {
  return send("POST", path, JSON.stringify(body));
}

async function send(method, path, body) {
  if (!/^[\x21-\x7e]+$/.test(session.token)) {
    // No header can carry it; the browser's own words for that would help nobody.
    throw new Problem("login", "This is no token: it is empty, or has characters that tokens never have.");
  }
  const headers = { authorization: `Bearer ${session.token}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(`console/api/${path}`, {
      method,
      headers,
      body,
      signal: AbortSignal.timeout(PATIENCE_MS),
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    throw new Problem("offline", error.name === "TimeoutError" ? "no answer in 15 seconds" : "the server cannot be reached");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    answer = null;
  }
  if (response.ok && answer !== null) return answer;
  throw problemOf(response, answer?.errors?.[0]);
}

function problemOf(response, error) {
  const message = typeof error?.message === "string" ? error.message : "";
  const status = response.status;
  if (status === 401) return new Problem("login", "The token is not valid here, or has expired. Paste a new one.", status);
  if (status === 403) return new Problem("forbidden", `This token may not do that: ${message || "a scope is missing"}.`, status);
  if (status === 429) return new Problem("refused", "Too many requests for now. Wait a moment, then try again.", status);
  if (status >= 500 && status !== 501) {
    const where = response.headers.get("x-correlation-id");
    const log = where ? ` The server's log has more, as request ${where}.` : "";
    return new Problem("refused", `The server could not answer: ${message || `status ${status}`}.${log}`, status);
  }
  return new Problem("refused", `The server refused: ${message || `status ${status}`}.`, status);
}
