"""``/v1/models``: the reasoner, in a form that the clients of every API read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from clara_mlx.serve.bodies import Json
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.model_catalog import catalog_entry
from clara_mlx.serve.settings import Settings

# What Claude Code's list of a gateway's models takes: names that begin with claude or anthropic.
_CLAUDE = "claude-"


class Models:
    """``/v1/models``: the reasoner, under the one name that clients know.

    Requests may call it by any name. Clients of Anthropic's API, who say so in a header, are shown
    it a second time under a name that Claude Code offers in its menu. Codex, which states its
    version, gets it also as its own catalogue has models.
    """

    def __init__(self, settings: Settings) -> None:
        self._created = int(time.time())
        self._window = settings.budget.window
        self._limit = settings.budget.limit
        self._model = self._entry(settings.name, settings.name)
        self._codex = catalog_entry(settings)
        self._alias = self._entry(_CLAUDE + settings.name, settings.name)

    async def list(self, request: Request) -> Response:
        """The list of the one model."""
        models = [self._model]
        if "anthropic-version" in request.headers:
            models.append(self._alias)
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"], "has_more": False}
        codex = {"models": [self._codex]} if "client_version" in request.query_params else {}
        return Json({"object": "list", "data": models, **ends, **codex})

    async def get(self, request: Request) -> Response:
        """A model by its name."""
        name = request.path_params["name"]
        for model in (self._model, self._alias):
            if name == model["id"]:
                return Json(model)
        raise ApiError(
            404,
            f"there is no model {name!r}; the only one is {self._model['id']!r}",
            code="model_not_found",
            param="model",
        )

    def _entry(self, name: str, shown: str) -> dict[str, Any]:
        """A model with the fields of OpenAI's, vLLM's and Anthropic's lists."""
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "clara-mlx",
            "max_model_len": self._window,
            "type": "model",
            "display_name": shown,
            "created_at": datetime.fromtimestamp(self._created, UTC).isoformat(),
            "lifecycle": "active",
            "max_input_tokens": self._limit,
            "max_tokens": self._window - self._limit,
        }
