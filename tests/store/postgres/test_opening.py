"""Opening a team's database: what is refused, what is missing, and what each error says to do."""

from __future__ import annotations

import logging
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import postgres
import psycopg
import pytest

from clara_mlx.errors import Busy, Closed, ReadOnly, StorageFailed, StoreError
from clara_mlx.memory import Memory
from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals
from clara_mlx.store.postgres import migrations
from clara_mlx.store.postgres.errors import translated
from clara_mlx.store.postgres.rows import escape, unescape

PASSWORD = "ought-not-be-seen"


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@contextmanager
def a_role(url: str, name: str, password: str = "") -> Iterator[str]:
    """The URL with a new role that may do nothing; it and what it owns are dropped afterwards."""
    run(url, f"CREATE ROLE {name} LOGIN" + (f" PASSWORD '{password}'" if password else ""))
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        yield parts._replace(netloc=f"{name}@{host}").geturl()
    finally:
        run(url, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


# -- the URL -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://someone:{PASSWORD}@db.example:5432/team",
        f"postgres://someone:{PASSWORD}@db.example/team?sslmode=require",
        f"postgresql://db.example/team?user=someone&password={PASSWORD}",
        f"postgresql://db.example/team?sslpassword={PASSWORD}",
    ],
)
def test_a_password_in_the_url_is_refused(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreError, match="PGPASSFILE") as refused:
        Memory.open(url)
    error: BaseException | None = refused.value
    assert "dbname team" in str(error)
    while error is not None:
        assert PASSWORD not in f"{error!r}"
        error = error.__cause__ or error.__context__
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("url", ["postgresql://[::1/x", f"postgresql://a:{PASSWORD}@h:x%%/d?q"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(StoreError, match="one looks like this: postgresql://") as refused:
        open_store(url)
    assert PASSWORD not in str(refused.value) and refused.value.__suppress_context__


def test_a_service_file_names_the_database(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(postgres_url)
    lines = [f"{name}={value}" for name, value in parts.items() if value]
    (tmp_path / "services").write_text("\n".join(["[team]", *lines]) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with Memory.open("postgresql:///?service=team") as memory:
        handle = memory.remember("found by its service")
    with Memory.open(postgres_url) as memory:
        assert memory.has(handle)


def test_a_password_file_is_read(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        row = connection.execute("SHOW hba_file").fetchone()
        assert row is not None
        rules = Path(row[0])
        try:
            before = rules.read_text()
            rules.write_text(f"local all with_password scram-sha-256\n{before}")
        except OSError:
            pytest.skip("this server's rules can't be changed from here")
        try:
            connection.execute("SELECT pg_reload_conf()")
            file = tmp_path / "passwords"
            file.write_text(f"*:*:*:with_password:{PASSWORD}\n")
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)
            with a_role(postgres_url, "with_password", PASSWORD) as url:
                monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
                deadline = time.monotonic() + 10
                said = ""
                while "no password supplied" not in said:  # the rules take a moment
                    assert time.monotonic() < deadline, said
                    try:
                        open_store(url).close()
                    except StorageFailed as error:
                        said = str(error)
                monkeypatch.setenv("PGPASSFILE", str(file))
                with pytest.raises(ReadOnly, match="permission denied for schema clara_mlx"):
                    open_store(url)  # so the password was right
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")


def test_another_schema_is_another_memory(empty_postgres_url: str) -> None:
    team = with_option(empty_postgres_url, "options=-csearch_path%3Dteam")
    with Memory.open(empty_postgres_url) as one, Memory.open(team) as other:
        handle = one.remember("of one")
        assert not other.has(handle)
        assert other.remember("of the other", handle=handle) == handle
        assert one.original(handle) == "of one" and other.original(handle) == "of the other"


# -- what is missing -----------------------------------------------------------------------------


def test_without_psycopg_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("clara_mlx.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r'pip install "clara-mlx\[postgres\]"'):
        open_store("postgresql:///team")


def test_a_server_that_is_not_there() -> None:
    began = time.monotonic()
    with pytest.raises(StorageFailed, match="can't be reached") as error:
        open_store("postgresql://127.0.0.1:1/team?connect_timeout=3")
    assert error.value.transient and time.monotonic() - began < 5


def test_a_database_that_is_not_there(postgres_url: str) -> None:
    with pytest.raises(StorageFailed, match='database "none" does not exist'):
        open_store(postgres.with_database(postgres_url, "none"))


def test_an_extension_that_the_server_does_not_have(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_VECTOR", "no_such_extension")
    with pytest.raises(StorageFailed, match=r"extension vector \(pgvector\), which its server"):
        open_store(empty_postgres_url)


def test_a_role_that_may_not_make_what_is_needed(empty_postgres_url: str) -> None:
    with a_role(empty_postgres_url, "guest") as url:
        with pytest.raises(StorageFailed, match="CREATE SCHEMA clara_mlx AUTHORIZATION guest"):
            open_store(url)
        run(empty_postgres_url, "CREATE SCHEMA clara_mlx AUTHORIZATION guest")
        with pytest.raises(StorageFailed, match="administrator run in this database: CREATE EXT"):
            open_store(url)
        run(empty_postgres_url, "CREATE EXTENSION vector")
        with Memory.open(url) as memory:
            assert memory.has(memory.remember("now it may"))


def test_a_role_that_may_only_read_or_write_rows(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Memory.open(postgres_url) as memory:
        handle = memory.remember("for all to read")
    with a_role(postgres_url, "reader") as url:
        run(
            postgres_url,
            "GRANT USAGE ON SCHEMA clara_mlx TO reader",
            "GRANT SELECT ON ALL TABLES IN SCHEMA clara_mlx TO reader",
        )
        with Memory.open(url) as memory:
            assert memory.original(handle) == "for all to read"
            with pytest.raises(ReadOnly, match="this role may not write it"):
                memory.remember("no")
        run(
            postgres_url,
            "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA clara_mlx TO reader",
        )
        with Memory.open(url) as memory:
            forgotten = memory.remember("a guest's")
            assert memory.forget(forgotten) == 1
            assert "only the owner of its tables can vacuum" in caplog.text
            with pytest.raises(ReadOnly, match="only the owner"):
                memory.vacuum()
        read_only = with_option(postgres_url, "options=-cdefault_transaction_read_only%3Don")
        with Memory.open(read_only) as memory, pytest.raises(ReadOnly, match="read-only"):
            memory.forget(handle)


def test_another_programs_schema(empty_postgres_url: str) -> None:
    run(empty_postgres_url, "CREATE SCHEMA clara_mlx", "CREATE TABLE clara_mlx.memories (a int)")
    with pytest.raises(StoreError, match="another program's"):
        open_store(empty_postgres_url)


def test_a_newer_format(postgres_url: str) -> None:
    run(postgres_url, "UPDATE clara_mlx.meta SET value = '1000' WHERE key = 'format'")
    with pytest.raises(StoreError, match="its format is 1000"):
        open_store(postgres_url)


def test_many_open_one_new_database(empty_postgres_url: str) -> None:
    handles: list[str] = []

    def open_and_remember(number: int) -> None:
        with Memory.open(empty_postgres_url) as memory:
            handles.append(memory.remember(f"text {number}"))

    threads = [threading.Thread(target=open_and_remember, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Memory.open(empty_postgres_url) as memory:
        assert {one.handle for one in memory.list()} == set(handles) and len(handles) == 6


# -- connections ---------------------------------------------------------------------------------


def end_connections(url: str) -> None:
    """What a restart of the server, or an administrator, does."""
    run(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()",
    )


def test_it_connects_again(postgres_url: str) -> None:
    with Memory.open(postgres_url) as memory:
        first = memory.remember("before")
        for _ in range(3):
            end_connections(postgres_url)
            assert memory.original(first) == "before"
            end_connections(postgres_url)
            assert memory.has(memory.remember("after"))
            end_connections(postgres_url)
            assert memory.forget(where={"handle": first}) in (0, 1)
            first = memory.remember("before")


def test_a_transaction_that_loses_its_connection_is_not_done(postgres_url: str) -> None:
    store = open_store(postgres_url)
    with pytest.raises(StorageFailed) as error, store.write() as connection:
        connection.execute("INSERT INTO meta VALUES ('lost', '1')")
        end_connections(postgres_url)
        connection.execute("INSERT INTO meta VALUES ('lost too', '1')")
    assert error.value.transient
    assert not store.read("SELECT 1 FROM meta WHERE key IN ('lost', 'lost too')")
    store.close()
    store.close()
    with pytest.raises(Closed):
        store.read("SELECT 1")


def test_a_statement_that_takes_too_long(postgres_url: str) -> None:
    store = open_store(with_option(postgres_url, "options=-cstatement_timeout%3D50"))
    with pytest.raises(Busy, match="statement_timeout") as error:
        store.read("SELECT pg_sleep(10)")
    assert error.value.transient
    assert store.read("SELECT 1")[0][0] == 1
    store.close()


def test_ours_is_the_time_out_where_there_is_none(postgres_url: str) -> None:
    store = open_store(postgres_url)
    (row,) = store.read(
        "SELECT current_setting('statement_timeout') AS statement, "
        "current_setting('lock_timeout') AS lock, current_setting('application_name') AS name"
    )
    assert dict(row) == {"statement": "2min", "lock": "30s", "name": "clara-mlx"}
    store.close()


def test_more_threads_than_connections(postgres_url: str) -> None:
    store = open_store(postgres_url)
    found: list[int] = []

    def work(number: int) -> None:
        with store.write() as connection:
            connection.execute("INSERT INTO meta VALUES (?, '1')", (f"thread {number}",))
            found.append(store.read("SELECT ?::int AS n", (number,))[0]["n"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(40))
    store.close()


def test_texts_with_nul_are_written_as_two_characters() -> None:
    for text in ("", "a", "\0", "\x10", "\x100", "\x10\0", "\0\x10", "\x10\x100", "a\0\0b\x10\x10"):
        written = escape(text)
        assert "\0" not in written and unescape(written) == text
    assert len({escape(text) for text in ("\0", "\x10", "\x100", "\x10\x10")}) == 4


def test_the_url_has_a_short_name(postgres_url: str) -> None:
    store = open_store(postgres_url)
    assert store.path.name == urlsplit(postgres_url).path[1:]
    assert store.path.name not in parse_qs(urlsplit(postgres_url).query)
    store.close()


def test_an_older_database_is_brought_up_to_date_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Memory.open(postgres_url) as memory:
        handle = memory.remember("from before")
    newer = (*migrations.MIGRATIONS, "CREATE TABLE added (a int); INSERT INTO added VALUES (1)")
    monkeypatch.setattr(migrations, "MIGRATIONS", newer)
    stores: list[Originals] = []
    threads = [
        threading.Thread(target=lambda: stores.append(open_store(postgres_url))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.original(handle) for store in stores] == [(b"from before", "text")] * 4
    assert stores[0].read("SELECT count(*) FROM added")[0][0] == 1
    for store in stores:
        store.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", newer[:-1])
    with pytest.raises(StoreError, match="update clara-mlx"):
        open_store(postgres_url)


def test_an_upgrade_that_fails_changes_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*migrations.MIGRATIONS, "CREATE TABLE added (a int); SELECT nothing FROM nowhere")
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", broken)
        with pytest.raises(StorageFailed, match='"nowhere" does not exist'):
            open_store(postgres_url)
    with Memory.open(postgres_url) as memory:
        assert memory.has(memory.remember("as before"))


def test_what_another_process_removed_is_tried_again() -> None:
    error = translated(psycopg.errors.ForeignKeyViolation("chunks_fkey"), "postgresql:///team")
    assert error.transient and "others removed what this belongs to; try again" in str(error)
