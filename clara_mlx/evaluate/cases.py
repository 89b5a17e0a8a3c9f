"""Probes as cases of one model: which chunks hold the evidence, and where in the document."""

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

#: How the shares are broken down, and the order of what each can be; tools come by name.
THIRDS = ("first third", "middle third", "last third", "across chunks")
PLACES = ("only chunk", "first chunk", "middle chunk", "last chunk", "across chunks")
_RATIOS = (0, 2, 4, 8, 12, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Case:
    """A probe of one document, with the chunks that hold its evidence.

    Attributes:
        document: number of the output in its set.
        tool: what printed it.
        probe: question, expected answer and evidence.
        chunks: those the evidence lies in, usually one.
        third: one of `THIRDS`, by the middle of the evidence within its chunk's characters.
        place: one of `PLACES`, the chunk within its document.
        memory_tokens: M, of each chunk.
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
        """What a report breaks its shares down by."""
        return {
            "tool": self.tool,
            "ratio": self.ratio,
            "third": self.third,
            "place": self.place,
            "kind": self.probe.kind,
        }


def cases(outputs: Sequence[Output], config: ClaraConfig, tokenizer: TextTokenizer) -> list[Case]:
    """The probes of some outputs as cases, but for those with evidence in too many chunks."""
    found: list[Case] = []
    for number, output in enumerate(outputs):
        chunks = tuple(chunking.split(output.text, tokenizer, config.doc_max_length))
        for probe in output.probes:
            holding = tuple(holders(chunks, probe))
            if len(holding) > MOST_CHUNKS:
                continue
            third, place = _where(probe, holding, chunks)
            found.append(
                Case(number, output.tool, probe, holding, third, place, config.memory_tokens)
            )
    return found


def holders(chunks: Sequence[Chunk], probe: Probe) -> Iterator[Chunk]:
    """The chunks that a probe's evidence lies in; the chunks cover the text, so there is one."""
    for chunk in chunks:
        if chunk.start < probe.end and probe.start < chunk.end:
            yield chunk


def _where(probe: Probe, holding: Sequence[Chunk], chunks: Sequence[Chunk]) -> tuple[str, str]:
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


def in_order(dimension: str, names: set[str]) -> list[str]:
    """The names of one dimension of `Case.groups` in the order of a report."""
    orders = {"third": THIRDS, "place": PLACES}
    if dimension in orders:
        return [name for name in orders[dimension] if name in names]
    if dimension == "ratio":
        return sorted(
            names, key=lambda name: int(name.removeprefix("over ").split(" ")[0].rstrip("x"))
        )
    return sorted(names)
