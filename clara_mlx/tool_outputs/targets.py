"""What build tools and clusters call the things they make: targets, tasks, resources and pods."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.spans import Span

# module.web["a"].aws_instance.till[0]
_ADDRESS = (
    r"(?:(?:module\.[\w-]{1,60}+|data)(?:\[[^\]\n]{1,60}+\])?\.){0,6}+[a-z][a-z\d]{1,30}+_\w{1,60}+"
    r"\.[\w-]{1,60}+(?:\[[^\]\n]{1,60}+\])?"
)
# \n  # aws_instance.till will be created
_TERRAFORM = re.compile(
    rf"\n[ \t│]{{0,6}}+(?:# |with )?({_ADDRESS})(?=:? (?:will be|must be|has (?:been|moved"
    rf"|changed)"
    r"|is tainted|\(deposed|(?:Creat|Destroy|Modify|Refresh|Read|Still|Import|Provision|Plan)\w*"
    r"|,)|,$)"
    rf"|\n[ \t│]{{0,6}}+[+~-]/?[+-]? ({_ADDRESS})$",
    re.MULTILINE,
)
# What stands beside them, which is found faster.
_TERRAFORM_SAYS = (
    "will be",
    "must be",
    "has been",
    "has moved",
    "ing...",
    "with ",
    "complete after",
    "+ ",
)

# //shop/till:till_test
_BAZEL = re.compile(r"//(?<![:/]//)((?:[\w.+-]{1,60}+/){1,20}+[\w.+-]{0,60}+|):[\w./+=~@-]{1,100}+")
# rule //till:all
_BAZEL_AFTER = re.compile(
    r"(?:[Tt]argets?|rule|label|test|FAIL:|PASS:|deps of|of) '?"
    r"(//[\w.+-]{1,60}+:[\w./+=~@-]{1,100}+)"
)
# > Task :app:compileJava FAILED
_GRADLE = re.compile(
    r"(?:T(?<!\wT)ask|t(?<!\wt)ask|p(?<!\wp)roject|P(?<!\wP)roject) '?"
    r"(:[\w.-]{1,60}+(?::[\w.-]{1,60}+){0,8}+)"
)
# till-7d4b9c6f5-x2x8q, of Kubernetes' own letters
_POD = re.compile(
    r"-(?<=[a-z\d]-)(?=[bcdfghjklmnpqrstvwxz\d]*\d)[bcdfghjklmnpqrstvwxz2-9]{8,10}"
    r"-[bcdfghjklmnpqrstvwxz2-9]{5}(?![\w-])"
)
# shop/till
_BEFORE_POD = re.compile(r"(?<![\w./-])[a-z\d][a-z\d./-]*+\Z")
_POD_CHARACTERS = 120
# pod/till-0
_KIND_AND_NAME = re.compile(
    r"(?:p(?<![\w/-]p)ods?|d(?<![\w/-]d)eployments?(?:\.apps)?|s(?<![\w/-]s)(?:ervices?"
    r"|tatefulsets?(?:\.apps)?|ecrets?)"
    r"|j(?<![\w/-]j)obs?(?:\.batch)?|c(?<![\w/-]c)onfigmaps?|n(?<![\w/-]n)(?:odes?|amespaces?)"
    r"|r(?<![\w/-]r)eplicasets?(?:\.apps)?"
    r"|i(?<![\w/-]i)ngress(?:es)?|p(?<![\w/-]p)ersistentvolumeclaims?)/[a-z\d][a-z\d.-]{1,100}+"
)
# Pod "till-0"
_NAMED = re.compile(
    r"(?:P(?<!\wP)od|p(?<!\wp)ods?|p(?<!\wp)od/|D(?<!\wD)eployment|N(?<!\wN)ode|n(?<!\wn)odes"
    r"|c(?<!\wc)ontainer) \"([a-z\d][a-z\d.-]{1,100}+)\""
)


def targets(text: str) -> Iterator[Span]:
    """Targets of Bazel and tasks of Gradle."""
    for match in _BAZEL.finditer(text) if "//" in text else ():
        start = match.start()
        repository = _REPOSITORY.search(text, max(0, start - 60), start)
        if repository is None and text[start - 1 : start].isalnum():
            continue
        if "/" in match[1] or repository or not match[1]:
            yield (
                (repository.start() if repository else start),
                match.end() - match[0].endswith("."),
            )
    for match in _BAZEL_AFTER.finditer(text) if "//" in text else ():
        yield match.start(1), match.end() - match[1].endswith(".")
    for match in _GRADLE.finditer(text) if ":" in text else ():
        yield match.span(1)


# @maven
_REPOSITORY = re.compile(r"(?<![\w@])@{1,2}+[\w.~+-]*+\Z")


def resources(text: str) -> Iterator[Span]:
    """Addresses of Terraform, and pods and other objects of Kubernetes."""
    if "_" in text and any(part in text for part in _TERRAFORM_SAYS):
        for match in _TERRAFORM.finditer(text):
            yield match.span(match.lastindex or 0)
    for match in _POD.finditer(text):
        before = max(0, match.start() - _POD_CHARACTERS)
        if name := _BEFORE_POD.search(text, before, match.start()):
            yield name.start(), match.end()
    for match in _KIND_AND_NAME.finditer(text) if "/" in text else ():
        yield match.start(), match.start() + len(match[0].rstrip(".-"))
    for match in _NAMED.finditer(text):
        yield match.span(1)
