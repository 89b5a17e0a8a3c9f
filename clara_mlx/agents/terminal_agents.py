"""The agents of the terminal: where each keeps its settings, and what is set in them.

Each agent compacts by itself when it believes that its window is full. It is told a window that is
larger by so much that this comes after the gateway's compaction (`Gateway.window_behind`), and is
then a net below it.
"""

from __future__ import annotations

from typing import Any

from clara_mlx.agents.agent import (
    NAME,
    Agent,
    Gateway,
    Machine,
    Setting,
    SettingsFile,
    settings,
)

# Claude Code compacts this many tokens before the end of its window: 20,000 for the answer, 13,000
# as a margin.
_CLAUDE_RESERVED = 40_000

# Claude Code raises a smaller compaction window to 100,000; its own default is 200,000.
_CLAUDE_LEAST = 200_000

# opencode and CompyMac keep this many tokens free for an answer.
_ANSWER = 4096


def _claude(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    folder = machine.folder_named("CLAUDE_CONFIG_DIR", ".claude")
    window = max(_CLAUDE_LEAST, gateway.window_behind(reserved=_CLAUDE_RESERVED))
    values = {
        "ANTHROPIC_BASE_URL": gateway.url,
        "ANTHROPIC_AUTH_TOKEN": gateway.key,
        "ANTHROPIC_MODEL": gateway.model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": gateway.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": gateway.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": gateway.model,
        "CLAUDE_CODE_SUBAGENT_MODEL": gateway.model,
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",  # it changes in every request
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(window),
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(window),
        # Its settings from elsewhere could change the window; updates are then made by hand.
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "API_TIMEOUT_MS": "900000",  # as long as the gateway waits for the reasoner
        # The same for a stream that has begun; a long prompt is read in silence, and pings of the
        # gateway don't count.
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "900000",
    }
    files = [
        SettingsFile(
            folder / "settings.json",
            "json",
            settings(*((("env", name), value) for name, value in values.items())),
        )
    ]
    if gateway.mcp:
        server: dict[str, Any] = {"type": "http", "url": gateway.mcp_url}
        if gateway.headers:
            server["headers"] = gateway.headers
        beside = "CLAUDE_CONFIG_DIR" in machine.environment
        files.append(
            SettingsFile(
                (folder if beside else machine.home) / ".claude.json",
                "json",
                settings((("mcpServers", NAME), server)),
            )
        )
    return files


def _codex(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    provider: dict[str, Any] = {
        # With exactly this name Codex has the gateway compact, which needs no model.
        "name": "OpenAI",
        "base_url": gateway.v1,
        "wire_api": "responses",
        "stream_idle_timeout_ms": 900_000,
    }
    if gateway.token:
        provider["experimental_bearer_token"] = gateway.token
    given: list[tuple[tuple[str, ...], Any]] = [
        (("model",), gateway.model),
        (("model_provider",), NAME),
        # Codex takes 95% of its window and compacts at 90% of that.
        (("model_context_window",), gateway.window_behind(0.95 * 0.9)),
        (("model_auto_compact_token_limit",), gateway.window),
        (("model_providers", NAME), provider),
    ]
    if gateway.mcp:
        server: dict[str, Any] = {"url": gateway.mcp_url}
        if gateway.headers:
            server["http_headers"] = gateway.headers
        given.append((("mcp_servers", NAME), server))
    folder = machine.folder_named("CODEX_HOME", ".codex")
    return [SettingsFile(folder / "config.toml", "toml", settings(*given))]


def _opencode(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    folder = machine.config("opencode")
    names = ("opencode.jsonc", "opencode.json", "config.json")
    file = next((folder / name for name in names if (folder / name).exists()), None)
    window = gateway.window_behind(reserved=_ANSWER)
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": NAME,
        "options": {"baseURL": gateway.v1, "apiKey": gateway.key},
        "models": {
            gateway.model: {
                "name": gateway.model,
                "tool_call": True,
                "limit": {"context": window, "output": _ANSWER},
            }
        },
    }
    model = f"{NAME}/{gateway.model}"
    given: list[tuple[tuple[str, ...], Any]] = [
        (("model",), model),
        (("small_model",), model),
        (("provider", NAME), provider),
    ]
    if gateway.mcp:
        server: dict[str, Any] = {"type": "remote", "url": gateway.mcp_url, "enabled": True}
        if gateway.headers:
            server["headers"] = gateway.headers
        given.append((("mcp", NAME), server))
    return [SettingsFile(file or folder / "opencode.json", "json", settings(*given))]


def _qwen(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    given: list[tuple[tuple[str, ...], Any]] = [
        (("security", "auth", "selectedType"), "openai"),
        (("model", "name"), gateway.model),
        (("env", "CLARA_GATEWAY_KEY"), gateway.key),
        (
            ("modelProviders", "openai", "[+]"),
            {
                "id": gateway.model,
                "name": f"{gateway.model} ({NAME})",
                "baseUrl": gateway.v1,
                "envKey": "CLARA_GATEWAY_KEY",
                # It compacts at 70% of its window.
                "generationConfig": {
                    "contextWindowSize": gateway.window_behind(0.7),
                    "timeout": 900_000,
                },
            },
        ),
    ]
    if gateway.mcp:
        server: dict[str, Any] = {"httpUrl": gateway.mcp_url}
        if gateway.headers:
            server["headers"] = gateway.headers
        given.append((("mcpServers", NAME), server))
    folder = machine.folder_named("QWEN_HOME", ".qwen")
    return [SettingsFile(folder / "settings.json", "json", settings(*given))]


def _goose(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    folder = machine.config("goose")
    provider: dict[str, Any] = {
        "name": NAME,
        "engine": "openai",
        "display_name": NAME,
        "description": "The clara-mlx gateway",
        "api_key_env": "",
        "base_url": f"{gateway.v1}/chat/completions",
        # It compacts at 80% of its window.
        "models": [{"name": gateway.model, "context_limit": gateway.window_behind(0.8)}],
        "requires_auth": False,
        "supports_streaming": True,
        "timeout_seconds": 900,
    }
    if gateway.headers:
        provider["headers"] = gateway.headers

    def choose(data: Any) -> list[Setting]:
        """Newer versions keep the choice of provider in keys of another form."""
        if "active_provider" in data:
            chosen = {"enabled": True, "model": gateway.model, "configured": True}
            found = [
                Setting(("active_provider",), NAME),
                Setting(("providers", NAME), chosen),
            ]
        else:
            found = [
                Setting(("GOOSE_PROVIDER",), NAME),
                Setting(("GOOSE_MODEL",), gateway.model),
            ]
        found.append(Setting(("GOOSE_CONTEXT_LIMIT",), gateway.window_behind(0.8)))
        if gateway.mcp:
            server = {
                "type": "streamable_http",
                "name": NAME,
                "enabled": True,
                "uri": gateway.mcp_url,
                "headers": gateway.headers,
                "envs": {},
                "env_keys": [],
                "timeout": 300,
            }
            found.append(Setting(("extensions", NAME), server))
        return found

    return [
        SettingsFile(
            folder / "custom_providers" / "clara.json",
            "json",
            settings(*(((name,), value) for name, value in provider.items())),
        ),
        SettingsFile(folder / "config.yaml", "yaml", choose),
    ]


def _aider(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    model = f"openai/{gateway.model}"
    limits = {
        "max_input_tokens": gateway.window,
        "max_output_tokens": _ANSWER,
        "max_tokens": _ANSWER,
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
        "litellm_provider": "openai",
        "mode": "chat",
    }
    return [
        SettingsFile(
            machine.home / ".aider.conf.yml",
            "yaml",
            settings(
                (("model",), model),
                (("weak-model",), model),
                (("openai-api-base",), gateway.v1),
                (("openai-api-key",), gateway.key),
                (("timeout",), 900),
            ),
        ),
        SettingsFile(
            machine.home / ".aider.model.metadata.json", "json", settings(((model,), limits))
        ),
    ]


def _compymac(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    return [
        SettingsFile(
            machine.folder / ".env",
            "env",
            settings(
                (("LLM_BASE_URL",), gateway.v1),
                (("LLM_API_KEY",), gateway.key),
                (("LLM_MODEL",), gateway.model),
                (("CONTEXT_TOKEN_BUDGET",), str(gateway.window_behind(reserved=_ANSWER))),
                (("CONTEXT_RESERVED_FOR_RESPONSE",), str(_ANSWER)),
            ),
        )
    ]


def _claude_note(gateway: Gateway) -> str:
    if gateway.window >= 65_536:
        return ""
    return (
        "its tools and instructions alone take about 20,000 tokens: a window of 65,536 or more is "
        f"recommended, and this one has {gateway.window:,}"
    )


#: The agents of the terminal, in the order in which they are listed.
TERMINAL_AGENTS = (
    Agent(
        "claude",
        "Claude Code",
        "claude",
        lambda machine: [machine.folder_named("CLAUDE_CONFIG_DIR", ".claude")],
        _claude,
        _claude_note,
    ),
    Agent(
        "codex",
        "Codex CLI",
        "codex",
        lambda machine: [machine.folder_named("CODEX_HOME", ".codex")],
        _codex,
    ),
    Agent("opencode", "opencode", "opencode", lambda m: [m.config("opencode")], _opencode),
    Agent(
        "qwen-code",
        "Qwen Code",
        "qwen",
        lambda machine: [machine.folder_named("QWEN_HOME", ".qwen")],
        _qwen,
        lambda gateway: (
            "its tools and instructions alone take about 26,000 tokens: a larger window is needed"
            if gateway.window < 40_960
            else ""
        ),
    ),
    Agent("goose", "Goose", "goose", lambda machine: [machine.config("goose")], _goose),
    Agent(
        "aider",
        "Aider",
        "aider",
        lambda machine: [machine.home / ".aider.conf.yml", machine.home / ".aider"],
        _aider,
    ),
    Agent(
        "compymac",
        "CompyMac",
        None,
        lambda machine: [machine.folder / "src" / "compymac"],
        _compymac,
        lambda gateway: "run this in CompyMac's checkout: its settings are that folder's .env",
    ),
)
