"""``/v1/messages/count_tokens``: how long a prompt would be, by the reasoner's own count."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from clara_mlx.serve.apis import APIS
from clara_mlx.serve.bodies import Json
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.reception import Reception

#: Where clients ask how long a prompt is, before they send it.
COUNT_TOKENS = "/v1/messages/count_tokens"


class TokenCounts:
    """Counts the tokens of requests that are not answered.

    Args:
        reception: Reads them.
        pools: The threads in which they are counted.
    """

    def __init__(self, reception: Reception, pools: Pools) -> None:
        self._reception = reception
        self._pools = pools

    async def count(self, http: Request) -> Response:
        """The tokens of instructions, messages and tools, as they came: nothing is compacted.

        Raises:
            ApiError: The request is refused.
        """
        desk = await self._reception.receive(http, APIS["messages"])
        tokens = await self._pools.prepare(desk.count, distant=desk.is_distant)
        return Json({"input_tokens": tokens})
