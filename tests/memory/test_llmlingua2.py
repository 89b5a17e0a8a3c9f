"""A memory with LLMLingua-2: shortened texts stand in place of outputs, whose originals stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from token_classifiers import KINDS

from clara_mlx.compressors.llmlingua2.llmlingua2 import LlmLingua2
from clara_mlx.errors import OtherModel
from clara_mlx.memory import Memory

OUTPUT = (
    "FAILED tests/shop/test_prices.py::test_rounding[eur] - AssertionError: 12.50 != 12.49\n"
    "the members of the council agreed that everything else is as it was before this meeting\n"
) * 12


def test_shortened_texts_stand_in_place_of_outputs(
    llmlingua2: Callable[..., LlmLingua2], tmp_path: Path
) -> None:
    model = llmlingua2("bert")
    with Memory.open(tmp_path / "memory.db", model) as memory:
        handle = memory.remember(OUTPUT, source="pytest")
        memory.flush()
        stored = memory.shortened(handle)
        whole = len(model.tokenizer.encode(OUTPUT))
        assert 0.8 * whole < model.ratio * len(model.tokenizer.encode(stored)) < 1.2 * whole
        assert "tests/shop/test_prices.py::test_rounding[eur]" in stored
        assert memory.original(handle) == OUTPUT
        (hit, *_) = memory.recall("test_rounding")
        assert hit.handle == handle
        answer = memory.ask("which test failed?")
        assert "test_rounding" in answer.text
        assert answer.tokens_saved > 0


def test_another_encoder_shortens_anew(
    llmlingua2: Callable[..., LlmLingua2], tmp_path: Path
) -> None:
    texts = []
    for kind in KINDS:
        with Memory.open(tmp_path / "memory.db", llmlingua2(kind)) as memory:
            handle = memory.remember(OUTPUT, source="pytest")
            if texts:
                with pytest.raises(OtherModel):
                    memory.flush()
                memory.recompress()
            memory.flush()
            texts.append(memory.shortened(handle))
            assert memory.original(handle) == OUTPUT
    assert texts[0] != texts[1]
