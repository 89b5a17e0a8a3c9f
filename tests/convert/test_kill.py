"""A conversion that is killed leaves no folder that looks complete, and the next one tidies up."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sizes import sized

from clara_mlx.convert import Source, convert
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder

# Converts again and again into the same place, saying when each conversion starts and ends.
LOOP = """
import sys
from clara_mlx.convert import Source, convert
checkpoint, base, to = sys.argv[1:]
while True:
    source = Source.open(checkpoint, base=base)
    print("start", flush=True)
    convert(source, to, force=True)
    print("end", flush=True)
"""


@pytest.mark.alone
def test_sigkill_at_random_moments(golden: Path, tmp_path: Path) -> None:
    to = tmp_path / "model"
    arguments = [str(golden / "c16/e2e"), str(golden / "tiny-base"), str(to)]
    moments = random.Random(7)
    interrupted = 0
    for _ in range(sized(4, 8)):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, *arguments], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        was_there = to.exists()
        assert process.stdout.readline() == "start\n"
        time.sleep(moments.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        finished = was_there or "end" in rest
        interrupted += any(tmp_path.glob(".model.*"))
        # A folder under the name is complete; one that was there once is there, or set aside.
        if to.exists():
            ModelFolder.open(to)
        else:
            assert not finished or any(tmp_path.glob(".model.replaced-*"))
    assert interrupted  # some runs died in the middle
    convert(Source.open(arguments[0], base=arguments[1]), to, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_model_set_aside_by_a_killed_replacement_comes_back(golden: Path, tmp_path: Path) -> None:
    to = tmp_path / "model"
    source = Source.open(golden / "c16/e2e", base=golden / "tiny-base")
    convert(source, to)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    to.rename(tmp_path / f".model.replaced-{dead.pid}")
    with pytest.raises(CheckpointError, match="--force"):
        convert(source, to)  # the old one is there again
    ModelFolder.open(to)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
