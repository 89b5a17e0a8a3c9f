"""What `clara-mlx bench` measures, and how often."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from clara_mlx.errors import ClaraError

#: The parts of a bench by their names, in the order in which they are measured.
PARTS = {
    "load": "loading a model folder, in processes of their own: seconds and bytes",
    "limits": "this machine's rates at the model's own shapes, and its memory bandwidth",
    "compress": "compressing chunks, by their length and by how many are compressed together",
    "query": "encoding a question",
    "answer": "an answer's first token and rate, from memories and from the same as text",
    "mlx-lm": "mlx-lm's own prefill and decoding of the same base folder",
    "memory": "a memory's remember, recall and ask, and from one to the other",
    "retrieval": "finding the ten best, by how much is remembered",
    "gateway": "what the gateway adds to a request",
}


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often.

    Attributes:
        lengths: Tokens of a chunk.
        batches: Numbers of chunks that are compressed together.
        repeats: Number of runs behind each figure, if they fit ``most_seconds``.
        most_seconds: Seconds after which a figure is not repeated any more; it has one run at
            least.
        loads: Number of processes that load each model.
        answer_tokens: Tokens of each answer.
        documents: Numbers of memories that an answer is made from.
        outputs: Number of outputs that are remembered, recalled and asked about.
        stores: Numbers of chunks in the memories that are searched.
        requests: Number of requests through the gateway.
        parts: Names of the parts.
        quick: Whether these are the few that show in a minute that all works.
    """

    lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    batches: tuple[int, ...] = (1, 4, 16)
    repeats: int = 5
    most_seconds: float = 30.0
    loads: int = 3
    answer_tokens: int = 32
    documents: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    outputs: int = 40
    stores: tuple[int, ...] = (100, 1000, 10_000)
    requests: int = 200
    parts: tuple[str, ...] = tuple(PARTS)
    quick: bool = False


#: Everything, but less of it: under a minute on two cores with a small model.
QUICK = Settings(
    lengths=(16, 64, 256),
    batches=(1, 8),
    repeats=3,
    most_seconds=1.0,
    loads=1,
    answer_tokens=8,
    documents=(1, 4, 16),
    outputs=4,
    stores=(100, 400),
    requests=30,
    quick=True,
)


def choose_parts(only: Collection[str], skip: Collection[str]) -> tuple[str, ...]:
    """The parts that are left, in their order.

    Raises:
        ClaraError: There is no such part, or none is left.
    """
    unknown = [name for name in (*only, *skip) if name not in PARTS]
    if unknown:
        raise ClaraError(f"no part {unknown[0]!r:.40}; the parts are {', '.join(PARTS)}")
    chosen = tuple(name for name in PARTS if (not only or name in only) and name not in skip)
    if not chosen:
        raise ClaraError(f"no part is left to measure; the parts are {', '.join(PARTS)}")
    return chosen
