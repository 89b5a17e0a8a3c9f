"""The inspector's pages: the memory of a namespace, for its people to look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from clara_mlx.errors import ClaraError, StorageFailed, for_strangers
from clara_mlx.memory import Memory
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.inspector.conversations import read_sessions, read_timeline
from clara_mlx.serve.inspector.entry import PREFIX, STATIC, Entry
from clara_mlx.serve.inspector.forgetting import Doomed, forget, read_doomed
from clara_mlx.serve.inspector.forms import read_form, whole_number
from clara_mlx.serve.inspector.listing import Asked, choices, items_of, read_listing
from clara_mlx.serve.inspector.original import read_memory, written
from clara_mlx.serve.inspector.rendering import FOLDER, HEADERS, page_response
from clara_mlx.serve.inspector.savings import read_savings
from clara_mlx.serve.pools import Pools
from clara_mlx.store.opening import short_name

# The files of the pages, and their types.
_FILES = {
    "inspector.css": "text/css",
    "inspector.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

Page = Callable[["Inspector", Request], Awaitable[Response]]


def _as_page(page: Page) -> Page:
    """Answer what goes wrong on a page with a page that says it."""

    @wraps(page)
    async def answer(self: Inspector, request: Request) -> Response:
        try:
            return await page(self, request)
        except ApiError as error:
            return self.failed(error.status, str(error))
        except StorageFailed as error:
            return self.failed(503, for_strangers(str(error), self.memory.path))
        except ClaraError as error:
            return self.failed(400, for_strangers(str(error), self.memory.path))

    return answer


@dataclass(frozen=True)
class Inspector:
    """The pages about one memory file.

    Args:
        memory: The memory.
        pools: The threads in which the memory's calls run.
        entry: Knows what a form must send.
        namespace: Whose memory it is; empty for the one without a name.
        edit: Whether memories can be deleted here.
    """

    memory: Memory
    pools: Pools
    entry: Entry
    namespace: str
    edit: bool

    def routes(self) -> list[Route]:
        """The routes, for a Starlette application."""
        return [
            Route("/", self.list, methods=["GET"]),
            Route(f"{PREFIX}memory", self.show_one, methods=["GET"]),
            Route(f"{PREFIX}original", self.original, methods=["GET"]),
            Route(f"{PREFIX}conversations", self.conversations, methods=["GET"]),
            Route(f"{PREFIX}conversation", self.conversation, methods=["GET"]),
            Route(f"{PREFIX}savings", self.savings, methods=["GET"]),
            Route(f"{PREFIX}forget", self.confirm, methods=["GET"]),
            Route(f"{PREFIX}forget", self.forget, methods=["POST"]),
            Route(f"{PREFIX}{{rest:path}}", self.nothing, methods=["GET"]),
        ]

    @_as_page
    async def list(self, request: Request) -> Response:
        """The memories, newest first, or those that words and filters find."""
        asked = Asked.read(request.query_params)

        def read() -> dict[str, Any]:
            listing = read_listing(self.memory, asked)
            return {
                "listing": listing,
                "asked": asked,
                "forgotten": _number(request, "forgotten"),
                "page_address": lambda number: asked.address(page=number),
                "sources": choices(self.memory, asked.source, "source"),
                "sessions": choices(self.memory, asked.session, "session"),
                "projects": choices(self.memory, asked.project, "project"),
            }

        return await self._show(request, "list", read)

    @_as_page
    async def show_one(self, request: Request) -> Response:
        """A memory: its original beside what is sent in its place."""
        handle = request.query_params.get("handle", "")
        page = _number(request, "page") or 1
        by = _number(request, "by") or 0

        def read() -> dict[str, Any]:
            found = read_memory(self.memory, handle, page, by)
            if found is None:
                raise ApiError(404, f"no memory has the handle {handle[:100]}")
            title = items_of([found.memory])[0].title
            return {
                "page": found,
                "title": title,
                "metadata": [
                    (key, text)
                    for key, value in found.memory.metadata.items()
                    if (text := written(value)) and text != title
                ],
                "original_address": lambda number: _address(
                    "memory", handle=handle, page=number, by=found.by
                ),
                "by_address": lambda number: _address("memory", handle=handle, by=number),
            }

        return await self._show(request, "memory", read)

    @_as_page
    async def original(self, request: Request) -> Response:
        """The exact bytes of an original, to keep as a file: no browser shows them as a page."""
        handle = request.query_params.get("handle", "")
        if not await self.pools.ask(lambda: self.memory.has(handle)):
            raise ApiError(404, f"no memory has the handle {handle[:100]}")
        content = await self.pools.ask(lambda: self.memory.original_bytes(handle))
        name = "".join(one for one in handle if one.isascii() and (one.isalnum() or one in "-_"))
        headers = HEADERS | {
            "content-security-policy": "sandbox; default-src 'none'",
            "content-disposition": f'attachment; filename="{name or "original"}.txt"',
        }
        return Response(content, 200, headers, "application/octet-stream")

    @_as_page
    async def conversations(self, request: Request) -> Response:
        """The conversations, latest first."""
        page = _number(request, "page") or 1
        return await self._show(
            request, "conversations", lambda: {"sessions": read_sessions(self.memory, page)}
        )

    @_as_page
    async def conversation(self, request: Request) -> Response:
        """A conversation as a timeline."""
        session = request.query_params.get("session", "")
        before = _number(request, "before")

        def read() -> dict[str, Any]:
            found = read_timeline(self.memory, session, before)
            if found is None:
                raise ApiError(404, f"no conversation is called {session[:100]}")
            return {"timeline": found}

        return await self._show(request, "conversation", read)

    @_as_page
    async def savings(self, request: Request) -> Response:
        """What was saved, day by day."""
        span = _number(request, "days") or 0
        return await self._show(
            request, "savings", lambda: {"savings": read_savings(self.memory, span)}
        )

    @_as_page
    async def confirm(self, request: Request) -> Response:
        """What would be deleted, counted, before anything is."""
        self._require_edit()
        doomed = Doomed.read(request.query_params)
        return await self._ask(request, doomed)

    @_as_page
    async def forget(self, request: Request) -> Response:
        """Delete what was confirmed, if it is still the same."""
        self._require_edit()
        given = await read_form(request)
        if not self.entry.is_form_token(self.namespace, given.get("form", "")):
            raise ApiError(403, "this form is out of date: go back, reload the page, and try again")
        try:
            number, until = int(given.get("number", "")), float(given.get("until", "0"))
        except ValueError:
            raise ApiError(400, "this is not what the page's form sends") from None
        doomed = Doomed.read(given, until)
        done = await self.pools.write(lambda: forget(self.memory, doomed, number))
        if done is None:
            return await self._ask(request, doomed, changed=True)
        return RedirectResponse(f"/?forgotten={done}", 303, HEADERS)

    @_as_page
    async def nothing(self, request: Request) -> Response:
        """The page for an address that leads nowhere."""
        raise ApiError(404, f"there is no page at {request.url.path[:200]}")

    async def _ask(self, request: Request, doomed: Doomed, *, changed: bool = False) -> Response:
        def read() -> dict[str, Any]:
            return {"confirmation": read_doomed(self.memory, doomed), "changed": changed}

        return await self._show(request, "forget", read, status=409 if changed else 200)

    async def _show(
        self,
        request: Request,
        template: str,
        read: Callable[[], dict[str, Any]],
        *,
        status: int = 200,
    ) -> Response:
        known = request.headers.get("if-none-match")

        def work() -> Response:
            return page_response(template, self._common() | read(), status=status, known=known)

        return await self.pools.ask(work)

    def failed(self, status: int, message: str) -> Response:
        """A page that says what is wrong."""
        values = self._common() | {"status": status, "message": message}
        return page_response("failed", values, status=status)

    def _common(self) -> dict[str, Any]:
        return {
            "file": short_name(self.memory.path),
            "namespace": self.namespace,
            "edit": self.edit,
            "form_token": self.entry.form_token(self.namespace),
            "memory_address": lambda handle: _address("memory", handle=handle),
            "original_file": lambda handle: _address("original", handle=handle),
            "conversation_address": lambda name: _address("conversation", session=name),
            "filter_address": lambda **chosen: Asked(**chosen).address(),
        }

    def _require_edit(self) -> None:
        if not self.edit:
            raise ApiError(403, "nothing can be deleted here: start it with --edit")


async def static_file(request: Request) -> Response:
    """A file of the pages: style, script or icon."""
    name = request.path_params["name"]
    if name not in _FILES:
        return Response("there is no file of this name", 404, HEADERS, "text/plain")
    headers = HEADERS | {"cache-control": "no-cache"}
    return FileResponse(FOLDER / "static" / name, headers=headers, media_type=_FILES[name])


def open_routes(entry: Entry) -> list[Route]:
    """The routes that need no token: the form for one, and the files of the pages."""
    return [
        Route(f"{PREFIX}sign-in", entry.sign_in, methods=["GET", "POST"]),
        Route(STATIC + "{name:path}", static_file, methods=["GET"]),
    ]


def _address(page: str, /, **fields: object) -> str:
    """The address of a page. What is shown is a field of it, as a handle may hold any character."""
    return f"{PREFIX}{page}?{urlencode(fields)}"


def _number(request: Request, name: str) -> int | None:
    """A whole number in an address; None if there is none."""
    return whole_number(request.query_params.get(name, ""))
