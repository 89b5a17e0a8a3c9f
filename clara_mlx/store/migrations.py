"""The schema, as numbered steps: ``PRAGMA user_version`` says how many a file has had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.store.atomic import clear_leftovers, partial_file
from clara_mlx.store.driver import Connection, connect, driver, is_transient, transaction, use_wal


def m001_create_originals(connection: Connection) -> None:
    """Create originals, each stored once; memories, which are their occurrences; full text."""
    for statement in (
        """
        CREATE TABLE contents (
            id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: processes cache texts by it
            sha256 BLOB NOT NULL,            -- of the original's bytes
            kind TEXT NOT NULL CHECK (kind IN ('text', 'bytes')),
            length INTEGER NOT NULL,         -- bytes before compression
            compression TEXT NOT NULL,       -- 'zlib' or 'none'
            data BLOB NOT NULL,
            UNIQUE (sha256, kind)
        )""",
        """
        CREATE TABLE memories (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            handle TEXT NOT NULL UNIQUE,
            content_id INTEGER NOT NULL REFERENCES contents (id),
            source TEXT,
            session TEXT,
            created_at REAL NOT NULL,        -- seconds since 1970
            metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata))
        )""",
        "CREATE INDEX memories_content ON memories (content_id)",
        "CREATE INDEX memories_source ON memories (source, created_at)",
        "CREATE INDEX memories_session ON memories (session, created_at)",
        "CREATE INDEX memories_created ON memories (created_at)",
        """
        CREATE TABLE chunks (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            content_id INTEGER NOT NULL REFERENCES contents (id) ON DELETE CASCADE,
            start INTEGER NOT NULL,          -- span in characters of the content's text
            end INTEGER NOT NULL,
            tokens INTEGER                   -- NULL: cut without a tokenizer, to be cut again
        )""",
        "CREATE INDEX chunks_content ON chunks (content_id, start)",
        """
        CREATE VIRTUAL TABLE chunk_text USING fts5(
            text, parts, content = '', contentless_delete = 1,
            tokenize = "unicode61 tokenchars '_'"
        )""",
        "INSERT INTO chunk_text (chunk_text, rank) VALUES ('secure-delete', 1)",
        """
        CREATE TRIGGER chunks_forget AFTER DELETE ON chunks BEGIN
            DELETE FROM chunk_text WHERE rowid = old.id;
        END""",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    ):
        connection.execute(statement)


def m002_create_latents(connection: Connection) -> None:
    """Create spaces of latents (one for each model), pending marks and the compressor's lease.

    The sketches of a space are in a vec0 table, ``sketches_<id>``, which is created with the space.
    """
    for statement in (
        """
        CREATE TABLE spaces (
            id INTEGER PRIMARY KEY,
            fingerprint TEXT NOT NULL UNIQUE,
            memory_tokens INTEGER NOT NULL,
            hidden INTEGER NOT NULL,
            codec TEXT NOT NULL,
            sketch_bits INTEGER NOT NULL,
            sketch_seed INTEGER NOT NULL,
            mean BLOB,                       -- float32; what sketches are centred on
            mean_count INTEGER NOT NULL DEFAULT 0,
            epoch INTEGER NOT NULL DEFAULT 0 -- grows when sketches are removed or made anew
        )""",
        """
        CREATE TABLE latents (
            id INTEGER PRIMARY KEY,
            space_id INTEGER NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
            chunk_id INTEGER NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
            crc INTEGER NOT NULL,
            data BLOB NOT NULL,
            UNIQUE (space_id, chunk_id)
        )""",
        "CREATE INDEX latents_chunk ON latents (chunk_id)",
        """
        CREATE TABLE pending (
            content_id INTEGER PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
            attempts INTEGER NOT NULL DEFAULT 0,
            error TEXT
        )""",
        "INSERT INTO pending (content_id) SELECT id FROM contents",
        "CREATE TABLE leases (name TEXT PRIMARY KEY, owner TEXT, expires_at REAL) WITHOUT ROWID",
    ):
        connection.execute(statement)


def m003_create_blocks(connection: Connection) -> None:
    """Create frozen blocks, the memories they mention, and the edits of conversations by them.

    Forgetting a memory removes every block that mentions it, and the edits with those blocks.
    """
    for statement in (
        """
        CREATE TABLE blocks (
            digest BLOB PRIMARY KEY,         -- of what the block stands for
            kind TEXT NOT NULL CHECK (kind IN ('piece', 'note', 'fold')),
            issued BLOB NOT NULL,            -- SHA-256 of the block's own text
            text TEXT NOT NULL,              -- chosen once, never rewritten
            handle TEXT,                     -- of the original; NULL: there is none, or see body
            body BLOB                        -- zlib of a text that is no memory of its own
        ) WITHOUT ROWID""",
        "CREATE INDEX blocks_issued ON blocks (issued)",
        """
        CREATE TABLE mentions (
            handle TEXT NOT NULL REFERENCES memories (handle) ON DELETE CASCADE,
            block BLOB NOT NULL REFERENCES blocks (digest) ON DELETE CASCADE,
            PRIMARY KEY (handle, block)
        ) WITHOUT ROWID""",
        "CREATE INDEX mentions_block ON mentions (block)",
        """
        CREATE TRIGGER mentions_forget AFTER DELETE ON mentions BEGIN
            DELETE FROM blocks WHERE digest = old.block;
        END""",
        """
        CREATE TABLE edits (
            chain BLOB NOT NULL,             -- digest of a conversation up to and with a message
            part TEXT NOT NULL,              -- which text of that message
            block BLOB NOT NULL REFERENCES blocks (digest) ON DELETE CASCADE,
            explains INTEGER NOT NULL,       -- 1: how to get originals back is said here
            PRIMARY KEY (chain, part)
        ) WITHOUT ROWID""",
        "CREATE INDEX edits_block ON edits (block)",
    ):
        connection.execute(statement)


def m004_index_descriptions(connection: Connection) -> None:
    """Create the index of what is known of memories, and mark all rows to be indexed again.

    What was indexed before is found as before, until `reindexing` comes to it.
    """
    for statement in (
        """
        CREATE VIRTUAL TABLE memory_text USING fts5(
            text, parts, content = '', contentless_delete = 1,
            tokenize = "unicode61 tokenchars '_'"
        )""",
        "INSERT INTO memory_text (memory_text, rank) VALUES ('secure-delete', 1)",
        """
        CREATE TRIGGER memories_forget AFTER DELETE ON memories BEGIN
            DELETE FROM memory_text WHERE rowid = old.id;
        END""",
        # The last rows that were not indexed again; those after them are as they should be.
        "INSERT INTO meta SELECT 'reindex memories', max(id) FROM memories HAVING max(id)",
        "INSERT INTO meta SELECT 'reindex chunks', max(id) FROM chunks HAVING max(id)",
    ):
        connection.execute(statement)


def m005_create_ledger(connection: Connection) -> None:
    """Create the ledger of prompts that were sent, what they cost, and their sums of each day.

    Also an index on the project that memories belong to, which stands in their metadata.
    """
    for statement in (
        """
        CREATE TABLE rounds (                -- one prompt that was sent, and its answer
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,                -- when its preparation began; seconds since 1970
            session TEXT NOT NULL,           -- '': of a conversation that was forgotten
            project TEXT NOT NULL,           -- folder; '': not known
            agent TEXT NOT NULL,             -- who asked, such as 'claude-cli'; '': not known
            api TEXT NOT NULL,               -- by which it was asked, such as 'chat'
            model TEXT NOT NULL,             -- as its client names it
            served_by TEXT NOT NULL,         -- 'reasoner', 'fallback' or 'memory'
            number INTEGER NOT NULL,         -- 0 for a request's first; later ones answer its calls
            seconds REAL NOT NULL,           -- from then until the answer was complete
            tokens_in INTEGER NOT NULL,      -- there were: of the prompt without compaction; about
            tokens_sent INTEGER NOT NULL,    -- were sent: by the server's count if it gave one
            cached_expected INTEGER NOT NULL,  -- had been sent before, as counted here; about
            cached_reported INTEGER,         -- that the server says it had; NULL: it does not say
            completion_tokens INTEGER NOT NULL,
            cache TEXT NOT NULL,             -- what became of the prefix: see ledger.CacheEffect
            why TEXT NOT NULL,               -- of that, in a few words
            compacted INTEGER NOT NULL,      -- texts that were compacted for it
            reason TEXT NOT NULL,            -- why there was a compaction, or none
            before INTEGER,                  -- tokens of the prompt that was compacted, NULL: none
            after INTEGER,                   -- tokens that became of them
            lost INTEGER,                    -- tokens the server had, and read again because of it
            memory_calls INTEGER NOT NULL,   -- calls of the memory's tools that it answered with
            error TEXT NOT NULL              -- why there was no answer; '': there was
        )""",
        "CREATE INDEX rounds_session ON rounds (session, at)",
        "CREATE INDEX rounds_at ON rounds (at)",
        """
        CREATE TABLE uses (                  -- what a round did with a memory
            handle TEXT NOT NULL,
            round INTEGER NOT NULL REFERENCES rounds (id) ON DELETE CASCADE,
            how TEXT NOT NULL,               -- 'compacted', or the tool that asked it back
            PRIMARY KEY (handle, round, how)
        ) WITHOUT ROWID""",
        "CREATE INDEX uses_round ON uses (round)",
        """
        CREATE TRIGGER uses_forget AFTER DELETE ON memories BEGIN
            DELETE FROM uses WHERE handle = old.handle;
        END""",
        """
        CREATE TABLE days (                  -- sums over rounds, which are kept longer than those
            day TEXT NOT NULL,               -- date where it was written, such as '2026-11-30'
            session TEXT NOT NULL,
            project TEXT NOT NULL,
            agent TEXT NOT NULL,
            model TEXT NOT NULL,
            first_at REAL NOT NULL,
            last_at REAL NOT NULL,
            requests INTEGER NOT NULL,
            rounds INTEGER NOT NULL,
            tokens_in INTEGER NOT NULL,
            tokens_sent INTEGER NOT NULL,
            cached INTEGER NOT NULL,         -- as reported, or if it is not, as expected
            prefilled INTEGER NOT NULL,      -- sent and not cached
            estimated INTEGER NOT NULL,      -- rounds of which nothing was reported
            cached_expected INTEGER NOT NULL,
            cached_reported INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            compactions INTEGER NOT NULL,
            compacted INTEGER NOT NULL,
            memory_calls INTEGER NOT NULL,
            fallbacks INTEGER NOT NULL,
            failures INTEGER NOT NULL,
            PRIMARY KEY (day, session, project, agent, model)
        ) WITHOUT ROWID""",
        "CREATE INDEX days_session ON days (session)",
        # Damaged metadata, which an older version let in, harms nobody.
        """CREATE INDEX memories_project ON memories (
            CASE WHEN json_valid(metadata) THEN json_extract(metadata, '$."project"') END
        )""",
    ):
        connection.execute(statement)


def m006_record_compressors(connection: Connection) -> None:
    """Record which compressor made each row; keep shortened texts beside latents.

    Latents are found by their texts, too: a text that comes again, in an original that has grown,
    is not compressed again.
    """
    for statement in (
        "ALTER TABLE spaces ADD COLUMN compressor TEXT NOT NULL DEFAULT 'clara'",
        "ALTER TABLE spaces ADD COLUMN pooling TEXT NOT NULL DEFAULT 'flat'",
        "ALTER TABLE latents ADD COLUMN digest BLOB",  # of the chunk's text; NULL: not known
        "CREATE INDEX latents_digest ON latents (digest) WHERE digest IS NOT NULL",
        """
        CREATE TABLE shorteners (            -- a textual compressor, as spaces has the latent one
            id INTEGER PRIMARY KEY,
            compressor TEXT NOT NULL,
            fingerprint TEXT NOT NULL UNIQUE,
            ratio REAL NOT NULL              -- tokens of a chunk for each of its shortened text
        )""",
        """
        CREATE TABLE shortened (
            id INTEGER PRIMARY KEY,
            shortener_id INTEGER NOT NULL REFERENCES shorteners (id) ON DELETE CASCADE,
            chunk_id INTEGER NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
            crc INTEGER NOT NULL,
            data BLOB NOT NULL,              -- UTF-8
            UNIQUE (shortener_id, chunk_id)
        )""",
        "CREATE INDEX shortened_chunk ON shortened (chunk_id)",
        """
        CREATE TABLE pending_texts (         -- as pending, for the shortener, if there is one
            content_id INTEGER PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
            attempts INTEGER NOT NULL DEFAULT 0,
            error TEXT
        )""",
        # Whether a content is new or is cut anew, its chunks have no shortened texts.
        """
        CREATE TRIGGER chunks_to_shorten AFTER INSERT ON chunks
        WHEN EXISTS (SELECT 1 FROM shorteners) BEGIN
            INSERT OR IGNORE INTO pending_texts (content_id) VALUES (new.content_id);
        END""",
    ):
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_create_originals,
    m002_create_latents,
    m003_create_blocks,
    m004_index_descriptions,
    m005_create_ledger,
    m006_record_compressors,
)


def migrate(connection: Connection, path: Path, *, obstacle: str | None = None) -> None:
    """Bring a file up to date, in one transaction; an older file is backed up first.

    Args:
        connection: A connection to the file.
        path: The file.
        obstacle: Why it can't be written; None if it can.

    Raises:
        StoreError: The file was made by a newer clara-mlx, or is another program's database, or it
            has to be brought up to date and can't be written.
    """
    version = _read_version(connection, path)
    if obstacle and version != len(MIGRATIONS):
        what = "there is no memory in it yet" if version == 0 else "its format is an older one"
        raise StorageFailed(f"{path}: {what}, and it can't be written: {obstacle}")
    if obstacle:
        return
    use_wal(connection)
    if version == len(MIGRATIONS):
        return
    with transaction(connection):
        # Another process may have come first while this one waited.
        version = _read_version(connection, path)
        if 0 < version < len(MIGRATIONS):
            _back_up(path, version)
        for step in range(version, len(MIGRATIONS)):
            MIGRATIONS[step](connection)
            connection.execute(f"PRAGMA user_version = {step + 1}")
        connection.execute("COMMIT")


def _read_version(connection: Connection, path: Path) -> int:
    """The number of migrations that a file has had; refuses files that are not ours to change."""
    # One statement, so that it is one moment of the file.
    version, tables, ours = connection.execute(
        "SELECT (SELECT user_version FROM pragma_user_version), count(*), "
        "count(*) FILTER (WHERE name IN ('contents', 'memories', 'chunks', 'chunk_text')) "
        "FROM sqlite_schema"
    ).fetchone()
    if tables and (version < 1 or ours < 4):
        raise StoreError(f"{path}: this is another program's database; choose another file")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: its format is {version}, but this clara-mlx reads up to "
            f"{len(MIGRATIONS)}; update clara-mlx"
        )
    return int(version) if tables else 0


def _back_up(path: Path, version: int) -> None:
    """Copy the file to ``<name>.v<version>.backup`` beside it, unless that was done before.

    The caller's transaction, which has changed nothing yet, keeps others from doing the same.
    """
    backup = path.with_name(f"{path.name}.v{version}.backup")
    if backup.exists():
        return
    clear_leftovers(backup)
    reader = connect(path)
    try:
        with partial_file(backup, private=True) as partial:
            reader.execute("VACUUM INTO ?", (str(partial),))
    except (OSError, driver().Error) as error:
        raise StorageFailed(
            f"{path}: can't be backed up before an upgrade: {error}",
            transient=is_transient(error),
        ) from error
    finally:
        reader.close()
