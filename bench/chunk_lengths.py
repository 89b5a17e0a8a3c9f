"""Writes how many tokens the chunks of real tool outputs have: the mix that reference.py encodes.

    python bench/chunk_lengths.py --outputs FILE --trajectories FOLDER --tokenizer tokenizer.json

FILE and FOLDER are recorded material as README.md describes it; the committed lengths were counted
with the tokenizer of Mistral-7B-v0.1. Only lengths are written, one list for each output. An output
of more than eight chunks is left out: its chunks are nearly full, and would be all that counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from clara_mlx.model import chunking
from clara_mlx.model.tokenizer import TextTokenizer

LENGTHS = Path(__file__).parent / "chunk_lengths.json"
LIMIT = 256  # tokens of a chunk, CLaRa-7B's
MOST_CHUNKS = 8  # of an output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--trajectories", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=LENGTHS)
    options = parser.parse_args()
    tokenizer = TextTokenizer(options.tokenizer.read_text())
    sets = {
        "recorded": list(recorded_texts(options.outputs)),
        "runs": list(run_texts(options.trajectories)),
    }
    lines = []
    for name, texts in sets.items():
        cut = sorted(
            ([c.tokens for c in chunking.split(text, tokenizer, LIMIT)] for text in texts), key=sum
        )
        kept = [chunks for chunks in cut if 0 < len(chunks) <= MOST_CHUNKS]
        lines.append(f'"{name}": {json.dumps(kept, separators=(",", ":"))}')
        print(f"{name}: {len(kept)} of {len(cut)} outputs")
    options.to.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def recorded_texts(outputs: Path) -> Iterator[str]:
    """The texts of recorded outputs, one in each line of a file."""
    for line in outputs.read_text().splitlines():
        yield json.loads(line)["text"]


def run_texts(folder: Path) -> Iterator[str]:
    """The outputs of the tools in recorded runs of agents."""
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        for message in run if isinstance(run, list) else []:
            if message.get("role") == "tool" and isinstance(message.get("content"), str):
                yield message["content"]


def spread(lengths: Path, name: str, count: int, *, one_chunk: bool = False) -> list[int]:
    """Lengths of the chunks of ``count`` outputs, spread evenly over short and long ones."""
    outputs: list[list[int]] = json.loads(lengths.read_text())[name]
    if one_chunk:
        outputs = [chunks for chunks in outputs if len(chunks) == 1]
    chosen = (outputs[int((i + 0.5) / count * len(outputs))] for i in range(count))
    return [tokens for chunks in chosen for tokens in chunks]


if __name__ == "__main__":
    main()
