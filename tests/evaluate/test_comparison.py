"""Compressors side by side: the same questions, equal budgets, one table, honest intervals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clara_mlx.compressors.baselines import HeadTail, Verbatim
from clara_mlx.compressors.compressor import ESTIMATE
from clara_mlx.errors import ClaraError
from clara_mlx.evaluate import comparison, comparison_report, contender, sets
from clara_mlx.evaluate.comparison import Extent
from clara_mlx.evaluate.contender import Contender, measure
from clara_mlx.evaluate.exam import RECORDED, Exam, ExamOutput, lines_with, stands_in
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.evaluate.textual_exam import shorten_all

Run = Callable[..., Any]

TEXT = "\n".join(
    ["begin of 12 jobs", *(f"job {n} of 12 took {n * 37} ms" for n in range(1, 13)), "FAILED job 7"]
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with clear answers at an end and in a middle, and one that is not clear."""
    questions = [
        {"question": "Which one FAILED?", "answer": "job 7", "evidence": "FAILED job 7"},
        {"question": "How long did job 6 take?", "answer": "222 ms", "evidence": "222 ms"},
        {"question": "How many jobs?", "answer": "12", "evidence": "begin of 12 jobs"},
    ]
    long = "x " * 3000 + "end"
    rows = [
        {"kind": "jobs", "source": "made", "command": None, "text": TEXT, "questions": questions},
        {"text": long, "questions": [{"question": "How does it end?", "answer": "end"}]},
    ]
    file = tmp_path_factory.mktemp("recorded") / "outputs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return file


@pytest.fixture
def exam(recorded: Path) -> Exam:
    made = Exam()
    made.add_recorded(recorded)
    return made


@pytest.mark.parametrize(
    ("answer", "text", "lines"),
    [
        ("7", "17 or 7.5", {0}),
        ("7", "17 or 71", set()),
        ("src/a.py", "lib/src/a.py:3\nsrc/a.pyc\nsrc/a.py", {0, 2}),
        ("-x", "a-x\n -x", {0, 1}),
        ("é", "caf\u00e9\n\u00e9", {1}),
        ("aa", "aaa aa", {0}),
        ("a b", "a  b", set()),
    ],
)
def test_an_answer_stands_as_whole_words(answer: str, text: str, lines: set[int]) -> None:
    assert lines_with(answer, text) == lines
    assert stands_in(answer, text) is bool(lines)


def test_what_stands_on_several_lines_is_not_clear(exam: Exam) -> None:
    assert [one.clear for one in exam.questions] == [False, True, False, True]
    described = exam.describe()[RECORDED]
    assert (described["questions"], described["clear"], described["outputs"]) == (4, 2, 2)
    shares = exam.shares([True, True, False, False])[RECORDED]
    assert shares["clear"]["mean"] == 0.5 and shares["clear"]["questions"] == 2
    assert shares["all"]["mean"] == 0.5 and shares["all"]["questions"] == 4
    assert shares["by_kind"]["jobs"]["mean"] == 1


def test_longer_outputs_are_left_out_and_counted(recorded: Path) -> None:
    exam = Exam()
    exam.add_recorded(recorded, longest=2000)
    assert len(exam.outputs) == 1 and exam.describe()[RECORDED]["too_long"] == 1
    assert Exam.from_json(json.loads(json.dumps(exam.to_json()))) == exam


def test_no_interval_has_no_width() -> None:
    """Five of five right is not sure to be all, nor none of five to be none."""
    exam = Exam()
    for number in range(5):
        text = f"the value is v{number}"
        exam.add(ExamOutput("own", "t", text), [("Which?", f"v{number}", "number")], None)
    for kept, low, high in (([True] * 5, 0.56, 1), ([False] * 5, 0, 0.44)):
        share = exam.shares(kept)["own"]["clear"]
        assert share["low"] == pytest.approx(low, abs=0.01)
        assert share["high"] == pytest.approx(high, abs=0.01)
    for right in range(6):
        share = exam.shares([number < right for number in range(5)])["own"]["clear"]
        assert share["high"] - share["low"] > 0.4
    exam = Exam()
    asked = [(f"Which {n}?", f"v{n}", "number") for n in range(5)]
    exam.add(ExamOutput("own", "t", "\n".join(answer for _, answer, _ in asked)), asked, None)
    share = exam.shares([True] * 5)["own"]["clear"]  # five of five, but of a single output
    assert share["low"] < 0.25 and share["high"] == 1


def test_a_textual_compressor_gets_the_budget_it_is_given(exam: Exam) -> None:
    counts = [len(ESTIMATE.encode(output.text)) for output in exam.outputs]
    budgets = [count / 8 for count in counts]
    done = shorten_all(HeadTail(), exam, budgets, ESTIMATE, lambda *_: None)
    for size, count in zip(done.sizes, counts, strict=True):
        assert count / 8 - 4 < size <= count / 8 + 1
    assert done.over == 0 and done.asked[0] is done.texts[0]  # it uses no question
    found = done.to_dict(ESTIMATE)
    assert found["kept"][RECORDED]["clear"]["mean"] == 0.5  # the end, not the middle
    assert found["rate"][RECORDED] == pytest.approx(sum(counts) / sum(done.sizes))
    assert shorten_all(Verbatim(), exam, budgets, ESTIMATE, lambda *_: None).over == 2


def test_the_question_brings_back_what_the_place_lost(recorded: Path, exam: Exam) -> None:
    found = measure(Contender("bm25", rates=(4.0,)), exam)
    (row,) = found["in_place"]
    assert row["asked"][RECORDED]["by_kind"]["jobs"]["mean"] == 1
    assert row["kept"][RECORDED]["by_kind"]["jobs"]["mean"] == 0
    assert found["trained"] and found["kind"] == "textual" and found["label"] == "bm25"
    assert found["memory"]["peak_resident_bytes"] >= found["memory"]["resident_before_bytes"] > 0


@pytest.fixture(scope="module")
def model(folder: Callable[..., Path]) -> Path:
    return folder("c16", "e2e")


@pytest.fixture(scope="module")
def made(model: Path, recorded: Path) -> dict[str, Any]:
    """A comparison of a latent compressor, two textual ones and one on random weights."""
    texts = [f"value {n} is w{n}x\nrest of it" for n in range(3)]
    outputs = [
        Output("env", text, (Probe("What is it?", f"w{n}x", "identifier", 8, 11),))
        for n, text in enumerate(texts)
    ]
    own = sets.ProbeSet("own", tuple(outputs))
    steps: list[tuple[int, int, str]] = []
    extent = Extent(recorded, rates=(2, 4), longest=2000, max_tokens=2)
    names = [str(model), "verbatim", "bm25"]
    result = comparison.compare(names, [own], extent, progress=lambda *step: steps.append(step))
    assert {"bm25: shortening", f"{model.name}: answering"} <= {what for _, _, what in steps}
    return result


def test_all_sit_the_same_exam(made: dict[str, Any], model: Path) -> None:
    latent, verbatim, bm25 = made["compressors"]  # in the order in which they were named
    assert [each["label"] for each in made["compressors"]] == [model.name, "verbatim", "bm25"]
    assert list(made["sets"]) == ["own", RECORDED]
    assert made["sets"][RECORDED]["too_long"] == 1
    for each in made["compressors"]:
        for row in each["in_place"]:
            assert row["kept"]["own"]["clear"]["questions"] == 3
            assert row["kept"][RECORDED]["all"]["questions"] == 3
    assert {rival["name"] for rival in latent["at_its_positions"]} == {"verbatim", "bm25"}
    assert verbatim["in_place"][0]["kept"]["own"]["clear"]["mean"] == 1
    assert bm25["in_place"][0]["over_budget"] == 0
    assert latent["in_place"][0]["kept"]["own"]["clear"]["mean"] == 0  # random weights know nothing
    assert latent["stored_bytes_per_text_byte"] > 0
    assert set(latent["asked"]) == {"ask, k = 1", "ask, k = 5"}


def test_positions_are_counted_as_the_decoder_reads_them(made: dict[str, Any]) -> None:
    latent, *_ = made["compressors"]
    rate = latent["in_place"][0]["rate"]["own"]
    text = "value 0 is w0x\nrest of it"
    assert rate <= len(ESTIMATE.encode(text))  # a chunk takes one position and more
    (rival,) = (each for each in latent["at_its_positions"] if each["name"] == "bm25")
    assert rival["over_budget"] == 0
    assert rival["rate"]["own"] >= rate  # it may need less than it is given, never more
    assert rival["read"]["own"]["clear"]["questions"] == 3


def test_each_has_a_process_of_its_own(made: dict[str, Any]) -> None:
    latent, verbatim, bm25 = (each["memory"] for each in made["compressors"])
    assert latent["peak_array_bytes"] >= latent["array_bytes"] > 0
    assert "peak_array_bytes" not in bm25  # no MLX was needed
    assert verbatim["peak_resident_bytes"] < latent["peak_resident_bytes"]


def test_the_report_is_one_table_one_plot_and_readable(
    made: dict[str, Any], model: Path, tmp_path: Path, cli: Run
) -> None:
    files = comparison_report.write(made, tmp_path, html=True)
    assert [file.name for file in files] == [
        f"compressors.{end}" for end in ("json", "html", "svg")
    ]
    ElementTree.fromstring(files[2].read_text())
    assert comparison_report.read(files[0]) == json.loads(json.dumps(made))
    printed = cli("evaluate", "--markdown", files[0]).stdout
    assert printed == comparison_report.to_markdown(made)
    for part in (
        f"| {model.name}: its answer | positions of {model.name} |",
        f"| bm25, asked | positions of {model.name} |",
        "| verbatim | none | 1.0 | 100.0 (43.9 to 100.0) |",
        "| bm25 | 1/4 of the tokens |",
        "own, 3 of 3 questions",
        "recorded, 1 of 3 questions",
    ):
        assert part in printed
    page = files[1].read_text()
    assert "<svg" in page and "Compressors side by side" in page and "<script" not in page
    hostile = json.loads(json.dumps(made).replace('"verbatim"', '"<b>\\ud800$x^"'))
    assert "<b>" not in comparison_report.page(hostile)


def test_the_command(cli: Run, recorded: Path, tmp_path: Path) -> None:
    named = ("--compressor", "verbatim", "-c", "head-tail", "--recorded", recorded)
    few = ("--sets", "", "--rates", "2")
    printed = cli("evaluate", *named, *few, "--to", tmp_path, "--json").stdout
    result = json.loads(printed)
    assert result == comparison_report.read(tmp_path / "compressors.json")
    assert result["extent"]["rates"] == [2.0]
    assert sys.executable not in printed and str(recorded.parent) not in printed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("-c", "nonesuch"), "nonesuch"),
        (("-c", "bm25", "-c", "bm25"), "named twice"),
        (("-c", "bm25", "--recorded", "missing.jsonl"), "missing.jsonl: No such file"),
        (("-c", "bm25", "--tokenizer", "nowhere"), "give a folder with tokenizer.json"),
    ],
)
def test_wrong_arguments(cli: Run, tmp_path: Path, wrong: tuple[str, ...], message: str) -> None:
    few = ("--sets", "brief", "--documents", 1, "--no-html", "--to", tmp_path / "out")
    failed = cli("evaluate", *wrong, *few, ok=False)
    assert failed.exit_code == 1 and message in failed.stderr
    assert not (tmp_path / "out").exists()
    assert cli("evaluate", "-c", "bm25", "--rates", "0.5", ok=False).exit_code == 2


@pytest.mark.parametrize(
    "line", ["[1]", "{", '{"text": "a", "questions": [{"question": "?", "answer": "b"}]}']
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "outputs.jsonl"
    file.write_text('{"text": "a", "questions": [{"question": "?", "answer": "a"}]}\n' + line)
    with pytest.raises(ClaraError, match=r"outputs\.jsonl:2: not a recorded output"):
        Exam().add_recorded(file)


def test_untrained_weights_are_timed_and_never_judged(model: Path, exam: Exam) -> None:
    found = measure(Contender(str(model), trained=False, max_tokens=1), exam)
    assert found["trained"] is False and found["asked"] == {}
    assert found["compress"]["runs"] and found["stored_bytes_per_text_byte"] > 0
    assert found["in_place"][0]["kept"][RECORDED]["all"] is None
    (costs,) = comparison_report.grids(
        {"compressors": [found], "sets": exam.describe(), "extent": {"rates": []}}
    )
    assert "random weights" in costs.rows[0][0]


def test_a_compressor_without_its_model_is_named() -> None:
    with pytest.raises(ClaraError, match=r"clara needs a model.*--compressor FOLDER"):
        contender.open_compressor("clara")


def test_the_reasoners_tokenizer_counts(golden: Path) -> None:
    tokens = contender.tokens_of(str(golden / "tiny-base"))
    assert len(tokens.encode(TEXT)) != len(ESTIMATE.encode(TEXT))
