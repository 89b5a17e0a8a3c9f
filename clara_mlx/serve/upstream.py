"""One endpoint: what it answers, as chat completions, or why it can't, as one of our errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, NoReturn

import httpx2

from clara_mlx.serve import sse
from clara_mlx.serve.errors import Unavailable, error_of_event, error_of_response
from clara_mlx.serve.json_values import BadJson, read_answer, without_surrogates
from clara_mlx.serve.masking import Masking, is_this_machine
from clara_mlx.serve.reasoner_apis import REASONER_APIS, EventReader, NotAnAnswer
from clara_mlx.serve.reply import Object, first_choice
from clara_mlx.serve.settings import Remote, is_loopback

# Seconds until an endpoint that accepts no connection counts as one that can't be reached.
_CONNECT_SECONDS = 10.0

# Connections to another machine that are kept for the next requests.
_KEPT_CONNECTIONS = 20

# Seconds that they are kept: less than most servers keep theirs.
_KEPT_SECONDS = 3.0

# Bytes that are read of a response other than 200.
_ERROR_BYTES = 1 << 20

# The most seconds in which these are read.
_ERROR_SECONDS = 10.0

# Bytes of the longest answer; one of 100,000 tokens has half a MiB, with log probabilities more.
_ANSWER_BYTES = 64 << 20

# Bytes, full of small events, after which other requests get their turn.
_PIECE_BYTES = 8 << 10

# Bytes; larger answers are parsed in a thread, so that the event loop can serve other requests.
_LARGE = 1 << 18

# A thousandth of an answer's size may be compressed to, so its bytes are counted as they come.
_HEADERS = {"accept-encoding": "identity"}


class _TooLong(ValueError):
    """An answer has no end in sight."""


class Endpoint:
    """A client of one endpoint.

    Args:
        who: The name of the endpoint in errors: "the reasoner".
        remote: The endpoint's address and properties.
        mask: Mask secrets in what is sent, unless the endpoint is this machine.

    Attributes:
        who: Its name in errors.
        remote: Its address and properties.
        wants_reasoning: Whether it wants to be sent the reasoning of earlier answers: it was set
            up so, its API drops what it does not want, or it has answered with reasoning itself.
            OpenAI's API refuses such a field; DeepSeek's, which gives it, misses it in what
            follows its own calls.
    """

    def __init__(self, who: str, remote: Remote, *, mask: bool = False) -> None:
        self.who = who
        self.remote = remote
        self.wants_reasoning = remote.wants_reasoning or remote.api != "chat"
        self._api = REASONER_APIS[remote.api]()
        host = httpx2.URL(remote.base).host
        is_local = is_loopback(host)
        self._masking = Masking() if mask and not is_this_machine(host) else None
        self._client = httpx2.AsyncClient(
            headers=_HEADERS | self._api.headers(remote.key),
            timeout=httpx2.Timeout(remote.timeout, connect=_CONNECT_SECONDS, pool=None),
            # A kept connection that the server just closed would look like a failure; on this
            # machine a new one costs nothing.
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=0 if is_local else _KEPT_CONNECTIONS,
                keepalive_expiry=_KEPT_SECONDS,
            ),
            # A proxy of the environment is for the network, not for this machine.
            trust_env=not is_local,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def ask(self, payload: Mapping[str, Any]) -> AsyncGenerator[Object | sse.Comment]:
        """The chunks and the keep-alives of a stream; without ``stream``, one whole answer.

        Raises:
            Unavailable: The endpoint could not answer, or its answer has no end.
            ApiError: The endpoint refuses the request.
        """
        if not payload.get("stream"):
            answer = await self._complete(payload)
            self._learn(answer, "message")
            yield answer
            return
        async with aclosing(self._stream(payload)) as events:
            async for event in events:
                if not isinstance(event, sse.Comment):
                    self._learn(event, "delta")
                yield event

    def _learn(self, piece: Object, name: str) -> None:
        """Note whether the endpoint answers with reasoning."""
        if not self.wants_reasoning:
            said = ((first_choice(piece) or {}).get(name)) or {}
            self.wants_reasoning = bool(said.get("reasoning_content"))

    async def _complete(self, payload: Mapping[str, Any]) -> Object:
        """A chat completion in one piece, with at least one choice."""
        try:
            async with asyncio.timeout(self.remote.timeout), self._open(payload) as response:
                content = b"".join([piece async for piece in _read_pieces(response)])
        except (httpx2.TransportError, _TooLong) as error:
            raise self._unavailable(error) from error
        except TimeoutError:
            message = f"{self.who} took longer than {self.remote.timeout:g} seconds"
            raise Unavailable("timeout", message) from None
        try:
            if len(content) > _LARGE:
                value = await asyncio.to_thread(read_answer, content)
            else:
                value = read_answer(content)
            if not isinstance(value, dict):
                raise NotAnAnswer("is not a JSON object")
            self._raise_if_error(value)
            return self._api.completion(value)
        except (BadJson, NotAnAnswer) as error:
            raise Unavailable("broken", f"the answer of {self.who} {error}") from error

    async def _stream(self, payload: Mapping[str, Any]) -> AsyncGenerator[Object | sse.Comment]:
        """The chunks and the keep-alives of a chat completion, up to a proper end."""
        reader = self._api.events()
        async with self._open(payload) as response:
            if "text/event-stream" not in response.headers.get("content-type", ""):
                await self._raise_what_it_says(response)
            try:
                async with aclosing(sse.read_events(_read_pieces(response))) as events:
                    async for event in events:
                        if isinstance(event, sse.Comment):
                            yield event
                            continue
                        if event.strip() == "[DONE]":
                            for chunk in reader.end():
                                yield chunk
                            break
                        for chunk in self._chunks_of(event, reader):
                            yield chunk
                        if reader.is_over:
                            break
            except (httpx2.TransportError, sse.TooLong, _TooLong) as error:
                raise self._unavailable(error) from error
        if not reader.finished:
            raise Unavailable("broken", f"{self.who} broke off in its answer")

    async def _raise_what_it_says(self, response: httpx2.Response) -> NoReturn:
        """Raise what a response means that is not the stream which was asked for."""
        value = None
        with suppress(BadJson):
            value = read_answer(await _read_beginning(response))
        if isinstance(value, dict):
            self._raise_if_error(value)
        raise Unavailable("broken", f"{self.who} does not stream its answer")

    def _raise_if_error(self, value: Object) -> None:
        """Raise the error that an answer or an event is, if it is one."""
        found = self._api.error_in(value)
        if found is not None:
            raise error_of_event(self.who, found)

    def _chunks_of(self, text: str, reader: EventReader) -> list[Object]:
        """The chunks in an event's data; raises the error that the data is instead."""
        try:
            value = read_answer(text.encode("utf-8", "replace"))
        except BadJson as error:
            raise Unavailable("broken", f"{self.who} sent an event that {error}") from error
        if not isinstance(value, dict):
            raise Unavailable("broken", f"{self.who} sent an event that is not a JSON object")
        self._raise_if_error(value)
        try:
            return reader.read(value)
        except NotAnAnswer as error:
            raise Unavailable("broken", f"{self.who} sent an event that {error}") from error

    @asynccontextmanager
    async def _open(self, payload: Mapping[str, Any]) -> AsyncIterator[httpx2.Response]:
        """Send a request; gives the response with status 200, its body yet to be read."""
        url = self.remote.base + self._api.path
        if self._masking is not None:
            payload = await asyncio.to_thread(self._masking.masked, payload)
        text = json.dumps(self._api.body(payload), ensure_ascii=False, allow_nan=False)
        # Lone surrogates have no bytes in UTF-8.
        content = without_surrogates(text).encode()
        request = self._client.build_request(
            "POST", url, content=content, headers={"content-type": "application/json"}
        )
        try:
            # The timeout of the client is between two pieces, of headers as well.
            async with asyncio.timeout(self.remote.timeout):
                response = await self._client.send(request, stream=True)
        except TimeoutError:
            raise self._silent() from None
        except httpx2.TransportError as error:
            raise self._unavailable(error) from error
        try:
            coding = response.headers.get("content-encoding", "identity")
            if coding.strip().lower() not in ("", "identity"):
                raise Unavailable(
                    "broken", f"{self.who} sends {coding[:40]!r}, though it was asked not to"
                )
            status = response.status_code
            if status != 200:
                said = await _read_beginning(response)
                raise error_of_response(self.who, status, said, response.headers)
            yield response
        finally:
            await response.aclose()

    def _silent(self) -> Unavailable:
        message = f"{self.who} was silent for {self.remote.timeout:g} seconds"
        return Unavailable("timeout", message)

    def _unavailable(self, error: Exception) -> Unavailable:
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
            return self._silent()
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            address = httpx2.URL(self.remote.base).netloc.decode()
            return Unavailable("connection", f"{self.who} can't be reached at {address}: {reason}")
        return Unavailable("broken", f"{self.who} broke off: {reason}")


async def _read_pieces(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """The pieces of a response's body, as they come."""
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > _ANSWER_BYTES:
            raise _TooLong(f"an answer of more than {_ANSWER_BYTES} bytes")
        for start in range(0, len(piece), _PIECE_BYTES):
            yield piece[start : start + _PIECE_BYTES]
            await asyncio.sleep(0)


async def _read_beginning(response: httpx2.Response) -> bytes:
    """The beginning of a response's body."""
    content = bytearray()
    try:
        async with asyncio.timeout(_ERROR_SECONDS):
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > _ERROR_BYTES:
                    break
    except (httpx2.TransportError, TimeoutError):
        pass  # the status says enough
    return bytes(content[:_ERROR_BYTES])
