"""From a chat template to a `PromptLayout`: the template is rendered once, around marked texts."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from clara_mlx.convert.files import read_json
from clara_mlx.errors import CheckpointError, reason
from clara_mlx.model.layout import Part, PromptLayout
from clara_mlx.model.regular import MOST_CONFIG, read_regular

TEMPLATE_FILE = "chat_template.jinja"
_TOKENIZER_CONFIG = "tokenizer_config.json"

_LONGEST_RENDERING_S = 5.0  # a real template takes milliseconds

_MOST_RENDERING_BYTES = 256 << 20  # beside what the process has; a real one takes kilobytes

# Texts that stand for those of a prompt while a template is rendered.
_SYSTEM, _USER, _ANSWER = "CLaRa-system-text", "CLaRa-user-text", "CLaRa-answer-text"
_SPACE = " \n"  # put around one of them to see whether the template cuts it


def read_template(folder: Path) -> str | None:
    """The chat template that comes with a tokenizer, as transformers chooses it; None without one.

    Raises:
        CheckpointError: A file that should hold it can't be read.
    """
    file = folder / TEMPLATE_FILE
    if file.is_file():
        try:
            return read_regular(file, MOST_CONFIG).decode("utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: {reason(error)}") from error
    if not (folder / _TOKENIZER_CONFIG).is_file():
        return None
    found = read_json(folder / _TOKENIZER_CONFIG).get("chat_template")
    if isinstance(found, list):  # several, by name
        named = [one for one in found if isinstance(one, dict) and one.get("name") == "default"]
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) and found else None


def read_layout(base: Path, checkpoint: Path, tokenizer: dict[str, Any]) -> PromptLayout | None:
    """The layout of the chat template of a checkpoint, or else of its base; None without one.

    Args:
        base: The base's folder.
        checkpoint: The checkpoint's folder; its template is the one that it was trained with.
        tokenizer: The parsed ``tokenizer.json`` whose added tokens become ids.

    Raises:
        CheckpointError: The template can't render CLaRa's prompts, or does not end.
    """
    for owner, folder in (("checkpoint", checkpoint), ("base", base)):
        template = read_template(folder)
        if template is not None:
            tokens = special_tokens(base) | special_tokens(folder)
            try:
                return _render_layout(template, tokens, tokenizer, owner)
            except _NotRenderable as error:
                raise CheckpointError(
                    f"{folder}: its chat template can't render CLaRa's prompts: {error}"
                ) from error
    return None


class _NotRenderable(Exception):
    """Why a template is of no use."""


def special_tokens(folder: Path) -> dict[str, str]:
    """``bos_token`` and the like as a tokenizer's files state them, by these names.

    Raises:
        CheckpointError: One of the files can't be read.
    """
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", _TOKENIZER_CONFIG):
        if (folder / name).is_file():
            for key, value in read_json(folder / name).items():
                content = value.get("content") if isinstance(value, dict) else value
                if re.fullmatch(r"[a-z]{1,10}_token", key) and isinstance(content, str):
                    tokens[key] = content
    return tokens


def _render_layout(
    template: str, tokens: dict[str, str], tokenizer: dict[str, Any], owner: str
) -> PromptLayout:
    """The layout that a template gives, with the system text in the user's turn if it must be."""

    def render(user: str = _USER, answer: str | None = None) -> str:
        turns = (
            [("user", f"{_SYSTEM}\n{user}")] if folded else [("system", _SYSTEM), ("user", user)]
        )
        if answer is not None:
            turns.append(("assistant", answer))
        return _render(template, tokens, turns)

    folded = False
    try:
        begin, between, end = _split(render(), _SYSTEM, _USER)
    except _NotRenderable as refusal:
        folded = True
        try:
            begin, between, end = _split(render(), _SYSTEM, _USER)
        except _NotRenderable:
            raise refusal from None
    # Some templates leave the system text out once an answer follows; the prompt that is asked with
    # has it, and so has the one that is trained on.
    before_answer, close = _split(render(answer=_ANSWER), _ANSWER)
    _, found, answer = before_answer.rpartition(f"{_USER}{end}")
    if not found:
        # A reasoning model's prompt may open a thought. Ours goes on as an answer without one does.
        _, found, end = before_answer.rpartition(_USER)
        answer = ""
    if not found:
        raise _NotRenderable("an answer does not follow the question")
    spaced = render(f"{_SPACE}{_USER}{_SPACE}")
    around_answer = render(answer=f"{_SPACE}{_ANSWER}{_SPACE}")
    added = tokenizer["added_tokens"]
    return PromptLayout(
        begin=_parts(begin, added),
        between=_parts(between, added),
        end=_parts(end, added),
        answer=_parts(answer, added),
        close=_parts(close, added),
        trims_start=between + _SPACE not in spaced,
        trims_end=f"{_USER}{_SPACE}" not in spaced,
        trims_answer=f"{_ANSWER}{_SPACE}" not in around_answer,
        template=owner,
    )


def _split(rendered: str, *texts: str) -> list[str]:
    """What stands around texts, which must all be there once and in this order."""
    if any(rendered.count(text) != 1 for text in texts):
        raise _NotRenderable("it leaves out a text, or changes or repeats it")
    pieces = []
    for text in texts:
        if text not in rendered:
            raise _NotRenderable("it changes the order of the texts")
        piece, _, rendered = rendered.partition(text)
        pieces.append(piece)
    return [*pieces, rendered]


def _render(template: str, tokens: dict[str, str], turns: list[tuple[str, str]]) -> str:
    """A conversation in a template's form, by transformers' own sandbox.

    What a reasoning model would think before it answers is left out, as ``enable_thinking`` asks.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": role, "content": content} for role, content in turns]
    options: dict[str, Any] = {**tokens, "enable_thinking": False}
    try:
        with _limits(_LONGEST_RENDERING_S, _MOST_RENDERING_BYTES):
            rendered: Any = render_jinja_template(
                [messages],
                chat_template=template,
                add_generation_prompt=turns[-1][0] == "user",
                **options,
            )
    except Exception as error:  # a template can raise anything
        problem = f"{error!s:.200}".partition("\n")[0]
        raise _NotRenderable(problem or type(error).__name__) from error
    return str(rendered[0][0])


@contextmanager
def _limits(seconds: float, more_bytes: int) -> Iterator[None]:
    """Stop Python code that runs longer or takes more memory: a sandbox bounds neither."""
    end, most = time.monotonic() + seconds, _peak_bytes() + more_bytes

    def check(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise _NotRenderable(f"it does not end within {seconds:.0f} s")
        if _peak_bytes() > most:
            raise _NotRenderable(f"it takes more than {more_bytes >> 20} MiB")
        return check

    previous = sys.gettrace()
    sys.settrace(check)
    try:
        yield
    finally:
        sys.settrace(previous)


def _peak_bytes() -> int:
    """The most memory that this process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the unit differs


def _parts(text: str, added_tokens: list[dict[str, Any]]) -> tuple[Part, ...]:
    """A template's text with all added tokens in it as ids, as the tokenizer finds them."""
    tokens = {token["content"]: token for token in added_tokens if token["content"]}
    longest_first = sorted(tokens, key=len, reverse=True)
    if not longest_first:
        return (text,) if text else ()
    pieces: list[Part] = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    for i, piece in enumerate(pieces):
        token = tokens.get(str(piece)) if i % 2 else None
        if token is None:
            continue
        pieces[i] = int(token["id"])
        if token.get("lstrip"):
            pieces[i - 1] = str(pieces[i - 1]).rstrip()
        if token.get("rstrip"):
            pieces[i + 1] = str(pieces[i + 1]).lstrip()
    return tuple(piece for piece in pieces if piece != "")
