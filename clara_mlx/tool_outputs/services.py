"""The rules for npm, for HTTP clients and servers, and for builds."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.compilers import MAKE_FAILED, add_make_failure
from clara_mlx.tool_outputs.configs import json
from clara_mlx.tool_outputs.facts import Facts, Line

# added 12 packages, and audited 13 packages in 2s
_NPM_ADDED = re.compile(
    r"(?:added (?P<added>\d+) packages?, )?(?:removed \d+ packages?, )?(?:changed \d+ packages?, )?"
    r"(?:and )?audited (?P<audited>\d+) packages? in (?P<duration>\d[\d.]*m?s)$"
)
# found 0 vulnerabilities
_NPM_VULNERABILITIES = re.compile(
    r"(?:found )?(?P<count>\d+) (?:(?:low|moderate|high|critical) severity )?vulnerabilit(?:y|ies)"
    r"(?: \(.+\))?$"
)
#   3 packages are looking for funding
_NPM_FUNDING = re.compile(r" *(?P<count>\d+) packages are looking for funding$")
# npm warn deprecated glob@7.2.3: Glob before v9 is not supported
_NPM_DEPRECATED = re.compile(
    r"npm (?:warn|WARN) deprecated (?P<name>@?[^\s@]+)@(?P<version>[^\s:]+): (?P<why>.+)$"
)
# npm error code ERESOLVE
_NPM_CODE = re.compile(r"npm (?:error|ERR!) code (?:(?P<status>\d+)|(?P<code>E\w+))$")
# npm error 404  Not Found - GET https://registry.npmjs.org/left-padd - Not found
_NPM_MISSING = re.compile(
    r"npm (?:error|ERR!) 404 +Not Found - GET https://registry\.npmjs\.org/"
    r"(?P<name>\S+?)(?: - .*)?$"
)
# npm error path /project/web
_NPM_PATH = re.compile(r"npm (?:error|ERR!) path (?P<path>\S+)$")
# npm error A complete log of this run can be found in: /home/u/x.log
_NPM_LOG = re.compile(
    r"npm (?:error|ERR!) A complete log of this run can be found in: (?P<path>\S+)$"
)
# npm error Lifecycle script `lint` failed with error:
_NPM_SCRIPT_FAILED = re.compile(r"npm (?:error|ERR!) Lifecycle script `(?P<script>[^`]+)` failed")
# npm error Missing script: "build"
_NPM_SCRIPT_MISSING = re.compile(r"npm (?:error|ERR!) Missing script: \"(?P<script>[^\"]+)\"$")
# > stock-web@2.4.0 lint
_NPM_RUN = re.compile(r"> (?P<name>@?[^\s@]+)@(?P<version>\d\S*) \S+$")
# > node lint.js
_NPM_RUN_COMMAND = re.compile(r"> (?P<command>\S.*)$")
# src/app.ts(3,7): error TS2322: Type 'string' is not assignable.
_TYPESCRIPT = re.compile(
    r"(?P<path>[^\s(]+)\((?P<line>\d+),(?P<column>\d+)\): error (?P<code>TS\d+): (?P<message>.+)$"
)
# FAIL src/stock.test.js
_JEST_FILE = re.compile(r"FAIL (?P<path>\S+)$")
#   ● adds two numbers
_JEST_TEST = re.compile(r"  ● (?P<test>\S.*)$")
#     Expected: 3
_JEST_VALUE = re.compile(r" +(?P<side>Expected|Received): +(?P<value>\S.*)$")
# Tests:       1 failed, 2 passed, 3 total
_JEST_COUNTS = re.compile(
    r"Tests: +(?:(?P<failed>\d+) failed, )?(?:(?P<skipped>\d+) skipped, )?"
    r"(?:(?P<passed>\d+) passed, )?(?P<ran>\d+) total$"
)
# # pass 2
_NODE_COUNT = re.compile(r"[#\u2139] (?P<what>tests|pass|fail|skipped) (?P<count>\d+)$")
# The words of node's test runner, with the names of their facts.
_NODE_FACTS = {"tests": "ran", "pass": "passed", "fail": "failed", "skipped": "skipped"}


def npm(facts: Facts, lines: list[Line]) -> None:
    """Read npm install and npm run, and what tsc, jest and node --test print below it."""
    failed = any(line.text.startswith(("npm error", "npm ERR!")) for line in lines)
    for number, line in enumerate(lines):
        text = line.text
        if match := _NPM_ADDED.match(text):
            facts.add_all(
                line, match, added_packages="added", audited_packages="audited", duration="duration"
            )
        elif match := _NPM_VULNERABILITIES.match(text):
            facts.add("vulnerabilities", line, match, "count")
        elif match := _NPM_FUNDING.match(text):
            facts.add("funding", line, match, "count")
        elif match := _NPM_DEPRECATED.match(text):
            facts.add("version", line, match, "version", name=match["name"])
            facts.add("deprecation", line, match, "why", name=match["name"])
        elif match := _NPM_RUN.match(text):
            facts.add("version", line, match, "version", name=match["name"])
            following = lines[number + 1] if number + 1 < len(lines) else line
            if failed and (command := _NPM_RUN_COMMAND.match(following.text)):
                facts.add("command", following, command, "command")
        elif match := _TYPESCRIPT.match(text):
            facts.add_all(line, match, error_file="path", error_line="line")
            facts.add_all(line, match, error_column="column", error_code="code")
            facts.add_message(line, match)
        else:
            _add_npm_error(facts, line)
            _add_javascript_test(facts, line)


# What npm's error lines state: names of facts with the groups that hold them.
_NPM_ERRORS = (
    (_NPM_CODE, {"exit_status": "status", "error_code": "code"}),
    (_NPM_MISSING, {"missing_module": "name"}),
    (_NPM_PATH, {"root": "path"}),
    (_NPM_LOG, {"log_file": "path"}),
    (_NPM_SCRIPT_FAILED, {"script": "script"}),
    (_NPM_SCRIPT_MISSING, {"script": "script"}),
)


def _add_npm_error(facts: Facts, line: Line) -> None:
    for pattern, groups in _NPM_ERRORS:
        if match := pattern.match(line.text):
            facts.add_all(line, match, **groups)


def _add_javascript_test(facts: Facts, line: Line) -> None:
    if match := _JEST_FILE.match(line.text):
        facts.add("test_file", line, match, "path")
    elif match := _JEST_TEST.match(line.text):
        facts.add("failed_test", line, match, "test")
    elif match := _JEST_VALUE.match(line.text):
        fact = "expected" if match["side"] == "Expected" else "actual"
        facts.add(fact, line, match, "value")
    elif match := _JEST_COUNTS.match(line.text):
        facts.add_all(line, match, "failed", "skipped", "passed", "ran")
    elif match := _NODE_COUNT.match(line.text):
        facts.add(_NODE_FACTS[match["what"]], line, match, "count")


# HTTP/1.0 404 Not Found
_HTTP_STATUS = re.compile(r"(?:< )?HTTP/\d(?:\.\d)? (?P<status>\d{3})(?: (?P<reason>\S.*?))?\s*$")
# > GET /app.json HTTP/1.1
_HTTP_REQUEST = re.compile(r"> (?P<method>[A-Z]{3,7}) (?P<path>\S+) HTTP/")
# > Host: stock.internal
_HTTP_HOST = re.compile(r"> Host: (?P<host>\S+)$")
# Content-Type: application/json
_HTTP_HEADER = re.compile(r"(?:< )?(?P<key>[A-Za-z][\w-]*): (?P<value>\S.*?)\s*$")
# 127.0.0.1 - - [14/Feb/2026 21:26:30] "GET /app.json HTTP/1.1" 200 42
_ACCESS_LOG = re.compile(
    r"(?:INFO: +\S+ - |\S+ - \S+ \[[^\]]+\] )\"(?P<method>[A-Z]{3,7}) "
    r"(?P<path>[^\s\"]+) HTTP/[\d.]+\""
    r" (?P<status>\d{3})(?: (?P<bytes>\d+)\b)?"
)
# curl: (7) Failed to connect to 127.0.0.1 port 9 after 0 ms: refused
_CURL_REFUSED = re.compile(
    r"curl: \((?P<status>\d+)\) (?P<message>Failed to connect to (?P<host>\S+) port (?P<port>\d+)"
    r"(?: after (?P<duration>\d+ ms))?.*)$"
)
# curl: (6) Could not resolve host: stock.invalid
_CURL_ERROR = re.compile(r"curl: \((?P<status>\d+)\) (?P<message>.+)$")
# {"error": "no such item"}
_JSON_ERROR = re.compile(r"\{\"error\": ?\"(?P<message>[^\"\\]+)\"\}$")


def http(facts: Facts, lines: list[Line]) -> None:
    """Read curl -i and curl -v, the errors of curl, and access logs."""
    in_head = False  # inside the head of a response
    for number, line in enumerate(lines):
        text = line.text
        if match := _HTTP_STATUS.match(text):
            in_head = True
            facts.add_all(line, match, http_status="status", http_reason="reason")
        elif match := _HTTP_REQUEST.match(text):
            facts.add_all(line, match, http_method="method", url_path="path")
        elif match := _HTTP_HOST.match(text):
            facts.add("host", line, match, "host")
        elif match := _ACCESS_LOG.match(text):
            path = match["path"]
            facts.add("method_of", line, match, "method", path=path)
            facts.add("status_of", line, match, "status", path=path)
            facts.add("bytes_of", line, match, "bytes", path=path)
        elif match := _CURL_REFUSED.match(text) or _CURL_ERROR.match(text):
            facts.add("exit_status", line, match, "status")
            if match.re is _CURL_REFUSED:
                facts.add_all(line, match, "host", "port", "duration")
        elif in_head and (match := _HTTP_HEADER.match(text)):
            facts.add("value", line, match, "value", key=match["key"])
        elif in_head and text in ("", "< "):
            body = lines[number + 1 :]
            if body and body[0].text.startswith(("{", "[")):
                json(facts, body)
                if match := _JSON_ERROR.match(body[0].text):
                    facts.add("error_message", body[0], match, "message")
            return


# #7 [3/5] RUN pip install .
_DOCKER_RUN = re.compile(r"#\d+ \[(?:[\w.-]+ )?(?P<step>\d+/\d+)\] RUN (?P<command>\S.*)$")
# ERROR: process "/bin/sh" did not complete successfully: exit code: 1
_DOCKER_EXIT = re.compile(r".*did not complete successfully: exit code: (?P<status>\d+)$")
# ##[error]The build failed
_BUILD_ERROR = re.compile(r"(?:ERROR: |##\[error\])(?P<message>\S.*)$")
# ##[error]Process completed with exit code 2.
_CI_EXIT = re.compile(r"##\[error\]Process completed with exit code (?P<status>\d+)\.$")
# 2026-02-14T21:26:30Z Run ./scripts/test.sh
_CI_RUN = re.compile(r"(?:[\d:.TZ-]+ )?Run (?P<command>\./\S.*)$")
# #8 writing image sha256:0a1b2c3d done
_DOCKER_DIGEST = re.compile(r"#\d+ writing image (?:sha256:)(?P<digest>[0-9a-f]+)(?: |$)")
# #8 naming to docker.io/library/stock:2.4.0 done
_DOCKER_NAME = re.compile(
    r"#\d+ naming to docker\.io/(?P<image>[\w./-]+)(?::(?P<tag>[\w.-]+))?(?: |$)"
)
# make: *** No rule to make target 'a.c', needed by 'a.o'.  Stop.
_MAKE_NO_RULE = re.compile(
    r"make(?:\[\d+\])?: \*\*\* No rule to make target ['`](?P<missing>[^']+)'"
    r"(?:, needed by ['`](?P<target>[^']+)')?\. +Stop\.$"
)
# make[1]: Leaving directory '/project/native'
_MAKE_LEAVING = re.compile(r"make(?:\[\d+\])?: Leaving directory ['`](?P<root>[^']+)'$")
# -- The C compiler identification is GNU 13.2.0
_CMAKE_COMPILER = re.compile(
    r"-- The CX?X? compiler identification is (?:GNU|(?:Apple)?Clang) (?P<version>\S+)$"
)
# CMake Error at CMakeLists.txt:3 (find_package):
_CMAKE_ERROR = re.compile(r"CMake Error at (?P<path>[^\s:]+):(?P<line>\d+) \(\w+\):$")
#   Could not find a package configuration file provided by "Barcode" with
_CMAKE_MISSING = re.compile(
    r"  Could not find (?:a package configuration file provided by )?\"(?P<name>[^\"]+)\""
)
# [ 50%] Building C object a.c.o
_CMAKE_PROGRESS = re.compile(r"\[ *(?P<progress>\d+%)\] Building ")
# [100%] Built target stock
_CMAKE_BUILT = re.compile(r"\[100%\] Built target (?P<target>\S+)$")
# FAILED: [code=1] native/types.o
_NINJA_FAILED = re.compile(r"FAILED: (?:\[code=\d+\] )?(?P<target>\S+) *$")
# real\t0m1.204s
_TIME_REAL = re.compile(r"real[ \t]+(?P<duration>[\dm.]+s)$")


# What the lines of builds state: names of facts with the groups that hold them.
_BUILD_LINES = (
    (_DOCKER_RUN, {"step_number": "step", "command": "command"}),
    (_DOCKER_EXIT, {"exit_status": "status"}),
    (_CI_EXIT, {"exit_status": "status"}),
    (_CI_RUN, {"command": "command"}),
    (_BUILD_ERROR, {"error_message": "message"}),
    (_DOCKER_DIGEST, {"image_id": "digest"}),
    (_DOCKER_NAME, {"image": "image", "tag": "tag"}),
    (_MAKE_NO_RULE, {"missing_file": "missing", "target": "target"}),
    (_MAKE_LEAVING, {"root": "root"}),
    (_CMAKE_ERROR, {"error_file": "path", "error_line": "line"}),
    (_CMAKE_MISSING, {"missing_module": "name"}),
    (_CMAKE_PROGRESS, {"progress": "progress"}),
    (_CMAKE_BUILT, {"built_target": "target"}),
    (_NINJA_FAILED, {"target": "target"}),
    (_TIME_REAL, {"duration": "duration"}),
)


def build(facts: Facts, lines: list[Line]) -> None:
    """Read make, CMake, ninja, docker build, and the log of a continuous integration."""
    for line in lines:
        if match := MAKE_FAILED.match(line.text):
            add_make_failure(facts, line, match)
        elif match := _CMAKE_COMPILER.match(line.text):
            facts.add("value", line, match, "version", key="the compiler version")
        else:
            for pattern, groups in _BUILD_LINES:
                if match := pattern.match(line.text):
                    facts.add_all(line, match, **groups)
                    break
