// Starts GraphiQL over /graphql with the token of the box above it.
"use strict";

const TOKEN = "fan-identity-token"; // the fan page's too
const FIRST_QUERY = `# Paste a token above (serve --development
# prints one), then press Ctrl-Enter.
#
# extensions.asked of the answer says who
# was asked for it, and how long each took.
query Fan($globalUserId: ID!) {
  fan(globalUserId: $globalUserId) {
    armScore {
      score
      ageSeconds
      stale
    }
    accountFanscore {
      score
      rawScore
    }
    history(limit: 3) {
      occurredAt
      accountScore
      reasons {
        code
        points
      }
    }
  }
}
`;

const token = document.getElementById("token");
token.value = sessionStorage.getItem(TOKEN) ?? "";
token.addEventListener("input", () => sessionStorage.setItem(TOKEN, token.value.trim()));

async function ask(operation, options) {
  const headers = { "content-type": "application/json", ...(options?.headers ?? {}) };
  if (token.value.trim()) headers.authorization = `Bearer ${token.value.trim()}`;
  const body = JSON.stringify({ ...operation, extensions: { asked: true } });
  const answer = await fetch("graphql", { method: "POST", headers, body, credentials: "omit", cache: "no-store" });
  return answer.json();
}

if (window.GraphiQL && window.React && window.ReactDOM) {
  const place = document.getElementById("graphiql");
  place.replaceChildren();
  ReactDOM.createRoot(place).render(
    React.createElement(GraphiQL, {
      fetcher: ask,
      defaultQuery: FIRST_QUERY,
      variables: '{\n  "globalUserId": "fan-00042"\n}',
      defaultEditorToolsVisibility: true,
      shouldPersistHeaders: false,
      storage: sessionStorage, // queries and variables name fans: they end with the tab
    }),
  );
}
