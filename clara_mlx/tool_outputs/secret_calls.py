"""Secrets that are known by the call or the command before them, in code and scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.secret_tokens import Found
from clara_mlx.tool_outputs.secret_values import is_blank, is_code, is_token

# login("bob", "password1")
_LOGIN = re.compile(
    r"(?:auth=|[Aa]uth|[lL]ogin|[cC]onnection|Credentials?|[cC]onnect)\([ \t]{0,4}+"
    r"(?:[^()\"'\n]{1,64}+,[ \t]{0,4}+)?[\"'][^\"'\n]{1,64}+[\"'][ \t]{0,4}+,[ \t]{0,4}+"
    r"[\"']([^\"'\s]{6,128}+)[\"'][ \t]{0,4}+\)"
)
# send "password1\x5cr"
_SENT = re.compile(r"send(?:line)?(?: --)?[ \t(]{1,4}+\\{0,4}[\"']([^\s\"'\\]{6,64}+)\\{1,8}[rn]")
# ConvertTo-SecureString "x"
_SECURE_STRING = re.compile(
    r"ConvertTo-SecureString[ \t]{1,4}+(?:-String[ \t]{1,4}+)?\\{0,4}[\"']([^\"'\n\\]{1,256}+)"
)
# rabbitmqctl add_user bob password
_NEW_USER = re.compile(
    r"(?:add_user|change_password|authenticate_user|net user)[ \t]{1,4}+\S{1,64}+[ \t]{1,4}+"
    r"(?![-/])[\"']?([^\s\"'\\|;&<>]{1,256}+)"
)
# etcdctl --user bob:abcdefgh12345678
_USER = re.compile(r" (?:-u|--user)[ =][\"']?[\w.@-]{1,64}+:([^\s\"'\\|;&<>]{1,256}+)")


def call_secrets(text: str) -> Iterator[Found]:
    """Passwords in calls that log in, and in commands that make users."""
    for pattern in (_SECURE_STRING, _NEW_USER):
        for match in pattern.finditer(text):
            if not is_blank(match[1]):
                yield *match.span(1), "password"
    for pattern in (_LOGIN, _SENT):
        for match in pattern.finditer(text):
            if any(map(str.isdigit, match[1])) and not (is_blank(match[1]) or is_code(match[1])):
                yield *match.span(1), "password"
    for match in _USER.finditer(text):
        if is_token(match[1], strong=True):
            yield *match.span(1), "password"
