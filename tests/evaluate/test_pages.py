"""The pages of the reports in a real Chromium: on a phone and a screen, light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import chromium, overflow, serious

from clara_mlx.evaluate import report, speed_report
from clara_mlx.evaluate.verdicts import of_bench

if TYPE_CHECKING:
    from playwright.sync_api import Page

RESULTS = Path(__file__).parents[2] / "bench" / "results"

#: A name as long as users' sets, tools and models may be.
LONG = "a-name-without-any-blank-" * 2


def evaluation() -> dict[str, Any]:
    text = (RESULTS / "evaluation_nano.json").read_text()
    return dict(json.loads(text.replace('"pytest"', json.dumps(LONG))))


def bench() -> dict[str, Any]:
    def timed(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "p95_seconds": 2 * seconds}

    def compressed(tokens: int, batch: int) -> dict[str, float]:
        seconds = 2e-3 * tokens
        return {
            "asked_tokens": tokens,
            "chunk_tokens": tokens - tokens % 3,
            "batch": batch,
            "seconds": seconds * batch,
            "seconds_per_chunk": seconds,
            "tokens_per_second": 500.0,
            "share_of_matmul_peak": 0.5,
        }

    result: dict[str, Any] = {
        "model": f"models/{LONG}",
        "fingerprint": "0" * 64,
        "machine": evaluation()["machine"],
        "compute_dtype": "bfloat16",
        "matmul_flops": 1e12,
        "repeats": 2,
        "load": {"seconds": 1.0, "array_bytes": 4e9},
        "compress": [compressed(tokens, batch) for tokens in (64, 256) for batch in (1, 4)],
        "left_out_lengths": [512],
        "doc_max_length": 256,
        "query": timed(0.01),
        "answer": [
            {"documents": number, "first_token_seconds": 0.1 * number, "tokens_per_second": rate}
            for number, rate in ((1, 20.0), (5, None))
        ],
        "memory": {
            "array_bytes_with_adapters": 7e9,
            "peak_array_bytes": 9e9,
            "peak_resident_bytes": 9.5e9,
        },
        "memory_file": {
            "outputs": 4,
            "chunks": 9,
            "remember": timed(0.01),
            "compress": {"seconds": 2.0, "seconds_per_chunk": 0.2},
            "recall": [{"mode": mode, **timed(0.015)} for mode in ("hybrid", "latent", "text")],
            "ask": {"k": 5, "max_tokens": 16, **timed(0.3)},
        },
    }
    return result | {"verdicts": [vars(verdict) for verdict in of_bench(result)]}


def look_at(page: Page) -> str:
    """The colour of the paper; nothing on it may be too wide, and plots have the text's ink."""
    assert overflow(page) <= 0
    paper, ink, of_plot = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
        " getComputedStyle(document.querySelector('svg text')).fill]"
    )
    assert ink == of_plot != paper
    return str(paper)


def test_pages_fit_a_phone_and_are_readable_in_the_dark(tmp_path: Path) -> None:
    speed_report.write(bench(), tmp_path)
    report.write(evaluation(), tmp_path, html=True)
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("bench.html", "report.html"):
            page.set_viewport_size({"width": 1280, "height": 860})
            page.emulate_media(color_scheme="light")
            page.goto((tmp_path / name).as_uri())
            papers = [look_at(page)]
            page.set_viewport_size({"width": 400, "height": 800})
            page.emulate_media(color_scheme="dark")
            papers.append(look_at(page))
            assert papers[0] != papers[1], name
            assert not serious(page, runOnly=["wcag2a", "wcag2aa"]), name
    assert [url.rsplit("/", 1)[-1] for url in asked] == ["bench.html", "report.html"]


@pytest.mark.parametrize("outputs", [True, False])
def test_bench_is_the_same_in_each_form(outputs: bool) -> None:
    result = bench() if outputs else bench() | {"memory_file": None}
    page, text = speed_report.page(result), speed_report.to_markdown(result)
    for grid in speed_report.grids(result):
        for row in grid.rows:
            assert f"<td>{row[-1]}</td>" in page and f"| {row[-1]} |" in text
    for verdict in result["verdicts"]:
        assert f"<strong>{verdict['question']}</strong>" in page
        assert f"- {verdict['question']} **{verdict['word']}**" in text
    assert page.count("<svg") == 4 if outputs else 3
    assert ("With a memory" in page) is outputs
