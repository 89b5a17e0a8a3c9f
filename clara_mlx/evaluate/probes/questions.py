"""The wordings of questions: few, short, and shared by all tools that print the same fact.

Generated and real outputs take their questions from here, so that a model trained on generated
outputs has read every question that it is later asked about real ones.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from importlib import resources

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.probe import Probe


class QuestionError(ClaraError):
    """No question asks for a fact, or a question is not given one of its slots."""


@dataclass(frozen=True)
class Form:
    """How a fact is asked for.

    Attributes:
        kind: The usual kind of the answer, one of `clara_mlx.evaluate.probes.probe.KINDS`.
        wordings: Two or three ways to ask with the same ``{slots}``; the first is the plainest.
    """

    kind: str
    wordings: tuple[str, ...]


_TABLE = tomllib.loads(resources.files(__package__).joinpath("questions.toml").read_text("utf-8"))
FORMS = {fact: Form(kind, tuple(wordings)) for fact, (kind, *wordings) in _TABLE.items()}
"""The form of every fact, by the fact's name. No two facts share a wording."""


def question(fact: str, rng: random.Random | None = None, **slots: str) -> str:
    """The question for a fact, in its first wording or in one drawn with ``rng``.

    Raises:
        QuestionError: The fact is unknown, or a slot is missing.
    """
    if fact not in FORMS:
        raise QuestionError(f"no fact is called {fact!r}; questions.toml lists them all")
    wordings = FORMS[fact].wordings
    wording = wordings[0] if rng is None else rng.choice(wordings)
    try:
        return wording.format(**slots)
    except KeyError as error:
        raise QuestionError(f"the question of {fact!r} needs the slot {error}") from error


def make_probe(
    fact: str,
    answer: str,
    span: tuple[int, int],
    rng: random.Random | None = None,
    kind: str | None = None,
    **slots: str,
) -> Probe:
    """Make the probe that asks for a fact.

    Args:
        fact: Name of the fact, a key of `FORMS`.
        answer: The exact answer.
        span: Start and end of the evidence, in characters of the output's text.
        rng: Random numbers that choose the wording; None takes the first.
        kind: Kind of the answer, if it is not the fact's usual one; a value may be a number.
        slots: Values of the slots in the wording, such as ``path="src/a.py"``.

    Raises:
        QuestionError: The fact is unknown, or a slot is missing.
        ProbeError: No probe may have this answer or this span.
    """
    return Probe(question(fact, rng, **slots), answer, kind or FORMS[fact].kind, *span)
