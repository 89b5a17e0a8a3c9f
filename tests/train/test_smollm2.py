"""A real pretrained base, SmolLM2-135M: trained, converted, asked, and a reasoner for the gateway.

`scripts/smollm2.py FOLDER` makes it; these tests run only if CLARA_MLX_SMOLLM2 names that folder.
They show that each step works, and nothing about how good the answers are: three steps of training
teach nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny_reasoner
from gateway import gateway, text_of
from train_runs import losses, write_config
from transformers import AutoTokenizer

import clara_mlx
from clara_mlx.context import Budget, ChatTemplate
from clara_mlx.model.folder import ModelFolder

BASE = os.environ.get("CLARA_MLX_SMOLLM2")
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        not BASE,
        reason="CLARA_MLX_SMOLLM2 names no folder; make one: scripts/smollm2.py FOLDER (93 MB)",
    ),
]

QUESTION = "What is the capital of France?"
EXAMPLES: list[dict[str, Any]] = [
    {
        "docs": ["Carla Rossi was born in Genoa and moved to Turin in 1998."],
        "question": ["Where did Carla move?", "When did she move?"],
        "answers": ["Turin", 1998],
    },
    {"docs": ["Hugo is a welder."], "question": "What is Hugo's trade?", "gold_answer": "welder"},
]


@pytest.fixture(scope="module")
def base() -> Path:
    return Path(str(BASE)).absolute()


@pytest.fixture(scope="module")
def run(base: Path, cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of three steps of training on the plain base."""
    config = write_config(
        tmp_path_factory.mktemp("smollm2"),
        None,
        EXAMPLES,
        fresh__base=str(base),
        fresh__doc_max_length=64,
        fresh__compr_rate=8,
        steps__most=3,
        steps__evaluation_answers=1,
        steps__answer_tokens=2,
        optimiser__learning_rate=1e-4,
    )
    cli("train", config)
    assert [step for step, loss in losses(config) if 0 < loss < 30] == [1, 2, 3]
    return config.parent / "run"


def test_the_folder_is_the_model(base: Path) -> None:
    """As the published one: its tokens, and what it answers with its own prompt."""
    from mlx_lm import generate, load

    words: Any = AutoTokenizer.from_pretrained(base)
    assert words.decode(words("Bridges from 1998,  def f(x):\n\treturn é").input_ids) == (
        "Bridges from 1998,  def f(x):\n\treturn é"
    )
    assert len(words("1998").input_ids) == 4  # digit by digit
    model, tokenizer = load(str(base))
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True
    )
    assert "Paris" in generate(model, tokenizer, asked, max_tokens=12)


def test_it_is_trained_converted_and_asked(run: Path, cli: Callable[..., Any]) -> None:
    to = run / "q8"
    checkpoint = run / "checkpoint"
    said = cli("convert", checkpoint, "--to", to, "-q", 8, "--verify").output
    assert "agrees with its source" in said
    trained, quantised = clara_mlx.load(run / "model"), clara_mlx.load(to)
    texts = [str(line["docs"][0]) for line in EXAMPLES]
    latents = quantised.encode(texts)
    assert latents.shape == (2, 8, 576)
    exact = trained.encode(texts)
    norms = mx.linalg.norm(latents, axis=-1) * mx.linalg.norm(exact, axis=-1)
    assert mx.all((latents * exact).sum(-1) > 0.99 * norms).item()
    answer = quantised.answer("Where did Carla move?", latents[:1], 8)
    assert isinstance(answer, str) and "<|im_" not in answer


def test_the_decoders_prompt_is_the_bases_own(run: Path, base: Path) -> None:
    """ChatML: its markers are single ids, as transformers renders them."""
    clara = clara_mlx.load(run / "model")
    ids = clara.prompts.answer("Where did Carla move?", 1).ids
    words: Any = AutoTokenizer.from_pretrained(base)
    start, end = words.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert ids.count(start) == 3 and ids.count(end) == 2  # system, user, and the answer begun
    assert ids[0] == start and clara.config.eos_id == end
    begun = words("<|im_start|>assistant\n").input_ids
    assert ids[-len(begun) :] == begun
    assert ModelFolder.open(run / "model").config.window == 8192


@pytest.fixture(scope="module")
def server(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    served = tmp_path_factory.mktemp("served")
    for file in base.iterdir():  # the server's log is written beside the model
        (served / file.name).symlink_to(file)
    with tiny_reasoner.served(served) as url:
        yield url


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_a_reasoner_behind_the_gateway(
    server: str, base: Path, tmp_path: Path, stream: bool
) -> None:
    counter = ChatTemplate(base)
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 0}
    budget = Budget(window=8192, reserve=256)
    with gateway(tmp_path, server, counter=counter, budget=budget, timeout=300) as gate:
        asked = [{"role": "user", "content": QUESTION}]
        if stream:
            text = text_of(gate.streamed(asked, **options))
        else:
            answer = gate.chat(asked, **options)
            text = answer.choices[0].message.content
            assert answer.usage.prompt_tokens == counter.prompt(asked, None)
        assert "Paris" in text
        assert gate.status()["conversations"]
