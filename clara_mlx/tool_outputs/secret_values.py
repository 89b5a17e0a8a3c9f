"""Whether a value that stands beside the name of a secret is one, or a variable, code or words."""

from __future__ import annotations

import math
import re
from collections import Counter

_HEX = frozenset("0123456789abcdefABCDEF")
_LEAST_TOKEN = 16  # characters; shorter values are names more often than tokens
_LEAST_STRONG = 8  # characters of a value whose name leaves no doubt
_LEAST_ENTROPY_WITH_DIGITS = 3.0  # bits a character
_LEAST_ENTROPY = 4.0  # bits a character; words without digits come closer to random letters
_LOOKED_AT = 256  # characters at the beginning of a value; more would not change the verdict

# Variables and blanks to be filled in: ${TOKEN}
_PLACEHOLDER = re.compile(
    r"\$(?:\{|\(|\w++\Z|env:)|<[^<>\n]{0,100}+>|\{[{%]?[^\n]{0,100}\}|#\{|[:@][A-Za-z_]++\Z"
    r"|%[sdr](?:\W|\Z)|%[({]|%\w{1,64}+%\Z|%\w++\Z|%env\(|(?:env|file|fd):"
    r"|\*{3,}|x{3,}|\.{3}|…|•{3}|\?|-{3,}|_{3,}|\d{4}-\d\d-\d\d(?:[T ]|\Z)"
    r"|!(?:vault|ref|sub|getatt|secret|env|encrypted|reference|importvalue)\b"
    r"|\[masked|\[redacted|\[filtered",
    re.IGNORECASE,
)
# required|min:8
_RULE = re.compile(
    r"(?:required|nullable|sometimes|string|confirmed|bail|min:\d{1,4}|max:\d{1,4})"
    r"(?:\|[\w:,]{1,64}+)++\Z"
)
# your_password
_BLANK = re.compile(
    r"(?:my|your|some|the|a|an|any|new|old|insert|enter|put|replace|change|fill|add|example|sample"
    r"|dummy|fake|placeholder|todo|fixme|redacted|removed|hidden|masked|secret|not)[-_. ]?"
    r"(?:your|my|me|with|in|the|a|an|real|own|actual|this|it|set|shown|super|\W){0,3}[-_. ]?"
    r"(?:api|access|github|secret|auth|db|client|user)?[-_. ]?"
    r"(?:password|passwd|passphrase|token|secret|key|value|pat|credentials?|here|now|it|me|this"
    r"|set|shown|pass)?[-_. ]?(?:here|value|goes[-_ ]here|goes)?[-_. ]?\d{0,3}",
    re.IGNORECASE,
)
# Words that are no secrets after the name of one.
_WORD_LIST = """
none null nil true false yes no string str bytes bool optional required object undefined
changeme redacted hidden masked password passwd pass passphrase secret token example test
prompt incorrect invalid passed missing expired failed boolean number int integer float any
unknown void text varchar char uuid secretstr charfield textfield default empty unset set get
key value user username valid wrong correct accepted rejected changed updated reset created
deleted revoked enabled disabled encrypted hashed plain plaintext ok error warning info field
input option flag argument basic bearer digest oauth oauth2 jwt ldap oidc saml mtls sso and or
is was are be been to for if with on in from must should can cannot can't could may will would
has have the a an this that these your my its their our not too at as by of does doesn't do
did didn't already contains needs need please enter use used using only also then than when
where which who how what why but so it we you they authentication authorization login strength
policy length parameter file path name type id hash here placeholder dummy self env process
config settings request generated provided specified supplied stored manager protected safe
ask stdin keyring inherit external internal unauthorized forbidden denied mismatch refresh
access
"""
_WORDS = frozenset(_WORD_LIST.split())
# Words that make a text of several a sentence about passwords, not one.
_GRAMMAR_LIST = """
must should can cannot can't may is was are be has have your the this not too please enter to
for with required does doesn't don't do did contains match of and or in at again new old
current confirm repeat incorrect invalid wrong
"""
_GRAMMAR = frozenset(_GRAMMAR_LIST.split())
# os.environ["TOKEN"]
_CODE = re.compile(
    r"[(/]|~/|\.{1,2}/|[A-Za-z]:[\\/]|[A-Za-z_][\w.?!]*+(?:->\w++|::\w++)*+[(\[<]"
    r"|(?:process|os|self|this|req|request|env|config|settings|options|opts|args|params|secrets|var|data|module"
    r"|local|import|await|new|lambda|typing|ctx|context|props|state|values|vars|inputs|steps|github)\??\.[A-Za-z_]"
)
# settings.token
_DOTTED = re.compile(
    r"[A-Za-z_][A-Za-z_]*+\d{0,2}(?:(?:\.|\?\.|->|::)[A-Za-z_]++\d{0,2})++(?![\w.])"
)
# oauth2-client-credentials-flow
_WORDS_ONLY = re.compile(
    r"[\W_]*+(?:(?:[A-Z]?[a-z]{1,14}|[A-Z]{1,14}|[a-z]{1,12}(?:[A-Z][a-z]{1,11}){1,4}|[A-Z][a-z]{1,11}(?:[A-Z][a-z]{1,11}){1,4})"
    r"\d{0,3}(?![A-Za-z0-9])[\W_]*+|v?\d{1,6}(?![A-Za-z0-9])[\W_]*+)*+"
)
# sha256:
_REFERENCE = re.compile(
    r"sha(?:1|224|256|384|512)[:-]|md5:|arn:|op://|projects/|https?://|s3://|gs://|file:|vault:|ssm:|urn:"
    r"|[\w./-]{1,200}+\.(?:pem|key|crt|cert|json|ya?ml|txt|env|cfg|conf|ini|toml|py|js|ts|go|rs|rb|java|sh|xml|p12|pfx|jks|pub)\Z"
)


def is_blank(value: str) -> bool:
    """Whether a value stands for one: a variable, a blank to be filled in, or a word about it."""
    return bool(
        value.lower().rstrip(".!:") in _WORDS
        or _PLACEHOLDER.match(value)
        or _RULE.match(value)
        or _BLANK.fullmatch(value[:_LOOKED_AT])
        or value.endswith(("EXAMPLE", "EXAMPLEKEY"))
        or len(set(value)) == 1
    )


def is_code(value: str) -> bool:
    """Whether a value without quotes is an expression or a path."""
    return bool(_CODE.match(value) or _DOTTED.match(value))


def is_number(value: str) -> bool:
    """Whether a value is a count or a share."""
    return bool(re.fullmatch(r"[\d.,]{1,12}(?:%|m?s)?", value))


def is_hex(value: str) -> bool:
    """Whether a value may be a hash."""
    return set(value) <= _HEX


def consists_of_words(value: str) -> bool:
    """Whether a value is words and small numbers, joined by anything."""
    return bool(_WORDS_ONLY.fullmatch(value[:_LOOKED_AT]))


def is_token(value: str, *, strong: bool = False) -> bool:
    """Whether a value is as mixed as a generated key.

    Args:
        value: The value.
        strong: Its name leaves little doubt, so that a shorter one is taken for a key as well.
    """
    if len(value) < (_LEAST_STRONG if strong else _LEAST_TOKEN) or " " in value:
        return False
    if _REFERENCE.match(value) or consists_of_words(value):
        return False
    digits = any(map(str.isdigit, value))
    if value.replace(".", "").isdigit() or (
        len(value) < _LEAST_TOKEN and not (digits and any(map(str.isalpha, value)))
    ):
        return False
    least = _LEAST_ENTROPY_WITH_DIGITS if digits else _LEAST_ENTROPY
    return _entropy(value) >= (least if len(value) >= _LEAST_TOKEN else 2.5)


def _entropy(value: str) -> float:
    """Bits a character, as the value's own characters are mixed."""
    counts = Counter(value[:_LOOKED_AT])
    length = sum(counts.values())
    return -sum(count / length * math.log2(count / length) for count in counts.values())


def is_sentence(value: str) -> bool:
    """Whether several words are about a password, not one."""
    words = value.lower().split()
    return len(words) > 1 and not _GRAMMAR.isdisjoint(words) and not any(map(str.isdigit, value))
