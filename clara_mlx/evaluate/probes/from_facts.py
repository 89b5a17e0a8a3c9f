"""Exam questions from the facts of an output: those that have exactly one answer."""

from __future__ import annotations

from clara_mlx.evaluate.probes.probe import ANSWER_CHARACTERS, Probe, kind_of
from clara_mlx.evaluate.probes.questions import make_probe
from clara_mlx.tool_outputs.facts import OPEN_VALUES, Fact, Facts
from clara_mlx.tool_outputs.rules import collect


def probes(text: str, tool: str | None = None) -> tuple[Probe, ...]:
    """A question for each fact that ``text`` states without ambiguity, in the order of the text.

    Questions are worded as those of generated outputs, so that a model is asked nothing it has not
    been trained on.

    Args:
        text: A tool's output.
        tool: One of `clara_mlx.tool_outputs.rules.RULES`, or None to find it by the text. Other
            tools give no questions.
    """
    asked = []
    for fact in unambiguous(collect(text, tool)):
        if _is_askable(fact.text) and all(_is_askable(value) for _, value in fact.about):
            kind = kind_of(fact.text) if fact.name in OPEN_VALUES else None
            span = fact.start, fact.end
            asked.append(make_probe(fact.name, fact.text, span, None, kind, **dict(fact.about)))
    return tuple(sorted(asked, key=lambda probe: (probe.start, probe.end)))


def unambiguous(facts: Facts) -> list[Fact]:
    """The facts that have one value; not those of which another is implied or can't be read."""
    found = facts.in_order_found()
    values = {key: set(texts) for key, texts in facts.implied.items()}
    for fact in found:
        values.setdefault(fact.key, set()).add(fact.text)
    return [fact for fact in found if len(values[fact.key]) == 1 and fact.key not in facts.unread]


def _is_askable(text: str) -> bool:
    return 0 < len(text) <= ANSWER_CHARACTERS and text == text.strip() and text.isprintable()
