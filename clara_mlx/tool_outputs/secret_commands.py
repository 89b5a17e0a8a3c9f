"""Secrets in the arguments of commands that have an option of their own for them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from clara_mlx.tool_outputs.secret_places import cookies
from clara_mlx.tool_outputs.secret_tokens import Found
from clara_mlx.tool_outputs.secret_values import is_blank, is_token

_QUOTE = r"\\{0,4}[\"']?"
_VALUE = _QUOTE + r"([^\s\"'\\|;&<>]{1,256}+)"
_START = r"(?<=[\s\"'])"


def _option(names: str, most_blanks: int = 3, least_blanks: int = 0) -> str:
    """An option whose value is a password."""
    between = f"[ =]{{{least_blanks},{most_blanks}}}+"
    return rf"{_START}(?:{names}){between}(?!-){_VALUE}"


# Options and arguments that are passwords, and the commands that have them.
_ARGUMENTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        # -u bob:password
        re.compile(
            rf"{_START}(?:-[a-zA-Z]{{1,9}}+(?<=u)|-[a-tv-zA-Z]{{0,8}}+u(?=[a-zA-Z])|--user"
            rf"|--proxy-user|-U|-a|--auth)[ =]{{0,3}}+{_QUOTE}"
            r"[^\s:\"'\\/]{1,256}+:([^\s\"'\\|;]{1,256}+)"
        ),
        "curl wget http https xh ab svn lftp siege hey",
    ),
    (
        re.compile(_option("-p")),
        "sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport cqlsh influx psexec"
        " rdesktop twine evil-winrm crackmapexec netexec nxc useradd usermod certutil security",
    ),
    (
        re.compile(rf"{_START}-p(?![\s=-]){_VALUE}"),
        "mysql mysqldump mysqladmin mysqlimport mysqlsh mysqlcheck mysqlslap mysqlbinlog mariadb"
        " mariadb-dump mariadb-admin mycli 7z 7za rar unrar",
    ),
    (
        re.compile(_option("-P")),
        "mosquitto_pub mosquitto_sub sqlcmd bcp isql zip unzip zipcloak ipmitool ssh-keygen",
    ),
    (re.compile(_option("-N", least_blanks=1)), "ssh-keygen"),
    (re.compile(_option("-p", least_blanks=1)), "login"),
    (re.compile(_option("-a|AUTH|auth", least_blanks=1)), "redis-cli"),
    (
        re.compile(_option("-w")),
        "ldapsearch ldapadd ldapmodify ldapdelete ldapwhoami ldappasswd ldapcompare security",
    ),
    (re.compile(_option("-pw", least_blanks=1)), "plink pscp psftp putty"),
    (
        re.compile(_option("-[cAX]", least_blanks=1)),
        "snmpwalk snmpget snmpset snmpbulkwalk snmptrap",
    ),
    (re.compile(_option("/p:", 0)), "xfreerdp xfreerdp3 wfreerdp"),
    (
        # -U bob%password
        re.compile(
            rf"{_START}(?:-U|--user)[ =]{{0,3}}+{_QUOTE}[^\s%\"']{{1,128}}+%([^\s\"']{{1,256}}+)"
        ),
        "smbclient rpcclient smbmap net smbget",
    ),
    (
        # -b file bob password
        re.compile(
            r"(?<=[ \t])-[a-zA-Z]{0,6}b[a-zA-Z]{0,6}[ \t]{1,4}+(?:-\w{1,8}[ \t]{1,4}+)?"
            r"(?:(?<=n )|(?<=nb )|[^\s-]\S{0,255}+[ \t]{1,4}+)"
            rf"\S{{1,128}}+[ \t]{{1,4}}+{_VALUE}"
        ),
        "htpasswd mosquitto_passwd",
    ),
    (re.compile(rf"{_START}(?:pass:|-[kK][ \t]{{1,4}}+){_VALUE}"), "openssl"),
    (
        # echo bob:password |
        re.compile(
            r"(?:echo|printf)[ \t]{1,4}+(?:-\w[ \t]{1,4}+)?"
            rf"{_QUOTE}[^\s:\"']{{1,128}}+:{_VALUE}"
        ),
        "chpasswd",
    ),
    (
        # echo password |
        re.compile(
            r"(?:(?:echo|printf)[ \t]{1,4}+(?:(?:-\w|['\"]%s(?:\\n)?['\"])[ \t]{1,4}+)?"
            rf"|<<<[ \t]{{0,4}}+){_VALUE}(?=[\"']?[ \t]{{0,4}}+(?:\||\n|\Z))"
        ),
        "--password-stdin --with-token --stdin --passphrase-fd kinit cryptsetup sudo",
    ),
    (
        # alias set name url user password
        re.compile(
            r"(?<=[ \t])(?:alias set|config host add)[ \t]{1,4}+\S{1,128}+[ \t]{1,4}+\S{1,256}+"
            rf"[ \t]{{1,4}}+\S{{1,128}}+[ \t]{{1,4}}+{_VALUE}"
        ),
        "mc mcli",
    ),
    (
        re.compile(rf"(?<=wpa_passphrase)[ \t]{{1,4}}+\S{{1,64}}+[ \t]{{1,4}}+{_VALUE}"),
        "wpa_passphrase",
    ),
    (
        # bob/password@db
        re.compile(rf"{_START}[\w$#]{{1,64}}+/([^\s/@\"'\\]{{1,128}}+)(?=@|\s|\Z)"),
        "sqlplus expdp impdp sqlldr rman",
    ),
    (
        re.compile(rf"(?:(?<=vault login)|(?<=rclone obscure))[ \t]{{1,4}}+(?!-){_VALUE}"),
        "vault rclone",
    ),
)


def _any_command(names: Iterable[str]) -> str:
    """An expression for all commands, which the search skips most characters for."""
    by_first: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names, reverse=True):  # the longer of two that begin alike comes first
        by_first[name[0]].append(re.escape(name[1:]))
    return "|".join(
        rf"{first}(?<![\w.-].)(?:{'|'.join(rest)})(?![\w-])" for first, rest in by_first.items()
    )


_BY_COMMAND: defaultdict[str, list[re.Pattern[str]]] = defaultdict(list)
for _pattern, _commands in _ARGUMENTS:
    for _name in _commands.split():
        _BY_COMMAND[_name].append(_pattern)
# curl
_COMMAND = re.compile(_any_command(_BY_COMMAND))
# --db-password X
_OPTION = re.compile(
    r"-(?<![\w-].)-?(?:[a-z]{1,16}[-.]){0,4}+(?:[a-z]{0,8}pass(?:word|wd|phrase|code)?|pwd?)"
    rf"(?:[ \t]{{1,4}}+(?:\\\n[ \t]{{0,40}}+)?|=)(?!-){_VALUE}",
    re.IGNORECASE,
)
# ENV DB_PASSWORD X
_SET = re.compile(
    r"(?:(?:ENV|ARG|[Ss]et[Ee]nv|setx|set)(?: -\w{1,3})?|login[ \t]\S{1,64}+)[ \t]{1,4}+"
    rf"(?:\w{{0,40}}_)?(?i:password|passwd|pass|passphrase|pwd)[ \t]{{1,4}}+(?!-){_VALUE}"
)
# curl -u 'abcdefgh12345678:'
_USER_ONLY = re.compile(
    rf"{_START}(?:-u|--user)[ =]{{0,3}}+{_QUOTE}([\w.-]{{16,256}}+):?(?=[\s\"'\\])"
)
# curl -b 'a=b; c=d'
_CURL_COOKIES = re.compile(
    _START + r"(?:-b|--cookie)[ =]{0,3}+" + _QUOTE + r"([^\s=;\"'\\]{1,128}+=[^\n\"'\\]{1,4096}+)"
)
_LEAST = 3  # characters of a password
_BEFORE = 2_000  # characters before a command's name in which its line begins
_SEPARATORS = ("\n", "\\n", "&&", "||", "; ")
# &&
_SEPARATOR = re.compile(r"\n|\\n|&&|\|\||; ")
_LINES = 20  # of one command that is continued with backslashes


def command_secrets(text: str) -> Iterator[Found]:
    """Passwords in the command lines of a text."""
    for pattern in (_OPTION, _SET):
        for match in pattern.finditer(text):
            if len(match[1]) >= _LEAST and not is_blank(match[1]):
                yield *match.span(1), "password"
    end = -1
    start = 0
    known: set[str] = set()
    for command in _COMMAND.finditer(text):
        place = command.start()
        if place >= end:
            yield from _in_line(text, start, end, known)
            known = set()
            least = max(0, end, place - _BEFORE)
            start = max(text.rfind(mark, least, place) + len(mark) for mark in _SEPARATORS)
            start = max(start, least)
            end = _end(text, command.end())
        known.add(command[0])
    yield from _in_line(text, start, end, known)


def _end(text: str, place: int) -> int:
    """Where a command ends that is being read."""
    for _ in range(_LINES):
        end = _SEPARATOR.search(text, place)
        if end is None:
            return len(text)
        if not (end[0] == "\n" and text[end.start() - 1] == "\\"):
            return end.start()
        place = end.end()
    return place


def _in_line(text: str, start: int, end: int, commands: set[str]) -> Iterator[Found]:
    for pattern in {each: None for name in sorted(commands) for each in _BY_COMMAND[name]}:
        for match in pattern.finditer(text, start, end):
            if len(match[1]) >= _LEAST and not is_blank(match[1]):
                yield *match.span(1), "password"
    if "curl" in commands:
        line = text.find("\n", end)  # cookies have what separates commands
        for match in _CURL_COOKIES.finditer(text, start, line if line >= 0 else len(text)):
            yield from cookies(text, *match.span(1))
        for match in _USER_ONLY.finditer(text, start, end):
            if is_token(match[1]):
                yield *match.span(1), "password"
