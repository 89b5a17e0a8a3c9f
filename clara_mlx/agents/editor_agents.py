"""The agents of editors: where each keeps its settings, and what is set in them."""

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

# The most tokens of an answer that the agents are told.
_ANSWER = 4096

# Continue cuts a conversation by its own count of all of it, which the gateway would then never
# see; with this window, in tokens, it sends everything.
_CONTINUE_WINDOW = 1_000_000


def _cline(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    folder = machine.folder_named("CLINE_DIR", ".cline")
    data = machine.folder_named("CLINE_DATA_DIR", str(folder / "data"))
    provider = ("providers", "openai-compatible")
    chosen = {
        "provider": "openai-compatible",
        "apiKey": gateway.key,
        "model": gateway.model,
        "baseUrl": gateway.v1,
    }

    def choose(found: Any) -> list[Setting]:
        known = found.get("providers", {})
        wanted = [Setting(("lastUsedProvider",), "openai-compatible")]
        wanted += [Setting((*provider, "settings", key), value) for key, value in chosen.items()]
        if "version" not in found:
            wanted.insert(0, Setting(("version",), 1))
        if isinstance(known, dict) and "openai-compatible" not in known:
            date = "2026-01-01T00:00:00.000Z"  # there must be one; Cline writes another
            wanted.append(Setting((*provider, "updatedAt"), date, volatile=True))
            wanted.append(Setting((*provider, "tokenSource"), "manual", volatile=True))
        return wanted

    files = [SettingsFile(data / "settings" / "providers.json", "json", choose)]
    if gateway.mcp:
        server: dict[str, Any] = {"type": "streamableHttp", "url": gateway.mcp_url}
        if gateway.headers:
            server["headers"] = gateway.headers
        # Cline keeps the state of its connection there, too.
        registered = Setting(("mcpServers", NAME), server, volatile=True)
        files.append(
            SettingsFile(
                data / "settings" / "cline_mcp_settings.json", "json", lambda data: [registered]
            )
        )
    return files


def _zed(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    model = {
        "name": gateway.model,
        "display_name": f"{gateway.model} ({NAME})",
        # It compacts and warns at 80% of its window.
        "max_tokens": gateway.window_behind(0.8),
        "max_output_tokens": _ANSWER,
        "capabilities": {
            "tools": True,
            "images": False,
            "parallel_tool_calls": True,
            "prompt_cache_key": False,
        },
    }
    given: list[tuple[tuple[str, ...], Any]] = [
        (
            ("language_models", "openai_compatible", NAME),
            {"api_url": gateway.v1, "available_models": [model]},
        ),
        (("agent", "default_model"), {"provider": NAME, "model": gateway.model}),
    ]
    if gateway.mcp:
        server: dict[str, Any] = {"url": gateway.mcp_url}
        if gateway.headers:
            server["headers"] = gateway.headers
        given.append((("context_servers", NAME), server))
    return [SettingsFile(machine.config("zed") / "settings.json", "json", settings(*given))]


def _continue(machine: Machine, gateway: Gateway) -> list[SettingsFile]:
    model = {
        "name": f"{gateway.model} ({NAME})",
        "provider": "openai",
        "model": gateway.model,
        "apiBase": gateway.v1,
        "apiKey": gateway.key,
        "roles": ["chat", "edit", "apply"],
        "capabilities": ["tool_use"],
        "defaultCompletionOptions": {"contextLength": _CONTINUE_WINDOW, "maxTokens": _ANSWER},
    }

    def choose(found: Any) -> list[Setting]:
        required = {"name": "Local", "version": "1.0.0", "schema": "v1"}
        chosen = [Setting((key,), value) for key, value in required.items() if key not in found]
        chosen.append(Setting(("models", "[+]"), model))  # the first one is the default
        if gateway.mcp:
            server: dict[str, Any] = {
                "name": NAME,
                "type": "streamable-http",
                "url": gateway.mcp_url,
            }
            if gateway.headers:
                server["requestOptions"] = {"headers": gateway.headers}
            chosen.append(Setting(("mcpServers", "[+]"), server))
        return chosen

    folder = machine.folder_named("CONTINUE_GLOBAL_DIR", ".continue")
    return [SettingsFile(folder / "config.yaml", "yaml", choose)]


#: The agents of editors, in the order in which they are listed.
EDITOR_AGENTS = (
    Agent(
        "cline",
        "Cline",
        "cline",
        lambda machine: [machine.folder_named("CLINE_DIR", ".cline")],
        _cline,
    ),
    Agent(
        "zed",
        "Zed",
        "zed",
        lambda machine: [machine.config("zed")],
        _zed,
        lambda gateway: (
            "Zed keeps keys out of its settings: enter "
            + ("the gateway's token" if gateway.token else "any key")
            + " once in its agent settings, or start it with CLARA_API_KEY set"
        ),
    ),
    Agent(
        "continue",
        "Continue",
        "cn",
        lambda machine: [machine.folder_named("CONTINUE_GLOBAL_DIR", ".continue")],
        _continue,
    ),
)
