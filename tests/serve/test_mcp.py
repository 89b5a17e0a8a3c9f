"""The memory as MCP tools, with the official client over both transports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from gateway import Gateway, Upstream, gateway, says
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from clara_mlx.memory import Memory

LOG = "\n".join(f"step {number}: gadget {number * 7}" for number in range(900))


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path_factory.mktemp("mcp"), url) as made,
    ):
        yield made


def over_stdio(db: Path) -> Any:
    code = "from clara_mlx.cli.serve import commands; commands()"
    command = StdioServerParameters(
        command=sys.executable, args=["-c", code, "mcp", "--db", str(db)], env=dict(os.environ)
    )
    return stdio_client(command)


async def scenario(client: Client) -> None:
    listed = (await client.list_tools()).tools
    assert [tool.name for tool in listed] == ["remember", "recall", "ask_memory", "expand"]
    assert all(tool.description and tool.output_schema is None for tool in listed)

    async def call(name: str, *, fails: bool = False, **arguments: Any) -> str:
        result = await client.call_tool(name, arguments)
        assert bool(result.is_error) == fails, result
        (content,) = result.content
        assert len(content.text) < 13_000  # small, whatever is behind it
        return str(content.text)

    handle = await call("remember", text=LOG, source="log", session="one")
    await call("remember", text="a gadget of another session", session="two")
    page = await call("expand", handle=handle)
    assert page.startswith(f"[{handle} lines 1-200 of 900; next: start_line=201]\nstep 0: gadget 0")
    assert "step 250: gadget 1750" in await call("expand", handle=handle, start_line=201)
    assert "\n500: step 499: gadget 3493" in await call("expand", handle=handle, find="3493")
    first = await call("recall", query="gadget", session="one")
    assert first.endswith("(more: page=2)")
    assert first != await call("recall", query="gadget", session="one", page=2)
    assert "another session" in await call("recall", query="gadget another", session="two")
    assert "No more" in await call("recall", query="gadget", page=40)
    assert "Nothing" in await call("recall", query="xylophone")
    asked = await call("ask_memory", question="step 777 gadget 5439")
    assert asked.startswith(f"[{handle}: ") and "\n778: step 777: gadget 5439" in asked
    assert "no memory" in await call("expand", handle="m-0000000000", fails=True)
    await call("recall", query="x", page=0, fails=True)
    await call("remember", fails=True)


def test_streamable_http(gate: Gateway) -> None:
    async def run() -> None:
        async with Client(f"{gate.url}/mcp") as client:
            await scenario(client)
        # The older handshake, which most clients still begin with.
        async with Client(streamable_http_client(f"{gate.url}/mcp"), mode="legacy") as client:
            assert len((await client.list_tools()).tools) == 4
            handle = gate.memory.remember("half \ud83d of a pair")  # UTF-8 can't write it
            (content,) = (await client.call_tool("expand", {"handle": handle})).content
            assert content.text.endswith("half \ufffd of a pair")

    anyio.run(run)


def test_wrong_arguments_are_said_in_words(gate: Gateway) -> None:
    handle = gate.memory.remember("one\ntwo")
    accept = {"accept": "application/json, text/event-stream"}
    for name, arguments, words in (
        ("expand", {"handle": handle, "start_line": "x"}, "start_line: Input should be a valid"),
        ("expand", {"start_line": 0}, "handle: Field required; start_line: Input should be"),
        ("recall", {"query": "x", "page": 99}, "page: Input should be less than or equal to 40"),
    ):
        call = {"name": name, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        result = gate.http.post("/mcp/", json=body, headers=accept).json()["result"]
        text = result["content"][0]["text"]
        assert result["isError"] and text.startswith(f"{name} can't be called so: ")
        assert words in text and "pydantic" not in text and "validation" not in text


def test_the_server_has_nothing_to_say_by_itself(gate: Gateway) -> None:
    assert gate.http.get("/mcp", headers={"accept": "text/event-stream"}).status_code == 405


def test_errors_of_the_sdk_have_the_shape_of_all_errors(gate: Gateway) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for headers, status in [
        ({"content-type": "text/plain"}, 400),
        ({"accept": "text/html", "mcp-protocol-version": "1"}, 406),
    ]:
        answer = gate.http.post("/mcp", json=body, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-should-retry"] == "false" or "jsonrpc" in answer.json()
        assert answer.json()["error"]["message"]


def test_stdio(tmp_path: Path) -> None:
    async def run() -> None:
        async with Client(over_stdio(tmp_path / "agent.db")) as client:
            await scenario(client)

    anyio.run(run)
    with Memory.open(tmp_path / "agent.db") as memory:
        assert memory.status().memories == 2 and not memory.verify().problems
