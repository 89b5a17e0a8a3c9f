"""What the chunks of a file score for questions that have nothing to do with them.

A cosine says little by itself: it depends on the model, and on how many chunks there are to choose
from. So it is compared with what such questions reach here. The figures are in the file, with the
fingerprint of the model and with what they were taken from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from clara_mlx.store.connection import Connection
from clara_mlx.store.protocol import Database

# A cosine says something if it is so many spreads above what is usual.
_SPREADS = 2.0

# So many spreads above that it says as much as if all words of a question had been found.
_SPREADS_TO_ONE = 6.0

# The most that a cosine says: no chunk is certain without a word of the question.
_MOST = 0.95

# The least spread: questions that score the same by chance must not make every difference large.
_LEAST_SPREAD = 0.01

# The row of `meta` that has the figures.
_KEY = "calibration"


@dataclass(frozen=True)
class Calibration:
    """What unrelated questions score.

    Attributes:
        usual: The centred cosine of the best chunk for such a question, as the median of several.
        spread: How far that varies, about a standard deviation.
        count: The latents that there were.
        epoch: The epoch of their sketches, which says what they are centred on.
        fingerprint: The model.
    """

    usual: float
    spread: float
    count: int = 0
    epoch: int = 0
    fingerprint: str = ""

    @property
    def floor(self) -> float:
        """The centred cosine below which a chunk has nothing to do with a question."""
        return self.usual + _SPREADS * max(self.spread, _LEAST_SPREAD)

    def weigh(self, cosine: float | None) -> float:
        """How much a centred cosine says, from 0 to 1, beside the words of a question."""
        if cosine is None:
            return 0.0
        above = (cosine - self.floor) / (_SPREADS_TO_ONE * max(self.spread, _LEAST_SPREAD))
        return min(_MOST, max(0.0, above))

    def is_due(self, count: int, epoch: int) -> bool:
        """Whether the figures should be taken again, as there are many more latents, or fewer."""
        return epoch != self.epoch or not self.count / 2 <= count <= 2 * self.count


#: What is taken for granted as long as nothing was measured (bench/RESULTS.md).
UNMEASURED = Calibration(0.05, 0.05)


def read(file: Database, fingerprint: str) -> Calibration | None:
    """The figures of a model in a file; None if there are none."""
    rows = file.read("SELECT value FROM meta WHERE key = ?", (_KEY,))
    try:
        kept = Calibration(**json.loads(rows[0][0])) if rows else None
    except (TypeError, ValueError):  # damaged; it will be measured again
        return None
    return kept if kept and kept.fingerprint == fingerprint else None


def write(connection: Connection, calibration: Calibration) -> None:
    """Keep the figures, in a transaction."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_KEY, json.dumps(asdict(calibration))),
    )
