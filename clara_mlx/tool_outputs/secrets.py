"""Secrets in any text: found by rules, and masked before the text is written anywhere.

The rules are our own because what exists (detect-secrets, gitleaks) scans files for review: it
reports hashes of findings, not spans that can be masked, and brings a program or a tree of plugins
along. As in `identifiers`, every repetition is possessive or bounded: linear work on any text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and where it stands in the text that was searched."""

    kind: str
    start: int
    end: int


def mask(text: str) -> tuple[str, list[Secret]]:
    """The text with every secret replaced by ``[masked: KIND]``, and what was replaced.

    The replacement says nothing of the secret's length or characters. Masking again changes
    nothing. Spans are in the text as given.
    """
    found = secrets(text)
    parts: list[str] = []
    last = 0
    for secret in found:
        parts += (text[last : secret.start], f"[masked: {secret.kind}]")
        last = secret.end
    return "".join(parts) + text[last:], found


def secrets(text: str) -> list[Secret]:
    """The secrets of ``text`` in their order; those that overlap count as one, named by the first
    rule that found it."""
    found = sorted(
        (start, rank, end, kind)
        for rank, rule in enumerate((_vendor_tokens, _private_keys, _urls, _headers, _assignments))
        for start, end, kind in rule(text)
        if rank < 2 or "[masked:" not in text[start:end]  # what is masked stays as it is
    )
    kept: list[Secret] = []
    named_by = 0
    for start, rank, end, kind in found:
        if kept and start < kept[-1].end:
            before = kept[-1]
            name = kind if rank < named_by else before.kind
            kept[-1] = Secret(name, before.start, max(before.end, end))
            named_by = min(rank, named_by)
        else:
            kept.append(Secret(kind, start, end))
            named_by = rank
    return kept


_Found = tuple[int, int, str]

# Prefixes that the vendors document; lengths are lower bounds, since vendors lengthen their tokens.
_VENDORS = {
    "aws key id": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    "github token": r"gh[pousr]_[A-Za-z0-9]{30,255}+|github_pat_[A-Za-z0-9_]{22,255}+",
    "gitlab token": r"gl(?:pat|ptt|dt|rt|cbt|ft|soat|agent|imt)-[\w-]{16,255}+",
    "slack token": r"xox[abeprs]-[\w-]{10,255}+|xapp-[\w-]{10,255}+",
    "anthropic key": r"sk-ant-[\w-]{16,255}+",
    "openrouter key": r"sk-or-[\w-]{16,255}+",
    "openai key": r"sk-(?:(?:proj|svcacct|admin)-)?[A-Za-z0-9][\w-]{18,255}+",
    "xai key": r"xai-[A-Za-z0-9]{20,255}+",
    "groq key": r"gsk_[A-Za-z0-9]{20,255}+",
    "hugging face token": r"hf_[A-Za-z0-9]{20,255}+|api_org_[A-Za-z0-9]{20,255}+",
    "replicate token": r"r8_[A-Za-z0-9]{30,255}+",
    "google key": r"AIza[\w-]{30,255}+|ya29\.[\w-]{20,255}+|GOCSPX-[\w-]{20,255}+",
    "stripe key": r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,255}+|whsec_[A-Za-z0-9+/]{16,255}+",
    "npm token": r"npm_[A-Za-z0-9]{30,255}+",
    "pypi token": r"pypi-[\w-]{40,255}+",
    "sendgrid key": r"SG\.[\w-]{16,255}+\.[\w-]{16,255}+",
    "twilio key": r"SK[0-9a-f]{32}(?![\w-])",
    "mailgun key": r"key-[0-9a-f]{32}(?![\w-])",
    "digitalocean token": r"do[opr]_v1_[0-9a-f]{40,255}+",
    "databricks token": r"dapi[0-9a-f]{32}(?![\w])",
    "grafana token": r"gl(?:sa|c)_[\w+/=-]{20,255}+",
    "shopify token": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "linear key": r"lin_api_[A-Za-z0-9]{30,255}+",
    "notion token": r"ntn_[A-Za-z0-9]{30,255}+",
    "vault token": r"hv[sb]\.[\w-]{20,255}+",
    "doppler token": r"dp\.(?:pt|st|ct|sa)\.[\w.-]{20,255}+",
    "telegram token": r"\d{8,10}:AA[\w-]{32,40}+",
    "age key": r"AGE-SECRET-KEY-1[0-9A-Z]{50,64}+",
    "jwt": r"eyJ[\w-]{8,8192}+\.eyJ[\w-]{4,8192}+\.[\w-]{0,8192}+",
}
_TOKEN = re.compile(
    "|".join(f"(?P<g{number}>{rule})" for number, rule in enumerate(_VENDORS.values()))
)
_TOKEN_START = re.compile(f"(?<![A-Za-z0-9_])(?:{_TOKEN.pattern})")
_VENDOR_NAMES = tuple(_VENDORS)
_SLACK_HOOK = re.compile(r"hooks\.slack\.com/(?:services|workflows)/([\w/-]{20,255}+)")


def _vendor_tokens(text: str) -> Iterator[_Found]:
    for match in _TOKEN_START.finditer(text):
        token: re.Match[str] | None = match
        while token:  # another one may follow without anything between
            kind = _VENDOR_NAMES[int((token.lastgroup or "g0")[1:])]
            # sk-learn-contrib-something-long is a name; a key has a digit.
            if kind != "openai key" or any(map(str.isdigit, token[0])):
                yield *token.span(), kind
            token = _TOKEN.match(text, token.end())
    for match in _SLACK_HOOK.finditer(text):
        yield *match.span(1), "slack webhook"


_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
# The lines of a block, which tools also print with a written \n between them.
_KEY_BODY = re.compile(
    r"(?:(?:\\n|\s)*+(?:[A-Za-z0-9+/=]{20,}+|(?:Proc-Type|DEK-Info): [^\n]{0,100}+))*+"
    r"(?:(?:\\n|\s)*+[A-Za-z0-9+/=]++\Z)?"
)
_KEY_LIMIT = 20_000


def _private_keys(text: str) -> Iterator[_Found]:
    for match in _KEY_BEGIN.finditer(text):
        body = _KEY_BODY.match(text, match.end())
        end = body.end() if body else match.end()  # what there is of a block that was cut off
        closing = _KEY_END.search(text, match.end(), match.end() + _KEY_LIMIT)
        opening = _KEY_BEGIN.search(text, match.end(), match.end() + _KEY_LIMIT)
        if closing and not (opening and opening.start() < closing.start()):
            end = closing.end()
        yield match.start(), end, "private key"


_USERINFO = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+://"
    r"([^\s/@:\"'<>]{0,256}+)(?::([^\s/@\"'<>]{1,512}+))?@"
)
# Variables and blanks to fill in.
_PLACEHOLDER = re.compile(r"[$<{*%]|x{3,}|\.{3}", re.IGNORECASE)


def _urls(text: str) -> Iterator[_Found]:
    for match in _USERINFO.finditer(text):
        if match[2] is not None:
            if not _PLACEHOLDER.match(match[2]):
                yield *match.span(2), "url password"
        elif len(match[1]) >= 16:
            yield *match.span(1), "url token"


_AUTHORIZATION = re.compile(
    r"(?i)\b(?:authorization[\"']?\s{0,4}+[:=]\s{0,4}+[\"']?"
    r"(bearer\s{1,4}+|basic\s{1,4}+|token\s{1,4}+|digest\s{1,4}+|apikey\s{1,4}+)?"
    r"|bearer\s{1,4}+(?=[\w.~+/=-]{16}))"
    r"([^\s\"',;<>${}\[\]()]{4,8192}+)"
)
_COOKIE = re.compile(
    r"(?im)^[<>* \t]{0,4}+(?:set-)?cookie:[ \t]{0,4}+[^\s=]{1,128}+=([^\s;]{4,8192}+)"
)
_NO_CREDENTIALS = {"token", "header", "headers", "none", "null", "bearer", "basic", "digest"}


def _headers(text: str) -> Iterator[_Found]:
    for match in _AUTHORIZATION.finditer(text):
        value = match[2]
        if value.lower() not in _NO_CREDENTIALS and (match[1] or any(map(str.isdigit, value))):
            yield *match.span(2), "authorization"
    for match in _COOKIE.finditer(text):
        if not _PLACEHOLDER.match(match[1]):
            yield *match.span(1), "cookie"


_KEY = re.compile(
    r"(?<![A-Za-z0-9_.-])([A-Za-z0-9_.-]{2,}+)[\"']?([ \t]{0,3}+)(?:=>|:=|[:=])[ \t]{0,8}+"
)
_KEY_CHARACTERS = 64
_VALUE = re.compile(r"\"([^\"\n]{1,4096}+)\"|'([^'\n]{1,4096}+)'|([^\s\"',;&)\]}]{1,4096}+)")
_PASSWORD_KEY = re.compile(r"(?i)(?:password|passwd|passphrase|pwd|(?<![a-z])pass)$")
_SECRET_KEY = re.compile(
    r"(?i)(?:token|secret|credentials?|(?<![a-z])auth|(?<![a-z])salt|(?:api|access|account|auth"
    r"|client|deploy|encryption|license|master|private|secret|service|session|shared|signing)"
    r"[_.-]?key)$"
)
_CODE = re.compile(r"[(/]|[A-Za-z_][\w.]*+[(\[<]")
_NAME = re.compile(r"[A-Za-z_]+")
_DOTTED = re.compile(r"[A-Za-z_]\w*+(?:\.[A-Za-z_]\w*+)++")
_WORD = re.compile(
    r"none|null|nil|true|false|string|bytes|bool|optional|required|object|undefined|changeme"
    r"|redacted|hidden|masked|password|passwd|secret|token|example|test|prompt|incorrect|invalid|passed"
    r"|missing|expired|failed",
    re.IGNORECASE,
)


def _assignments(text: str) -> Iterator[_Found]:
    place = 0
    while key := _KEY.search(text, place):
        place = key.end()
        name = key[1][-_KEY_CHARACTERS:]  # its end says what it is
        password = _PASSWORD_KEY.search(name)
        if not password and not _SECRET_KEY.search(name):
            continue
        assigned = _VALUE.match(text, place)
        if assigned is None:
            continue
        place = assigned.end()
        group = assigned.lastindex or 0
        value = assigned[group]
        if _WORD.fullmatch(value) or _PLACEHOLDER.match(value):
            continue
        quoted = group < 3
        code = _CODE.match(value) or _DOTTED.fullmatch(value)
        if not quoted and (code or (_NAME.fullmatch(value) and _PASSWORD_KEY.search(value))):
            continue  # such as password=db_password
        if not password:
            if _looks_random(value):
                yield *assigned.span(group), "secret"
        # `password = name` is code; without blanks around the sign it is a setting.
        elif len(value) >= 4 and (quoted or not (key[2] and _NAME.fullmatch(value))):
            yield *assigned.span(group), "password"


def _looks_random(value: str) -> bool:
    """Whether a value has the spread of characters of a generated key, as words have not."""
    if len(value) < 16 or " " in value or _DOTTED.fullmatch(value):
        return False
    counts = Counter(value[:256])
    length = sum(counts.values())
    entropy = -sum(count / length * math.log2(count / length) for count in counts.values())
    digits = any(letter.isdigit() for letter in value)
    return entropy >= (3.0 if digits else 4.0) and not value.isdigit()
