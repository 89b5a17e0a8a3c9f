from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.evaluate.probes.probe import KINDS, Output, Probe, ProbeError, kind_of
from clara_mlx.evaluate.probes.questions import FORMS, QuestionError, make_probe, question


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("42", "number"),
        ("-3.5", "number"),
        ("1.14.2", "number"),
        ("v2.0", "number"),
        ("2025-03-14", "number"),
        ("09:41:07", "number"),
        ("1.3G", "number"),
        ("17 ms", "number"),
        ("81%", "number"),
        ("src/a.py", "path"),
        ("notes.md", "path"),
        ("/var/log", "path"),
        ("copper.tide.com", "identifier"),
        ("true", "identifier"),
        ("copper-tide", "identifier"),
        ("KeyError", "identifier"),
        ("no such key", "message"),
        ("cannot open a.py", "message"),
    ],
)
def test_kinds_of_values(value: str, kind: str) -> None:
    assert kind_of(value) == kind


@given(st.text())
def test_every_value_has_a_kind(value: str) -> None:
    assert kind_of(value) in KINDS


@pytest.mark.parametrize("answer", ["", " a", "a ", "a\nb", "a" * 61])
def test_answers_that_no_probe_may_have(answer: str) -> None:
    with pytest.raises(ProbeError, match="choose a shorter fact"):
        Probe("Which?", answer, "path", 0, 1)


def test_probes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ProbeError, match="use one of path, number, identifier, message"):
        Probe("Which?", "a", "file", 0, 1)
    for start, end in ((-1, 3), (3, 3), (4, 3)):
        with pytest.raises(ProbeError, match="one past the last"):
            Probe("Which?", "a", "path", start, end)


def test_outputs_hold_their_probes() -> None:
    probe = Probe("Which file?", "a.py", "path", 0, 4)
    assert Output("ls", "a.py", (probe,)).probes == (probe,)
    with pytest.raises(ProbeError, match="ends at 4, but the ls output has 3 characters"):
        Output("ls", "a.p", (probe,))
    with pytest.raises(ProbeError, match="asked twice of one ls output"):
        Output("ls", "a.py", (probe, probe))


def test_forms_are_well_formed() -> None:
    wordings = [wording for form in FORMS.values() for wording in form.wordings]
    assert len(set(wordings)) == len(wordings)
    for form in FORMS.values():
        assert form.kind in KINDS
        assert 2 <= len(form.wordings) <= 3
        slots = [
            {name for _, name, _, _ in string.Formatter().parse(wording) if name}
            for wording in form.wordings
        ]
        assert all(some == slots[0] for some in slots)
        for wording in form.wordings:
            assert wording.endswith("?")
            assert len(wording.split()) <= 9


def test_questions() -> None:
    assert question("error_line_in", path="a.py") == "On which line of a.py is the error?"
    assert question("value", key="{x}") == "What is the value of {x}?"
    with pytest.raises(QuestionError, match="no fact is called 'eror'"):
        question("eror")
    with pytest.raises(QuestionError, match="needs the slot 'path'"):
        question("error_line_in")


def test_make_probe() -> None:
    probe = make_probe("error_line_in", "3", (5, 6), path="a.py")
    assert probe == Probe("On which line of a.py is the error?", "3", "number", 5, 6)
    assert make_probe("value", "3", (0, 1), kind="number", key="k").kind == "number"
