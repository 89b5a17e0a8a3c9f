"""A reasoner that speaks chat completions: nothing is to be changed, only to be checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clara_mlx.serve.reasoner_apis.api import EventReader, NotAnAnswer, chunk_of
from clara_mlx.serve.reply import Object


class ChatReasoner:
    """Chat completions; see `api.ReasonerApi`."""

    path = "/chat/completions"

    def headers(self, key: str | None) -> dict[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def body(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The payload itself."""
        return payload

    def completion(self, answer: Object) -> Object:
        """The answer itself, if it is one."""
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise NotAnAnswer("is not a chat completion")
        return answer

    def events(self) -> EventReader:
        """A reader of chunks."""
        return _ChunkReader()

    def error_in(self, value: Object) -> Any:
        """What is under ``error``."""
        return value.get("error") or None


class _ChunkReader:
    """Reads chunks, and completes a stream that ends without saying why."""

    is_over = False  # the usage may come after the end; ``[DONE]`` says that it is over

    def __init__(self) -> None:
        self.finished = False

    def read(self, event: Object) -> list[Object]:
        """The chunk itself, if it is one."""
        choices = event.get("choices") or []
        if not isinstance(choices, list) or not all(
            isinstance(c, dict) and isinstance(c.get("delta") or {}, dict) for c in choices
        ):
            raise NotAnAnswer("is not a chunk of a chat completion")
        self.finished = self.finished or any(choice.get("finish_reason") for choice in choices)
        return [event]

    def end(self) -> list[Object]:
        """Nothing; or the end that the server left out."""
        if self.finished:
            return []
        self.finished = True
        return [chunk_of({}, "stop")]
