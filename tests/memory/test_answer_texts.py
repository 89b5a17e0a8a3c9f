"""An answer is made faster by the texts of its evidence, where the compressor takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clara_mlx import Clara, Memory

TEXTS = ["FAILED tests/test_io.py::test_load", "1 failed, 41 passed in 3.2s"]
QUESTION = "Which test failed?"


@pytest.mark.parametrize("takes", [True, False])
def test_the_evidence_is_given_with_its_latents(
    clara: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    model: Clara = clara("c16", "e2e")
    stream = Clara.stream_answer
    given: list[dict[str, Any]] = []

    def spy(self: Clara, *arguments: Any, **named: Any) -> Any:
        given.append(named)
        return stream(self, *arguments, **named)

    monkeypatch.setattr(Clara, "stream_answer", spy)
    monkeypatch.setattr(Clara, "takes_texts", takes)
    with Memory.open(tmp_path / "memory.db", model) as memory:
        for text in TEXTS:
            memory.remember(text)
        memory.flush()
        answer = memory.ask(QUESTION, max_tokens=8)
    assert answer.evidence
    assert given == [{"texts": [hit.text for hit in answer.evidence]} if takes else {}]
