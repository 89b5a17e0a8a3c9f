"""Memory: remember what an agent saw, recall it, ask about it, and get every original back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal

from clara_mlx.errors import Progress, StoreError
from clara_mlx.memory import asking
from clara_mlx.memory.background import Compressor
from clara_mlx.model import chunking
from clara_mlx.model.thread import ModelThread
from clara_mlx.store import care, search
from clara_mlx.store.file import File
from clara_mlx.store.results import Answer, Hit, Status
from clara_mlx.store.space import OtherModel, Space
from clara_mlx.store.store import Span, Store, StoredMemory

if TYPE_CHECKING:
    from clara_mlx.model.clara import Clara  # imports MLX, which text alone does not need

Mode = Literal["latent", "text", "hybrid"]

#: Characters of a chunk that is cut while no tokenizer is at hand; it is cut again later.
PROVISIONAL_CHARACTERS = 768

#: Centred cosine below which a chunk has nothing to do with a question (bench/RESULTS.md).
SCORE_FLOOR = 0.15

_PROGRESS_CHUNKS = 256
_LOG = logging.getLogger(__name__)


class Memory:
    """A memory file with (or without) the model that compresses and answers. Made by `open`.

    Without a model it remembers, recalls by text and gives originals back; what it remembers is
    compressed when the file is next opened with one.
    """

    def __init__(
        self,
        store: Store,
        clara: Clara | None,
        *,
        codec: str = "int8",
        floor: float = SCORE_FLOOR,
        most_bytes: int | None = None,
    ) -> None:
        self.store = store
        self.clara = clara
        self.floor = floor
        self._codec = codec
        self._most_bytes = most_bytes
        self.model_thread = ModelThread() if clara is not None else None
        self._space: Space | None = None
        self._compressor: Compressor | None = None
        self._other_model: OtherModel | None = None
        try:
            self._open_space()
        except OtherModel as error:
            # Originals and text search are there; latents of two models must not meet.
            self._other_model = error
        except BaseException:
            self.close()
            raise

    def _open_space(self) -> None:
        clara, model = self.clara, self.model_thread
        if clara is not None and model is not None:
            config = clara.config
            self._space = Space.open(
                self.store,
                clara.fingerprint,
                config.memory_tokens,
                config.hidden_size,
                self._codec,
            )
            self._compressor = Compressor(self.store, self._space, clara, model)

    @classmethod
    def open(
        cls,
        path: str | Path,
        clara: Clara | None = None,
        *,
        codec: str = "int8",
        floor: float = SCORE_FLOOR,
        most_bytes: int | None = None,
        compress: bool = True,
    ) -> Memory:
        """Open a memory file, or make it.

        Args:
            path: the SQLite file.
            clara: the model; without it only text is searched and nothing is compressed.
            codec: how new latents are kept: ``int8``, ``fp16`` or ``int4``.
            floor: centred cosine below which `ask` finds nothing relevant.
            most_bytes: forget the oldest memories when the file's used pages exceed this; never
                without it.
            compress: work through the backlog in the background.

        A file whose latents are another model's is open for text search only, until `recompress`.

        Raises:
            StoreError: the file can't be opened.
        """
        memory = cls(Store(path), clara, codec=codec, floor=floor, most_bytes=most_bytes)
        if compress and memory._compressor:
            memory._compressor.start()
        return memory

    def close(self, *, flush: bool = False) -> None:
        """Stop the background work after the batch at hand; marks stay for the next open."""
        if flush:
            self.flush()
        if self._compressor:
            self._compressor.stop()
        if self.model_thread:
            self.model_thread.close()
        self.store.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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

        It is found by text search at once, and by its latents when the background work has
        compressed it. The same content is stored and compressed once, however often it comes.
        ``handle`` chooses the handle, which must be new.
        ``progress`` is called with the characters cut into chunks, which takes longest, and all.
        """
        if isinstance(text, bytes):
            original, kind = text, "bytes"
            text = original.decode("utf-8", "surrogateescape")
        else:
            original, kind = text.encode("utf-8", "surrogatepass"), "text"
        handle = self.store.remember(
            original,
            text,
            self._spans(text, progress),
            kind=kind,
            source=source,
            session=session,
            metadata=metadata,
            handle=handle,
        )
        if self._most_bytes is not None:
            care.evict(self.store, self._most_bytes)
        if self._compressor:
            self._compressor.wake()
            self._compressor.hold_back()
        return handle

    def _spans(self, text: str, progress: Progress | None = None) -> Iterator[Span]:
        spans: Iterator[Span]
        if self.clara is not None:
            chunks = chunking.split(text, self.clara.tokenizer, self.clara.config.doc_max_length)
            spans = ((chunk.start, chunk.end, chunk.tokens) for chunk in chunks)
        else:
            pieces = chunking.split_characters(text, PROVISIONAL_CHARACTERS)
            spans = ((start, end, None) for start, end in pieces)
        for number, span in enumerate(spans, 1):
            yield span
            if progress and number % _PROGRESS_CHUNKS == 0:
                progress(span[1], len(text))

    def flush(self, timeout: float | None = None, *, progress: Progress | None = None) -> None:
        """Wait until everything is compressed (or given up, see `status`).

        ``progress`` is called with the contents done and in all, counted from now.

        Raises:
            StoreError: no model is there to compress, or ``timeout`` seconds have passed.
        """
        if self._other_model:
            raise self._other_model
        if self._compressor is None or not self._compressor.running:
            if self.store.backlog():
                raise StoreError(
                    f"{self.store.path}: nothing compresses here; open it with a model"
                )
            return
        self._compressor.wait(timeout, progress)

    def original(self, handle: str) -> str | bytes:
        """The exact original: text as text, bytes as bytes, checked against its SHA-256."""
        data, kind = self.store.original(handle)
        return data if kind == "bytes" else data.decode("utf-8", "surrogatepass")

    def original_bytes(self, handle: str) -> bytes:
        """The bytes of an original as they are kept: those remembered, or a text in UTF-8."""
        data, _ = self.store.original(handle)
        return data

    def has(self, handle: str) -> bool:
        """Whether there is a memory with this handle."""
        return self.store.has(handle)

    def forget(self, handle: str | None = None, *, where: Mapping[str, Any] | None = None) -> int:
        """Remove one memory, or all that ``where`` describes: text, latents and index entries.

        Content that another memory still holds stays. Returns how many memories were removed.

        Raises:
            StoreError: neither or both were given, or there is no such handle.
        """
        if (handle is None) == (where is None) or where == {}:
            raise StoreError("forget one handle, or where=... with at least one condition")
        removed = self.store.forget({"handle": handle} if where is None else where)
        if handle is not None and not removed:
            raise StoreError(f"{self.store.path}: no memory {handle!r}")
        return removed

    # -- finding ---------------------------------------------------------------------------------

    def recall(
        self,
        query: str,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        mode: Mode = "hybrid",
        exact: bool = False,
    ) -> list[Hit]:
        """The k best chunks for a query, best first; all k whenever as many match ``where``.

        Args:
            query: a question or words.
            k: how many.
            where: source, session, after, before, or keys of the metadata; applied before top-k.
            mode: by ``latent``, by ``text`` (BM25), or both fused by reciprocal ranks.
            exact: compare with every latent instead of the candidates that the sketches give.
        """
        if mode not in ("latent", "text", "hybrid"):
            raise StoreError(f"mode {mode!r} is none of latent, text, hybrid")
        if k < 1:
            raise StoreError(f"k must be at least 1, got {k}")
        if mode == "latent":
            self._need_space("latent search")
        encoded = None
        if mode == "hybrid" and self._other_model:
            _LOG.warning("only words are searched: %s", self._other_model)
        if mode != "text" and self.clara and self._space and self._space.count():
            assert self.model_thread is not None
            encoded = asking.encode_query(query, self.clara, self.model_thread)
        return search.search(
            self.store,
            self._space,
            encoded,
            None if mode == "latent" else query,
            k,
            where,
            exact=exact,
        )

    # -- asking ----------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        *,
        max_tokens: int = 128,
    ) -> Answer:
        """Answer a question from the k best chunks' memory tokens, with the evidence.

        Chunks below the score floor are left out; if none is left, the answer says that nothing
        relevant is remembered. If the chunks do not fit the decoder's window they are read in
        passes, see `asking.stream_answer`.
        """
        *_, answer = self.stream_ask(question, k, where, max_tokens=max_tokens)
        assert isinstance(answer, Answer)
        return answer

    def stream_ask(
        self,
        question: str,
        k: int = 5,
        where: Mapping[str, Any] | None = None,
        *,
        max_tokens: int = 128,
    ) -> Iterator[str | Answer]:
        """`ask` piece by piece: text as it comes, and the whole `Answer` last."""
        space = self._need_space("asking")
        assert self.clara is not None and self.model_thread is not None
        hits = asking.relevant(self.recall(question, k, where), self.floor)
        return asking.stream_answer(
            question, hits, space, self.clara, self.model_thread, max_tokens
        )

    def _need_space(self, what: str) -> Space:
        if self._other_model:
            raise self._other_model
        if self._space is None:
            raise StoreError(f"{what} needs a model; open the memory with one")
        return self._space

    # -- care ------------------------------------------------------------------------------------

    def recompress(self, progress: Progress | None = None) -> None:
        """Move the file to this model: its latents replace the other model's.

        All contents are marked pending and compressed again, so it can be interrupted and goes on
        at the next open. Text search and originals stay as they are meanwhile, and latent search
        finds what has been compressed so far.

        Raises:
            StoreError: no model was given to `open`.
        """
        if self.clara is None:
            raise StoreError("recompressing needs the new model; open the memory with it")
        if self._other_model:
            self.store.leave_spaces()
            self._other_model = None
            self._open_space()
        assert self._compressor is not None
        if not self._compressor.running:
            self._compressor.start()
        self._compressor.wait(None, progress)

    def verify(
        self, *, repair: bool = False, progress: care.Progress | None = None
    ) -> care.Findings:
        """Check every original, span, latent and index entry; ``repair`` marks damage pending."""
        findings = care.verify(self.store, progress)
        if repair and findings.damaged_chunks:
            care.repair(self.store, findings)
            if self._compressor:
                self._compressor.wake()
        return findings

    def vacuum(self) -> tuple[int, int]:
        """Give freed pages back to the disk; returns the file's bytes before and after."""
        return care.compact(self.store)

    compact = vacuum  # the method's name until 0.1; the CLI's command still has it

    def export(
        self,
        file: IO[str],
        where: Mapping[str, Any] | None = None,
        *,
        progress: care.Progress | None = None,
    ) -> int:
        """Write memories as JSON lines with their originals; returns how many."""
        return care.export(self.store, file, where, progress)

    def import_(self, lines: Iterable[str]) -> int:
        """Remember the memories of an export, handles and times kept; returns how many were new.

        Raises:
            StoreError: a line is damaged; those before it have been kept.
        """
        new = 0
        for line in care.read_export(lines):
            if self.store.has(line.handle):
                continue
            errors = "surrogateescape" if line.kind == "bytes" else "surrogatepass"
            text = line.original.decode("utf-8", errors)
            self.store.remember(
                line.original,
                text,
                self._spans(text),
                kind=line.kind,
                source=line.source,
                session=line.session,
                metadata=line.metadata,
                created_at=line.created_at,
                handle=line.handle,
            )
            new += 1
        if self._compressor:
            self._compressor.wake()
        return new

    def status(self) -> Status:
        """Counts, sizes and the progress of compression."""
        space = self._space
        fingerprint, compressed = None, 0
        if space is not None:
            fingerprint, compressed = space.fingerprint, space.count()
        elif self.clara is None:
            fingerprint, compressed = self.store.kept()
        return Status(
            path=str(self.store.path),
            compressed=compressed,
            fingerprint=fingerprint,
            **self.store.figures(),
        )

    def backlog(self) -> int:
        """Number of contents that still wait for compression."""
        return self.store.backlog()

    @property
    def path(self) -> Path:
        """The memory file."""
        return self.store.path

    @property
    def file(self) -> File:
        """The open file, for tables that other rooms keep in it."""
        return self.store

    # The last method, because its name hides the built-in one from annotations after it.
    def list(
        self, where: Mapping[str, Any] | None = None, newest: int | None = None
    ) -> Iterator[StoredMemory]:
        """The memories that match ``where``, without their contents, in the order they came.

        Args:
            where: As for `recall`.
            newest: Number of memories; only the latest ones are listed, and the latest first.
        """
        return self.store.memories(where, newest)
