"""Secrets that stand beside a name, such as ``password``: assigned, as an option, in a sentence."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import NamedTuple

from clara_mlx.tool_outputs.secret_keywords import (
    LEAD,
    WORD,
    is_password_name,
    kind_of_name,
    leaves_no_doubt,
)
from clara_mlx.tool_outputs.secret_tokens import Found
from clara_mlx.tool_outputs.secret_values import (
    consists_of_words,
    is_blank,
    is_code,
    is_hex,
    is_number,
    is_sentence,
    is_token,
)

_LEAST_PASSWORD = 4  # characters
_LEAST_SECRET = 8  # characters of anything else
_LEAST_OPTION = 3  # characters of a password that is an option's value

_NAME_LETTERS = string.ascii_letters + string.digits + "_.-"
_NAME_CHARACTERS = 64  # at the end of a name, which says what is assigned
# Words before a name whose value follows after a blank: themselves, and with one in between.
_SETTING = frozenset(
    (
        *("ENV", "ARG", "setenv", "SetEnv", "setx", "set", "export", "put", "add", "config", "BY"),
        *("credential", "secret", "-gx", "-x", "-Ux", "-g", "--global", "--local", "variable"),
    )
)
_BEFORE_USER = frozenset(("login", "account", "machine", "user", "connect", "ssid"))
_BEFORE = 80  # characters before a name that are looked at
_LONG = 100  # characters of a value; names in a longer one are its own
_QUOTED = 4_096  # characters of a value in quotes
# /etc/passwd
_PATH = re.compile(r"(?:[A-Za-z]:|~|\.{1,2})?(?:[/\\][\w.-]{1,64}+){2,20}+")
# abc"
_OPENING = re.compile(r"(?:[bfruBFRU]{1,2}(?=\\{0,64}[\"']))?(\\{0,64}(?:\"\"\"|'''|[\"'`]))")
# hunter2
_UNQUOTED = re.compile(r"(?:[^\s\"'`,;&)\]}\\<]|<(?![/A-Za-z!])|\\(?![nrt\"'\\u])){1,4096}+")
# a;b
_REST = re.compile(r"[^\s\"'`\\]{0,512}+(?=[ \t]{0,8}+(?:\n|\Z|\\[nr]|#))")
# The name begins a line, as in settings and the environment.
# \n
_BEGINS_LINE = re.compile(
    r"(?:^|\n|\\n)[ \t>+-]{0,20}(?:export |set |declare -x |ENV |\$env:)?[ \t]{0,4}[\"']?\Z"
)


class _Name(NamedTuple):
    start: int
    text: str
    closing: str  # the quotes and brackets after it
    is_password: bool


def named_secrets(text: str) -> Iterator[Found]:
    """Values beside a password's name, and mixed ones beside the name of another secret."""
    place = 0
    begin = 0
    while word := WORD.search(text, begin):
        begin = word.start() + 1
        lead = LEAD.match(text, word.end())
        if lead is None:
            continue
        name = _name(text, place, word)
        begin = place = lead.end()
        if name is None:
            continue
        how = lead.lastgroup or ""
        value = _value(text, lead, name, how)
        if value is None:
            continue
        start, end, is_quoted = value
        if end - start < (_LEAST_OPTION if name.is_password else _LEAST_SECRET):
            continue
        if _is_secret(text, lead, name, how, text[start:end], is_quoted):
            yield start, end, "password" if name.is_password else "secret"
            begin = place = end
        elif end - start > _LONG:
            begin = place = end


def _name(text: str, least: int, word: re.Match[str]) -> _Name | None:
    """The name that a word ends, if it is that of a secret."""
    end = word.start(1)
    first = max(least, end - _NAME_CHARACTERS)
    start = first + len(text[first:end].rstrip(_NAME_LETTERS))
    before = text[start - 1] if start else ""
    if start == least and before and before in _NAME_LETTERS:
        return None  # within a value
    name = text[start:end]
    if before == "\\" and name[0] in "nrt" and len(name) > 1:
        name, start = name[1:], start + 1
    elif before == " " and len(name) == 3 and name.lower() == "key":  # Secret Access Key
        name = text[max(0, start - 13) : end]
    elif before == " " and name.lower() == "phrase":
        name = f"pass{name}"
    if word[1][:1] == "]" and "[masked:" in text[max(0, start - 24) : start]:
        return None  # the kind of a secret in its mask
    kind = kind_of_name(name, before)
    return None if kind is None else _Name(start, name, word[1], kind == "password")


def _value(text: str, lead: re.Match[str], name: _Name, how: str) -> tuple[int, int, bool] | None:
    """Where the value begins and ends, and whether it is in quotes."""
    place = lead.end()
    if how == "xml":
        ends = [
            at
            for at in (text.find(mark, place, place + _QUOTED) for mark in ("<", "&lt;"))
            if at >= 0
        ]
        stripped = text[place : min(ends)].strip() if ends else ""
        place = text.find(stripped, place) if stripped else place
        return place, place + len(stripped), True
    if how == "block":
        end = text.find("\n", place, place + _QUOTED)
        return place, len(text[:end].rstrip()) if end >= 0 else len(text), True
    if opening := _OPENING.match(text, place):
        mark = opening[1]
        start = opening.end()
        quote, escapes = mark[-1], len(mark) - len(mark.lstrip("\\"))
        if len(mark.lstrip("\\")) == 3:
            end = text.find(mark, start, start + _QUOTED)
        else:
            end = _closing(text, start, quote, escapes)
        if end > start:
            return start, end, True
        if end == start:
            return None
        place = start  # a quote that nothing closes
    found = _UNQUOTED.match(text, place)
    if found is None:
        return None
    end = found.end()
    if how == "op" and end < len(text) and text[end] in ",;&)]}<":
        rest = _REST.match(text, end)
        line = text[max(0, name.start - 40) : name.start]
        if rest and _BEGINS_LINE.search(line if name.start > 40 else "\n" + line):
            end = max(end, place + len(text[place : rest.end()].rstrip(",;")))
    return place, end, False


def _closing(text: str, start: int, quote: str, escapes: int) -> int:
    """Where the value in quotes ends that are escaped so often; -1 if nowhere near."""
    limit = min(len(text), start + _QUOTED)
    line = text.find("\n", start, limit)
    limit = limit if line < 0 else line
    place = start
    for _ in range(16):  # quotes within the value
        end = text.find(quote, place, limit)
        if end < 0:
            return -1
        before = end - len(text[start:end].rstrip("\\")) - start
        if before == escapes or (escapes == 0 and before % 2 == 0) or before < escapes:
            return end - min(before, escapes) if escapes else end
        place = end + 1
    return -1


def _is_secret(
    text: str, lead: re.Match[str], name: _Name, how: str, value: str, is_quoted: bool
) -> bool:
    if is_blank(value) or "[masked:" in value:
        return False
    if (
        how == "op"
        and lead["operator"] == "|"
        and not text[max(0, name.start - 4) : name.start].rstrip().endswith("|")
    ):
        return False  # a table has one on both sides
    is_option = name.text.startswith("-")
    if how == "space" and not is_option and not _may_follow(text, name, lead, value, is_quoted):
        return False
    if how in ("op", "pair", "bracket", "is", "told", "space") and not is_quoted:
        if is_code(value) or value[0] in "{[":
            return False
    elif _PATH.fullmatch(value):
        return False
    if not name.is_password:
        strong = leaves_no_doubt(name.text)
        if name.text.lower().endswith("pat") and not value.replace("-", "").isalnum():
            return False  # a pattern
        if name.text.lower().endswith("auth") and not is_token(value):
            return False
        return is_token(value, strong=strong and how != "is")
    if is_option and how == "op" and text[lead.end() - 1] in " \t":
        return False  # the option's value is empty
    if len(value) < (_LEAST_OPTION if is_option else _LEAST_PASSWORD):
        return False
    plain = name.text.lower() == "pass"
    if plain and (is_number(value) or name.text == "PASS" or not (is_quoted or how == "op")):
        return False
    if plain and any(mark in value for mark in ("/", "::", "(")) and not is_quoted:
        return False
    if how == "op" and lead["operator"] == ",":
        return bool('"' in name.closing or "'" in name.closing) and not consists_of_words(value)
    if how == "call":
        return name.text[:1] in "sw." and " " not in value and not value.isalpha()
    if how == "for" and value.isalpha() and text[lead.end() + len(value) :][:1] == " ":
        return False  # a sentence goes on
    if how == "bracket" and value.isalpha():
        return False
    if how == "told":
        return not value.rstrip(".,!").isalpha()
    if how == "is":
        return " " not in value and not value.rstrip(".,!").isalpha()
    if is_quoted:
        return not is_sentence(value)
    blank_before = how == "op" and text[lead.start() : lead.start() + 1] in (" ", "\t")
    if how == "op" and lead["operator"].startswith("=") and blank_before and _is_identifier(value):
        return False  # `password = name` is code; without blanks around it is a setting
    return not (_is_identifier(value) and is_password_name(value))


def _is_identifier(value: str) -> bool:
    return value.isascii() and value.replace("_", "a").isalpha()


def _may_follow(text: str, name: _Name, lead: re.Match[str], value: str, is_quoted: bool) -> bool:
    """Whether what follows a name after a blank is its value, not the next word of a sentence."""
    if is_quoted:
        if name.closing or " " in value or name.text.lower() == "pass":  # which is a verb
            return False
        return name.is_password or is_token(value)
    before = text[max(0, name.start - _BEFORE) : name.start]
    if is_token(value) and not is_hex(value):
        return True
    words = before.split()
    if words and words[-1].endswith("/"):  # put app/password
        words.pop()
    if words[:1] == ["nmcli"]:
        return True
    if words and (words[-1] in _SETTING or not _BEFORE_USER.isdisjoint(words[-2:-1])):
        return True
    if consists_of_words(value) and not any(map(str.isdigit, value)):
        return False
    line = before.rpartition("\n")[2]
    place = lead.end() + len(value)
    alone = not (line.strip(" \t>$#%") or text[place : place + 40].partition("\n")[0].strip())
    if name.is_password:
        return alone or "login " in line
    return is_token(value, strong=alone) and (alone or name.text.isupper())
