"""Calls and their results in a client's history: each result behind its call, and none alone."""

from __future__ import annotations

from collections.abc import Sequence

from clara_mlx.context.messages import Message

# Placeholder for the result of a call that the client has lost.
_LOST_RESULT = "(the result of this call is not in the conversation any more)"

# The tool of a call that the client has lost, if its result does not name it.
_LOST_CALL = "earlier_call"


def pair_calls_with_results(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with each result behind its call.

    A result that came late moves up to its call. Where a client that shortened its history left a
    call or a result alone, a placeholder takes the place of the other. Calls of one message under
    one id get ids of their own, and their results are taken in order.
    """
    paired: list[Message | _Turn] = []
    newest: dict[str, _Turn] = {}  # by the id of a call, the newest message with such a call
    for message in messages:
        if message["role"] == "tool":
            turn = newest.get(message["tool_call_id"])
            if turn is None or not turn.take(message):
                # It gets a call of its own: what a tool said must stay under the tool's role.
                paired += [_call_for(message), message]
        elif message.get("tool_calls"):
            turn = _Turn(message)
            paired.append(turn)
            newest.update(dict.fromkeys(turn.ids, turn))
        else:
            paired.append(message)
    found: list[Message] = []
    for one in paired:
        if isinstance(one, _Turn):
            found += one.messages()
        else:
            found.append(one)
    return found


class _Turn:
    """A message with calls, and their results.

    Attributes:
        ids: The ids of the calls as the client has them.
    """

    __slots__ = ("_message", "_results", "_waiting", "ids")

    def __init__(self, message: Message) -> None:
        self.ids: list[str] = [call["id"] for call in message["tool_calls"]]
        self._message = message
        self._results: dict[int, Message] = {}  # by the number of the call, as they came
        # By id, the numbers of the calls that have no result, the first one last.
        self._waiting: dict[str, list[int]] = {}
        for number in reversed(range(len(self.ids))):
            self._waiting.setdefault(self.ids[number], []).append(number)

    def take(self, result: Message) -> bool:
        """Take the result of a call; false if none waits for it."""
        numbers = self._waiting[result["tool_call_id"]]
        if numbers:
            self._results[numbers.pop()] = result
            return True
        return False

    def messages(self) -> list[Message]:
        """The message, and a result for each call: those that there are, then the lost ones."""
        ids, message, results = self.ids, self._message, list(self._results.values())
        if len(set(ids)) < len(ids):
            ids = _different(ids)
            calls = zip(message["tool_calls"], ids, strict=True)
            message = {**message, "tool_calls": [{**call, "id": id} for call, id in calls]}
            results = [{**one, "tool_call_id": ids[n]} for n, one in self._results.items()]
        for number, id in enumerate(ids):
            if number not in self._results:
                results.append({"role": "tool", "tool_call_id": id, "content": _LOST_RESULT})
        return [message, *results]


def _different(ids: list[str]) -> list[str]:
    """The same ids with numbers behind those that came before."""
    taken = set(ids)
    counts: dict[str, int] = {}
    found = []
    for id in ids:
        count = counts.get(id, 0) + 1
        name = id if count == 1 else f"{id}-{count}"
        while count > 1 and name in taken:
            count += 1
            name = f"{id}-{count}"
        counts[id] = count
        taken.add(name)
        found.append(name)
    return found


def _call_for(result: Message) -> Message:
    """A call that a result without one can follow."""
    function = {"name": str(result.get("name") or _LOST_CALL), "arguments": "{}"}
    call = {"id": result["tool_call_id"], "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}
