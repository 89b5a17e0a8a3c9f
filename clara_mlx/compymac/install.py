"""Installs the memory in an agent loop, and takes it out again."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from clara_mlx.compymac.changes import Changes
from clara_mlx.compymac.compressor import ToolOutputHook
from clara_mlx.compymac.harness import count_events, offered_tools, register_tools, whole_output
from clara_mlx.compymac.manager import ClaraMemoryManager
from clara_mlx.compymac.settings import Settings, shared_memory
from clara_mlx.memory import Memory

logger = logging.getLogger(__name__)


@dataclass
class Installed:
    """What `install` has put into a loop, and how to take it out."""

    manager: ClaraMemoryManager
    memory: Memory
    hook: ToolOutputHook
    changes: Changes

    def uninstall(self) -> None:
        """Restore the loop and its harness to how they were; what is remembered stays."""
        self.changes.undo()


def install(
    loop: Any, settings: Settings | None = None, *, memory: Memory | None = None
) -> Installed:
    """Give a CompyMac ``AgentLoop`` our memory: manager, tool outputs, and the memory's tools.

    The loop's manager becomes a `ClaraMemoryManager` with the loop's settings for turns and
    threshold, even if it had none. ``expand`` and ``ask_memory`` are registered with the harness,
    which offers and allows them in all phases, menus and toolsets. The outputs of its tools go
    through a `ToolOutputHook`, whole also where the harness cuts them, and the loop no longer
    shortens them itself. All of this is taken back by `Installed.uninstall`; of several
    installations in one harness, the last one comes first.

    Args:
        loop: The agent loop. It and its harness are changed; of CompyMac's modules only two lists
            of tools that every phase allows.
        settings: Settings in place of the environment's.
        memory: The memory to use; by default the one of the settings.
    """
    settings = settings or Settings.from_env()
    memory = memory or shared_memory(settings)
    config, harness = loop.config, loop.harness
    theirs = getattr(sys.modules.get("compymac.config"), "ContextConfig", None)
    manager = ClaraMemoryManager(
        theirs.from_env() if theirs else None,
        loop.llm_client,
        config.memory_keep_recent_turns,
        config.memory_compression_threshold,
        memory=memory,
        settings=settings,
    )
    manager.offered = partial(offered_tools, loop)
    hook = ToolOutputHook(manager.context.freezer, settings.session, settings.tool_output_tokens)
    changes = Changes()
    changes.set_attribute(loop, "_memory_manager", manager)
    if register_tools(harness, memory, changes):
        changes.set_attribute(config, "summarize_tool_output", False)
        changes.set_attribute(harness, "execute", _with_hook(harness, hook))
    else:
        logger.warning(
            "%s takes no tools; its outputs stay as they are, because nothing could expand them",
            type(harness).__name__,
        )
    return Installed(manager, memory, hook, changes)


def _with_hook(harness: Any, hook: ToolOutputHook) -> Callable[[Any], Any]:
    """The harness's ``execute`` with a hook, in place of the hook that it may have."""
    execute = getattr(harness.execute, "without_hook", harness.execute)

    def execute_and_hook(call: Any) -> Any:
        events = count_events(harness)
        result = execute(call)
        if isinstance(result.content, str) and result.content:
            output = whole_output(harness, result, events)
            content = hook(call.name, call.arguments, output.text, output.missing)
            if content != result.content:
                return dataclasses.replace(result, content=content)
        return result

    execute_and_hook.without_hook = execute  # type: ignore[attr-defined]
    return execute_and_hook
