"""What is changed in CompyMac's harness: tools in all its modes, outputs as they were uncut."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_mlx.compymac.changes import Changes
from clara_mlx.context import tools
from clara_mlx.memory import Memory

#: The memory's tools.
NAMES = tuple(schema["function"]["name"] for schema in tools.SCHEMAS)

# Lists of CompyMac's that its phases ask: which tools every phase allows, and which cost none of a
# phase's calls. What was shortened has been paid for already.
_WORKFLOW = "compymac.swe_workflow"
_ALWAYS_ALLOWED = ("PHASE_NEUTRAL_TOOLS", "BUDGET_NEUTRAL_TOOLS")

# How the note begins that the harness puts in the place of what it cuts off.
_CUT_NOTE = "\n\n[Output truncated. {} characters removed."


@dataclass(frozen=True)
class Output:
    """What a tool gave.

    Attributes:
        text: All of it, in the harness's envelope, also if the harness shows less.
        missing: Characters that the harness cut off and that could not be read back.
    """

    text: str
    missing: int = 0


def register_tools(harness: Any, memory: Memory, changes: Changes) -> bool:
    """Register the memory's tools with a harness, and have it offer and allow them in every mode.

    Modes are CompyMac's phases, its menu and its active toolset. Returns False, and changes
    nothing, if the harness takes no tools.
    """
    modules = (sys.modules.get(one.__module__) for one in type(harness).__mro__)
    schema_class = next((s for m in modules if (s := getattr(m, "ToolSchema", None))), None)
    if schema_class is None or not hasattr(harness, "register_tool"):
        return False
    changes.restore_entries(harness, NAMES)
    for schema in tools.SCHEMAS:
        name = schema["function"]["name"]
        harness.register_tool(name, _schema(schema_class, schema), _handler(memory, name))
    _allow_in_all_phases(changes)
    _offer_in_all_modes(harness, changes)
    return True


def _schema(schema_class: Any, schema: dict[str, Any]) -> Any:
    """A tool's schema in CompyMac's class, of the fields that it has."""
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
    known = {one.name for one in dataclasses.fields(schema_class)}
    return schema_class(**{name: value for name, value in fields.items() if name in known})


def _handler(memory: Memory, name: str) -> Callable[..., str]:
    return lambda **arguments: tools.call(memory, name, arguments)


def _allow_in_all_phases(changes: Changes) -> None:
    """Enter the tools in CompyMac's lists; a harness that has no such tool still refuses it."""
    workflow = sys.modules.get(_WORKFLOW)
    for allowed in (getattr(workflow, name, None) for name in _ALWAYS_ALLOWED):
        if isinstance(allowed, list):
            for name in NAMES:
                changes.append(allowed, name)


def _offer_in_all_modes(harness: Any, changes: Changes) -> None:
    """Have each of the harness's ``get_..._tool_schemas`` give the memory's tools, too."""
    own = [one for one in harness.get_tool_schemas() if one["function"]["name"] in NAMES]
    for name in dir(harness):
        if name.startswith("get_") and name.endswith("_tool_schemas"):
            changes.set_attribute(harness, name, _with_tools(getattr(harness, name), own))


def _with_tools(offered: Callable[[], list[Any]], own: list[Any]) -> Callable[[], list[Any]]:
    def offered_with_tools() -> list[Any]:
        given = offered()
        names = {one["function"]["name"] for one in given}
        return [*given, *(one for one in own if one["function"]["name"] not in names)]

    return offered_with_tools


def offered_tools(loop: Any) -> Sequence[Any]:
    """The tools that a loop offers in its next request, chosen as its ``run_step`` chooses."""
    harness, config = loop.harness, loop.config
    for wanted, getter in (
        (getattr(config, "use_menu_system", False), "get_menu_tool_schemas"),
        (getattr(config, "use_active_toolset", False), "get_active_tool_schemas"),
        (True, "get_phase_filtered_tool_schemas"),
        (True, "get_tool_schemas"),
    ):
        if wanted and hasattr(harness, getter):
            found: Sequence[Any] = getattr(harness, getter)()
            return found
    return ()


def whole_output(harness: Any, result: Any, events_before: int) -> Output:
    """What a tool gave: if the harness has cut it, the rest is read from the file it wrote.

    The harness's own log says whether it has. No text does, because a tool may print anything.

    Args:
        harness: The harness.
        result: The result of its ``execute``.
        events_before: The number of events in its log before that.
    """
    cut = next(
        (
            event.data
            for event in _events(harness)[events_before:]
            if event.event_type.name == "OUTPUT_TRUNCATION"
            and event.tool_call_id == result.tool_call_id
        ),
        None,
    )
    if cut is None:
        return Output(result.content)
    missing = int(cut["chars_removed"])
    try:
        with Path(cut["full_output_path"]).open(newline="") as file:
            whole = file.read()
    except (OSError, ValueError):
        return Output(result.content, missing)
    shown = whole[: cut["truncated_length"]] + _CUT_NOTE.format(missing)
    before, found, after = result.content.partition(shown)
    if not found or len(whole) != cut["original_length"]:
        return Output(result.content, missing)
    return Output(before + whole + after.partition("]")[2])


def count_events(harness: Any) -> int:
    """The number of events in a harness's log; 0 if it has none."""
    return len(_events(harness))


def _events(harness: Any) -> Sequence[Any]:
    log = harness.get_event_log() if hasattr(harness, "get_event_log") else None
    return log.events if log is not None else ()
