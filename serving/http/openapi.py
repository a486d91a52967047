"""What the HTTP endpoints take and answer, as OpenAPI 3.1, and the same as a page for people."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any, Final

from ... import __version__
from .arm_endpoint import MOST_FANS

_ERRORS: Final = {"$ref": "#/components/schemas/Errors"}
_DETAIL: Final = {
    "name": "detail",
    "in": "query",
    "required": False,
    "schema": {"type": "boolean", "default": False},
    "description": "Also the score's age, the model's version, and always `stale`.",
}


def _answer(description: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {"description": description, **content}


def _errors(*statuses: int) -> dict[str, Any]:
    told = {
        400: "The request cannot be read.",
        401: "No valid token or API key.",
        403: "Another fan's score, and no service.",
        413: "The body is too large.",
        415: "The body is not sent as application/json.",
        429: "The API key's rate limit is used up; Retry-After says when to ask again.",
        503: "The score could not be looked up. Never said of an unknown fan.",
    }
    return {str(status): _answer(told[status], _ERRORS) for status in statuses}


def openapi(graphql: bool, console: bool = False) -> dict[str, Any]:
    """The document.

    Args:
        graphql: whether ``/graphql`` is served.
        console: whether the operators' console is.
    """
    paths: dict[str, Any] = {
        "/arm/{globalUserId}": {
            "get": {
                "summary": "A fan's account risk",
                "description": "The fan themselves, or a service. null is an unknown fan; what could not be looked up "
                "is an error. `stale` marks a score read from the table because the cache was away.",
                "parameters": [
                    {
                        "name": "globalUserId",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                        "description": "Percent-encoded UTF-8, a slash as %2F.",
                    },
                    _DETAIL,
                ],
                "responses": {
                    "200": _answer("The score.", {"$ref": "#/components/schemas/ArmScore"}),
                    **_errors(400, 401, 403, 429, 503),
                },
            }
        },
        "/arm": {
            "post": {
                "summary": "Many fans' account risk, in the order asked for",
                "parameters": [_DETAIL],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["globalUserIds"],
                                "additionalProperties": False,
                                "properties": {
                                    "globalUserIds": {
                                        "type": "array",
                                        "maxItems": MOST_FANS,
                                        "items": {"type": "string"},
                                    }
                                },
                            }
                        }
                    },
                },
                "responses": {
                    "200": _answer(
                        "The scores; a fan who could not be looked up has errors of their own.",
                        {
                            "type": "object",
                            "properties": {
                                "armScores": {"type": "array", "items": {"$ref": "#/components/schemas/ArmScore"}}
                            },
                        },
                    ),
                    **_errors(400, 401, 403, 413, 429, 503),
                },
            }
        },
        "/health": {"get": {"summary": "The process lives", "security": [], "responses": {"200": _answer("It does.")}}},
        "/ready": {
            "get": {
                "summary": "Everything needed answers",
                "security": [],
                "responses": {"200": _answer("It does."), "503": _answer("It does not; `missing` names the parts.")},
            }
        },
    }
    if graphql:
        paths["/graphql"] = {
            "post": {
                "summary": "The GraphQL API",
                "description": "A body `{query, variables, operationName}`, or a list of up to five.",
                "responses": {"200": _answer("`data`, `errors`, `extensions`."), **_errors(400, 401, 413, 415, 429)},
            }
        }
    if console:
        from ..console.openapi import console_paths  # noqa: PLC0415 - a lookup without a console does without it

        paths |= console_paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fan-identity",
            "version": __version__,
            "description": "How risky is this fan? Asked while the fan waits.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "schemas": {"ArmScore": _ARM_SCORE, "Errors": _ERRORS_SCHEMA},
        },
    }


_ARM_SCORE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["armScore"],
    "properties": {
        "armScore": {"type": ["integer", "null"], "minimum": 1, "maximum": 5, "description": "null: unknown fan"},
        "stale": {"type": "boolean", "description": "read from the table because the cache was away"},
        "ageSeconds": {"type": ["number", "null"], "description": "since the activity that caused the score"},
        "modelVersion": {"type": ["string", "null"]},
        "errors": {"type": "array", "description": "in a list: why this fan could not be looked up"},
    },
}
_ERRORS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["errors"],
    "properties": {
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "errorType": {"type": "string", "description": "the HTTP status"},
                    "errorInfo": {"type": "object", "properties": {"code": {"type": "string"}}},
                },
            },
        }
    },
}

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "h2{margin-top:2rem;border-top:1px solid #ddd;padding-top:1rem}code,pre{font:14px ui-monospace,monospace;"
    "background:#f4f4f4;border-radius:4px;padding:.1rem .3rem}pre{padding:.8rem;overflow-x:auto}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"
    "b.m{display:inline-block;background:#0b5394;color:#fff;border-radius:4px;padding:0 .5rem;margin-right:.5rem}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}code,pre{background:#2a2a2a}h2{border-color:#333}}"
)
DOCS_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""The page's content security policy: its own style and nothing else."""


def docs_page(document: Mapping[str, Any]) -> str:
    """The document as one HTML page without scripts, for any browser and any network."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>fan-identity API</title><style>{_STYLE}</style><h1>fan-identity API</h1>",
        f"<p>{_escaped(document['info']['description'])} Version {_escaped(document['info']['version'])}. ",
        'For programs: <a href="/openapi.json">openapi.json</a>.</p>',
        "<p>Callers show a bearer token (<code>Authorization: Bearer …</code>) or an API key "
        "(<code>X-Api-Key: …</code>).</p>",
        "<pre>curl -H &quot;Authorization: Bearer $TOKEN&quot; http://HOST/arm/fan-00042</pre>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f'<h2><b class="m">{method.upper()}</b><code>{_escaped(path)}</code></h2>')
            parts.append(f"<p>{_escaped(operation['summary'])}. {_escaped(operation.get('description', ''))}</p>")
            parts += _parameter_rows(operation.get("parameters", []))
            parts.append("<table><tr><th>Status<th>Meaning</tr>")
            for status, answer in operation["responses"].items():
                parts.append(f"<tr><td>{status}<td>{_escaped(answer['description'])}</tr>")
            parts.append("</table>")
    parts.append(f"<h2>Answers</h2><pre>{_escaped(json.dumps(document['components']['schemas'], indent=2))}</pre>")
    return "".join(parts) + "</html>"


def _parameter_rows(parameters: list[dict[str, Any]]) -> list[str]:
    if not parameters:
        return []
    rows = [
        f"<tr><td><code>{_escaped(one['name'])}</code><td>{one['in']}<td>{_escaped(one['description'])}</tr>"
        for one in parameters
    ]
    return ["<table><tr><th>Parameter<th>In<th></tr>", *rows, "</table>"]


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", " ")
