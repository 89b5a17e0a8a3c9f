"""What a memory does with its compressor, whichever kind it is: fill the file, search, answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clara_mlx.errors import NoModel, OtherModel, Progress
from clara_mlx.memory import asking
from clara_mlx.memory.asking import Answer
from clara_mlx.memory.background import BackgroundCompression
from clara_mlx.memory.latent_work import LatentWork
from clara_mlx.memory.textual_work import TextualWork
from clara_mlx.model.thread import ModelThread
from clara_mlx.store import search
from clara_mlx.store.backlog import Backlog
from clara_mlx.store.filters import Where
from clara_mlx.store.latents import drop_all_latents
from clara_mlx.store.originals import Originals
from clara_mlx.store.results import Hit
from clara_mlx.store.shortened import count_by_shortener, drop_all_shortened
from clara_mlx.store.spaces import space_of

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import Compressor

logger = logging.getLogger(__name__)


class Compressing:
    """A compressor at work on a memory file.

    Attributes:
        model_thread: Where the compressor works.
        background: The thread that works through the backlog; None if the file can't be written, or
            has what another compressor made.
    """

    def __init__(
        self, store: Originals, compressor: Compressor, codec: str, model_thread: ModelThread | None
    ) -> None:
        self.model_thread = model_thread or ModelThread()
        self.background: BackgroundCompression | None = None
        self._closes_thread = model_thread is None
        self._store = store
        self._compressor = compressor
        self._codec = codec
        self._work: LatentWork | TextualWork | None = None
        self._other_model: str | None = None  # what to say if what is stored is another's
        try:
            self._open()
        except OtherModel as error:  # originals and text search work; the two must not mix
            self._other_model = str(error)
        except BaseException:
            self.close()
            raise

    def _open(self, *, beside: bool = False) -> None:
        """Open the table of what this compressor makes, and make it in a file that has none.

        With ``beside``, it is made beside that of another model, whose place it is to take.
        """
        store, compressor = self._store, self._compressor
        textual = compressor.kind == "textual"
        there = count_by_shortener(store) if textual else space_of(store)
        if not there and store.obstacle is not None:
            return  # nothing is compressed, and nothing can be
        if compressor.kind == "textual":
            self._work = TextualWork(store, compressor, self.model_thread)
        else:
            self._work = LatentWork(
                store, compressor, self._codec, self.model_thread, beside=beside
            )
        if store.obstacle is None:
            self.background = BackgroundCompression(store, self._work, self.model_thread)

    def close(self) -> None:
        """Stop the background work after its current batch, and the thread if it is this one's."""
        if self.background:
            self.background.stop()
        if self._closes_thread:
            self.model_thread.close()

    def check_model(self) -> None:
        """Raise `OtherModel` if what the file has was made by another compressor."""
        if self._other_model:
            raise OtherModel(self._other_model)

    def calibrate(self) -> None:
        """Measure what unrelated questions score, if that is due."""
        if isinstance(self._work, LatentWork) and self._work.calibrator:
            self._work.calibrator.current()

    def recompress(self, progress: Progress | None) -> None:
        """Drop what another compressor made, and compress all; see `Memory.recompress`."""
        if self._other_model:
            if self._compressor.kind == "textual":
                drop_all_shortened(self._store)
            elif not self._store.allows_second_space:
                drop_all_latents(self._store)
            self._other_model = None
            self._open(beside=self._store.allows_second_space)
        if self.background is None:
            raise NoModel("recompressing needs the new model; open the memory with it")
        self.background.start()
        self.background.wait(None, progress)
        if self._work:
            self._work.finish()

    def figures(self) -> dict[str, Any]:
        """What this compressor has done, by the names in `clara_mlx.store.results.Status`."""
        if self._work is None:
            return {**self._store.backlog.figures(), "compressed": 0, "fingerprint": None}
        table = self._work.table
        done = {"compressed": table.count(), "fingerprint": table.fingerprint}
        return {**self._work.backlog.figures(), **done}

    def backlog(self) -> int:
        """Number of contents that wait for this compressor."""
        return self.waiting()[0].count()

    def waiting(self) -> tuple[Backlog, str | None]:
        """The contents that wait for this compressor, and the fingerprint of its model."""
        return (self._work or self._store).backlog, self._compressor.fingerprint

    # -- reading ---------------------------------------------------------------------------------

    def find(self, query: str, k: int, where: Where, mode: str, exact: bool) -> list[Hit] | None:
        """The best chunks by latents, and by words unless the mode is ``latent``.

        None if there are no latents of this compressor to search, and words have to do.

        Raises:
            NoModel: The mode is ``latent``, and there are none.
        """
        only = mode == "latent"
        if only and not self._latents("latent search").compressor.searches:
            raise NoModel("this compressor's latents can't be searched; search by text")
        if self._other_model:
            logger.warning("only text search is possible: %s", self._other_model)
        work = self._work
        if not isinstance(work, LatentWork):
            return None
        try:
            encoded = work.encode_query(query)
            if encoded is None and not only:
                return None
            unrelated = work.calibrator.current() if work.calibrator and not only else None
            found = self._store, work.index, encoded, None if only else query, k, where
            return search.search(*found, exact=exact, calibration=unrelated)
        except OtherModel as error:  # another process has moved the file since it was opened
            if only:
                raise
            logger.warning("only text search is possible: %s", error)
            return None

    def answer(
        self, question: str, hits: list[Hit], floor: float | None, narrow: bool, max_tokens: int
    ) -> Iterator[str | Answer]:
        """Answer from those of the hits that are relevant; see `Memory.stream_ask`."""
        work = self.work("asking")
        if isinstance(work, TextualWork):
            return iter([work.quote(question, asking.naming(hits))])
        if work.calibrator is None:
            hits = asking.naming(hits)
        else:
            unrelated = None if narrow else work.calibrator.current()
            hits = asking.relevant(hits, floor, unrelated)
        given = work.table, work.compressor, self.model_thread
        return asking.stream_answer(question, hits, *given, max_tokens)

    def shortened(self, handle: str) -> str:
        """A memory's shortened text; see `Memory.shortened`."""
        work = self.work("shortening")
        if not isinstance(work, TextualWork):
            raise NoModel("latents are no text; open the memory with a textual compressor")
        return work.shortened(handle)

    def work(self, what: str) -> LatentWork | TextualWork:
        """The open table, or an error that says why ``what`` can't be done."""
        self.check_model()
        if self._work is None:
            raise NoModel(f"{what} needs what a model has compressed, and there is nothing yet")
        return self._work

    def _latents(self, what: str) -> LatentWork:
        work = self.work(what)
        if not isinstance(work, LatentWork):
            raise NoModel(f"{what} needs a compressor that makes latents; this one is textual")
        return work
