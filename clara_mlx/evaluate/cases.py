"""Probes as cases for one model: which chunks hold the evidence, and where in the document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from clara_mlx.evaluate.probes.probe import Output, Probe
from clara_mlx.model import chunking
from clara_mlx.model.chunking import Chunk
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.tokenizer import TextTokenizer

#: A probe whose evidence lies in more chunks than this is left out.
MOST_CHUNKS = 4

#: Where the evidence is in its chunk, in the order of a report.
THIRDS = ("first third", "middle third", "last third", "across chunks")

#: Where the chunk is in its document, in the order of a report.
PLACES = ("only chunk", "first chunk", "middle chunk", "last chunk", "across chunks")

_RATIOS = (0, 2, 4, 8, 12, 16, 32, 64, 128, 256)  # bounds, in source tokens per memory token


@dataclass(frozen=True)
class Case:
    """A probe of one document, with the chunks that hold its evidence.

    Attributes:
        document: Number of the output in its set.
        tool: Name of the tool that printed it.
        probe: The question, the expected answer and the evidence.
        chunks: The chunks that the evidence lies in, usually one.
        third: One of `THIRDS`, by the middle of the evidence within its chunk's characters.
        place: One of `PLACES`: the chunk within its document.
        memory_tokens: Memory tokens of each chunk.
    """

    document: int
    tool: str
    probe: Probe
    chunks: tuple[Chunk, ...]
    third: str
    place: str
    memory_tokens: int

    @property
    def span(self) -> slice:
        """The characters of the document that the chunks cover."""
        return slice(self.chunks[0].start, self.chunks[-1].end)

    @property
    def ratio(self) -> str:
        """Source tokens per memory token, as a range."""
        tokens = sum(chunk.tokens for chunk in self.chunks)
        return _ratio_range(tokens / (self.memory_tokens * len(self.chunks)))

    @property
    def positions(self) -> int:
        """Decoder positions that the latents of the chunks take, with their ``<SEP>``."""
        return len(self.chunks) * (self.memory_tokens + 1)

    def groups(self) -> dict[str, str]:
        """The group that the case is in, for each dimension that a report breaks shares down by."""
        return {
            "tool": self.tool,
            "ratio": self.ratio,
            "third": self.third,
            "place": self.place,
            "kind": self.probe.kind,
        }


def find_cases(
    outputs: Sequence[Output], config: ClaraConfig, tokenizer: TextTokenizer
) -> list[Case]:
    """The probes of some outputs as cases, except those with evidence in too many chunks."""
    cases: list[Case] = []
    for number, output in enumerate(outputs):
        chunks = tuple(chunking.split(output.text, tokenizer, config.doc_max_length))
        for probe in output.probes:
            holding = tuple(chunks_with_evidence(chunks, probe))
            if len(holding) > MOST_CHUNKS:
                continue
            third, place = _position(probe, holding, chunks)
            cases.append(
                Case(number, output.tool, probe, holding, third, place, config.memory_tokens)
            )
    return cases


def chunks_with_evidence(chunks: Sequence[Chunk], probe: Probe) -> Iterator[Chunk]:
    """Yield the chunks that a probe's evidence lies in: at least one, as chunks cover the text."""
    for chunk in chunks:
        if chunk.start < probe.end and probe.start < chunk.end:
            yield chunk


def _position(probe: Probe, holding: Sequence[Chunk], chunks: Sequence[Chunk]) -> tuple[str, str]:
    """Which of `THIRDS` and of `PLACES` the evidence is in."""
    if len(holding) > 1:
        return "across chunks", "across chunks"
    (chunk,) = holding
    middle = (probe.start + probe.end) / 2 - chunk.start
    third = THIRDS[min(2, int(3 * middle / (chunk.end - chunk.start)))]
    if len(chunks) == 1:
        return third, "only chunk"
    if chunk is chunks[0]:
        return third, "first chunk"
    return third, "last chunk" if chunk is chunks[-1] else "middle chunk"


def _ratio_range(ratio: float) -> str:
    for low, high in pairwise(_RATIOS):
        if ratio <= high:
            return f"{low} to {high}x"
    return f"over {_RATIOS[-1]}x"
