"""What an API that clients speak is made of; each is one module beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.runs import Run


class Writer(Protocol):
    """Writes one answer, over all its rounds, in the client's form: whole or as a stream.

    Attributes:
        text: The text of all rounds that the client has, or will get.
        begun: Whether a part was sent, so that no other model can continue the answer.
    """

    text: str
    begun: bool

    def begin_round(self, prompt: Prompt) -> None:
        """Separate the text of the next round from what there is.

        Args:
            prompt: What the reasoner is sent in it.
        """

    def write(self, model: str, piece: Object, delta: Object | None) -> None:
        """Write a piece of a stream, or note a whole answer.

        Args:
            model: The name of the model that answers.
            piece: The chunk, or the chat completion, as it came from the endpoint.
            delta: What the client may see of it, if anything: a delta of a chat completion with
                ``content``, ``reasoning_content`` or ``tool_calls``.
        """

    def finish(self, reply: Reply) -> None:
        """Write the whole answer, or the end of the stream; ``reply`` is that of the last round."""


class Api(Protocol):
    """One of the APIs: a request read into the inner form, an answer written back.

    Attributes:
        name: Names it, also between processes.
        path: The path of its requests.
    """

    name: str
    path: str

    def read(self, body: Mapping[str, Any], caller: str | None) -> ChatRequest:
        """Check the body of a request and bring it into the inner form.

        Args:
            body: The body.
            caller: What else tells the request from others with the same body.

        Raises:
            ApiError: The request is refused.
        """

    def writer(self, request: ChatRequest, run: Run) -> Writer:
        """What writes the answer to a request into a run."""

    def error_body(self, error: ApiError) -> Object:
        """The JSON body of an error."""

    def error_event(self, error: ApiError) -> bytes:
        """The event that ends a stream which has begun already."""

    def keepalive(self, text: str) -> bytes:
        """What keeps a silent stream open.

        Args:
            text: Why it is silent, for clients that show it.
        """
