"""What LLMLingua-2 is compared on with the package ``llmlingua``, and how that is run.

Nothing here imports the package before `run_original` is called.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from token_classifiers import GOLDEN
from tokenizers import Tokenizer

TEXTS = {
    "test run": (
        "FAILED tests/shop/test_prices.py::test_rounding[eur] - AssertionError: 12.50 != 12.49\n"
        "==== 1 failed, 27 passed, 3 skipped in 4.51s ====\n"
    ),
    "prose": (
        "The meeting was opened at nine. We want the project to succeed, right? So, we should "
        "consider revising the timeline!\n\nEveryone agreed on the new budget of 1,500 euro."
    ),
    "unicode": (
        "Größe und Straße \u2014 naïve café, 新闻内容 海口市疾病预防控制中心 привет мир 🎉 ok\n"
        "\tdone ## # ### end \u200b x"
    ),
    "special tokens": "a <s> b </s> [SEP] c [CLS] [UNK] d <unk> [NEW3] e",
    "long": "".join(
        f"src/app/main{i}.py:{i * 7}: error: Incompatible return value type (got 'str')\n"
        for i in range(24)
    ),
    "long without an end": "word " * 560,
    "empty": "",
}
SETTINGS: list[dict[str, Any]] = [
    {"rate": 0.5},
    {"rate": 0.2, "force_tokens": ["\n", ".", "?", "!"]},
    {"rate": 0.7, "force_reserve_digit": True},
    {
        "rate": 0.4,
        "force_tokens": ["\n", "::test", "error", "."],
        "force_reserve_digit": True,
        "drop_consecutive": True,
    },
    {"rate": 1.0},
    {"target_token": 12},
]
#: Numbers of the settings that long texts, which take long, are compared with.
FOR_LONG_TEXTS = (0, 3)


class Counter:
    """Counts tokens with an encoder's own tokenizer, in place of GPT-3.5's, which is no file here.

    The package downloads that one; it decides only what a prompt is counted by.
    """

    def __init__(self, kind: str) -> None:
        self._tokenizer = Tokenizer.from_file(str(GOLDEN / kind / "tokenizer.json"))

    def encode(self, text: str, /) -> Sequence[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def ends(self, text: str, /) -> list[int]:
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]


def run_original(kind: str, folder: Path) -> dict[str, Any]:
    """What the package gives for each text and each of the settings.

    Args:
        kind: ``bert`` or ``xlm-roberta``.
        folder: A checkpoint of that kind, in a folder whose name the package knows it by.

    Returns:
        JSON values: ``inputs`` (the encoder's ids and probabilities by text), and ``cases``.
    """
    import tiktoken
    from llmlingua import PromptCompressor

    tiktoken.encoding_for_model = lambda _: Counter(kind)
    compressor = PromptCompressor(str(folder), device_map="cpu", use_llmlingua2=True)
    seen: list[dict[str, Any]] = []
    forward = compressor.model.forward

    def watched(input_ids: Any, attention_mask: Any) -> Any:
        output = forward(input_ids=input_ids, attention_mask=attention_mask)
        kept = output.logits.softmax(-1)[..., 1]
        for ids, mask, row in zip(input_ids, attention_mask, kept, strict=True):
            length = int(mask.sum())
            probabilities = [round(p, 6) for p in row[:length].tolist()]
            seen.append({"ids": ids[:length].tolist(), "probabilities": probabilities})
        return output

    compressor.model.forward = watched
    inputs: dict[str, Any] = {}
    cases = []
    for name, text in TEXTS.items():
        for number, settings in enumerate(SETTINGS):
            if not text and "target_token" in settings:
                continue  # the package divides by zero
            if name.startswith("long") and number not in FOR_LONG_TEXTS:
                continue
            seen.clear()
            found = compressor.compress_prompt_llmlingua2(
                text, return_word_label=True, word_sep="\0", label_sep="\1", **settings
            )
            labelled = found["fn_labeled_original_prompt"].split("\0")
            if number == 0:
                inputs[name] = list(seen)
            case = {"text": name, "settings": number, "compressed": found["compressed_prompt"]}
            if seen:  # with a rate of 1 nothing is rated
                case["kept"] = "".join(one.rpartition("\1")[2] for one in labelled)
            cases.append(case)
    return {"inputs": inputs, "cases": cases}


def load_golden(kind: str) -> dict[str, Any]:
    """What `run_original` gave when the golden was made."""
    content: dict[str, Any] = json.loads((GOLDEN / kind / "golden.json").read_text())
    return content
