"""The rules for npm, for HTTP clients and servers, and for builds."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.compilers import MAKE_FAILED
from clara_mlx.tool_outputs.configs import json
from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import Lines

# added 12 packages, and audited 13 packages in 2s
_NPM_ADDED = re.compile(
    r"(?:added (?P<added_packages>\d+) packages?, )?(?:removed \d+ packages?, )?"
    r"(?:changed \d+ packages?, )?"
    r"(?:and )?audited (?P<audited_packages>\d+) packages? in (?P<duration>\d[\d.]*m?s)$"
)
# found 0 vulnerabilities
_NPM_VULNERABILITIES = re.compile(
    r"(?:found )?(?P<vulnerabilities>\d+) (?:(?:low|moderate|high|critical) severity )?"
    r"vulnerabilit(?:y|ies)(?: \(.+\))?$"
)
#   3 packages are looking for funding
_NPM_FUNDING = re.compile(r" *(?P<funding>\d+) packages are looking for funding$")
# npm warn deprecated glob@7.2.3: Glob before v9 is not supported
_NPM_DEPRECATED = re.compile(
    r"npm (?:warn|WARN) deprecated (?P<name>@?[^\s@]+)@(?P<version>[^\s:]+): (?P<why>.+)$"
)
# npm error code ERESOLVE
_NPM_CODE = re.compile(r"npm (?:error|ERR!) code (?:(?P<exit_status>\d+)|(?P<error_code>E\w+))$")
# npm error 404  Not Found - GET https://registry.npmjs.org/left-padd - Not found
_NPM_MISSING = re.compile(
    r"npm (?:error|ERR!) 404 +Not Found - GET https://registry\.npmjs\.org/"
    r"(?P<missing_module>\S+?)(?: - .*)?$"
)
# npm error path /project/web
_NPM_PATH = re.compile(r"npm (?:error|ERR!) path (?P<root>\S+)$")
# npm error A complete log of this run can be found in: /home/u/x.log
_NPM_LOG = re.compile(
    r"npm (?:error|ERR!) A complete log of this run can be found in: (?P<log_file>\S+)$"
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
_JEST_FILE = re.compile(r"FAIL (?P<test_file>\S+)$")
#   ● adds two numbers
_JEST_TEST = re.compile(r"  ● (?P<failed_test>\S.*)$")
#     Expected: 3
_JEST_VALUE = re.compile(r" +(?:Expected: +(?P<expected>\S.*)|Received: +(?P<actual>\S.*))$")
# Tests:       1 failed, 2 passed, 3 total
_JEST_COUNTS = re.compile(
    r"Tests: +(?:(?P<failed>\d+) failed, )?(?:(?P<skipped>\d+) skipped, )?"
    r"(?:(?P<passed>\d+) passed, )?(?P<ran>\d+) total$"
)
# # pass 2
_NODE_COUNT = re.compile(
    r"[#\u2139] (?:tests (?P<ran>\d+)|pass (?P<passed>\d+)|fail (?P<failed>\d+)"
    r"|skipped (?P<skipped>\d+))$"
)
_NPM = (
    *(_NPM_ADDED, _NPM_VULNERABILITIES, _NPM_FUNDING, _NPM_CODE, _NPM_MISSING, _NPM_PATH, _NPM_LOG),
    *(_NPM_SCRIPT_FAILED, _NPM_SCRIPT_MISSING),
    *(_JEST_FILE, _JEST_TEST, _JEST_VALUE, _JEST_COUNTS, _NODE_COUNT),
)


# How lines begin that one of these patterns matches.
# npm error code ERESOLVE
_NPM_LINE = re.compile(
    r"npm |added |removed |changed |(?:and )?audited |(?:found )?\d+ (?:\w+ severity )?vuln"
    r"| *\d+ packages are|> @?[^\s@]+@\d|FAIL |  \u25cf| +(?:Expected|Received): |Tests: "
    r"|[#\u2139] (?:tests|pass|fail|skipped) |[^\s(]+\(\d+,"
)


def npm(facts: Facts, lines: Lines) -> None:
    """Read npm install and npm run, and what tsc, jest and node --test print below it."""
    looked_at = list(lines.matching(_NPM_LINE))
    failed = any(line.text.startswith(("npm error", "npm ERR!")) for _, line in looked_at)
    for number, line in looked_at:
        text = line.text
        if match := _NPM_DEPRECATED.match(text):
            facts.add("version", line, match, "version", name=match["name"])
            facts.add("deprecation", line, match, "why", name=match["name"])
        elif match := _NPM_RUN.match(text):
            facts.add("version", line, match, "version", name=match["name"])
            if failed and (command := _NPM_RUN_COMMAND.match(lines.text_after(number))):
                facts.add("command", lines[number + 1], command, "command")
        elif match := _TYPESCRIPT.match(text):
            facts.add_all(line, match, error_file="path", error_line="line")
            facts.add_all(line, match, error_column="column", error_code="code")
            facts.add_message(line, match)
        else:
            facts.add_first(line, _NPM)


# HTTP/1.0 404 Not Found
_HTTP_STATUS = re.compile(
    r"(?:< )?HTTP/\d(?:\.\d)? (?P<http_status>\d{3})(?: (?P<http_reason>\S(?:.*\S)?))?\s*$"
)
# > GET /app.json HTTP/1.1
_HTTP_REQUEST = re.compile(r"> (?P<http_method>[A-Z]{3,7}) (?P<url_path>\S+) HTTP/")
# > Host: stock.internal
_HTTP_HOST = re.compile(r"> Host: (?P<host>\S+)$")
# Content-Type: application/json
_HTTP_HEADER = re.compile(r"(?:< )?(?P<key>[A-Za-z][\w-]*): (?P<value>\S(?:.*\S)?)\s*$")
# 127.0.0.1 - - [14/Feb/2026 21:26:30] "GET /app.json HTTP/1.1" 200 42
_ACCESS_LOG = re.compile(
    r"(?:INFO: +\S+ - |\S+ - \S+ \[[^\]]+\] )\"(?P<method>[A-Z]{3,7}) "
    r"(?P<path>[^\s\"]+) HTTP/[\d.]+\""
    r" (?P<status>\d{3})(?: (?P<bytes>\d+)\b)?"
)
# curl: (7) Failed to connect to 127.0.0.1 port 9 after 0 ms: refused
_CURL_REFUSED = re.compile(
    r"curl: \((?P<exit_status>\d+)\) Failed to connect to (?P<host>\S+) port (?P<port>\d+)"
    r"(?: after (?P<duration>\d+ ms))?"
)
# curl: (6) Could not resolve host: stock.invalid
_CURL_ERROR = re.compile(r"curl: \((?P<exit_status>\d+)\) .+$")
_HTTP = (_HTTP_REQUEST, _HTTP_HOST, _CURL_REFUSED, _CURL_ERROR)
# {"error": "no such item"}
_JSON_ERROR = re.compile(r"\{\"error\": ?\"(?P<message>[^\"\\]+)\"\}$")


# How lines begin that one of these patterns matches, and one that ends a head.
# HTTP/1.0 404 Not Found
_HTTP_LINE = re.compile(r"(?:< )?(?:HTTP/\d|[A-Za-z][\w-]*: )|< $|> |curl: \(|INFO: |\S+ - \S+ \[")


def http(facts: Facts, lines: Lines) -> None:
    """Read curl -i and curl -v, the errors of curl, and access logs."""
    in_head = False  # inside the head of a response
    for number, text in enumerate(lines.texts):
        if not (_HTTP_LINE.match(text) if text else in_head):
            continue
        line = lines[number]
        if facts.add_first(line, _HTTP):
            continue
        if match := _HTTP_STATUS.match(text):
            in_head = True
            facts.add_groups(line, match)
        elif match := _ACCESS_LOG.match(text):
            path = match["path"]
            facts.add("method_of", line, match, "method", path=path)
            facts.add("status_of", line, match, "status", path=path)
            facts.add("bytes_of", line, match, "bytes", path=path)
        elif in_head and (match := _HTTP_HEADER.match(text)):
            facts.add("value", line, match, "value", key=match["key"])
        elif in_head and text in ("", "< "):
            begin = lines.text_after(number)
            if begin.startswith(("{", "[")):
                json(facts, lines.below(number))
                if match := _JSON_ERROR.match(begin):
                    facts.add("error_message", lines[number + 1], match, "message")
            return


# #7 [3/5] RUN pip install .
_DOCKER_RUN = re.compile(r"#\d+ \[(?:[\w.-]+ )?(?P<step_number>\d+/\d+)\] RUN (?P<command>\S.*)$")
# ERROR: process "/bin/sh" did not complete successfully: exit code: 1
_DOCKER_EXIT = re.compile(r".*did not complete successfully: exit code: (?P<exit_status>\d+)$")
# ##[error]The build failed
_BUILD_ERROR = re.compile(r"(?:ERROR: |##\[error\])(?P<error_message>\S.*)$")
# ##[error]Process completed with exit code 2.
_CI_EXIT = re.compile(r"##\[error\]Process completed with exit code (?P<exit_status>\d+)\.$")
# 2026-02-14T21:26:30Z Run ./scripts/test.sh
_CI_RUN = re.compile(r"(?:[\d:.TZ-]+ )?Run (?P<command>\./\S.*)$")
# #8 writing image sha256:0a1b2c3d done
_DOCKER_DIGEST = re.compile(r"#\d+ writing image (?:sha256:)(?P<image_id>[0-9a-f]+)(?: |$)")
# #8 naming to docker.io/library/stock:2.4.0 done
_DOCKER_NAME = re.compile(
    r"#\d+ naming to docker\.io/(?P<image>[\w./-]+)(?::(?P<tag>[\w.-]+))?(?: |$)"
)
# make: *** No rule to make target 'a.c', needed by 'a.o'.  Stop.
_MAKE_NO_RULE = re.compile(
    r"make(?:\[\d+\])?: \*\*\* No rule to make target ['`](?P<missing_file>[^']+)'"
    r"(?:, needed by ['`](?P<target>[^']+)')?\. +Stop\.$"
)
# make[1]: Leaving directory '/project/native'
_MAKE_LEAVING = re.compile(r"make(?:\[\d+\])?: Leaving directory ['`](?P<root>[^']+)'$")
# -- The C compiler identification is GNU 13.2.0
_CMAKE_COMPILER = re.compile(
    r"-- The CX?X? compiler identification is (?:GNU|(?:Apple)?Clang) (?P<version>\S+)$"
)
# CMake Error at CMakeLists.txt:3 (find_package):
_CMAKE_ERROR = re.compile(r"CMake Error at (?P<error_file>[^\s:]+):(?P<error_line>\d+) \(\w+\):$")
#   Could not find a package configuration file provided by "Barcode" with
_CMAKE_MISSING = re.compile(
    r"  Could not find (?:a package configuration file provided by )?\"(?P<missing_module>[^\"]+)\""
)
# [ 50%] Building C object a.c.o
_CMAKE_PROGRESS = re.compile(r"\[ *(?P<progress>\d+%)\] Building ")
# [100%] Built target stock
_CMAKE_BUILT = re.compile(r"\[100%\] Built target (?P<built_target>\S+)$")
# FAILED: [code=1] native/types.o
_NINJA_FAILED = re.compile(r"FAILED: (?:\[code=\d+\] )?(?P<target>\S+) *$")
# real\t0m1.204s
_TIME_REAL = re.compile(r"real[ \t]+(?P<duration>[\dm.]+s)$")


_BUILD = (
    *(_DOCKER_RUN, _DOCKER_EXIT, _CI_EXIT, _CI_RUN, _BUILD_ERROR, _DOCKER_DIGEST, _DOCKER_NAME),
    *(MAKE_FAILED, _MAKE_NO_RULE, _MAKE_LEAVING, _CMAKE_ERROR, _CMAKE_MISSING, _CMAKE_PROGRESS),
    *(_CMAKE_BUILT, _NINJA_FAILED, _TIME_REAL),
)
# How lines begin that one of these patterns matches.
# make: *** No rule to make target 'a.c', needed by 'a.o'.  Stop.
_BUILD_LINE = re.compile(
    r"#\d+ (?:\[|writing |naming )|ERROR: |##\[error\]|(?:[\d:.TZ-]+ )?Run \./|make(?:\[\d+\])?: "
    r"|-- The CX?X? |CMake Error |  Could not find |\[ *\d+%\] Buil|FAILED: |real[ \t]"
    r"|.*did not complete successfully: "
)


def build(facts: Facts, lines: Lines) -> None:
    """Read make, CMake, ninja, docker build, and the log of a continuous integration."""
    for _, line in lines.matching(_BUILD_LINE):
        if match := _CMAKE_COMPILER.match(line.text):
            facts.add("value", line, match, "version", key="the compiler version")
        else:
            facts.add_first(line, _BUILD)
