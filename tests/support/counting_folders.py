"""Folders with a tokenizer and a chat template, as a reasoner's has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from trajectories import report

TEMPLATE = """
{%- if tools %}<|begin|>tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == 'refused' %}{{ raise_exception('no such role') }}{% endif %}
{{- '<|begin|>' + m.role + '\n' + m.content }}
{%- for c in m.tool_calls or [] %}
{{ '<call>' + c.function.name }}
{%- for k, v in c.function.arguments | items %} {{ k }}={{ v }}{% endfor %}
{%- endfor %}{{ '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"""

#: Never ends for conversations of more than five messages.
ENDLESS = (
    """
{%- if messages | length > 5 %}
{%- for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}
{%- endfor %}{% endfor %}{% endif %}"""
    + TEMPLATE
)

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]


def tokenizer_folder(path: Path) -> Path:
    """A tokenizer's folder as mlx-lm reads it: byte-level BPE and a template with tools."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([report(n, 40) for n in range(8)], trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    return path


def with_template(folder: Path, path: Path, template: str | None) -> Path:
    """A copy of a folder with another chat template, or with none."""
    shutil.copytree(folder, path)
    file = path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("chat_template")
    file.write_text(json.dumps(config | ({"chat_template": template} if template else {})))
    return path
