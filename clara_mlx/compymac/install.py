"""Installing all of it into an agent loop, and taking it out again."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.compymac.compressor import ToolOutputHook
from clara_mlx.compymac.manager import ClaraMemoryManager
from clara_mlx.compymac.settings import Settings, shared_memory
from clara_mlx.context import tools
from clara_mlx.memory import Memory


@dataclass
class Installed:
    """What `install` put into a loop."""

    manager: ClaraMemoryManager
    memory: Memory
    hook: ToolOutputHook
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def uninstall(self) -> None:
        """Put back what was there; what was remembered stays. The memory's tools stay known."""
        while self._undo:
            self._undo.pop()()


def install(
    loop: Any, settings: Settings | None = None, *, memory: Memory | None = None
) -> Installed:
    """Give a CompyMac ``AgentLoop`` our memory: manager, tool outputs, and the memory's tools.

    The loop's manager becomes a `ClaraMemoryManager` with its own settings for turns and threshold,
    also if it had none. What its harness's tools print goes through a `ToolOutputHook` in place of
    the loop's own shortening. ``expand`` and ``ask_memory`` are registered with the harness.

    Args:
        loop: the agent loop; it and its harness are changed, and nothing of CompyMac's modules.
        settings: by default the environment's.
        memory: by default the one of the settings.
    """
    settings = settings or Settings.from_env()
    memory = memory or shared_memory(settings)
    config = loop.config
    theirs = getattr(sys.modules.get("compymac.config"), "ContextConfig", None)
    manager = ClaraMemoryManager(
        theirs.from_env() if theirs else None,
        loop.llm_client,
        config.memory_keep_recent_turns,
        config.memory_compression_threshold,
        memory=memory,
        settings=settings,
    )
    hook = ToolOutputHook(manager.context.freezer, settings.session, settings.tool_output_tokens)
    installed = Installed(manager, memory, hook)
    _set(installed, loop, "_memory_manager", manager)
    _set(installed, config, "summarize_tool_output", False)
    harness = loop.harness
    _set(installed, harness, "execute", _hooked(harness.execute, hook))
    _register(harness, memory)
    return installed


def _set(installed: Installed, target: Any, name: str, value: Any) -> None:
    """Set an attribute of an instance, to be put back or taken away again."""
    if name in vars(target):
        before = getattr(target, name)
        installed._undo.append(lambda: setattr(target, name, before))
    else:
        installed._undo.append(lambda: delattr(target, name))
    setattr(target, name, value)


def _hooked(execute: Callable[[Any], Any], hook: ToolOutputHook) -> Callable[[Any], Any]:
    def hooked(call: Any) -> Any:
        result = execute(call)
        if isinstance(result.content, str) and result.content:
            content = hook(call.name, call.arguments, result.content)
            if content != result.content:
                return dataclasses.replace(result, content=content)
        return result

    return hooked


def _register(harness: Any, memory: Memory) -> None:
    """Let the harness offer the memory's tools, in the schema class that its module uses."""
    schema_class = getattr(sys.modules[type(harness).__module__], "ToolSchema", None)
    if schema_class is None or not hasattr(harness, "register_tool"):
        return
    known = {one.name for one in dataclasses.fields(schema_class)}
    for schema in tools.SCHEMAS:
        function = schema["function"]
        properties = function["parameters"]["properties"]
        required = function["parameters"]["required"]
        fields = {
            "name": function["name"],
            "description": function["description"],
            "required_params": list(required),
            "optional_params": [name for name in properties if name not in required],
            "param_types": {name: one["type"] for name, one in properties.items()},
        }
        given = {name: value for name, value in fields.items() if name in known}
        harness.register_tool(
            function["name"], schema_class(**given), _handler(memory, function["name"])
        )


def _handler(memory: Memory, name: str) -> Callable[..., str]:
    return lambda **arguments: tools.call(memory, name, arguments)
