"""How long the inspector's pages take, with many memories: python bench/inspector.py [NUMBER].

Each page is asked for over HTTP from a running inspector, 20 times after one that is not counted;
the median and the longest are in milliseconds, from the request to the last byte.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests/support")]

import httpx2  # noqa: E402
from inspected import TOKEN, count, site_of  # noqa: E402

from clara_mlx.evaluate.sets import read_captured_set  # noqa: E402
from clara_mlx.machine import describe  # noqa: E402
from clara_mlx.memory import Memory  # noqa: E402

REPEATS = 20

PAGES = {
    "the list": "/",
    "its last page": "/?page=999999",
    "a source": "/?source=tool+7",
    "words": "/?q=ValueError+in+inventory",
    "a memory": "/inspector/memory?handle=m-000000000077",
    "conversations": "/inspector/conversations",
    "savings": "/inspector/savings",
}


def fill(memory: Memory, number: int) -> None:
    """Remember the captured outputs again and again, each time with a line of its own."""
    outputs = read_captured_set().outputs
    for start in range(0, number, 1_000):
        memory.remember_many(
            [
                {
                    "text": f"run {one}\n{outputs[one % len(outputs)].text}",
                    "source": f"tool {one % 40}",
                    "session": f"session {one % 300}",
                    "metadata": {"command": outputs[one % len(outputs)].command},
                    "handle": f"m-{one:012x}",
                }
                for one in range(start, min(number, start + 1_000))
            ],
            synced=False,
        )
    count(memory)


def measure(number: int) -> dict[str, Any]:
    """The times of all pages."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        Memory.open(Path(scratch) / "large.db", compress=False) as memory,
    ):
        fill(memory, number)
        with (
            site_of(memory, edit=True) as site,
            httpx2.Client(
                base_url=site.url, trust_env=False, headers={"x-api-key": TOKEN}
            ) as client,
        ):
            pages = {name: _times(client, path) for name, path in PAGES.items()}
    return {"memories": number, "repeats": REPEATS, "pages": pages, "machine": describe()}


def _times(client: httpx2.Client, path: str) -> dict[str, float]:
    taken = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        answer = client.get(path)
        taken.append(1000 * (time.perf_counter() - begun))
        assert answer.status_code == 200, answer.text[:200]
    return {
        "median_ms": round(statistics.median(taken[1:]), 1),
        "longest_ms": round(max(taken[1:]), 1),
        "bytes": len(answer.content),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000), indent=1))
