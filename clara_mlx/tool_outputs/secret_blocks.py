"""Private keys in blocks of lines, also with something before each line, and cut off at any end."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from itertools import zip_longest

# -----BEGIN RSA PRIVATE KEY-----
_BEGIN = re.compile(
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}|PuTTY-User-Key-File-\d:"
)
# -----END RSA PRIVATE KEY-----
_END = re.compile(
    r"-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}|Private-MAC: [0-9a-f]{20,}+"
)
# Some tools print a backslash and an n between the lines.
# \n
_LINE = re.compile(r"\r?\n|(?:\\r)?\\{1,8}n")
_BASE64 = string.ascii_letters + string.digits + "+/="
# Lines that stand within a block without being Base64.
# Proc-Type: 4,ENCRYPTED
_FIELD = re.compile(
    r"(?:Proc-Type|DEK-Info|Comment|Encryption|Subject|Key-Derivation|Argon2-\w+|Public-Lines|Private-Lines"
    r"|Version|Charset): [^\n]{0,200}+"
)
_KEY_CHARACTERS = 20_000  # a private key is shorter
_BODY_CHARACTERS = 20  # of a line within a block; most have 64 or 70
_END_OF_LINE = " \t\r\"'`,;+\\|\x1b"


def private_keys(text: str) -> Iterator[tuple[int, int]]:
    """Where private keys begin and end, as far as they are there."""
    endings = _END.finditer(text)
    ending = next(endings, None)
    done = 0
    beginnings = list(_BEGIN.finditer(text))
    for beginning, following in zip_longest(beginnings, beginnings[1:]):
        start, end = beginning.span()
        while ending and ending.start() < end:
            yield from _tail(text, ending, done)
            done = ending.end()
            ending = next(endings, None)
        near = ending is not None and ending.end() <= end + _KEY_CHARACTERS
        if ending and near and not (following and following.start() < ending.start()):
            done = ending.end()
            ending = next(endings, None)
        else:  # as much as there is, if the block was cut off
            limit = following.start() if following else len(text)
            done = _body_end(text, end, min(limit, end + _KEY_CHARACTERS))
        yield start, done
    while ending:
        yield from _tail(text, ending, done)
        done = ending.end()
        ending = next(endings, None)


def _body_end(text: str, start: int, limit: int) -> int:
    """The end of the lines after a block's first one that belong to it."""
    end = start
    margin = 0  # characters before the key's part of a line
    lines = [start, *(match.end() for match in _LINE.finditer(text, start, limit))]
    for place, following in zip_longest(lines, lines[1:], fillvalue=limit):
        line = _LINE.sub("", text[place:following])
        stripped = line.rstrip(_END_OF_LINE)
        length = len(stripped) - len(stripped.rstrip(_BASE64))
        body = stripped[len(stripped) - length :]
        same_margin = abs(len(stripped) - length - margin) < 2
        is_last = same_margin and place + len(line) >= len(text)
        if length >= _BODY_CHARACTERS or (body and (is_last or _is_rest(body))):
            end = place + len(stripped)
            margin = len(stripped) - length
        elif _FIELD.search(line, 0, 300):
            end = place + len(line)
        elif stripped and body and place != start:
            break
    return end


def _is_rest(word: str) -> bool:
    """Whether a short line is a key's last one, and not a word."""
    mixed = any(map(str.isdigit, word)) and any(map(str.isalpha, word)) and len(word) > 7
    return mixed or (word.endswith("=") and len(word) > 3)


def _tail(text: str, ending: re.Match[str], done: int) -> Iterator[tuple[int, int]]:
    """The lines before an end whose beginning is missing."""
    least = max(done, ending.start() - _KEY_CHARACTERS)
    lines = [least, *(match.end() for match in _LINE.finditer(text, least, ending.start()))]
    start = ending.start()
    for place, following in zip(reversed(lines[:-1]), reversed(lines[1:]), strict=True):
        stripped = _LINE.sub("", text[place:following]).rstrip(_END_OF_LINE)
        margin = len(stripped.rstrip(_BASE64))
        body = stripped[margin:]
        if len(body) < _BODY_CHARACTERS and not _is_rest(body):
            break
        start = place + margin
    if start < ending.start():
        yield start, ending.end()
