"""Finds secrets in any text, and masks them before the text is written anywhere.

The rules are our own because detect-secrets and gitleaks scan files for review: they report hashes
of findings, not spans that can be masked, and bring a program or a tree of plugins along. As in
`identifiers`, every repetition is possessive or bounded, and the comment above an expression is a
text that it matches.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and its place in the text that was searched."""

    kind: str
    start: int
    end: int


def mask(text: str) -> tuple[str, list[Secret]]:
    """The text with every secret replaced with ``[masked: KIND]``, and where the secrets were.

    The replacement reveals neither length nor characters of the secret, and masking a masked text
    changes nothing. Places are those in the given text.
    """
    found = secrets(text)
    parts: list[str] = []
    last = 0
    for secret in found:
        parts += (text[last : secret.start], f"[masked: {secret.kind}]")
        last = secret.end
    return "".join(parts) + text[last:], found


def secrets(text: str) -> list[Secret]:
    """The secrets of ``text`` in their order.

    Secrets that overlap are given as one, of the kind of the rule that comes first.
    """
    found = sorted(
        (start, rank, end, kind)
        for rank, rule in enumerate(_RULES)
        for start, end, kind in rule(text)
        if rule in _EXACT_RULES or "[masked:" not in text[start:end]  # it is masked already
    )
    kept: list[Secret] = []
    named_by = 0  # rank of the rule that names the last secret
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


_LEAST_PASSWORD = 4  # characters
_LEAST_TOKEN = 16  # characters; shorter values are names more often than tokens

_Found = tuple[int, int, str]  # start, end, kind

# Prefixes that vendors document; lengths are lower bounds, because vendors lengthen their tokens.
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
# hooks.slack.com/services/T0000/B0000/XXXXXXXXXXXX
_SLACK_HOOK = re.compile(r"hooks\.slack\.com/(?:services|workflows)/([\w/-]{20,255}+)")


def _vendor_tokens(text: str) -> Iterator[_Found]:
    for match in _TOKEN_START.finditer(text):
        token: re.Match[str] | None = match
        while token:  # another one may follow immediately
            kind = _VENDOR_NAMES[int((token.lastgroup or "g0")[1:])]
            # sk-learn-contrib-something-long is a name; a key has a digit.
            if kind != "openai key" or any(map(str.isdigit, token[0])):
                yield *token.span(), kind
            token = _TOKEN.match(text, token.end())
    for match in _SLACK_HOOK.finditer(text):
        yield *match.span(1), "slack webhook"


# -----BEGIN RSA PRIVATE KEY-----
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
# -----END RSA PRIVATE KEY-----
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
# The lines of a block; some tools print a backslash and an n between them.
_KEY_BODY = re.compile(
    r"(?:(?:\\n|\s)*+(?:[A-Za-z0-9+/=]{20,}+|(?:Proc-Type|DEK-Info): [^\n]{0,100}+))*+"
    r"(?:(?:\\n|\s)*+[A-Za-z0-9+/=]++\Z)?"
)
_KEY_CHARACTERS = 20_000  # a private key is shorter


def _private_keys(text: str) -> Iterator[_Found]:
    for match in _KEY_BEGIN.finditer(text):
        body = _KEY_BODY.match(text, match.end())
        end = body.end() if body else match.end()  # as much as there is, if the block was cut off
        closing = _KEY_END.search(text, match.end(), match.end() + _KEY_CHARACTERS)
        opening = _KEY_BEGIN.search(text, match.end(), match.end() + _KEY_CHARACTERS)
        if closing and not (opening and opening.start() < closing.start()):
            end = closing.end()
        yield match.start(), end, "private key"


# https://user:password@
_USERINFO = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+://"
    r"([^\s/@:\"'<>]{0,256}+)(?::([^\s/@\"'<>]{1,512}+))?@"
)
# Variables and blanks to be filled in: ${TOKEN}
_PLACEHOLDER = re.compile(r"[$<{*%]|x{3,}|\.{3}", re.IGNORECASE)


def _urls(text: str) -> Iterator[_Found]:
    for match in _USERINFO.finditer(text):
        if match[2] is not None:
            if not _PLACEHOLDER.match(match[2]):
                yield *match.span(2), "url password"
        elif len(match[1]) >= _LEAST_TOKEN:
            yield *match.span(1), "url token"


# Authorization: Bearer abcdefgh12345678
_AUTHORIZATION = re.compile(
    r"(?i)\b(?:authorization[\"']?\s{0,4}+[:=]\s{0,4}+[\"']?"
    r"(bearer\s{1,4}+|basic\s{1,4}+|token\s{1,4}+|digest\s{1,4}+|apikey\s{1,4}+)?"
    r"|bearer\s{1,4}+(?=[\w.~+/=-]{16}))"
    r"([^\s\"',;<>${}\[\]()]{4,8192}+)"
)
# Set-Cookie: session=abcdefgh12345678
_COOKIE = re.compile(
    r"(?im)^[<>* \t]{0,4}+(?:set-)?cookie:[ \t]{0,4}+[^\s=]{1,128}+=([^\s;]{4,8192}+)"
)
# Words after "authorization:" that are not credentials.
_NOT_CREDENTIALS = {"token", "header", "headers", "none", "null", "bearer", "basic", "digest"}


def _headers(text: str) -> Iterator[_Found]:
    for match in _AUTHORIZATION.finditer(text):
        value = match[2]
        if value.lower() not in _NOT_CREDENTIALS and (match[1] or any(map(str.isdigit, value))):
            yield *match.span(2), "authorization"
    for match in _COOKIE.finditer(text):
        if not _PLACEHOLDER.match(match[1]):
            yield *match.span(1), "cookie"


# api_key =
_ASSIGNED_NAME = re.compile(
    r"(?<![A-Za-z0-9_.-])([A-Za-z0-9_.-]{2,}+)[\"']?([ \t]{0,3}+)(?:=>|:=|[:=])[ \t]{0,8}+"
)
_NAME_CHARACTERS = 64  # at the end of a name, which says what is assigned
# "hunter2"
_VALUE = re.compile(r"\"([^\"\n]{1,4096}+)\"|'([^'\n]{1,4096}+)'|([^\s\"',;&)\]}]{1,4096}+)")
# DB_PASSWORD
_PASSWORD_NAME = re.compile(r"(?i)(?:password|passwd|passphrase|pwd|(?<![a-z])pass)$")
# client_secret
_SECRET_NAME = re.compile(
    r"(?i)(?:token|secret|credentials?|(?<![a-z])auth|(?<![a-z])salt|(?:api|access|account|auth"
    r"|client|deploy|encryption|license|master|private|secret|service|session|shared|signing)"
    r"[_.-]?key)$"
)
# os.environ["TOKEN"]
_CODE = re.compile(r"[(/]|[A-Za-z_][\w.]*+[(\[<]")
# db_password
_NAME = re.compile(r"[A-Za-z_]+")
# settings.token
_DOTTED = re.compile(r"[A-Za-z_]\w*+(?:\.[A-Za-z_]\w*+)++")
# Values that are not secrets: changeme
_HARMLESS = re.compile(
    r"none|null|nil|true|false|string|bytes|bool|optional|required|object|undefined|changeme"
    r"|redacted|hidden|masked|password|passwd|secret|token|example|test|prompt|incorrect|invalid|passed"
    r"|missing|expired|failed",
    re.IGNORECASE,
)


def _assignments(text: str) -> Iterator[_Found]:
    """Values that are assigned to a name of a password, or random ones to a name of a secret."""
    place = 0
    while key := _ASSIGNED_NAME.search(text, place):
        place = key.end()
        name = key[1][-_NAME_CHARACTERS:]
        password = _PASSWORD_NAME.search(name)
        if not password and not _SECRET_NAME.search(name):
            continue
        assigned = _VALUE.match(text, place)
        if assigned is None:
            continue
        place = assigned.end()
        group = assigned.lastindex or 0
        value = assigned[group]
        if _HARMLESS.fullmatch(value) or _PLACEHOLDER.match(value):
            continue
        quoted = group < 3
        code = _CODE.match(value) or _DOTTED.fullmatch(value)
        if not quoted and (code or (_NAME.fullmatch(value) and _PASSWORD_NAME.search(value))):
            continue  # a name, as in password=db_password
        if not password:
            if _looks_random(value):
                yield *assigned.span(group), "secret"
        # `password = name` is code; without blanks around the equals sign it is a setting.
        elif len(value) >= _LEAST_PASSWORD and (quoted or not (key[2] and _NAME.fullmatch(value))):
            yield *assigned.span(group), "password"


_LEAST_ENTROPY_WITH_DIGITS = 3.0  # bits a character
_LEAST_ENTROPY = 4.0  # bits a character; words without digits come closer to random letters
_ENTROPY_CHARACTERS = 256  # at the beginning of a value; more would not change the verdict


def _looks_random(value: str) -> bool:
    """Whether the characters of a value are as mixed as those of a generated key."""
    if len(value) < _LEAST_TOKEN or " " in value or _DOTTED.fullmatch(value):
        return False
    counts = Counter(value[:_ENTROPY_CHARACTERS])
    length = sum(counts.values())
    entropy = -sum(count / length * math.log2(count / length) for count in counts.values())
    digits = any(letter.isdigit() for letter in value)
    least = _LEAST_ENTROPY_WITH_DIGITS if digits else _LEAST_ENTROPY
    return entropy >= least and not value.isdigit()


# If two rules find the same secret, the one that comes first here says its kind.
_RULES = (_vendor_tokens, _private_keys, _urls, _headers, _assignments)

# Rules that never find what is masked already.
_EXACT_RULES = (_vendor_tokens, _private_keys)
