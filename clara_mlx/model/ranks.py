"""The processes that do one job together, where ``mlx.launch`` has started several of them.

Each has a rank. Alone, a process is rank 0 of 1 and everything here costs nothing, so that callers
need not ask whether there are others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from clara_mlx.errors import ClaraError

# What mlx.launch and MPI set in the processes that they start.
_RANK = "MLX_RANK"
_OF_MPI = "OMPI_COMM_WORLD_SIZE"

_T = TypeVar("_T")


class RankLost(ClaraError):
    """Another rank has ended or can't be reached, so what is done together can't go on."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of one job; `join` finds it.

    All ranks must call the methods that talk (`sum`, `from_first`, `gather`, `wait_for_all`) in the
    same order; each waits until the others have called it. They raise `RankLost`.

    Attributes:
        rank: The number of this process, from 0.
        size: How many processes there are.
    """

    rank: int = 0
    size: int = 1
    _group: Any = None

    @classmethod
    def join(cls) -> Ranks:
        """Connect to the other processes that ``mlx.launch`` started; alone if it was not used.

        Raises:
            RankLost: They can't be reached.
        """
        if _RANK not in os.environ and _OF_MPI not in os.environ:
            return cls()
        with _talk("connecting"):
            group = mx.distributed.init()
        rank = int(os.environ.get(_RANK, group.rank()))
        if group.size() <= rank:
            raise RankLost(
                f"mlx.launch started this process as rank {rank}, but no other could be reached; "
                "check that mlx.launch's --backend works between these machines"
            )
        return cls(group.rank(), group.size(), group)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and speaks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """This rank's part of a list: every ``size``-th item, as mlx-lm divides its work."""
        return items[self.rank :: self.size]

    def sum(self, arrays: Any) -> Any:
        """Add up the ranks' trees of float32 arrays; all get the same tree, evaluated."""
        if self.size == 1:
            return arrays
        flat: Any = tree_flatten(arrays)
        leaves = [leaf for _, leaf in flat]
        with _talk("adding up gradients"):
            means = nn.average_gradients(leaves, self._group)  # few messages for many arrays
            sums = [mean * self.size for mean in means]
            mx.eval(sums)
        in_order = iter(sums)
        return tree_map(lambda array: next(in_order), arrays)

    def from_first(self, arrays: Any) -> Any:
        """Rank 0's tree of arrays, in all ranks; those of the others only give its shape."""
        if self.size == 1:
            return arrays

        def take(array: mx.array) -> mx.array:
            own = array if self.is_first else mx.zeros_like(array)
            return mx.distributed.all_sum(own, group=self._group)

        with _talk("sending a state"):
            taken = tree_map(take, arrays)
            mx.eval(taken)
        return taken

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of their ranks; values are what JSON can hold."""
        if self.size == 1:
            return [value]
        own = json.dumps(value).encode()
        with _talk("exchanging figures"):
            sizes: Any = self._all_gather(mx.array([len(own)], mx.int32)).tolist()
            padded = own.ljust(max(sizes))
            values: Any = self._all_gather(mx.array(list(padded), mx.uint8)).tolist()
        everything = bytes(values)
        return [
            json.loads(everything[rank * max(sizes) :][:size]) for rank, size in enumerate(sizes)
        ]

    def add_up(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sums of the ranks' figures by name; a rank need not have all of them."""
        everyones = self.gather(dict(figures))
        names = max(everyones, key=len)  # that of a rank which had something to do
        return {name: sum(own.get(name, 0.0) for own in everyones) for name in names}

    def wait_for_all(self) -> None:
        """Wait until every rank has come here."""
        self.gather(None)

    def _all_gather(self, array: mx.array) -> mx.array:
        """The ranks' arrays one after the other, evaluated."""
        gathered = mx.distributed.all_gather(array, group=self._group)
        mx.eval(gathered)
        return gathered


@contextmanager
def _talk(doing: str) -> Iterator[None]:
    """Turn MLX's errors about connections into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            f"{doing} failed: another rank has ended or can't be reached ({error}); its own "
            "message says why. Start the same command again"
        ) from error
