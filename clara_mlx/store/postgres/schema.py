"""The tables of a team's database, as numbered steps; the first makes those of today.

They are those of a file (`clara_mlx.store.migrations`), but for what the engines have each in their
own way: ids that are never used again, words and sketches for searching, metadata for filters.

Names are those of SQLite, so that most statements are the same. Columns whose values could be found
again in the statistics of a table keep none.
"""

from __future__ import annotations

#: Tables by which a schema is known to be a memory.
OURS = ("contents", "memories", "chunks", "meta")

_ORIGINALS = """
CREATE TABLE meta (key text PRIMARY KEY, value text);

CREATE TABLE contents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never used again: texts are cached by it
    sha256 bytea NOT NULL,               -- of the original's bytes
    kind text NOT NULL CHECK (kind IN ('text', 'bytes')),
    length integer NOT NULL,             -- bytes before compression
    compression text NOT NULL,           -- 'zlib' or 'none'
    data bytea NOT NULL,
    CONSTRAINT contents_sha256_key UNIQUE (sha256, kind)
);
ALTER TABLE contents ALTER data SET STORAGE EXTERNAL;  -- it is compressed already
ALTER TABLE contents ALTER data SET STATISTICS 0, ALTER sha256 SET STATISTICS 0;

-- A handle may be longer than an entry of an index, so the index has its digest.
CREATE FUNCTION digest_of(name text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sha256(convert_to(name, 'UTF8'));

CREATE TABLE memories (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    handle text COLLATE "C" NOT NULL,
    handle_key bytea NOT NULL GENERATED ALWAYS AS (digest_of(handle)) STORED,
    content_id bigint NOT NULL REFERENCES contents (id),
    source text COLLATE "C",
    session text COLLATE "C",
    created_at double precision NOT NULL,  -- seconds since 1970
    metadata text NOT NULL DEFAULT '{}',   -- JSON, as it was given
    about jsonb NOT NULL DEFAULT '{}',     -- of the metadata, what filters compare
    CONSTRAINT memories_handle_key UNIQUE (handle_key)
);
CREATE INDEX memories_handle ON memories USING hash (handle);
CREATE INDEX memories_content ON memories (content_id);
CREATE INDEX memories_source ON memories USING hash (source);
CREATE INDEX memories_session ON memories USING hash (session);
CREATE INDEX memories_created ON memories (created_at);
CREATE INDEX memories_about ON memories USING gin (about jsonb_path_ops);
ALTER TABLE memories ALTER handle SET STATISTICS 0, ALTER handle_key SET STATISTICS 0,
    ALTER source SET STATISTICS 0, ALTER session SET STATISTICS 0,
    ALTER metadata SET STATISTICS 0, ALTER about SET STATISTICS 0;

CREATE TABLE chunks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content_id bigint NOT NULL REFERENCES contents (id) ON DELETE CASCADE,
    start integer NOT NULL,              -- span in characters of the content's text
    "end" integer NOT NULL,
    tokens integer                       -- NULL: cut without a tokenizer, to be cut again
);
CREATE INDEX chunks_content ON chunks (content_id, start);
"""

# What a search by words looks for, see `vectors`. Words and frequencies are kept outside of their
# rows, which makes counting those that have a word fast; and their index has no list of pending
# entries, which each search would read.
_WORDS_OF = """
CREATE TABLE {table} (
    id bigint NOT NULL REFERENCES {of} (id) ON DELETE CASCADE,
    piece integer NOT NULL,              -- 0; a text with very many words has more
    length integer NOT NULL,             -- words, and parts of them
    frequencies bytea NOT NULL,          -- how often it has each, see `bm25`
    words tsvector NOT NULL,
    PRIMARY KEY (id, piece)
) WITH (toast_tuple_target = 128);
ALTER TABLE {table} ALTER words SET STATISTICS 0, ALTER frequencies SET STATISTICS 0,
    ALTER words SET STORAGE EXTERNAL, ALTER frequencies SET STORAGE EXTERNAL;
CREATE INDEX {table}_words ON {table} USING gin (words) WITH (fastupdate = off);
"""
_WORDS = "".join(
    _WORDS_OF.format(table=table, of=of)
    for table, of in (("chunk_text", "chunks"), ("memory_text", "memories"))
)

# The sketches of a space are in a table of their own, ``sketches_<id>``, made with the space.
_COMPRESSED = """
CREATE TABLE spaces (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    compressor text NOT NULL DEFAULT 'clara',
    fingerprint text NOT NULL UNIQUE,
    memory_tokens integer NOT NULL,
    hidden integer NOT NULL,
    pooling text NOT NULL DEFAULT 'flat',
    codec text NOT NULL,
    sketch_bits integer NOT NULL,
    sketch_seed bigint NOT NULL,
    mean bytea,                          -- float32; what sketches are centred on
    mean_count bigint NOT NULL DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0      -- grows when sketches are removed or made anew
);
CREATE TABLE latents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space_id bigint NOT NULL REFERENCES spaces (id) ON DELETE CASCADE,
    chunk_id bigint NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    crc bigint NOT NULL,
    data bytea NOT NULL,
    digest bytea,                        -- of the chunk's text; NULL: not known
    UNIQUE (space_id, chunk_id)
);
ALTER TABLE latents ALTER data SET STORAGE EXTERNAL;
ALTER TABLE latents ALTER data SET STATISTICS 0, ALTER digest SET STATISTICS 0;
CREATE INDEX latents_chunk ON latents (chunk_id);
CREATE INDEX latents_digest ON latents (digest) WHERE digest IS NOT NULL;

CREATE TABLE shorteners (                -- a textual compressor, as spaces has the latent one
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    compressor text NOT NULL,
    fingerprint text NOT NULL UNIQUE,
    ratio double precision NOT NULL      -- tokens of a chunk for each of its shortened text
);
CREATE TABLE shortened (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shortener_id bigint NOT NULL REFERENCES shorteners (id) ON DELETE CASCADE,
    chunk_id bigint NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    crc bigint NOT NULL,
    data bytea NOT NULL,                 -- UTF-8
    UNIQUE (shortener_id, chunk_id)
);
ALTER TABLE shortened ALTER data SET STATISTICS 0;
CREATE INDEX shortened_chunk ON shortened (chunk_id);
"""

# What waits to be compressed, and who is at it.
_WORK = """
-- Whoever compresses a content leases its row: nobody else does until the lease has expired.
CREATE TABLE pending (                   -- for the space that answers
    content_id bigint PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    leased_by text,                      -- the name of a worker
    leased_until timestamptz
);
CREATE TABLE pending_next (              -- for the space that takes its place when it is complete
    content_id bigint PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    leased_by text,
    leased_until timestamptz
);
CREATE TABLE pending_texts (             -- for the shortener, if there is one
    content_id bigint PRIMARY KEY REFERENCES contents (id) ON DELETE CASCADE,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    leased_by text,
    leased_until timestamptz
);
ALTER TABLE pending ALTER error SET STATISTICS 0;
ALTER TABLE pending_next ALTER error SET STATISTICS 0;
ALTER TABLE pending_texts ALTER error SET STATISTICS 0;
CREATE INDEX pending_leased ON pending (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX pending_next_leased ON pending_next (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX pending_texts_leased ON pending_texts (leased_by) WHERE leased_by IS NOT NULL;

-- Whether a content is new or is cut anew, its chunks have no latents and no shortened texts.
CREATE FUNCTION chunks_to_compress() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$ BEGIN
    INSERT INTO pending (content_id) SELECT DISTINCT content_id FROM added ON CONFLICT DO NOTHING;
    IF EXISTS (SELECT 1 FROM spaces OFFSET 1) THEN
        INSERT INTO pending_next (content_id) SELECT DISTINCT content_id FROM added
        ON CONFLICT DO NOTHING;
    END IF;
    IF EXISTS (SELECT 1 FROM shorteners) THEN
        INSERT INTO pending_texts (content_id) SELECT DISTINCT content_id FROM added
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chunks_to_compress AFTER INSERT ON chunks REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION chunks_to_compress();
"""

_BLOCKS = """
CREATE TABLE blocks (
    digest bytea PRIMARY KEY,            -- of what the block stands for
    kind text NOT NULL CHECK (kind IN ('piece', 'note', 'fold')),
    issued bytea NOT NULL,               -- SHA-256 of the block's own text
    text text NOT NULL,                  -- chosen once, never rewritten
    handle text COLLATE "C",             -- of the original; NULL: there is none, or see body
    body bytea                           -- zlib of a text that is no memory of its own
);
ALTER TABLE blocks ALTER text SET STATISTICS 0, ALTER body SET STATISTICS 0,
    ALTER handle SET STATISTICS 0, ALTER issued SET STATISTICS 0;
CREATE INDEX blocks_issued ON blocks (issued);

CREATE TABLE mentions (
    handle text COLLATE "C" NOT NULL,
    handle_key bytea NOT NULL GENERATED ALWAYS AS (digest_of(handle)) STORED
        REFERENCES memories (handle_key) ON DELETE CASCADE,
    block bytea NOT NULL REFERENCES blocks (digest) ON DELETE CASCADE,
    PRIMARY KEY (handle_key, block)
);
ALTER TABLE mentions ALTER handle SET STATISTICS 0, ALTER handle_key SET STATISTICS 0;
CREATE INDEX mentions_handle ON mentions USING hash (handle);
CREATE INDEX mentions_block ON mentions (block);
CREATE FUNCTION mentions_forget() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$ BEGIN
    DELETE FROM blocks WHERE digest = old.block;
    RETURN NULL;
END $$;
CREATE TRIGGER mentions_forget AFTER DELETE ON mentions
    FOR EACH ROW EXECUTE FUNCTION mentions_forget();

CREATE TABLE edits (
    chain bytea NOT NULL,                -- digest of a conversation up to and with a message
    part text NOT NULL,                  -- which text of that message
    block bytea NOT NULL REFERENCES blocks (digest) ON DELETE CASCADE,
    explains integer NOT NULL,           -- 1: how to get originals back is said here
    PRIMARY KEY (chain, part)
);
CREATE INDEX edits_block ON edits (block);
"""

_LEDGER = """
CREATE TABLE rounds (                    -- one prompt that was sent, and its answer
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at double precision NOT NULL,        -- when its preparation began; seconds since 1970
    session text COLLATE "C" NOT NULL,   -- '': of a conversation that was forgotten
    project text COLLATE "C" NOT NULL,   -- folder; '': not known
    agent text COLLATE "C" NOT NULL,     -- who asked, such as 'claude-cli'; '': not known
    api text NOT NULL,                   -- by which it was asked, such as 'chat'
    model text COLLATE "C" NOT NULL,     -- as its client names it
    served_by text NOT NULL,             -- 'reasoner', 'fallback' or 'memory'
    number integer NOT NULL,             -- 0 for a request's first; later ones answer its calls
    seconds double precision NOT NULL,   -- from then until the answer was complete
    tokens_in bigint NOT NULL,           -- there were: of the prompt without compaction; about
    tokens_sent bigint NOT NULL,         -- were sent: by the server's count if it gave one
    cached_expected bigint NOT NULL,     -- had been sent before, as counted here; about
    cached_reported bigint,              -- that the server says it had; NULL: it does not say
    completion_tokens bigint NOT NULL,
    cache text NOT NULL,                 -- what became of the prefix: see ledger.CacheEffect
    why text NOT NULL,                   -- of that, in a few words
    compacted integer NOT NULL,          -- texts that were compacted for it
    reason text NOT NULL,                -- why there was a compaction, or none
    before bigint,                       -- tokens of the prompt that was compacted, NULL: none
    after bigint,                        -- tokens that became of them
    lost bigint,                         -- tokens the server had, and read again because of it
    memory_calls integer NOT NULL,       -- calls of the memory's tools that it answered with
    error text NOT NULL                  -- why there was no answer; '': there was
);
ALTER TABLE rounds ALTER session SET STATISTICS 0, ALTER error SET STATISTICS 0;
CREATE INDEX rounds_session ON rounds USING hash (session);
CREATE INDEX rounds_at ON rounds (at);

CREATE TABLE uses (                      -- what a round did with a memory
    handle text COLLATE "C" NOT NULL,
    handle_key bytea NOT NULL GENERATED ALWAYS AS (digest_of(handle)) STORED,
    round bigint NOT NULL REFERENCES rounds (id) ON DELETE CASCADE,
    how text NOT NULL,                   -- 'compacted', or the tool that asked it back
    PRIMARY KEY (handle_key, round, how)
);
ALTER TABLE uses ALTER handle SET STATISTICS 0, ALTER handle_key SET STATISTICS 0;
CREATE INDEX uses_handle ON uses USING hash (handle);
CREATE INDEX uses_round ON uses (round);
CREATE FUNCTION uses_forget() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$ BEGIN
    DELETE FROM uses WHERE handle = old.handle;
    RETURN NULL;
END $$;
CREATE TRIGGER uses_forget AFTER DELETE ON memories
    FOR EACH ROW EXECUTE FUNCTION uses_forget();

CREATE TABLE days (                      -- sums over rounds, which are kept longer than those
    day text NOT NULL,                   -- date where it was written, such as '2026-11-30'
    session text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    agent text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    -- They may be longer than an entry of an index together, so the index has their digest.
    key bytea NOT NULL GENERATED ALWAYS AS (
        digest_of(length(session) || ',' || length(project) || ',' || length(agent) || ','
            || day || session || project || agent || model)) STORED PRIMARY KEY,
    first_at double precision NOT NULL,
    last_at double precision NOT NULL,
    requests bigint NOT NULL,
    rounds bigint NOT NULL,
    tokens_in bigint NOT NULL,
    tokens_sent bigint NOT NULL,
    cached bigint NOT NULL,              -- as reported, or if it is not, as expected
    prefilled bigint NOT NULL,           -- sent and not cached
    estimated bigint NOT NULL,           -- rounds of which nothing was reported
    cached_expected bigint NOT NULL,
    cached_reported bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    compactions bigint NOT NULL,
    compacted bigint NOT NULL,
    memory_calls bigint NOT NULL,
    fallbacks bigint NOT NULL,
    failures bigint NOT NULL
);
ALTER TABLE days ALTER session SET STATISTICS 0, ALTER key SET STATISTICS 0;
CREATE INDEX days_session ON days USING hash (session);
CREATE INDEX days_day ON days (day);
"""

#: Scripts, each of which brings a database from the number before it to its own, from 1 on.
MIGRATIONS = (_ORIGINALS + _WORDS + _COMPRESSED + _WORK + _BLOCKS + _LEDGER,)
