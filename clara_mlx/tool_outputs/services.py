"""Facts in what npm, HTTP clients and servers, and builds print."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.compilers import MAKE, make_failure
from clara_mlx.tool_outputs.configs import json
from clara_mlx.tool_outputs.facts import Facts, Line

_ADDED = re.compile(
    r"(?:added (?P<added>\d+) packages?, )?(?:removed \d+ packages?, )?(?:changed \d+ packages?, )?"
    r"(?:and )?audited (?P<audited>\d+) packages? in (?P<duration>\d[\d.]*m?s)$"
)
_VULNERABILITIES = re.compile(
    r"(?:found )?(?P<count>\d+) (?:(?:low|moderate|high|critical) severity )?vulnerabilit(?:y|ies)"
    r"(?: \(.+\))?$"
)
_FUNDING = re.compile(r" *(?P<count>\d+) packages are looking for funding$")
_DEPRECATED = re.compile(
    r"npm (?:warn|WARN) deprecated (?P<name>@?[^\s@]+)@(?P<version>[^\s:]+): (?P<why>.+)$"
)
_NPM_CODE = re.compile(r"npm (?:error|ERR!) code (?:(?P<status>\d+)|(?P<code>E\w+))$")
_NPM_MISSING = re.compile(
    r"npm (?:error|ERR!) 404 +Not Found - GET https://registry\.npmjs\.org/"
    r"(?P<name>\S+?)(?: - .*)?$"
)
_NPM_PATH = re.compile(r"npm (?:error|ERR!) path (?P<path>\S+)$")
_NPM_LOG = re.compile(
    r"npm (?:error|ERR!) A complete log of this run can be found in: (?P<path>\S+)$"
)
_NPM_SCRIPT = re.compile(r"npm (?:error|ERR!) Lifecycle script `(?P<script>[^`]+)` failed")
_NPM_UNKNOWN = re.compile(r"npm (?:error|ERR!) Missing script: \"(?P<script>[^\"]+)\"$")
_RUN = re.compile(r"> (?P<name>@?[^\s@]+)@(?P<version>\d\S*) \S+$")
_RUN_COMMAND = re.compile(r"> (?P<command>\S.*)$")
_TYPESCRIPT = re.compile(
    r"(?P<path>[^\s(]+)\((?P<line>\d+),(?P<column>\d+)\): error (?P<code>TS\d+): (?P<message>.+)$"
)
_JEST_FILE = re.compile(r"FAIL (?P<path>\S+)$")
_JEST_TEST = re.compile(r"  ● (?P<test>\S.*)$")
_JEST_VALUE = re.compile(r" +(?P<side>Expected|Received): +(?P<value>\S.*)$")
_JEST_COUNTS = re.compile(
    r"Tests: +(?:(?P<failed>\d+) failed, )?(?:(?P<skipped>\d+) skipped, )?"
    r"(?:(?P<passed>\d+) passed, )?(?P<ran>\d+) total$"
)
_TAP = re.compile(r"[#\u2139] (?P<what>tests|pass|fail|skipped) (?P<count>\d+)$")
_TAP_FACTS = {"tests": "ran", "pass": "passed", "fail": "failed", "skipped": "skipped"}


def npm(facts: Facts, lines: list[Line]) -> None:
    """npm install and run, and what tsc, jest and node's own test runner print under it."""
    failed = any(line.text.startswith(("npm error", "npm ERR!")) for line in lines)
    for number, line in enumerate(lines):
        text = line.text
        if match := _ADDED.match(text):
            facts.add("added_packages", line, match, "added")
            facts.add("audited_packages", line, match, "audited")
            facts.add("duration", line, match, "duration")
        elif match := _VULNERABILITIES.match(text):
            facts.add("vulnerabilities", line, match, "count")
        elif match := _FUNDING.match(text):
            facts.add("funding", line, match, "count")
        elif match := _DEPRECATED.match(text):
            facts.add("version", line, match, "version", name=match["name"])
            facts.add("deprecation", line, match, "why", name=match["name"])
        elif match := _RUN.match(text):
            facts.add("version", line, match, "version", name=match["name"])
            following = lines[number + 1] if number + 1 < len(lines) else line
            if failed and (command := _RUN_COMMAND.match(following.text)):
                facts.add("command", following, command, "command")
        elif match := _TYPESCRIPT.match(text):
            facts.add("error_file", line, match, "path")
            facts.add("error_line", line, match, "line")
            facts.add("error_column", line, match, "column")
            facts.add("error_code", line, match, "code")
            facts.add_message(line, match)
        else:
            _add_npm_error(facts, line)
            _add_javascript_test(facts, line)


def _add_npm_error(facts: Facts, line: Line) -> None:
    for pattern, pairs in (
        (_NPM_CODE, (("exit_status", "status"), ("error_code", "code"))),
        (_NPM_MISSING, (("missing_module", "name"),)),
        (_NPM_PATH, (("root", "path"),)),
        (_NPM_LOG, (("log_file", "path"),)),
        (_NPM_SCRIPT, (("script", "script"),)),
        (_NPM_UNKNOWN, (("script", "script"),)),
    ):
        if match := pattern.match(line.text):
            for fact, group in pairs:
                facts.add(fact, line, match, group)


def _add_javascript_test(facts: Facts, line: Line) -> None:
    if match := _JEST_FILE.match(line.text):
        facts.add("test_file", line, match, "path")
    elif match := _JEST_TEST.match(line.text):
        facts.add("failed_test", line, match, "test")
    elif match := _JEST_VALUE.match(line.text):
        fact = "expected" if match["side"] == "Expected" else "actual"
        facts.add(fact, line, match, "value")
    elif match := _JEST_COUNTS.match(line.text):
        for fact in ("failed", "skipped", "passed", "ran"):
            facts.add(fact, line, match, fact)
    elif match := _TAP.match(line.text):
        facts.add(_TAP_FACTS[match["what"]], line, match, "count")


_STATUS = re.compile(r"(?:< )?HTTP/\d(?:\.\d)? (?P<status>\d{3})(?: (?P<reason>\S.*?))?\s*$")
_REQUEST = re.compile(r"> (?P<method>[A-Z]{3,7}) (?P<path>\S+) HTTP/")
_HOST = re.compile(r"> Host: (?P<host>\S+)$")
_HEADER = re.compile(r"(?:< )?(?P<key>[A-Za-z][\w-]*): (?P<value>\S.*?)\s*$")
_ACCESS = re.compile(
    r"(?:INFO: +\S+ - |\S+ - \S+ \[[^\]]+\] )\"(?P<method>[A-Z]{3,7}) "
    r"(?P<path>[^\s\"]+) HTTP/[\d.]+\""
    r" (?P<status>\d{3})(?: (?P<bytes>\d+)\b)?"
)
_REFUSED = re.compile(
    r"curl: \((?P<status>\d+)\) (?P<message>Failed to connect to (?P<host>\S+) port (?P<port>\d+)"
    r"(?: after (?P<duration>\d+ ms))?.*)$"
)
_UNRESOLVED = re.compile(r"curl: \((?P<status>\d+)\) (?P<message>.+)$")
_JSON_ERROR = re.compile(r"\{\"error\": ?\"(?P<message>[^\"\\]+)\"\}$")


def http(facts: Facts, lines: list[Line]) -> None:
    """curl -i and -v, curl's errors, and access logs."""
    head = False  # inside a response's head
    for number, line in enumerate(lines):
        text = line.text
        if match := _STATUS.match(text):
            head = True
            facts.add("http_status", line, match, "status")
            facts.add("http_reason", line, match, "reason")
        elif match := _REQUEST.match(text):
            facts.add("http_method", line, match, "method")
            facts.add("url_path", line, match, "path")
        elif match := _HOST.match(text):
            facts.add("host", line, match, "host")
        elif match := _ACCESS.match(text):
            path = match["path"]
            facts.add("method_of", line, match, "method", path=path)
            facts.add("status_of", line, match, "status", path=path)
            facts.add("bytes_of", line, match, "bytes", path=path)
        elif match := _REFUSED.match(text) or _UNRESOLVED.match(text):
            facts.add("exit_status", line, match, "status")
            if match.re is _REFUSED:
                for fact in ("host", "port", "duration"):
                    facts.add(fact, line, match, fact)
        elif head and (match := _HEADER.match(text)):
            facts.add("value", line, match, "value", key=match["key"])
        elif head and text in ("", "< "):
            body = lines[number + 1 :]
            if body and body[0].text.startswith(("{", "[")):
                json(facts, body)
                if match := _JSON_ERROR.match(body[0].text):
                    facts.add("error_message", body[0], match, "message")
            return


_DOCKER_RUN = re.compile(r"#\d+ \[(?:[\w.-]+ )?(?P<step>\d+/\d+)\] RUN (?P<command>\S.*)$")
_DOCKER_EXIT = re.compile(r".*did not complete successfully: exit code: (?P<status>\d+)$")
_ERROR = re.compile(r"(?:ERROR: |##\[error\])(?P<message>\S.*)$")
_CI_EXIT = re.compile(r"##\[error\]Process completed with exit code (?P<status>\d+)\.$")
_CI_RUN = re.compile(r"(?:[\d:.TZ-]+ )?Run (?P<command>\./\S.*)$")
_DIGEST = re.compile(r"#\d+ writing image (?:sha256:)(?P<digest>[0-9a-f]+)(?: |$)")
_NAMING = re.compile(r"#\d+ naming to docker\.io/(?P<image>[\w./-]+)(?::(?P<tag>[\w.-]+))?(?: |$)")
_NO_RULE = re.compile(
    r"make(?:\[\d+\])?: \*\*\* No rule to make target ['`](?P<missing>[^']+)'"
    r"(?:, needed by ['`](?P<target>[^']+)')?\. +Stop\.$"
)
_LEAVING = re.compile(r"make(?:\[\d+\])?: Leaving directory ['`](?P<root>[^']+)'$")
_COMPILER = re.compile(
    r"-- The CX?X? compiler identification is (?:GNU|(?:Apple)?Clang) (?P<version>\S+)$"
)
_CMAKE_ERROR = re.compile(r"CMake Error at (?P<path>[^\s:]+):(?P<line>\d+) \(\w+\):$")
_CMAKE_MISSING = re.compile(
    r"  Could not find (?:a package configuration file provided by )?\"(?P<name>[^\"]+)\""
)
_PROGRESS = re.compile(r"\[ *(?P<progress>\d+%)\] Building ")
_BUILT = re.compile(r"\[100%\] Built target (?P<target>\S+)$")
_NINJA = re.compile(r"FAILED: (?:\[code=\d+\] )?(?P<target>\S+) *$")
_REAL = re.compile(r"real[ \t]+(?P<duration>[\dm.]+s)$")


def build(facts: Facts, lines: list[Line]) -> None:
    """make, CMake, ninja, docker build and continuous integration."""
    rules = (
        (_DOCKER_RUN, (("step_number", "step"), ("command", "command"))),
        (_DOCKER_EXIT, (("exit_status", "status"),)),
        (_CI_EXIT, (("exit_status", "status"),)),
        (_CI_RUN, (("command", "command"),)),
        (_ERROR, (("error_message", "message"),)),
        (_DIGEST, (("image_id", "digest"),)),
        (_NAMING, (("image", "image"), ("tag", "tag"))),
        (_NO_RULE, (("missing_file", "missing"), ("target", "target"))),
        (_LEAVING, (("root", "root"),)),
        (_CMAKE_ERROR, (("error_file", "path"), ("error_line", "line"))),
        (_CMAKE_MISSING, (("missing_module", "name"),)),
        (_PROGRESS, (("progress", "progress"),)),
        (_BUILT, (("built_target", "target"),)),
        (_NINJA, (("target", "target"),)),
        (_REAL, (("duration", "duration"),)),
    )
    for line in lines:
        if match := MAKE.match(line.text):
            make_failure(facts, line, match)
        elif match := _COMPILER.match(line.text):
            facts.add("value", line, match, "version", key="the compiler version")
        else:
            for pattern, pairs in rules:
                if match := pattern.match(line.text):
                    for fact, group in pairs:
                        facts.add(fact, line, match, group)
                    break
