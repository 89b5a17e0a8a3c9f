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


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_create_originals,
    m002_create_latents,
    m003_create_blocks,
    m004_index_descriptions,
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
