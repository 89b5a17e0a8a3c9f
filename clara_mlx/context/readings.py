"""Which prompts the reasoner's server has read, to know when it must read one anew anyway."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from clara_mlx.context.kept import sha256
from clara_mlx.context.messages import content_text, is_instruction
from clara_mlx.context.view import View

# The number of sessions that are known.
_SESSIONS = 64

# Prompts of one session that are known: agents that share a name take turns.
_PROMPTS = 8

# What identifies the beginning of a prompt, and the chain that ends with its last message.
Reading = tuple[bytes, bytes]


class Readings:
    """The prompts that were sent last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, list[Reading]] = OrderedDict()
        self._lock = threading.Lock()

    def starts_anew(self, view: View, tools: Sequence[Any] | None) -> bool:
        """Whether a conversation continues none of the prompts of its session, and keep its prompt.

        So it is if its tools or first instructions have changed, or its client has changed earlier
        messages. Of a session that this process does not know, nothing is known.
        """
        first = takewhile(is_instruction, view.messages)
        texts = [json.dumps(tools), *map(content_text, first)]
        begins = sha256(*(text.encode("utf-8", "surrogatepass") for text in texts))
        now = {(begins, chain) for chain in view.chains}
        with self._lock:
            known = self._known.setdefault(view.session, [])
            self._known.move_to_end(view.session)
            anew = bool(known) and now.isdisjoint(known)
            if view.chains:
                known[:] = [*known, (begins, view.chains[-1])][-_PROMPTS:]
            if len(self._known) > _SESSIONS:
                self._known.popitem(last=False)
        return anew
