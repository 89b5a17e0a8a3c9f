"""ClaraMemoryManager: CompyMac's MemoryManager, with every original kept and a stable prefix."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from clara_mlx.compymac.facts import SUMMARY_BEGINS, MemoryState, progress
from clara_mlx.compymac.messages import (
    ConfigCounter,
    ContextConfig,
    as_dict,
    count_tools,
    like,
    role_of,
)
from clara_mlx.compymac.settings import Settings, shared_memory
from clara_mlx.context import folds, wording
from clara_mlx.context.budget import Budget, ContextOverflow
from clara_mlx.context.cache_kinds import cache_of_folder
from clara_mlx.context.conversation import Context
from clara_mlx.context.counting import ChatTemplate, Counter
from clara_mlx.context.kept import is_recalled
from clara_mlx.context.messages import (
    Message,
    Piece,
    calls_by_result,
    calls_in,
    content_text,
    head_length,
    is_instruction,
    pieces,
    replace_texts,
    units,
)
from clara_mlx.context.strategy import cached_tokens, exchange_of
from clara_mlx.memory import Memory
from clara_mlx.tool_outputs.quoting import one_line, role_label

logger = logging.getLogger(__name__)

# A compression that nobody asked for must free at least this share of the tokens.
_LEAST = 0.1

# As long as any handle: it shows what a compression would give before anything is kept for it.
_ANY_HANDLE = "m-000000000000"

# The summary may take this share of the budget; a longer one would soon have to be compressed.
_SUMMARY_SHARE = 0.25

# `process_messages` reads the facts of this many newest messages.
_NEWEST = 4

# The most characters of a summary by the LLM client.
_SUMMARY_CHARACTERS = 500

# The number of newest messages that it summarises.
_SUMMARISED_MESSAGES = 20

# Characters of each of them that it reads.
_SUMMARISED_CHARACTERS = 500


class ClaraMemoryManager:
    """A drop-in for CompyMac's ``MemoryManager``.

    What is compressed goes to the memory first, whole. One message, the summary, then stands for
    it, with the frozen blocks of what it was. Between two compressions the messages stay as they
    are, byte for byte.

    Args:
        config: CompyMac's ContextConfig; by default the same fields are read from the same
            environment variables.
        llm_client: CompyMac's client of a model; only `generate_summary_llm` uses it.
        keep_recent_turns: The number of newest turns (two messages each) that stay. A call is
            never separated from its results, so a turn may be longer.
        compression_threshold: The utilisation above which `process_messages` compresses.
        max_memory_tokens: Tokens that the summary may have, about, up to a quarter of the budget.
        memory: The memory that keeps the originals; by default the environment's, see `Settings`,
            which is opened when it is first needed. It works without a model, too.
        settings: Settings in place of the environment's.

    Attributes:
        offered: Gives the tools that are offered with the messages; they count, too.
    """

    def __init__(
        self,
        config: Any = None,
        llm_client: Any = None,
        keep_recent_turns: int = 4,
        compression_threshold: float = 0.80,
        max_memory_tokens: int = 2000,
        *,
        memory: Memory | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.config = config or ContextConfig.from_env()
        self.llm_client = llm_client
        self.keep_recent_turns = keep_recent_turns
        self.compression_threshold = compression_threshold
        self.max_memory_tokens = max_memory_tokens
        self.settings = settings or Settings.from_env()
        self.state = MemoryState()
        self.offered: Callable[[], Sequence[Any]] = tuple
        self._memory = memory
        self._context: Context | None = None
        self._read: set[bytes] = set()  # digests of the messages whose facts were extracted
        self._in_place = False  # whether messages were ever sent with blocks in place
        if memory is None and self.settings.model is None:
            logger.info("CLARA_MLX_MODEL is not set: only originals, handles and text search work")

    @property
    def context(self) -> Context:
        """The context that keeps the conversation within its budget; made when first needed."""
        if self._context is None:
            counter: Counter = ConfigCounter(self.config.chars_per_token)
            if self.settings.reasoner:
                counter = ChatTemplate(self.settings.reasoner)
            window = self.config.token_budget
            reserve = self.config.reserved_for_response
            cache = cache_of_folder(self.settings.reasoner) if self.settings.reasoner else None
            keep = max(1, self.keep_recent_turns)
            budget = Budget(window, reserve, keep=keep, fold=False, cache=cache or "trimmable")
            memory = self._memory or shared_memory(self.settings)
            self._context = Context(memory, counter, budget)
        return self._context

    # -- estimates -------------------------------------------------------------------------------

    def estimate_tokens(self, text: str) -> int:
        """Tokens of a text, by CompyMac's constant number of characters per token."""
        return int(len(text) / self.config.chars_per_token)

    def estimate_message_tokens(self, message: Any) -> int:
        """Tokens of a message, its calls included, by the same constant."""
        return ConfigCounter(self.config.chars_per_token).prompt([as_dict(message)])

    def calculate_utilization(self, messages: Sequence[Any]) -> float:
        """Share of the available budget, less the tools, that messages take."""
        used = sum(self.estimate_message_tokens(message) for message in messages)
        return float(used / self._room)

    @property
    def _room(self) -> int:
        """Tokens for messages: the available budget less what the offered tools take."""
        tools, counter = self.offered(), ConfigCounter(self.config.chars_per_token)
        exact = self.context.counter if tools and self.settings.reasoner else counter
        return max(1, int(self.config.available_budget) - count_tools(exact, tools))

    def should_compress(self, messages: Sequence[Any]) -> bool:
        """Whether the utilisation is above the threshold."""
        return self.calculate_utilization(messages) > self.compression_threshold

    # -- facts -----------------------------------------------------------------------------------

    def extract_facts_from_message(self, message: Any) -> None:
        """Add the facts of a message to the state."""
        given = as_dict(message)
        self.state.facts.add_message(role_of(message), content_text(given), calls_in(given))

    def generate_summary_heuristic(self, messages: Sequence[Any]) -> str:
        """Summarise what was done in one sentence, by rules."""
        return progress([(role_of(m), content_text(as_dict(m))) for m in messages])

    async def generate_summary_llm(self, messages: Sequence[Any]) -> str:
        """Summarise what was done with the LLM client; without one, or if it fails, by rules."""
        if self.llm_client is None:
            return self.generate_summary_heuristic(messages)
        texts = [
            (role_of(message), content_text(as_dict(message)))
            for message in messages[-_SUMMARISED_MESSAGES:]
        ]
        newest = "\n".join(
            f"{role_label(role)}: {one_line(text, _SUMMARISED_CHARACTERS)}" for role, text in texts
        )
        ask = "In at most three sentences: the goal, what was tried, and where it stands.\n\n"
        try:
            answer = self.llm_client.chat(messages=[{"role": "user", "content": ask + newest}])
            return str(answer.content)[:_SUMMARY_CHARACTERS]
        except Exception as error:  # a summary is never worth a failed step
            logger.warning("the model gave no summary: %s", error)
            return self.generate_summary_heuristic(messages)

    # -- messages --------------------------------------------------------------------------------

    def process_messages(self, messages: list[Any], force_compress: bool = False) -> list[Any]:
        """The messages to continue with: fewer if it was time to compress, otherwise the same.

        Above the threshold it compresses if that is worth it (see `Exchange`). If the messages
        still exceed the budget, old texts are replaced with blocks in place.
        """
        for message in messages[-_NEWEST:]:
            key = sha256(repr((role_of(message), as_dict(message))).encode()).digest()
            if key not in self._read:
                self._read.add(key)
                self.extract_facts_from_message(message)
        if force_compress:
            messages = self.compress_messages(messages)
        elif self.should_compress(messages):
            messages = self._compress(messages, least=_LEAST)
        # The estimate may be wrong; if the reasoner's own tokenizer is known, it decides.
        if self._in_place or self.settings.reasoner or self.calculate_utilization(messages) > 1:
            return self._within_budget(messages)
        return messages

    def compress_messages(self, messages: list[Any], use_llm: bool = False) -> list[Any]:
        """Put one message in place of what is between the task and the newest turns.

        Returns the same list if there is nothing to compress. ``use_llm`` is accepted and changes
        nothing: the message is made of exact text.
        """
        return self._compress(messages)

    def full_history(self, messages: Sequence[Any]) -> list[Any]:
        """Every message as it was before any compression.

        Raises:
            StoreError: An original was forgotten, or is damaged.
        """
        full = self.context.rebuild([as_dict(message) for message in messages])
        return [like(messages[0], message) for message in full] if messages else []

    def _compress(self, messages: list[Any], least: float = 0.0) -> list[Any]:
        """See `compress_messages`; the same list also if it would not free ``least`` of the tokens.

        The rule for that is `Context`'s, and so are blocks and their wording. The fold is not: a
        `Compaction` edits a view of a history that its client keeps, and finds the edits again.
        CompyMac's list is the history itself: what is folded is gone from it, and the next summary
        must take over the blocks of this one, and the facts.
        """
        # 1. Find the old messages: after the task, up to the newest turns.
        given = [as_dict(message) for message in messages]
        head = head_length(given)
        end = len(given) - 2 * self.keep_recent_turns
        cut = next((start for start, _ in reversed(units(given, head)) if start <= end), head)
        old = [i for i in range(head, cut) if not is_instruction(given[i])]
        if len(old) < 2:
            return messages
        # 2. Take their facts, and put one message in their place.
        state = copy.deepcopy(self.state)
        state.summary = self.generate_summary_heuristic([messages[i] for i in old])
        state.compression_count += 1
        earlier = old[:1] if self._is_summary(given[old[0]]) else []
        for message in (given[i] for i in old if i not in earlier):
            state.total_messages_compressed += 1
            state.facts.add_message(role_of(message), content_text(message), calls_in(message))
        fold, describe, handles = self._fold(given, old, earlier, state)
        shorter = [m for i, m in enumerate(messages) if i == old[0] or i not in set(old)]
        shorter[old[0]] = like(messages[0], {"role": "assistant", "content": describe(_ANY_HANDLE)})
        # 3. Keep it if it is worth it.
        if least and not self._is_worth_it(given, [as_dict(m) for m in shorter], least):
            return messages
        block = self.context.freezer.freeze_as(
            self.settings.session, fold, describe, handles, kind="fold"
        )
        shorter[old[0]] = like(messages[0], {"role": "assistant", "content": block.text})
        self.state = state
        return shorter

    def _fold(
        self, given: list[Message], old: list[int], earlier: list[int], state: MemoryState
    ) -> tuple[Piece, Callable[[str], str], list[str]]:
        """The transcript of old messages, the function that words their summary, and its handles.

        Long texts become blocks in both. ``earlier`` is the index of an earlier summary, if any.
        """
        freezer, session = self.context.freezer, self.settings.session
        calls = calls_by_result(given)
        find_block = partial(freezer.block_shown, session)
        tell = partial(freezer.told, session)
        original_piece = partial(freezer.original_piece, session)
        shown: list[Message] = []
        entries: list[folds.Entry] = []
        handles: list[str] = []
        for index in old:
            message = given[index]
            texts = {}
            for piece in map(original_piece, pieces(message, calls.get(index))):
                known = find_block(piece.role, piece.text)
                short = len(piece.text) < wording.LEAST_CHARACTERS
                if known or (short and not is_recalled(piece)):
                    handles += [known.handle] if known and known.handle else []
                    continue
                block = freezer.freeze(session, piece)
                if len(block.text) < len(piece.text) or is_recalled(piece):
                    texts[piece.part] = block.text
                    handles += [block.handle] if block.handle else []
            shown.append(replace_texts(message, texts))
            # The blocks of an earlier summary are kept; its facts and progress are stated again.
            if index in earlier:
                for blocks in content_text(message).split("\n\n")[1:2]:
                    entries += folds.kept_entries(blocks)
        entries += folds.fold_entries([given[i] for i in old if i not in earlier], tell)
        transcript = json.dumps(shown, ensure_ascii=False, sort_keys=True)
        most = min(self.max_memory_tokens, int(_SUMMARY_SHARE * self._room))
        room = int(most * self.config.chars_per_token)
        room -= len(state.to_memory_message(wording.HOW_TO))

        def describe(handle: str) -> str:
            heading = folds.describe_fold(entries, handle, len(old), 0)
            blocks = folds.describe_fold(entries, handle, len(old), max(room - len(heading), 0))
            return state.to_memory_message(f"{blocks}\n{wording.HOW_TO}")

        kept = folds.transcript(shown, tell)
        return Piece("assistant", "fold", transcript, kept=kept), describe, handles

    def _is_summary(self, message: Message) -> bool:
        """Whether a message is a summary that this manager's memory made for this session."""
        text = content_text(message)
        if not text.startswith(SUMMARY_BEGINS):
            return False
        block = self.context.freezer.block_shown(self.settings.session, role_of(message), text)
        return block is not None and block.kind == "fold"

    def _is_worth_it(self, given: list[Message], shorter: list[Message], least: float) -> bool:
        """Whether to send shorter messages: if the budget is exceeded, or if that pays."""
        count = self.estimate_message_tokens
        before = sum(map(count, given))
        after = sum(map(count, shorter))
        cached = cached_tokens(given, before, count)
        cache = self.context.budget.cache
        exchange = exchange_of(given, shorter, before, after, cached, count, cache)
        return before > self._room or exchange.frees_enough(least)

    def _within_budget(self, messages: list[Any]) -> list[Any]:
        """The messages with blocks in place if they exceed the budget, or did earlier."""
        given = [as_dict(message) for message in messages]
        try:
            sent = self.context.prepare(
                given, tools=self.offered(), session=self.settings.session, compact="never"
            ).messages
        except ContextOverflow as error:
            logger.warning("%s", error)
            return messages
        if sent == given or len(sent) != len(given):
            return messages
        self._in_place = True
        return [
            message if now == then else like(message, now)
            for message, then, now in zip(messages, given, sent, strict=True)
        ]

    def get_memory_state(self) -> MemoryState:
        """What the manager knows now."""
        return self.state

    def reset(self) -> None:
        """Forget the state; what the memory holds stays."""
        self.state = MemoryState()
        self._read.clear()

    # -- the structured facts --------------------------------------------------------------------

    def set_contract_goal(self, goal: str) -> None:
        """Set what the user wants."""
        self.state.facts.contract_goal = goal

    def set_current_plan(self, plan_steps: list[str]) -> None:
        """Set the steps of the plan."""
        self.state.facts.current_plan = plan_steps

    def add_plan_step(self, step: str) -> None:
        """Add a step to the plan."""
        self.state.facts.current_plan.append(step)

    def complete_plan_step(self, step_index: int) -> None:
        """Remove a step from the plan; an index out of range changes nothing."""
        if 0 <= step_index < len(self.state.facts.current_plan):
            del self.state.facts.current_plan[step_index]

    def set_repo_facts(self, facts: Mapping[str, str]) -> None:
        """Set what is known of the repository, such as how to test it."""
        self.state.facts.repo_facts = dict(facts)

    def add_repo_fact(self, key: str, value: str) -> None:
        """Add something that is known of the repository."""
        self.state.facts.repo_facts[key] = value

    def add_open_question(self, question: str) -> None:
        """Add a question that is not answered yet."""
        self.state.facts.open_questions.append(question)

    def resolve_question(self, question_index: int) -> None:
        """Remove an answered question; an index out of range changes nothing."""
        if 0 <= question_index < len(self.state.facts.open_questions):
            del self.state.facts.open_questions[question_index]
