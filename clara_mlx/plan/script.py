"""The shell commands that start both servers within a setup."""

from __future__ import annotations

from shlex import join

from clara_mlx.plan.mac import MIB
from clara_mlx.plan.planner import Planner, Setup

_PORT = 8080  # mlx_lm.server's own default


def start_script(
    planner: Planner, setup: Setup, model: str, clara: str, made_by: str | None
) -> str:
    """Write the shell commands that start both servers, limited to what the setup takes.

    Args:
        planner: The planner that computed the setup.
        setup: A setup that fits.
        model: The reasoner's mlx-lm folder.
        clara: CLaRa's model folder.
        made_by: The command that makes the reasoner's folder, if it has to be made.
    """
    one = planner.reasoner(setup.bits).kv_bytes(setup.context, setup.kv_bits, setup.prefill_step)
    caches = ["--prompt-concurrency", "1", "--decode-concurrency", str(setup.sequences)]
    # Checked when a request comes; caches in use count, which may then still grow by as much.
    caches += ["--prompt-cache-bytes", str(setup.kept_caches * one)]
    if setup.kv_bits != 16:
        caches = ["--kv-bits", str(setup.kv_bits), "--quantized-kv-start", "0"]
        caches += ["--prompt-cache-size", str(setup.kept_caches)]
    server = ["mlx_lm.server", "--model", model, "--host", "127.0.0.1", "--port", str(_PORT)]
    server += ["--prefill-step-size", str(setup.prefill_step), *caches]
    gateway = ["clara-mlx", "serve", "--endpoint", f"http://127.0.0.1:{_PORT}/v1"]
    gateway += ["--tokenizer", model, "--window", str(setup.context)]
    lines = [
        f"Computed from shapes, not measured: {_gb(planner.total(setup))} of at most "
        f"{_gb(planner.mac.ceiling)}.",
        *_limit_lines(planner, setup),
    ]
    if made_by:
        lines += ["The reasoner's folder, if it is not there yet:", f"  {made_by}"]
    if setup.clara_bits is None:
        lines += [
            "CLaRa stays out of memory: originals, handles and text search work without it.",
            "To compress what was remembered, stop the reasoner and run:",
            f"  {join(['clara-mlx', 'flush', '--model', clara])}",
        ]
        gateway = ["env", "-u", "CLARA_MLX_MODEL", *gateway]
    else:
        gateway += ["--model", clara]
    comments = [f"# {line}" for line in lines]
    return "\n".join([*comments, f"{join(server)} &", join(gateway)]) + "\n"


def _limit_lines(planner: Planner, setup: Setup) -> list[str]:
    """Comments on the GPU's limit: whether it must be raised, and by which command."""
    limit = f"{_gb(planner.mac.wired_limit)} ({planner.mac.limit_source})"
    megabytes = planner.sysctl_mb(setup)
    if megabytes is None:
        return [f"The GPU's limit of {limit} is enough: no sysctl is needed."]
    return [
        f"That is more than the GPU's limit of {limit}. Raise it first, until the next restart;",
        f"{_gb(planner.mac.memory - megabytes * MIB)} stay for macOS and everything else:",
        f"  sudo sysctl iogpu.wired_limit_mb={megabytes}",
    ]


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB"
