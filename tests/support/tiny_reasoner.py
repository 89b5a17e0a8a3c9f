"""A tiny qwen3_moe reasoner that calls a tool and reads its result, served by mlx_lm.server.

It learns a few hundred bytes of conversation by heart, so that the real server has something to
render, cache, generate and parse. To anything else it answers with random words.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten
from mlx_lm import tokenizer_utils
from mlx_lm.utils import load_model

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 643,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
#: The same with recurrent layers, whose states can't be rewound: one layer in two has attention.
HYBRID: dict[str, Any] = CONFIG | {
    "model_type": "qwen3_next",
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "shared_expert_intermediate_size": 64,
    "partial_rotary_factor": 0.25,
    "full_attention_interval": 2,
}
# Like Qwen3's template, but shorter: tools by name only, results as a user's turn. Like Mistral's,
# it wants users and the assistant to take turns, calls and results aside.
TEMPLATE = (
    "{%- set ns = namespace(turn='assistant') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role in ('user', 'assistant') and not message.tool_calls -%}"
    "{%- if message.role == ns.turn -%}"
    "{{ raise_exception('conversation roles must alternate user/assistant/user/assistant') }}"
    "{%- endif -%}{%- set ns.turn = message.role -%}{%- endif -%}{%- endfor -%}"
    "{%- if tools %}tools:{% for tool in tools %} {{ tool.function.name }}{% endfor %}\n"
    "{% endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}"
    "user: <tool_response>{{ message.content }}</tool_response></s>"
    "{%- else -%}{{ message.role }}: {{ message.content }}"
    "{%- for tool_call in message.tool_calls or [] -%}"
    "{%- if tool_call.function %}{% set tool_call = tool_call.function %}{% endif -%}"
    '<tool_call>{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}'
    "</tool_call>{%- endfor -%}</s>{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}assistant:{% endif -%}"
)


def folder(
    path: Path,
    tokenizer: Path,
    learnt: list[tuple[list[Any], Any, str]],
    shape: dict[str, Any] = CONFIG,
) -> Path:
    """Make a model folder; after (messages, tools) the model says the text, token for token."""
    path.mkdir()
    shutil.copy(tokenizer / "tokenizer.json", path)
    config = json.loads((tokenizer / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    (path / "config.json").write_text(json.dumps(shape))
    mx.random.seed(0)
    model, _ = load_model(path, lazy=True, strict=False)
    _learn(model, path, learnt)
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return path


def _learn(model: Any, path: Path, learnt: list[tuple[list[Any], Any, str]]) -> None:
    words = tokenizer_utils.load(path)
    pairs = []
    for messages, tools, text in learnt:
        prompt = words.apply_chat_template(messages, tools=tools, add_generation_prompt=True)
        answer = words.encode(" " + text, add_special_tokens=False)
        pairs.append((prompt, [*answer, 2]))
    optimizer = optim.Adam(learning_rate=6e-3)

    def loss(model: Any, prompt: list[int], answer: list[int]) -> tuple[mx.array, mx.array]:
        logits = model(mx.array([prompt + answer[:-1]]))[0, len(prompt) - 1 :]
        losses = nn.losses.cross_entropy(logits, mx.array(answer))
        return losses.mean(), losses.max()

    step = nn.value_and_grad(model, loss)
    for _ in range(400):
        worst = 0.0
        for prompt, answer in pairs:
            (_, largest), gradient = step(model, prompt, answer)
            optimizer.update(model, gradient)
            mx.eval(model.parameters(), optimizer.state)
            worst = max(worst, largest.item())
        if worst < 0.3:  # every token has three quarters of the probability
            return
    raise AssertionError(f"not learnt: {worst}")


@contextmanager
def served(path: Path, *options: str) -> Iterator[str]:
    """Serve a model folder with ``mlx_lm.server``; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(path), "--port", str(port)]
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    with (path / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert process.poll() is None, (path / "server.log").read_text()
                try:
                    if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                        break
                except httpx2.TransportError:
                    time.sleep(0.1)
            yield url + "/v1"
        finally:
            process.terminate()
            process.wait(20)
