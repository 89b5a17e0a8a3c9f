"""Options that had another name: they work for one release, and say what they are called now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: By command: what an option was called until 0.1, and what it is called now.
RENAMED = {
    "connect": {"--url": "--endpoint"},
    "doctor": {"--url": "--endpoint", "--reasoner": "--reasoner-endpoint"},
    "examples": {"--model": "--endpoint-model"},
    "inspect": {"--source": "--checkpoint"},
    "plan": {"--clara": "--model"},
    "serve": {
        "--reasoner": "--endpoint",
        "--fallback": "--fallback-endpoint",
        "--fallback-key": "--fallback-key-variable",
    },
}


def renew(words: list[str]) -> tuple[list[str], list[str]]:
    """A command line with today's names, and a line for each that had another one.

    Args:
        words: The command's name and what follows it.
    """
    if not words:
        return words, []
    command, *rest = words
    notes: list[str] = []
    renewed = [command, *_options(command, rest, notes)]
    if command == "compress":
        renewed = _compress(renewed, notes)
    return renewed, notes


def _options(command: str, words: list[str], notes: list[str]) -> Iterator[str]:
    names = RENAMED.get(command, {})
    ended = False  # by "--", after which there are no options
    for word in words:
        ended = ended or word == "--"
        name, equals, value = word.partition("=")
        if name in names and not ended:
            notes.append(f"{command} {name} is called {names[name]} now")
            word = f"{names[name]}{equals}{value}"
        yield word


def _compress(words: list[str], notes: list[str]) -> list[str]:
    """``compress MODEL FILES``: the model has an option now, as everywhere."""
    if any(word.partition("=")[0] in ("--model", "--to") for word in words):
        return words  # today's form; with --to, a folder may stand for its files
    if len(words) > 1 and not words[1].startswith("-") and _is_model(words[1]):
        notes.append("compress takes its model as --model MODEL now, or from CLARA_MLX_MODEL")
        return [words[0], "--model", words[1], *words[2:]]
    return words


def _is_model(word: str) -> bool:
    """Whether a word names a model and no file: a folder, or a hub id that is no path here."""
    path = Path(word).expanduser()
    return path.is_dir() or (not path.exists() and word.count("/") == 1 and "." not in word)
