"""Which chunks hold a probe's evidence, and how a case is described."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from clara_mlx import Clara
from clara_mlx.evaluate import cases as module
from clara_mlx.evaluate.cases import MOST_CHUNKS, PLACES, THIRDS, find_cases
from clara_mlx.evaluate.corpus import generate
from clara_mlx.evaluate.metrics import in_report_order
from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.model import chunking


def probe(text: str, evidence: str) -> Probe:
    start = text.index(evidence)
    return Probe(f"What about {evidence}?", "x", "number", start, start + len(evidence))


def test_thirds_and_places(clara: Callable[..., Clara]) -> None:
    model = clara("c16", "e2e")
    text = "\n".join(f"line{i:03d} {i * 37} passed" for i in range(40))
    chunks = list(chunking.split(text, model.tokenizer, model.config.doc_max_length))
    assert len(chunks) > 3
    wanted = []
    for number, chunk in enumerate(chunks[:3]):
        lines = text[chunk.start : chunk.end].split("\n")
        place = "first chunk" if number == 0 else "middle chunk"
        wanted += [(lines[0], "first third", place), (lines[-2], "last third", place)]
        wanted.append((lines[len(lines) // 2 - 1], "middle third", place))
    wanted.append((text.split("\n")[-1], "last third", "last chunk"))
    across = text[chunks[0].end - 12 : chunks[0].end + 12]
    wanted.append((across, "across chunks", "across chunks"))
    output = Output("pytest", text, tuple(probe(text, evidence) for evidence, _, _ in wanted))
    made = find_cases([output], model.config, model.tokenizer)
    assert [(case.third, case.place) for case in made] == [(t, p) for _, t, p in wanted]
    for case, (evidence, _, _) in zip(made, wanted, strict=True):
        assert evidence in text[case.span]
    *_, last = made
    assert last.chunks == tuple(chunks[:2])
    assert last.positions == 2 * (model.config.memory_tokens + 1)


def test_the_only_chunk_and_its_ratio(clara: Callable[..., Clara]) -> None:
    model = clara("c16", "e2e")
    text = "a = 1\nb = 2"
    (case,) = find_cases([Output("env", text, (probe(text, "2"),))], model.config, model.tokenizer)
    tokens = len(model.tokenizer.encode(text))
    low, high = case.ratio.removesuffix("x").split(" to ")
    assert int(low) < tokens / model.config.memory_tokens <= int(high)
    assert case.groups() == {
        "tool": "env",
        "ratio": case.ratio,
        "third": "last third",
        "place": "only chunk",
        "kind": "number",
    }


def test_evidence_in_too_many_chunks_is_left_out(clara: Callable[..., Clara]) -> None:
    model = clara("c16", "e2e")
    text = "\n".join(f"line{i:03d} {i * 37} passed" for i in range(60))
    assert len(list(chunking.split(text, model.tokenizer, 64))) > MOST_CHUNKS
    whole = Probe("How many lines?", "60", "number", 0, len(text))
    output = Output("ls", text, (whole, probe(text, "line001")))
    assert [case.probe for case in find_cases([output], model.config, model.tokenizer)] == [
        output.probes[1]
    ]


def test_generated_outputs_have_evidence_in_their_cases(clara: Callable[..., Clara]) -> None:
    model = clara("c16", "e2e")
    outputs = [generate(random.Random(i), "pytest", "test", size="long") for i in range(4)]
    for case in find_cases(outputs, model.config, model.tokenizer):
        text, evidence = outputs[case.document].text, case.probe
        assert case.span.start <= evidence.start
        assert evidence.end <= case.span.stop
        assert (len(case.chunks) > 1) == (case.third == "across chunks")
        assert text[case.span].strip()


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.1, "0 to 2x"), (2, "0 to 2x"), (15.9, "12 to 16x"), (16, "12 to 16x"), (300, "over 256x")],
)
def test_ratio_ranges(ratio: float, expected: str) -> None:
    assert module._ratio_range(ratio) == expected


def test_groups_come_in_report_order() -> None:
    assert in_report_order("third", set(THIRDS)) == list(THIRDS)
    assert in_report_order("place", set(PLACES)) == list(PLACES)
    ratios = {"over 256x", "12 to 16x", "2 to 4x", "0 to 2x"}
    assert in_report_order("ratio", ratios) == ["0 to 2x", "2 to 4x", "12 to 16x", "over 256x"]
    assert in_report_order("tool", {"b", "a"}) == ["a", "b"]
