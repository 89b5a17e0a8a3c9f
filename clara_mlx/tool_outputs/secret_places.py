"""Secrets that are known by their place: in URLs, headers, cookies, and lines of known files."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.secret_tokens import Found
from clara_mlx.tool_outputs.secret_values import consists_of_words, is_blank, is_number, is_token

_LEAST_PASSWORD = 4  # characters
_LEAST_TOKEN = 16  # characters

# https://user:password@
_USERINFO = re.compile(
    r":(?:\\?/){2}(?:(?<=[A-Za-z0-9+.-]{2}://)|(?<=[A-Za-z0-9+.]:\\/\\/))([^\s/@:\"'<>\\]{0,256}+)"
    r"(?::((?:[^\s/@\"'<>\\]{0,512}+@){1,4}+)|@)"
)
# https
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,31}+\Z")
_SCHEME_CHARACTERS = 32
# jdbc:oracle:thin:scott/tiger@
_ORACLE = re.compile(r":thin:[\w$#]{1,64}+/([^\s/@\"']{1,128}+)@")
# hooks.slack.com/services/T0000/B0000/XXXXXXXXXXXX
_HOOK = re.compile(
    r"hooks\.(?:slack(?:-gov)?\.com/(?:services|workflows|triggers)|zapier\.com/hooks/catch)/([\w/-]{12,255}+)"
    r"|discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/(\d{5,25}/[\w-]{20,100}+)"
    r"|webhook\.office\.com/webhookb2/([\w@/-]{30,400}+)|office\.com/webhook/([\w@/-]{30,400}+)"
    r"|open-apis/bot/(?:v\d/)?hook/([\w-]{16,100}+)|/with/key/([\w-]{16,100}+)"
    r"|hc-ping\.com/([\w-]{20,100}+)|infura\.io/(?:ws/)?v3/([0-9a-f]{32})"
    r"|alchemy(?:api)?\.(?:com|io)/v2/([\w-]{20,100}+)|make\.com/([a-z0-9]{24,64}+)|/hooks/([a-z0-9]{26})(?![a-z0-9])"
    r"|/(?:reset|reset-password|password-reset|invite|verify|confirm|activate|magic|magic-link)/([\w-]{20,200}+)"
    r"|[?&](?:jwt|session|sid|ticket|appid|assertion|SAMLResponse|device_code|code_verifier)"
    r"=([^&\s\"'<>#\\]{16,2000}+)"
)


def url_secrets(text: str) -> Iterator[Found]:
    """Passwords and tokens in URLs, but for those that have a name there."""
    for match in _USERINFO.finditer(text):
        place = match.start()
        if not _SCHEME.search(text, max(0, place - _SCHEME_CHARACTERS), place):
            continue
        if match[2] is not None:
            start, end = match.span(2)
            value = text[start : end - 1]
            if len(value) > 1 and not is_blank(value):
                yield start, end - 1, "url password"
            if is_token(match[1]):
                yield *match.span(1), "url token"
        elif len(match[1]) >= _LEAST_TOKEN and not (
            is_blank(match[1]) or consists_of_words(match[1])
        ):
            yield *match.span(1), "url token"
    for match in _ORACLE.finditer(text):
        if not is_blank(match[1]):
            yield *match.span(1), "url password"
    for match in _HOOK.finditer(text):
        group = match.lastindex or 0
        if not consists_of_words(match[group]) and not is_blank(match[group]):
            slack = match[0].startswith("hooks.slack")
            yield *match.span(group), "slack webhook" if slack else "webhook"


# Authorization: Bearer abcdefgh12345678
_AUTHORIZATION = re.compile(
    r"[AaBb](?<![A-Za-z0-9].)(?:(?<=[Aa])(?i:uthorization[\\\"'\])]{0,6}+\s{0,4}+(?:=>|[:=,])\s{0,4}+[\[\\\"'`]{0,6}+"
    r"((?:bearer|basic|token|digest|apikey|api-key|key|ssws|geniekey|negotiate|hmac|bot|discord-bot|oauth|splunk"
    r"|privatetoken|aws)[ \t]{1,4}+)?)"
    r"|(?<=[Bb])(?i:earer|asic)\s{1,4}+(?=[\w.~+/=-]{12}))"
    r"([^\s\"',;<>${}\[\]()\\`]{4,8192}+)"
)
# response="0123456789abcdef0123456789abcdef"
_RESPONSE = re.compile(r"response=\\{0,4}\"([0-9a-zA-Z]{32,64})(?![0-9a-zA-Z])")
# Words after "authorization:" that are not credentials.
_NOT_CREDENTIALS = frozenset(
    (
        *("token", "header", "headers", "none", "null", "bearer", "basic", "digest", "required"),
        *(
            "credential",
            "realm",
            "username",
            "keyid",
            "signature",
            "undefined",
            "missing",
            "string",
        ),
    )
)
# Cookie: theme=dark; sessionid=abcdefgh12345678
_COOKIES = re.compile(
    r"[Cc](?<![A-Za-z0-9].)(?i:ookies?2?)[\\\"'\])]{0,6}+"
    r"(?:[ \t]{0,4}+(?:=>|[:=,])|(?<=--cookie)[ \t])[ \t]{0,4}+"
    r"[\[\\\"'`]{0,6}+([^\s=;\"'\\{}]{1,128}+=[^\n\"'\\]{1,8192}+)"
)
# id=abc
_COOKIE = re.compile(r"(?<![^\s;,=:(\[\\\"'`])([^\s;,=:(\[\\\"'`]{1,128}+)=([^\s;,]{1,8192}+)")
# path
_ATTRIBUTE = re.compile(
    r"(?:path|domain|expires|max-age|samesite|priority|version|comment|secure|httponly|partitioned)\Z",
    re.IGNORECASE,
)
# PHPSESSID
_SESSION = re.compile(
    r"sess|(?<![a-z])sid(?![a-z])|ssid|auth|token|jwt|csrf|xsrf|remember|secret|passw|cred|ticket|sso|(?<![a-z])id\Z|login|key",
    re.IGNORECASE,
)
# .example.com	TRUE	/	FALSE	0	sid	abcdefgh
_JAR = re.compile(
    r"\t(?:TRUE|FALSE)\t[^\t\n]{1,256}+\t(?:TRUE|FALSE)\t\d{1,20}+\t([^\t\n]{1,256}+)\t([^\t\n]{1,8192}+)"
)


def header_secrets(text: str) -> Iterator[Found]:
    """Credentials in headers, and cookies that may be some."""
    for match in _AUTHORIZATION.finditer(text):
        value = match[2]
        known = match[0][0] in "Aa"
        if value.lower().partition("=")[0] in _NOT_CREDENTIALS or is_blank(value):
            continue
        if not known:
            likely = _is_login(value) if match[0][1] in "Aa" else is_token(value)
        else:
            likely = bool(match[1]) or any(map(str.isdigit, value))
        if likely:
            yield *match.span(2), "authorization"
    for match in _RESPONSE.finditer(text):
        yield *match.span(1), "authorization"
    for match in _COOKIES.finditer(text):
        yield from cookies(text, *match.span(1))
    for match in _JAR.finditer(text):
        if _is_cookie(match[1], match[2]):
            yield *match.span(2), "cookie"


def cookies(text: str, start: int, end: int) -> Iterator[Found]:
    """The cookies between two places that may be credentials."""
    for pair in _COOKIE.finditer(text, start, end):
        if _is_cookie(pair[1], pair[2]):
            yield *pair.span(2), "cookie"


def _is_cookie(name: str, value: str) -> bool:
    if _ATTRIBUTE.match(name) or len(value) < _LEAST_PASSWORD or is_blank(value):
        return False
    if _SESSION.search(name):
        return not is_number(value) or len(value) > 7
    return is_token(value, strong=True)


def _is_login(value: str) -> bool:
    """Whether a value is a name and a password in Base64."""
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return b":" in decoded and decoded.isascii()


# \ndb.example.com:5432:app:bob:password
_PGPASS = re.compile(r"(?:\n|\| |\t|→)(?:[^\s:/#→|]{1,253}+|\*):(?:\d{4,5}|\*):")
# app:bob:password
_PGPASS_REST = re.compile(r"([^\s:]{1,64}+):([^\s:]{1,64}+):((?:[^\s:\\]|\\.){4,256}+)(?=\s|\Z)")
# Words where a name of a user would be: those of compilers' messages.
_MESSAGES = frozenset(("error", "warning", "note", "info", "fatal", "hint"))


def file_secrets(text: str) -> Iterator[Found]:
    """Passwords in PostgreSQL's .pgpass."""
    place = 0
    while head := _PGPASS.search(text, place):
        place = head.end()
        match = _PGPASS_REST.match(text, place)
        if match is None:
            continue
        place = match.end()
        if match[1].isdigit() or match[2].lower() in _MESSAGES or is_blank(match[3]):
            continue
        if not match[2].isdigit():
            yield *match.span(3), "password"
