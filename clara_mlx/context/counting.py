"""Tokens of a prompt: by the reasoner's own tokenizer and chat template, or by an estimate."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from clara_mlx.context.instructions import place_instructions
from clara_mlx.context.messages import Message
from clara_mlx.context.segments import cut, cutting_pattern
from clara_mlx.errors import ClaraError
from clara_mlx.model.regular import check_folder

#: UTF-8 bytes per token in the estimate; code and paths have shorter tokens than prose.
BYTES_PER_TOKEN = 3.0

#: The same for descriptions of tools, which are prose. With the tokenizers of OpenAI (from which
#: Qwen's descends) and Mistral, those of Claude Code have 4.3 to 4.4, the rest of its tools has 3.1
#: to 3.4, and outputs of tools have 2.5 to 3.0.
PROSE_BYTES_PER_TOKEN = 4.0

#: Tokens that a template puts around a message, in the estimate.
MESSAGE_TOKENS = 8

# The first prompts are also counted whole, to see that the counts of their segments add up.
_CHECKED_PROMPTS = 8

# The number of texts whose counts are kept.
_CACHED_COUNTS = 65_536

# Roles of conversations that some templates refuse: a system message in the middle, and two
# messages of a user's in a row.
_LATE_SYSTEM_MESSAGE = ("system", "user", "assistant", "system", "user")
_USERS_IN_A_ROW = ("user", "user")

# An agent's step, as models that think in their loop have it; gpt-oss's template refuses both a
# text and a thought beside a call.
_CALL = {"id": "a" * 9, "type": "function", "function": {"name": "a", "arguments": "{}"}}
_STEP: tuple[Message, ...] = (
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "a", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "a" * 9, "content": "a"},
)


class Refused(ClaraError):
    """The reasoner's template refuses these messages; the server will, too."""


class Count(NamedTuple):
    """How large a prompt is.

    Attributes:
        tokens: Its tokens.
        exact: Whether that is the reasoner's own count.
        refused: Whether the reasoner's template is known to refuse it.
    """

    tokens: int
    exact: bool
    refused: bool = False


class Counter(Protocol):
    """Counts the tokens of texts and prompts, as the reasoner does or nearly so."""

    @property
    def exact(self) -> bool:
        """Whether `prompt` is the reasoner's own count, to the token."""
        ...

    @property
    def takes_late_system_message(self) -> bool:
        """Whether the reasoner's template accepts a system message that is not the first."""
        ...

    @property
    def takes_users_in_a_row(self) -> bool:
        """Whether the reasoner's template accepts two messages of a user's in a row."""
        ...

    @property
    def takes_thought_beside_text(self) -> bool:
        """Whether the reasoner's template accepts a call with both a text and a thought."""
        ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the whole prompt, ready for the answer."""
        ...

    def text(self, text: str) -> int:
        """Tokens of a text by itself."""
        ...


class Estimate:
    """Estimates tokens from bytes, with `MESSAGE_TOKENS` for each message; see `ToolsText`.

    Args:
        bytes_per_token: UTF-8 bytes per token.
    """

    exact = False
    takes_late_system_message = True
    takes_users_in_a_row = True
    takes_thought_beside_text = True

    def __init__(self, bytes_per_token: float = BYTES_PER_TOKEN) -> None:
        self.bytes_per_token = bytes_per_token

    def text(self, text: str) -> int:
        """Tokens of a text, rounded up."""
        size: float = len(text.encode("utf-8", "surrogatepass"))
        if isinstance(text, ToolsText):
            size -= text.prose * (1 - BYTES_PER_TOKEN / PROSE_BYTES_PER_TOKEN)
        return -int(-size // self.bytes_per_token)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the messages and the tools."""
        return rough_tokens(messages, tools, self.text)


class ChatTemplate:
    """The tokenizer and chat template of a reasoner's folder, used as ``mlx_lm.server`` does.

    A template is a program that may never end; see `counting_process.CountingProcess`.

    Args:
        folder: The reasoner's model folder.
        options: What the server was given as ``--chat-template-args``.
        loaded: Called when all is loaded, before the template is first rendered.

    Raises:
        ClaraError: The folder has no tokenizer or no chat template.
    """

    exact = True

    def __init__(
        self,
        folder: str | Path,
        options: Mapping[str, Any] | None = None,
        loaded: Callable[[], None] | None = None,
    ) -> None:
        from mlx_lm import tokenizer_utils  # imports transformers, which takes seconds

        try:
            check_folder(Path(folder).expanduser())
            self._tokenizer = tokenizer_utils.load(Path(folder).expanduser())
        except (OSError, ValueError, KeyError) as error:
            raise ClaraError(f"{folder}: no usable tokenizer: {error}") from error
        if not self._tokenizer.has_chat_template:
            raise ClaraError(
                f"{folder}: the tokenizer has no chat template; name a chat model's folder"
            )
        self._options = dict(options or {})
        # Fast tokenizers raise "Already borrowed" when threads share them.
        self._lock = threading.Lock()
        self._counts = CountCache(self._count)
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        added = backend.get_added_tokens_decoder().values() if backend is not None else ()
        self._cuts = cutting_pattern(added)
        self._checks = _CHECKED_PROMPTS
        if loaded is not None:
            loaded()
        #: Whether the template accepts a system message that is not the first; found out once.
        self.takes_late_system_message = self._accepts_roles(_LATE_SYSTEM_MESSAGE)
        #: Whether it accepts two messages of a user's in a row.
        self.takes_users_in_a_row = self._accepts_roles(_USERS_IN_A_ROW)
        #: Whether it accepts a call with both a text and a thought.
        self.takes_thought_beside_text = takes_thought_beside_text(self._accepts)

    def _accepts_roles(self, roles: Sequence[str]) -> bool:
        return self._accepts([{"role": role, "content": "a"} for role in roles])

    def _accepts(self, messages: Sequence[Message]) -> bool:
        """Whether the template renders a made-up conversation."""
        try:
            self.prompt(messages)
        except ClaraError:
            return False
        return True

    def text(self, text: str) -> int:
        """Tokens of a text by itself; recent counts are kept."""
        return self._counts(text)

    def _count(self, text: str) -> int:
        readable = text.encode("utf-8", "replace").decode()
        with self._lock:
            return len(self._tokenizer.encode(readable, add_special_tokens=False))

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the rendered prompt with the opening of the answer.

        Raises:
            Refused: The template refuses these messages; the server will, too.
        """
        try:
            given = [as_server_gives(message) for message in messages]
            return self._tokens_of(given, list(tools) if tools else None)
        except Exception as error:  # templates raise what they like
            raise Refused(f"the reasoner's chat template rejects these messages: {error}") from (
                error
            )

    def _tokens_of(self, messages: list[Message], tools: list[Any] | None) -> int:
        """The tokens of a prompt: those of its segments, most of which were counted before."""
        if self._cuts is None:
            return len(self._render(messages, tools, tokenize=True))
        rendered = str(self._render(messages, tools, tokenize=False))
        rendered.encode()  # raises what the tokenizer would for half of a character
        tokens = sum(map(self._counts, cut(rendered, self._cuts)))
        if self._checks > 0:
            self._checks -= 1
            whole = len(self._render(messages, tools, tokenize=True))
            if tokens != whole:  # a tokenizer that does more than it says
                self._cuts = None
            return whole
        return tokens

    def _render(self, messages: list[Message], tools: list[Any] | None, *, tokenize: bool) -> Any:
        """The prompt as text, or as ids."""
        with self._lock:
            return self._tokenizer.apply_chat_template(
                messages,
                tools=tools,
                add_generation_prompt=True,
                tokenize=tokenize,
                **self._options,
            )


def count_prompt(
    counter: Counter, messages: Sequence[Message], tools: Sequence[Any] | None
) -> Count:
    """The size of a prompt as it is sent; if its template refuses it, the sum of its parts."""
    try:
        return Count(counter.prompt(for_template(counter, messages), tools), counter.exact)
    except ClaraError as error:
        refused = isinstance(error, Refused)
        return Count(rough_tokens(messages, tools, counter.text), False, refused)


def takes_thought_beside_text(accepts: Callable[[Sequence[Message]], bool]) -> bool:
    """Whether a template that takes calls takes a text and a thought beside them.

    Args:
        accepts: Whether it renders a conversation.
    """
    user, call, result = _STEP
    thoughtful = [user, {**call, "reasoning_content": "a"}, result]
    return accepts(thoughtful) or not accepts(_STEP)


def for_template(counter: Counter, messages: Sequence[Message]) -> list[Message]:
    """Messages as the reasoner's template takes them; see `place_instructions`."""
    # Counters that others have written may not know.
    if not getattr(counter, "takes_thought_beside_text", True):
        messages = [_without_thought_beside_text(message) for message in messages]
    alternating = not getattr(counter, "takes_users_in_a_row", True)
    if counter.takes_late_system_message and not alternating:
        return list(messages)
    return place_instructions(messages, alternating=alternating)


def _without_thought_beside_text(message: Message) -> Message:
    if not message.get("tool_calls") or not message.get("content"):
        return message
    return {key: value for key, value in message.items() if key != "reasoning_content"}


def rough_tokens(
    messages: Sequence[Message], tools: Sequence[Any] | None, text: Callable[[str], int]
) -> int:
    """Estimate the tokens of a prompt: the sum over its messages, and its tools as JSON.

    Args:
        messages: The messages.
        tools: The tools that are sent with them.
        text: Counts the tokens of a text.
    """
    total = sum(message_tokens(message, text) for message in messages)
    return total + tokens_of_tools(tools, text)


def tokens_of_tools(tools: Sequence[Any] | None, text: Callable[[str], int]) -> int:
    """Estimate the tokens of the tools that are sent with a prompt."""
    return text(ToolsText.of(tools)) if tools else 0


class ToolsText(str):
    """Tools as JSON.

    Attributes:
        prose: Bytes of their descriptions, which are most of an agent's tools.
    """

    prose: int

    @classmethod
    def of(cls, tools: Sequence[Any]) -> ToolsText:
        """The text of some tools."""
        text = cls(json.dumps(tools))
        text.prose = _prose(tools)
        return text


def _prose(value: Any) -> int:
    """Bytes of all descriptions in a JSON value, as `json.dumps` writes them."""
    if isinstance(value, list | tuple):
        return sum(map(_prose, value))
    if not isinstance(value, dict):
        return 0
    said = value.get("description")
    own = len(json.dumps(said)) if isinstance(said, str) else 0
    return own + sum(_prose(one) for one in value.values() if isinstance(one, list | dict))


def message_tokens(message: Mapping[str, Any], text: Callable[[str], int]) -> int:
    """Estimate the tokens of one message: its texts, its calls, and what a template adds.

    Its reasoning counts: templates leave out that of earlier tasks, but an agent has one for hours.
    """
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(str(part.get("text", "")) for part in content)
    total = MESSAGE_TOKENS + text(content)
    if thought := message.get("reasoning_content"):
        total += text(str(thought))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        total += MESSAGE_TOKENS + text(str(function.get("name") or "")) + text(arguments)
    return total


def as_server_gives(message: Message) -> Message:
    """A message as ``mlx_lm.server`` gives it to the template: text content, parsed arguments."""
    copy = deepcopy(message)
    if isinstance(copy.get("content"), list):
        copy["content"] = "".join(str(part.get("text", "")) for part in copy["content"])
    elif copy.get("content") is None:
        copy["content"] = ""
    for call in copy.get("tool_calls") or ():
        function = call.get("function") or {}
        if isinstance(function.get("arguments"), str) and function["arguments"]:
            function["arguments"] = json.loads(function["arguments"])
    return copy


class CountCache:
    """Counts of recent texts, by a digest, so that long texts aren't held.

    Args:
        count: Counts a text that is not known; what it raises is raised.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._kept: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> int:
        """The tokens of a text."""
        key = sha256(text.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        tokens = self._count(text)
        with self._lock:
            self._kept[key] = tokens
            if len(self._kept) > _CACHED_COUNTS:
                self._kept.popitem(last=False)
        return tokens
