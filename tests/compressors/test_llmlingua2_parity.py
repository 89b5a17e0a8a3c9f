"""LLMLingua-2 beside the package ``llmlingua``: probabilities, words that are kept, and prompts.

What the package gave is in tests/golden-llmlingua2 (scripts/llmlingua_golden.py makes it again).
To compare with the package itself, which needs torch:

    pip install --group parity
    pytest tests/compressors/test_llmlingua2_parity.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmlingua_cases import SETTINGS, TEXTS, Counter, load_golden, run_original
from token_classifiers import KINDS, make_checkpoint

from clara_mlx.compressors.llmlingua2.llmlingua2 import LlmLingua2
from clara_mlx.compressors.llmlingua2.published import Compression

Load = Callable[..., LlmLingua2]

TOLERANCE = 1e-4  # of a probability

# Two float32 programs may put a word on different sides of a threshold that lies this near.
NEAR = 1e-5


def compare(kind: str, model: LlmLingua2, original: dict[str, Any]) -> None:
    """Every case of the original again, with our encoder."""
    counter = Counter(kind)
    for case in original["cases"]:
        settings = SETTINGS[case["settings"]]
        ours = model.compress_prompt(TEXTS[case["text"]], **settings, tokens=counter)
        about = (kind, case["text"], settings)
        if "kept" not in case:
            assert ours.text == case["compressed"], about
            continue
        theirs = [mark == "1" for mark in case["kept"]]
        assert len(ours.kept) == len(theirs), about
        if list(ours.kept) == theirs:
            assert ours.text == case["compressed"], about
        else:
            assert_near(ours, theirs, about)


def assert_near(ours: Compression, theirs: list[bool], about: object) -> None:
    """Words that only one of both keeps are as probable as the least probable that both keep."""
    both = [i for i, kept in enumerate(theirs) if kept and ours.kept[i]]
    different = [i for i, kept in enumerate(theirs) if kept != ours.kept[i]]
    least = min(ours.probabilities[i] for i in both)
    assert all(abs(ours.probabilities[i] - least) < NEAR for i in different), about


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_the_originals(kind: str, llmlingua2: Load) -> None:
    reader = llmlingua2(kind).reader
    seen = 0
    for rows in load_golden(kind)["inputs"].values():
        for row in rows:
            if max(row["ids"]) >= reader.config.vocab_size:
                continue  # a new token, whose embedding the package draws at random
            (ours,) = reader.probabilities([row["ids"]])
            assert np.abs(ours - np.array(row["probabilities"])).max() < TOLERANCE
            seen += len(ours)
    assert seen > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_the_originals(kind: str, llmlingua2: Load) -> None:
    original = load_golden(kind)
    compare(kind, llmlingua2(kind), original)
    prompts = {case["compressed"] for case in original["cases"]}
    assert len(prompts) > len(original["cases"]) / 2  # the cases differ


@pytest.mark.parametrize("kind", KINDS)
def test_several_contexts_have_an_empty_line_between_them(kind: str, llmlingua2: Load) -> None:
    model = llmlingua2(kind)
    texts = [TEXTS["prose"], TEXTS["test run"]]
    apart = [model.compress_prompt(text, rate=0.5).text for text in texts]
    assert model.compress_prompt(texts, rate=0.5).text == "\n\n".join(apart)


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_itself(kind: str, llmlingua2: Load, tmp_path: Path) -> None:
    """The golden is what the package gives today, too."""
    pytest.importorskip("llmlingua", reason="needs llmlingua and torch: pip install --group parity")
    original = run_original(kind, make_checkpoint(kind, tmp_path / KINDS[kind]))
    compare(kind, llmlingua2(kind), original)
    golden = load_golden(kind)
    for name, rows in golden["inputs"].items():
        for row, again in zip(rows, original["inputs"][name], strict=True):
            assert row["ids"] == again["ids"]
            difference = np.array(row["probabilities"]) - np.array(again["probabilities"])
            assert np.abs(difference).max() < NEAR
