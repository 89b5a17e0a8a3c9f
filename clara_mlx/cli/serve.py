"""The commands that serve the memory: the gateway, and MCP over standard input and output."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.options import DEFAULT_DB, Db, Model, opened
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from clara_mlx.context import Counter

commands = typer.Typer()

# Keys are read from the environment only: a command line is seen by every user of the machine.
_TOKEN, _REASONER_KEY = "CLARA_MLX_TOKEN", "CLARA_MLX_REASONER_KEY"
_FALLBACK_KEY = "CLARA_MLX_FALLBACK_KEY"


@commands.command()
def serve(
    reasoner: Annotated[
        str,
        typer.Option(envvar="CLARA_MLX_REASONER_URL", help="The reasoner's OpenAI-compatible URL."),
    ] = "http://127.0.0.1:8080/v1",
    reasoner_model: Annotated[
        str, typer.Option(help="The model's name there; mlx_lm.server's loaded one by default.")
    ] = "default_model",
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            envvar="CLARA_MLX_REASONER",
            help="The reasoner's folder, for exact token counts; an estimate without it.",
        ),
    ] = None,
    template_args: Annotated[
        str, typer.Option(help="What mlx_lm.server was given as --chat-template-args.")
    ] = "{}",
    window: Annotated[
        int | None,
        typer.Option(
            min=1024,
            help="Tokens the reasoner sees; without it 32,768, or less if its folder says so.",
        ),
    ] = None,
    reserve: Annotated[int, typer.Option(min=1, help="Of these, kept for the answer.")] = 4096,
    trigger: Annotated[float, typer.Option(help="Share of the rest at which to compact.")] = 0.7,
    target: Annotated[float, typer.Option(help="Share that a compaction goes down to.")] = 0.4,
    excerpts: Annotated[
        int | None,
        typer.Option(min=256, help="Send new tool results above so many tokens as excerpts."),
    ] = None,
    obeys: Annotated[
        bool,
        typer.Option("--obeys", help="It heeds response_format and tool_choice; mlx_lm does not."),
    ] = False,
    images: Annotated[bool, typer.Option("--images", help="It reads images.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Most seconds it may be silent, prefill included.")
    ] = 900,
    fallback: Annotated[
        str | None,
        typer.Option(
            envvar="CLARA_MLX_FALLBACK_URL",
            help="A second endpoint, e.g. https://api.x.ai/v1, for what the reasoner can't answer.",
        ),
    ] = None,
    fallback_model: Annotated[
        str | None, typer.Option(envvar="CLARA_MLX_FALLBACK_MODEL", help="The model's name there.")
    ] = None,
    fallback_key: Annotated[
        str, typer.Option(help="The environment variable that has its key.")
    ] = _FALLBACK_KEY,
    name: Annotated[str, typer.Option(help="The model's name for clients.")] = "reasoner",
    tools: Annotated[
        str, typer.Option(help="Offer the memory's tools: auto, always or never.")
    ] = "auto",
    everything: Annotated[
        bool, typer.Option("--everything", help="They see all memories, not the session's only.")
    ] = False,
    observe: Annotated[
        bool, typer.Option(help="Remember long texts of conversations as they come.")
    ] = True,
    host: Annotated[
        str, typer.Option(help=f"Any other than a loopback address needs {_TOKEN}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8100,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name that requests may be addressed to.")
    ] = None,
    db: Db = DEFAULT_DB,
    model: Model = None,
) -> None:
    """Serve a gateway before a reasoner: an agent's URL is all that changes.

    `clara-mlx serve --reasoner http://127.0.0.1:8080/v1 --tokenizer Qwen3-235B-A22B-4bit`

    OpenAI's API at /v1, the memory at /v1/memory and as MCP at /mcp, figures at /metrics. Keys
    come from the environment: CLARA_MLX_REASONER_KEY, CLARA_MLX_FALLBACK_KEY, CLARA_MLX_TOKEN.
    """
    from clara_mlx.context import Budget
    from clara_mlx.serve import Remote, Settings, bound, server

    if tools not in ("auto", "always", "never"):
        raise typer.BadParameter(f"{tools!r}: auto, always or never", param_hint="--tools")
    other = None
    if fallback:
        key = os.environ.get(fallback_key)
        if not fallback_model:
            raise typer.BadParameter("a fallback needs --fallback-model")
        other = Remote(fallback, fallback_model, key, timeout, obeys=True, images=True)
    settings = Settings(
        reasoner=Remote(
            reasoner, reasoner_model, os.environ.get(_REASONER_KEY), timeout, obeys, images
        ),
        fallback=other,
        name=name,
        budget=Budget(
            window=window or min(32_768, _window_of(tokenizer) or 32_768),
            reserve=reserve,
            trigger=trigger,
            target=target,
            boundary=excerpts,
        ),
        offer=tools,  # type: ignore[arg-type]  # looked at above
        everything=everything,
        observe=observe,
        host=host,
        port=port,
        token=os.environ.get(_TOKEN) or None,
        allow_hosts=tuple(allow_host or ()),
    )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request
    counter = _counter(tokenizer, template_args)
    with bound(host, port) as listening, opened(db, model, make=True, compress=True) as memory:
        address = listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        typer.echo(f"clara-mlx serves at http://{shown}:{address[1]}/v1", err=True)
        # uvicorn ends gracefully and raises the signal again: the memory is to be closed then.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server(settings, memory, counter).run(sockets=[listening])


@commands.command()
def mcp(db: Db = DEFAULT_DB, model: Model = None) -> None:
    """Serve the memory as MCP tools over standard input and output, for an agent to start.

    `clara-mlx mcp --db agent.db`

    The tools are remember, recall, ask_memory and expand. `clara-mlx serve` has the same at /mcp.
    """
    import anyio

    from clara_mlx.serve import mcp_server
    from clara_mlx.serve.pools import Pools

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)  # standard output is MCP's
    with opened(db, model, make=True, compress=True) as memory:
        pools = Pools()
        try:
            anyio.run(mcp_server.server(memory, pools).run_stdio_async)
        finally:
            pools.close()


def _window_of(folder: Path | None) -> int | None:
    """The context length that a model folder states."""
    if folder is None:
        return None
    try:
        config = json.loads((folder.expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return None  # a folder with a tokenizer only
    length = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return length if isinstance(length, int) and length > 0 else None


def _counter(folder: Path | None, arguments: str) -> Counter | None:
    if folder is None:
        return None
    from clara_mlx.context import ChatTemplate

    try:
        options: Any = json.loads(arguments)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ClaraError(f"--template-args {arguments!r} is no JSON object")
    return ChatTemplate(folder, options)
