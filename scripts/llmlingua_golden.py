"""Make the golden of LLMLingua-2 again: what the package ``llmlingua`` gives for tiny encoders.

    pip install --target /tmp/llmlingua llmlingua==0.2.2 torch
    PYTHONPATH=/tmp/llmlingua python scripts/llmlingua_golden.py

Writes tests/golden-llmlingua2/*/golden.json. The encoders' weights are random and made by
tests/support/token_classifiers.py; their tokenizers are files beside the golden.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from llmlingua_cases import run_original
from token_classifiers import GOLDEN, KINDS, make_checkpoint


def main() -> None:
    """Write both files."""
    for kind, name in KINDS.items():
        with tempfile.TemporaryDirectory() as work:
            result = run_original(kind, make_checkpoint(kind, Path(work) / name))
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
        (GOLDEN / kind / "golden.json").write_text(text + "\n", encoding="utf-8")
        print(f"{kind}: {len(result['cases'])} cases, {len(text):,} characters")


if __name__ == "__main__":
    main()
