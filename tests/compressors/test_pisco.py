"""PISCO: parity with its original PyTorch code, and what a folder of it can do and can't."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from foreign_bases import convert_fresh, make_base
from golden_files import GOLDEN
from train_runs import QUESTIONS, write_config
from transformers import PreTrainedTokenizerFast

import clara_mlx
from clara_mlx.compressors.pisco import Pisco
from clara_mlx.convert import Source, convert
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.pth_writer import write_pth
from clara_mlx.errors import CheckpointError, ClaraError
from clara_mlx.memory import Memory
from clara_mlx.train.run import Run

CHECKPOINT = GOLDEN / "pisco" / "checkpoint"
BASE = GOLDEN / "tiny-base"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "pisco" / "golden.json").read_text())

# float32 noise of the original, many times over (tests/golden/README.md).
LATENTS, LOGITS = 1e-4, 2e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("pisco") / "model"
    convert(Source.open(CHECKPOINT, base=BASE), to, dtype="float32")
    return to


@pytest.fixture(scope="module")
def pisco(folder: Path) -> Pisco:
    loaded = clara_mlx.load(folder)
    assert isinstance(loaded, Pisco)
    return loaded


@pytest.fixture(scope="module")
def gold() -> dict[str, mx.array]:
    arrays: Any = mx.load(str(GOLDEN / "pisco" / "golden.safetensors"))
    return arrays


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def configure(checkpoint: Path, **fields: Any) -> Path:
    file = checkpoint / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return checkpoint


# -- parity --------------------------------------------------------------------------------------


def test_documents(pisco: Pisco, gold: dict[str, mx.array]) -> None:
    """As the original compresses them, one of them cut at its most tokens."""
    texts = EXPECTED["documents"]
    for text, row, kept in zip(texts, gold["encoder_ids"], gold["encoder_mask"], strict=True):
        ids = pisco.prompts.encoder_input(pisco.tokenizer.encode(text), truncate=True)
        assert ids == row.tolist()[-int(kept.sum()) :]
    latents = pisco.encode(texts, truncate=True)
    assert latents.shape == (len(texts), 8, 64)
    assert mx.allclose(latents, gold["latents"], atol=LATENTS, rtol=0)
    with pytest.raises(clara_mlx.TextTooLong):
        pisco.encode(texts)


@pytest.mark.parametrize("number", range(len(EXPECTED["runs"])))
def test_answers(pisco: Pisco, gold: dict[str, mx.array], number: int) -> None:
    run = EXPECTED["runs"][number]
    documents = gold["latents"][mx.array(run["documents"])]
    prompt = pisco.prompts.answer(run["question"], len(documents))
    assert prompt.ids == gold[f"run{number}.prompt_ids"].tolist()
    responses = list(pisco.stream_responses(run["question"], documents, 12))
    assert [response.token for response in responses] == gold[f"run{number}.output_ids"].tolist()
    logits = gold[f"run{number}.logits"]
    expected = logits - mx.logsumexp(logits)
    assert mx.allclose(responses[0].logprobs, expected, atol=LOGITS, rtol=0)
    assert "".join(response.text for response in responses) == run["text"]


def test_the_ends_of_an_encoder_input_are_the_tokenizers(tmp_path: Path) -> None:
    """Llama 3.1 names another end first in its config than in its tokenizer."""
    base = make_base("llama3", tmp_path / "base")
    source = Source.open(_on_another_base(tmp_path / "checkpoint", base), base=base)
    convert(source, tmp_path / "to", dtype="float32")
    pisco: Pisco = clara_mlx.load(tmp_path / "to")
    special = json.loads((base / "tokenizer_config.json").read_text())
    words: Any = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "to" / "tokenizer.json"))
    text = "worker 3 failed"
    marked = f"<ENC>{special['bos_token']}{text}{special['eos_token']}"
    expected = words.encode(marked, add_special_tokens=False) + pisco.config.memory_ids
    assert pisco.prompts.encoder_input(pisco.tokenizer.encode(text)) == expected
    assert isinstance(pisco.answer("Which?", pisco.encode([text]), 2), str)


def _on_another_base(to: Path, base: Path) -> Path:
    """A PISCO checkpoint on a base: adapters that are fresh, as training makes them."""
    fresh = convert_fresh(base, to.parent / "fresh")
    shutil.copytree(fresh.description["source"]["checkpoint"], to)
    return configure(to, model_type="COCOM", compr_model_name=None)


# -- what a folder is ----------------------------------------------------------------------------


def test_a_quantised_folder(cli: Callable[..., Any], tmp_path: Path, pisco: Pisco) -> None:
    to = tmp_path / "q8"
    said = cli("convert", CHECKPOINT, "--base", BASE, "--to", to, "-q", 8, "--verify").output
    assert "agrees with its source" in said
    assert "files are as they were made" in cli("inspect", to, "--check").output
    described = json.loads(cli("inspect", to, "--json").output)
    assert described["compressor"] == "pisco"
    quantised: Pisco = clara_mlx.load(to)
    assert isinstance(quantised, Pisco) and quantised.fingerprint != pisco.fingerprint
    texts = EXPECTED["documents"][1:3]
    a, b = (model.encode(texts).reshape(2, -1) for model in (pisco, quantised))
    assert ((a * b).sum(1) > 0.99 * mx.linalg.norm(a, axis=1) * mx.linalg.norm(b, axis=1)).all()


def test_the_licence_is_recorded_and_shown(
    cli: Callable[..., Any], checkpoint: Path, tmp_path: Path
) -> None:
    said = cli("convert", checkpoint, "--base", BASE, "--to", tmp_path / "a")
    assert "naver's own PISCO models are under CC BY-NC 4.0" in said.output
    # As naver's cards do, whose head and text differ.
    card = "---\nlicense: cc-by-4.0\n---\n# PISCO\n\nThis work is licensed under CC BY-NC\n4.0.\n"
    (checkpoint / "README.md").write_text(card)
    said = cli("convert", checkpoint, "--base", BASE, "--to", tmp_path / "b")
    assert "cc-by-nc-4.0" in said.output and "states no licence" not in said.output
    description = json.loads((tmp_path / "b" / "clara.json").read_text())
    assert description["licences"]["checkpoint"] == "cc-by-nc-4.0"
    assert "cc-by-nc-4.0" in cli("inspect", tmp_path / "b").output
    said = cli("upload", tmp_path / "b", "--upload-repo", "me/pisco", ok=False)
    assert said.exit_code and "not for commercial use" in said.output


def test_one_adapter_for_both(checkpoint: Path, tmp_path: Path) -> None:
    """``training_form: both``: the original compresses and answers with its decoder adapter."""
    content = read_pth(checkpoint / "adapters.pth")
    only = {key: ref.read() for key, ref in content["decoder_adapter"].items()}
    write_pth(checkpoint / "adapters.pth", {"decoder_adapter": only})
    with pytest.raises(CheckpointError, match="missing adapter encoder_adapter"):
        Source.open(checkpoint, base=BASE)
    source = Source.open(configure(checkpoint, training_form="both"), base=BASE)
    convert(source, tmp_path / "to", dtype="float32")
    arrays = [
        mx.load(str(f)) for f in sorted((tmp_path / "to" / "adapters").glob("*/*.safetensors"))
    ]
    assert len(arrays) == 2
    one, other = arrays
    assert isinstance(one, dict) and isinstance(other, dict)
    assert all(mx.array_equal(one[key], other[key]) for key in one)


RELATIVES: list[tuple[dict[str, Any], str]] = [
    ({"compr_model_name": "mistral_trimmed"}, "compressed by another network"),  # OSCAR
    ({"lora": False}, "trained whole"),  # COCOM
    ({"training_form": "compressor"}, "training_form 'compressor' is not one of PISCO's"),
    ({"kbtc_training": True}, "kbtc_training adds a token"),
]


@pytest.mark.parametrize(("fields", "problem"), RELATIVES)
def test_relatives_are_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(CheckpointError, match=problem) as error:
        convert(Source.open(configure(checkpoint, **fields), base=BASE), tmp_path / "to")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "to").exists()


def test_it_is_not_trained_as_clara_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClaraError, match="a model of pisco; the stages are CLaRa's"):
        Run.open(write_config(tmp_path, folder, QUESTIONS))


def test_questions_are_not_encoded(pisco: Pisco) -> None:
    assert not pisco.searches
    with pytest.raises(ClaraError, match="no encoder for questions"):
        pisco.encode_query("a question")


def test_a_memory_finds_by_words_and_answers_from_latents(pisco: Pisco, tmp_path: Path) -> None:
    failure = EXPECTED["documents"][2]
    with Memory.open(tmp_path / "memory.db", pisco) as memory:
        handle = memory.remember(failure, source="pytest")
        memory.remember("Nothing of the kind happened on the other machine.")
        memory.flush()
        assert memory.status().compressed == 2 and not memory.status().failed
        (hit, *_) = memory.recall("FileNotFoundError config.toml")
        assert hit.handle == handle and hit.cosine is None
        answer = memory.ask("Which test failed with FileNotFoundError?", k=1, max_tokens=4)
        assert answer.evidence[0].handle == handle and answer.tokens_read == 8 + 1
        latents = pisco.encode(failure)
        assert answer.text == pisco.answer("Which test failed with FileNotFoundError?", latents, 4)
        assert memory.original(handle) == failure
