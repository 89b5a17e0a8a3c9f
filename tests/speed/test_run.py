"""All parts of a bench on the tiny golden model, and what is said of a part that can't be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import look_at_both
from sizes import sized

import clara_mlx
from clara_mlx.errors import ClaraError
from clara_mlx.speed import report, through_gateway
from clara_mlx.speed.comparing import compare
from clara_mlx.speed.grids import grids
from clara_mlx.speed.run import FORMAT, measure
from clara_mlx.speed.settings import PARTS, QUICK, choose_parts
from clara_mlx.speed.texts import Texts

SMALL = replace(
    QUICK,
    lengths=(16, 64, 999),
    batches=(1, 3),
    repeats=2,
    most_seconds=0.05,
    answer_tokens=3,
    documents=(1, 64),
    outputs=2,
    stores=(20, 40),
    requests=10,
    # Two servers take seconds to start; the others need no process but one that loads the model.
    parts=sized(choose_parts([], ["gateway"]), tuple(PARTS)),
)


@pytest.fixture(scope="module")
def result(folder: Callable[..., Path]) -> dict[str, Any]:
    """A whole bench, in the nightly run of a quantised folder, too: that is slow on a CPU."""
    seen: list[tuple[int, int, str]] = []
    models = [folder("c16", "e2e"), *sized([], [folder("c16", "e2e", "-q", "8")])]
    found = measure(models, SMALL, lambda done, total, what="": seen.append((done, total, what)))
    done = [one for one, _, _ in seen]
    assert done == sorted(done) and len({total for _, total, _ in seen}) == 1
    assert any("mlx-lm" in what for _, _, what in seen)
    return found


def test_every_part_is_measured(result: dict[str, Any]) -> None:
    assert result["format"] == FORMAT and result["settings"]["parts"] == SMALL.parts
    load = result["load"]
    assert load["array_bytes"] < load["array_bytes_with_adapters"] <= load["peak_array_bytes"]
    assert 1e7 < load["resident_bytes"] <= load["peak_resident_bytes"]
    for other in result["others"]:
        assert other["quantization"]["bits"] == 8
        assert other["load"]["array_bytes"] < load["array_bytes"] / 2
    assert [(row["chunk_tokens"], row["batch"]) for row in result["compress"]] == [
        (16, 1), (16, 3), (64, 1), (64, 3),
    ]  # fmt: skip
    assert result["query"]["tokens"] > 3
    assert result["left_out_lengths"] == [999]
    for row in result["gateway"] or []:
        assert row["added"]["runs"] == 9 and row["gateway"]["seconds"] > 0
    assert {row["mode"] for row in result["retrieval"]} == {"hybrid", "latent", "text"}
    assert {row["chunks"] for row in result["retrieval"]} == {20, 40}
    assert {row["mode"] for row in result["memory_file"]["remember_to_recall"]} == {
        "text",
        "latent",
    }
    for timed in (load, *result["compress"], result["query"], *result["retrieval"]):
        assert timed["runs"] == len(timed["all_seconds"]) >= 1
        assert min(timed["all_seconds"]) <= timed["seconds"] <= timed["p95_seconds"]


def test_answers_are_measured_beside_the_same_text(result: dict[str, Any]) -> None:
    row, long = result["answer"]
    assert row["tokens"] == row["text"]["tokens"] == 3
    assert row["text"]["positions"] > row["positions"]
    first, of_text = row["first_token_seconds"], row["text"]["first_token_seconds"]
    assert row["text_over_memories"] == pytest.approx(of_text / first)
    assert "first_token_seconds" in long and "first_token_seconds" not in long["text"]
    notes = [one["because"] for one in result["not_measured"]]
    assert any("64 the same documents as text: 4," in note for note in notes)
    assert any("999 tokens exceed this model's chunks of 64" in note for note in notes)


def test_mlx_lm_runs_the_same_base(result: dict[str, Any]) -> None:
    for model in (result, *result["others"]):
        alone, together = model["mlx_lm"]["prefill"]
        assert (alone["batch"], together["batch"]) == (1, 8)
        assert alone["mlx-lm"]["positions"] == alone["mlx-lm"]["tokens"] == 64
        assert alone["clara"]["positions"] == 64 + 3 + 4  # its layout and memory tokens
        decode = model["mlx_lm"]["decode"]
        assert decode["clara"]["tokens"] == decode["mlx-lm"]["tokens"] == 3


def test_the_limit_has_every_linear_and_every_pass(result: dict[str, Any]) -> None:
    found = result["limits"]
    linears = {name for row in found["products"] for name in row["linears"]}
    assert linears == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    }
    assert found["flops"] == max(row["flops"] for row in found["products"]) > 1e6
    for other in result["others"]:
        assert {row["kind"] for row in other["limits"]["products"]} == {"8 bits"}
    assert {row["way"] for row in found["bandwidth"]} == {
        *("a product with a vector", "a sum", "a copy")
    }
    passes = [row["pass"] for row in result["passes"]]
    assert passes[0] == "encode 1 x 16 tokens" and "first token, 1 document as text" in passes
    assert "a token of the answer, 64 memories" in passes
    assert [one["word"] for one in result["targets"]][2] == "yes"  # loaded in 8 GB


def test_the_report_in_a_browser(result: dict[str, Any], tmp_path: Path) -> None:
    result = result | {"model": f"models/{'a-name-without-any-blank-' * 2}", "busy": ["it rained"]}
    report.write(result, tmp_path)
    page, text = (tmp_path / "bench.html").read_text(), (tmp_path / "bench.md").read_text()
    for grid in grids(result):
        for row in grid.rows:
            assert f"<td>{row[-1]}</td>" in page and f"| {row[-1]} |" in text
    for verdict in result["verdicts"] + result["targets"]:
        assert f"<strong>{verdict['question']}</strong>" in page
        assert f"- {verdict['question']} **{verdict['word']}**" in text
    assert "computed, not measured" in page and "computed from published rates, not" in text
    assert page.count("it rained") == 2 and "Take the figures with care: it rained." in text
    assert page.count("<svg") == (8 if result["gateway"] else 7)
    look_at_both(tmp_path / "bench.html")


def test_a_bench_compared_with_itself(result: dict[str, Any]) -> None:
    found = compare(result, result)
    words = {one["word"] for one in found["differences"]}
    assert words <= {"within the noise", "same", "too few runs"}
    names = [one["name"] for one in found["differences"]]
    assert "compress 3 x 64 tokens" in names
    assert ("compress 3 x 64 tokens (8 bits)" in names) is bool(result["others"])
    assert not found["only_in_a"] + found["only_in_b"]


def test_what_is_not_there_is_said(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(through_gateway, "find_spec", lambda name: None)
    monkeypatch.setattr("clara_mlx.speed.beside_mlx_lm._MOST_OF_FREE", 0.0)
    some = replace(SMALL, parts=choose_parts(["gateway", "mlx-lm"], []))
    result = measure([folder("c16", "e2e")], some)
    assert result["gateway"] is None and result["mlx_lm"] is None and result["compress"] is None
    said = {one["part"]: one["because"] for one in result["not_measured"] if one["part"] in PARTS}
    assert "pip install 'clara-mlx[serve]'" in said["gateway"]
    assert "a copy of the base of its own" in said["mlx-lm"]
    assert "compressing was not measured" in report.to_markdown(result)
    assert "Not measured (gateway)" in report.to_markdown(result)


def test_parts_are_chosen_by_name() -> None:
    assert choose_parts([], ["gateway"]) == tuple(name for name in PARTS if name != "gateway")
    assert choose_parts(["query", "load"], []) == ("load", "query")
    with pytest.raises(ClaraError, match=r"no part 'none'.*load, limits"):
        choose_parts(["none"], [])
    with pytest.raises(ClaraError, match="no part is left"):
        choose_parts(["load"], ["load"])


def test_texts_have_the_tokens_that_were_asked_for(
    clara: Callable[..., clara_mlx.Clara],
) -> None:
    tokenizer = clara("c16", "e2e").tokenizer
    texts = Texts(tokenizer)
    made = [texts.of(tokens, number) for tokens in (1, 16, 63, 256) for number in (0, 5)]
    assert [count for _, count in made] == [1, 1, 16, 16, 63, 63, 256, 256]
    assert all(len(tokenizer.encode(text)) == count for text, count in made)
    assert len({text for text, _ in made}) >= 7
