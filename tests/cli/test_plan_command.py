"""The command: tables, JSON, and a script that real servers would understand."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import quantize_model, save_config, save_model
from tiny_models import MOE, make_model

from clara_mlx.cli.plan_overview import complete_reasoner
from clara_mlx.plan.reasoners import REASONERS

Cli = Callable[..., Any]


def planned(cli: Cli, *options: object) -> dict[str, Any]:
    if "--reasoner" not in options:
        options = ("--reasoner", "Qwen3-235B-A22B", *options)
    return dict(json.loads(cli("plan", *options, "--json").stdout))


def commands(script: str) -> list[list[str]]:
    return [shlex.split(line.removesuffix(" &")) for line in script.splitlines() if line[0] != "#"]


def test_the_tables_say_it_plainly(cli: Cli) -> None:
    shown = cli("plan", "--memory", 128, "--reasoner", "Qwen3-235B-A22B").stdout
    assert "Computed, not measured." in shown
    assert "132.3" in shown and "The reasoner's weights alone are 132.3 GB." in shown
    assert "It does not fit: 26.8 GB too much. It needs a Mac with at least 153 GB." in shown
    assert "The nearest setup that fits: 3-bit weights" in shown
    assert "after sudo sysctl iogpu.wired_limit_mb=120832" in shown
    assert "102.9" in shown and "73.5" in shown


def test_without_a_reasoner_it_says_which_ones_fit(cli: Cli) -> None:
    shown = cli("plan", "--memory", 64).stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    fates = {row[0]: row[1:] for row in rows if len(row) == 7}
    assert set(fates) == set(REASONERS)
    assert fates["Qwen3-30B-A3B"][:2] == ["fits", "4"] and not fates["Qwen3-30B-A3B"][4]
    assert fates["Qwen3-Coder-Next"][4] == "passes of 1,024"
    assert fates["Qwen3-235B-A22B"][0] == "too large" and fates["Qwen3-235B-A22B"][5] == "153 GB"
    names = [name for name in fates if fates[name][0] == "fits"]
    costs = [fates[name][4] != "" for name in names]
    assert costs == sorted(costs)  # those that give nothing up come first
    assert f"`clara-mlx plan --reasoner {names[0]}`" in shown


def test_the_exit_status_says_whether_anything_fits(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: REASONERS[name] for name in ("gpt-oss-20b", "Llama-3.3-70B")}
    monkeypatch.setattr("clara_mlx.plan.reasoners.REASONERS", known)
    result = cli("plan", "--memory", 10, "--context", 8192, ok=False)
    assert result.exit_code == 1
    assert "least is gpt-oss-20b" in result.stdout and "--reasoner FOLDER" in result.stdout
    detail = ("plan", "--memory", 16, "--reasoner", "Llama-3.3-70B")
    result = cli(*detail, ok=False)
    assert result.exit_code == 1 and "Nothing smaller fits either." in result.stdout
    assert json.loads(cli(*detail, "--json", ok=False).stdout)["nearest"] is None
    result = cli("plan", "--memory", 64, "--script", ok=False)
    assert result.exit_code == 2 and "which reasoner to start" in " ".join(result.output.split())


def test_known_reasoners_are_completed() -> None:
    assert complete_reasoner("qwen3-2") == ["Qwen3-235B-A22B"]
    assert complete_reasoner("") == list(REASONERS)


def test_it_says_whether_a_cache_can_be_trimmed(cli: Cli) -> None:
    assert planned(cli, "--memory", 256)["reasoner"]["cache"] == "trimmable"
    hybrid = ("--memory", 64, "--reasoner", "qwen3.6-35b-a3b")
    assert planned(cli, *hybrid)["reasoner"]["cache"] == "whole"
    assert "can't be trimmed" in " ".join(cli("plan", *hybrid).stdout.split())


def test_json_has_every_figure(cli: Cli) -> None:
    result = planned(cli, "--memory", 128, "--bits", 3)
    asked = result["asked"]
    assert "nothing was measured" in result["basis"]
    assert asked["total_bytes"] == sum(part["nbytes"] for part in asked["parts"])
    assert asked["fits"] and asked["iogpu_wired_limit_mb"] == 120832
    assert result["nearest"] == asked
    assert [row["setup"]["bits"] for row in result["by_bits"]] == [8, 6, 4, 3, 2]
    assert not result["by_bits"][0]["fits"]
    assert result["by_bits"][0]["iogpu_wired_limit_mb"] is None
    assert result["mac"]["memory"] == 128 * 2**30


def test_options_reach_the_arithmetic(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MOE))

    def total(*options: object) -> int:
        result = planned(cli, "--memory", 64, "--reasoner", file, "--context", 1024, *options)
        return int(result["asked"]["total_bytes"])

    usual, cache = total(), 3 * 2 * 1024 * 2 * 64 * 2  # layers, heads, tokens, K and V, bfloat16
    assert total("--clara", "none") < total("--clara", "q4") < usual
    assert total("--sequences", 2) - usual == 2 * cache + 3 * 320 * 2  # and logits
    assert total("--context", 2048) - usual > 2 * cache + cache // 3  # longer passes too
    assert total("--kv-bits", 8) != usual != total("--kv-bits", 4)
    assert total("--prefill-step", 512) < usual
    assert usual < total("--group-size", 32)
    assert total("--bits", 3) < usual < total("--bits", 16)
    limits = ("--wired-limit", 107.5, "--reserve", 4)
    mac = planned(cli, "--memory", 128, "--reasoner", file, *limits)["mac"]
    assert mac["wired_limit"] == int(107.5 * 2**30)
    assert mac["ceiling"] == 124 * 2**30


def test_a_reasoner_and_a_clara_of_ones_own(
    cli: Cli, folder: Callable[..., Path], tmp_path: Path
) -> None:
    own = tmp_path / "own model"
    model, config = quantize_model(make_model(MOE, own), dict(MOE), 64, 4)
    save_model(own, model)
    save_config(config, own / "config.json")
    clara = folder("c16", "e2e", "-q", "8")
    options = ("--memory", 16, "--reasoner", own, "--clara", clara, "--context", 2048)
    result = planned(cli, *options)
    assert result["asked"]["fits"]
    assert [row["setup"]["bits"] for row in result["by_bits"]] == [4]
    server, gateway = commands(cli("plan", *options, "--script").stdout)
    assert server[:3] == ["mlx_lm.server", "--model", str(own)]
    assert gateway[-2:] == ["--model", str(clara)]
    assert "states a context of at most 4,096" in cli("plan", *options[:-1], 8192).stdout


@pytest.mark.parametrize(
    "options", [(), ("--kv-bits", 8), ("--context", 65536), ("--clara", "none")]
)
def test_the_script(cli: Cli, options: tuple[object, ...]) -> None:
    options = ("--memory", 48, "--reasoner", "Qwen3-30B-A3B", *options)
    script = cli("plan", *options, "--script").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    server, gateway = commands(script)
    assert server[0] == "mlx_lm.server" and "clara-mlx" in gateway
    assert gateway[gateway.index("--endpoint") + 1] == "http://127.0.0.1:8080/v1"
    assert ("--model" in gateway) == ("none" not in options)
    assert "Computed from shapes, not measured" in script
    nearest = planned(cli, *options)["nearest"]
    assert server[2] == f"Qwen3-30B-A3B-{nearest['setup']['bits']}bit"
    needed = nearest["iogpu_wired_limit_mb"]
    assert (f"#   sudo sysctl iogpu.wired_limit_mb={needed}\n" in script) == (needed is not None)
    assert gateway[gateway.index("--window") + 1] == str(nearest["setup"]["context"])
    assert ("--kv-bits" in server) == (nearest["setup"]["kv_bits"] != 16)
    known = cli("serve", "--help").stdout
    assert all(f"{word} " in known for word in gateway if word.startswith("--"))


def test_mlx_lm_takes_the_options(cli: Cli) -> None:
    """Those of both commands that the script names, against the installed mlx-lm."""
    fits = ("plan", "--memory", 128, "--reasoner", "Qwen3-32B", "--script")
    batched, quantised = cli(*fits).stdout, cli(*fits, "--kv-bits", 8).stdout
    for tool in ("server", "convert"):
        command = [sys.executable, "-m", f"mlx_lm.{tool}", "--help"]
        known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for script in (batched, quantised):
            line = next(line for line in script.splitlines() if f"mlx_lm.{tool} " in line)
            options = [word for word in line.split() if word.startswith("-")]
            assert options
            for option in options:
                assert f"{option} " in known or f"{option}," in known, option


def test_what_cannot_be(cli: Cli) -> None:
    def refused(*options: object) -> str:
        result = cli("plan", *options, ok=False)
        assert result.exit_code
        return str(result.output)

    small = ("--memory", 9, "--reasoner", "Qwen3-32B", "--bits", 2)
    assert "does not fit this Mac in any setup" in refused(*small, "--script")
    assert "Nothing smaller fits either." in refused(*small)
    assert "not a known model" in refused("--reasoner", "Qwen9-1T")
    assert "7 bits" in refused("--bits", 7)
    assert "'16'" in refused("--kv-bits", 5)
    assert "sliding-window" in refused("--reasoner", "gpt-oss-120b", "--kv-bits", 8)
    assert "no such model folder" in refused("--clara", "q3")
    assert "leave nothing" in refused("--memory", 4)


def test_chips(cli: Any) -> None:
    """What known Macs could reach at best, marked as computed, with its sources."""
    shown = cli("plan", "--chips").stdout
    assert "computed from published rates, not measured" in shown and "M5 Max, 40 GPU" in shown
    result = json.loads(cli("plan", "--chips", "--json").stdout)
    assert "nothing was measured" in result["basis"] and result["sources"]["tflops"]["read"]
    assert {row["bits"] for row in result["macs"]} == {16, 8, 4}
