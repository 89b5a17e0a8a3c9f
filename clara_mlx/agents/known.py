"""The agents that can be connected, by name; and which of them are on this machine."""

from __future__ import annotations

import shutil

from clara_mlx.agents.agent import Agent, Machine
from clara_mlx.agents.editor_agents import EDITOR_AGENTS
from clara_mlx.agents.terminal_agents import TERMINAL_AGENTS
from clara_mlx.errors import ClaraError

#: All agents, by name.
AGENTS: dict[str, Agent] = {agent.name: agent for agent in (*TERMINAL_AGENTS, *EDITOR_AGENTS)}


def agent_named(name: str) -> Agent:
    """The agent with a name, or whose program has it.

    Raises:
        ClaraError: There is none; the message lists those that there are.
    """
    for agent in AGENTS.values():
        if name in (agent.name, agent.program):
            return agent
    raise ClaraError(f"{name!r} is not an agent that can be connected: {', '.join(AGENTS)}")


def is_found(agent: Agent, machine: Machine) -> bool:
    """Whether an agent is installed, or has been used."""
    if agent.program and shutil.which(agent.program, path=machine.path):
        return True
    return any(trace.exists() for trace in agent.traces(machine))
