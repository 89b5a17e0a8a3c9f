"""Parts of words, such as ``serName`` of ``getUserName``: an index that a team may want.

The words in an identifier are found without it, as are beginnings of hexadecimal ids. It has the
trigrams of each text's different words, and takes about as much as the index of words itself. It is
made on request (`index`), used from then on, and made of what PostgreSQL has built in, since not
every server has pg_trgm.

With it, a word of a query that no text has stands for the longer words that it is a part of.
"""

from __future__ import annotations

from collections.abc import Sequence

from clara_mlx.store.postgres.database import PostgresDatabase

# The index, and the function that it is of.
_INDEX = "chunk_text_parts"
_FUNCTION = "trigrams"

# The fewest characters of a part: shorter ones are in too many words.
_LEAST = 4

# The most words that a part stands for.
_MOST_WORDS = 8

# Texts that are looked through for those words.
_MOST_TEXTS = 200


def index(database: PostgresDatabase) -> None:
    """Make the index, while others read and write; one that failed is made again."""
    with database.outside() as connection:
        connection.run(
            f"CREATE OR REPLACE FUNCTION {_FUNCTION}(words tsvector) RETURNS text[] "
            "LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN ("
            "SELECT coalesce(array_agg(DISTINCT substr(word, at, 3)), '{}') "
            "FROM unnest(tsvector_to_array(words)) AS word, "
            "generate_series(1, length(word) - 2) AS at)"
        )
        connection.run(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
        connection.run(
            f"CREATE INDEX CONCURRENTLY {_INDEX} ON chunk_text "
            f"USING gin ({_FUNCTION}(words)) WITH (fastupdate = off)"
        )


def drop(database: PostgresDatabase) -> None:
    """Drop the index."""
    with database.outside() as connection:
        connection.run(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")


def is_indexed(database: PostgresDatabase) -> bool:
    """Whether there is an index that can be used."""
    rows = database.read(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(?)", (_INDEX,)
    )
    return bool(rows and rows[0][0])


def containing(database: PostgresDatabase, parts: Sequence[str]) -> list[list[str]]:
    """For each part, some words of chunks that it is a part of; the most common ones first."""
    return [_containing(database, part) if len(part) >= _LEAST else [] for part in parts]


def _containing(database: PostgresDatabase, part: str) -> list[str]:
    trigrams = sorted({part[at : at + 3] for at in range(len(part) - 2)})
    rows = database.read(
        "SELECT word FROM ("
        f"SELECT words FROM chunk_text WHERE {_FUNCTION}(words) @> ?::text[] LIMIT ?) AS found, "
        "unnest(tsvector_to_array(words)) AS word "
        "WHERE strpos(word, ?) > 0 GROUP BY word ORDER BY count(*) DESC, word LIMIT ?",
        (trigrams, _MOST_TEXTS, part, _MOST_WORDS),
    )
    return [row[0] for row in rows]
