from __future__ import annotations

import ast
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.evaluate.corpus import (
    BRIEF_TOOLS,
    LAYOUTS,
    LEFT_OUT,
    LONG_CHARACTERS,
    SHORT_CHARACTERS,
    TOOLS,
    GenerateError,
    generate,
)
from clara_mlx.evaluate.corpus import page as page_module
from clara_mlx.evaluate.corpus.brief import BRIEF_WORDS
from clara_mlx.evaluate.corpus.names import FIRST_NAMES, LAST_NAMES, WORDS, Names
from clara_mlx.evaluate.corpus.page import Layout, Page, mark
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.evaluate.probes.questions import FORMS, make_probe

SOURCES = Path(__file__).parents[2] / "clara_mlx" / "evaluate" / "corpus"
TOOL = st.sampled_from(TOOLS)
SPLIT = st.sampled_from(("train", "test"))
COUNTED = {"How many matches?", "How many lines match?"}
DATES = re.compile(
    r"\w{3} \w{3} \d+ \d\d:\d\d:\d\d \d{4}|\w{3} [ \d]\d \d\d:\d\d|\d+/\w{3}/\d{4}:\d\d:\d\d:\d\d"
    r"|\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d"
)


def draw(outputs: int, split: str, size: str = "short", seed: int = 0) -> list[Output]:
    rng = random.Random(f"{seed} {split} {size}")
    return [generate(rng, TOOLS[i % len(TOOLS)], split, size) for i in range(outputs)]


@pytest.fixture(scope="module")
def train() -> list[Output]:
    return draw(2000, "train") + draw(120, "train", "long")


@pytest.fixture(scope="module")
def test() -> list[Output]:
    return draw(2000, "test") + draw(120, "test", "long")


def parts(text: str) -> Iterator[str]:
    """Words and pseudo-words, with snake_case and CamelCase taken apart, in lower case."""
    for token in re.findall(r"[A-Za-z0-9]+", re.sub(r"\b(0x)?[0-9a-f]{6,}\b|0x\w+", " ", text)):
        for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])", token):
            if not part[0].isdigit():
                yield part.lower()


@cache
def template_words() -> set[str]:
    """Every word of every text in the generator's sources except docstrings and word lists."""
    found = set(parts((SOURCES / "messages.toml").read_text()))
    for file in SOURCES.glob("*.py"):
        if file.name == "brief.py":  # whose splits share words
            continue
        nodes = list(ast.walk(ast.parse(file.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in docstrings
            ):
                found.update(parts(node.value))
    return found - {"brief"}  # a size


@cache
def template_numbers() -> set[str]:
    return {
        number
        for file in (*SOURCES.glob("*.py"), SOURCES / "messages.toml")
        if file.name != "names.py"
        for number in re.findall(r"\d+", file.read_text())
    }


@settings(deadline=None, max_examples=sized(100, 2000))
@given(st.integers(0, 2**32), TOOL, SPLIT, st.sampled_from(("short", "long")))
def test_an_output_keeps_its_promises(seed: int, tool: str, split: str, size: str) -> None:
    output = generate(random.Random(seed), tool, split, size)
    assert output == generate(random.Random(seed), tool, split, size)
    assert output.tool == tool
    low, high = LONG_CHARACTERS if size == "long" else (1, SHORT_CHARACTERS)
    assert low <= len(output.text) <= high
    assert output.text == output.text.strip("\n")
    assert 3 <= len(output.probes) <= 8
    for probe in output.probes:
        evidence = output.text[probe.start : probe.end]
        if probe.question in COUNTED and evidence != probe.answer:
            assert int(probe.answer) == len(evidence.splitlines())
        elif re.match(r"(Which|In which) directory", probe.question) and evidence != probe.answer:
            assert probe.answer in output.text[: probe.start]
        else:
            assert evidence == probe.answer


def page() -> Page:
    return Page(Names(random.Random(0), "train"))


def test_a_fact_with_two_answers_is_not_asked() -> None:
    sheet = page()
    sheet.line("a.py:", mark("error_line", 3), " ", mark("exception", "KeyError"))
    sheet.line("b.py:", mark("error_line", 4), " ", mark("exception", "KeyError"))
    assert [probe.answer for probe in sheet.probes(8)] == ["KeyError"]
    assert sheet.probes(8)[0].start == 7


def test_slots_tell_facts_apart() -> None:
    sheet = page()
    for path, line in (("a.py", 3), ("b.py", 4)):
        sheet.line(path, ":", mark("error_line_in", line, path=path))
    assert [probe.answer for probe in sheet.probes(8)] == ["3", "4"]


def test_one_piece_of_text_is_asked_once_before_any_is_asked_twice() -> None:
    for seed in range(20):
        sheet = Page(Names(random.Random(seed), "train"))
        for name in ("a", "b", "c"):
            sheet.line(mark("value", mark("value_in", name * 3, key=name, section="s"), key=name))
        assert {probe.answer for probe in sheet.probes(3)} == {"aaa", "bbb", "ccc"}
        assert len(sheet.probes(6)) == 6


def test_splits_share_no_name_words(train: list[Output], test: list[Output]) -> None:
    def words(outputs: list[Output]) -> set[str]:
        return {word for output in outputs for word in parts(output.text) if len(word) > 3}

    seen, unseen = words(train), words(test)
    assert seen & unseen <= template_words()
    listed = {*WORDS, *FIRST_NAMES, *LAST_NAMES}
    assert not listed & template_words()
    assert len(seen & listed) > 1200
    assert len(unseen & listed) > 200


def test_splits_share_no_numbers(train: list[Output], test: list[Output]) -> None:
    def numbers(outputs: list[Output]) -> set[str]:
        texts = (DATES.sub(" ", output.text) for output in outputs)
        found = (re.findall(r"(?<![\w./-])\d+(?![\w.%/-])", text) for text in texts)
        return {number for some in found for number in some if int(number) >= 20}

    seen, unseen = numbers(train), numbers(test)
    assert len(seen) > 900
    assert len(unseen) > 500
    assert seen & unseen <= template_numbers()


def test_splits_share_no_long_answers(train: list[Output], test: list[Output]) -> None:
    """Answers in both splits are a tool's own words or small numbers, percentages or statuses."""

    def answers(outputs: list[Output]) -> set[str]:
        return {probe.answer for output in outputs for probe in output.probes}

    words, numbers = template_words(), template_numbers()
    for answer in answers(train) & answers(test):
        assert all(word in words for word in parts(answer) if len(word) > 3), answer
        small = all(int(n) < 20 or n in numbers for n in re.findall(r"\d+", answer))
        assert small or answer.endswith("%"), answer


def test_outputs_vary(train: list[Output], test: list[Output]) -> None:
    for outputs in (train, test):
        texts = Counter(output.text for output in outputs)
        assert sum(count - 1 for count in texts.values()) < 0.005 * len(outputs)


@pytest.mark.parametrize("size", ["short", "long"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_layout_survives_the_limits(
    monkeypatch: pytest.MonkeyPatch, split: str, size: str
) -> None:
    """On length and probes, in at most ten attempts on average: so it is drawn often enough."""
    written = 0

    def recorded(layout: Layout) -> Layout:
        def write(sheet: Page) -> None:
            nonlocal written
            written += 1
            layout(sheet)

        return write

    rng = random.Random(3)
    for tool in TOOLS:
        for layout in LAYOUTS[tool]:
            monkeypatch.setitem(LAYOUTS, tool, (recorded(layout),))
            written = 0
            for _ in range(4):
                generate(rng, tool, split, size)
            assert written <= 40, layout.__name__
            monkeypatch.undo()


@pytest.mark.parametrize("tool", BRIEF_TOOLS)
def test_brief_outputs(tool: str) -> None:
    """The splits share words, but no name made of two, as it is printed."""
    word = "|".join(BRIEF_WORDS)
    pair = re.compile(rf"(?:{word})[_-](?:{word})")
    shown: dict[str, set[str]] = {}
    words: dict[str, set[str]] = {}
    for split in ("train", "test"):
        outputs = [generate(random.Random(i), tool, split, "brief") for i in range(400)]
        assert generate(random.Random(0), tool, split, "brief") == outputs[0]
        for output in outputs:
            assert output.tool == tool
            assert 3 <= len(output.probes) <= 8
            for probe in output.probes:
                assert output.text[probe.start : probe.end] == probe.answer
        shown[split] = {found for output in outputs for found in pair.findall(output.text)}
        words[split] = {word for found in shown[split] for word in re.split("[_-]", found)}
    assert len(shown["test"]) > 200
    assert not shown["train"] & shown["test"]
    assert len(words["train"] & words["test"]) > 0.9 * len(BRIEF_WORDS)


def test_every_wording_is_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, also those that only the left-out tool or the rules for real outputs need."""
    missing = {
        (fact, wording): re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording)))
        for fact, known in FORMS.items()
        for wording in known.wordings
    }

    def recorded(fact: str, *args: Any, **slots: Any) -> Probe:
        probe = make_probe(fact, *args, **slots)
        for wording in FORMS[fact].wordings:
            if (pattern := missing.get((fact, wording))) and pattern.fullmatch(probe.question):
                del missing[fact, wording]
        return probe

    monkeypatch.setattr(page_module, "make_probe", recorded)
    rng = random.Random(1)
    for _ in range(2000):
        for tool in TOOLS:
            if tool != LEFT_OUT:
                generate(rng, tool)
        if not missing:
            break
    assert not missing


def test_what_a_question_names_is_in_the_text(train: list[Output]) -> None:
    plain = {wording for fact in FORMS.values() for wording in fact.wordings}
    wordings = [
        re.compile(re.sub(r"\\\{\w+\\\}", "(.+)", re.escape(wording)))
        for fact in FORMS.values()
        for wording in fact.wordings
        if "{" in wording
    ]
    for output in train[:1000]:
        for probe in output.probes:
            read = [wording.fullmatch(probe.question) for wording in wordings]
            slots = [match.groups() for match in read if match]
            if probe.question not in plain:
                assert any(all(slot in output.text for slot in some) for some in slots), probe


def test_kinds_and_lengths(train: list[Output]) -> None:
    kinds = Counter(probe.kind for output in train for probe in output.probes)
    assert set(kinds) == {"path", "number", "identifier", "message"}
    assert min(kinds.values()) > 0.05 * kinds.total()


def test_full_outputs_use_the_chunk() -> None:
    lengths = {
        full: [len(generate(random.Random(i), t, full=full).text) for t in TOOLS for i in range(20)]
        for full in (0.0, 1.0)
    }
    assert sum(lengths[0.0]) < 0.75 * sum(lengths[1.0])
    assert sum(length >= SHORT_CHARACTERS * 2 // 3 for length in lengths[1.0]) > 0.8 * 20 * len(
        TOOLS
    )


def test_fits_is_obeyed() -> None:
    rng = random.Random(2)
    for tool in TOOLS:
        for _ in range(5):
            assert len(generate(rng, tool, fits=lambda text: len(text) <= 200).text) <= 200


def test_what_cannot_be_drawn_is_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(GenerateError, match="500 short pytest outputs were all refused"):
        generate(rng, "pytest", fits=lambda text: False)
    for tool, split, size in (
        ("rm", "train", "short"),
        ("pytest", "dev", "short"),
        ("pytest", "test", "medium"),
    ):
        with pytest.raises(GenerateError, match="tools are pytest, unittest"):
            generate(rng, tool, split, size)


def test_the_same_in_every_process() -> None:
    """Python's own hashes differ from process to process; nothing may depend on them."""
    program = (
        "import random, zlib; from clara_mlx.evaluate.corpus import TOOLS, generate;"
        "rng = random.Random(7);"
        "print(zlib.crc32(repr([generate(rng, t, s) for t in TOOLS for s in ('train', 'test')])"
        ".encode()))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


@pytest.mark.alone
def test_training_can_generate_as_it_goes() -> None:
    start = time.process_time()
    draw(1000, "train", seed=9)
    assert 1000 / (time.process_time() - start) > 1000
