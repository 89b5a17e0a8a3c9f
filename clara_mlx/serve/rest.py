"""The memory over HTTP: remember, recall, ask, original, forget, undo, status.

Whoever has the namespace's token reads and forgets all of its memory here; a session is a filter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clara_mlx.context.undone import UnknownSession
from clara_mlx.memory import Memory
from clara_mlx.serve import openapi
from clara_mlx.serve.bodies import Json, read_json
from clara_mlx.serve.errors import ApiError, invalid_field
from clara_mlx.serve.pools import Pools
from clara_mlx.store.opening import short_name

#: The most hits of one page.
MOST_HITS = 50

#: The largest offset of a page, in hits.
DEEPEST = 500

#: The most tokens of an answer.
MOST_TOKENS = 1024

# An absolute path of several names.
_ABSOLUTE = re.compile(r"/[^/\s:'\"]+/[^\s:'\"]*")

_MODES = ("hybrid", "latent", "text")


@dataclass(frozen=True)
class Rest:
    """The routes below ``/v1/memory``."""

    memory: Memory
    pools: Pools  # the threads in which the memory's calls run
    body_seconds: float  # the most that the body of a request may take to arrive
    undo_session: Callable[[str], int]  # given its name; see `Context.undo_session`
    gateway_status: Callable[[str | None], dict[str, Any]]  # given a session, or None for all

    def routes(self) -> list[Route]:
        """The routes, for a Starlette application, and the document that describes them."""
        routes = [
            Route("/v1/memory/remember", self.remember, methods=["POST"]),
            Route("/v1/memory/recall", self.recall, methods=["POST"]),
            Route("/v1/memory/ask", self.ask, methods=["POST"]),
            Route("/v1/memory/forget", self.forget, methods=["POST"]),
            Route("/v1/memory/undo", self.undo, methods=["POST"]),
            Route("/v1/memory/original/{handle}", self.original, methods=["GET"]),
            Route("/v1/memory/status", self.status, methods=["GET"]),
        ]
        described = openapi.document(routes, MOST_HITS, DEEPEST, MOST_TOKENS)

        async def describe(request: Request) -> Response:
            return Json(described)

        return [*routes, Route("/openapi.json", describe, methods=["GET"])]

    async def remember(self, request: Request) -> Response:
        """``{text, source?, session?, metadata?}`` -> ``{handle}``; durable when it answers."""
        given = await self._read(request)
        text = _string(given, "text", required=True)
        source = _string(given, "source")
        session = _string(given, "session")
        metadata = _object(given, "metadata")
        handle = await self.pools.write(
            lambda: self.memory.remember(text, source=source, session=session, metadata=metadata)
        )
        return Json({"handle": handle})

    async def recall(self, request: Request) -> Response:
        """``{query, k?, offset?, where?, mode?}`` -> ``{hits, next}``, next being an offset."""
        given = await self._read(request)
        query = _string(given, "query", required=True)
        where = _object(given, "where")
        k = _integer(given, "k", 10, 1, MOST_HITS)
        offset = _integer(given, "offset", 0, 0, DEEPEST)
        mode: Any = given.get("mode", "hybrid")
        if mode not in _MODES:
            raise invalid_field("mode", f"must be one of {', '.join(_MODES)}")
        found = await self.pools.ask(
            lambda: self.memory.recall(query, offset + k + 1, where, mode=mode)
        )
        more = offset + k if len(found) > offset + k and offset + k <= DEEPEST else None
        return Json({"hits": [asdict(hit) for hit in found[offset : offset + k]], "next": more})

    async def ask(self, request: Request) -> Response:
        """``{question, k?, where?, max_tokens?}`` -> the answer with its evidence."""
        given = await self._read(request)
        question = _string(given, "question", required=True)
        where = _object(given, "where")
        k = _integer(given, "k", 5, 1, MOST_HITS)
        most = _integer(given, "max_tokens", 128, 1, MOST_TOKENS)
        answer = await self.pools.ask(lambda: self.memory.ask(question, k, where, max_tokens=most))
        return Json(asdict(answer))

    async def original(self, request: Request) -> Response:
        """The exact bytes of an original."""
        handle = request.path_params["handle"]
        await self._require(handle)
        original = await self.pools.ask(lambda: self.memory.original(handle))
        if isinstance(original, bytes):
            content = original
            media = "application/octet-stream"
        else:
            content = original.encode("utf-8", "surrogatepass")
            media = "text/plain; charset=utf-8"
        # Whatever was remembered, a browser must not take it for a page of this server.
        headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
        return Response(content, 200, headers, media)

    async def forget(self, request: Request) -> Response:
        """``{handle}`` or ``{where}`` -> ``{forgotten}``: the number of memories."""
        given = await self._read(request)
        handle = _string(given, "handle")
        where = _object(given, "where")
        if (handle is None) == (where is None) or where == {}:
            raise invalid_field(
                "handle", "or a `where` with at least one condition must be given, not both"
            )
        if handle is not None:
            await self._require(handle)
        count = await self.pools.write(lambda: self.memory.forget(handle, where=where))
        return Json({"forgotten": count})

    async def undo(self, request: Request) -> Response:
        """``{session}`` -> ``{undone}``: the number of blocks and folds that are no longer sent.

        The conversation's next request goes to the reasoner as its client sends it, if that fits.
        """
        given = await self._read(request)
        session = _string(given, "session", required=True)
        try:
            undone = await self.pools.write(lambda: self.undo_session(session))
        except UnknownSession as error:
            raise ApiError(404, str(error), code="not_found", param="session") from error
        return Json({"undone": undone})

    async def status(self, request: Request) -> Response:
        """The memory's figures and the gateway's; ``?session=`` for one conversation."""
        figures = asdict(await self.pools.ask(self.memory.status))
        # Clients may be on other machines; where the file lies is the operator's to know.
        figures["path"] = short_name(self.memory.path)
        if figures["last_error"]:
            figures["last_error"] = _ABSOLUTE.sub("(a path)", figures["last_error"])
        gateway = self.gateway_status(request.query_params.get("session"))
        return Json({"memory": figures} | gateway)

    async def _read(self, request: Request) -> dict[str, Any]:
        return await read_json(request, self.body_seconds, lambda body: body)

    async def _require(self, handle: str) -> None:
        """Raise a 404 if no memory has this handle."""
        if not await self.pools.ask(lambda: self.memory.has(handle)):
            message = f"no memory has the handle {handle[:100]!r}"
            raise ApiError(404, message, code="not_found", param="handle")


def _string(given: Mapping[str, Any], name: str, *, required: bool = False) -> Any:
    value = given.get(name)
    if (value is None and required) or not (value is None or isinstance(value, str)):
        raise invalid_field(name, "must be a string")
    return value


def _object(given: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = given.get(name)
    if value is not None and not isinstance(value, dict):
        raise invalid_field(name, "must be an object")
    return value


def _integer(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise invalid_field(name, f"must be a whole number from {least} to {most}")
    return value
