"""The machine's state while it was measured, and what is said about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from clara_mlx import machine
from clara_mlx.speed.conditions import find_disturbances

QUIET: dict[str, Any] = {
    "load_average": 0.1,
    "swap_used_bytes": 0,
    "power": "AC Power",
    "thermal": "No thermal warning level has been recorded",
}


def disturbed(start: dict[str, Any], end: dict[str, Any]) -> list[str]:
    return find_disturbances({"start": QUIET | start, "end": QUIET | end}, 4)


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ({}, {}, ""),
        ({"load_average": 3.0}, {}, "busy before the bench began: load average 3.0 on 4 cores"),
        ({}, {"load_average": 3.0}, ""),  # the bench itself
        ({}, {"load_average": 9.5}, "others used the machine meanwhile: load average 9.5"),
        ({}, {"swap_used_bytes": 2_000_000_000}, "swap grew from 0.0 to 2.0 GB"),
        ({"swap_used_bytes": None}, {"swap_used_bytes": 5}, ""),
        ({}, {"power": "Battery Power"}, "changed from AC Power to Battery Power"),
        ({"power": "AC Power, low power mode"}, {"power": "AC Power, low power mode"}, "slow"),
        ({}, {"thermal": "CPU_Speed_Limit = 60"}, "held back for heat: CPU_Speed_Limit = 60"),
    ],
)
def test_what_disturbs(start: dict[str, Any], end: dict[str, Any], said: str) -> None:
    found = "; ".join(disturbed(start, end))
    assert said in found and bool(found) == bool(said)


def test_this_machine_says_what_it_knows() -> None:
    state = machine.state()
    assert state["load_average"] >= 0 and state["power"] and state["thermal"]
    assert state["free_memory_bytes"] > 1e8
    assert machine.resident_bytes() > 1e7
    described = machine.describe()
    assert described["neural_accelerators"]["word"] in ("yes", "no", "not known")
    assert described["neural_accelerators"]["because"]


# What pmset and sysctl print on Macs (their manual pages and users' logs).
PRINTED = {
    ("sysctl", "-n", "vm.swapusage"): "total = 2048.00M  used = 1034.50M  free = 1013.50M",
    ("vm_stat",): (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10.\n"
        "Pages inactive:                           20.\n"
        "Pages speculative:                         5.\n"
    ),
    ("pmset", "-g", "batt"): "Now drawing from 'Battery Power'\n -InternalBattery-0\t80%;",
    ("pmset", "-g"): "System-wide power settings:\n lowpowermode         1\n",
    ("pmset", "-g", "therm"): "Note: No thermal warning level has been recorded\n",
}


def test_a_mac_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_printed", lambda *command: PRINTED[command])
    state = machine.state()
    assert state["swap_used_bytes"] == int(1034.5 * 2**20)
    assert state["free_memory_bytes"] == 35 * machine.os.sysconf("SC_PAGE_SIZE")
    assert state["power"] == "Battery Power, low power mode"
    assert state["thermal"] == "No thermal warning level has been recorded"
    monkeypatch.setattr(machine, "_printed", lambda *command: "")
    state = machine.state()
    assert state["power"] == state["thermal"] == machine.NOT_KNOWN
    assert state["swap_used_bytes"] is state["free_memory_bytes"] is None


@pytest.mark.parametrize(
    ("architecture", "macos", "word"),
    [
        ("applegpu_g16s", "26.3", "no"),  # M4 Max
        ("applegpu_g17s", "26.2", "yes"),  # M5
        ("applegpu_g17s", "26.1", "no"),
        ("applegpu_g17p", "26.3", "no"),
        ("", "26.3", "not known"),
    ],
)
def test_neural_accelerators(
    monkeypatch: pytest.MonkeyPatch, architecture: str, macos: str, word: str
) -> None:
    monkeypatch.setattr("mlx.core.metal.is_available", lambda: True)
    monkeypatch.setattr(machine, "_gpu", lambda: architecture)
    monkeypatch.setattr(machine.platform, "mac_ver", lambda: (macos, ("", "", ""), "arm64"))
    found = machine.neural_accelerators()
    assert found["word"] == word and (architecture in found["because"])


def test_sys_of_a_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {
        "sys/class/power_supply/AC/type": "Mains",
        "sys/class/power_supply/AC/online": "0",
        "sys/class/power_supply/BAT0/type": "Battery",
        "sys/class/power_supply/BAT0/status": "Discharging",
        "sys/class/thermal/thermal_zone0/temp": "47123",
        "sys/class/thermal/thermal_zone1/temp": "odd",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    monkeypatch.setattr(sys, "platform", "linux")
    state = machine.state()
    assert state["power"] == "mains unplugged, battery discharging"
    assert state["thermal"] == "47 °C at the hottest sensor"
