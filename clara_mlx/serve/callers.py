"""Who sends a request, and what its conversation is called.

Clients seldom say which conversation a request belongs to, and what they do say was made for other
purposes: to find a cache, to count a person's use. `IDENTIFIERS` says what each is worth here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import Headers

from clara_mlx.context.messages import Message
from clara_mlx.context.view import session_of
from clara_mlx.serve.errors import ApiError
from clara_mlx.store.fields import LONGEST_NAME

#: The header that names a conversation.
SESSION = "x-clara-session"

#: The header that names the folder a conversation works in, for agents that don't tell the model.
PROJECT = "x-clara-project"

# Characters of a program's name.
_LONGEST_AGENT = 64

_SESSION = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)

#: "conversation": where a value is random, no two conversations have the same one by accident, and
#: it is the conversation's name. "caller": it tells people, programs or caches apart, and several
#: conversations may share it; it is mixed into the name that the first message gives.
Kind = Literal["conversation", "caller"]


@dataclass(frozen=True)
class Identifier:
    """Something in a request that tells it from others."""

    place: str  # a header's name; or, after ``body.``, the path of a field
    kind: Kind
    reason: str  # who sends it, and why it is of this kind


#: What is looked at. Of several that name a conversation, the first counts.
IDENTIFIERS = (
    Identifier(
        "x-claude-code-session-id", "conversation", "Claude Code: a random UUID per session"
    ),
    Identifier(
        "body.metadata.user_id",
        "conversation",
        "Claude Code before it had the header: a session's UUID beside the account; other clients "
        "put a person here, which then only tells callers apart",
    ),
    Identifier("thread-id", "conversation", "Codex: a UUID per thread; its agents have their own"),
    Identifier("x-codex-parent-thread-id", "conversation", "Codex: the thread of who started it"),
    Identifier("session-id", "conversation", "Codex: the UUID of a thread and of all its agents"),
    Identifier(
        "session_id", "conversation", "older versions of Codex; pi, which has it from its session"
    ),
    Identifier("x-opencode-session", "conversation", "opencode: a random id per session"),
    Identifier(
        "x-session-id",
        "conversation",
        "opencode and crush: a random id per session; others hash the first messages, which twins "
        "have in common, so what is not random only tells callers apart",
    ),
    Identifier("x-litellm-session-id", "conversation", "what LiteLLM's clients name a session by"),
    Identifier("x-openwebui-chat-id", "conversation", "Open WebUI: a UUID per chat"),
    Identifier("body.session_id", "conversation", "OpenRouter's clients: a session"),
    Identifier("body.metadata.session_id", "conversation", "clients of LiteLLM: a session"),
    Identifier(
        "x-session-affinity",
        "caller",
        "opencode sends its session, nanobot a random id per process: it finds a warm cache",
    ),
    Identifier(
        "body.prompt_cache_key",
        "caller",
        "Codex sends its thread; OpenAI asks for whatever shares a beginning, such as a hash of "
        "the instructions, which all users of a program have in common",
    ),
    Identifier("body.user", "caller", "OpenAI: the person behind a program"),
    Identifier("body.safety_identifier", "caller", "OpenAI: the same, hashed"),
    Identifier("x-openwebui-user-id", "caller", "Open WebUI: the person"),
    Identifier("x-openwebui-user-email", "caller", "Open WebUI: the person"),
    Identifier("x-api-key", "caller", "clients of Anthropic's API: the key they were given"),
    Identifier("authorization", "caller", "all others: the key they were given"),
)

# A UUID of the versions that are random: 4, and 7, which begins with the time.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

# Letters and digits in a row that are random enough if they have both cases and digits; a hash,
# which equal contents have in common, is written in one case.
_RANDOM_CHARACTERS = 16


@dataclass(frozen=True)
class Name:
    """A conversation's name."""

    text: str
    certain: bool  # whether no other conversation has it; one made from the first message may be
    # Names of conversations that it may have begun in: agents of Codex get what came before them.
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caller:
    """What a request's headers say of who sends it.

    Attributes:
        explicit: The name that the client gives its conversation, if any.
        values: The values of `IDENTIFIERS` in the headers, by place.
        agent: The program that sends it, as it calls itself; empty if it does not say.
        project: The folder that it says it works in; empty if it does not say.
    """

    explicit: str | None
    values: Mapping[str, str]
    agent: str = ""
    project: str = ""

    @property
    def key(self) -> str:
        """Names the caller: requests of two callers are two, even if their bodies are one."""
        return json.dumps([self.explicit, sorted(self.values.items())])


def read_caller(headers: Headers, tokens: Collection[str] = ()) -> Caller:
    """Read who sends a request.

    Args:
        headers: Those of the request.
        tokens: Those that clients of this gateway must send. Such a key says nothing more of who
            sends it than the namespace does.

    Raises:
        ApiError: The conversation's name is not one that a header can carry back.
    """
    explicit = headers.get(SESSION)
    if explicit is not None and not _SESSION.fullmatch(explicit):
        raise ApiError(
            400, f"{SESSION} must be 1 to 128 letters, digits or characters of . : @ / + = - _"
        )
    places = [one.place for one in IDENTIFIERS if not one.place.startswith("body.")]
    values = {place: value for place in places if (value := headers.get(place))}
    if tokens:
        values.pop("authorization", None)
    key = values.get("x-api-key", "").strip().encode("utf-8", "surrogateescape")
    if any(hmac.compare_digest(key, token.encode()) for token in tokens):
        del values["x-api-key"]
    project = headers.get(PROJECT, "").strip()[:LONGEST_NAME]
    return Caller(explicit, values, _agent(headers.get("user-agent", "")), project)


def _agent(user_agent: str) -> str:
    """A program's name without its version: ``claude-cli`` of ``claude-cli/2.1.0 (external)``."""
    program = user_agent.partition(" ")[0]
    name, _, version = program.rpartition("/")
    named = name if name and version[:1].isdigit() else program
    return named[:_LONGEST_AGENT] if named.isprintable() else ""


def name_conversation(
    caller: Caller, options: Mapping[str, Any], messages: Sequence[Message]
) -> Name:
    """The name of a request's conversation.

    Args:
        caller: Who sends it.
        options: The fields of its body.
        messages: Its messages.
    """
    if caller.explicit:
        return Name(caller.explicit, certain=True)
    values = dict(caller.values)
    for identifier in IDENTIFIERS:
        place, _, path = identifier.place.partition("body.")
        if not place and (value := _field(options, path)):
            values[identifier.place] = value
    named = [
        _session_in(one.place, values.get(one.place, ""))
        for one in IDENTIFIERS
        if one.kind == "conversation"
    ]
    sessions = [one for one in named if is_random(one) and _SESSION.fullmatch(one)]
    if sessions:
        return Name(sessions[0], True, tuple(dict.fromkeys(sessions[1:])))
    # Without anything to mix in, the name is the one that it was before callers were told apart.
    written = json.dumps(sorted(values.items())).encode() if values else b""
    return Name(session_of(messages, hashlib.sha256(written).digest() if written else b""), False)


def is_random(text: str) -> bool:
    """Whether a text looks so random that nobody else has the same one by accident."""
    if _UUID.fullmatch(text.lower()):
        return True
    runs = re.findall(r"[0-9A-Za-z]+", text)
    return any(len(run) >= _RANDOM_CHARACTERS and _is_mixed(run) for run in runs)


def _is_mixed(run: str) -> bool:
    kinds = (str.isdigit, str.isupper, str.islower)
    return all(any(map(kind, run)) for kind in kinds)


def _field(options: Mapping[str, Any], path: str) -> str:
    """A field of the body that is a text, or nothing."""
    value: Any = options
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _session_in(place: str, value: str) -> str:
    """The text in a value that may name a conversation."""
    if place != "body.metadata.user_id":
        return value
    # Claude Code has written ``user_HASH_account_UUID_session_UUID``, and later JSON with a
    # ``session_id``; any other value is a person's.
    marked = value.rpartition("_session_")
    if marked[1]:
        return marked[2]
    try:
        given = json.loads(value)
    except (ValueError, RecursionError):
        return ""
    session = given.get("session_id") if isinstance(given, dict) else None
    return session if isinstance(session, str) else ""
