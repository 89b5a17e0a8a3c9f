"""The memory's routes as an OpenAPI document, for programs that write or check clients.

Paths, methods and summaries come from the routes and the docstrings of what answers them; the
fields of the bodies stand here, and a test holds them against what is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from starlette.routing import Route

from clara_mlx.memory.asking import Answer
from clara_mlx.store.results import Hit
from clara_mlx.version import __version__

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_WHERE: Schema = {
    "type": "object",
    "description": "Conditions on source, session, after, before (seconds since 1970), or keys of "
    "the metadata; all must match.",
}


def _number(default: int, least: int, most: int) -> Schema:
    return {"type": "integer", "default": default, "minimum": least, "maximum": most}


def document(routes: Iterable[Route], hits: int, offset: int, tokens: int) -> Schema:
    """The document of routes whose answers are all JSON, but for originals.

    Args:
        routes: The routes; each needs an entry in the table of bodies if it reads one.
        hits: The most hits of one page.
        offset: The largest offset of a page, in hits.
        tokens: The most tokens of an answer.
    """
    bodies: dict[str, tuple[dict[str, Schema], list[str]]] = {
        "remember": (
            {"text": _STRING, "source": _STRING, "session": _STRING, "metadata": _OBJECT},
            ["text"],
        ),
        "recall": (
            {
                "query": _STRING,
                "k": _number(10, 1, hits),
                "offset": _number(0, 0, offset),
                "where": _WHERE,
                "mode": {"enum": ["hybrid", "latent", "text"], "default": "hybrid"},
            },
            ["query"],
        ),
        "ask": (
            {
                "question": _STRING,
                "k": _number(5, 1, hits),
                "where": _WHERE,
                "max_tokens": _number(128, 1, tokens),
            },
            ["question"],
        ),
        "forget": ({"handle": _STRING, "where": _WHERE}, []),
        "undo": ({"session": _STRING}, ["session"]),
    }
    paths: dict[str, Schema] = {}
    for route in routes:
        name = route.name
        about: Schema = {
            "operationId": name,
            "summary": (route.endpoint.__doc__ or "").split("\n")[0],
            "responses": {"200": _answer(name), "default": _reference("An error", "Error")},
        }
        if name in bodies:
            properties, required = bodies[name]
            body = {"type": "object", "properties": properties, "required": required}
            about["requestBody"] = {"required": True, "content": _json(body)}
        about["parameters"] = [
            {"name": one, "in": "path", "required": True, "schema": _STRING}
            for one in re.findall(r"{(\w+)}", route.path)
        ]
        if name == "status":
            about["parameters"] = [{"name": "session", "in": "query", "schema": _STRING}]
        (method,) = (route.methods or set()) - {"HEAD"}
        paths[route.path] = {method.lower(): about}
    return {
        "openapi": "3.1.0",
        "info": {"title": "The memory of clara-mlx", "version": __version__},
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _answer(name: str) -> Schema:
    if name == "original":
        return {
            "description": "The exact bytes; text/plain if it came as text",
            "content": {"application/octet-stream": {}, "text/plain": {"schema": _STRING}},
        }
    if name == "ask":
        return _reference("The answer with its evidence", "Answer")
    answers: dict[str, dict[str, Schema]] = {
        "remember": {"handle": _STRING},
        "recall": {
            "hits": {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}},
            "next": {"type": ["integer", "null"], "description": "The offset of the next page"},
        },
        "forget": {"forgotten": {"type": "integer"}},
        "undo": {"undone": {"type": "integer"}},
    }
    properties = answers.get(name, {})
    return {
        "description": "Done",
        "content": _json({"type": "object", "properties": properties}),
    }


def _reference(description: str, schema: str) -> Schema:
    return {
        "description": description,
        "content": _json({"$ref": f"#/components/schemas/{schema}"}),
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _schemas() -> dict[str, Schema]:
    """Hits and answers by the fields of their classes, and errors."""
    hits: Schema = {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}}
    error: Schema = {name: {} for name in ("message", "type", "code", "param")}
    return {
        "Hit": _of({one.name: {} for one in fields(Hit)}),
        "Answer": _of({one.name: {} for one in fields(Answer)} | {"evidence": hits}),
        "Error": _of({"error": _of(error)}),
    }


def _of(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties}
