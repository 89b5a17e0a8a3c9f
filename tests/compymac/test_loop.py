"""CompyMac's own agent loop, harness and client on our memory, before a real mlx_lm.server."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import mlx.core as mx
import pytest
import tiny_reasoner
from compymac_checkout import needs_checkout
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from served import serving

from clara_mlx.compymac import Installed, install
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Piece
from clara_mlx.memory import Memory

pytestmark = needs_checkout

PAGES = 12
TASK = "Read the log to its end. Which test of its first page failed?"
FAILED = "tests/test_quota.py::test_0_14 FAILED in 0.014s"
ANSWER = "It was test_0_14 of test_quota.py."
RESERVE, WINDOW = 200, 2600

# An answer begins where the prompt ends, without an opening: see `reasoner`.
TEMPLATE = (
    "{%- if tools %}tools:{% for tool in tools %} {{ tool.function.name }}{% endfor %}{% endif -%}"
    "{%- for message in messages -%}"
    "</s>{{ message.role }}: {{ message.content }}"
    "{%- for call in message.tool_calls or [] -%}{%- set tool_call = call.function -%}"
    '<tool_call>{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}'
    "</tool_call>"
    "{%- endfor -%}{%- endfor -%}"
)


def page(number: int) -> str:
    """A page of a log as the reasoner gets it, in the harness's envelope."""
    lines = [f"tests/test_io.py::test_{number}_{n} PASSED in 0.{n:03d}s" for n in range(14)]
    lines.append(FAILED if number == 0 else "tests/test_io.py::test_last PASSED in 0.014s")
    lines.append("That was the last page." if number == PAGES - 1 else "More follows.")
    return "\n".join(['<tool-result name="next_page">', *lines, "</tool-result>"])


def called(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def reasoner(path: Path, tokenizer: Path, says: dict[str, str]) -> Path:
    """A qwen3_moe folder: after a prompt that ends with a key it says the value, and no more.

    Keys and values are tokens of their own, and its layers add nothing to a token's embedding. So
    what comes next depends on the last token alone, however long the prompt and whatever is in it.
    """
    path.mkdir()
    shutil.copy(tokenizer / "tokenizer.json", path)
    options = json.loads((tokenizer / "tokenizer_config.json").read_text())
    first = tiny_reasoner.CONFIG["vocab_size"]
    tokens = {text: first + n for n, text in enumerate(dict.fromkeys([*says, *says.values()]))}
    kind = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    options["added_tokens_decoder"] |= {str(id): {"content": t, **kind} for t, id in tokens.items()}
    options["chat_template"] = TEMPLATE
    (path / "tokenizer_config.json").write_text(json.dumps(options))
    config = tiny_reasoner.CONFIG | {"vocab_size": first + len(tokens)}
    (path / "config.json").write_text(json.dumps(config))
    model, _ = load_model(path, lazy=True, strict=False)
    for layer in model.model.layers:
        for out in (layer.self_attn.o_proj, layer.mlp.switch_mlp.down_proj):
            out.weight = mx.zeros_like(out.weight)
    embeddings, head = (mx.zeros((config["vocab_size"], config["hidden_size"])) for _ in range(2))
    for place, (text, id) in enumerate(tokens.items()):
        embeddings[id, place] = 1
        head[tokens[says[text]] if text in says else config["eos_token_id"], place] = 1
    model.model.embed_tokens.weight, model.lm_head.weight = embeddings, head
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """It reads page after page, then a line of the first one by its handle, then it answers."""
    path = tmp_path_factory.mktemp("reasoner")
    with Memory.open(path / "scratch.db") as memory:  # handles are the same in every file
        first = Piece("tool", "content", page(0), "next_page", "{}")
        handle = Freezer(memory).observe("compymac", first)
    line = page(0).split("\n").index(FAILED) + 1
    more = called("next_page")
    says = {
        TASK: more,
        "More follows.\n</tool-result>": more,
        "the last page.\n</tool-result>": called("expand", handle=handle, start_line=line, lines=1),
        f"{FAILED}\n</tool-result>": ANSWER,
    }
    return reasoner(path / "model", golden / "tiny-base", says)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    with tiny_reasoner.served(model) as url:
        yield url


class Heard:
    """CompyMac's own client; what it sent, and what the server counted, is kept."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.sent: list[list[dict[str, Any]]] = []
        self.usage: list[dict[str, Any]] = []
        self.tools: list[Any] = []

    def chat(self, messages: Any, tools: Any = None, tool_choice: Any = None) -> Any:
        self.sent.append(json.loads(json.dumps(messages)))
        self.tools = tools
        answer = self._client.chat(messages, tools, tool_choice)
        self.usage.append(answer.raw_response["usage"])
        return answer


def harness_of(its: Any, folder: Path) -> Any:
    """Its harness with its own tools, and one more that gives the log's next page."""
    harness = its("local_harness").LocalHarness(full_output_dir=folder)
    texts = iter(["\n".join(page(number).split("\n")[1:-1]) for number in range(PAGES)])
    schema = its("harness").ToolSchema("next_page", "The log's next page.", [], [], {})
    harness.register_tool("next_page", schema, lambda: next(texts))
    return harness


@contextmanager
def remote(server: str) -> Iterator[str]:
    """The server as a vendor would offer it: under a path, for a key, by the model's own name."""

    class Vendor(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, kind, answer = 401, "application/json", b'{"error": {"message": "who?"}}'
            named = body.pop("model") == "qwen3-235b-a22b-instruct-2507"
            if named and self.headers["Authorization"] == "Bearer venice-key":
                path = server + self.path.removeprefix("/api/v1")
                got = httpx2.post(path, json=body, timeout=60, trust_env=False)
                status, kind, answer = got.status_code, got.headers["content-type"], got.content
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    vendor = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    threading.Thread(target=vendor.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{vendor.server_port}/api/v1"
    vendor.shutdown()
    vendor.server_close()


@contextmanager
def endpoint(through: str, server: str, db: Path) -> Iterator[str]:
    """Where CompyMac is pointed at: the server, or a gateway before it on CompyMac's own memory."""
    if through == "server":
        yield server
        return
    with ExitStack() as open_until_then:
        options, environment = ["--endpoint", server], {}
        if through == "gateway before a remote":
            options[1] = open_until_then.enter_context(remote(server))
            options += ["--reasoner-model", "qwen3-235b-a22b-instruct-2507"]
            environment["CLARA_MLX_REASONER_KEY"] = "venice-key"
        options += ["--reserve", str(RESERVE)]
        served = serving(db, *options, **environment)
        url, process = open_until_then.enter_context(served)
        yield url
        process.terminate()  # gracefully: what it has seen, it remembers first
        assert process.wait(30) == 0


@pytest.mark.parametrize("through", ["server", "gateway", "gateway before a remote"])
def test_its_loop_before_a_real_server(
    compymac: Any,
    through: str,
    tmp_path: Path,
    model: Path,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONTEXT_TOKEN_BUDGET", str(WINDOW))
    monkeypatch.setenv("CONTEXT_RESERVED_FOR_RESPONSE", str(RESERVE))
    monkeypatch.setenv("CONTEXT_CHARS_PER_TOKEN", "2")
    monkeypatch.setenv("CLARA_MLX_REASONER", str(model))  # the gateway's tokenizer, too
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    loops = compymac("agent_loop")
    config = loops.AgentConfig(
        max_steps=30,
        system_prompt="Be exact.",
        use_memory=True,
        use_active_toolset=True,
        memory_keep_recent_turns=2,
    )
    db = tmp_path / "memory.db"
    with endpoint(through, server, db) as url:
        asked = compymac("config").LLMConfig(url, "", "default_model", 0.0, 64)
        with compymac("llm").LLMClient(asked, max_retries=0) as client:
            heard = Heard(client)
            loop = loops.AgentLoop(harness_of(compymac, tmp_path / "outputs"), heard, config)
            installed = install(loop)
            assert loop.run(TASK) == ANSWER
        if through != "server":
            status = httpx2.get(f"{url}/memory/status", trust_env=False).json()
            (figures,) = status["conversations"]
            # It saw what was sent and changed nothing: CompyMac's manager had made it fit.
            assert figures["requests"] == figures["rounds"] == len(heard.sent)
            assert figures["tokens_sent"] == sum(u["prompt_tokens"] for u in heard.usage)
            assert figures["compactions"] == figures["memory_calls"] == 0
    fits(heard, installed, loop.state.messages)
    is_kept(installed, loop.state.messages)


def fits(heard: Heard, installed: Installed, messages: list[Any]) -> None:
    """What the server was sent, by its own counts."""
    count = installed.manager.context.counter.prompt
    compressions, before = 0, 0
    earlier: list[Any] = []
    for sent, usage in zip(heard.sent, heard.usage, strict=True):
        tokens = usage["prompt_tokens"]
        assert tokens == count(sent, heard.tools)
        assert tokens <= WINDOW - RESERVE
        assert sent[:2] == heard.sent[0]
        summaries = [m for m in sent if m["content"].startswith("[MEMORY SUMMARY")]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        if sent[: len(earlier)] == earlier:
            # All that was sent the last time, the server still had.
            assert cached >= before
        else:
            compressions += 1
            assert cached < before
        assert len(summaries) == (compressions > 0)
        earlier, before = sent, tokens
    assert compressions == installed.manager.state.compression_count
    assert 2 <= compressions <= PAGES // 3
    whole = [message.to_dict() for message in installed.manager.full_history(messages)]
    assert count(whole, heard.tools) > 1.5 * WINDOW


def is_kept(installed: Installed, messages: list[Any]) -> None:
    """Every output as it came, and nothing else but what stands for earlier messages."""
    pages = [page(number) for number in range(PAGES)]
    *read, expanded = (
        m.content for m in installed.manager.full_history(messages) if m.role == "tool"
    )
    assert read == pages and expanded.endswith(f"{FAILED}\n</tool-result>")
    exported = io.StringIO()
    installed.memory.export(exported)
    kept = [json.loads(line) for line in exported.getvalue().splitlines()]
    originals = {installed.memory.original(one["handle"]) for one in kept}
    assert originals >= set(pages)
    folds = [one for one in kept if "fold" in one["metadata"]]
    assert len(folds) == installed.manager.state.compression_count
