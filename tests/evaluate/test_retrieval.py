"""Queries that mean one document, and what a real memory finds and answers for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clara_mlx import Clara, Memory
from clara_mlx.evaluate import retrieval, sets
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.evaluate.queries import Composer, compose, names_in
from clara_mlx.evaluate.retrieval import Haystack
from clara_mlx.memory.asking import NOTHING_FOUND


def probe(question: str, text: str, answer: str) -> Probe:
    start = text.index(answer)
    return Probe(question, answer, "identifier", start, start + len(answer))


def test_names_in_a_text() -> None:
    text = "FAILED tests/test_io.py::test_load - OSError: no /var/x, 12ab _abc a-b c.d. Ünder"
    assert names_in(text) == {
        "FAILED",
        "tests/test_io.py",
        "test_load",
        "OSError",
        "var/x",
        "_abc",
        "nder",
    }


def no_progress(done: int, total: int, what: str = "", /) -> None:
    pass


TEXTS = (
    "FAILED tests/test_io.py::test_load - OSError\n1 failed",
    "FAILED tests/test_web.py::test_get - OSError\n1 failed",
    "1 failed",
)
OUTPUTS = [Output("pytest", text, ()) for text in TEXTS]


def test_a_question_that_names_something_of_its_own_stays(tmp_path: Path) -> None:
    composer = Composer(OUTPUTS, 0)
    asked = probe("Which file has test_load?", TEXTS[0], "tests/test_io.py")
    query = composer.query(0, asked, TEXTS[0])
    assert query == ("named", asked.question)


def test_a_question_that_could_mean_several_is_composed() -> None:
    composer = Composer(OUTPUTS, 0)
    # "FAILED" and "OSError" stand in two documents, so they can't be the name.
    asked = probe("Which exception?", TEXTS[0], "OSError")
    query = composer.query(0, asked, TEXTS[0])
    assert query is not None
    form, text = query
    possible = {compose(asked.question, "pytest", n) for n in ("tests/test_io.py", "test_load")}
    assert form == "composed"
    assert text in possible
    assert composer.query(0, asked, TEXTS[0]) == query
    # The answer is never given away.
    asked = probe("Which test failed?", TEXTS[0], "test_load")
    assert composer.query(0, asked, TEXTS[0]) == (
        "composed",
        compose(asked.question, "pytest", "tests/test_io.py"),
    )
    # Nothing tells the last document from the others.
    assert composer.query(2, probe("How many failed?", TEXTS[2], "1"), TEXTS[2]) is None


def test_rank_of_the_relevant_chunk(clara: Callable[..., Clara], tmp_path: Path) -> None:
    model = clara("c16", "e2e")
    filler = "\n".join(f"tests/test_{i}.py passed in {i} ms" for i in range(30))
    text = f"{filler}\nFAILED tests/test_io.py::test_load_of_csv - OSError\n{filler[::-1]}"
    output = Output(
        "pytest", text, (probe("Which exception did test_load_of_csv raise?", text, "OSError"),)
    )
    haystack = Haystack([sets.ProbeSet("own", (output,))], model, 1, 5, 0)
    (asked,) = haystack.queries
    assert asked.form == "named"
    with Memory.open(tmp_path / "m.db", model, compress=False) as memory:
        handle = memory.remember(text)
        hits = memory.recall(asked.text, 10, mode="text")
    ranks = [retrieval.rank_of_relevant(asked, hits[i:], {handle: 0}) for i in range(len(hits))]
    right = next(i for i, hit in enumerate(hits) if "OSError" in hit.text)
    assert [hits[right].start, hits[right].end] == list(asked.relevant[0])
    assert ranks[: right + 1] == list(range(right + 1, 0, -1))
    assert set(ranks[right + 1 :]) <= {float("inf")}
    assert retrieval.rank_of_relevant(asked, hits, {handle: 1}) == float("inf")


@pytest.fixture(scope="module")
def measured(
    clara: Callable[..., Clara], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Haystack, dict[str, Any]]:
    model = clara("c16", "e2e")
    asked = [sets.generate_set("held-out", 3, 1), sets.generate_set("left-out", 3, 4)]
    haystack = Haystack(asked, model, 120, 6, 3)
    file = tmp_path_factory.mktemp("memory") / "m.db"
    figures = retrieval.measure(haystack, model, file, max_tokens=3, progress=no_progress)
    return haystack, figures


def test_everything_is_in_the_memory(measured: tuple[Haystack, dict[str, Any]]) -> None:
    haystack, figures = measured
    assert figures["chunks"] == figures["compressed"] == haystack.chunks >= 120
    assert figures["documents"] == len(haystack.outputs) == len({o.text for o in haystack.outputs})
    assert figures["queries"] == len(haystack.queries) == 12
    assert {one.set for one in haystack.queries} == {"held-out", "left-out"}


def test_recall_grows_with_depth_and_words_find_names(
    measured: tuple[Haystack, dict[str, Any]],
) -> None:
    _, figures = measured
    for way, found in figures["recall"].items():
        means = [found["all"][str(depth)]["mean"] for depth in retrieval.DEPTHS]
        assert means == sorted(means), way
        assert sum(share["queries"] for share in found["by"]["form"].values()) == 12
    # Each query has a name that no other document has, so words must find it.
    assert figures["recall"]["text"]["all"]["10"]["mean"] >= 0.9
    assert set(figures["recall"]) == {"latent", "text", "hybrid"}


def test_answers_come_from_the_memory(
    measured: tuple[Haystack, dict[str, Any]], clara: Callable[..., Clara]
) -> None:
    haystack, figures = measured
    model = clara("c16", "e2e")
    assert set(figures["answers"]) == {"the right chunk", "ask, k = 1", "ask, k = 5"}
    for answers in figures["answers"].values():
        assert answers["all"]["queries"] == 12
    given = retrieval.answer_from_relevant_chunks(haystack, model, 3, no_progress)
    for one, answer in list(zip(haystack.queries, given, strict=True))[:4]:
        text = haystack.outputs[one.document].text
        latents = model.encode([text[start:end] for start, end in one.relevant])
        assert answer == model.answer(one.text, latents, 3)


def test_shares_by_hand() -> None:
    asked = probe("Which test_load?", TEXTS[0], "OSError")
    one = retrieval.Query("own", 0, "pytest", asked, "named", asked.question, ((0, 9),))
    recalls = retrieval.recall_shares([one] * 4, [1, 3, 7, float("inf")])
    assert [recalls["all"][depth]["mean"] for depth in ("1", "5", "10")] == [0.25, 0.5, 0.75]
    answers = retrieval.answer_shares([one] * 4, ["OSError.", "ValueError", NOTHING_FOUND, ""])
    assert answers["all"]["exact"]["mean"] == 0.25
    assert answers["all"]["nothing_found"]["mean"] == 0.25
