"""A reasoner that answers at once, to measure the gateway by; `through_gateway` starts it.

It speaks as much of chat completions as that takes, whole and streamed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from clara_mlx.serve import listening_socket

_WORDS = ("one", " two", " three")
_USAGE = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}


async def _complete(request: Request) -> Response:
    asked = await request.json()
    base = {"id": "bench", "created": 0, "model": "bench"}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "".join(_WORDS)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {**base, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
        return JSONResponse(whole)
    parts: list[tuple[dict[str, str], str | None]] = [
        ({"content": word}, None) for word in _WORDS
    ] + [({}, "stop")]
    events = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in parts
    ]
    events.append({**base, "choices": [], "usage": _USAGE})

    async def stream() -> AsyncIterator[str]:
        for event in events:
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


async def _list_models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": "bench", "object": "model"}]})


def main() -> None:
    """Serve on a free port; its URL is the first line on standard error."""
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", _complete, methods=["POST"]),
            Route("/v1/models", _list_models),
        ]
    )
    with listening_socket("127.0.0.1", 0) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", file=sys.stderr, flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        server.run(sockets=[listening])


if __name__ == "__main__":
    main()
