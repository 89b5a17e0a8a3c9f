"""The promise: every number is the original PyTorch code's (golden data, tolerances as stated)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from golden_files import VARIANTS, expected

from clara_mlx import Clara
from clara_mlx.model.encoder import encode_batch
from clara_mlx.model.prompts import DecoderPrompt, Prompts

# Absolute tolerances in float32 (tests/golden/README.md, "Tolerances").
STATES = 1e-4
LOGITS = 2e-4
SCORES = 1e-5
LOGIT_NOISE = 2.3e-5  # of the original itself; a smaller margin decides nothing

pytestmark = pytest.mark.parametrize("variant", VARIANTS)


class Golden:
    """The arrays of one golden file, and rows of them without padding."""

    def __init__(self, root: Path, variant: str, name: str) -> None:
        self.arrays: Any = mx.load(str(root / variant / "golden" / f"{name}.safetensors"))

    def __getitem__(self, name: str) -> mx.array:
        return self.arrays[name]

    def ids(self, kind: str, row: int) -> list[int]:
        """Unpadded ``<kind>input_ids`` of a row."""
        pairs = zip(
            self[f"{kind}input_ids"][row].tolist(),
            self[f"{kind}attention_mask"][row].tolist(),
            strict=True,
        )
        return [id for id, seen in pairs if seen]


@pytest.fixture
def arrays(golden: Path, variant: str) -> Callable[[str], Golden]:
    return lambda name: Golden(golden, variant, name)


def close(a: mx.array, b: mx.array, tolerance: float) -> None:
    assert a.shape == b.shape
    assert mx.abs(a - b).max().item() <= tolerance


def inputs(clara: Clara, texts: list[str]) -> list[list[int]]:
    prompts = Prompts(clara.config, clara.tokenizer)
    return [prompts.encoder_input(clara.tokenizer.encode(t), truncate=True) for t in texts]


def states(clara: Clara, ids: list[int], adapter: str) -> mx.array:
    """Last hidden states under an adapter, by the plain path: mlx-lm's own forward pass."""
    with clara.lora.use(adapter):
        return clara.network.model(mx.array([ids]))[0]


def logits(clara: Clara, prompt: DecoderPrompt, latents: mx.array) -> mx.array:
    """Logits (tokens, vocab) of one pass over a whole prompt under the decoder adapter."""
    embeds = clara._decoder.inputs_embeds(prompt, latents)
    with clara.lora.use("decoder"):
        return clara.network(mx.array([prompt.ids]), input_embeddings=embeds[None])[0]


def test_documents(clara: Any, arrays: Any, variant: str) -> None:
    model, gold = clara(variant, "e2e"), arrays("encoder")
    texts = [document["text"] for document in expected(variant)["documents"]]
    ids = inputs(model, texts)
    assert ids == [gold.ids("docs.", row) for row in range(len(texts))]
    latents = model.encode(texts, truncate=True)
    assert latents.dtype == mx.float32
    close(latents, gold["docs.embeddings"], STATES)
    close(latents, gold["docs.embeddings_unpadded"], STATES)
    # The plain path, kept as the oracle of the fast one.
    plain = [states(model, row, "encoder")[-model.config.memory_tokens :] for row in ids]
    close(latents, mx.stack(plain), STATES)


def test_documents_with_special_tokens_inside(clara: Any, arrays: Any, variant: str) -> None:
    """Text is content here and layout there, so the model is compared on the reference's ids."""
    model, gold = clara(variant, "e2e"), arrays("encoder")
    ids = [gold.ids("special.", row) for row in range(len(expected(variant)["special_documents"]))]
    with model.lora.use("encoder"):
        latents = encode_batch(model.network, ids, model.config.memory_tokens)
    close(latents, gold["special.embeddings"], STATES)


def test_hidden_states_of_every_layer_and_adapter(clara: Any, arrays: Any, variant: str) -> None:
    model, gold = clara(variant, "e2e"), arrays("encoder")
    ids = gold["debug.code_doc_input_ids"].tolist()
    reference = gold["debug.code_doc_hidden_states"]
    base = model.network.model
    with model.lora.use("encoder"):
        h = base.embed_tokens(mx.array([ids]))
        for layer, wanted in zip([*base.layers, None], reference, strict=True):
            if layer is None:
                close(base.norm(h)[0], wanted, STATES)
            else:
                close(h[0], wanted, STATES)
                h = layer(h, "causal")
    for adapter in ("encoder", "decoder", "query_reasoner"):
        wanted = gold[f"debug.code_doc_last_hidden.{adapter}_adapter"]
        close(states(model, ids, adapter), wanted, STATES)


def test_questions(clara: Any, arrays: Any, variant: str) -> None:
    model, gold = clara(variant, "e2e"), arrays("encoder")
    questions = expected(variant)["questions"]
    assert inputs(model, questions) == [
        gold.ids("questions.", row) for row in range(len(questions))
    ]
    encoded = mx.stack([model.encode_query(q, truncate=True).reshape(-1) for q in questions])
    close(encoded, gold["questions.representations"], STATES)


def test_a_text_without_chunks_ranks_as_nothing(clara: Any, variant: str) -> None:
    model = clara(variant, "e2e")
    assert model.rank("Which test failed?", model.compress("").latents).shape == (0,)


def test_ranking_and_answers(clara: Any, arrays: Any, variant: str) -> None:
    model, gold, data = clara(variant, "e2e"), arrays("e2e"), expected(variant)
    latents = model.encode([d["text"] for d in data["documents"]], truncate=True)
    for name, run in data["e2e"]["runs"].items():
        k = run["generation_top_k"]
        for row in range(run["n_questions_used"]):
            question = data["questions"][row]
            candidates = latents[mx.array(data["e2e"]["candidates"][row])]
            scores = model.rank(model.encode_query(question, truncate=True), candidates)
            close(scores, gold[f"{name}.scores"][row], SCORES)
            top = mx.argsort(-scores)[:k]
            assert top.tolist() == run["topk_idx"][row]
            selected = candidates[top]
            if f"{name}.selected_embeddings" in gold.arrays:
                close(selected, gold[f"{name}.selected_embeddings"][row * k : row * k + k], STATES)
            prompt = Prompts(model.config, model.tokenizer).answer(question, k)
            check_decoder(model, gold, f"{name}.", row, prompt, selected)
            check_tokens(model, gold, f"{name}.", row, question, selected)
            assert model.answer(question, selected, max_tokens=24) == run["texts"][row]


def test_instruct_with_its_trained_decoder(clara: Any, arrays: Any, variant: str) -> None:
    model, gold = clara(variant, "instruct"), arrays("instruct")
    assert model.adapters == ("decoder", "encoder")
    data = expected(variant)
    documents = [d["text"] for d in data["documents"]]
    runs = data["instruct"]["runs"]
    for row, question in enumerate(data["instruct"]["questions"]):
        chosen = [documents[i] for i in data["instruct"]["documents"][row]]
        latents = model.encode(chosen, truncate=True)
        k = len(chosen)
        close(latents, gold["compressed"][row * k : row * k + k], STATES)
        prompt = Prompts(model.config, model.tokenizer).answer(question, k)
        check_decoder(model, gold, "", row, prompt, latents, trained="trained_decoder.")
        check_tokens(model, gold, "trained_decoder.", row, question, latents)
        answer = model.answer(question, latents, max_tokens=24)
        assert answer == runs["trained_decoder"]["texts"][row]
        (one,) = runs["trained_decoder_1doc"]["documents"][row]
        latents = model.encode([documents[one]], truncate=True)
        prompt = Prompts(model.config, model.tokenizer).answer(question, 1)
        check_decoder(model, gold, "onedoc.", row, prompt, latents)
        check_tokens(model, gold, "onedoc.", row, question, latents)


def test_logits_of_every_generated_step(clara: Any, arrays: Any, variant: str) -> None:
    model, gold, data = clara(variant, "instruct"), arrays("instruct"), expected(variant)
    chosen = [data["documents"][i]["text"] for i in data["instruct"]["documents"][0]]
    latents = model.encode(chosen, truncate=True)
    prompt = Prompts(model.config, model.tokenizer).answer(
        data["instruct"]["questions"][0], len(chosen)
    )
    wanted = gold["trained_decoder.all_step_logits"][0]
    tokens = gold["trained_decoder.token_ids"][0].tolist()[: wanted.shape[0] - 1]
    longer = DecoderPrompt([*prompt.ids, *tokens], prompt.slots)
    steps = logits(model, longer, latents)[len(prompt.ids) - 1 :]
    live = tokens.index(2) + 1 if 2 in tokens else len(tokens) + 1  # after </s> all is padding
    close(steps[:live], wanted[:live], LOGITS)


def test_paraphrase(clara: Any, arrays: Any, variant: str) -> None:
    model, gold, data = clara(variant, "base"), arrays("base"), expected(variant)
    documents = [d["text"] for d in data["documents"]]
    slots = "".join([*(f"<MEM{i}>" for i in range(model.config.memory_tokens)), "<SEP>"]) * 2
    for name, run in data["base"]["runs"].items():
        for row, chosen in enumerate(data["base"]["documents"]):
            latents = model.encode([documents[i] for i in chosen], truncate=True)
            close(latents, gold[f"{name}.compressed"][row * 2 : row * 2 + 2], STATES)
            user = run["prompts"][row].partition("\n\n")[2].removesuffix(" [/INST]")
            instruction = user.replace(slots, "{slots}")
            prompt = Prompts(model.config, model.tokenizer).paraphrase(2, instruction)
            check_decoder(model, gold, f"{name}.", row, prompt, latents)
            text = model.paraphrase(latents, max_tokens=24, instruction=instruction)
            assert text == run["texts"][row]
            if name == "p3":  # the default instruction
                assert model.paraphrase(latents, max_tokens=24) == text


def check_decoder(
    model: Clara,
    gold: Golden,
    name: str,
    row: int,
    prompt: DecoderPrompt,
    latents: mx.array,
    *,
    trained: str | None = None,
) -> None:
    """Prompt ids, embeddings after overwriting, and the first token's raw logits."""
    assert prompt.ids == gold.ids(f"{name}dec_", row)
    embeds = f"{name}inputs_embeds"
    if embeds in gold.arrays and row < gold[embeds].shape[0]:
        wanted = gold[embeds][row][-len(prompt.ids) :]
        close(model._decoder.inputs_embeds(prompt, latents), wanted, STATES)
    first = logits(model, prompt, latents)[-1]
    close(first, gold[f"{trained or name}first_logits"][row], LOGITS)


def check_tokens(
    model: Clara, gold: Golden, name: str, row: int, question: str, latents: mx.array
) -> None:
    """All greedy token ids, up to and with ``</s>``."""
    assert gold[f"{name}step_margins"][row].min().item() > LOGIT_NOISE
    wanted = gold[f"{name}token_ids"][row].tolist()
    if 2 in wanted:
        wanted = wanted[: wanted.index(2) + 1]
    responses = list(model.stream_responses(question, latents, len(wanted)))
    assert [response.token for response in responses] == wanted
