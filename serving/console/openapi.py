"""The console's API for the OpenAPI document: what there is, what it takes, and who may."""

from collections.abc import Mapping
from typing import Any, Final

from .guard import PREFIX

_READ: Final = "Scope console:read. "
_ACT: Final = "Scopes console:read and console:act; it stands in the audit log. "
_ERRORS: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/Errors"}}}
_TOLD: Final = {
    400: "A parameter is unknown, missing or not what it should be.",
    401: "No valid token or API key.",
    403: "A scope is missing.",
    404: "There is no such thing.",
    409: "What was seen is not what is there now, or one of its kind runs.",
    415: "The body is not sent as application/json.",
    429: "Too many requests; Retry-After says when to ask again.",
    501: "It is not set up here.",
    503: "A part is out of reach.",
}
_OF_PATHS: Final = {
    "id": "of a dead letter, 32 hexadecimal digits",
    "kind": "cluster or botOrNot",
    "version": "as imports are listed",
    "worker": "a worker's name",
    "job": "as an action answered it",
}
_SEARCH: Final = {
    "state": "waiting (the default), redriven or all",
    "worker": "a worker's name",
    "reason": "a short code",
    "activity": "an activity's id",
    "from": "first written then or later: ISO 8601 or epoch milliseconds",
    "to": "first written before",
}
_LETTERS: Final = {
    **_SEARCH,
    "after": "`next` of the page before",
    "limit": "1 to 200",
}


def console_paths() -> dict[str, Any]:
    """The paths of the console's API."""
    return {
        PREFIX + path: _with_names(path, operation)
        for path, operation in {
            "/me": _get("Who asks", "`{subject, mayAct}`."),
            "/flow": _get("How records flow", "Rates, queues, lag and processes.", since="epoch milliseconds"),
            "/dead-letters/summary": _get("How many dead letters wait", "`{asOf, total, groups}`."),
            "/dead-letters": _get("A page of dead letters", "`{letters, next}`, without payloads.", **_LETTERS),
            "/dead-letters/count": _get(
                "How many dead letters match", "`{count, to}`: until when they were written.", **_SEARCH
            ),
            "/dead-letters/{id}": _get("A dead letter", "Also its stack and history.", 404),
            "/dead-letters/{id}/reveal": _post("A dead letter's payload", "`{payload, encoding}`.", 404),
            "/dead-letters/redrive": _post(
                "Send dead letters again", "`{ids}`, or `{filter, expected}`; answers `{job}`.", 409
            ),
            "/imports": _get("The newest imports", "`{imports}`."),
            "/imports/{kind}/{version}": _get("What an import changed", "The comparison, without fans.", 404),
            "/imports/{kind}/rollback": _post("Take the active import back", "`{active}`; answers `{job}`.", 409),
            "/flags": _get("Flags of workers", "`{server, canToggle, flags}`."),
            "/flags/{worker}": _post("Switch a worker's flag", "`{enabled}`.", 404, 501),
            "/jobs": _get("The newest jobs", "`{jobs}`."),
            "/jobs/{job}": _get("A job", "`{state, exitCode, summary, startedAt, endedAt}`.", 404),
            "/audit": _get(
                "The audit log, newest line first",
                "`{lines, next, verified, unkeyed, head}`.",
                after=_LETTERS["after"],
                limit=_LETTERS["limit"],
            ),
        }.items()
    }


def _with_names(path: str, operations: dict[str, Any]) -> dict[str, Any]:
    """Operations with the parameters that their path names."""
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": _OF_PATHS[name]}
        for name in names
    ]
    return {method: {**told, "parameters": [*parameters, *told["parameters"]]} for method, told in operations.items()}


def _get(summary: str, description: str, *statuses: int, **query: str) -> dict[str, Any]:
    parameters: list[Mapping[str, Any]] = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": told}
        for name, told in query.items()
    ]
    return {"get": _operation(summary, _READ + description, (400, 401, 403, *statuses, 429, 503), parameters)}


def _post(summary: str, description: str, *statuses: int) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    operation = _operation(summary, _ACT + description, (400, 401, 403, *sorted({*statuses, 415}), 429, 503), [])
    return {"post": {**operation, "requestBody": body}}


def _operation(
    summary: str, description: str, statuses: tuple[int, ...], parameters: list[Mapping[str, Any]]
) -> dict[str, Any]:
    refused = {str(status): {"description": _TOLD[status], "content": _ERRORS} for status in statuses}
    return {
        "summary": summary,
        "description": description,
        "tags": ["console"],
        "parameters": parameters,
        "responses": {"200": {"description": "The answer."}, **refused},
    }
