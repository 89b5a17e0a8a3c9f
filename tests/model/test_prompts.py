"""Prompts: the reference's ids for all golden texts, and no text that can touch the layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from golden_files import VARIANTS, expected
from hostile_texts import SPECIAL, anything
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers_of_all_kinds import readable, tokenizer

from clara_mlx.errors import ClaraError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.prompts import PARAPHRASE_USER, DecoderPrompt, Prompts

P11 = "Strip away the mystery, and you'll find background: {slots} is simply another rendition of:"


def prompts(variant: str = "c16") -> Prompts:
    rate = int(variant[1:])
    config = ClaraConfig(
        doc_max_length=64,
        compr_rate=rate,
        lora_r=8,
        hidden_size=64,
        base_vocab_size=643,
        window=4096,
    )
    return Prompts(config, tokenizer())


def encoder_input(build: Prompts, text: str) -> list[int]:
    return build.encoder_input(build.tokenizer.encode(text), truncate=True)


def unpadded(golden: Path, variant: str, name: str, kind: str) -> list[list[int]]:
    """Rows of the golden ``<kind>input_ids``, without their padding."""
    arrays: Any = mx.load(str(golden / variant / "golden" / f"{name}.safetensors"))
    ids, mask = arrays[f"{kind}input_ids"], arrays[f"{kind}attention_mask"]
    return [
        [id for id, seen in zip(*row, strict=True) if seen]
        for row in zip(ids.tolist(), mask.tolist(), strict=True)
    ]


@pytest.fixture(scope="module")
def quirks(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "quirks.json").read_text())
    return content


# -- parity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_encoder_inputs(golden: Path, variant: str) -> None:
    build, data = prompts(variant), expected(variant)
    texts = [document["text"] for document in data["documents"]]
    rows = [encoder_input(build, text) for text in texts]
    assert rows == unpadded(golden, variant, "encoder", "docs.")
    rows = [encoder_input(build, question) for question in data["questions"]]
    assert rows == unpadded(golden, variant, "encoder", "questions.")


@pytest.mark.parametrize("variant", VARIANTS)
def test_answer_prompts(golden: Path, variant: str) -> None:
    build, data = prompts(variant), expected(variant)
    for name, run in data["e2e"]["runs"].items():
        questions = data["questions"][: run["n_questions_used"]]
        rows = [build.answer(question, run["generation_top_k"]).ids for question in questions]
        assert rows == unpadded(golden, variant, "e2e", f"{name}.dec_")
    # The reference takes the backslash out of "C:\ main" (next test); its own arrays lack it.
    questions = [q.replace(":\\ ", ": ") for q in data["instruct"]["questions"]]
    for kind, documents in (("dec_", 2), ("onedoc.dec_", 1)):
        rows = [build.answer(question, documents).ids for question in questions]
        assert rows == unpadded(golden, variant, "instruct", kind)


@pytest.mark.parametrize("variant", VARIANTS)
def test_paraphrase_prompts(golden: Path, variant: str) -> None:
    build = prompts(variant)
    for kind, instruction in (("p3", PARAPHRASE_USER), ("p11", P11)):
        reference = unpadded(golden, variant, "base", f"{kind}.dec_")
        assert [build.paraphrase(2, instruction).ids] * 2 == reference


def test_lengths(quirks: dict[str, Any]) -> None:
    build, known = prompts(), quirks["lengths"]
    for name, text in (("empty", ""), ("one space", " "), ("newline", "\n")):
        assert encoder_input(build, text) == known[name]["ids"]
    for count in (63, 64, 65, 66, 104):
        row = build.encoder_input([355] * count, truncate=True)
        facts = known[f"{count} text tokens"]
        assert len(row) == facts["total"]
        assert row.count(355) == facts["text_tokens_kept"]
        assert (2 in row) is facts["eos_present"]


def test_special_strings_are_text_here_and_layout_there(quirks: dict[str, Any]) -> None:
    build = prompts()
    for text, reference in quirks["special_strings_tokenisation"].items():
        row = encoder_input(build, text)
        assert (row == reference["ids"]) is (text in ("a b", "a [INST] b"))
        assert build.tokenizer.decode(row[2:-5]) == text


def test_colon_backslash_space_is_rewritten_as_in_training(quirks: dict[str, Any]) -> None:
    quirk, build = quirks["colon_backslash_space"], prompts()
    ids = build.answer(quirk["question"], 1).ids
    question = quirk["prompt"].partition("<SEP>")[2]
    assert question == "\n\nQuestion:open C: drive [/INST]"
    assert build.tokenizer.decode(ids).endswith(question)
    # Documents are never rewritten.
    row = encoder_input(build, quirk["question"])
    assert build.tokenizer.decode(row) == quirk["question"] == "open C:\\ drive"


def test_a_long_question_is_not_cut(quirks: dict[str, Any]) -> None:
    quirk, build = quirks["long_question_prompt"], prompts()
    ids = build.answer("which worker failed and why? " * 150, 1).ids
    assert len(ids) == quirk["untruncated_tokens"] > quirk["kept"]
    assert build.tokenizer.decode(ids).endswith("failed and why?  [/INST]")
    assert build.tokenizer.decode(ids[: quirk["kept"]]).endswith(quirk["ends_with"])


# -- layout ------------------------------------------------------------------------------------


def content(build: Prompts, ids: list[int]) -> list[int]:
    """The ids that are left without bos, eos and the added tokens."""
    return [id for id in ids if id not in (1, 2) and id < build.config.base_vocab_size]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=100)
@given(text=anything)
@example(text="".join(SPECIAL))
def test_no_text_can_change_an_encoder_input(variant: str, text: str) -> None:
    build = prompts(variant)
    config = build.config
    row = build.encoder_input(build.tokenizer.encode(text))
    start, end = [config.enc_id, config.bos_id], [config.eos_id, *config.memory_ids]
    assert row[:2] == start
    assert row[-len(end) :] == end
    inside = row[2 : -len(end)]
    assert content(build, inside) == inside
    assert build.tokenizer.decode(inside) == readable(text).replace("▁", " ")


def check_decoder_prompt(build: Prompts, prompt: DecoderPrompt, documents: int) -> list[int]:
    """Exactly bos and k blocks of layout, at the slots; returns the content after them."""
    config, ids = build.config, prompt.ids
    m = config.memory_tokens
    assert ids[0] == config.bos_id
    assert [ids[slot] for slot in prompt.slots] == config.memory_ids * documents
    separators = [slot + 1 for slot in prompt.slots[m - 1 :: m]]
    assert [ids[i] for i in separators] == [config.sep_id] * documents
    assert len(content(build, ids)) == len(ids) - 1 - len(prompt.slots) - documents
    if documents:
        assert separators[-1] - prompt.slots[0] + 1 == documents * (m + 1)
        return ids[separators[-1] + 1 :]
    return []


@pytest.mark.parametrize("variant", VARIANTS)
@settings(deadline=None, max_examples=100)
@given(question=anything, documents=st.integers(0, 6))
@example(question="".join(SPECIAL) + "{slots}", documents=2)
def test_no_question_can_change_a_prompt(variant: str, question: str, documents: int) -> None:
    build = prompts(variant)
    after = check_decoder_prompt(build, build.answer(question, documents), documents)
    if documents:
        user = f"\n\nQuestion:{question}".replace(":\\ ", ": ")
        kept = readable(user).replace("▁", " ")
        assert build.tokenizer.decode(after) == f"{kept} [/INST]"


@settings(deadline=None, max_examples=100)
@given(before=anything, after=anything, documents=st.integers(1, 6))
def test_no_instruction_can_change_a_prompt(before: str, after: str, documents: int) -> None:
    build, instruction = prompts(), f"{before}{{slots}}{after}"
    if instruction.count("{slots}") > 1:
        with pytest.raises(ClaraError, match=r"needs \{slots\} once"):
            build.paraphrase(documents, instruction)
    else:
        check_decoder_prompt(build, build.paraphrase(documents, instruction), documents)


def test_an_instruction_without_a_place_for_the_documents_is_refused() -> None:
    with pytest.raises(ClaraError, match=r"needs \{slots\} once, got 'Say it again:'"):
        prompts().paraphrase(1, "Say it again:")
