"""The library in a few lines: compress command output, find the right one, answer, remember."""

import os
import sys
from pathlib import Path

import mlx.core as mx

import clara_mlx

model, *files = sys.argv[1:]
question = "How large is the config module?"

clara = clara_mlx.load(model)
texts = [Path(file).read_text() for file in files]
compressed = clara.compress_batch(texts)
for file, result in zip(files, compressed, strict=True):
    print(
        f"{file}: {len(result.chunks)} chunks, {result.source_tokens} tokens "
        f"-> {result.memory_tokens} memory tokens ({result.ratio:.1f}x)"
    )

pieces = [
    (file, text[chunk.start : chunk.end])
    for file, text, result in zip(files, texts, compressed, strict=True)
    for chunk in result.chunks
]
latents = mx.concatenate([result.latents for result in compressed])
scores = clara.rank(question, latents)
best = mx.argsort(-scores)[:3]
print(f"\n{question!r} ranks these chunks first:")
for i in best.tolist():
    file, piece = pieces[i]
    print(f"  {scores[i].item():+.3f}  {file}: {piece.strip().splitlines()[0][:70]!r} ...")

answer = clara.answer(question, latents[best], max_tokens=24)
print(f"\nanswer from their memory tokens alone: {answer!r}")

# The floor keeps irrelevant chunks out; with random weights nothing is relevant, so it is lowered.
with clara_mlx.Memory.open(os.environ["CLARA_MLX_MEMORY"], clara, floor=-1) as memory:
    handle = memory.remember(texts[0], source="demo", metadata={"file": files[0]})
    memory.flush()
    hit = memory.recall("config.py", k=1, where={"source": "demo"}, mode="text")[0]
    asked = memory.ask(question, k=3, where={"source": "demo"}, max_tokens=24)
    same = memory.original(handle) == texts[0]
line = next(line for line in hit.text.splitlines() if "config.py" in line)
print(f"\nremembered as {handle}; found by its words, from line {hit.line} on: {line!r}")
print(f"asked: {asked.text!r} from {len(asked.evidence)} chunks; the original is the same: {same}")
print(
    "\nThis checkpoint is tiny and its weights are random: the way is real, the ranking and the "
    "answers mean nothing.\nWith a converted CLaRa-7B the same lines give real ones; see README.md."
)
