"""The library in a few lines: outputs become memory tokens, from which it answers questions."""

import os
import statistics
import sys
import time
from pathlib import Path

import mlx.core as mx

import clara_mlx

QUESTIONS = {
    "pytest": "Which test failed?",
    "ripgrep": "On which line is cobra_nickel defined?",
    "env": "What is WORKERS?",
    "git-log": "Who wrote the commit?",
    "git-status": "How many commits ahead?",
}

model, folder = sys.argv[1:]
clara = clara_mlx.load(model)
texts = {file.stem: file.read_text() for file in sorted(Path(folder).glob("*.txt"))}
compressed = dict(zip(texts, clara.compress_batch(list(texts.values())), strict=True))
for name, result in compressed.items():
    print(
        f"{name:<12} {result.source_tokens:>4} tokens -> {result.memory_tokens} memory tokens "
        f"({result.ratio:.1f}x)"
    )
tokens = sum(result.source_tokens for result in compressed.values())
memory_tokens = sum(result.memory_tokens for result in compressed.values())
print(
    f"{'all':<12} {tokens:>4} tokens -> {memory_tokens} memory tokens "
    f"({tokens / memory_tokens:.1f}x)\n"
)

seconds = []
with clara_mlx.Memory.open(os.environ["CLARA_MLX_MEMORY"], clara) as memory:
    for source, question in QUESTIONS.items():
        started = time.perf_counter()
        answer = memory.ask(question, k=1, where={"source": source}, max_tokens=24)
        seconds.append(time.perf_counter() - started)
        print(f"{source:<12} {question:<40} {answer.text}")

print(
    f"\n{statistics.median(seconds) * 1000:.0f} ms per answer (median), "
    f"{mx.get_peak_memory() / 1e6:.0f} MB of MLX memory at most"
)
