"""A chat template that insists on turns, as Mistral's and Gemma's do, and its counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from clara_mlx.context import Estimate

# What their templates check of the roles.
_TEMPLATE = (
    "{%- set turns = namespace(count=0) %}{%- for m in messages %}"
    "{%- if m.role == 'system' and not loop.first %}{{ refuse('late system') }}{% endif %}"
    "{%- if m.role == 'user' or (m.role == 'assistant' and m.tool_calls is not defined) %}"
    "{%- if (m.role == 'user') != (turns.count % 2 == 0) %}{{ refuse('roles must alternate') }}"
    "{%- endif %}{%- set turns.count = turns.count + 1 %}{%- endif %}{%- endfor %}"
)


class Strict(Estimate):
    """Counts for a reasoner with such a template."""

    takes_late_system_message = False
    takes_users_in_a_row = False


def render_strictly(messages: Sequence[dict[str, Any]]) -> None:
    """Fail if such a template refuses the messages."""
    jinja2.Environment().from_string(_TEMPLATE).render(messages=messages, refuse=_refuse)


def _refuse(why: str) -> None:
    raise AssertionError(why)
