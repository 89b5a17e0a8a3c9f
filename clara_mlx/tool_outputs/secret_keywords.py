"""The names of secrets: what is before a password, a key or a token, and how it leads there."""

from __future__ import annotations

import re
from functools import lru_cache

# What may end a name after its word.
_SUFFIX = (
    r"(?:[_-]?(?:\d{1,2}|v\d|base|data|prod|production|dev|staging|live|old|new|current|value"
    r"|b64|base64|raw|plain|default|primary|secondary))?"
)
_WORDS = (
    r"[Pp](?:(?ai:ass(?:wor[dt]|wd|[ -]?phrase|code)?|wd|sk)|(?i:w)(?<![A-Za-z0-9].[Ww])"
    r"|(?i:at)(?:(?<=[-_].[Aa][Tt])|(?<!\wPAT)(?<=PAT)))",
    r"[Tt](?ai:oken)",
    r"[Ss](?:(?ai:ecret|alt|ess(?:ion)?[_-]?id|id(?<=[-_].id))|(?i:ig)(?<=[?&;].ig)|(?i:ignature))",
    r"[Cc](?:(?ai:redentials?|onn(?:ection)?[_-]?str(?:ing)?)|ode(?<=[?&].ode))",
    r"[Aa](?ai:uth)",
    r"[Kk](?ai:ey)(?:(?<=[A-Za-z0-9_.?&-].[Ee].)"
    r"|(?<=(?:ss|PI|pi|et|nt|te|on|se|ed|ng|er|ry|al|mp) .[Ee].))",
    r"[Dd](?ai:sn|ockerconfigjson)",
    r"[Mm](?ai:nemonic)",
)
# What leads from a name, closed by its quotes and brackets, to the value: the first that fits.
_LEADS = {
    # password: | and the value in the next line
    "block": r"[ \t]{0,4}+:[ \t]{1,4}+[|>][+-]?[ \t]{0,4}+\n[ \t]{1,80}+",
    # Secret Access Key [None]: value
    "bracket": r"[ \t]{0,2}+[\[(][^\])\n]{0,40}+[\])]:[ \t]{0,4}+",
    # "name": "password", "value": "value"
    "pair": (
        r"(?:[ \t]{1,8}+(?!value)[\w:-]{1,20}+=\\{0,4}[\"'][^\"'<>\n]{0,80}+[\"']){0,4}+"
        r"[\s,]{1,60}+\\{0,64}[\"']?(?ai:value|val|parametervalue)\\{0,64}[\"']?"
        r"[ \t]{0,4}+[:=][ \t]{0,4}+"
    ),
    # <password>value<, <key>password</key><string>value<
    "xml": (
        r"</\w{1,20}+>\s{0,40}+<\w{1,20}+>|(?:[ \t]{1,4}+[\w:.-]{1,40}+=[^<>\n]{0,200}+)?"
        r"(?<![=-])(?:>|&gt;)(?:\s{0,40}+<(?:string|value)>)?(?:\s{0,8}+<!\[CDATA\[)?(?!\s*+[<&])"
    ),
    # token: str = "value"
    "typed": (
        r"(?:[ \t]{0,2}+:[ \t]{0,4}+|[ \t](?=&?[Ss]tr))&?(?:'static )?[A-Za-z_][\w.]{0,40}+"
        r"(?:[<\[][\w., |]{0,40}+[>\]])?(?: \| None)?[ \t]{0,4}+=(?![=>])[ \t]{0,4}+"
        r"(?=[bruf]{0,2}[\"'`])"
    ),
    # password = value, and between pipes
    "op": (
        r"[ \t]{0,20}+(?P<operator>=>|:=|={1,3}|->|→|:-|:(?![:/])|\|(?=[ \t])|%3[DdAa](?:%2[02])?"
        r"|(?:\|\||\?\?|or)(?=[ \t]{1,4}+[\"'])"
        r"|,(?=[ \t]{0,4}+[\\bru]{0,4}+[\"']))[ \t*]{0,8}+"
    ),
    # password for user bob: value
    "for": (
        r"[ \t](?:is (?:generated )?)?(?:for|of)[ \t](?:(?:user|key|account|role)[ \t])?"
        r"\S{1,200}+(?<=:)[ \t]{1,4}+"
    ),
    # password for the admin account is value, API key created: value
    "told": (
        r"[ \t](?:(?:for|of)[ \t](?:[\w@'./-]{1,64}+[ \t]){1,5}(?:is|was):?"
        r"|(?:was |has been )?(?:created|generated|issued|obtained|changed|updated|reset|set)"
        r"(?: successfully)?:)[ \t]{1,4}+"
    ),
    # password is value, password set to value
    "is": (
        r"[ \t]{1,4}+(?:(?:is|was|has been|will be)(?: now| set to| reset to| changed to)?"
        r"|(?:now )?(?:set |reset |changed |updated )?to):?[ \t]{1,4}+"
    ),
    # setPassword("value")
    "call": r"\([ \t]{0,4}+(?=[\"'`])",
    # PASSWORD 'value', --token value, secret 5 value; what has no digit and no quote is a word
    "space": r"[ \t]{1,8}+(?:\d[ \t])?(?=[^\s-])(?=[^\s\d\"'`]{0,64}+[\d\"'`])",
}
#: The end of a name that may be a secret's. Group 1 closes the name.
#: db_password"
WORD = re.compile(
    rf"(?:{'|'.join(_WORDS)})(?ai:{_SUFFIX})(?![A-Za-z0-9_]|[.-][A-Za-z0-9_])"
    r"((?:\[\d{0,4}\])?[\\\"'`\])*]{0,72}+)"
)
#: What leads from there to the value; the group that is named says how.
#: =
LEAD = re.compile("|".join(f"(?P<{lead}>{rule})" for lead, rule in _LEADS.items()))

# DB_PASSWORD
_PASSWORD_NAME = re.compile(
    r"(?i)(?:passwor[dt]|passwd|pass-?phrase|passcode|pwd|psk|(?<![a-z])pass|(?<![a-z])pw|(?:db|user|root|admin|login|smtp|imap"
    r"|ftp|my|pg|redis|mail|http|proxy|ssh|key|store|bind|auth|mysql|postgres|mongo|basic|cert|require|master)pass)"
    + _SUFFIX
    + "$"
)
# dbPass
_PASSWORD_CAMEL = re.compile(r"[a-z]Pass$")
# client_secret
_SECRET_NAME = re.compile(
    r"(?i)(?:token|secret|credentials?|(?<![a-z])auth|masterauth|(?<![a-z])salt|sess(?:ion)?[_-]?id"
    r"|(?:^|[_-])sid|(?<![a-z])dsn|(?<![a-z])pat|(?<![a-z])sig|(?:x-amz|x-goog|x-hub|webhook)[_-]signature"
    r"|mnemonic|dockerconfigjson|(?:^|[^a-z])PAT|conn(?:ection)?[_-]?str(?:ing)?|[?&]code|[?&]key"
    r"|secret[_-]?key[_-]?base)" + _SUFFIX + "$"
)
# access_key; in two, of which each takes half the time
_SECRET_KEY = (
    re.compile(
        r"(?i)(?:api|app|application|access|account|admin|auth|aes|agent|client|consumer|customer|cookie"
        r"|crypto|decryption|deploy|ecdsa|ed25519|encryption|enc|fernet|hmac|host|ingest|ingestion"
        r"|integration|jwt|license|machine|master|openai|anthropic|functions|certificate|isakmp|mailgun)"
        r"[_. -]?key" + _SUFFIX + "$"
    ),
    re.compile(
        r"(?i)(?:pem|preshared|pre[_-]shared|private|priv|project|provision(?:ing)?|push|rest|restricted"
        r"|root|rsa|sas|secret|sec|server|service|session|shared|sign(?:ing)?|ssh|ssl|storage|stripe"
        r"|subscription|symmetric|tls|user|recovery|unseal|vault|verification|webhook|wg|wif|wireguard"
        r"|write|x|sendgrid|stream)[_. -]?key" + _SUFFIX + "$"
    ),
)
# -key, at the end of x-functions-key
_HEADER_KEY = re.compile(r"(?i)-key" + _SUFFIX + "$")
# x-functions
_HEADER = re.compile(r"(?i)(?<![a-z-])[a-z-]++\Z")
_MOST_HEADER = 42  # characters before -key
# Names whose values are mixed by nature and public.
# cache_key
_PUBLIC_NAME = re.compile(
    r"(?i)(?:public|publishable|cache|primary|foreign|sort|partition|object|row|idempotency|group|lookup|registry"
    r"|index|short|map|dedup|ssh[_-]?host|known)[_.-]?key$"
    r"|(?:next|page|continuation|cancel|cancellation|cursor|resume|sync|change)[_.-]?(?:page)?[_.-]?token$"
)
# OPENAI_KEY
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,60}+$")
# api_key
_LOUD = re.compile(
    r"(?i)(?:secret|api|access|account|auth|bearer|client|private|master|refresh|personal|deploy|bot|subscription"
    r"|signing|encryption|webhook|session|id|sas)[_. -]?(?:key|token|secret|pat|id)|secret$"
)


@lru_cache(maxsize=4_096)
def kind_of_name(name: str, before: str) -> str | None:
    """What a name is that of: a ``password``, another ``secret``, or nothing.

    Args:
        name: The end of a name.
        before: The character before it.
    """
    if _PASSWORD_NAME.search(name) or _PASSWORD_CAMEL.search(name):
        return "password"
    if _PUBLIC_NAME.search(name):
        return None
    shown = before + name if before in ("?", "&") else name
    if _SECRET_NAME.search(shown) or any(one.search(shown) for one in _SECRET_KEY):
        return "secret"
    if _is_header_key(shown) or (name.endswith("_KEY") and _VARIABLE.match(name)):
        return "secret"
    is_signature = name.lower() == "signature" and before in ("?", "&", " ", ",")
    return "secret" if is_signature else None


def _is_header_key(name: str) -> bool:
    """Whether a name ends as that of a key in a header does, such as ``x-functions-key``."""
    key = _HEADER_KEY.search(name)
    if key is None:
        return False
    header = _HEADER.search(name[max(0, key.start() - _MOST_HEADER) : key.start()])
    return header is not None and "x-" in header[0][:-1].lower()


def leaves_no_doubt(name: str) -> bool:
    """Whether a name is that of a secret even if the value is short."""
    return name.startswith("-") or bool(_LOUD.search(name) or _VARIABLE.match(name))


def is_password_name(name: str) -> bool:
    """Whether a name is that of a password."""
    return bool(_PASSWORD_NAME.search(name))
