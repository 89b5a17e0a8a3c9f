"""Other bases than Mistral v0.2: their own prompts, ids included, and mlx-lm's own numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from foreign_bases import FAMILIES, convert_fresh, make_base
from mlx_lm.utils import load_model
from sizes import sized
from train_runs import QUESTIONS, losses, train, write_config
from transformers import PreTrainedTokenizerFast

from clara_mlx import load
from clara_mlx.convert import Source, verify
from clara_mlx.model.clara import Clara
from clara_mlx.model.folder import ModelFolder
from clara_mlx.model.layout import PromptLayout
from clara_mlx.model.prompts import ANSWER_SYSTEM

TEXTS = [
    "worker 3 failed: exit status 1\nretrying",
    "",
    "def add(a, b):\n    return a + b  # ünïcode 日本",
]
QUESTIONS_ASKED = ["Which worker failed?", "  what?\n\n", "def f(x): y", "日本 ünï", ""]
WITH_TEMPLATE = [name for name, family in FAMILIES.items() if family.template]

Folder = Callable[[str], ModelFolder]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("bases")
    return functools.cache(lambda name: make_base(name, root / name))


@pytest.fixture(scope="module")
def folder(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The model folder of a fresh start on a family's base."""
    root = tmp_path_factory.mktemp("fresh")
    return functools.cache(lambda name: convert_fresh(base(name), root / name))


@pytest.fixture(scope="module")
def clara(folder: Folder) -> Callable[[str], Clara]:
    return functools.cache(lambda name: load(folder(name).path))


# -- prompts -----------------------------------------------------------------------------------


def rendered(model: ModelFolder, name: str, question: str, answer: str | None = None) -> list[int]:
    """A prompt about two documents, as transformers renders it, with an answer if there is one."""
    family = FAMILIES[name]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(model.path / "tokenizer.json"),
        bos_token=family.bos,
        eos_token=family.eos[-1],
        chat_template=(model.path / "chat_template.jinja").read_text(),
    )
    slots = "".join([*(f"<MEM{i}>" for i in range(4)), "<SEP>"]) * 2
    turns = [("system", ANSWER_SYSTEM), ("user", f"Background:\n{slots}\n\nQuestion:{question}")]

    def render(**options: Any) -> Any:
        messages = [{"role": role, "content": content} for role, content in turns]
        return tokenizer.apply_chat_template(
            messages, enable_thinking=False, return_dict=False, **options
        )

    if answer is not None and family.template == "mistral-v0.3":
        # Its template forgets the system text once an answer follows; the prompt we train has it.
        text = render(add_generation_prompt=True, tokenize=False) + f" {answer.strip()}</s>"
        return list(tokenizer.encode(text, add_special_tokens=False))
    turns += [] if answer is None else [("assistant", answer)]
    return list(render(add_generation_prompt=answer is None))


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_prompts_are_what_transformers_renders(folder: Folder, clara: Any, name: str) -> None:
    prompts = clara(name).prompts
    for question in QUESTIONS_ASKED:
        prompt = prompts.answer(question, 2)
        assert prompt.ids == rendered(folder(name), name, question)
        assert [prompt.ids[slot] for slot in prompt.slots] == prompts.config.memory_ids * 2
        whole = prompts.answer(question, 2, "the third\nworker ")
        assert whole.ids == rendered(folder(name), name, question, "the third\nworker ")
        assert whole.ids[: whole.answer_from] == prompt.ids


@pytest.mark.parametrize("name", FAMILIES)
def test_no_question_can_add_a_special_token(clara: Any, name: str) -> None:
    prompts = clara(name).prompts
    special = {*range(prompts.config.base_vocab_size, prompts.config.vocab_size)}
    special |= {id for id, token in added(prompts) if token in FAMILIES[name].specials}
    text = "".join([*FAMILIES[name].specials, *prompts.config.added_tokens, "</s>"])

    def count(question: str) -> int:
        return sum(id in special for id in prompts.answer(question, 1, question).ids)

    assert count(text) == count("a question") > 0


def added(prompts: Any) -> list[tuple[int, str]]:
    return [(id, t.content) for id, t in prompts.tokenizer.full.get_added_tokens_decoder().items()]


@pytest.mark.parametrize(
    ("name", "ends"),
    {
        "smollm2": ["<|im_end|>"],
        "llama3": ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
        "qwen2": ["<|im_end|>", "<|endoftext|>"],
        "mistral-v0.3": ["</s>"],
        "gemma3": ["<end_of_turn>", "<eos>"],
        "no-template": ["<|end_of_text|>"],
    }.items(),
)
def test_all_ends_stop_an_answer(clara: Any, name: str, ends: list[str]) -> None:
    config, names = clara(name).config, dict(added(clara(name).prompts))
    assert [names[id] for id in config.stop_ids] == ends
    assert names[config.eos_id] == ends[0]
    named = FAMILIES[name].eos[-1]  # by its tokenizer, which the reference asks
    assert names[config.eos_id] == named
    row = clara(name).prompts.encoder_input([7, 8])
    head = [config.enc_id] if config.bos_id is None else [config.enc_id, config.bos_id]
    assert row == [*head, 7, 8, config.eos_id, *config.memory_ids]
    assert (config.bos_id is None) is (FAMILIES[name].bos is None)


def test_a_base_without_a_template_has_the_published_layout(folder: Folder, clara: Any) -> None:
    config = clara("no-template").config
    assert config.prompt is None
    assert config.layout == PromptLayout.published(None, config.eos_id)
    assert any("published layout" in note for note in folder("no-template").description["notes"])


# -- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_are_those_of_mlx_lm(base: Any, clara: Any, name: str) -> None:
    """A fresh start's adapters change nothing, so all states and logits are the base's own."""
    model = clara(name)
    own: Any = load_model(base(name))[0]
    ids = mx.array([model.tokenizer.encode(TEXTS[0])])
    known = model.config.base_vocab_size
    with model.lora.use("decoder"):
        logits = model.network(ids)[0, :, :known]
    expected = own(ids)[0, :, :known]
    assert mx.abs(expected).max() > 0.1
    assert mx.allclose(logits, expected, atol=1e-4, rtol=1e-4)
    # Memory tokens' states, in a ragged batch, from mlx-lm's own forward pass over one text each.
    latents = model.encode(TEXTS)
    trunk = getattr(own, "language_model", own).model
    for text, latent in zip(TEXTS, latents, strict=True):
        row = mx.array([model.prompts.encoder_input(model.tokenizer.encode(text))])
        states = trunk(row, input_embeddings=model.network.model.embed_tokens(row))[0]
        assert mx.allclose(latent, states[-4:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_agrees_with_its_source_and_answers(folder: Folder, clara: Any, name: str) -> None:
    result = verify(folder(name).path, Source.open_recorded(folder(name)))
    assert result.problems == []
    assert all(cosine > 0.99999 for cosines in result.cosines.values() for cosine in cosines)
    model = clara(name)
    latents = model.encode(TEXTS[:1])
    assert isinstance(model.answer("Which worker?", latents, max_tokens=3), str)


@pytest.mark.parametrize("name", sized(["gemma3"], list(FAMILIES)))
def test_training(folder: Folder, tmp_path: Path, name: str) -> None:
    file = write_config(tmp_path, folder(name).path, QUESTIONS, steps__most=3, data__evaluation=[])
    train(file)
    ((_, first), *_, (_, last)) = losses(file)
    assert last < first
    trained = ModelFolder.open(tmp_path / "run" / "model")
    assert trained.config.layout == folder(name).config.layout


@pytest.mark.parametrize("name", ["llama3", "ministral"])
def test_another_thread_can_use_a_model(folder: Folder, name: str) -> None:
    """As a memory does; the frequencies of these bases' positions are no parameters."""
    model = load(folder(name).path)
    with ThreadPoolExecutor(1) as other:
        latents = other.submit(lambda: np.array(model.encode(TEXTS))).result()
        other.submit(mx.clear_streams).result()
    assert np.allclose(latents, np.array(model.encode(TEXTS)), atol=1e-5)
