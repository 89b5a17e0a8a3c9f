"""A memory in the exam: what it stores of the outputs, and what it answers when it is asked."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from clara_mlx.compressors.compressor import LatentCompressor
from clara_mlx.errors import Progress
from clara_mlx.evaluate.exam import Exam
from clara_mlx.evaluate.timed import Timed
from clara_mlx.memory import Memory

#: Numbers of chunks that an answer is made from.
ASKED_CHUNKS = (1, 5)


def measure_memory(
    compressor: LatentCompressor, exam: Exam, max_tokens: int, progress: Progress
) -> dict[str, Any]:
    """Remember all outputs and ask all questions, each about its output alone; for JSON.

    What is stored is the size of the memory's file less that of one without a compressor.
    """
    with tempfile.TemporaryDirectory(prefix="clara-mlx-") as folder:
        plain, path = Path(folder) / "plain.db", Path(folder) / "memory.db"
        with Memory.open(plain) as memory:
            _remember(memory, exam, progress)
            memory.vacuum()
        with Memory.open(path, compressor) as memory:
            handles = _remember(memory, exam, progress)
            memory.flush()
            asked = {
                f"ask, k = {k}": _ask(memory, exam, handles, k, max_tokens, progress)
                for k in ASKED_CHUNKS
                if exam.questions
            }
            memory.vacuum()
        stored = path.stat().st_size - plain.stat().st_size
    return {"asked": asked, "stored_bytes_per_text_byte": stored / max(1, exam.text_bytes)}


def _remember(memory: Memory, exam: Exam, progress: Progress) -> list[str]:
    """Remember all outputs; returns their handles."""
    handles = []
    for number, output in enumerate(exam.outputs):
        progress(number, len(exam.outputs), "remembering")
        handles.append(memory.remember(output.text, source=output.tool))
    return handles


def _ask(
    memory: Memory, exam: Exam, handles: list[str], k: int, max_tokens: int, progress: Progress
) -> dict[str, Any]:
    """Answers from the k best chunks of each question's output."""
    answers, timed = [], Timed()
    for number, one in enumerate(exam.questions):
        progress(number, len(exam.questions), f"asking for {k} chunks")
        with timed.run():
            found = memory.ask(
                one.question, k, {"handle": handles[one.output]}, max_tokens=max_tokens
            )
        answers.append(found.text)
    return {"kept": exam.shares(exam.answered(answers)), "ask": timed.to_dict()}
