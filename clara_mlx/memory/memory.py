"""Memory: remember what an agent saw, recall it, ask about it, and get every original back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from clara_mlx.errors import NoModel, NotFound, Progress, StoreError
from clara_mlx.memory.cutting import Measure, cut
from clara_mlx.memory.exporting import Exports
from clara_mlx.memory.ledger import Ledger
from clara_mlx.memory.listing import Listings
from clara_mlx.memory.working import Working
from clara_mlx.store import care, exports, fields, reindexing, search
from clara_mlx.store.filters import Where
from clara_mlx.store.given import Given
from clara_mlx.store.newcomer import readable, text_of
from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import Database
from clara_mlx.store.results import Hit, Status
from clara_mlx.store.shortened import count_by_shortener
from clara_mlx.store.spaces import space_of
from clara_mlx.store.stored import StoredMemory

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import Compressor, LatentCompressor
    from clara_mlx.memory.asking import Answer
    from clara_mlx.memory.background import BackgroundCompression
    from clara_mlx.memory.compressing import Compressing
    from clara_mlx.model.thread import ModelThread

Mode = Literal["latent", "text", "hybrid"]


class Memory(Exports, Listings, Working):
    """A memory file, with or without the compressor of its texts. Made by `open`.

    Without one it remembers, recalls by text and gives originals back; what it remembers is
    compressed when the file is next opened with one.

    Attributes:
        path: The file.
        compressor: What compresses, and answers if it can; `Clara`, or any other.
        measure: What texts are cut by; None: only their characters count.
        floor: Least centred cosine of what `ask` reads; None: it is measured.
    """

    def __init__(
        self,
        store: Originals,
        compressor: Compressor | None,
        codec: str,
        floor: float | None,
        most_bytes: int | None,
        model_thread: ModelThread | None = None,
    ) -> None:
        self.path = store.path
        self.file: Database = store  # for the tables that other rooms keep in it
        self.ledger = Ledger(store)  # what the gateway has counted
        self.compressor = compressor
        clara = self.clara
        self.measure = Measure(clara.tokenizer, clara.chunk_tokens) if clara else None
        self.floor = floor
        self._store = store
        self._most_bytes = most_bytes
        self._compressing: Compressing | None = None
        if compressor:
            from clara_mlx.memory.compressing import Compressing  # brings in numpy

            self._compressing = Compressing(store, compressor, codec, model_thread)

    @classmethod
    def open(
        cls,
        path: str | Path,
        compressor: Compressor | None = None,
        *,
        codec: str = "int8",
        floor: float | None = None,
        most_bytes: int | None = None,
        compress: bool = True,
        model_thread: ModelThread | None = None,
    ) -> Self:
        """Open a memory file, or make it.

        Args:
            path: The SQLite file, or a team's database: ``postgresql://user@host/database``.
            compressor: `Clara` or another; without it only text is searched and nothing is
                compressed.
            codec: The format in which new latents are stored: ``int8``, ``fp16`` or ``int4``.
            floor: Least centred cosine of what `ask` reads; default: see `asking.relevant`.
            most_bytes: Size of the file's used pages above which the oldest memories are
                forgotten; None keeps everything. A team's database has no such limit.
            compress: Whether to work through the backlog in the background.
            model_thread: The `model_thread` of a memory with the same compressor, which then
                serves both and ends with that one; close this one first.

        A file has latents of one model and, beside them, shortened texts of one textual compressor.
        If those that this compressor would make are another's, the file is open for text search
        only, until `recompress`.

        Raises:
            StoreError: The file can't be opened.
        """
        if most_bytes is not None:
            care.check_limit(path, most_bytes)
        store = open_store(path)
        try:
            memory = cls(store, compressor, codec, floor, most_bytes, model_thread)
        except BaseException:
            store.close()
            raise
        if compress and memory._background:
            memory._background.start()
        return memory

    @property
    def clara(self) -> LatentCompressor | None:
        """The compressor, if it is one that makes latents: it can answer."""
        compressor = self.compressor
        return compressor if compressor is not None and compressor.kind == "latent" else None

    @property
    def model_thread(self) -> ModelThread | None:
        """Where the compressor works; None without one."""
        return self._compressing.model_thread if self._compressing else None

    @property
    def _background(self) -> BackgroundCompression | None:
        return self._compressing.background if self._compressing else None

    def close(self, *, flush: bool = False) -> None:
        """Stop the background work after its current batch; the rest waits for the next open."""
        if flush:
            self.flush()
        if self._compressing:
            self._compressing.close()
        self._store.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- remembering -----------------------------------------------------------------------------

    def remember(
        self,
        text: str | bytes,
        *,
        source: str | None = None,
        session: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        handle: str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Keep a text (or raw bytes) and return its handle; durable when it returns.

        Text search finds it at once, latent search when it is compressed, once for each content.

        Args:
            text: The original, which is kept byte for byte.
            source, session, metadata: Where it came from; `recall` can filter by all three.
            handle: The handle to give it, which must be new; without it, one is made.
            progress: Called with the characters cut into chunks so far, and in all.
        """
        given = {"source": source, "session": session, "metadata": metadata, "handle": handle}
        original, kind = fields.original_of(text)
        handle = self._keep(original, kind, progress, **given)
        self._work_on()
        return handle

    def remember_many(self, given: Sequence[Mapping[str, Any]], *, synced: bool = True) -> None:
        """As `remember`, for texts that have their arguments and new handles: all or none.

        If not ``synced``, it does not wait for the disk: the texts survive the end of this process
        at once, but a loss of power only when something else has been remembered.
        """
        many = [Given(spans=cut(one["text"], self.measure), **one) for one in given]
        self._store.remember_many(many, synced=synced)
        self._work_on()

    def _work_on(self) -> None:
        if self._most_bytes is not None:
            care.evict(self._store, self._most_bytes)
        if self._background:
            self._background.wake()
            self._background.hold_back()

    def _keep(
        self, original: bytes, kind: str, progress: Progress | None = None, **given: Any
    ) -> str:
        """Cut an original into chunks and store both; returns its handle."""
        text = text_of(original, kind)
        spans = cut(text, self.measure, progress)
        return self._store.remember(original, text, spans, kind=kind, **given)

    @property
    def answers(self) -> bool:
        """Whether `ask` has a model that answers, so that asking is worth a try."""
        return self.clara is not None

    def flush(self, timeout: float | None = None, *, progress: Progress | None = None) -> None:
        """Wait until everything is compressed or given up, but no longer than ``timeout`` seconds.

        ``progress`` is called with the number of contents done since the call, and in all.

        Raises:
            StoreError: The time is up; `NoModel`: no model compresses this file here.
        """
        if self._compressing:
            self._compressing.check_model()
        self._store.settle()
        if self._background and self._background.running:
            self._background.wait(timeout, progress)
        elif self.backlog():
            self._store.check_writable()
            raise NoModel(f"{self.path}: nothing compresses the rest; open it with a model")
        if self._compressing:
            self._compressing.calibrate()

    def original(self, handle: str) -> str | bytes:
        """The exact original: text as text, bytes as bytes, checked against its SHA-256."""
        data, kind = self._store.original(handle)
        return data if kind == "bytes" else data.decode("utf-8", "surrogatepass")

    def text(self, handle: str) -> str:
        """The original as text, in which the spans of hits count; what can't be read is U+FFFD."""
        return readable(self._store.text_by_handle(handle))

    def original_bytes(self, handle: str) -> bytes:
        """The original as the bytes that are stored: a text is encoded as UTF-8."""
        return self._store.original(handle)[0]

    def has(self, handle: str) -> bool:
        """Whether there is a memory with this handle."""
        return self._store.has(handle)

    def forget(self, handle: str | None = None, *, where: Where = None) -> int:
        """Remove one memory, or all that match ``where``: text, latents and index entries.

        Content that another memory still holds stays. Returns the number of memories removed.

        Raises:
            StoreError: Neither or both were given; `NotFound`: there is no such handle.
        """
        if (handle is None) == (where is None) or where == {}:
            raise StoreError("what to forget? Give a handle, or where=... with a condition or more")
        removed = self._store.forget({"handle": handle} if where is None else where)
        if handle is not None and not removed:
            raise NotFound(f"{self.path}: no memory {handle!r}")
        return removed

    # -- finding ---------------------------------------------------------------------------------

    def recall(
        self,
        query: str,
        k: int = 10,
        where: Where = None,
        *,
        mode: Mode = "hybrid",
        exact: bool = False,
    ) -> list[Hit]:
        """The k best chunks for a query, best first.

        Args:
            query: A question or words.
            k: Number of results; fewer only if fewer chunks match ``where``.
            where: Conditions on source, session, after, before, or keys of the metadata.
            mode: Search by ``latent``, by ``text``, or by both, fused.
            exact: Compare with every latent instead of the candidates that the sketches give.

        Raises:
            StoreError: An argument is of another type, or the mode needs a model.
        """
        if mode not in ("latent", "text", "hybrid"):
            raise StoreError(f"mode must be latent, text or hybrid, not {mode!r}")
        fields.check_query(query)
        k = fields.check_number("k", k)
        reindexing.work(self._store, reindexing.SEARCH_SECONDS)
        hits: list[Hit] | None = None
        if mode == "latent" and self._compressing is None:
            raise NoModel("latent search needs a model; open the memory with one")
        if mode != "text" and self._compressing:
            hits = self._compressing.find(query, k, where, mode, exact)
        return search.search(self._store, None, None, query, k, where) if hits is None else hits

    def ask(
        self, question: str, k: int = 5, where: Where = None, *, max_tokens: int = 128
    ) -> Answer:
        """Answer a question from the memory tokens of the k best chunks, with the evidence.

        A textual compressor doesn't answer: the text is then what it keeps of these chunks.

        Only relevant chunks are read (`asking.relevant`), in several passes if they do not fit the
        decoder's window together. If there is none, the answer says so.
        """
        *_, answer = self.stream_ask(question, k, where, max_tokens=max_tokens)
        assert not isinstance(answer, str)  # the last piece
        return answer

    def stream_ask(
        self, question: str, k: int = 5, where: Where = None, *, max_tokens: int = 128
    ) -> Iterator[str | Answer]:
        """`ask` piece by piece: text as it comes, and the whole `Answer` last."""
        from clara_mlx.memory import asking  # brings in numpy

        asking.check_question(question)
        compressing = self._need_compressor("asking")
        compressing.work("asking")
        hits = self.recall(question, k, where)
        floor = asking.floor_for(where, self.floor)
        narrow = asking.is_narrow(where)
        return compressing.answer(question, hits, floor, narrow, max_tokens)

    def shortened(self, handle: str) -> str:
        """What stands for a memory: its text as a textual compressor shortens it.

        Raises:
            NoModel: The memory was not opened with one.
            NotFound: There is no such handle.
        """
        return self._need_compressor("shortening").shortened(handle)

    def _need_compressor(self, what: str) -> Compressing:
        if self._compressing is None:
            raise NoModel(f"{what} needs a model; open the memory with one")
        return self._compressing

    # -- care ------------------------------------------------------------------------------------

    def verify(self, *, repair: bool = False, progress: Progress | None = None) -> care.Findings:
        """Check every original, span, latent and index entry; ``repair`` marks damage pending."""
        findings = care.verify(self._store, progress)
        if repair and findings.damaged_chunks:
            care.repair(self._store, findings)
            if self._background:
                self._background.wake()
        return findings

    def vacuum(self) -> tuple[int, int]:
        """Give freed pages back to the disk; returns the file's bytes before and after."""
        return care.vacuum(self._store)

    compact = vacuum  # the former name, which the CLI's command still has

    def import_(self, lines: Iterable[str], name: str = "the export") -> int:
        """Remember the memories of an export, handles and times included; returns how many are new.

        Args:
            lines: What `export` wrote.
            name: What errors call the export, such as its path.

        Raises:
            StoreError: A line is damaged; the memories before it have been kept.
        """
        self._store.check_writable()
        new = exports.import_(lines, name, self.has, lambda given: self._keep(**given))
        if self._background:
            self._background.wake()
        return new

    def status(self) -> Status:
        """Counts, sizes and the progress of compression."""
        space = space_of(self._store)
        made_by = {space.compressor: space.count} if space else {}
        made_by |= count_by_shortener(self._store)
        if self._compressing:
            figures = self._compressing.figures()
        else:
            done = {"compressed": space.count, "fingerprint": space.fingerprint} if space else {}
            figures = {"compressed": 0, "fingerprint": None, **done}
            figures |= self._store.backlog.figures()
        return Status(made_by=made_by, **self._store.figures(), **figures)

    def backlog(self) -> int:
        """Number of contents that wait for compression."""
        return (self._compressing.backlog if self._compressing else self._store.backlog.count)()

    # The last method, as its name hides the built-in list from the annotations that follow it.
    def list(self, where: Where = None, newest: int | None = None) -> Iterator[StoredMemory]:
        """The memories that match, oldest first; or the ``newest`` n of them, latest first."""
        return self._store.memories(where, newest)
