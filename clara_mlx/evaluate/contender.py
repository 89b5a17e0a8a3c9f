"""One compressor in the exam: opened by its name, and measured in this process.

What is measured *in place* is made before anybody asks: a shorter text, or vectors that the
compressor's own decoder answers from. What is measured *asked* is made for the question: a shorter
text of the same budget, or the answer of a memory that searches the output first.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_mlx import machine
from clara_mlx.compressors import registry
from clara_mlx.compressors.compressor import ESTIMATE, Compressor, Tokens, is_latent, is_textual
from clara_mlx.errors import ClaraError, Progress, reason
from clara_mlx.evaluate.exam import Exam
from clara_mlx.evaluate.latent_exam import LatentExam
from clara_mlx.evaluate.memory_exam import measure_memory
from clara_mlx.evaluate.textual_exam import measure_textual
from clara_mlx.model.tokenizer import TextTokenizer

# Outputs that a compressor whose weights are not trained is timed on, at most.
_MECHANICS_OUTPUTS = 8


@dataclass(frozen=True)
class Contender:
    """What is measured, and how.

    Attributes:
        name: A model folder or hub id, or the name of a registered compressor.
        trained: Whether its weights are trained. If not, only its speed and bytes are measured.
        rivals: Names of textual compressors to give a latent one's decoder positions to.
        rates: Rates at which a text is made shorter, in tokens for each one that is left.
        max_tokens: Largest number of tokens in an answer.
        tokenizer: A folder with the reasoner's ``tokenizer.json``; without it a token is four
            characters.
    """

    name: str
    trained: bool = True
    rivals: tuple[str, ...] = ()
    rates: tuple[float, ...] = (4, 8, 16)
    max_tokens: int = 48
    tokenizer: str | None = None


def open_compressor(name: str) -> Compressor:
    """The compressor of a model folder, of a hub id, or of a registered name.

    Raises:
        ClaraError: There is none, or it needs a model folder.
    """
    if name not in registry.names() or Path(name).exists():
        loaded: Compressor = registry.load(name)
        return loaded
    try:
        return registry.open_compressor(name)
    except ClaraError as error:
        raise ClaraError(f"{error}; here its folder is its name: --compressor FOLDER") from error


def label_of(name: str) -> str:
    """What a report calls a compressor: the end of its path; ``mine/model``, not ``model``."""
    parts = Path(name).parts
    return "/".join(parts[-2:] if parts[-1:] == ("model",) else parts[-1:])


def tokens_of(tokenizer: str | None) -> Tokens:
    """What the reasoner's tokens are counted by.

    Raises:
        ClaraError: The folder has no tokenizer.json that can be read.
    """
    if tokenizer is None:
        return ESTIMATE
    file = Path(tokenizer)
    file = file / "tokenizer.json" if file.is_dir() else file
    try:
        return TextTokenizer(file.read_text(encoding="utf-8"), where=str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ClaraError(f"{file}: {reason(error)}; give a folder with tokenizer.json") from error


def measure(contender: Contender, exam: Exam, progress: Progress | None = None) -> dict[str, Any]:
    """Load a compressor and measure it in this process; the result is ready for JSON.

    Raises:
        ClaraError: It can't be loaded, or it fails at an output.
    """
    report: Progress = progress or (lambda done, total, what="", /: None)
    tokens = tokens_of(contender.tokenizer)
    before = machine.peak_resident_bytes()
    began = time.perf_counter()
    compressor = open_compressor(contender.name)
    found: dict[str, Any] = {
        "label": label_of(contender.name),
        "name": compressor.name,
        "kind": compressor.kind,
        "fingerprint": compressor.fingerprint,
        "trained": contender.trained,
        "load_seconds": time.perf_counter() - began,
    }
    if not contender.trained:
        step = -(-len(exam.outputs) // _MECHANICS_OUTPUTS)
        exam = Exam(exam.outputs[:: max(1, step)])
    if is_latent(compressor):
        latent = LatentExam(compressor, exam, tokens, contender.max_tokens, report)
        found |= latent.measure() | measure_memory(compressor, exam, contender.max_tokens, report)
        found["memory"] = _memory_used(before)
        found["at_its_positions"] = [
            {**latent.against(rival), "name": label_of(name)}
            for name in contender.rivals
            if is_textual(rival := open_compressor(name))
        ]
    elif is_textual(compressor):
        found |= measure_textual(compressor, exam, contender.rates, tokens, report)
        found["memory"] = _memory_used(before)
    return found


def _memory_used(before: int) -> dict[str, Any]:
    """Resident memory of this process at most, and MLX's arrays now and at most, in bytes."""
    used = {
        "resident_before_bytes": before,
        "peak_resident_bytes": machine.peak_resident_bytes(),
    }
    if "mlx.core" in sys.modules:
        import mlx.core as mx

        used |= {"array_bytes": mx.get_active_memory(), "peak_array_bytes": mx.get_peak_memory()}
    return used
