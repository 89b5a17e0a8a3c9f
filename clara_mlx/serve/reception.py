"""Takes chat requests, and puts each conversation on the desk where it will be prepared."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request

from clara_mlx.context import Context
from clara_mlx.serve.apis import Api
from clara_mlx.serve.bodies import parse_content, read_content
from clara_mlx.serve.callers import read_caller
from clara_mlx.serve.desk import Desk, read_desk
from clara_mlx.serve.distant_desk import DistantDesk
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing import Preparer
from clara_mlx.serve.preparing_process import PreparingProcess
from clara_mlx.serve.settings import Settings

# Heavy requests that may wait to be read, each with its body; more are told to come again.
_MOST_WAITING = 16

# What these are told to wait, in seconds.
_RETRY_AFTER = "5"


class Reception:
    """Reads chat requests.

    Args:
        settings: The settings of the gateway.
        context: The conversations' memory.
        pools: The threads in which they are read.
        process: Where heavy ones are prepared.
    """

    def __init__(
        self, settings: Settings, context: Context, pools: Pools, process: PreparingProcess
    ) -> None:
        self._settings = settings
        self._context = context
        self._pools = pools
        self._process = process
        self._preparer = Preparer(settings, context)
        self._waiting = 0

    async def receive(self, http: Request, api: Api) -> Desk:
        """Read a request of an API, and find a desk for its conversation.

        Raises:
            ApiError: The request is refused.
        """
        caller = read_caller(http.headers, self._settings.tokens.values())
        content = await read_content(http, self._settings.body_seconds)
        if len(content) <= self._settings.heavy_bytes:
            read = partial(read_desk, self._preparer, self._context, api.name, content, caller)
            return await parse_content(content, read)
        if self._waiting >= _MOST_WAITING:
            raise ApiError(
                503,
                f"{_MOST_WAITING} large requests wait to be read already; try again in "
                f"{_RETRY_AFTER} seconds",
                code="busy",
                retry=True,
                retry_after=_RETRY_AFTER,
            )
        self._waiting += 1
        try:
            memory = str(self._context.memory.path)
            self._process.cache = self._context.budget.cache
            read_there = partial(DistantDesk, self._process, memory, api.name, content, caller)
            return await self._pools.prepare(read_there, distant=True)
        finally:
            self._waiting -= 1
