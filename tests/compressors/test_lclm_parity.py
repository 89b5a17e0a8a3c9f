"""LCLM computes what the original computes, on its golden data (tests/golden-lclm)."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from lclm_files import LCLM_VARIANTS, arrays, document, expected
from sizes import sized

from clara_mlx.compressors.lclm.lclm import Lclm
from clara_mlx.compressors.lclm.regions import Region

Load = Callable[..., Lclm]

LATENTS = 1e-4  # largest difference; float32 noise of the original is 7e-6
LOGITS = 2e-4  # 3e-5

# Documents of one window and more, by variant: all of them take seconds.
LONG: dict[str, tuple[str, ...]] = sized(
    {"c16": ("window", "windows"), "c4": ("window", "window_plus_one", "windows")}, {}
)
CASES = [
    (variant, case["name"])
    for variant in LCLM_VARIANTS
    for case in expected(variant)["cases"]
    if case["name"] not in LONG.get(variant, ())
]
DOCUMENTS = [
    (variant, one["name"])
    for variant in LCLM_VARIANTS
    for one in expected(variant)["documents"]
    if one["name"] not in LONG.get(variant, ())
]
#: Cases of which every step is generated, not only the first six.
WHOLE = sized(("specials", "two_docs"), tuple(name for _, name in CASES))
#: Cases that are also generated with a repetition penalty.
PENALISED = sized(("end_in_text",), tuple(name for _, name in CASES))


@pytest.mark.parametrize(("variant", "name"), DOCUMENTS)
def test_documents_become_the_same_latents(lclm: Load, variant: str, name: str) -> None:
    model = lclm(variant)
    text = document(variant, name)
    ids = model._compressing.ids(text, parse_specials=True)
    assert ids == arrays(variant)[f"doc.{name}.encoder_ids"].tolist()
    latents = np.array(model.encode(text, parse_specials=True))
    theirs = arrays(variant)[f"doc.{name}.latents"]
    assert latents.dtype == np.float32
    assert latents.shape == theirs.shape
    assert np.abs(latents - theirs).max() < LATENTS


@pytest.mark.parametrize("variant", LCLM_VARIANTS)
def test_documents_in_one_batch_are_the_same(lclm: Load, variant: str) -> None:
    """Whatever their lengths are; special-token strings are text here."""
    left_out = "specials", *sized(("window", "window_plus_one", "windows"), ())
    documents = [d for d in expected(variant)["documents"] if d["name"] not in left_out]
    together = fresh(lclm(variant)).compress_batch([d["text"] for d in documents])
    for document_, compressed in zip(documents, together, strict=True):
        theirs = arrays(variant)[f"doc.{document_['name']}.latents"]
        assert np.abs(np.array(compressed.latents) - theirs).max() < LATENTS
        assert compressed.source_tokens == document_["n_encoder_tokens"]
        assert len(compressed.chunks) == document_["n_windows"]
        assert (
            "".join(document_["text"][c.start : c.end] for c in compressed.chunks)
            == (document_["text"])
        )


@pytest.mark.parametrize(("variant", "name"), CASES)
def test_prompts_in_the_published_form(lclm: Load, variant: str, name: str) -> None:
    """Ids, the first logits, and every greedy token, with and without a repetition penalty."""
    model, golden = lclm(variant), arrays(variant)
    case = next(one for one in expected(variant)["cases"] if one["name"] == name)
    prompt = model.prompt(case["prompt"])
    assert prompt.ids == golden[f"case.{name}.input_ids"].tolist()
    places = [place for start, end in case["memory_positions"] for place in range(start, end)]
    assert prompt.slots == places
    logits = model.decoder(mx.array([prompt.ids]), None, model.embeddings(prompt)[None])[0, -1]
    assert np.abs(np.array(logits) - golden[f"case.{name}.first_logits"]).max() < LOGITS
    steps = 24 if name in WHOLE else 6
    responses = list(model.stream_responses(case["prompt"], steps))
    assert [r.token for r in responses] == golden[f"case.{name}.token_ids"][:steps].tolist()
    assert {r.prompt_tokens for r in responses} == {case["n_prompt_tokens"]}
    if steps == 24:
        assert "".join(r.text for r in responses) == case["text_without_specials"]
    if name in PENALISED:
        responses = list(model.stream_responses(case["prompt"], 24, repetition_penalty=1.1))
        theirs = golden[f"case.{name}.token_ids_rep1.1"].tolist()
        assert [r.token for r in responses] == theirs


@pytest.mark.parametrize("variant", LCLM_VARIANTS)
@pytest.mark.parametrize("name", ["two_docs", "between"])
def test_every_logit_of_an_answer(lclm: Load, variant: str, name: str) -> None:
    model, golden = lclm(variant), arrays(variant)
    case = next(one for one in expected(variant)["cases"] if one["name"] == name)
    prompt = model.prompt(case["prompt"])
    generated = golden[f"case.{name}.token_ids"].tolist()
    after = model.decoder.model.embed_tokens(mx.array(generated[:-1]))
    embeds = mx.concatenate([model.embeddings(prompt), after])
    ids = mx.array([[*prompt.ids, *generated[:-1]]])
    logits = model.decoder(ids, None, embeds[None])[0, len(prompt.ids) - 1 :]
    assert np.abs(np.array(logits) - golden[f"case.{name}.all_logits"]).max() < LOGITS


@pytest.mark.parametrize("variant", LCLM_VARIANTS)
@pytest.mark.parametrize("name", ["short", "empty"])
def test_messages_become_the_published_prompt(lclm: Load, variant: str, name: str) -> None:
    """An empty region has one latent, as in the route of the original that does not refuse it."""
    model = lclm(variant)
    content = [Region(document(variant, name)), " What is it?"]
    prompt = model.prompt([{"role": "user", "content": content}])
    theirs = arrays(variant)[f"case.vllm.{name}.prompt_embeds"]
    assert np.abs(np.array(model.embeddings(prompt)) - theirs).max() < LATENTS
    asked = model._question("What is it?", [Region(document(variant, name))], 1)
    assert asked.ids == prompt.ids


@pytest.mark.parametrize("variant", LCLM_VARIANTS)
def test_a_conversation_is_the_published_string(lclm: Load, variant: str) -> None:
    """The case ``between``: a system turn, several turns, text between regions, one twice."""
    model = lclm(variant)
    text = {d["name"]: d["text"] for d in expected(variant)["documents"]}
    case = next(one for one in expected(variant)["cases"] if one["name"] == "between")
    user = [
        *("Some plain text first. ", Region(text["code"])),
        " plain text between the memories, 37 minutes later, ",
        *(Region(text["unicode"]), " and after."),
    ]
    again = case["prompt"].rpartition("Again: ")[2].rpartition("<|memory_end|>")[2]
    messages = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": user},
        {"role": "assistant", "content": "Yes."},
        {
            "role": "user",
            "content": ["Again: ", Region(text["code"]), again.partition("<|im_end|>")[0]],
        },
    ]
    assert model.prompt(messages).ids == model.prompt(case["prompt"]).ids
    assert model.generate(messages, 6) == model.generate(case["prompt"], 6)


def fresh(model: Lclm) -> Lclm:
    """The same model without anything that it has compressed before."""
    inner = model._compressing
    decoder = model.decoder
    return Lclm(
        model.config,
        inner.encoder,
        inner._adapter,
        decoder,
        model.tokenizer,
        model.decoder_tokenizer,
        model.fingerprint,
    )


def test_what_is_known_is_not_run_again(lclm: Load) -> None:
    model = fresh(lclm("c4"))
    text = document("c4", "code")
    model.encode(text)
    before = model.encoded_tokens
    assert before == len(model.tokenizer.encode(text))
    model.generate([{"role": "user", "content": [Region(text), "Well?"]}], 1)
    assert model.encoded_tokens == before
