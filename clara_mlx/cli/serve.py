"""The commands that serve the memory: the gateway, and MCP over standard input and output."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from os import _exit as exit_at_once
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from clara_mlx.cli.notes import note, start_logging
from clara_mlx.cli.options import DEFAULT_DB, Compressor, Db, Model, open_memory
from clara_mlx.cli.scope import find_root
from clara_mlx.errors import ClaraError
from clara_mlx.memory.settings import (
    FALLBACK_API,
    FALLBACK_KEY,
    FALLBACK_MODEL,
    FALLBACK_URL,
    REASONER,
    REASONER_API,
    REASONER_CACHE,
    REASONER_KEY,
    REASONER_URL,
    TOKEN,
)
from clara_mlx.model.regular import MOST_CONFIG, read_regular

if TYPE_CHECKING:
    from clara_mlx.context import Counter
    from clara_mlx.memory import Memory

logger = logging.getLogger(__name__)

commands = typer.Typer()

# Seconds after which a busy thread lets another one run. With Python's 5 ms, each step of each
# answer, and each row of each query, waits that long for whatever thread reads a large text.
_SWITCH_SECONDS = 0.00005

# What an API of a reasoner or fallback speaks.
Api = Literal["chat", "messages", "responses"]

DEFAULT_WINDOW = 32_768  # tokens; `clara-mlx plan` computes with the same number


@commands.command()
def serve(
    reasoner: Annotated[
        str, typer.Option("--endpoint", envvar=REASONER_URL.name, help=REASONER_URL.purpose)
    ] = REASONER_URL.default,
    reasoner_api: Annotated[
        Api, typer.Option(envvar=REASONER_API.name, help=REASONER_API.purpose)
    ] = "chat",
    reasoner_model: Annotated[
        str,
        typer.Option(
            help="The model's name at that API; by default the one that mlx_lm.server has loaded."
        ),
    ] = "default_model",
    tokenizer: Annotated[
        Path | None, typer.Option(envvar=REASONER.name, help=REASONER.purpose)
    ] = None,
    reasoner_cache: Annotated[
        Literal["auto", "trimmable", "whole"],
        typer.Option(
            envvar=REASONER_CACHE.name,
            help=f"{REASONER_CACHE.purpose} trimmable: all before the change; whole: nothing; "
            "auto: as its folder, or its server's counts, say.",
        ),
    ] = "auto",
    template_args: Annotated[
        str, typer.Option(help="The JSON that mlx_lm.server got as --chat-template-args.")
    ] = "{}",
    window: Annotated[
        int | None,
        typer.Option(
            min=1024,
            help="Tokens that the reasoner sees; 32,768, or fewer if its folder says so.",
        ),
    ] = None,
    reserve: Annotated[
        int, typer.Option(min=1, help="Tokens of the window that are kept for the answer.")
    ] = 4096,
    trigger: Annotated[
        float, typer.Option(help="Compact prompts that take more than this share of the rest.")
    ] = 0.95,
    target: Annotated[float, typer.Option(help="Compact them to this share of the rest.")] = 0.6,
    excerpts: Annotated[
        int | None,
        typer.Option(min=256, help="Send new tool results of more tokens than this as excerpts."),
    ] = None,
    obeys: Annotated[
        bool,
        typer.Option(
            "--obeys",
            help="The reasoner's server obeys response_format and tool_choice (not mlx_lm.server).",
        ),
    ] = False,
    images: Annotated[bool, typer.Option("--images", help="The reasoner reads images.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that an API may be silent, prefill included.")
    ] = 900,
    fallback: Annotated[
        str | None,
        typer.Option("--fallback-endpoint", envvar=FALLBACK_URL.name, help=FALLBACK_URL.purpose),
    ] = None,
    fallback_api: Annotated[
        Api, typer.Option(envvar=FALLBACK_API.name, help=FALLBACK_API.purpose)
    ] = "chat",
    fallback_model: Annotated[
        str | None, typer.Option(envvar=FALLBACK_MODEL.name, help=FALLBACK_MODEL.purpose)
    ] = None,
    fallback_key: Annotated[
        str,
        typer.Option(
            "--fallback-key-variable",
            help="The environment variable that holds the second API's key.",
        ),
    ] = FALLBACK_KEY.name,
    fallback_reasoning: Annotated[
        bool,
        typer.Option(
            "--fallback-reasoning",
            help="The second API wants to be sent the reasoning of earlier answers (DeepSeek's "
            "does); without this it is, once it has answered with reasoning itself.",
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="The model's name for clients.")] = "reasoner",
    tools: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(
            help="Offer the memory's tools; auto: if the client has tools, or something was "
            "compacted."
        ),
    ] = "auto",
    everything: Annotated[
        bool,
        typer.Option("--everything", help="The tools see all memories, not only the session's."),
    ] = False,
    observe: Annotated[
        bool, typer.Option(help="Remember the long texts of conversations as they arrive.")
    ] = True,
    mask: Annotated[
        bool,
        typer.Option(
            "--mask",
            help="Mask passwords, keys and tokens in what is sent to an API that is not on this "
            "machine; the memory keeps what the client sent.",
        ),
    ] = False,
    edit: Annotated[
        bool,
        typer.Option("--edit", help="Let people delete memories on the inspector's pages."),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            help=f"The address to listen on; any but a loopback address needs {TOKEN.name}."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 8100,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TOKEN",
            help="A namespace: clients that send TOKEN have a memory file, or a schema of the "
            "database, of their own, which no others see. TOKEN is @FILE or '$VARIABLE', which "
            "hold it, or the token itself, which every user of the machine can then see.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host name that requests may use.")
    ] = None,
    db: Db = DEFAULT_DB,
    model: Model = None,
    compressor: Compressor = None,
) -> None:
    """Serve a gateway in front of a reasoner; an agent changes only its URL.

    `clara-mlx serve --endpoint http://127.0.0.1:8080/v1 --tokenizer Qwen3-235B-A22B-4bit`

    OpenAI's API is at /v1, the memory at /v1/memory and as MCP at /mcp, metrics at /metrics; at /
    are pages that show what is remembered, for a browser (see `clara-mlx ui`). Keys come from the
    environment, because every user of the machine can see a command line:
    CLARA_MLX_REASONER_KEY, CLARA_MLX_FALLBACK_KEY, CLARA_MLX_TOKEN.

    Whoever can reach the port (and has CLARA_MLX_TOKEN, if it is set) reads the whole memory.
    Sessions keep conversations apart from accident, not from an attacker with the same token; for
    people who must not read each other's work, use --token.
    """
    from clara_mlx.context import Budget
    from clara_mlx.serve import Remote, Settings, create_server, listening_socket
    from clara_mlx.serve.connections import raise_file_limit
    from clara_mlx.serve.log import quieten
    from clara_mlx.serve.reasoner_cache import stated_cache

    cache = stated_cache(reasoner_cache, tokenizer)
    second = None
    if fallback:
        if not fallback_model:
            raise typer.BadParameter("--fallback-endpoint also needs --fallback-model")
        second = Remote(
            url=fallback,
            model=fallback_model,
            key=os.environ.get(fallback_key) or None,
            timeout=timeout,
            obeys=True,
            images=True,
            api=fallback_api,
            wants_reasoning=fallback_reasoning,
        )
    settings = Settings(
        reasoner=Remote(
            url=reasoner,
            model=reasoner_model,
            key=REASONER_KEY.read() or None,
            timeout=timeout,
            obeys=obeys,
            images=images,
            api=reasoner_api,
        ),
        fallback=second,
        name=name,
        budget=Budget(
            window=window or min(DEFAULT_WINDOW, _stated_window(tokenizer) or DEFAULT_WINDOW),
            reserve=reserve,
            trigger=trigger,
            target=target,
            boundary=excerpts,
            cache=cache.kind,
        ),
        cache_known_by=cache.known_by,
        offer=tools,
        everything=everything,
        observe=observe,
        edit=edit,
        mask=mask,
        host=host,
        port=port,
        token=TOKEN.read() or None,
        namespaces=_read_tokens(token or []),
        allow_hosts=tuple(allow_host or ()),
    )
    start_logging(logging.INFO)
    quieten(logging.getLogger().handlers[0])
    raise_file_limit()
    sys.setswitchinterval(_SWITCH_SECONDS)
    with (
        _make_counter(tokenizer, template_args) as counter,
        listening_socket(host, port) as listening,
        open_memory(db, model, compressor, make=True, compress=True, lend=True) as memory,
        _open_namespaces(memory, settings.namespaces) as namespaces,
    ):
        address = listening.getsockname()
        name_in_url = f"[{address[0]}]" if ":" in address[0] else address[0]
        typer.echo(f"clara-mlx serves at http://{name_in_url}:{address[1]}/v1", err=True)
        _say_if_nothing_listens(reasoner)
        # uvicorn ends gracefully and then raises the signal again; the memory must still be closed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server = create_server(settings, memory, counter, namespaces)
        # What is there now stays: to look through it for garbage took 0.1 s, for which all wait.
        gc.collect()
        gc.freeze()
        try:
            server.run(sockets=[listening])
        finally:
            if not server.has_ended:
                logger.warning("some work on the memory had not ended; it is undone")
                logging.shutdown()
                # SQLite undoes what was not committed; nothing acknowledged is lost.
                exit_at_once(0)


@commands.command()
def mcp(db: Db = DEFAULT_DB, model: Model = None, compressor: Compressor = None) -> None:
    """Serve the memory as MCP tools over standard input and output; an agent starts it.

    `clara-mlx mcp --db agent.db`

    The tools are remember, recall, ask_memory and expand. `clara-mlx serve` has them at /mcp. What
    is remembered belongs to the project of the repository that this is started in.
    """
    import anyio

    from clara_mlx.serve.bookkeeping import Bookkeeper
    from clara_mlx.serve.mcp_server import create_mcp_server
    from clara_mlx.serve.pools import Pools

    start_logging(logging.WARNING)
    with open_memory(db, model, compressor, make=True, compress=True, lend=True) as memory:
        pools = Pools()
        books = Bookkeeper(memory, pools)

        async def serve() -> None:
            server = create_mcp_server(memory, pools, books.note_mcp_call, find_root())
            await server.run_stdio_async()
            await books.close()

        try:
            anyio.run(serve)
        finally:
            pools.close()


def _read_tokens(given: Sequence[str]) -> dict[str, str]:
    """The tokens of namespaces, by name, from NAME=TOKEN, NAME=@FILE and NAME=$VARIABLE."""
    tokens: dict[str, str] = {}
    for one in given:
        name, equals, token = one.partition("=")
        if not equals or not name or name in tokens:  # what is given may be a secret
            raise typer.BadParameter("write NAME=TOKEN, each name once", param_hint="--token")
        if token.startswith("@"):
            path = Path(token[1:]).expanduser()
            try:
                token = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ClaraError(
                    f"--token {name}: can't read the token in {path}: {error}"
                ) from error
        elif token.startswith("$"):
            token = os.environ.get(token[1:].strip("{}"), "")
        tokens[name] = token
    return tokens


@contextmanager
def _open_namespaces(memory: Memory, names: Iterable[str]) -> Iterator[dict[str, Memory]]:
    """Open the memories of namespaces, beside the given one, with the same model."""
    from clara_mlx.store.opening import beside

    with ExitStack() as stack:
        opened: dict[str, Memory] = {}
        for name in names:
            place = beside(memory.path, name)
            one = type(memory).open(place, memory.compressor, model_thread=memory.model_thread)
            opened[name] = stack.enter_context(one)
        yield opened


def _say_if_nothing_listens(url: str) -> None:
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname, port), timeout=0.5).close()
    except OSError:  # not with the URL's user or query, which may be secrets
        note(f"note: nothing listens at {address.hostname}:{port} yet; start the reasoner's server")


def _check_tokenizer(folder: Path) -> None:
    """Refuse a folder that is not there; only OWNER/NAME can be on the hub."""
    path = folder.expanduser()
    if path.exists() or (len(path.parts) == 2 and not path.is_absolute()):
        return
    raise ClaraError(
        f"--tokenizer {folder}: there is no such folder; name the reasoner's model folder, or a "
        "hub id, OWNER/NAME"
    )


def _stated_window(folder: Path | None) -> int | None:
    """The context length that a model folder states."""
    if folder is None:
        return None
    try:
        config = json.loads(read_regular(folder.expanduser() / "config.json", MOST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return None  # the folder holds only a tokenizer
    length = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return length if isinstance(length, int) and length > 0 else None


def _make_counter(folder: Path | None, arguments: str) -> AbstractContextManager[Counter | None]:
    if folder is None:
        return nullcontext()
    from clara_mlx.context.counting_process import CountingProcess

    try:
        options: Any = json.loads(arguments)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ClaraError(f"--template-args {arguments!r} is not a JSON object")
    _check_tokenizer(folder)
    return CountingProcess(folder, options)
