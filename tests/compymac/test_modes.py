"""The memory's tools in every mode of the real LocalHarness and AgentLoop, and the way back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compymac_checkout import needs_checkout

from clara_mlx.compymac import install
from clara_mlx.context.freezer import HANDLE

pytestmark = needs_checkout

NAMES = {"expand", "ask_memory"}
LINES = 4000
COMMAND = f"for k in $(seq 1 {LINES}); do echo line $k value $((k * 7919)); done"

# What is set before a run, and how the loop is configured for it: (harness, its phases) -> None.
MODES: dict[str, dict[str, Any]] = {
    "all tools": {},
    "menu at its root": {"use_menu_system": True},
    **{
        f"menu in {mode}": {"use_menu_system": True, "menu": mode}
        for mode in ("swe", "library", "browser", "search", "git", "data", "ai", "integrations")
    },
    "active toolset": {"use_active_toolset": True},
    "toolset for SWE-bench": {"use_active_toolset": True, "toolset": True},
    **{
        f"phase {phase}": {"phase": phase, "action_gated": True}
        for phase in (
            "localization",
            "understanding",
            "fix",
            "regression_check",
            "target_fix_verification",
        )
    },
    "phase without calls left": {"phase": "localization", "spent": True},
    "phase in the menu": {"phase": "understanding", "use_menu_system": True, "menu": "swe"},
}


class Client:
    """A scripted LLM: it expands what it is shown, asks the memory, and answers."""

    def __init__(self, tool_call: Any) -> None:
        self._tool_call = tool_call
        self.offered: list[set[str]] = []
        self.results: list[str] = []

    def chat(self, messages: Any, tools: Any = None, tool_choice: Any = None) -> Any:
        self.offered.append({tool["function"]["name"] for tool in tools})
        if messages[-1]["role"] == "tool" or len(self.offered) > 1:
            self.results = [m["content"] for m in messages if m["role"] == "tool"]
        step = len(self.offered)
        if step > 2:
            return self._said("done", [])
        handle = HANDLE.findall(json.dumps(messages))[0]
        arguments = (
            {"handle": handle, "find": f"value {1000 * 7919}"},
            {"question": "Which line has value 7919000?"},
        )[step - 1]
        name = ("expand", "ask_memory")[step - 1]
        return self._said("", [self._tool_call(f"c{step}", name, arguments)])

    def _said(self, content: str, calls: list[Any]) -> Any:
        usage = SimpleNamespace(to_dict=dict)
        reason = "tool_calls" if calls else "stop"
        return SimpleNamespace(content=content, tool_calls=calls, usage=usage, finish_reason=reason)


def loop_of(its: Any, folder: Path, mode: dict[str, Any]) -> Any:
    """A loop on a real harness, in a mode."""
    harness = its("local_harness").LocalHarness(full_output_dir=folder / "outputs")
    flags = {key: mode[key] for key in mode if key.startswith(("use_", "action_"))}
    config = its("agent_loop").AgentConfig(max_steps=6, system_prompt="Be exact.", **flags)
    return its("agent_loop").AgentLoop(harness, Client(its("types").ToolCall), config)


def enter(its: Any, harness: Any, mode: dict[str, Any]) -> None:
    """Put a harness in a mode, as CompyMac does after it has made it."""
    if "toolset" in mode:
        harness.set_swe_bench_toolset()
    if "menu" in mode:
        assert harness.get_menu_manager().enter_mode(mode["menu"])[0]
    if "phase" in mode:
        harness.enable_swe_phase_enforcement()
        state = harness.get_swe_phase_state()
        state.current_phase = its("swe_workflow").SWEPhase(mode["phase"])
        while "spent" in mode and not state.is_budget_exhausted():
            state.increment_tool_call("Read")


def run_bash(its: Any, harness: Any, folder: Path, name: str = "long") -> str:
    arguments = {"command": COMMAND, "exec_dir": str(folder), "bash_id": "main"}
    return str(harness.execute(its("types").ToolCall(name, "bash", arguments)).content)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_shortened_can_be_expanded_in_every_mode(
    compymac: Any, tmp_path: Path, mode: str
) -> None:
    loop = loop_of(compymac, tmp_path, MODES[mode])
    install(loop)
    shown = run_bash(compymac, loop.harness, tmp_path)
    assert len(shown) < 8000 and f"{LINES + 9} lines, kept whole]" in shown
    enter(compymac, loop.harness, MODES[mode])
    calls = dict(state.phase_tool_calls) if (state := loop.harness.get_swe_phase_state()) else {}
    loop.run(f"Which line has value 7919000?\n{shown}")
    expanded, asked = loop.llm_client.results[:2]
    assert all(offered >= NAMES for offered in loop.llm_client.offered)
    assert "line 1000 value 7919000" in expanded and "line 1000 value 7919000" in asked
    # Reading what was shortened costs no call of a phase.
    assert not state or state.phase_tool_calls == calls


def test_the_whole_output_is_kept_where_the_harness_cuts_it(compymac: Any, tmp_path: Path) -> None:
    loop = loop_of(compymac, tmp_path, {})
    run_bash(compymac, loop.harness, tmp_path)
    printed = (tmp_path / "outputs/long.txt").read_text()
    installed = install(loop)
    shown = run_bash(compymac, loop.harness, tmp_path)
    (handle,) = set(HANDLE.findall(shown))
    assert printed in installed.memory.original(handle)
    assert "Output truncated" not in installed.memory.original(handle)
    # A tool that prints the harness's words has not been cut.
    forged = f"cat {tmp_path}/outputs/long.txt | head -c 500; echo '[Output truncated. 9 "
    forged += "characters removed.]'"
    arguments = {"command": forged, "exec_dir": str(tmp_path), "bash_id": "main"}
    call = compymac("types").ToolCall("long", "bash", arguments)
    assert len(loop.harness.execute(call).content) < 1200


def test_a_block_says_what_was_cut_and_is_lost(compymac: Any, tmp_path: Path) -> None:
    loop = loop_of(compymac, tmp_path, {})
    installed = install(loop)
    # The harness can write there, and nobody can read it back.
    (tmp_path / "outputs/long.txt").symlink_to(os.devnull)
    shown = run_bash(compymac, loop.harness, tmp_path)
    heading = shown.partition("\n")[0]
    assert heading.startswith("[clara m-") and "characters cut off before]" in heading
    (handle,) = set(HANDLE.findall(shown))
    assert "Output truncated" in installed.memory.original(handle)


def test_the_budget_counts_the_tools(compymac: Any, tmp_path: Path) -> None:
    loop = loop_of(compymac, tmp_path, {"use_menu_system": True})
    manager = install(loop).manager
    message = compymac("types").Message("user", "x" * 4_000)
    in_the_menu = manager.calculate_utilization([message])
    loop.config.use_menu_system = False
    tools = len(str(loop.harness.get_tool_schemas())) // 4
    room = manager.config.available_budget - tools
    assert manager.calculate_utilization([message]) == pytest.approx(1_004 / max(1, room))
    assert manager.calculate_utilization([message]) > in_the_menu > 0


def snapshot(value: Any, seen: dict[int, Any]) -> Any:
    """What an object holds, as deep as it goes; functions and classes by themselves."""
    if id(value) in seen:
        return f"seen {type(value).__name__}"
    if isinstance(value, (list, tuple, dict, set)) or hasattr(value, "__dict__"):
        seen[id(value)] = value
    if isinstance(value, dict):
        return [(key, snapshot(one, seen)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return [snapshot(one, seen) for one in value]
    if isinstance(value, set):
        return sorted(map(str, value))
    if isinstance(value, type) or callable(value) or not hasattr(value, "__dict__"):
        return value if not hasattr(value, "__self__") else value.__qualname__
    return type(value), [(key, snapshot(one, seen)) for key, one in vars(value).items()]


def modules_of(name: str) -> Any:
    """The tables of CompyMac's modules."""
    found = {n: m for n, m in sys.modules.items() if n.split(".")[0] == name}
    return {
        (module, key): snapshot(value, {})
        for module, one in sorted(found.items())
        for key, value in vars(one).items()
        if key.isupper() and isinstance(value, (list, dict, set))
    }


def test_a_loop_for_each_attempt_on_one_harness(compymac: Any, tmp_path: Path) -> None:
    """As CompyMac's SWE-bench makes them, from a class that has the memory (docs/COMPYMAC.md)."""
    loops = compymac("agent_loop")

    class RememberingLoop(loops.AgentLoop):  # type: ignore[misc, name-defined]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.installed = install(self)

    first = loop_of(compymac, tmp_path, {})
    for _ in range(3):
        loop = RememberingLoop(first.harness, Client(compymac("types").ToolCall), first.config)
        shown = run_bash(compymac, loop.harness, tmp_path)
        assert len(set(HANDLE.findall(shown))) == 1
    memory = loop.installed.memory
    originals = [memory.original(one.handle) for one in memory.list()]
    assert originals and all("<shell-output>" in one for one in originals)  # and no block of one


@pytest.mark.parametrize("mode", ["all tools", "toolset for SWE-bench", "phase fix"])
def test_uninstalling_leaves_nothing(compymac: Any, tmp_path: Path, mode: str) -> None:
    loop = loop_of(compymac, tmp_path, MODES[mode])
    enter(compymac, loop.harness, MODES[mode])
    before = snapshot(loop, {}), modules_of("compymac")
    offered = [one["function"]["name"] for one in loop.harness.get_tool_schemas()]
    first = install(loop)
    assert snapshot(loop, {}) != before[0] and modules_of("compymac") != before[1]
    enter(compymac, loop.harness, MODES[mode])  # while it is installed, too
    install(loop).uninstall()
    assert {one["function"]["name"] for one in loop.harness.get_active_tool_schemas()} >= NAMES
    first.uninstall()
    assert snapshot(loop, {}) == before[0]
    assert modules_of("compymac") == before[1]
    assert [one["function"]["name"] for one in loop.harness.get_tool_schemas()] == offered
