"""The pages of the reports in a real Chromium: on a phone and a screen, light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pages import look_at_both

from clara_mlx.evaluate import report

RESULTS = Path(__file__).parents[2] / "bench" / "results"

#: A name as long as users' sets, tools and models may be.
LONG = "a-name-without-any-blank-" * 2


def evaluation() -> dict[str, Any]:
    text = (RESULTS / "evaluation_nano.json").read_text()
    return dict(json.loads(text.replace('"pytest"', json.dumps(LONG))))


def test_pages_fit_a_phone_and_are_readable_in_the_dark(tmp_path: Path) -> None:
    report.write(evaluation(), tmp_path, html=True)
    look_at_both(tmp_path / "report.html")
