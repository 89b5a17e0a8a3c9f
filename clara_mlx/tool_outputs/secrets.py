"""Finds secrets in any text, and masks them before the text is written anywhere.

The rules are our own because detect-secrets and gitleaks scan files for review: they report hashes
of findings, not spans that can be masked, and bring a program or a tree of plugins along. As in
`identifiers`, every repetition is possessive or bounded, an expression begins with characters, and
the comment above it is a text that it matches.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from clara_mlx.tool_outputs.pieces import cut_into_pieces


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
    found = [(start, 1, end, "private key") for start, end in _private_keys(text)]
    for words, offset, first, end_of_piece in cut_into_pieces(text, _CONTEXT):
        for rank, rule in _RULES.items():
            found += [
                (start + offset, rank, end + offset, kind)
                for start, end, kind in rule(words)
                if first <= start < end_of_piece
                # What is masked already is no secret; a vendor's token is never in a mask.
                and (rule is _vendor_tokens or "[masked:" not in words[start:end])
            ]
    found.sort()
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


# Characters around a place that can matter to what is found there: three parts of a token.
_CONTEXT = 32_768

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
}
_TOKEN = re.compile(
    "|".join(f"(?P<g{number}>{rule})" for number, rule in enumerate(_VENDORS.values()))
)
# How these tokens begin, but for Telegram's; a search for all beginnings stops at few places.
_BEGINNINGS = (
    *("AKIA", "ASIA", "ABIA", "ACCA", "gh[pousr]_", "github_pat_", "gl[a-z]", "xox", "xapp-"),
    *("sk[-_]", "rk_", "pk_", "xai-", "gsk_", "hf_", "api_org_", "r8_", "AIza", "ya29", "GOCSPX"),
    *("whsec_", "npm_", "pypi-", r"SG\.", "SK", "key-", "do[opr]_", "dapi", "shp", "lin_", "ntn_"),
    *("hv[sb]", r"dp\.", "AGE-"),
)
# AKIA
_BEGINNING = re.compile(
    "|".join(rf"{begins[0]}(?<![A-Za-z0-9_].){begins[1:]}" for begins in _BEGINNINGS)
)
_VENDOR_NAMES = tuple(_VENDORS)
# hooks.slack.com/services/T0000/B0000/XXXXXXXXXXXX
_SLACK_HOOK = re.compile(r"hooks\.slack\.com/(?:services|workflows)/([\w/-]{20,255}+)")


# 12345678:AA
_TELEGRAM = re.compile(r":AA(?<=\d{8}:AA)")
# 12345678
_TELEGRAM_ID = re.compile(r"(?<![A-Za-z0-9_])\d{8,10}\Z")
_TELEGRAM_DIGITS = 10
# abcdefgh.eyJabcd.
_JWT = re.compile(r"\.eyJ(?<=[\w-]{8}\.eyJ)(?=([\w-]{4,8192}+\.[\w-]{0,8192}+))")
# eyJabcdefgh
_LAST_WORD = re.compile(r"(?<![\w-])[\w-]++\Z")
_JWT_HEADER = 8_192  # characters


def _vendor_tokens(text: str) -> Iterator[_Found]:
    starts = [match.start() for match in _BEGINNING.finditer(text)]
    for match in _TELEGRAM.finditer(text):
        place = match.start()
        if number := _TELEGRAM_ID.search(text, max(0, place - _TELEGRAM_DIGITS), place):
            starts.append(number.start())
    last = chained = 0
    for start in sorted(starts):
        token = _TOKEN.match(text, start) if start >= last else None
        last = token.end() if token else last
        while token:
            kind = _VENDOR_NAMES[int((token.lastgroup or "g0")[1:])]
            # sk-learn-contrib-something-long is a name; a key has a digit.
            if kind != "openai key" or any(map(str.isdigit, token[0])):
                yield *token.span(), kind
            if token.end() <= chained:
                break
            chained = token.end()
            token = _TOKEN.match(text, chained)  # another one may follow immediately
    for match in _JWT.finditer(text):
        place = match.start()
        least = text.rfind(".", max(0, place - _JWT_HEADER), place) + 1
        word = _LAST_WORD.search(text, least or max(0, place - _JWT_HEADER), place)
        header = text.find("eyJ", word.start() if word else least, place - 8)
        if header >= 0:
            yield header, match.end(1), "jwt"
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


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    closings = _KEY_END.finditer(text)
    closing = next(closings, None)
    openings = list(_KEY_BEGIN.finditer(text))
    for opening, following in zip_longest(openings, openings[1:]):
        start, end = opening.span()
        while closing and closing.start() < end:
            closing = next(closings, None)
        near = closing is not None and closing.end() <= end + _KEY_CHARACTERS
        if closing and near and not (following and following.start() < closing.start()):
            yield start, closing.end()
        else:  # as much as there is, if the block was cut off
            body = _KEY_BODY.match(text, end)
            yield start, body.end() if body else end


# https://user:password@
_USERINFO = re.compile(
    r"://(?<=[A-Za-z0-9+.-]{2}://)([^\s/@:\"'<>]{0,256}+)(?::([^\s/@\"'<>]{1,512}+))?@"
)
# https
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+\Z")
_SCHEME_CHARACTERS = 16
# Variables and blanks to be filled in: ${TOKEN}
_PLACEHOLDER = re.compile(r"[$<{*%]|x{3,}|\.{3}", re.IGNORECASE)


def _urls(text: str) -> Iterator[_Found]:
    for match in _USERINFO.finditer(text):
        place = match.start()
        if not _SCHEME.search(text, max(0, place - _SCHEME_CHARACTERS), place):
            continue
        if match[2] is not None:
            if not _PLACEHOLDER.match(match[2]):
                yield *match.span(2), "url password"
        elif len(match[1]) >= _LEAST_TOKEN:
            yield *match.span(1), "url token"


# Authorization: Bearer abcdefgh12345678
_AUTHORIZATION = re.compile(
    r"[AaBb](?<!\w.)(?:(?<=[Aa])(?i:uthorization[\"']?\s{0,4}+[:=]\s{0,4}+[\"']?"
    r"(bearer\s{1,4}+|basic\s{1,4}+|token\s{1,4}+|digest\s{1,4}+|apikey\s{1,4}+)?)"
    r"|(?<=[Bb])(?i:earer)\s{1,4}+(?=[\w.~+/=-]{16}))"
    r"([^\s\"',;<>${}\[\]()]{4,8192}+)"
)
# \nSet-Cookie: session=abcdefgh12345678
_COOKIE = re.compile(
    r"\n[<>* \t]{0,4}+(?i:(?:set-)?cookie:)[ \t]{0,4}+[^\s=]{1,128}+=([^\s;]{4,8192}+)"
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


# key =
_ASSIGNED = re.compile(
    r"([AaCcKkPpSsTt](?ai:assword|asswd|assphrase|wd|ass|oken|ecret|redentials?|uth|alt|ey))"
    r"(?![A-Za-z0-9_.-])[\"']?([ \t]{0,3}+)(?:=>|:=|[:=])[ \t]{0,8}+"
)
_NAME_LETTERS = string.ascii_letters + string.digits + "_.-"
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
    while key := _ASSIGNED.search(text, place):
        words = text[place : key.end(1)]
        name = words[len(words.rstrip(_NAME_LETTERS)) :]
        within_value = name == words and place and text[place - 1] in _NAME_LETTERS
        place = key.end()
        if within_value:
            continue
        name = name[-_NAME_CHARACTERS:]
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


# If two rules find the same secret, the one whose rank is lower says its kind; the rank of private
# keys, which are longer than a piece's context, is 1.
_RULES = {0: _vendor_tokens, 2: _urls, 3: _headers, 4: _assignments}
