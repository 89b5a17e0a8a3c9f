"""ClaraKnowledgeStore: CompyMac's KnowledgeStore and HybridRetriever over one memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clara_mlx.compymac.settings import Settings, shared_memory
from clara_mlx.memory import Memory
from clara_mlx.store.results import Hit
from clara_mlx.store.stored import StoredMemory

# The source of a unit's memory is this and the unit's id, by which it is found.
_UNIT = "unit:"

# Hits to ask for per result, because a unit may have several chunks.
_HITS_PER_RESULT = 4


@dataclass
class MemoryUnit:
    """A piece of knowledge; the fields are those of CompyMac's own."""

    id: str
    content: str
    embedding: list[float] | None = None
    source_type: str = ""
    source_id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)


@dataclass
class RetrievalResult:
    """A unit that a query found; ``match_type`` is ``keyword``, ``vector`` or ``hybrid``."""

    memory_unit: Any
    score: float
    match_type: str


class ClaraKnowledgeStore:
    """A drop-in for CompyMac's ``KnowledgeStore`` and ``HybridRetriever``.

    Each unit is a memory: its text is kept exactly, and found by words at once and by latents as
    soon as it is compressed. A unit's own embedding is not needed and not kept.
    Units come back as CompyMac's own classes if those are loaded, otherwise as ours.

    Args:
        backend: CompyMac's storage backend; the memory is then beside its database, as
            ``<name>.clara.db``, and `take_over` copies what the database has. Or another
            ``ClaraKnowledgeStore``, whose memory is shared: so this class also takes the place of
            ``HybridRetriever``.
        embedder: Accepted and not used.
        memory: The memory to use, in place of the backend's or the environment's.
        settings: Settings in place of the environment's.
        options: Other arguments of ``HybridRetriever``; not used.
    """

    def __init__(
        self,
        backend: Any = None,
        embedder: Any = None,
        *,
        memory: Memory | None = None,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        del embedder, options
        self.backend = backend
        if isinstance(backend, ClaraKnowledgeStore):
            memory = memory or backend.memory
        if memory is None:
            settings = settings or Settings.from_env()
            path = getattr(backend, "db_path", None)
            if path is not None:
                beside = Path(path).with_suffix(".clara.db")
                settings = replace(settings, memory=beside)
            memory = shared_memory(settings)
        self.memory: Memory = memory

    def store(self, unit: Any) -> None:
        """Keep a unit; it replaces an earlier one of the same id as soon as it is durable."""
        earlier = [memory.handle for memory in self._memories({"source": _UNIT + unit.id})]
        self.memory.remember(
            unit.content,
            source=_UNIT + unit.id,
            session=unit.source_id,
            metadata={
                "knowledge": True,
                "source_type": unit.source_type,
                "source_id": unit.source_id,
                "created_at": unit.created_at,
                "unit": dict(unit.metadata or {}),
            },
        )
        for handle in earlier:
            self.memory.forget(handle)

    def store_batch(self, units: Iterable[Any]) -> None:
        """Keep several units."""
        for unit in units:
            self.store(unit)

    def get(self, unit_id: str) -> Any | None:
        """The unit with this id, or None."""
        found = list(self._memories({"source": _UNIT + unit_id}))
        return self._unit(found[-1]) if found else None

    def delete(self, unit_id: str) -> bool:
        """Remove a unit; returns whether there was one."""
        return bool(self.memory.forget(where={"source": _UNIT + unit_id}))

    def retrieve(
        self,
        query: str,
        limit: int = 10,
        source_type: str | None = None,
        source_id: str | None = None,
        use_dense: bool = True,
    ) -> list[Any]:
        """The best units for a query, best first; without a query the newest, with a score of 0.

        Args:
            query: What to look for.
            limit: Number of results; fewer only if fewer units match.
            source_type: Only units from this type of source.
            source_id: Only units from this source.
            use_dense: Search by latents, too, and not only by words.
        """
        where = _where(source_type, source_id)
        result = _class("RetrievalResult", RetrievalResult)
        if limit < 1:
            return []
        if not query.strip():
            newest = sorted(self._memories(where), key=lambda memory: -_created(memory))[:limit]
            return [result(self._unit(memory), 0.0, "keyword") for memory in newest]
        best: dict[str, Hit] = {}
        wanted = _HITS_PER_RESULT * limit
        while True:
            mode = "hybrid" if use_dense else "text"
            hits = self.memory.recall(query, wanted, where, mode=mode)  # type: ignore[arg-type]
            for hit in hits:
                best.setdefault(hit.handle, hit)
            if len(best) >= limit or len(hits) < wanted:
                break
            wanted *= 2
        return [
            result(self._from_hit(hit), hit.score, _match_type(hit))
            for hit in list(best.values())[:limit]
        ]

    def retrieve_by_source(self, source_type: str, source_id: str, limit: int = 100) -> list[Any]:
        """All units of a source, newest first."""
        found = sorted(self._memories(_where(source_type, source_id)), key=lambda m: -_created(m))
        return [self._unit(memory) for memory in found[:limit]]

    def count(self) -> int:
        """The number of units."""
        return sum(1 for _ in self._memories(_where()))

    def clear(self) -> None:
        """Remove all units; other memories of the file stay."""
        self.memory.forget(where=_where())

    def take_over(self, backend: Any) -> int:
        """Keep the units of CompyMac's own database that are not here yet; returns their number.

        Args:
            backend: CompyMac's storage backend; it is only read.
        """
        taken = 0
        for row in backend.fetch_all("SELECT * FROM memory_units ORDER BY created_at"):
            if self.get(row["id"]) is None:
                metadata = json.loads(row["metadata"] or "{}")
                self.store(
                    MemoryUnit(
                        row["id"],
                        row["content"],
                        None,
                        row["source_type"],
                        row["source_id"],
                        metadata,
                        row["created_at"],
                    )
                )
                taken += 1
        return taken

    # -- units of memories -----------------------------------------------------------------------

    def _memories(self, where: Mapping[str, Any]) -> Iterable[StoredMemory]:
        return self.memory.list(where)

    def _unit(self, memory: StoredMemory) -> Any:
        return self._make(memory.handle, memory.source, memory.metadata)

    def _from_hit(self, hit: Hit) -> Any:
        return self._make(hit.handle, hit.source, hit.metadata)

    def _make(self, handle: str, source: str | None, metadata: Mapping[str, Any]) -> Any:
        content = self.memory.original(handle)
        return _class("MemoryUnit", MemoryUnit)(
            id=(source or "").removeprefix(_UNIT),
            content=content,
            embedding=None,
            source_type=metadata["source_type"],
            source_id=metadata["source_id"],
            metadata=metadata["unit"],
            created_at=metadata["created_at"],
        )


def _where(source_type: str | None = None, source_id: str | None = None) -> dict[str, Any]:
    where: dict[str, Any] = {"knowledge": True}
    if source_type:
        where["source_type"] = source_type
    if source_id:
        where["session"] = source_id  # which has an index
    return where


def _created(memory: StoredMemory) -> float:
    return float(memory.metadata["created_at"])


def _match_type(hit: Hit) -> str:
    names: dict[tuple[str, ...], str] = {("text",): "keyword", ("latent",): "vector"}
    return names.get(hit.found_by, "hybrid")


def _class(name: str, ours: Any) -> Any:
    """CompyMac's own class if its module is loaded, else ours."""
    return getattr(sys.modules.get("compymac.knowledge_store"), name, ours)
