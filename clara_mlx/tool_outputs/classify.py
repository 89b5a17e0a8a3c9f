"""Tells which tool printed a text: by its command if that is known, else by how it looks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from clara_mlx.tool_outputs.undress import undress

# Programs, with the tool whose rule reads what they print.
_PROGRAMS = {
    **dict.fromkeys(("pytest", "py.test"), "pytest"),
    **dict.fromkeys(("cargo", "rustc"), "cargo"),
    **dict.fromkeys(("gcc", "g++", "cc", "c++", "clang", "clang++", "ld"), "gcc"),
    **dict.fromkeys(("npm", "npx", "yarn", "pnpm", "tsc", "jest", "vitest", "node"), "npm"),
    **dict.fromkeys(("make", "cmake", "ninja", "docker", "podman", "gmake"), "build"),
    **dict.fromkeys(("curl", "wget", "http"), "http"),
    **dict.fromkeys(("grep", "egrep", "fgrep", "rg", "ag", "ack"), "ripgrep"),
    **dict.fromkeys(("ls", "du", "dir", "ll"), "ls"),
    **dict.fromkeys(("env", "printenv", "export"), "env"),
    **dict.fromkeys(("pip", "pip3"), "pip"),
    **{name: name for name in ("go", "ruff", "mypy", "tree", "find")},
}
# Commands of git, with their tools.
_GIT_COMMANDS = {
    "status": "git-status",
    "log": "git-log",
    "show": "git-log",
    "diff": "git-diff",
    "grep": "ripgrep",
}
# Modules that are run with python -m, with their tools.
_PYTHON_MODULES = {
    "pytest": "pytest",
    "unittest": "unittest",
    "mypy": "mypy",
    "ruff": "ruff",
    "pip": "pip",
}
# Words before a program: what runs it, a variable, an option, a time limit.
# LOG_LEVEL=debug
_WRAPPER = re.compile(
    r"(?:sudo|time|timeout|nice|env|uvx?|poetry|pdm|hatch|run|exec|command|xvfb-run)"
    r"|[A-Z_]+=.*|-.*|\d+"
)
# Programs that print a file as it is.
_FILE_PRINTERS = {"cat", "head", "tail", "sed", "less", "more", "bat", "nl", "type"}
# Names of files, with the tool whose rule reads them.
_FILE_TOOLS = (
    (re.compile(r"\.toml$"), "toml"),
    (re.compile(r"\.ya?ml$"), "yaml"),
    (re.compile(r"\.(?:json|traj|ipynb)$"), "json"),
    (re.compile(r"(?:^|[/.])env(?:\.\w+)?$"), "env"),
    (re.compile(r"(?:^|/)METADATA$"), "pip"),
)

# [tool.ruff]
_TOML_TABLE = re.compile(r"^\[\[?[\w.\"-]++\]\]?$", re.MULTILINE)
# line-length = 100
_TOML_KEY = re.compile(r"^[\w.\"-]++ *+= ", re.MULTILINE)
# Characters between the head of a table and a key of it, at most.
_TOML_BETWEEN = 200


def _has_toml_table(text: str) -> bool:
    """Whether a key with a value follows soon after the head of a table, in one pass over both."""
    keys = _TOML_KEY.finditer(text)
    key = next(keys, None)
    for table in _TOML_TABLE.finditer(text):
        while key and key.start() < table.end():
            key = next(keys, None)
        if key and key.start() <= table.end() + _TOML_BETWEEN:
            return True
    return False


# Patterns that only one tool's output matches; the first match decides. Tools whose outputs quote
# those of other tools come first. Each pattern reads a line, or the beginning of the text, in one
# way only: what it repeats is possessive wherever something follows that it could take in part.
_SIGNS: tuple[tuple[str, Callable[[str], object]], ...] = tuple(
    (tool, re.compile(sign, re.MULTILINE).search if isinstance(sign, str) else sign)
    for tool, sign in (
        ("git-diff", r"\A(?:diff --git |--- a/\S++\n\+\+\+ b/)"),
        ("git-log", r"\Acommit [0-9a-f]{7,40}(?: \(.*\))?$"),
        ("git-status", r"\A(?:On branch |## \S|HEAD detached at )"),
        (
            "pytest",
            r"^(?:FAILED|ERROR) \S+\.py(?:::| - )|^E   ++\S|^=++ (?>.*? in \d[\d.]*+s\b).* =++$"
            r"|^\d++ (?:passed|failed|skipped|error)\b.* in \d[\d.]*+s"
            r"|^(?=\S+?\.py::\S)\S++ [A-Z]++\b"
            r"|^Name ++Stmts ++Miss ++Cover|^platform \S++ -- Python |^=++ slowest ",
        ),
        (
            "unittest",
            r"^Ran \d++ tests? in |^(?:FAIL|ERROR): \w++ \([\w.]++\)$"
            r"|^\w++ \([\w.]++\) \.\.\. ",
        ),
        (
            "cargo",
            r"^error(?:\[E\d{4}\])?: .++\n *+--> |^test result: |^warning: .++\n *+--> "
            r"|^ ++(?:Compiling|Checking|Downloaded|Finished) \S|panicked at \S+\.rs:"
            r"|^test \S++ \.\.\. ",
        ),
        (
            "go",
            r"^(?:ok  |FAIL|\?   )[ \t]++[\w./-]++[\t ]|^--- FAIL: |^[\w./-]+\.go:\d++:\d++: "
            r"|^goroutine \d++ \[",
        ),
        (
            "mypy",
            r"^\S+\.pyi?:\d++(?::\d++)?: (?:error|note): "
            r"|^Found \d++ errors? in \d++ files? \(checked"
            r"|^Success: no issues found in ",
        ),
        (
            "ruff",
            r"^\S+:\d++:\d++: [A-Z]{1,5}\d{3,4} |^[A-Z]{1,5}\d{3,4} .++\n *+--> |^Would reformat: "
            r"|^\d++ files? would be reformatted|^All checks passed!",
        ),
        (
            "npm",
            r"^npm (?:error|ERR!|warn|WARN) |^(?:added \d++ packages?|audited \d++ packages?)"
            r"|^\S+\(\d++,\d++\): error TS\d++: |^Tests: ++\d++ |^  ● "
            r"|^> (?=\S+?@\d)\S++ \S++$",
        ),
        (
            "gcc",
            r"^[^\s:]++:\d++:\d++: (?:fatal error|error|warning): "
            r"|undefined reference to [`'\u2018]"
            r"|^collect2: error",
        ),
        ("traceback", r"^Traceback \(most recent call last\):|^  File \"[^\"]++\", line \d"),
        (
            "build",
            r"^make(?:\[\d++\])?: |^#\d++ (?:\[|DONE|writing|naming)|^CMake Error|^-- The C"
            r"|^ninja: |^Step \d++/\d++ : |^FAILED: \S+\.o$|^##\[error\]|^\[ *+\d++%\] "
            r"|^failed to solve: ",
        ),
        (
            "http",
            r"\A(?:[<>*] )?HTTP/\d|^[<>] (?:HTTP/|GET |POST |PUT |DELETE |PATCH |HEAD )"
            r"|^curl: \(\d++\)|^\S++ - \S++ \[[^\]\n]++\] \"[A-Z]++ |^INFO: ++\S++ - \"[A-Z]++ ",
        ),
        ("tree", r"^(?:│   |    )*+[├└]── "),
        (
            "pip",
            r"\APackage ++Version\b|\AMetadata-Version: |\AName: \S++\nVersion: "
            r"|^Successfully installed \S+-\d",
        ),
        (
            "ls",
            r"^[-dlbcps][-rwxsStT]{9}[.+@]? ++\d++ |\Atotal \d|^\./\S+:\n\S"
            r"|^ *+\d[\d.]*+[KMGT]?\t\S++$",
        ),
        ("git-log", r"\A[0-9a-f]{7,12} \S.*+(?:\n[0-9a-f]{7,12} |\Z)"),
        ("git-status", r"\A(?:[ MADRCU?]{2} \S++(?:\n|\Z))++\Z"),
        ("git-diff", r"^ \S++ ++\| ++\d++ [+-]*+$"),
        ("json", r"\A\s*+[{\[]\s*+(?:\"|\Z|[{\[\]}])"),
        (
            "ripgrep",
            r"\A(?=[^\s:./]*+[./])[^\s:]++(?::\d++(?::|$)|\n\d++:)",
        ),
        ("toml", _has_toml_table),
        ("env", r"\A(?:#.*\n|[^\S\n]*+\n)*+(?:(?:export )?[A-Z][A-Z0-9_]*=.*(?:\n|\Z)){2}"),
        (
            "yaml",
            r"\A(?:---\n|#.*\n|[^\S\n]*+\n)*+(?:[\w./-]++:(?: (?! ).*)?\n)"
            r"(?: *+(?:- )?[\w./-]++:(?: (?! ).*)?(?:\n|\Z)){2}",
        ),
    )
)
# Characters of an output in which signs are searched; they come early or not at all.
_SIGN_CHARACTERS = 20_000

# Characters that are undressed to get so many.
_LOOKED_AT = 65_536

# Characters of a command that are read; a longer one holds a script.
_COMMAND_CHARACTERS = 2_000


def classify(text: str, command: str | None = None) -> str | None:
    """The tool that printed ``text``, or None if that is not clear.

    Args:
        text: The output of a tool.
        command: The shell command that made it, or None if it is not known.
    """
    tool = _tool_of_command(command) if command else None
    by_text = _tool_of_text(text)
    if tool is None:
        return by_text
    # make and npm run other tools, and git log -p and git show print diffs.
    if tool in ("build", "npm") and by_text is not None:
        return by_text
    if tool == "git-log" and by_text == "git-diff":
        return by_text
    return tool


# {"returncode": 0, "output":  or  <returncode>0</returncode>  before an output
_AROUND = re.compile(r"(?:[\[{][^\n]*+(?<=\":|: )\n|</?[\w-]++>(?:[^<\n]*+</[\w-]++>)?\n)*+")


def _tool_of_text(text: str) -> str | None:
    """The tool whose sign is in a text, as a reader sees it."""
    view = undress(text[:_LOOKED_AT])
    beginning = view.bare.text[:_SIGN_CHARACTERS]
    if (around := _AROUND.match(beginning)) and around.end() < len(beginning):
        beginning = beginning[around.end() :]
    return next((tool for tool, has_sign in _SIGNS if has_sign(beginning)), None)


def _tool_of_command(command: str) -> str | None:
    """The tool of the last program that a command line runs."""
    for part in reversed(re.split(r"&&|;|\n", command[:_COMMAND_CHARACTERS])):
        words = _split_words(part.split("|")[0])
        while words and _WRAPPER.fullmatch(words[0]):
            words = words[1:]
        if words and words[0] not in ("cd", "set", "source", "export", "echo"):
            return _tool_of_words(words)
    return None


def _split_words(part: str) -> list[str]:
    try:
        return shlex.split(part)
    except ValueError:
        return part.split()


def _tool_of_words(words: list[str]) -> str | None:
    """The tool of a program and its arguments."""
    program, *arguments = words
    program = program.rpartition("/")[2]
    if program == "git":
        commands = [word for word in arguments if word in _GIT_COMMANDS]
        return _GIT_COMMANDS[commands[0]] if commands else None
    if re.fullmatch(r"python[\d.]*", program):
        if "-m" in arguments[:-1]:
            return _PYTHON_MODULES.get(arguments[arguments.index("-m") + 1])
        return None
    if program in _FILE_PRINTERS:
        for name in arguments:
            for pattern, tool in _FILE_TOOLS:
                if pattern.search(name):
                    return tool
        return None
    return _PROGRAMS.get(program)
