"""What an edit costs: a full-attention and a hybrid reasoner behind a real mlx_lm.server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_reasoner
from gateway import Gateway, gateway
from sizes import SIZE

from clara_mlx.context import Budget, ChatTemplate
from clara_mlx.context.cache_kinds import cache_of
from clara_mlx.serve.reasoner_cache import ReasonerCache, stated_cache

RUN = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
OUTPUT = "\n".join(f"tests/test_io.py::test_{n} PASSED" for n in range(32))
RULES = "\n".join(f"Rule {n}: keep the tests of part {n} green and say so." for n in range(38))
# Experts, and more heads, would only take time here.
SMALL = {"mlp_only_layers": [0, 1], "num_attention_heads": 1, "num_key_value_heads": 1}
SHAPES = {"trimmable": tiny_reasoner.CONFIG | SMALL, "whole": tiny_reasoner.HYBRID | SMALL}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> dict[str, Path]:
    """A model with random weights for each kind of cache."""
    path = tmp_path_factory.mktemp("reasoners")
    return {
        kind: tiny_reasoner.folder(path / kind, golden / "tiny-base", [], shape)
        for kind, shape in SHAPES.items()
    }


@pytest.fixture(scope="module")
def server(models: dict[str, Path]) -> Iterator[str]:
    with tiny_reasoner.served(models["trimmable"]) as url:
        yield url


def converse(gate: Gateway, turns: int) -> list[tuple[int, int, int, bool]]:
    """An agent's conversation, turn by turn: tokens sent, expected and reported as cached."""
    talk: list[dict[str, Any]] = [
        {"role": "system", "content": RULES},
        {"role": "user", "content": "Run the tests."},
    ]
    found = []
    for turn in range(turns):
        function = {"name": "run", "arguments": json.dumps({"command": f"pytest -k {turn}"})}
        call = {"id": f"c{turn}", "type": "function", "function": function}
        talk += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{turn}", "content": f"{turn}\n{OUTPUT}"},
        ]
        answer = gate.chat(talk, max_tokens=1, extra_headers={"x-clara-session": "s"})
        expected = int(answer.headers["x-clara-cached-expected"])
        reported = answer.usage.prompt_tokens_details.cached_tokens
        compacted = int(answer.headers["x-clara-compacted"]) > 0
        found.append((answer.usage.prompt_tokens, expected, reported, compacted))
    return found


@pytest.mark.parametrize("kind", SHAPES if SIZE == "full" else ["whole"])
def test_what_the_server_reports_is_what_was_expected(
    tmp_path: Path, models: dict[str, Path], server: str, kind: str
) -> None:
    """Nothing states the kind: the first two edits show it, and then it is reckoned with."""
    budget = Budget(window=4096, reserve=256)
    model = {"model": str(models[kind])}
    counter = ChatTemplate(models[kind])
    with gateway(
        tmp_path, server, remote=model, counter=counter, budget=budget, offer="never"
    ) as gate:
        rows = converse(gate, 9)
        state = gate.status()["gateway"]["reasoner_cache"]
        metrics = gate.http.get("/metrics").text
    edits = [row for row in rows if row[3]]
    assert len(edits) >= 3
    for tokens, expected, reported, compacted in rows[1:]:
        if not compacted:
            assert abs(reported - expected) < 0.35 * tokens and reported > 0.6 * tokens
    for _, expected, reported, _ in edits[2:]:
        assert abs(reported - expected) < max(60, 0.1 * reported)
        assert (expected == 0) == (kind == "whole")
    assert state == {"kind": kind, "known_by": "observed"}
    assert f'clara_reasoner_cache{{kind="{kind}",known_by="observed"}} 1.0' in metrics


# -- learning --------------------------------------------------------------------------------------

KEPT, LOST, APPENDED, MISSED = (
    (2000, 1990, False),
    (2000, 12, False),
    (4000, 3990, True),
    (4000, 0, True),
)


def learn(*prompts: tuple[int, int, bool], cache: ReasonerCache | None = None) -> ReasonerCache:
    """A cache that saw prompts: tokens in common, tokens reported, whether it was appended to."""
    cache = cache or ReasonerCache()
    for common, reported, appended in prompts:
        cache.observe(common, reported, appended=appended)
    return cache


@pytest.mark.parametrize(
    ("prompts", "kind", "known_by"),
    [
        ([APPENDED, APPENDED, LOST, APPENDED, LOST], "whole", "observed"),
        ([APPENDED, APPENDED, KEPT, APPENDED, KEPT], "trimmable", "observed"),
        ([APPENDED, APPENDED, LOST, APPENDED], "trimmable", "assumed"),  # once may be chance
        ([APPENDED, APPENDED, LOST, MISSED, APPENDED, LOST], "trimmable", "assumed"),  # evicted
        ([MISSED, LOST, MISSED, LOST, MISSED, LOST], "trimmable", "assumed"),  # caches nothing
        ([LOST, LOST, LOST], "trimmable", "assumed"),
        ([APPENDED, APPENDED, LOST, KEPT, LOST, KEPT], "trimmable", "assumed"),
        ([APPENDED, APPENDED, *[(900, 0, False)] * 4], "trimmable", "assumed"),  # too short
        ([APPENDED, APPENDED, LOST, LOST, KEPT, KEPT], "trimmable", "observed"),  # another server
    ],
)
def test_only_clear_signs_are_believed(prompts: list[Any], kind: str, known_by: str) -> None:
    cache = learn(*prompts)
    assert (cache.kind, cache.known_by) == (kind, known_by)


def test_what_is_stated_is_final(tmp_path: Path, models: dict[str, Path]) -> None:
    many = [APPENDED, APPENDED] + [LOST, KEPT, KEPT, LOST, LOST] * 3
    for kind, path in models.items():
        stated = stated_cache("auto", path)
        assert stated.for_status() == {"kind": kind, "known_by": "config"}
        assert learn(*many, cache=stated).kind == kind
        assert stated_cache("whole", path).for_status() == {"kind": "whole", "known_by": "setting"}
    (tmp_path / "tokenizer.json").write_text("{}")
    for nothing in (None, tmp_path):
        assert stated_cache("auto", nothing).known_by == "assumed"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "qwen3_moe", "num_experts": 8}, "trimmable"),
        ({"model_type": "qwen3_5", "text_config": {"full_attention_interval": 4}}, "whole"),
        (
            {"model_type": "qwen2", "sliding_window": 32768, "use_sliding_window": False},
            "trimmable",
        ),
        ({"model_type": "llama", "layer_types": ["full_attention"] * 2}, "trimmable"),
        ({"model_type": "llama", "layer_types": ["full_attention", "sliding_attention"]}, "whole"),
        (
            {"model_type": "granitemoehybrid", "mamba_d_state": 8, "layer_types": ["attention"]},
            "trimmable",
        ),
        ({"model_type": "granitemoehybrid", "layer_types": ["attention", "mamba"]}, "whole"),
        ({"model_type": "gpt_oss", "sliding_window": 128}, "whole"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, "trimmable"),
        ({"model_type": "rwkv7"}, "whole"),
        ({"model_type": "kimi_linear", "linear_attn_config": {"kda_layers": [1]}}, "whole"),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M*M-"}, "whole"),
        ({"layer_types": "odd", "text_config": 3, "model_type": None}, "trimmable"),
    ],
)
def test_the_config_says_it(config: dict[str, Any], kind: str) -> None:
    assert cache_of(config) == kind
