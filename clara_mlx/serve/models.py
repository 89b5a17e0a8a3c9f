"""``/v1/models``: the reasoner, as clients look for it."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from clara_mlx.serve.bodies import Json
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.settings import Settings


class Models:
    """``/v1/models``: the reasoner, under the one name that clients know."""

    def __init__(self, settings: Settings) -> None:
        self._model = {
            "id": settings.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "clara-mlx",
            "max_model_len": settings.budget.window,
        }

    async def list(self, request: Request) -> Response:
        """The list of the one model."""
        return Json({"object": "list", "data": [self._model]})

    async def get(self, request: Request) -> Response:
        """A model by its name."""
        name = request.path_params["name"]
        if name != self._model["id"]:
            raise ApiError(
                404,
                f"there is no model {name!r}; the only one is {self._model['id']!r}",
                code="model_not_found",
                param="model",
            )
        return Json(self._model)
