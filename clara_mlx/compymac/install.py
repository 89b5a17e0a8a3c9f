"""Installs the memory in an agent loop, and takes it out again."""

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
    """What `install` has put into a loop, and how to take it out."""

    manager: ClaraMemoryManager
    memory: Memory
    hook: ToolOutputHook
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        """Set an attribute of an instance; `uninstall` restores or deletes it."""
        if name in vars(target):
            before = getattr(target, name)
            self._undo.append(lambda: setattr(target, name, before))
        else:
            self._undo.append(lambda: delattr(target, name))
        setattr(target, name, value)

    def uninstall(self) -> None:
        """Restore the loop; memories stay, and so do the memory's tools in its harness."""
        while self._undo:
            self._undo.pop()()


def install(
    loop: Any, settings: Settings | None = None, *, memory: Memory | None = None
) -> Installed:
    """Give a CompyMac ``AgentLoop`` our memory: manager, tool outputs, and the memory's tools.

    The loop's manager becomes a `ClaraMemoryManager` with the loop's settings for turns and
    threshold, even if it had none. The outputs of its harness's tools go through a
    `ToolOutputHook`, and the loop no longer shortens them itself. ``expand`` and ``ask_memory``
    are registered with the harness.

    Args:
        loop: The agent loop. It and its harness are changed; CompyMac's modules are not.
        settings: Settings in place of the environment's.
        memory: The memory to use; by default the one of the settings.
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
    installed.set_attribute(loop, "_memory_manager", manager)
    installed.set_attribute(config, "summarize_tool_output", False)
    harness = loop.harness
    installed.set_attribute(harness, "execute", _with_hook(harness.execute, hook))
    _register_tools(harness, memory)
    return installed


def _with_hook(execute: Callable[[Any], Any], hook: ToolOutputHook) -> Callable[[Any], Any]:
    def execute_and_hook(call: Any) -> Any:
        result = execute(call)
        if isinstance(result.content, str) and result.content:
            content = hook(call.name, call.arguments, result.content)
            if content != result.content:
                return dataclasses.replace(result, content=content)
        return result

    return execute_and_hook


def _register_tools(harness: Any, memory: Memory) -> None:
    """Register the memory's tools with the harness, in the schema class that its module uses."""
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
