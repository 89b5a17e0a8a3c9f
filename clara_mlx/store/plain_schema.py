"""The tables that `plain_sqlite` writes; docs/EXPORT.md describes each column."""

from __future__ import annotations

#: The version of the tables, in `about`; it grows with every change of what a column means.
FORMAT = 1

#: Statements that make the tables.
SCHEMA = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE originals (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    text TEXT NOT NULL,
    data BLOB
)""",
    """CREATE TABLE memories (
    handle TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    source TEXT,
    session TEXT,
    project TEXT,
    original INTEGER NOT NULL REFERENCES originals (id),
    metadata TEXT NOT NULL
)""",
    """CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    original INTEGER NOT NULL REFERENCES originals (id),
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    tokens INTEGER
)""",
    """CREATE TABLE blocks (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    handle TEXT,
    text TEXT NOT NULL
)""",
    """CREATE TABLE mentions (
    block TEXT NOT NULL REFERENCES blocks (id),
    handle TEXT NOT NULL REFERENCES memories (handle),
    PRIMARY KEY (block, handle)
)""",
    """CREATE TABLE rounds (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    session TEXT,
    project TEXT,
    agent TEXT,
    api TEXT NOT NULL,
    model TEXT NOT NULL,
    served_by TEXT NOT NULL,
    number INTEGER NOT NULL,
    seconds REAL NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_sent INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    prefilled INTEGER NOT NULL,
    cached_expected INTEGER NOT NULL,
    cached_reported INTEGER,
    completion_tokens INTEGER NOT NULL,
    cache TEXT NOT NULL,
    why TEXT NOT NULL,
    compacted INTEGER NOT NULL,
    reason TEXT NOT NULL,
    before INTEGER,
    after INTEGER,
    lost INTEGER,
    memory_calls INTEGER NOT NULL,
    error TEXT NOT NULL
)""",
    """CREATE TABLE uses (
    handle TEXT NOT NULL REFERENCES memories (handle),
    round INTEGER NOT NULL REFERENCES rounds (id),
    how TEXT NOT NULL,
    PRIMARY KEY (handle, round, how)
)""",
    """CREATE TABLE days (
    day TEXT NOT NULL,
    session TEXT,
    project TEXT,
    agent TEXT,
    model TEXT NOT NULL,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    requests INTEGER NOT NULL,
    rounds INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_sent INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    prefilled INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    cached_expected INTEGER NOT NULL,
    cached_reported INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    compactions INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    memory_calls INTEGER NOT NULL,
    fallbacks INTEGER NOT NULL,
    failures INTEGER NOT NULL
)""",
)

#: Statements that follow when all rows are there.
AT_THE_END = (
    "CREATE INDEX memories_created_at ON memories (created_at)",
    "CREATE INDEX memories_source ON memories (source)",
    "CREATE INDEX memories_session ON memories (session)",
    "CREATE INDEX memories_project ON memories (project)",
    "CREATE INDEX memories_original ON memories (original)",
    "CREATE INDEX chunks_original ON chunks (original)",
    "CREATE INDEX mentions_handle ON mentions (handle)",
    "CREATE INDEX rounds_session ON rounds (session, at)",
    "CREATE INDEX uses_round ON uses (round)",
    "CREATE INDEX days_day ON days (day)",
    # Written so that datasette recognises it.
    'CREATE VIRTUAL TABLE originals_fts USING fts5 (text, content="originals", content_rowid="id")',
    "INSERT INTO originals_fts (originals_fts) VALUES ('rebuild')",
    """CREATE VIEW sessions AS
SELECT m.session AS session, count(*) AS memories, min(m.created_at) AS first_at,
    max(m.created_at) AS last_at, sum(o.bytes) AS bytes
FROM memories m JOIN originals o ON o.id = m.original
WHERE m.session IS NOT NULL GROUP BY m.session""",
    """CREATE VIEW chunk_texts AS
SELECT c.id AS id, m.handle AS handle, c.start AS start, c.end AS end,
    substr(o.text, c.start + 1, c.end - c.start) AS text
FROM chunks c JOIN originals o ON o.id = c.original JOIN memories m ON m.original = o.id""",
)
