"""What an API that a reasoner speaks is made of; each is one module beside this one.

The gateway itself knows chat completions only: it makes their bodies and takes their chunks. A
module here turns such a body into that of its API, and that API's answers and events back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from clara_mlx.serve.reply import Object


class NotAnAnswer(ValueError):
    """What an endpoint sent has not the form of its API."""


class EventReader(Protocol):
    """Reads the events of one stream.

    Attributes:
        finished: Whether the stream has come to a proper end.
        is_over: Whether nothing comes after what was read.
    """

    finished: bool
    is_over: bool

    def read(self, event: Object) -> list[Object]:
        """The chunks of a chat completion that an event amounts to, often one, or none.

        Raises:
            NotAnAnswer: The event has not the form of the API.
        """

    def end(self) -> list[Object]:
        """The chunks that are left when the server says that there is no more."""


class ReasonerApi(Protocol):
    """One of the APIs that a reasoner may speak.

    Attributes:
        path: What follows an endpoint's base URL.
    """

    path: str

    def headers(self, key: str | None) -> dict[str, str]:
        """The headers of each request; ``key`` is what the endpoint asks for, if anything."""

    def body(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body of a request.

        Args:
            payload: The same as a body of chat completions.

        Raises:
            ApiError: The API has no form for a part of it.
        """

    def completion(self, answer: Object) -> Object:
        """The chat completion that a whole answer amounts to; it has at least one choice.

        Raises:
            NotAnAnswer: The answer has not the form of the API.
        """

    def events(self) -> EventReader:
        """A reader for the events of one stream."""

    def error_in(self, value: Object) -> Any:
        """The error that an answer or an event is, in any form; None if it is none."""


def chunk_of(
    delta: Object, finish: str | None = None, usage: Object | None = None, **more: Any
) -> Object:
    """A chunk of a chat completion with one choice."""
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return chunk if usage is None else {**chunk, "usage": usage}


def usage_of(prompt: int, completion: int, cached: int) -> Object:
    """The usage of a chat completion, in tokens; those that were cached are among the prompt's."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
