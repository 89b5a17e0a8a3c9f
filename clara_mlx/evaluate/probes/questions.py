"""The wordings of questions: few, short, and shared by all tools that print the same fact.

Generated and real outputs take their questions from here, so that a model trained on generated
outputs has read every question that it is later asked about real ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.probe import Probe


class QuestionError(ClaraError):
    """No question asks for a fact, or a question is not given one of its slots."""


@dataclass(frozen=True)
class Form:
    """How a fact is asked for.

    Attributes:
        kind: The usual kind of the answer, one of `clara_mlx.evaluate.probes.probe.KINDS`.
        wordings: Two or three ways to ask with the same ``{slots}``; the first is the plainest.
    """

    kind: str
    wordings: tuple[str, ...]


FORMS: dict[str, Form] = {
    # Tests.
    "failed_test": Form("identifier", ("Which test failed?", "What is the failing test?")),
    "failed_test_in": Form(
        "identifier", ("Which test in {path} failed?", "What is the failing test in {path}?")
    ),
    "test_file": Form("path", ("Which file has the failing test?", "Where is the failing test?")),
    "test_file_of": Form("path", ("Which file has {name}?", "In which file is {name}?")),
    "test_class": Form("identifier", ("Which test class?", "What is the test class?")),
    "skipped_test": Form("identifier", ("Which test was skipped?", "What is the skipped test?")),
    "skip_reason": Form("message", ("Why was it skipped?", "What is the reason for skipping?")),
    "passed": Form("number", ("How many passed?", "How many tests passed?")),
    "failed": Form("number", ("How many failed?", "How many tests failed?")),
    "skipped": Form("number", ("How many were skipped?", "How many tests were skipped?")),
    "ran": Form("number", ("How many tests ran?", "How many tests were run?")),
    "ignored": Form("number", ("How many were ignored?", "How many tests were ignored?")),
    "ignored_test": Form("identifier", ("Which test was ignored?", "What is the ignored test?")),
    "left": Form("message", ("What is left?", "What is the left value?")),
    "right": Form("message", ("What is right?", "What is the right value?")),
    "duration": Form("number", ("How long did it take?", "What was the duration?")),
    "expected": Form("message", ("What was expected?", "What is the expected value?")),
    "actual": Form("message", ("What was the actual value?", "What was the result instead?")),
    "coverage": Form("number", ("What is the coverage?", "What is the total coverage?")),
    "coverage_of": Form(
        "number", ("What is the coverage of {path}?", "Which coverage has {path}?")
    ),
    "statements_in": Form(
        "number", ("How many statements in {path}?", "How many statements has {path}?")
    ),
    "missed_in": Form("number", ("How many are missed in {path}?", "How many misses has {path}?")),
    # Errors, wherever they come from.
    "error_file": Form("path", ("Which file has the error?", "In which file is the error?")),
    "error_line": Form("number", ("On which line is the error?", "Which line has the error?")),
    "error_line_in": Form(
        "number", ("On which line of {path} is the error?", "Which line of {path} has the error?")
    ),
    "error_column": Form("number", ("In which column is the error?", "Which column?")),
    "error_column_in": Form(
        "number", ("In which column of {path} is the error?", "Which column of {path}?")
    ),
    "error_message": Form("message", ("What is the error message?", "What does the error say?")),
    "error_message_in": Form(
        "message", ("What is the error in {path}?", "What is wrong in {path}?")
    ),
    "error_message_of": Form(
        "message", ("What is the error of {name}?", "What does the error of {name} say?")
    ),
    "error_code": Form("identifier", ("What is the error code?", "Which error code?")),
    "error_code_in": Form(
        "identifier", ("What is the error code in {path}?", "Which error code is in {path}?")
    ),
    "exception": Form("identifier", ("Which exception?", "Which exception was raised?")),
    "exception_of": Form(
        "identifier", ("Which exception did {name} raise?", "What did {name} raise?")
    ),
    "cause": Form("identifier", ("Which exception was the cause?", "What was the direct cause?")),
    "code": Form("message", ("Which code has the error?", "What is the failing code?")),
    "callee": Form(
        "identifier", ("Which function was called?", "To which function is the argument?")
    ),
    "logger": Form("identifier", ("Which logger logged the error?", "Which logger has the error?")),
    "error_date": Form("number", ("On which day was the error?", "What is the date of the error?")),
    "log_message": Form("message", ("Which error was logged?", "What does the ERROR line say?")),
    "function": Form("identifier", ("In which function?", "Which function has the error?")),
    "caller_file": Form(
        "path", ("Which file is the first frame in?", "In which file does the traceback start?")
    ),
    "caller_line": Form(
        "number", ("Which line is the first frame at?", "At which line does the traceback start?")
    ),
    "errors": Form("number", ("How many errors?", "How many errors are there?")),
    "warning_file": Form("path", ("Which file has the warning?", "In which file is the warning?")),
    "warning_line": Form(
        "number", ("On which line is the warning?", "Which line has the warning?")
    ),
    "warning_message": Form("message", ("What is the warning?", "What does the warning say?")),
    "warning_option": Form("identifier", ("Which warning option?", "Which option controls it?")),
    "warnings": Form("number", ("How many warnings?", "How many warnings are there?")),
    "fixable": Form("number", ("How many are fixable?", "How many can be fixed?")),
    "checked_files": Form("number", ("How many files were checked?", "How many source files?")),
    "error_files": Form("number", ("How many files have errors?", "In how many files are errors?")),
    "reformatted_file": Form(
        "path", ("Which file would be reformatted?", "Which file needs formatting?")
    ),
    "reformatted": Form(
        "number", ("How many would be reformatted?", "How many files need formatting?")
    ),
    "formatted": Form(
        "number", ("How many files are formatted?", "How many are already formatted?")
    ),
    "undefined_name": Form(
        "identifier", ("Which name is undefined?", "What is the undefined name?")
    ),
    "unused_name": Form("identifier", ("Which name is unused?", "What is unused?")),
    "missing_module": Form("identifier", ("Which module is missing?", "What was not found?")),
    "missing_file": Form("path", ("Which file is missing?", "Which file was not found?")),
    "expected_type": Form("identifier", ("Which type was expected?", "What is the expected type?")),
    "actual_type": Form("identifier", ("Which type was found?", "What is the actual type?")),
    "exit_status": Form("number", ("What is the exit status?", "Which exit code?")),
    # Searching.
    "match_line_in": Form(
        "number", ("On which line of {path} is the match?", "Which line of {path} matches?")
    ),
    "defined_file": Form("path", ("Which file defines {name}?", "Where is {name} defined?")),
    "defined_line": Form(
        "number", ("On which line is {name} defined?", "Which line defines {name}?")
    ),
    "match_text_in": Form(
        "message", ("Which text matches in {path}?", "What is the match in {path}?")
    ),
    "match_name_in": Form(
        "identifier", ("Which name is defined in {path}?", "What does {path} define?")
    ),
    "matches_in": Form("number", ("How many matches in {path}?", "How many matches has {path}?")),
    "searched_files": Form(
        "number", ("How many files were searched?", "How many files did it search?")
    ),
    "matches": Form("number", ("How many matches?", "How many lines match?")),
    "matched_files": Form("number", ("How many files match?", "How many files contain matches?")),
    # Keys and values.
    "value": Form("identifier", ("What is the value of {key}?", "What is {key}?")),
    "value_in": Form(
        "identifier", ("What is {key} in {section}?", "What is the value of {key} in {section}?")
    ),
    "old_value": Form("identifier", ("What was the old value of {key}?", "What was {key} before?")),
    "new_value": Form("identifier", ("What is the new value of {key}?", "What is {key} now?")),
    "version": Form("number", ("Which version of {name}?", "What is the version of {name}?")),
    # Git.
    "commit": Form("identifier", ("What is the commit hash?", "Which commit?")),
    "commit_of": Form(
        "identifier", ('Which commit is "{subject}"?', 'What is the hash of "{subject}"?')
    ),
    "author": Form("identifier", ("Who is the author?", "Who wrote the commit?")),
    "author_of": Form("identifier", ("Who wrote {commit}?", "Who is the author of {commit}?")),
    "date": Form("number", ("What is the date?", "When was the commit made?")),
    "date_of": Form("number", ("What is the date of {commit}?", "When was {commit} made?")),
    "address": Form("identifier", ("What is the author's email?", "Which email address?")),
    "subject": Form("message", ("What is the commit message?", "What does the commit say?")),
    "subject_of": Form(
        "message", ("What is the message of {commit}?", "What does commit {commit} say?")
    ),
    "branch": Form("identifier", ("Which branch?", "What is the branch?")),
    "rebased_branch": Form(
        "identifier", ("Which branch is rebased?", "What is the rebased branch?")
    ),
    "upstream": Form("identifier", ("Which upstream branch?", "What is the upstream branch?")),
    "ahead": Form("number", ("How many commits ahead?", "Ahead by how many commits?")),
    "behind": Form("number", ("How many commits behind?", "Behind by how many commits?")),
    "modified_file": Form("path", ("Which file is modified?", "Which file was changed?")),
    "new_file": Form("path", ("Which file is new?", "Which file was added?")),
    "deleted_file": Form("path", ("Which file is deleted?", "Which file was removed?")),
    "untracked_file": Form("path", ("Which file is untracked?", "What is untracked?")),
    "renamed_to": Form("path", ("What was {path} renamed to?", "What is the new name of {path}?")),
    "conflict_file": Form("path", ("Which file has the conflict?", "Where is the conflict?")),
    "diff_file": Form("path", ("Which file is in the diff?", "Which file does the diff change?")),
    "hunk_line": Form(
        "number", ("At which line does the hunk start?", "Where does the hunk start?")
    ),
    "added_text": Form("message", ("Which text was added?", "What is the added line?")),
    "removed_text": Form("message", ("Which text was removed?", "What is the removed line?")),
    "insertions": Form("number", ("How many insertions?", "How many lines were inserted?")),
    "deletions": Form("number", ("How many deletions?", "How many lines were deleted?")),
    "changed_files": Form("number", ("How many files changed?", "How many files were changed?")),
    "changes_in": Form(
        "number", ("How many lines changed in {path}?", "How many changes in {path}?")
    ),
    # Files and folders.
    "file_size": Form("number", ("How large is {file}?", "What is the size of {file}?")),
    "file_date": Form("number", ("When was {file} changed?", "What is the date of {file}?")),
    "file_owner": Form("identifier", ("Who owns {file}?", "Who is the owner of {file}?")),
    "file_mode": Form("identifier", ("What is the mode of {file}?", "Which mode has {file}?")),
    "link_target": Form("path", ("Where does {file} point?", "What is the target of {file}?")),
    "total": Form("number", ("What is the total?", "How large is the total?")),
    "files": Form("number", ("How many files?", "How many files are there?")),
    "directories": Form("number", ("How many directories?", "How many directories are there?")),
    "root": Form("path", ("Which directory is listed?", "What is the top directory?")),
    "directory": Form("path", ("Which directory?", "In which directory?")),
    "parent": Form("path", ("Which directory has {file}?", "In which directory is {file}?")),
    "file_in": Form("path", ("Which file is in {path}?", "What is in {path}?")),
    # HTTP.
    "http_status": Form("number", ("What is the HTTP status?", "Which status code?")),
    "http_reason": Form("message", ("What is the reason phrase?", "What does the status say?")),
    "http_method": Form("identifier", ("Which HTTP method?", "What is the HTTP method?")),
    "url_path": Form("path", ("Which URL path?", "Which path was requested?")),
    "status_of": Form("number", ("What is the status of {path}?", "Which status has {path}?")),
    "method_of": Form(
        "identifier", ("Which method requested {path}?", "What is the method of {path}?")
    ),
    "bytes_of": Form("number", ("How many bytes has {path}?", "How many bytes for {path}?")),
    "host": Form("identifier", ("Which host?", "What is the host?")),
    "port": Form("number", ("Which port?", "What is the port?")),
    # Packages and builds.
    "package": Form(
        "identifier", ("What is the package called?", "What is the name of the package?")
    ),
    "peer": Form("identifier", ("Which peer dependency?", "What is the peer dependency?")),
    "failed_package": Form("identifier", ("Which package failed?", "Which package has the error?")),
    "makefile_line": Form("number", ("Which line of the Makefile?", "At which Makefile line?")),
    "package_duration": Form(
        "number", ("How long did {name} take?", "What is the time of {name}?")
    ),
    "added_packages": Form("number", ("How many packages were added?", "How many were added?")),
    "audited_packages": Form(
        "number", ("How many packages were audited?", "How many were audited?")
    ),
    "vulnerabilities": Form(
        "number", ("How many vulnerabilities?", "How many vulnerabilities are there?")
    ),
    "target": Form("identifier", ("Which target failed?", "What is the failing target?")),
    "built_target": Form("identifier", ("Which target was built?", "What was built?")),
    "image": Form("identifier", ("Which image?", "What is the image?")),
    "image_id": Form("identifier", ("What is the image id?", "Which image id?")),
    "command": Form("message", ("Which command failed?", "What is the failing command?")),
    "script": Form("identifier", ("Which script failed?", "What is the failing script?")),
    "step_number": Form("number", ("What is the number of the step?", "Which step?")),
    "tag": Form("identifier", ("Which tag?", "What is the tag?")),
    "progress": Form("number", ("How far is the build?", "What is the progress?")),
    "port_of": Form("number", ("Which port has {name}?", "What is the port of {name}?")),
    "deprecation": Form("message", ("Why is {name} deprecated?", "What replaces {name}?")),
    "funding": Form("number", ("How many look for funding?", "How many packages seek funding?")),
    "python": Form("number", ("Which Python 3 is required?", "What is the lowest Python 3?")),
    "log_file": Form("path", ("Where is the log?", "Which file has the log?")),
}
"""The question of every fact, by the fact's name. No two facts share a wording."""


def question(fact: str, rng: random.Random | None = None, **slots: str) -> str:
    """The question for a fact, in its first wording or in one drawn with ``rng``.

    Raises:
        QuestionError: The fact is unknown, or a slot is missing.
    """
    if fact not in FORMS:
        raise QuestionError(f"no fact is called {fact!r}; questions.py lists them all")
    wordings = FORMS[fact].wordings
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
    """Make the probe that asks for a fact.

    Args:
        fact: Name of the fact, a key of `FORMS`.
        answer: The exact answer.
        span: Start and end of the evidence, in characters of the output's text.
        rng: Random numbers that choose the wording; None takes the first.
        kind: Kind of the answer, if it is not the fact's usual one; a value may be a number.
        slots: Values of the slots in the wording, such as ``path="src/a.py"``.

    Raises:
        QuestionError: The fact is unknown, or a slot is missing.
        ProbeError: No probe may have this answer or this span.
    """
    return Probe(question(fact, rng, **slots), answer, kind or FORMS[fact].kind, *span)
