"""Examines all that an agent's work depends on, and says of each part what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clara_mlx.agents.agent import Gateway, Machine
from clara_mlx.agents.finding import Finding
from clara_mlx.agents.gateway_checks import Patient, check_gateway
from clara_mlx.agents.machine_checks import (
    check_agents,
    check_free_memory,
    check_memory,
    check_versions,
)
from clara_mlx.agents.reasoner_checks import check_reasoner


def examine(
    url: str,
    token: str | None,
    reasoner: str,
    memory: str | Path,
    machine: Machine,
    *,
    full: bool = False,
) -> Iterator[Finding]:
    """All checks, each finding as soon as it is known.

    Args:
        url: The gateway's URL.
        token: Its token, if it has one.
        reasoner: The base URL of the reasoner behind it.
        memory: The memory's file, or the URL of a team's database.
        machine: Where agents keep their settings.
        full: Also fill the reasoner's window once.
    """
    yield from check_versions()
    yield from check_free_memory()
    yield from check_memory(memory)
    patient = Patient(url, token, full)
    yield from check_gateway(patient)
    yield from check_reasoner(reasoner, patient.window or None)
    known = Gateway(url, patient.model, patient.window, token) if patient.window else None
    yield from check_agents(machine, url, known)
