"""The wording of questions: few, short, and shared by all tools that print the same fact.

The generator and the rules for real outputs take their questions from here, so that a model
trained on generated outputs has read every question it is later asked about real ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.probe import Probe


class QuestionError(ClaraError):
    """A fact is unknown, or its question lacks a slot."""


@dataclass(frozen=True)
class Fact:
    """Something a tool's output states.

    Attributes:
        kind: the answer's usual kind (one of `clara_mlx.evaluate.probes.probe.KINDS`).
        wordings: two or three ways to ask; all have the same ``{slots}``. The first is the
            plainest.
    """

    kind: str
    wordings: tuple[str, ...]


FACTS: dict[str, Fact] = {
    # Tests.
    "failed_test": Fact("identifier", ("Which test failed?", "What is the failing test?")),
    "failed_test_in": Fact(
        "identifier", ("Which test in {path} failed?", "What is the failing test in {path}?")
    ),
    "test_file": Fact("path", ("Which file has the failing test?", "Where is the failing test?")),
    "test_file_of": Fact("path", ("Which file has {name}?", "In which file is {name}?")),
    "test_class": Fact("identifier", ("Which test class?", "What is the test class?")),
    "skipped_test": Fact("identifier", ("Which test was skipped?", "What is the skipped test?")),
    "skip_reason": Fact("message", ("Why was it skipped?", "What is the reason for skipping?")),
    "passed": Fact("number", ("How many passed?", "How many tests passed?")),
    "failed": Fact("number", ("How many failed?", "How many tests failed?")),
    "skipped": Fact("number", ("How many were skipped?", "How many tests were skipped?")),
    "ran": Fact("number", ("How many tests ran?", "How many tests were run?")),
    "ignored": Fact("number", ("How many were ignored?", "How many tests were ignored?")),
    "ignored_test": Fact("identifier", ("Which test was ignored?", "What is the ignored test?")),
    "left": Fact("message", ("What is left?", "What is the left value?")),
    "right": Fact("message", ("What is right?", "What is the right value?")),
    "duration": Fact("number", ("How long did it take?", "What was the duration?")),
    "expected": Fact("message", ("What was expected?", "What is the expected value?")),
    "actual": Fact("message", ("What was the actual value?", "What was the result instead?")),
    "coverage": Fact("number", ("What is the coverage?", "What is the total coverage?")),
    "coverage_of": Fact(
        "number", ("What is the coverage of {path}?", "Which coverage has {path}?")
    ),
    "statements_in": Fact(
        "number", ("How many statements in {path}?", "How many statements has {path}?")
    ),
    "missed_in": Fact("number", ("How many are missed in {path}?", "How many misses has {path}?")),
    # Errors, wherever they come from.
    "error_file": Fact("path", ("Which file has the error?", "In which file is the error?")),
    "error_line": Fact("number", ("On which line is the error?", "Which line has the error?")),
    "error_line_in": Fact(
        "number", ("On which line of {path} is the error?", "Which line of {path} has the error?")
    ),
    "error_column": Fact("number", ("In which column is the error?", "Which column?")),
    "error_column_in": Fact(
        "number", ("In which column of {path} is the error?", "Which column of {path}?")
    ),
    "error_message": Fact("message", ("What is the error message?", "What does the error say?")),
    "error_message_in": Fact(
        "message", ("What is the error in {path}?", "What is wrong in {path}?")
    ),
    "error_message_of": Fact(
        "message", ("What is the error of {name}?", "What does the error of {name} say?")
    ),
    "error_code": Fact("identifier", ("What is the error code?", "Which error code?")),
    "error_code_in": Fact(
        "identifier", ("What is the error code in {path}?", "Which error code is in {path}?")
    ),
    "exception": Fact("identifier", ("Which exception?", "Which exception was raised?")),
    "exception_of": Fact(
        "identifier", ("Which exception did {name} raise?", "What did {name} raise?")
    ),
    "cause": Fact("identifier", ("Which exception was the cause?", "What was the direct cause?")),
    "code": Fact("message", ("Which code has the error?", "What is the failing code?")),
    "callee": Fact(
        "identifier", ("Which function was called?", "To which function is the argument?")
    ),
    "logger": Fact("identifier", ("Which logger logged the error?", "Which logger has the error?")),
    "error_date": Fact("number", ("On which day was the error?", "What is the date of the error?")),
    "log_message": Fact("message", ("Which error was logged?", "What does the ERROR line say?")),
    "function": Fact("identifier", ("In which function?", "Which function has the error?")),
    "caller_file": Fact(
        "path", ("Which file is the first frame in?", "In which file does the traceback start?")
    ),
    "caller_line": Fact(
        "number", ("Which line is the first frame at?", "At which line does the traceback start?")
    ),
    "errors": Fact("number", ("How many errors?", "How many errors are there?")),
    "warning_file": Fact("path", ("Which file has the warning?", "In which file is the warning?")),
    "warning_line": Fact(
        "number", ("On which line is the warning?", "Which line has the warning?")
    ),
    "warning_message": Fact("message", ("What is the warning?", "What does the warning say?")),
    "warning_option": Fact("identifier", ("Which warning option?", "Which option controls it?")),
    "warnings": Fact("number", ("How many warnings?", "How many warnings are there?")),
    "fixable": Fact("number", ("How many are fixable?", "How many can be fixed?")),
    "checked_files": Fact("number", ("How many files were checked?", "How many source files?")),
    "error_files": Fact("number", ("How many files have errors?", "In how many files are errors?")),
    "reformatted_file": Fact(
        "path", ("Which file would be reformatted?", "Which file needs formatting?")
    ),
    "reformatted": Fact(
        "number", ("How many would be reformatted?", "How many files need formatting?")
    ),
    "formatted": Fact(
        "number", ("How many files are formatted?", "How many are already formatted?")
    ),
    "undefined_name": Fact(
        "identifier", ("Which name is undefined?", "What is the undefined name?")
    ),
    "unused_name": Fact("identifier", ("Which name is unused?", "What is unused?")),
    "missing_module": Fact("identifier", ("Which module is missing?", "What was not found?")),
    "missing_file": Fact("path", ("Which file is missing?", "Which file was not found?")),
    "expected_type": Fact("identifier", ("Which type was expected?", "What is the expected type?")),
    "actual_type": Fact("identifier", ("Which type was found?", "What is the actual type?")),
    "exit_status": Fact("number", ("What is the exit status?", "Which exit code?")),
    # Searching.
    "match_line_in": Fact(
        "number", ("On which line of {path} is the match?", "Which line of {path} matches?")
    ),
    "defined_file": Fact("path", ("Which file defines {name}?", "Where is {name} defined?")),
    "defined_line": Fact(
        "number", ("On which line is {name} defined?", "Which line defines {name}?")
    ),
    "match_text_in": Fact(
        "message", ("Which text matches in {path}?", "What is the match in {path}?")
    ),
    "match_name_in": Fact(
        "identifier", ("Which name is defined in {path}?", "What does {path} define?")
    ),
    "matches_in": Fact("number", ("How many matches in {path}?", "How many matches has {path}?")),
    "searched_files": Fact(
        "number", ("How many files were searched?", "How many files did it search?")
    ),
    "matches": Fact("number", ("How many matches?", "How many lines match?")),
    "matched_files": Fact("number", ("How many files match?", "How many files contain matches?")),
    # Keys and values.
    "value": Fact("identifier", ("What is the value of {key}?", "What is {key}?")),
    "value_in": Fact(
        "identifier", ("What is {key} in {section}?", "What is the value of {key} in {section}?")
    ),
    "old_value": Fact("identifier", ("What was the old value of {key}?", "What was {key} before?")),
    "new_value": Fact("identifier", ("What is the new value of {key}?", "What is {key} now?")),
    "version": Fact("number", ("Which version of {name}?", "What is the version of {name}?")),
    # Git.
    "commit": Fact("identifier", ("What is the commit hash?", "Which commit?")),
    "commit_of": Fact(
        "identifier", ('Which commit is "{subject}"?', 'What is the hash of "{subject}"?')
    ),
    "author": Fact("identifier", ("Who is the author?", "Who wrote the commit?")),
    "author_of": Fact("identifier", ("Who wrote {commit}?", "Who is the author of {commit}?")),
    "date": Fact("number", ("What is the date?", "When was the commit made?")),
    "date_of": Fact("number", ("What is the date of {commit}?", "When was {commit} made?")),
    "address": Fact("identifier", ("What is the author's email?", "Which email address?")),
    "subject": Fact("message", ("What is the commit message?", "What does the commit say?")),
    "subject_of": Fact(
        "message", ("What is the message of {commit}?", "What does commit {commit} say?")
    ),
    "branch": Fact("identifier", ("Which branch?", "What is the branch?")),
    "rebased_branch": Fact(
        "identifier", ("Which branch is rebased?", "What is the rebased branch?")
    ),
    "upstream": Fact("identifier", ("Which upstream branch?", "What is the upstream branch?")),
    "ahead": Fact("number", ("How many commits ahead?", "Ahead by how many commits?")),
    "behind": Fact("number", ("How many commits behind?", "Behind by how many commits?")),
    "modified_file": Fact("path", ("Which file is modified?", "Which file was changed?")),
    "new_file": Fact("path", ("Which file is new?", "Which file was added?")),
    "deleted_file": Fact("path", ("Which file is deleted?", "Which file was removed?")),
    "untracked_file": Fact("path", ("Which file is untracked?", "What is untracked?")),
    "renamed_to": Fact("path", ("What was {path} renamed to?", "What is the new name of {path}?")),
    "conflict_file": Fact("path", ("Which file has the conflict?", "Where is the conflict?")),
    "diff_file": Fact("path", ("Which file is in the diff?", "Which file does the diff change?")),
    "hunk_line": Fact(
        "number", ("At which line does the hunk start?", "Where does the hunk start?")
    ),
    "added_text": Fact("message", ("Which text was added?", "What is the added line?")),
    "removed_text": Fact("message", ("Which text was removed?", "What is the removed line?")),
    "insertions": Fact("number", ("How many insertions?", "How many lines were inserted?")),
    "deletions": Fact("number", ("How many deletions?", "How many lines were deleted?")),
    "changed_files": Fact("number", ("How many files changed?", "How many files were changed?")),
    "changes_in": Fact(
        "number", ("How many lines changed in {path}?", "How many changes in {path}?")
    ),
    # Files and folders.
    "file_size": Fact("number", ("How large is {file}?", "What is the size of {file}?")),
    "file_date": Fact("number", ("When was {file} changed?", "What is the date of {file}?")),
    "file_owner": Fact("identifier", ("Who owns {file}?", "Who is the owner of {file}?")),
    "file_mode": Fact("identifier", ("What is the mode of {file}?", "Which mode has {file}?")),
    "link_target": Fact("path", ("Where does {file} point?", "What is the target of {file}?")),
    "total": Fact("number", ("What is the total?", "How large is the total?")),
    "files": Fact("number", ("How many files?", "How many files are there?")),
    "directories": Fact("number", ("How many directories?", "How many directories are there?")),
    "root": Fact("path", ("Which directory is listed?", "What is the top directory?")),
    "directory": Fact("path", ("Which directory?", "In which directory?")),
    "parent": Fact("path", ("Which directory has {file}?", "In which directory is {file}?")),
    "file_in": Fact("path", ("Which file is in {path}?", "What is in {path}?")),
    # HTTP.
    "http_status": Fact("number", ("What is the HTTP status?", "Which status code?")),
    "http_reason": Fact("message", ("What is the reason phrase?", "What does the status say?")),
    "http_method": Fact("identifier", ("Which HTTP method?", "What is the HTTP method?")),
    "url_path": Fact("path", ("Which URL path?", "Which path was requested?")),
    "status_of": Fact("number", ("What is the status of {path}?", "Which status has {path}?")),
    "method_of": Fact(
        "identifier", ("Which method requested {path}?", "What is the method of {path}?")
    ),
    "bytes_of": Fact("number", ("How many bytes has {path}?", "How many bytes for {path}?")),
    "host": Fact("identifier", ("Which host?", "What is the host?")),
    "port": Fact("number", ("Which port?", "What is the port?")),
    # Packages and builds.
    "package": Fact(
        "identifier", ("What is the package called?", "What is the name of the package?")
    ),
    "peer": Fact("identifier", ("Which peer dependency?", "What is the peer dependency?")),
    "failed_package": Fact("identifier", ("Which package failed?", "Which package has the error?")),
    "makefile_line": Fact("number", ("Which line of the Makefile?", "At which Makefile line?")),
    "package_duration": Fact(
        "number", ("How long did {name} take?", "What is the time of {name}?")
    ),
    "added_packages": Fact("number", ("How many packages were added?", "How many were added?")),
    "audited_packages": Fact(
        "number", ("How many packages were audited?", "How many were audited?")
    ),
    "vulnerabilities": Fact(
        "number", ("How many vulnerabilities?", "How many vulnerabilities are there?")
    ),
    "target": Fact("identifier", ("Which target failed?", "What is the failing target?")),
    "built_target": Fact("identifier", ("Which target was built?", "What was built?")),
    "image": Fact("identifier", ("Which image?", "What is the image?")),
    "image_id": Fact("identifier", ("What is the image id?", "Which image id?")),
    "command": Fact("message", ("Which command failed?", "What is the failing command?")),
    "script": Fact("identifier", ("Which script failed?", "What is the failing script?")),
    "step_number": Fact("number", ("What is the number of the step?", "Which step?")),
    "tag": Fact("identifier", ("Which tag?", "What is the tag?")),
    "progress": Fact("number", ("How far is the build?", "What is the progress?")),
    "port_of": Fact("number", ("Which port has {name}?", "What is the port of {name}?")),
    "deprecation": Fact("message", ("Why is {name} deprecated?", "What replaces {name}?")),
    "funding": Fact("number", ("How many look for funding?", "How many packages seek funding?")),
    "python": Fact("number", ("Which Python 3 is required?", "What is the lowest Python 3?")),
    "log_file": Fact("path", ("Where is the log?", "Which file has the log?")),
}
"""Every fact by its stable id. Wordings are unique over all facts."""


def question(fact: str, rng: random.Random | None = None, **slots: str) -> str:
    """Ask for a fact: its first wording, or one drawn with ``rng``.

    Raises:
        QuestionError: for an unknown fact or a missing slot.
    """
    if fact not in FACTS:
        raise QuestionError(f"no fact is called {fact!r}; questions.py lists all of them")
    wordings = FACTS[fact].wordings
    wording = wordings[0] if rng is None else rng.choice(wordings)
    try:
        return wording.format(**slots)
    except KeyError as error:
        raise QuestionError(f"the question of {fact!r} needs the slot {error}") from error


def make_probe(
    fact: str,
    answer: str,
    span: tuple[int, int],
    rng: random.Random | None = None,
    kind: str | None = None,
    **slots: str,
) -> Probe:
    """The probe of one fact.

    Args:
        fact: an id of `FACTS`.
        answer: the exact answer.
        span: the evidence, in characters of the output's text.
        rng: draws the wording; without it the first is taken.
        kind: the answer's kind where it is not the fact's usual one, such as a numeric value.
        slots: what the wording names, such as ``path="src/a.py"``.

    Raises:
        QuestionError: for an unknown fact or a missing slot.
        ProbeError: for an answer or span that no probe may have.
    """
    asked = question(fact, rng, **slots)
    return Probe(asked, answer, kind or FACTS[fact].kind, *span)
