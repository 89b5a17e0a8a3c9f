"""What stands around Anthropic's Messages: counts of tokens, keys, sessions and models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from gateway import Gateway, Upstream, gateway, says
from messages_api import check_error, client_of

from clara_mlx.serve import Settings

RUN = {"name": "run", "description": "Run it.", "input_schema": {"type": "object"}}
ASKED: dict[str, Any] = {
    "model": "claude-opus-9",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
LOG = "\n".join(f"step {n}: built module_{n * 7919 % 1009}.c" for n in range(400))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    """The gateway with default settings."""
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path_factory.mktemp("plain"), url) as gate:
        yield gate, upstream


def test_tokens_are_counted_with_instructions_and_tools(plain: tuple[Gateway, Upstream]) -> None:
    gate, upstream = plain
    before = len(upstream.requests)
    client = client_of(gate)

    def count(**more: Any) -> int:
        asked = {key: value for key, value in ASKED.items() if key != "max_tokens"}
        return client.messages.count_tokens(**asked | more).input_tokens

    alone = count()
    assert 0 < alone < count(system="Be brief.") < count(system="Be brief.", tools=[RUN])
    assert count(messages=[{"role": "user", "content": LOG}]) > 1000
    large = count(messages=[{"role": "user", "content": LOG * 20}])  # is counted elsewhere
    assert large > 19 * (count(messages=[{"role": "user", "content": LOG}]) - alone)
    assert len(upstream.requests) == before
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        count(messages=[])


def test_a_token_opens_its_namespace_in_either_header(tmp_path: Path) -> None:
    red, blue = "r" * 16, "b" * 16
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, token=red, namespaces={"blue": blue}) as gate,
    ):
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client_of(gate, "x" * 16).messages.create(**ASKED)
        check_error(refused.value.response.json())
        ask_red, ask_blue = (
            client_of(gate, token).messages.with_raw_response.create for token in (red, blue)
        )
        answers = [ask_red(**ASKED), ask_blue(**ASKED)]
        # As Claude Code sends it if it is set in two places.
        answers.append(ask_red(**ASKED, extra_headers={"authorization": f"Bearer {red}"}))
        # The token is everybody's here: it does not tell conversations apart.
        assert len({answer.headers["x-clara-session"] for answer in answers}) == 1
        (of_red,) = gate.status()["conversations"]
    assert of_red["requests"] == 2


def test_claude_code_names_its_session(plain: tuple[Gateway, Upstream]) -> None:
    gate, _ = plain
    session = "1dd27e44-333e-4662-a968-2c70bf508cb1"
    answer = client_of(gate).messages.with_raw_response.create(
        **ASKED, extra_headers={"x-claude-code-session-id": session, "anthropic-beta": "a,b"}
    )
    assert answer.headers["x-clara-session"] == session


def test_one_list_of_models_for_all_clients(plain: tuple[Gateway, Upstream]) -> None:
    gate, _ = plain
    assert [model.id for model in gate.client.models.list()] == ["reasoner"]
    listed = client_of(gate).models.list().data
    assert [model.id for model in listed] == ["reasoner", "claude-reasoner"]
    assert listed[1].display_name == "reasoner" and listed[1].max_input_tokens == 28_672
    assert client_of(gate).models.retrieve("claude-reasoner").type == "model"
    with pytest.raises(openai.NotFoundError):
        gate.client.models.retrieve("gpt-9")


def test_a_conversation_has_the_limits_of_all_others() -> None:
    settings = Settings(reasoner=None)  # type: ignore[arg-type]
    assert settings.body_limit("/v1/messages/count_tokens") == settings.max_body_bytes
