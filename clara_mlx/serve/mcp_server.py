"""The memory as MCP tools: remember, recall, ask_memory, expand.

They serve the whole memory of the namespace to whoever has its token; a session is a filter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from clara_mlx.context import answers, pages
from clara_mlx.context.shown import last_sent
from clara_mlx.errors import ClaraError, for_strangers
from clara_mlx.memory import Memory
from clara_mlx.serve.json_values import without_surrogates
from clara_mlx.serve.pools import Pools
from clara_mlx.store.results import Hit
from clara_mlx.version import __version__

#: Hits on one page of `recall`.
PAGE_HITS = 5

#: Characters of the passages on one page.
PAGE_CHARACTERS = 6_000

#: The number of lines of a page of `expand`, if a client does not ask for more.
PAGE_LINES = 200

#: The last page of `recall`.
PAGES = 40

_INSTRUCTIONS = (
    "A memory of what was seen: remember keeps a text whole and gives its handle; recall finds "
    "passages; ask_memory answers a question about them; expand reads the exact text of a handle."
)

#: Told of a tool that was called, with its arguments.
OnCall = Callable[[str, dict[str, Any]], None]

Session = Annotated[str | None, Field(description="Only this session's memories; default: all.")]


def create_mcp_server(
    memory: Memory, pools: Pools, on_call: OnCall | None = None, project: str | None = None
) -> MCPServer:
    """An MCP server over a memory; the SDK has its transports.

    Args:
        memory: The memory.
        pools: The threads in which its calls run.
        on_call: Called after each tool call that was answered.
        project: The folder that what is remembered belongs to, if one is known.
    """
    server = _Server(
        "clara-mlx", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    server.on_call = on_call
    metadata = {"project": project} if project else None

    async def remember(
        text: Annotated[str, Field(description="Kept exactly as it is.")],
        source: Annotated[str | None, Field(description="Where it came from, e.g. pytest.")] = None,
        session: Annotated[str | None, Field(description="The session it belongs to.")] = None,
    ) -> str:
        """Keep a text, whole and for good; returns the handle that brings it back."""
        return await _run_tool(
            pools.write,
            lambda: memory.remember(text, source=source, session=session, metadata=metadata),
            memory,
        )

    async def recall(
        query: Annotated[str, Field(description="A question, or words to look for.")],
        page: Annotated[int, Field(ge=1, le=PAGES, description="1 has the best passages.")] = 1,
        session: Session = None,
    ) -> str:
        """Find passages, best first, with their exact lines and handles; a few on each page."""
        return await _run_tool(
            pools.ask, lambda: _recall_page(memory, query, page, session), memory
        )

    async def ask_memory(
        question: Annotated[str, Field(description="One question.")],
        session: Session = None,
        handle: Annotated[str | None, Field(description="Only this handle's text.")] = None,
    ) -> str:
        """Ask about what is remembered: a short answer and the exact lines behind it."""
        where = {"session": session} if session else None
        return await _run_tool(
            pools.ask,
            lambda: answers.ask(
                memory, question, where, handle or None, last_sent(memory, where) if where else ""
            ),
            memory,
        )

    async def expand(
        handle: Annotated[str, Field(description="A handle such as m-1f2e3d4c5b6a.")],
        start_line: Annotated[int, Field(ge=1, description="The first line, from 1.")] = 1,
        lines: Annotated[int, Field(ge=1, le=pages.PAGE_LINES)] = PAGE_LINES,
        find: Annotated[str | None, Field(description="Only lines that contain this.")] = None,
        start_character: Annotated[
            int, Field(ge=1, description="Where to begin in a very long first line, from 1.")
        ] = 1,
    ) -> str:
        """Read the exact text behind a handle, a page at a time, or only lines that match."""
        return await _run_tool(
            pools.ask,
            lambda: pages.expand(memory, handle, start_line, lines, find or None, start_character),
            memory,
        )

    for tool in (remember, recall, ask_memory, expand):
        # Without a second, structured copy of the same text.
        server.add_tool(tool, structured_output=False)
    return server


class _Server(MCPServer):
    """The SDK's server, which says in our words what is wrong with the arguments of a call.

    Attributes:
        on_call: Called after each call that was answered.
    """

    on_call: OnCall | None = None

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; see the SDK."""
        try:
            result = await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                wrong = "; ".join(map(_in_words, error.__cause__.errors()))
                raise ToolError(f"{name} can't be called so: {wrong}") from None
            raise
        if self.on_call is not None:
            self.on_call(name, arguments)
        return result


def _in_words(error: ErrorDetails) -> str:
    """What is wrong with one argument."""
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


async def _run_tool(
    pool: Callable[[Callable[[], str]], Awaitable[str]], work: Callable[[], str], memory: Memory
) -> str:
    """Run a tool's work in a thread; an error of ours becomes the tool's error."""
    try:
        text = await pool(work)
    except ClaraError as error:
        raise ToolError(without_surrogates(for_strangers(str(error), memory.path))) from error
    return without_surrogates(text)


def _recall_page(memory: Memory, query: str, page: int, session: str | None) -> str:
    """One page of passages, and how to get more."""
    where = {"session": session} if session else None
    last = page * PAGE_HITS
    found = memory.recall(query, last + 1, where)
    hits = found[last - PAGE_HITS : last]
    if not hits:
        return "Nothing found." if page == 1 else "No more passages."
    passages = _passages(hits)
    if len(passages) < len(hits):
        left = [hit.handle for hit in hits[len(passages) :]]
        passages.append(f"(left out, too long for this page: {', '.join(left)}; use expand)")
    if len(found) > last and page < PAGES:
        passages.append(f"(more: page={page + 1})")
    return "\n".join(passages)


def _passages(hits: list[Hit]) -> list[str]:
    """Hits as text, best first: handle and line numbers, then the exact lines; whole hits only."""
    passages: list[str] = []
    room = PAGE_CHARACTERS
    for hit in hits:
        last = hit.line + hit.text.rstrip("\n").count("\n")
        span = f"line {hit.line}" if last == hit.line else f"lines {hit.line}-{last}"
        if last != hit.line and hit.matched_line is not None:
            span += f", best {hit.matched_line}"
        passage = f"{hit.handle} {span}:\n" + hit.text.strip("\n")
        if len(passage) <= room:
            passages.append(passage)
            room -= len(passage)
    return passages
