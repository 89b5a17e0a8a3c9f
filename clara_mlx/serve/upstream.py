"""One OpenAI-compatible endpoint: what it answers, and in our terms why it does not."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import httpx2

from clara_mlx.serve import sse
from clara_mlx.serve.errors import Unavailable, of_answer, of_event
from clara_mlx.serve.settings import Remote, is_loopback

# Of an answer that is no success, no more is read.
_MOST_ERROR = 1 << 20

#: A JSON object.
Object = dict[str, Any]


class Endpoint:
    """A client of one endpoint.

    Args:
        who: what it is called in errors.
        remote: where and how.
    """

    def __init__(self, who: str, remote: Remote) -> None:
        self.who, self.remote = who, remote
        host = httpx2.URL(remote.base).host
        headers = {"authorization": f"Bearer {remote.key}"} if remote.key else {}
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(remote.timeout, connect=10.0, pool=None),
            # A kept connection that the server just closed would look like a failure; on this
            # machine a new one costs nothing.
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=0 if is_loopback(host) else 20,
                keepalive_expiry=3.0,
            ),
            # A proxy of the environment is for the network, not for this machine.
            trust_env=not is_loopback(host),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def complete(self, payload: Mapping[str, Any]) -> Object:
        """A chat completion in one piece, with at least one choice.

        Raises:
            Unavailable: the endpoint could not answer.
            ApiError: it does not take the request.
        """
        async with self._answer(payload) as answer:
            try:
                content = await answer.aread()
            except httpx2.TransportError as error:
                raise self._failure(error) from error
        try:
            value = json.loads(content)
            if isinstance(value["choices"][0]["message"], dict):
                return cast(Object, value)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise Unavailable("broken", f"{self.who} answered something that is no chat completion")

    async def stream(self, payload: Mapping[str, Any]) -> AsyncGenerator[Object | sse.Comment]:
        """The chunks and the keep-alives of a chat completion.

        Raises:
            Unavailable: the endpoint could not answer, or its answer has no end.
            ApiError: it does not take the request.
        """
        finished = False
        async with self._answer(payload) as answer:
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                raise Unavailable("broken", f"{self.who} does not stream its answer")
            try:
                async with aclosing(sse.read(answer.aiter_bytes())) as events:
                    async for event in events:
                        if isinstance(event, sse.Comment):
                            yield event
                            continue
                        if event.text.strip() == "[DONE]":
                            break
                        chunk = self._chunk(event.text)
                        finished = finished or _finishes(chunk)
                        yield chunk
            except (httpx2.TransportError, sse.TooLong) as error:
                raise self._failure(error) from error
        if not finished:
            raise Unavailable("broken", f"{self.who} broke off in its answer")

    def _chunk(self, text: str) -> Object:
        try:
            chunk = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unavailable("broken", f"{self.who} sent an event that is not JSON") from error
        if not isinstance(chunk, dict):
            raise Unavailable("broken", f"{self.who} sent an event that is no chunk")
        if chunk.get("error"):
            raise of_event(self.who, chunk["error"])
        choices = chunk.get("choices") or []
        if not all(isinstance(c, dict) and isinstance(c.get("delta") or {}, dict) for c in choices):
            raise Unavailable("broken", f"{self.who} sent an event that is no chunk")
        return chunk

    @asynccontextmanager
    async def _answer(self, payload: Mapping[str, Any]) -> AsyncIterator[httpx2.Response]:
        url = self.remote.base + "/chat/completions"
        # Lone surrogates have no bytes in UTF-8: they are sent as question marks.
        content = json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
        request = self._client.build_request(
            "POST", url, content=content, headers={"content-type": "application/json"}
        )
        try:
            answer = await self._client.send(request, stream=True)
        except httpx2.TransportError as error:
            raise self._failure(error) from error
        try:
            if answer.status_code != 200:
                after = answer.headers.get("retry-after")
                raise of_answer(self.who, answer.status_code, await _beginning(answer), after)
            yield answer
        finally:
            await answer.aclose()

    def _failure(self, error: Exception) -> Unavailable:
        told = str(error) or type(error).__name__
        if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
            return Unavailable(
                "timeout", f"{self.who} said nothing for {self.remote.timeout:g} seconds"
            )
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return Unavailable("connection", f"{self.who} can't be reached: {told}")
        return Unavailable("broken", f"{self.who} broke off: {told}")


async def _beginning(answer: httpx2.Response) -> bytes:
    content = b""
    try:
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > _MOST_ERROR:
                break
    except httpx2.TransportError:
        pass  # the status says enough
    return content


def _finishes(chunk: Object) -> bool:
    return any(choice.get("finish_reason") for choice in chunk.get("choices") or [])
