"""The library in a few lines: outputs become memory tokens, which answer questions."""

import os
import statistics
import sys
import time
from pathlib import Path

import mlx.core as mx

import clara_mlx

QUESTIONS = (
    "Which test failed? (pytest, test_router_reload)",
    "On which line is cobra_nickel defined?",
    "What is WORKERS? (env, TIMEOUT)",
    "Who wrote the commit? (git-log, hide_reload)",
    "How many commits ahead? (git-status, satin-iron)",
)

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
kept = sum(result.memory_tokens for result in compressed.values())
print(f"{'all':<12} {tokens:>4} tokens -> {kept} memory tokens ({tokens / kept:.1f}x)\n")

seconds = []
with clara_mlx.Memory.open(os.environ["CLARA_MLX_MEMORY"], clara) as memory:
    for question in QUESTIONS:
        started = time.perf_counter()
        answer = memory.ask(question, k=1, max_tokens=24)
        seconds.append(time.perf_counter() - started)
        sources = ", ".join(chunk.source or "" for chunk in answer.evidence)
        print(f"{question:<50} {answer.text:<24} from {sources}")

print(
    f"\n{statistics.median(seconds) * 1000:.0f} ms an answer (median), "
    f"{mx.get_peak_memory() / 1e6:.0f} MB of MLX memory at most"
)
