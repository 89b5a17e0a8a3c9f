"""`clara-mlx evaluate` from end to end: known answers, the same numbers again, valid files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import clara_mlx
from clara_mlx.errors import ClaraError
from clara_mlx.evaluate import report, run, sets, tables, verdicts
from clara_mlx.evaluate.answer_cache import AnswerCache
from clara_mlx.evaluate.probes.probe import Output, Probe, ProbeError
from clara_mlx.evaluate.retention import METHODS, Reader, compare
from clara_mlx.evaluate.run import Settings
from clara_mlx.model import chunking

Run = Callable[..., Any]

#: As few as there can be.
SMALL = Settings(sets=("own",), per_tool=1, chunks=12, queries=3, max_tokens=4)
TOKENS = SMALL.max_tokens


@pytest.fixture(scope="module")
def probes(clara: Callable[..., clara_mlx.Clara], tmp_path_factory: Any) -> Path:
    """Probes whose expected answers are what the model says from latents, and one it gets wrong."""
    model = clara("c16", "e2e")
    lines = []
    for number, output in enumerate(sets.generate_set("held-out", 5, 1).outputs[:8]):
        limit = model.config.doc_max_length
        text = output.text[: next(chunking.split(output.text, model.tokenizer, limit)).end]
        question = output.probes[0].question
        answer = model.answer(question, model.encode(text), TOKENS).strip()
        try:
            Probe("?", answer, "message", 0, 1)
        except ProbeError:
            continue
        lines.append(
            {
                "document": text,
                "question": question,
                "answer": answer,
                "tool": "right" if number % 3 else "left",
                "start": 0,
                "end": 1,
            }
        )
    assert len(lines) > 4
    lines.append(lines[0] | {"question": "And what else?", "answer": "never said", "tool": "wrong"})
    file = tmp_path_factory.mktemp("probes") / "own.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def made(
    folder: Callable[..., Path], probes: Path, tmp_path_factory: Any
) -> tuple[Path, dict[str, Any]]:
    """A report of two models, and where it is."""
    to = tmp_path_factory.mktemp("evaluation")
    models = [folder("c16", "e2e"), folder("c16", "e2e", "-q", "8")]
    made = run.evaluate(models, to, replace(SMALL, probes=probes))
    report.write(made, to, html=True)
    return to, made


def shares(made: dict[str, Any], method: str, model: int = 0) -> dict[str, Any]:
    found = tables.find_retention(made, made["models"][model]["name"], "own", method)
    assert found is not None
    return found


def test_known_answers_are_all_retained(made: tuple[Path, dict[str, Any]]) -> None:
    _, result = made
    latents = shares(result, "latents")
    known = latents["all"]["probes"] - 1
    assert latents["all"]["exact"]["mean"] == pytest.approx(known / (known + 1))
    assert latents["by"]["tool"]["right"]["exact"]["mean"] == 1
    assert latents["by"]["tool"]["wrong"]["exact"] == {"mean": 0.0, "low": None, "high": None}
    # float16 keeps what float32 said; the question alone does not.
    assert shares(result, "latents fp16")["all"] == latents["all"]
    assert shares(result, "nothing")["all"]["exact"]["mean"] < known / (known + 1)
    for dimension in tables.DIMENSIONS:
        groups = latents["by"][dimension].values()
        assert sum(group["probes"] for group in groups) == known + 1


def test_positions_are_counted(made: tuple[Path, dict[str, Any]]) -> None:
    _, result = made
    size = result["models"][0]["memory_tokens"] + 1
    for method in METHODS:
        positions = shares(result, method)["positions"]
        if method.startswith("latents"):
            assert positions == size
        elif method in ("head", "tail", "bm25"):
            assert 0 < positions <= size
    assert shares(result, "nothing")["positions"] == 0
    assert shares(result, "text")["positions"] > size


def test_differences_are_paired(made: tuple[Path, dict[str, Any]]) -> None:
    _, result = made
    first, second = (model["name"] for model in result["models"])
    found = {
        (d["of"]["model"], d["of"]["method"], d["minus"]["model"], d["minus"]["method"]): d
        for d in result["differences"]
        if d["set"] == "own"
    }
    gap = found[first, "latents", first, "text"]["exact"]
    latents, text = (shares(result, m)["all"]["exact"]["mean"] for m in ("latents", "text"))
    assert gap["mean"] == pytest.approx(latents - text)
    assert gap["low"] <= gap["mean"] <= gap["high"]
    assert found[first, "latents fp16", first, "latents"]["exact"]["mean"] == 0
    assert (second, "latents", first, "latents") in found
    assert (second, "text", first, "text") in found


def test_what_made_it_is_in_it(made: tuple[Path, dict[str, Any]]) -> None:
    _, result = made
    bf16, q8 = result["models"]
    assert bf16["sha256"] != q8["sha256"]
    assert bf16["quantization"] is None
    assert q8["quantization"]["bits"] == 8
    assert result["settings"]["seed"] == 0
    assert re.fullmatch("[0-9a-f]{64}", result["sets"]["own"]["sha256"])
    assert {"machine", "libraries", "definitions", "seconds"} <= result.keys()
    assert result["memory"]["chunks"] >= SMALL.chunks


def test_the_same_again_without_asking_again(
    made: tuple[Path, dict[str, Any]], folder: Callable[..., Path], probes: Path, tmp_path: Path
) -> None:
    to, result = made
    lines = (to / "answers.jsonl").read_text()
    # As a killed run leaves it: the last lines are missing, and one is not whole.
    (tmp_path / "answers.jsonl").write_text(lines[: len(lines) // 2])
    models = [folder("c16", "e2e"), folder("c16", "e2e", "-q", "8")]
    again = run.evaluate(models, tmp_path, replace(SMALL, probes=probes))
    for part in ("models", "sets", "retention", "differences", "memory", "definitions"):
        assert again[part] == result[part], part
    assert again["answers_reused"] > result["answers_reused"]
    kept = [json.loads(line) for line in lines.splitlines() if line.strip()]
    assert {"key", "model", "set", "method", "question", "expected", "answer"} <= kept[0].keys()


class _Page(HTMLParser):
    """Open tags and what the page would load."""

    void = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.loads.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(made: tuple[Path, dict[str, Any]]) -> None:
    to, result = made
    text = (to / "report.html").read_text()
    page = _Page()
    page.feed(text)
    page.close()
    assert not page.open
    assert not page.loads
    assert "script" not in page.seen
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 2 + len(result["sets"])
    for svg in svgs:
        ElementTree.fromstring(svg)
    for grid in tables.main_grids(result):
        for row in grid.rows:
            assert f"<td>{row[-1]}</td>" in text
    assert report.page(json.loads((to / "report.json").read_text())) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("</svg><b title='\"'>", "&lt;/svg&gt;"),
        ("$x^{$", "$x^{$"),  # no formula for matplotlib
        ("\ud800 \x00", "\ufffd \ufffd"),
    ],
)
def test_a_hostile_name_is_only_text_on_the_page(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, shown: str
) -> None:
    _, result = made
    result = json.loads(json.dumps(result).replace('"right"', json.dumps(name)))
    result["models"][0]["dtype"] = result["sets"]["own"]["what"] = name
    report.write(result, tmp_path, html=True)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    page.close()
    assert not page.open
    assert not {"script", "b"} & set(page.seen)
    assert f"<td>{shown}" in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "\ufffd" in name or ElementTree.fromstring(svg) is not None
    assert report.read(tmp_path / "report.json") == result


def test_markdown_is_made_from_the_json(made: tuple[Path, dict[str, Any]], cli: Run) -> None:
    to, result = made
    printed = cli("evaluate", "--markdown", to / "report.json").stdout
    assert printed == report.to_markdown(result)
    exact = shares(result, "latents")["all"]["exact"]
    row = next(line for line in printed.splitlines() if line.startswith("| latents |"))
    low, high = 100 * exact["low"], 100 * exact["high"]
    assert f"{100 * exact['mean']:.1f} ({low:.1f} to {high:.1f})" in row
    for table in printed.split("\n\n"):
        columns = {line.count(" | ") for line in table.splitlines() if line.startswith("|")}
        assert len(columns) <= 1


def test_the_command(
    cli: Run,
    folder: Callable[..., Path],
    probes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "QUICK", replace(SMALL, most=1))
    arguments = ("evaluate", folder("c16", "e2e"), "--probes", probes, "--quick")
    few = ("--queries", 1, "--max-tokens", 1)
    printed = cli(*arguments, *few, "--sets", "own", "--to", tmp_path / "own").stdout
    result = json.loads((tmp_path / "own" / "report.json").read_text())
    assert tables.percent(shares(result, "latents")["all"]["exact"]) in printed
    assert printed.rindex("wrote ") < printed.index("Is the context shorter by 50%?")
    assert list(result["sets"]) == ["own"]
    assert (tmp_path / "own" / "report.html").exists()

    every = (*arguments, *few, "--no-html", "--json", "--to", tmp_path / "all")
    result = json.loads(cli(*every).stdout)
    assert result == json.loads((tmp_path / "all" / "report.json").read_text())
    assert list(result["sets"]) == ["brief", "held-out", "long", "left-out", "captured", "own"]
    assert all(described["documents"] == 1 for described in result["sets"].values())
    assert 0 < result["memory"]["queries"] <= 6
    assert not (tmp_path / "all" / "report.html").exists()


def test_it_ends_with_verdicts(made: tuple[Path, dict[str, Any]], cli: Run) -> None:
    to, result = made
    questions = [verdict["question"] for verdict in result["verdicts"]]
    assert result["verdicts"] == [asdict(one) for one in verdicts.of_evaluation(result)]
    kept = next(pair["kept"] for pair in result["differences"] if pair["minus"]["method"] == "text")
    assert kept is None or kept["low"] <= kept["mean"] <= kept["high"]
    printed = cli("evaluate", "--markdown", to / "report.json").stdout
    listed = [line.split(" **")[0] for line in printed.splitlines() if line.startswith("- ")]
    assert listed == [f"- {question}" for question in questions]
    text = (to / "report.html").read_text()
    places = [text.index(f"<strong>{question}</strong>") for question in questions]
    assert places == sorted(places) and places[-1] < text.index("<svg") < text.index("<table")


def test_wrong_arguments(
    cli: Run, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder("c16", "e2e")
    assert cli("evaluate", ok=False).exit_code == 2
    for wrong, message in (
        (("--sets", "held-in"), "no set 'held-in'"),
        (("--sets", "own"), "needs --probes"),
        (("--sets", ""), "choose from"),
        (("--probes", tmp_path / "missing"), "No such file"),
        ((model,), "named twice"),
        ((tmp_path / "no-model",), "no-model"),
    ):
        few = ("--documents", 1, "--to", tmp_path / "out")
        failed = cli("evaluate", model, *wrong, *few, ok=False)
        assert failed.exit_code == 1, wrong
        assert message in failed.stderr
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    failed = cli("evaluate", model, "--to", tmp_path / "out", ok=False)
    assert "pip install 'clara-mlx[evaluate]'" in failed.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": true}', '{"format": 99, "retention": []}']
)
def test_what_is_not_a_report_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(content)
    with pytest.raises(ClaraError, match=r"report\.json: (not a report|format 99)"):
        report.read(file)


def test_equal_readings_are_answered_once(
    clara: Callable[..., clara_mlx.Clara], tmp_path: Path
) -> None:
    text = "a = 1"
    output = Output("env", text, (Probe("What is a?", "1", "number", 4, 5),))
    other = Output("env", "a = 2", (Probe("What is a?", "2", "number", 4, 5),))
    probes = sets.ProbeSet("own", (output, other))
    cache = AnswerCache(tmp_path / "answers.jsonl")
    reader = Reader("m", clara("c16", "e2e"), probes)
    nothing = reader.ask("nothing", cache, 3)
    assert nothing.answers[0] == nothing.answers[1]
    lines = (tmp_path / "answers.jsonl").read_text().split()
    assert len([line for line in lines if "key" in line]) == 1
    text_outcomes = reader.ask("text", cache, 3)
    (gap,) = {compare(nothing, text_outcomes)["exact"]["mean"]}
    assert gap == nothing.scores()["exact"].mean() - text_outcomes.scores()["exact"].mean()
