"""Opening a store, its connections, and what its errors say."""

import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fan_identity.domain.dead_letters import RedriveAttempt
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters, SqlitePositions
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

FANI = 0x46414E49


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.db"


def foreign(path, *, application_id=0, version=0):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.execute(f"PRAGMA application_id={application_id}")
    connection.execute(f"PRAGMA user_version={version}")
    connection.commit()
    connection.close()


def refused(path, kind=UsageError, **more):
    with pytest.raises(kind) as caught:
        _ = SqliteStore(path, **more).connection
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_store_is_made_and_found_again(path):
    SqlitePositions(SqliteStore(path)).commit("w", "f", "7")
    assert SqlitePositions(SqliteStore(path, create=False)).load("w", "f") == "7"
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (FANI,)
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    assert SqlitePositions(SqliteStore(path)).load("w", "f") == ""


def test_making_the_object_opens_nothing(path):
    SqliteStore(path)
    assert not path.exists()


def test_a_folder_is_refused(tmp_path):
    assert "is a folder" in refused(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    message = refused(tmp_path / "missing" / "s.db")
    assert f"no folder {tmp_path / 'missing'}" in message
    assert "four slashes" in message


def test_a_missing_file_is_not_made_where_only_reading_is_meant(path):
    assert "does not exist" in refused(path, create=False)
    assert not path.exists()


def test_a_file_that_is_not_sqlite_is_left_alone(path):
    path.write_bytes(b"activityId,activityType\n" * 100)
    assert "not an SQLite file" in refused(path)
    assert path.read_bytes() == b"activityId,activityType\n" * 100


def test_another_programs_database_is_left_alone(path):
    foreign(path)
    before = path.read_bytes()
    assert "of another program" in refused(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 4, 99])
def test_another_format_is_refused(path, version):
    foreign(path, application_id=FANI, version=version)
    assert f"has format {version}, this program reads 3" in refused(path)


def of_format_1(path):
    """A store as version 0.1.0 of the program made it, with a letter in it."""
    store = SqliteStore(path)
    store.connection.executescript(
        "DROP TABLE dead_letter_attempts; DROP INDEX dead_letters_by_time; DROP INDEX dead_letters_waiting; "
        "DROP INDEX dead_letters_redriven; DROP INDEX dead_letters_by_activity; "
        "ALTER TABLE dead_letters DROP COLUMN code_version; PRAGMA user_version=1; "
        "INSERT INTO dead_letters VALUES ('a', 'w', 'r', 'e', '', 1, 'q', NULL, 's', 'p', x'00ff', 7, NULL)"
    )
    store.close()


def test_a_store_of_an_earlier_version_is_brought_up_to_date_and_keeps_what_it_holds(path, tmp_path):
    of_format_1(path)
    letters = SqliteDeadLetters(SqliteStore(path))
    (stored,) = letters.select()
    assert (stored.letter.payload, stored.letter.code_version, stored.written_at_ms) == (b"\0\xff", "", 7)
    letters.record([RedriveAttempt("a", 9, "queued", "", "r")])
    assert len(SqliteDeadLetters(SqliteStore(path)).history("a")) == 1
    new = SqliteStore(tmp_path / "new.db")

    def schema(store):
        names = store.connection.execute("SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name").fetchall()
        columns = [store.connection.execute(f"PRAGMA table_info({table})").fetchall() for _, table, _ in names]
        return names, columns, store.connection.execute("PRAGMA user_version").fetchall()

    assert schema(SqliteStore(path)) == schema(new), "as if it had been made today"


def test_of_two_that_bring_a_store_up_to_date_at_once_one_does(path):
    of_format_1(path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: len(SqliteDeadLetters(SqliteStore(path)).select()), range(8)))
    assert found == [1] * 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_may_not_be_written_says_so(path):
    _ = SqliteStore(path).connection
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(BackendUnavailableError, match="permissions"):
            SqlitePositions(SqliteStore(path)).commit("w", "f", "7")
    finally:
        path.parent.chmod(0o700)


def test_a_pickled_store_opens_its_own_connection(path):
    store = SqliteStore(path)
    SqlitePositions(store).commit("w", "f", "7")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.path == path
    assert copy.connection is not store.connection
    assert SqlitePositions(copy).load("w", "f") == "7"


def test_a_thread_keeps_its_connection_and_has_its_own(path):
    store = SqliteStore(path)
    with ThreadPoolExecutor(1) as pool:
        theirs, again = pool.submit(lambda: store.connection).result(), pool.submit(lambda: store.connection).result()
    assert theirs is again
    assert store.connection is store.connection
    assert store.connection is not theirs


def test_threads_write_at_the_same_time_and_lose_nothing(path):
    store = SqliteStore(path)
    table = SqliteTable(store, "t")
    start = threading.Barrier(4)

    def write(worker):
        start.wait(timeout=30)
        for number in range(25):
            table.put({"PK": f"w{worker}", "SK": f"{number:02d}"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(list(table.scan())) == 100


def test_a_store_is_made_once_by_many_at_a_time(tmp_path):
    # Each round is a race that a wrong order of reads loses now and then; thirty rounds lose it nearly always.
    for number in range(30):
        store = SqliteStore(tmp_path / f"{number}.db")
        start = threading.Barrier(6)

        def commit(worker, store=store, start=start):
            start.wait(timeout=30)
            SqlitePositions(store).commit(worker, "f", "1")
            store.close()

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(commit, "abcdef"))
        assert [SqlitePositions(store).load(worker, "f") for worker in "abcdef"] == ["1"] * 6
        store.close()


def test_processes_make_the_schema_at_the_same_time(path):
    code = (
        "import sys; from pathlib import Path\n"
        "from fan_identity.io.sqlite.store import SqliteStore\n"
        "from fan_identity.io.sqlite.dead_letters import SqlitePositions\n"
        "sys.stdin.readline()\n"
        "SqlitePositions(SqliteStore(Path(sys.argv[1]))).commit(sys.argv[2], 'f', '1')\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(number)], stdin=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    positions = SqlitePositions(SqliteStore(path))
    assert [positions.load(str(number), "f") for number in range(3)] == ["1"] * 3


def test_a_forked_process_opens_its_own_connection(path):
    store = SqliteStore(path)
    parents = store.connection
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def child():
        answers.put(store.connection is not parents)
        SqlitePositions(store).commit("child", "f", "1")

    process = context.Process(target=child)
    process.start()
    assert answers.get(timeout=30) is True
    process.join(30)
    assert process.exitcode == 0
    assert store.connection is parents
    assert SqlitePositions(store).load("child", "f") == "1"


def test_a_closed_store_opens_again(path):
    store = SqliteStore(path)
    store.close()
    SqlitePositions(store).commit("w", "f", "7")
    store.close()
    store.close()
    assert SqlitePositions(store).load("w", "f") == "7"


def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(path):
    store = SqliteStore(path)
    table = SqliteTable(store, "t")

    class Stop(BaseException):
        pass

    with pytest.raises(Stop), store.transaction() as connection:
        connection.execute("INSERT INTO positions VALUES ('w', 'f', '1')")
        raise Stop
    assert not store.connection.in_transaction
    assert SqlitePositions(store).load("w", "f") == ""
    table.put({"PK": "a", "SK": "b"})
    assert table.get("a", "b") is not None


def test_programming_errors_are_not_dressed_up(path):
    store = SqliteStore(path)
    with pytest.raises(sqlite3.ProgrammingError), store.transaction() as connection:
        connection.execute("INSERT INTO positions VALUES (?, ?, ?)", ("too few",))
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as connection:
        connection.execute("INSERT INTO positions VALUES (NULL, 'f', '1')")


def test_a_full_disk_is_an_unavailable_backend_and_nothing_committed_is_lost(path):
    store = SqliteStore(path)
    table = SqliteTable(store, "t")
    table.put({"PK": "a", "SK": "1"})
    store.connection.execute("PRAGMA max_page_count=1")  # SQLite raises it to what there is already
    with pytest.raises(BackendUnavailableError, match="the disk is full; free space") as caught:
        table.batch_put([{"PK": "a", "SK": str(number), "text": "x" * 1_000} for number in range(2, 500)])
    assert str(path) in str(caught.value)
    assert [item["SK"] for item in table.query("a")] == ["1"]
    store.connection.execute("PRAGMA max_page_count=1000000")
    table.put({"PK": "a", "SK": "2"})
    assert [item["SK"] for item in table.query("a")] == ["1", "2"]


def test_a_locked_store_is_an_unavailable_backend(path, monkeypatch):
    monkeypatch.setattr("fan_identity.io.sqlite.store._BUSY_TIMEOUT_SECONDS", 0.01)
    store = SqliteStore(path)
    positions = SqlitePositions(store)
    positions.commit("w", "f", "1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnavailableError, match="another process kept it locked"):
        positions.commit("w", "f", "2")
    assert positions.load("w", "f") == "1", "readers are not locked out"
    other.execute("ROLLBACK")
    positions.commit("w", "f", "3")
    assert positions.load("w", "f") == "3"


def test_a_damaged_store_is_an_unavailable_backend(path):
    store = SqliteStore(path)
    SqliteTable(store, "t").batch_put([{"PK": f"{number}", "SK": "x" * 500} for number in range(200)])
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    with path.open("r+b") as file:
        file.seek(8 * 4_096)
        file.write(b"\xa5" * 4_096 * 20)
    with pytest.raises(BackendUnavailableError, match="may be damaged"):
        list(SqliteTable(SqliteStore(path), "t").scan())
